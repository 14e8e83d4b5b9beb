# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report for a terminal: a short table of hosts and controls, and the worst findings.

Only printable ASCII, at most WIDTH columns, and bounded in length: what a host says cannot move
the cursor or push the verdict off the screen.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterator, Mapping, Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils.posture.text import cut, printable
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.view import (
    bad_findings,
    by_control,
    cell,
    changes_line,
    label,
    worst_hosts,
)

__all__ = ("WIDTH", "render")

WIDTH = 100
_MOST_HOSTS = 30
_MOST_FINDINGS = 10
_CELL = 6
_SHORT = {
    "assessment": "assmt", "loopback": "loopb", "authentication": "auth", "mtls": "mtls",
    "tls": "tls", "rate_limit": "rate", "audit_log": "audit", "network_isolation": "netw",
    "service_sandbox": "sandb", "management_routes": "mgmt", "secrets_at_rest": "secr",
    "versions": "vers", "budget": "budg",
}  # fmt: skip
_SYMBOLS = {"fail": "X", "error": "?", "waived": "w", "pass": "ok", "skip": "s"}
_LEGEND = "ok passed, X failed, ? not measured, w waived, s skipped, - not checked"

Record = Mapping[str, t.Any]


def _symbol(findings: Sequence[Record]) -> str:
    outcome, number = cell(findings)
    symbol = _SYMBOLS.get(outcome, "-")
    return f"{symbol}{number}" if outcome in {"fail", "error", "waived"} else symbol


def _row(name: str, cells: Sequence[str], width: int) -> str:
    return (cut(printable(name), width).ljust(width) + "".join(c.rjust(_CELL) for c in cells))[
        :WIDTH
    ]


def _matrix(report: Record) -> Iterator[str]:
    hosts = worst_hosts(report)
    present = {one["control"] for host in hosts for one in host["findings"]}
    controls = [one["id"] for one in report["controls"] if one["id"] in present]
    width = min(
        WIDTH - _CELL * len(controls), max((len(printable(h["name"])) for h in hosts), default=4)
    )
    if hosts:
        yield _row("", [_SHORT.get(name, name[:5]) for name in controls], width)
    for host in hosts[:_MOST_HOSTS]:
        groups = by_control(host)
        yield _row(host["name"], [_symbol(groups.get(name, ())) for name in controls], width)
    if len(hosts) > _MOST_HOSTS:
        yield f"and {len(hosts) - _MOST_HOSTS} more hosts"
    yield _LEGEND


def _finding(one: Record) -> Iterator[str]:
    yield f"{_SYMBOLS[one['outcome']]} {label(one)}: {one['host']}: {one['title']} ({one['id']})"
    yield f"    is {one['actual']}"
    if one["remediation"]:
        yield f"    -> {one['remediation']}"


def _findings(report: Record) -> Iterator[str]:
    bad = bad_findings(report)
    for one in bad[:_MOST_FINDINGS]:
        yield from _finding(one)
    if len(bad) > _MOST_FINDINGS:
        yield f"and {len(bad) - _MOST_FINDINGS} more, which the report has"


def _verdict(report: Record) -> Iterator[str]:
    verdict = report["gate"]
    word = "passed" if verdict["passed"] else "FAILED"
    changed = changes_line(report["changes"])
    if changed:
        yield changed
    yield from report["notes"]
    yield f"Gate (fails on {verdict['fail_on']}): {word}"
    yield from (f"  {reason}" for reason in verdict["reasons"])


def _line(text: str) -> str:
    indent = text[: len(text) - len(text.lstrip(" "))]
    return cut(indent + printable(text), WIDTH)


def render(report: Record) -> list[str]:
    """Return the lines. The verdict stands last, where a terminal ends."""
    title = f"{report['run']['title']}, {report['run']['started']}"
    lines = [_line(title), *_matrix(report), *map(_line, _findings(report))]
    return [line.rstrip() for line in [*lines, *map(_line, _verdict(report))]]
