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
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from tests.lab import scenarios
from tests.lab.steps import CACHE, ROOT, LabError, say, step
from tests.parts import floor, sanity

LOGS = CACHE / "logs"
SHOWN_LINES = 80  # of a failing part's log
WORKERS = 3  # for two processors: every part waits now and then
# The scenarios in the order of their start, so that none runs alone for long at the end
LONGEST = (
    "firewall_nftables", "litellm", "mtls", "firewall_iptables", "posture", "fresh", "policy",
    "api_key", "recovery", "alternative", "localai", "rollback", "llama_cpp", "refusals",
)  # fmt: skip
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


# In the order of their start: the linters' verdict is wanted early.
PARTS: dict[str, Part] = {
    "lint": _lint,
    "unit": _unit,
    "floor": floor.commands,
    "sanity": sanity.commands,
    "kernel": _kernel,
}


def _molecule(scenario: str) -> list[list[str]]:
    """One scenario. What Molecule remembers of an earlier run is forgotten: its hosts are new."""
    if scenario in scenarios.PROVIDED:
        scenarios.PROVIDED[scenario]()
    memory = CACHE / "molecule" / scenario
    shutil.rmtree(memory, ignore_errors=True)
    test = ["molecule", "test", "--destroy=never", "--scenario-name", scenario]
    return [["env", f"MOLECULE_EPHEMERAL_DIRECTORY={memory}", *test]]


# A part's name → how it ends
Jobs = dict[str, Future[Outcome]]


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
        except (LabError, OSError, subprocess.SubprocessError) as error:
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


def _after(needed: Future[Any], commands: Callable[[], list[list[str]]]) -> list[list[str]]:
    """Commands that need what another job makes; an error there is theirs."""
    needed.result()
    return commands()


def _turn(scenario: str) -> int:
    """A scenario's place in the queue; one that is not listed may take long."""
    return LONGEST.index(scenario) if scenario in LONGEST else -1


def _fresh_hosts(names: list[str]) -> None:
    with step("Fresh hosts for the scenarios"):
        scenarios.reset(names)


def _scenarios(pool: ThreadPoolExecutor, names: list[str], hosts: Future[None]) -> Jobs:
    """Queue the scenarios, each of which waits for the fresh hosts."""
    jobs: Jobs = {}
    for name in sorted(names, key=_turn):
        commands = partial(_after, hosts, partial(_molecule, name))
        jobs[name] = pool.submit(_run, f"molecule {name}", commands)
    return jobs


def everything() -> list[Outcome]:
    """All parts, as CI runs them, from one queue; the hosts are removed afterwards."""
    names = scenarios.names()
    try:
        with ThreadPoolExecutor(WORKERS) as pool:
            hosts = pool.submit(_fresh_hosts, names)
            jobs: Jobs = {name: pool.submit(_run, name, partial(PARTS[name], [])) for name in PARTS}
            jobs |= _scenarios(pool, names, hosts)
            needed = partial(_after, jobs[floor.SCENARIO], floor.commands_on_hosts)
            jobs["on hosts"] = pool.submit(_run, "floor on hosts", needed)
        return [job.result() for job in jobs.values()]
    finally:
        _remove_hosts()


def only_scenarios(names: list[str]) -> list[Outcome]:
    """Some scenarios; their hosts stay."""
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = _scenarios(pool, names, pool.submit(_fresh_hosts, names))
    return [job.result() for job in jobs.values()]


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
            return close(only_scenarios(names or scenarios.names()))
        case [name, *rest] if name in PARTS:
            return _run(name, lambda: PARTS[name](rest), show=True).returncode
    raise LabError(f"no such part: {words[0]} (there are: {', '.join(PARTS)}, molecule)")


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        sys.exit(f"./dev test: {error}")
