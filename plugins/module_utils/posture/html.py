# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as one HTML file that needs nothing else: no network, no other file, no JavaScript.

All that findings say is escaped; should that ever fail, the content security policy allows only
the one style sheet and the one script whose digests it names, and no request at all. Everything is
in the page and visible; the script (assets/report.js) only adds the filter.
"""

from __future__ import annotations

import base64
import hashlib
import typing as t
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from pathlib import Path

from ansible_collections.llmsec.hardening.plugins.module_utils.controls import SEVERITIES
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.view import (
    WORDS,
    by_control,
    cell,
    label,
)

__all__ = ("render",)

_ASSETS = Path(__file__).parent / "assets"
_SYMBOLS = {"fail": "✗", "error": "?", "waived": "◇", "skip": "○", "pass": "✓", "": "·"}
_LEGEND = "✓ passed, ✗ failed, ? not measured, ◇ waived, ○ skipped, · not checked"

Record = Mapping[str, t.Any]


def _digest(text: str) -> str:
    """Return a source expression of CSP level 3 for an inline element's text."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _counted(counts: Mapping[str, int], words: Mapping[str, str]) -> str:
    """Return the counts that are not zero as words: 2 failed, 5 passed."""
    return ", ".join(f"{counts[name]} {word}" for name, word in words.items() if counts[name])


# --- the head of the page


def _verdict(report: Record) -> Iterator[str]:
    verdict = report["gate"]
    colour, text = ("green", "✓ Gate passed") if verdict["passed"] else ("red", "✗ Gate failed")
    yield f'<div class="verdict {colour}"><strong>{text}</strong>'
    yield f" <span>(fails on: {escape(verdict['fail_on'])})</span>"
    if verdict["reasons"]:
        yield "<ul>"
        yield from (f"<li>{escape(reason)}</li>" for reason in verdict["reasons"])
        yield "</ul>"
    yield "</div>"


def _numbers(title: str, numbers: Sequence[tuple[str, str, int]]) -> Iterator[str]:
    """Yield a row of big numbers; each is (word, class, number)."""
    yield f'<div><h2>{escape(title)}</h2><dl class="counts">'
    for word, name, number in numbers:
        css = name if number else "none"
        yield f'<div class="{css}"><dt>{escape(word)}</dt><dd>{number}</dd></div>'
    yield "</dl></div>"


def _overview(report: Record) -> Iterator[str]:
    summary, changes = report["summary"], report["changes"]
    yield '<section class="overview" aria-label="Counts">'
    outcomes = [(word, name, summary["outcomes"][name]) for name, word in WORDS.items()]
    yield from _numbers("Findings", outcomes)
    yield from _numbers(
        "Failed, by severity", [(name, "fail", n) for name, n in summary["failed"].items()]
    )
    if changes is not None:
        counts = changes["counts"]
        numbers = [
            ("newly failing", "fail", counts["newly_failing"]),
            ("fixed", "pass", counts["fixed"]),
            ("unchanged", "", counts["unchanged"]),
            ("gone", "", counts["gone"]),
        ]
        yield from _numbers(f"Since {changes['title']}", numbers)
    yield "</section>"


# --- hosts and controls


def _before(host: str, findings: Sequence[Record], gone: Sequence[Record]) -> str:
    """Return the outcome that these findings came to in the baseline, as far as it knew them."""
    results = [one["result"] for one in findings if one["status"] == "unchanged"]
    results += [one["before"]["result"] for one in findings if one["before"]]
    results += [one["result"] for one in gone if one["host"] == host]
    return cell([{"outcome": result} for result in results])[0]


def _cell(host: Record, number: int, control: str, found: Sequence[Record], was: str) -> str:
    outcome, many = cell(found)
    before = f"<i>{_SYMBOLS[was]} → </i>" if was and was != outcome else ""
    if not outcome:
        return f'<td><span class="none">{before}·<span class="vh">not checked</span></span></td>'
    shown = f" {many}" if outcome in {"fail", "error", "waived"} else ""
    spoken = f"{host['name']}, {control}: {many} {WORDS[outcome]}"
    if before:
        spoken += f", before: {WORDS[was]}"
    return (
        f'<td><a class="{outcome}" href="#h{number}.{control}" aria-label="{escape(spoken)}">'
        f"{before}{_SYMBOLS[outcome]}{shown}</a></td>"
    )


