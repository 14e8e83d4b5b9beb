# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs of the collection's playbooks from within a test, over the hosts of a scenario."""

from __future__ import annotations

import json
import re
import subprocess
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

from tests.lab.hosts import STATE
from tests.lab.steps import ROOT

INVENTORY = STATE / "molecule/inventory"
TIMEOUT = 600  # seconds

_RECAP = re.compile(
    r"^([\w-]+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+) ", re.MULTILINE
)
# Whose result, or line of the recap, a paragraph is
_WHOSE = re.compile(r"(?:\w+: \[)?([\w-]+)(?: -> [\w-]+)?(?:\]| +: ok=)")


@dataclass(frozen=True)
class Counts:
    """What the recap says of one host; a host that could not be reached counts as failed."""

    changed: int
    failed: int


@dataclass(frozen=True)
class Run:
    """How a run of ansible-playbook ended. `text` is all it said, in one line."""

    code: int
    text: str
    hosts: dict[str, Counts]  # without localhost
    said: dict[str, str]  # of each host

    @property
    def changed(self) -> dict[str, int]:
        return {name: counts.changed for name, counts in self.hosts.items()}

    @property
    def ending(self) -> str:
        """For the message of a failed test."""
        return f"ended with {self.code}: … {self.text[-3000:]}"


def play(playbook: str, *words: str, **variables: Any) -> Run:
    """Run a playbook of the collection on the lab's inventory."""
    done = subprocess.run(
        ["ansible-playbook", "-i", INVENTORY, f"llmsec.hardening.{playbook}",
         "-e", json.dumps(variables), *words],
        cwd=ROOT, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
        timeout=TIMEOUT,
    )  # fmt: skip
    text = done.stdout + done.stderr
    hosts = {
        host: Counts(int(changed), int(unreachable) + int(failed))
        for host, changed, unreachable, failed in _RECAP.findall(text)
        if host != "localhost"
    }
    return Run(done.returncode, " ".join(text.split()), hosts, by_host(text))


def by_host(text: str) -> dict[str, str]:
    """What a run said of each host, in one line; without a name what it said of none."""
    said: dict[str, str] = defaultdict(str)
    for paragraph in re.split(r"\n(?=\S)", text):
        found = _WHOSE.match(paragraph)
        # YAML, as results are shown, may double apostrophes.
        said[found[1] if found else ""] += f" {' '.join(paragraph.split())} ".replace("''", "'")
    return said


def harden(scenario: str, *words: str, **variables: Any) -> Run:
    """Run harden.yml on the scenario's hosts, both at once."""
    return play("harden", *words, harden_hosts=scenario, **variables)
