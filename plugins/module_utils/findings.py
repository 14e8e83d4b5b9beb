# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a verify module says of one control: the same shape for all of them."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

__all__ = ("finding", "not_measured")


def finding(
    finding_id: str, control: str, title: str, severity: str, result: str, *, expected: str,
    actual: str, evidence: Sequence[str] = (), remediation: str = "",
) -> dict[str, t.Any]:  # fmt: skip
    """Return one finding about a control (`controls.CONTROLS`).

    `result` is pass, fail, error (not measured) or skip; `severity` one of `controls.SEVERITIES`.
    """
    return {
        "id": finding_id, "control": control, "title": title, "severity": severity,
        "result": result, "expected": expected, "actual": actual, "evidence": list(evidence),
        "remediation": "" if result == "pass" else remediation,
    }  # fmt: skip


def not_measured(
    finding_id: str, control: str, title: str, why: object, remediation: str
) -> dict[str, t.Any]:
    """Return the finding of something that could not be looked at, which is no pass."""
    return finding(
        finding_id, control, title, "high", "error", expected="measured",
        actual=f"not measured: {why}", remediation=remediation,
    )  # fmt: skip