def _matrix(report: Record) -> Iterator[str]:
    hosts, changes = report["hosts"], report["changes"]
    groups = [by_control(host) for host in hosts]
    present = {name for group in groups for name in group}
    controls = [one["id"] for one in report["controls"] if one["id"] in present]
    yield '<section aria-labelledby="matrix"><h2 id="matrix">Hosts and controls</h2>'
    yield '<div class="scroll" tabindex="0" role="region" aria-labelledby="matrix">'
    yield '<table class="matrix"><thead><tr><th scope="col">Host</th>'
    yield from (f'<th scope="col"><span>{escape(name)}</span></th>' for name in controls)
    yield "</tr></thead><tbody>"
    for number, (host, group) in enumerate(zip(hosts, groups, strict=True)):
        yield f'<tr><th scope="row"><a href="#h{number}">{escape(host["name"])}</a></th>'
        for name in controls:
            found = group.get(name, [])
            gone = [one for one in changes["gone"] if one["control"] == name] if changes else []
            was = _before(host["name"], found, gone)
            yield _cell(host, number, name, found, was)
        yield "</tr>"
    arrow = " Before the arrow: the baseline." if changes else ""
    yield f'</tbody></table></div><p class="note">{_LEGEND}.{arrow}</p></section>'


def _changes(changes: Record | None) -> Iterator[str]:
    if changes is None or not (changes["gone"] or changes["hosts_missing"]):
        return
    yield '<section><h2>Gone since the baseline</h2><p class="soft">'
    yield "These had failed, and are not checked any more or have nothing left to check.</p>"
    if changes["hosts_missing"]:
        names = ", ".join(changes["hosts_missing"])
        yield f"<p>Hosts that were not assessed this time: {escape(names)}</p>"
    rows = [
        (one["host"], one["control"], f"{one['title']} ({one['id']})", one["severity"])
        for one in changes["gone"]
    ]
    yield from _list(("Host", "Control", "Finding", "Severity"), rows)
    yield "</section>"


