# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What several renderings read out of a report: the worst first, and one cell of the matrix."""

from __future__ import annotations

import typing as t
from collections.abc import Mapping, Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils.controls import SEVERITIES

__all__ = ("WORDS", "bad_findings", "by_control", "cell", "changes_line", "label", "worst_hosts")

# How an outcome is called by people, in the order in which one is worth looking at.
WORDS = {
    "fail": "failed", "error": "not measured", "waived": "waived", "skip": "skipped",
    "pass": "passed",
}  # fmt: skip

Record = Mapping[str, t.Any]


def label(one: Record) -> str:
    """Return the severity of a failure; what was not measured has none that is known."""
    return WORDS["error"] if one["outcome"] == "error" else str(one["severity"])


def bad_findings(report: Record) -> list[Record]:
    """Return what failed or was not measured on any host, worst first."""
    found = [one for host in report["hosts"] for one in host["findings"]]
    bad = [one for one in found if one["outcome"] in {"fail", "error"}]
    return sorted(
        bad, key=lambda one: (-SEVERITIES.index(one["severity"]), one["outcome"] != "fail")
    )


def worst_hosts(report: Record) -> list[Record]:
    """Return the hosts, those with most failures first."""

    def rank(host: Record) -> tuple[int, ...]:
        summary = host["summary"]
        failed = (-summary["failed"][name] for name in reversed(SEVERITIES))
        return (*failed, -summary["outcomes"]["error"])

    return sorted(report["hosts"], key=rank)


def by_control(host: Record) -> dict[str, list[Record]]:
    """Return the findings of a host by control, the control with the worst one first."""
    groups: dict[str, list[Record]] = {}
    for one in host["findings"]:
        groups.setdefault(one["control"], []).append(one)
    return groups


def cell(findings: Sequence[Record]) -> tuple[str, int]:
    """Return the outcome that one control of one host comes to, and how many findings have it.

    ("", 0) is a control that nobody looked at. One pass among skips is a pass.
    """
    for outcome in ("fail", "error", "waived", "pass", "skip"):
        number = sum(one["outcome"] == outcome for one in findings)
        if number:
            return outcome, number
    return "", 0


def changes_line(changes: Record | None) -> str:
    """Return what has changed since the baseline in one line, empty without one."""
    if changes is None:
        return ""
    counts = changes["counts"]
    numbers = (counts[name] for name in ("newly_failing", "fixed", "gone"))
    what = "{} newly failing, {} fixed, {} gone".format(*numbers)
    return f"Since {changes['title']} ({changes['started']}): {what}"
