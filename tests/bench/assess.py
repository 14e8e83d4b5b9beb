# SPDX-License-Identifier: GPL-3.0-or-later
"""How long assess.yml takes, and how often it goes to a host: on one host and on four.

The hosts are hardened, without a firewall and without neighbours. Wall seconds are the median of
several runs. A further run with -vvv, which is not timed, counts what Ansible runs over SSH: with
pipelining each module is one SSH command, a module that needs several round trips counts as
several, and what runs on the control node opens no SSH connection and does not count.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tests.bench.harden import play, run_playbook
from tests.lab import artifacts
from tests.lab.hosts import STATE, Host, Lab
from tests.lab.steps import CACHE, ROOT, LabError, say, step

RUNS = 3
GOAL_SECONDS, GOAL_EXECUTIONS = 15, 12  # of one host, on 2 cores, without the active probes
HOSTS = [f"assess-{number}" for number in range(1, 5)]
RESULT = CACHE / "bench-assess.json"
REPORT = CACHE / "bench-assess"
PLAYBOOK = "llmsec.hardening.assess"

# The default callback's headers, and ssh.py's line for each command it runs.
_TASK = re.compile(r"(?:TASK|RUNNING HANDLER) \[(?P<task>.+)\] \*+")
_PLAY = re.compile(r"PLAY (?:\[|RECAP)")
_EXEC = re.compile(r"<(?P<address>[^<>\s]+)> SSH: EXEC ")


def executions(output: str) -> dict[str, Counter[str]]:
    """Address → task → number of SSH commands, from the output of ansible-playbook -vvv.

    Hosts go through the tasks in step, so what stands between two headers belongs to the first.
    """
    found: dict[str, Counter[str]] = {}
    task = ""
    for line in output.splitlines():
        header = _TASK.match(line)
        if header:
            task = header["task"]
        elif _PLAY.match(line):
            task = ""
        elif command := _EXEC.match(line):
            found.setdefault(command["address"], Counter())[task] += 1
    return found


def outcomes(report: dict[str, Any]) -> dict[str, int]:
    """How many findings of each outcome the report has: what was timed must have been measured."""
    return {name: count for name, count in report["summary"]["outcomes"].items() if count}


def table(figures: Iterable[dict[str, Any]]) -> list[str]:
    """The lines for the terminal, a header first."""
    lines = [f"hosts  wall (median of {RUNS})  SSH commands per host  findings"]
    for one in figures:
        least, most = min(one["executions"].values()), max(one["executions"].values())
        counts = str(least) if least == most else f"{least}-{most}"
        lines.append(
            f"{one['hosts']:>5}  {one['median_seconds']:>14.1f} s"
            f"  {counts:>21}"
            f"  {', '.join(f'{count} {name}' for name, count in one['outcomes'].items())}"
        )
    return lines


def lab() -> Lab:
    variables = {
        "lab_ollama_archive": str(artifacts.ollama()),
        "lab_model": str(artifacts.model()),
        "gateway_server_names": ["{{ inventory_hostname }}.llm.example.com"],
        "pki_ca_directory": str(STATE / "assess" / "pki"),
        "posture_neighbours_required": False,
        "posture_report_dir": str(REPORT),
        "posture_report_formats": ["json"],
        # A measurement, no verdict; what was found stands in the figures.
        "posture_fail_on": "never",
    }
    hosts = [Host(name, groups=("llm_hosts",)) for name in HOSTS]
    return Lab("assess", hosts, variables=variables)


def measure(bench: Lab, hosts: list[str]) -> dict[str, Any]:
    """Figures of an assessment of these hosts."""
    words = ["-e", f"assess_hosts={':'.join(hosts)}"]
    with step(f"{RUNS} assessments, {len(hosts)} host(s)"):
        runs = [play(bench, PLAYBOOK, *words) for _unused in range(RUNS)]
    with step(f"Counting, {len(hosts)} host(s)"):
        _seconds, output = run_playbook(bench, PLAYBOOK, *words, "-vvv")
    names = {bench.addresses()[name][0]: name for name in hosts}
    counted = {names[place]: tasks for place, tasks in executions(output).items() if place in names}
    if set(counted) != set(hosts):
        missing = ", ".join(sorted(set(hosts) - set(counted)))
        raise LabError(f"ansible-playbook -vvv names no SSH command for {missing}")
    return {
        "hosts": len(hosts),
        "seconds": [round(run.seconds, 1) for run in runs],
        "median_seconds": round(statistics.median(run.seconds for run in runs), 1),
        "executions": {name: tasks.total() for name, tasks in sorted(counted.items())},
        "executions_by_task": dict(counted[hosts[0]]),
        "outcomes": outcomes(json.loads((REPORT / "report.json").read_text())),
        "dearest_tasks": runs[-1].costs[:15],
    }


def main(words: list[str]) -> None:
    if words:
        raise LabError("bench assess takes no arguments")
    bench = lab()
    bench.down()
    try:
        bench.up()
        with step("Installing open Ollamas"):
            play(bench, "tests/lab/open_ollama.yml")
        with step("Hardening them"):
            play(bench, "llmsec.hardening.harden")
        figures = [measure(bench, HOSTS[:1]), measure(bench, HOSTS)]
    finally:
        bench.down()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    RESULT.write_text(json.dumps({"machine": machine, "runs": figures}, indent=2) + "\n")
    print("\n".join(["", machine, "", *table(figures)]))
    print(f"\nThe goals are {GOAL_SECONDS} s and {GOAL_EXECUTIONS} for one host on 2 cores.")
    print("\nSSH commands by task, on one host:")
    for task, count in figures[0]["executions_by_task"].items():
        print(f"{count:>7}  {task}")
    print("\nDearest tasks on four hosts, in seconds:")
    for seconds, task in figures[-1]["dearest_tasks"]:
        print(f"{seconds:>7.2f}  {task}")
    say(f"All figures are in {RESULT.relative_to(ROOT)}")
