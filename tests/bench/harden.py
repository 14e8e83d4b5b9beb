# SPDX-License-Identifier: GPL-3.0-or-later
"""How long harden.yml takes: a first run and a re-run without changes, on one host and on four.

Each host is fresh (an open Ollama on a bare Debian). The re-runs are repeated and their median is
what counts; the machine, and what else runs on it, is part of every figure.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import time
from dataclasses import dataclass

from tests.lab import artifacts
from tests.lab.hosts import STATE, Host, Lab
from tests.lab.steps import CACHE, ROOT, LabError, say, step

RERUNS = 3
HOSTS = [f"bench-{number}" for number in range(1, 5)]
RESULT = CACHE / "bench-harden.json"

# ansible.posix.profile_tasks: "role : task ---- 1.23s"
_COST = re.compile(r"^(?P<task>.+?) -{3,} +(?P<seconds>[\d.]+)s$", re.MULTILINE)
_CHANGED = re.compile(r"^\S+ +: ok=\d+ +changed=(\d+) .* failed=(\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Run:
    """One run of the playbook: wall seconds, changes over all hosts, and tasks by their seconds."""

    seconds: float
    changed: int
    costs: list[tuple[float, str]]


def lab() -> Lab:
    variables = {
        "lab_ollama_archive": str(artifacts.ollama()),
        "lab_model": str(artifacts.model()),
        "gateway_server_names": ["{{ inventory_hostname }}.llm.example.com"],
        "pki_ca_directory": str(STATE / "bench" / "pki"),
    }
    hosts = [Host(name, groups=("llm_hosts",)) for name in HOSTS]
    return Lab("bench", hosts, variables=variables)


def run_playbook(bench: Lab, playbook: str, *words: str) -> tuple[float, str]:
    """Wall seconds and output of a run that went well; any other is an error."""
    env = {
        **os.environ,
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
        "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all",
        "ANSIBLE_NOCOLOR": "1",
        # Else a task's header comes with its first result, behind what -vvv says of it.
        "ANSIBLE_DISPLAY_SKIPPED_HOSTS": "1",
    }
    start = time.monotonic()
    done = subprocess.run(
        ["ansible-playbook", "-i", bench.inventory, playbook, *words],
        cwd=ROOT, env=env, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    seconds = time.monotonic() - start
    if done.returncode != 0 or not _CHANGED.search(done.stdout):
        raise LabError(f"{playbook} failed:\n{done.stdout[-3000:]}{done.stderr[-1000:]}")
    return seconds, done.stdout


def play(bench: Lab, playbook: str, *words: str) -> Run:
    seconds, output = run_playbook(bench, playbook, *words)
    costs = [(float(found["seconds"]), found["task"]) for found in _COST.finditer(output)]
    changes = sum(int(changed) for changed, failed in _CHANGED.findall(output))
    return Run(seconds, changes, sorted(costs, reverse=True))


def measure(bench: Lab, hosts: list[str]) -> dict[str, object]:
    """Figures of one first run and several re-runs on these hosts."""
    limit = ["-e", f"harden_hosts={':'.join(hosts)}"]
    with step(f"First run, {len(hosts)} host(s)"):
        first = play(bench, "llmsec.hardening.harden", *limit)
    with step(f"{RERUNS} re-runs, {len(hosts)} host(s)"):
        again = [play(bench, "llmsec.hardening.harden", *limit) for _unused in range(RERUNS)]
    return {
        "hosts": len(hosts),
        "first_seconds": round(first.seconds, 1),
        "first_changes": first.changed,
        "rerun_seconds": [round(run.seconds, 1) for run in again],
        "rerun_median_seconds": round(statistics.median(run.seconds for run in again), 1),
        "rerun_changes": sum(run.changed for run in again),
        "dearest_tasks": again[-1].costs[:15],
    }


def main(words: list[str]) -> None:
    if words:
        raise LabError("bench harden takes no arguments")
    bench = lab()
    bench.down()
    try:
        bench.up()
        with step("Installing open Ollamas"):
            play(bench, "tests/lab/open_ollama.yml")
        figures = [measure(bench, HOSTS[:1]), measure(bench, HOSTS)]
    finally:
        bench.down()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    RESULT.write_text(json.dumps({"machine": machine, "runs": figures}, indent=2) + "\n")
    print(f"\n{machine}\n\nhosts  first run  re-run (median of {RERUNS})  changes by re-runs")
    for one in figures:
        print(
            f"{one['hosts']:>5}  {one['first_seconds']:>7} s  {one['rerun_median_seconds']:>13} s"
            f"  {one['rerun_changes']:>24}"
        )
    print("\nDearest tasks of a re-run on four hosts, in seconds:")
    for seconds, task in figures[-1]["dearest_tasks"]:  # type: ignore[union-attr]
        print(f"{seconds:>7.2f}  {task}")
    say(f"All figures are in {RESULT.relative_to(ROOT)}")
