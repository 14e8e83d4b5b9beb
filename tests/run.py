# SPDX-License-Identifier: GPL-3.0-or-later
"""./dev test: everything CI runs, independent parts side by side, or one part of it.

Each part writes a log below .cache/logs/. A failing part's log is shown at once; at the end come
the closing lines of all the runners, as they wrote them.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.lab import scenarios
from tests.lab.steps import CACHE, ROOT, LabError, say, step
from tests.parts import floor, sanity

LOGS = CACHE / "logs"
SHOWN_LINES = 80  # of a failing part's log
# The collection as Python and Ansible see it: pytest must import it by its full name.
TREE = CACHE / "collections/ansible_collections/llmsec/hardening"

_COLOURS = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# pytest's last line, molecule's recap, the linters' verdicts
_CLOSING = re.compile(
    r"^=+ .*\b(passed|failed|error|skipped|no tests ran)\b.* =+$"
    r"|^\w+ +: actions=\d+ .*failed=\d+"
    r"|^(Passed|Failed): \d+ failure|^All checks passed|^Found \d+ error"
)

Part = Callable[[list[str]], list[list[str]]]


@dataclass(frozen=True)
class Outcome:
    """How one part ended."""

    name: str
    returncode: int
    seconds: float
    closing: list[str]


def _lint(words: list[str]) -> list[list[str]]:
    return [
        ["yamllint", "--strict", "."],
        ["ruff", "check", "."],
        ["ruff", "format", "--check", "."],
        ["ansible-lint", "--strict", *words],
    ]


def _unit(words: list[str]) -> list[list[str]]:
    return [["pytest", *(words or ["tests/unit"])]]


def _kernel(words: list[str]) -> list[list[str]]:
    return [["pytest", "tests/kernel", *words]]


PARTS: dict[str, Part] = {
    "lint": _lint,
    "unit": _unit,
    "kernel": _kernel,
    "sanity": sanity.commands,
    "floor": floor.commands,
}


def _molecule(scenario: str) -> list[list[str]]:
    """One scenario. What Molecule remembers of an earlier run is forgotten: its hosts are new."""
    memory = CACHE / "molecule" / scenario
    shutil.rmtree(memory, ignore_errors=True)
    test = ["molecule", "test", "--destroy=never", "--scenario-name", scenario]
    return [["env", f"MOLECULE_EPHEMERAL_DIRECTORY={memory}", *test]]


def _run(name: str, commands: Callable[[], list[list[str]]], *, show: bool = False) -> Outcome:
    """Run a part's commands one after the other; the first failure ends the part."""
    LOGS.mkdir(parents=True, exist_ok=True)
    log = LOGS / f"{name.replace(' ', '-')}.log"
    start, code = time.monotonic(), 0
    say(f"{name} …")
    with log.open("w") as out:
        try:
            for command in commands():
                code = _one(command, out.fileno(), show=show)
                if code != 0:
                    break
        except (LabError, OSError) as error:
            out.write(f"{error}\n")
            code = 1
    seconds = time.monotonic() - start
    text = _COLOURS.sub("", log.read_text(errors="replace"))
    say(f"{name}: {'ok' if code == 0 else f'FAILED ({code})'}, {seconds:.0f} s")
    if code != 0 and not show:
        print("\n".join(text.splitlines()[-SHOWN_LINES:]), flush=True)
    closing = [line for line in text.splitlines() if _CLOSING.search(line)]
    return Outcome(name, code, seconds, closing)


def _one(command: list[str], log: int, *, show: bool) -> int:
    """Run one command in the tree's place among collections, into its log or to the terminal."""
    os.write(log, f"$ {' '.join(command)}\n".encode())
    cwd = TREE if "pytest" in " ".join(command[:3]) else ROOT
    env = {**os.environ, "PWD": str(cwd), "NO_COLOR": "1"}
    if show:
        return subprocess.run(command, cwd=cwd, env=env, check=False).returncode
    return subprocess.run(
        command, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=False
    ).returncode


def _checks() -> list[Outcome]:
    """What needs no hosts, one after the other: the scenarios have the other core."""
    names = ("lint", "unit", "kernel", "sanity", "floor")
    return [_run(name, lambda name=name: PARTS[name]([])) for name in names]


def _scenarios(names: list[str], *, workers: int = 2) -> list[Outcome]:
    """Fresh hosts, then the scenarios, a few at once."""
    with step("Fresh hosts for the scenarios"):
        scenarios.reset(names)
    with ThreadPoolExecutor(workers) as pool:
        return list(pool.map(lambda name: _run(f"molecule {name}", lambda: _molecule(name)), names))


def everything() -> list[Outcome]:
    """All parts, as CI runs them; the hosts are removed afterwards."""
    try:
        with ThreadPoolExecutor(2) as pool:
            checks = pool.submit(_checks)
            hosts = pool.submit(_scenarios, scenarios.names())
            outcomes = checks.result() + hosts.result()
        return [*outcomes, _run("floor on hosts", floor.commands_on_hosts)]
    finally:
        _remove_hosts()


def _remove_hosts() -> None:
    """Hosts that do not go are said, and removed by the next run: the parts' verdicts stand."""
    try:
        scenarios.lab().down()
    except (LabError, OSError, subprocess.SubprocessError) as error:
        say(f"The hosts of the scenarios were not all removed: {error}")


def close(outcomes: list[Outcome]) -> int:
    """Print every runner's closing lines, then one line each; 1 when any part failed."""
    for outcome in outcomes:
        print(f"\n{outcome.name}")
        print("\n".join(outcome.closing or ["(no closing line)"]))
    failed = [outcome.name for outcome in outcomes if outcome.returncode != 0]
    total = sum(outcome.seconds for outcome in outcomes)
    print(f"\n{len(outcomes) - len(failed)} of {len(outcomes)} parts ok, {total:.0f} s of work")
    if failed:
        print(f"failed: {', '.join(failed)}; the logs are in {LOGS.relative_to(ROOT)}/")
    return 1 if failed else 0


def main(words: list[str]) -> int:
    match words:
        case []:
            shutil.rmtree(LOGS, ignore_errors=True)
            return close(everything())
        case ["molecule", *names]:
            unknown = set(names) - set(scenarios.names())
            if unknown:
                raise LabError(
                    f"no such scenario: {', '.join(sorted(unknown))} "
                    f"(there are: {', '.join(scenarios.names())})"
                )
            return close(_scenarios(names or scenarios.names()))
        case [name, *rest] if name in PARTS:
            return _run(name, lambda: PARTS[name](rest), show=True).returncode
    raise LabError(f"no such part: {words[0]} (there are: {', '.join(PARTS)}, molecule)")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        sys.exit(f"./dev test: {error}")
