# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as a short comment for a merge request: verdict, table of hosts, what to do.

What a host says stands in code spans only: there is no link, image, mention, HTML or quick action
in them (CommonMark 0.31, 6.1; in a table GFM takes `|` even there, so it is escaped).
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterator, Mapping, Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils.posture.text import cut, one_line
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.view import (
    WORDS,
    bad_findings,
    changes_line,
    label,
    worst_hosts,
)

__all__ = ("code", "escape", "render")

# GitHub cuts comments at 65,536 characters; a comment that long is not read anyway.
_MOST_FINDINGS = 40
_MOST_HOSTS = 50
_SPECIAL = re.compile(r"([\\`*_{}\[\]<>#+!|~$&])")
_INVISIBLE = "\N{ZERO WIDTH SPACE}"

Record = Mapping[str, t.Any]


def escape(text: str) -> str:
    """Return a text that Markdown shows as it is, in one line."""
    plain = _SPECIAL.sub(r"\\\1", one_line(text))
    # No backslash keeps @name from being a mention, and an address from being a link.
    return plain.replace("@", f"@{_INVISIBLE}").replace("://", f":{_INVISIBLE}//")


def code(text: str, *, table: bool = False) -> str:
    """Return a code span in one line; the fence is longer than any run of backticks in it."""
    plain = cut(one_line(text), 300) or "-"
    if table:
        plain = plain.replace("|", "\\|")
    fence = "`" * (1 + max(map(len, re.findall("`+", plain)), default=0))
    space = " " if plain[0] == "`" or plain[-1] == "`" else ""
    return f"{fence}{space}{plain}{space}{fence}"


def _row(cells: Sequence[object]) -> str:
    return f"| {' | '.join(map(str, cells))} |"


def _table(report: Record) -> Iterator[str]:
    outcomes = list(WORDS)
    yield _row(["Host", *(WORDS[name] for name in outcomes)])
    yield _row(["---", *("--:" for _name in outcomes)])
    ranked = worst_hosts(report)
    for host in ranked[:_MOST_HOSTS]:
        counts = host["summary"]["outcomes"]
        yield _row([code(host["name"], table=True), *(counts[name] for name in outcomes)])
    if len(ranked) > _MOST_HOSTS:
        yield _row([f"{len(ranked) - _MOST_HOSTS} more", *("" for _name in outcomes)])


def _finding(one: Record) -> Iterator[str]:
    mark = f" ({one['status']})" if one["status"] == "new" else ""
    what = f"{escape(one['title'])} ({code(one['id'])})"
    yield f"- **{label(one)}**{mark} {code(one['host'])}: {what}"
    yield f"  - expected {code(one['expected'])}, actual {code(one['actual'])}"
    if one["remediation"]:
        yield f"  - {escape(one['remediation'])}"


def render(report: Record) -> str:
    """Return the Markdown text."""
    run, verdict = report["run"], report["gate"]
    word = "passed" if verdict["passed"] else "FAILED"
    changed = changes_line(report["changes"])
    lines = [
        f"## {escape(run['title'])}: gate {word}", "",
        f"{run['started']}, {report['summary']['hosts']} hosts, "
        f"fails on {escape(verdict['fail_on'])}.", "",
        *(f"- {escape(reason)}" for reason in verdict["reasons"]),
        *([""] if verdict["reasons"] else []),
        *([f"{escape(changed)}.", ""] if changed else []), *_table(report), "",
    ]  # fmt: skip
    bad = bad_findings(report)
    if bad:
        lines += ["### What to do", ""]
    for one in bad[:_MOST_FINDINGS]:
        lines += _finding(one)
    if len(bad) > _MOST_FINDINGS:
        lines += ["", f"{len(bad) - _MOST_FINDINGS} more findings are in the full report."]
    if report["notes"]:
        lines += ["", *(f"- {escape(note)}" for note in report["notes"])]
    return "\n".join(lines).rstrip() + "\n"
