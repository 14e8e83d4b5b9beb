# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: whether a report is good enough to go on.

It is red for what failed with at least a given severity, for everything that could not be
measured, and for a report that measured nothing at all.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterator, Mapping, Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils.controls import SEVERITIES

__all__ = ("FAIL_ON", "judge")

FAIL_ON = (*reversed(SEVERITIES), "never")
# How many findings a reason names; the report has them all.
_NAMED = 5

Findings = Sequence[Mapping[str, t.Any]]


def _names(findings: Findings) -> str:
    named = ", ".join(f"{one['host']}: {one['id']}" for one in findings[:_NAMED])
    more = len(findings) - _NAMED
    return f"{named} and {more} more" if more > 0 else named


def _nothing(hosts: int, findings: Findings) -> Iterator[str]:
    if hosts == 0:
        yield "no host was assessed"
    elif not any(
        one["result"] in {"pass", "fail"} and one["control"] != "assessment" for one in findings
    ):
        yield "nothing was measured"


def _reasons(findings: Findings, fail_on: str) -> Iterator[str]:
    errors = [one for one in findings if one["outcome"] == "error"]
    if errors:
        yield f"{len(errors)} not measured: {_names(errors)}"
    for severity in reversed(SEVERITIES[SEVERITIES.index(fail_on) :]):
        failed = [
            one for one in findings if one["outcome"] == "fail" and one["severity"] == severity
        ]
        if failed:
            yield f"{len(failed)} failed, {severity}: {_names(failed)}"


def judge(hosts: int, findings: Findings, fail_on: str) -> dict[str, t.Any]:
    """Return whether the gate is passed, and why not.

    `hosts` is how many there are; each finding has `host`, `outcome`, `result`, `severity`.
    With `never` only a report that measured nothing is red.
    """
    reasons = list(_nothing(hosts, findings))
    if fail_on != "never":
        reasons += _reasons(findings, fail_on)
    return {"passed": not reasons, "fail_on": fail_on, "reasons": reasons}
