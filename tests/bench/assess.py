# SPDX-License-Identifier: GPL-3.0-or-later
"""How long assess.yml takes, and how often it goes to a host: on one host, on four, on a fleet.

The hosts are hardened, without a firewall and without neighbours. The fleet is 20 names of the
inventory for these four hosts: the control node does for each what it would do for a host of its
own, and the four do the work of 20 on its cores. Wall seconds are the median of several runs, and
the processor's are those of the control node, which other load does not change. A further run with
-vvv, which is not timed, counts what Ansible runs over SSH: with pipelining each module is one SSH
command, a module that needs several round trips counts as several, and what runs on the control
node opens no SSH connection and does not count.
"""

from __future__ import annotations

import json
import os
import platform
import re
import resource
import statistics
from collections import Counter
from collections.abc import Iterable
from typing import Any

from tests.bench.harden import play, run_playbook
from tests.lab import artifacts
from tests.lab.hosts import STATE, Host, Lab
from tests.lab.steps import CACHE, ROOT, LabError, put, say, step

RUNS = 3
GOAL_SECONDS, GOAL_EXECUTIONS = 15, 12  # of one host, on 2 cores, without the active probes
GOAL_FLEET_SECONDS = 90
HOSTS = [f"assess-{number}" for number in range(1, 5)]
# Name → the host that it is another name of
FLEET = {f"fleet-{number}": HOSTS[number % len(HOSTS)] for number in range(1, 21)}
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
    lines = ["hosts  wall (median)  processor  SSH commands per host  findings"]
    for one in figures:
        totals = sorted(set(one.get("executions", {}).values()))
        counts = "-".join(str(total) for total in (totals[0], *totals[1:][-1:])) if totals else ""
        lines.append(
            f"{one['hosts']:>5}  {one['median_seconds']:>11.1f} s  {one['cpu_seconds']:>7.1f} s"
            f"  {counts:>21}"
            f"  {', '.join(f'{count} {name}' for name, count in one['outcomes'].items())}"
        )
    return lines


def lab() -> Lab:
    variables = {
        "lab_ollama_archive": str(artifacts.ollama()),
        "lab_model": str(artifacts.model()),
        "gateway_server_names": ["{{ lab_host | default(inventory_hostname) }}.llm.example.com"],
        "pki_ca_directory": str(STATE / "assess" / "pki"),
        "posture_neighbours_required": False,
        "posture_report_dir": str(REPORT),
        "posture_report_formats": ["json"],
        # A measurement, no verdict; what was found stands in the figures.
        "posture_fail_on": "never",
    }
    hosts = [Host(name, groups=("llm_hosts",)) for name in HOSTS]
    return Lab("assess", hosts, variables=variables)


def name_fleet(bench: Lab) -> None:
    """Add the fleet's names to the inventory."""
    addresses = bench.addresses()
    hosts = {
        name: {"ansible_host": addresses[host][0], "lab_host": host} for name, host in FLEET.items()
    }
    # `lab` has the variables of all hosts.
    content = {"lab": {"children": {"fleet": {"hosts": hosts}}}}
    put(bench.inventory / "fleet.yml", json.dumps(content, indent=2) + "\n")


def measure(bench: Lab, hosts: list[str], runs: int = RUNS) -> dict[str, Any]:
    """Figures of an assessment of these hosts, which are all hosts of their own."""
    words = ["-e", f"assess_hosts={':'.join(hosts)}"]
    figures = timed(bench, hosts, words, runs)
    with step(f"Counting, {len(hosts)} host(s)"):
        _seconds, output = run_playbook(bench, PLAYBOOK, *words, "-vvv")
    names = {bench.addresses()[name][0]: name for name in hosts}
    counted = {names[place]: tasks for place, tasks in executions(output).items() if place in names}
    if set(counted) != set(hosts):
        missing = ", ".join(sorted(set(hosts) - set(counted)))
        raise LabError(f"ansible-playbook -vvv names no SSH command for {missing}")
    return figures | {
        "executions": {name: tasks.total() for name, tasks in sorted(counted.items())},
        "executions_by_task": dict(counted[hosts[0]]),
    }


def timed(bench: Lab, hosts: list[str], words: list[str], runs: int) -> dict[str, Any]:
    """Seconds of an assessment, and what was found."""
    before = _cpu_seconds()
    with step(f"{runs} assessment(s), {len(hosts)} host(s)"):
        done = [play(bench, PLAYBOOK, *words) for _unused in range(runs)]
    return {
        "hosts": len(hosts),
        "seconds": [round(run.seconds, 1) for run in done],
        "median_seconds": round(statistics.median(run.seconds for run in done), 1),
        "cpu_seconds": round((_cpu_seconds() - before) / runs, 1),
        "outcomes": outcomes(json.loads((REPORT / "report.json").read_text())),
        "dearest_tasks": done[-1].costs[:15],
    }


def measure_fleet(bench: Lab) -> dict[str, Any]:
    """Figures of one assessment of the fleet. Its names share hosts, so they are not counted."""
    name_fleet(bench)
    names = list(FLEET)
    return timed(bench, names, ["-e", "assess_hosts=fleet"], 1)


def _cpu_seconds() -> float:
    """Seconds of a processor that ended children took: ansible-playbook and its workers."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


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
        figures = [measure(bench, HOSTS[:1]), measure(bench, HOSTS), measure_fleet(bench)]
    finally:
        bench.down()
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    RESULT.write_text(json.dumps({"machine": machine, "runs": figures}, indent=2) + "\n")
    print("\n".join(["", machine, "", *table(figures)]))
    print(f"\nThe goals are {GOAL_SECONDS} s and {GOAL_EXECUTIONS} for one host on 2 cores,")
    print(f"and {GOAL_FLEET_SECONDS} s for 20. These 20 are names for {len(HOSTS)} hosts.")
    print("\nSSH commands by task, on one host:")
    for task, count in figures[0]["executions_by_task"].items():
        print(f"{count:>7}  {task}")
    print("\nDearest tasks on four hosts, in seconds:")
    for seconds, task in figures[1]["dearest_tasks"]:
        print(f"{seconds:>7.2f}  {task}")
    say(f"All figures are in {RESULT.relative_to(ROOT)}")