def _list(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    if rows:
        yield '<div class="scroll"><table class="list"><thead><tr>'
        yield from (f'<th scope="col">{escape(word)}</th>' for word in head)
        yield "</tr></thead><tbody>"
        for row in rows:
            yield "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row) + "</tr>"
        yield "</tbody></table></div>"


# --- the filter


def _select(name: str, word: str, options: Sequence[tuple[str, str]]) -> str:
    choices = "".join(
        f'<option value="{escape(value)}">{escape(text)}</option>' for value, text in options
    )
    return (
        f'<div class="field"><label for="f-{name}">{word}</label>'
        f'<select id="f-{name}" name="{name}"><option value="">all</option>{choices}</select></div>'
    )


def _filter(report: Record) -> Iterator[str]:
    present = {one["control"] for host in report["hosts"] for one in host["findings"]}
    names = [(host["name"], host["name"]) for host in report["hosts"]]
    controls = [(one["id"], one["id"]) for one in report["controls"] if one["id"] in present]
    worse = [
        (name, name if name == "critical" else f"{name} or worse") for name in reversed(SEVERITIES)
    ]
    yield '<form id="filter" role="search" aria-label="Filter findings" hidden>'
    yield _select("host", "Host", names)
    yield _select("control", "Control", controls)
    yield _select("severity", "Severity", worse)
    if report["changes"] is not None:
        yield _select("status", "Change", [(name, name) for name in ("new", "fixed", "unchanged")])
    yield '<div class="field"><label for="f-text">Text</label>'
    yield '<input id="f-text" name="text" type="search" autocomplete="off"></div>'
    yield '<fieldset><legend class="vh">Result</legend>'
    for name, word in WORDS.items():
        yield f'<label class="{name}"><input type="checkbox" name="result" value="{name}" checked>'
        yield f"{_SYMBOLS[name]} {word}</label>"
    yield '</fieldset><button type="button" id="reset">Show all</button>'
    yield '<button type="button" id="expand">Expand</button>'
    yield '<button type="button" id="collapse">Collapse</button>'
    yield '<output id="shown" aria-live="polite"></output></form>'


# --- findings


def _before_text(one: Record) -> str:
    before = one["before"]
    if before is None:
        return ""
    if before["result"] == "error":
        return before["actual"] or WORDS["error"]  # which says itself that it was not measured
    return ", ".join(filter(None, (WORDS[before["result"]], before["actual"])))


def _terms(one: Record) -> str:
    terms = [("Expected", one["expected"]), ("Actual", one["actual"])]
    terms += [("Before", _before_text(one)), ("To do", one["remediation"])]
    if one["waiver"]:
        waiver = one["waiver"]
        word = "Waived" if one["outcome"] == "waived" else "Expired"
        terms.append((word, f"until {waiver['expires']}, {waiver['owner']}: {waiver['reason']}"))
    rows = (f"<dt>{word}</dt><dd>{escape(text)}</dd>" for word, text in terms if text)
    return f"<dl>{''.join(rows)}</dl>"


def _body(one: Record) -> Iterator[str]:
    if one["outcome"] in {"pass", "skip"}:
        texts = [
            one["actual"] or one["expected"],
            _before_text(one) and f"before: {_before_text(one)}",
        ]
        yield f'<p class="x">{escape("; ".join(filter(None, texts)))}</p>'
        return
    yield _terms(one)
    if one["evidence"]:
        evidence = escape("\n".join(one["evidence"]))
        yield f'<pre tabindex="0" role="region" aria-label="Evidence">\n{evidence}</pre>'


def _finding(one: Record) -> str:
    outcome = one["outcome"]
    tag = "p" if outcome in {"pass", "skip"} else "h4"
    word = f"{_SYMBOLS[outcome]} {label(one) if outcome == 'fail' else WORDS[outcome]}"
    newly = one["status"] == "new" and outcome in {"fail", "error"}
    changed = "new" if newly else "fixed" if one["status"] == "fixed" else ""
    badge = f"<u>{changed}</u>" if changed else ""
    status = f' data-n="{one["status"]}"' if one["status"] else ""
    return (
        f'<li class="f {outcome}" data-o="{outcome}" data-s="{one["severity"]}"{status}>'
        f'<{tag} class="t"><b class="{outcome}">{word}</b> <span>{escape(one["title"])}</span> '
        f"<code>{escape(one['id'])}</code>{badge}</{tag}>{''.join(_body(one))}</li>\n"
    )


def _group(number: int, control: Record, findings: Sequence[Record]) -> Iterator[str]:
    name = control["id"]
    counts = {word: sum(one["outcome"] == word for one in findings) for word in WORDS}
    bad = int(any(counts[word] for word in ("fail", "error", "waived")))
    yield f'<details class="c" id="h{number}.{name}" data-c="{name}" data-bad="{bad}" open>'
    yield f"<summary><h3>{escape(control['title'])}</h3>"
    for outcome, word in WORDS.items():
        if counts[outcome]:
            yield f'<span class="{outcome}">{_SYMBOLS[outcome]} {counts[outcome]} {word}</span>'
    standards = "; ".join(
        f"{title} {', '.join(numbers)}" for title, numbers in control["standards"].items()
    )
    yield f'</summary><p class="std">{name}. {escape(standards)}</p><ul>'
    yield from map(_finding, findings)
    yield "</ul></details>\n"


def _host(number: int, host: Record, controls: Mapping[str, Record]) -> Iterator[str]:
    facts = " ".join(str(value) for value in host["facts"].values())
    about = ", ".join(filter(None, (host["address"], facts)))
    reached = "" if host["reached"] else '<span class="error">? not reached</span>'
    yield f'<section class="host" id="h{number}" data-h="{escape(host["name"])}"><header>'
    yield f'<h2>{escape(host["name"])}</h2><span class="soft">{escape(about)}</span>{reached}'
    yield f"<span>{_counted(host['summary']['outcomes'], WORDS)}</span></header>"
    for name, findings in by_control(host).items():
        yield from _group(number, controls[name], findings)
    yield "</section>\n"


def _waivers(report: Record) -> Iterator[str]:
    if report["waivers"]:
        yield "<section><h2>Waivers</h2>"
        rows = [
            (
                one["id"], ", ".join(one["hosts"]), one["reason"], one["owner"],
                f"{one['expires']}{' (expired)' if one['expired'] else ''}", str(one["used"]),
            )
            for one in report["waivers"]
        ]  # fmt: skip
        yield from _list(("Finding", "Hosts", "Reason", "Owner", "Until", "Findings"), rows)
        yield "</section>"
    if report["notes"]:
        yield "<section><h2>Notes</h2><ul>"
        yield from (f"<li>{escape(note)}</li>" for note in report["notes"])
        yield "</ul></section>"


# --- the page


def _page(report: Record, css: str, script: str) -> Iterator[str]:
    run = report["run"]
    title = escape(run["title"])
    policy = (
        f"default-src 'none'; style-src {_digest(css)}; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    yield '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    yield '<meta name="referrer" content="no-referrer">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title><style>{css}</style></head><body>"
    yield '<a class="skip-link" href="#findings">Skip to the findings</a>'
    version = f", llmsec.hardening {run['collection_version']}" if run["collection_version"] else ""
    hosts = report["summary"]["hosts"]
    about = f"{run['started']}, {hosts} host{'' if hosts == 1 else 's'}{version}"
    yield f'<header><h1>{title}</h1><p class="soft">{escape(about)}</p>'
    yield from _verdict(report)
    yield "</header>"
    yield from _overview(report)
    yield from _matrix(report)
    yield from _changes(report["changes"])
    yield from _filter(report)
    yield '<main id="findings" tabindex="-1">'
    controls = {control["id"]: control for control in report["controls"]}
    for number, host in enumerate(report["hosts"]):
        yield from _host(number, host, controls)
    yield "</main>"
    yield from _waivers(report)
    yield f"<script>{script}</script></body></html>\n"


def render(report: Record) -> str:
    """Return the page."""
    css = (_ASSETS / "report.css").read_text(encoding="utf-8")
    script = (_ASSETS / "report.js").read_text(encoding="utf-8")
    return "".join(_page(report, css, script))
