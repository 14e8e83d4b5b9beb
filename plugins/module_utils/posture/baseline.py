# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""An earlier report, and what has changed since then."""

from __future__ import annotations

import typing as t
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.controls import RESULTS, SEVERITIES
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.text import clean

__all__ = ("BAD", "MAJOR", "Baseline", "BaselineError", "parse_baseline", "status")

# Reports of the same major version hold all that is read here.
MAJOR = 1
BAD = ("fail", "error")

Key = tuple[str, str]
# What the report says of itself is there only as long as it is true.
_OWN = ("assessment.", "posture.")
_KEPT = ("control", "title", "severity", "result", "actual")


class BaselineError(ValueError):
    """What was given is no report, or one of a version that this cannot read."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """An earlier report: when it was made, and its findings by host and id."""

    title: str
    started: str
    findings: Mapping[Key, Mapping[str, str]]

    def gone(self, present: t.Collection[Key]) -> Iterator[dict[str, str]]:
        """Yield what had failed and is not checked any more, or has nothing left to check."""
        for (host, name), before in sorted(self.findings.items()):
            if before["result"] not in BAD or name.startswith(_OWN):
                continue
            if (host, name) not in present:
                yield {"host": host, "id": name, **before}


def _major(version: object) -> int:
    number = str(version).partition(".")[0]
    if not isinstance(version, str) or not number.isdecimal():
        raise BaselineError("it is no report: schema_version is missing")
    return int(number)


def _finding(raw: object, host: str) -> tuple[Key, dict[str, str]]:
    if not isinstance(raw, Mapping) or not isinstance(raw.get("id"), str):
        raise BaselineError(f"host {clean(host, 80)}: a finding has no id")
    kept = {key: clean(raw.get(key)) for key in _KEPT}
    if kept["result"] not in RESULTS or kept["severity"] not in SEVERITIES:
        name = clean(raw["id"], 80)
        raise BaselineError(f"host {clean(host, 80)}: {name} has no known result and severity")
    return (host, clean(raw["id"])), kept


def parse_baseline(raw: object) -> Baseline:
    """Return what an earlier report (report.json) says. Raises BaselineError."""
    if not isinstance(raw, Mapping):
        raise BaselineError("it is no report: not an object")
    major = _major(raw.get("schema_version"))
    if major != MAJOR:
        raise BaselineError(f"its schema_version is {raw['schema_version']}, not {MAJOR}.x")
    run, hosts = raw.get("run"), raw.get("hosts")
    if not isinstance(run, Mapping) or not isinstance(hosts, list):
        raise BaselineError("it is no report: run or hosts are missing")
    findings = {}
    for host in hosts:
        if not isinstance(host, Mapping) or not isinstance(host.get("findings"), list):
            raise BaselineError("a host has no findings")
        name = clean(host.get("name"))
        findings.update(_finding(one, name) for one in host["findings"])
    return Baseline(clean(run.get("title")), clean(run.get("started")), findings)


def status(result: str, before: Mapping[str, str] | None) -> str:
    """Return what has become of a finding: new, fixed or unchanged.

    Only what passes now is fixed. Another result than before is new, as is what was not there.
    """
    if before is None:
        return "new"
    if before["result"] == result:
        return "unchanged"
    return "fixed" if result == "pass" and before["result"] in BAD else "new"
