# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as SARIF 2.1.0 (OASIS, errata 01), in the part that GitHub code scanning reads.

It holds what needs work: failures, what was not measured, and what is waived (suppressed). GitHub
makes an alert of each result whatever its kind, so passes are left to the other formats. For the
same reason *not measured* is a result of kind `fail` and level `error`: SARIF's own `open` must
have the level `none`, which is green everywhere.

Limits: docs.github.com, "SARIF results exceed limits": 25,000 results a run, 20 runs a file,
10 tags shown of a rule.
"""

from __future__ import annotations

import hashlib
import typing as t
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

from ansible_collections.llmsec.hardening.plugins.module_utils.controls import SEVERITIES
from ansible_collections.llmsec.hardening.plugins.module_utils.posture import markdown

__all__ = ("MOST_RESULTS", "render")

MOST_RESULTS = 25_000
_MOST_RUNS = 20
_SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
_REPORTED = ("fail", "error", "waived")
_LEVELS = {
    "critical": "error", "high": "error", "medium": "warning", "low": "note", "info": "note",
}  # fmt: skip
# GitHub: above 9.0 critical, from 7.0 high, from 4.0 medium, below low.
_SECURITY_SEVERITY = {
    "critical": "9.5", "high": "8.0", "medium": "5.5", "low": "2.0", "info": "0.1",
}  # fmt: skip

Record = Mapping[str, t.Any]


def _tags(control: Record) -> list[str]:
    """Return at most ten tags: one a standard, with all its numbers."""
    standards = (f"{name}: {' '.join(numbers)}" for name, numbers in control["standards"].items())
    return ["security", control["id"], *standards][:10]


def _rule(one: Record, worst: str, control: Record) -> dict[str, t.Any]:
    remedy = one["remediation"] or control["remediation"]
    standards = "\n".join(
        f"- {name}: {', '.join(numbers)}" for name, numbers in control["standards"].items()
    )
    return {
        "id": one["id"],
        "name": one["id"],
        "shortDescription": {"text": one["title"]},
        "fullDescription": {"text": f"{control['title']}: {one['title']}"},
        "help": {
            "text": f"{one['title']}. Expected: {one['expected']}. {remedy}",
            "markdown": f"**{markdown.escape(one['title'])}**\n\n"
            f"Expected: {markdown.code(one['expected'])}\n\n{markdown.escape(remedy)}\n\n"
            f"{standards}",
        },
        "defaultConfiguration": {"level": _LEVELS[worst]},
        "properties": {
            "tags": _tags(control),
            "security-severity": _SECURITY_SEVERITY[worst],
            "problem.severity": _LEVELS[worst].replace("note", "recommendation"),
        },
    }


def _rules(findings: Sequence[Record], controls: Mapping[str, Record]) -> list[dict[str, t.Any]]:
    """Return one rule for each id, as grave as the gravest finding with it."""
    first: dict[str, Record] = {}
    worst: dict[str, str] = {}
    for one in findings:
        first.setdefault(one["id"], one)
        worst[one["id"]] = max(worst.get(one["id"], "info"), one["severity"], key=SEVERITIES.index)
    return [_rule(first[name], worst[name], controls[first[name]["control"]]) for name in first]


def _fingerprint(one: Record) -> str:
    """Return what is the same in each run for one check of one host."""
    text = "\0".join((one["id"], one["host"], one["control"]))
    return hashlib.sha256(text.encode()).hexdigest()[:32] + ":1"


def _suppression(waiver: Record) -> dict[str, t.Any]:
    why = f"{waiver['reason']} (owner: {waiver['owner']}, until {waiver['expires']})"
    return {"kind": "external", "status": "accepted", "justification": why}


def _result(one: Record, rule: int, path: str) -> dict[str, t.Any]:
    result = {
        "ruleId": one["id"],
        "ruleIndex": rule,
        "kind": "fail",
        "level": "error" if one["outcome"] == "error" else _LEVELS[one["severity"]],
        "message": {
            "text": f"{one['host']}: {one['title']}. Expected: {one['expected']}. "
            f"Actual: {one['actual']}. {one['remediation']}".rstrip()
        },
        "locations": [
            {
                "physicalLocation": {
                    "artifactLocation": {"uri": quote(path), "uriBaseId": "%SRCROOT%"},
                    # The file that is to be changed; which line nobody can say from outside.
                    "region": {"startLine": 1, "startColumn": 1, "endLine": 1, "endColumn": 2},
                },
                "logicalLocations": [{"name": one["host"], "kind": "resource"}],
            }
        ],
        "partialFingerprints": {"primaryLocationLineHash": _fingerprint(one)},
        "properties": {
            "control": one["control"], "result": one["result"], "severity": one["severity"],
        },
    }  # fmt: skip
    if one["status"] is not None:
        states = {"new": "new", "unchanged": "unchanged"}
        result["baselineState"] = states.get(one["status"], "updated")
    if one["outcome"] == "waived":
        result["suppressions"] = [_suppression(one["waiver"])]
    return result


def _notification(text: str) -> dict[str, t.Any]:
    return {"level": "warning", "message": {"text": text}}


def _run(
    report: Record, host: Record, paths: Mapping[str, str], notes: Sequence[str]
) -> dict[str, t.Any]:
    reported = [one for one in host["findings"] if one["outcome"] in _REPORTED]
    kept = reported[:MOST_RESULTS]
    controls = {control["id"]: control for control in report["controls"]}
    rules = _rules(kept, controls)
    index = {rule["id"]: number for number, rule in enumerate(rules)}
    driver = {"name": "llmsec.hardening", "rules": rules}
    if report["run"]["collection_version"]:
        driver["version"] = report["run"]["collection_version"]
    # What stands before the last slash is the category that GitHub tells analyses apart by.
    return {
        "tool": {"driver": driver},
        "automationDetails": {"id": f"llmsec.hardening/{host['name']}/"},
        "invocations": [
            {
                "executionSuccessful": not any(
                    one["control"] == "assessment" and one["result"] == "error" for one in reported
                ),
                "startTimeUtc": report["run"]["started"],
                "toolExecutionNotifications": [_notification(text) for text in notes],
            }
        ],
        "columnKind": "unicodeCodePoints",
        "results": [
            _result(one, index[one["id"]], paths.get(one["control"], paths["default"]))
            for one in kept
        ],
    }  # fmt: skip


def _notes(report: Record) -> Iterator[tuple[str, str]]:
    """Yield (host, note) for what does not fit; the gravest come first and are kept."""
    for host in report["hosts"]:
        many = sum(one["outcome"] in _REPORTED for one in host["findings"])
        if many > MOST_RESULTS:
            yield host["name"], f"SARIF: {host['name']} has {many} results, {MOST_RESULTS} kept."


def render(report: Record, paths: Mapping[str, str]) -> tuple[dict[str, t.Any], list[str]]:
    """Return the SARIF log, and notes about what it could not hold.

    `paths` maps controls to files of the repository, relative to its root, with `/`; `default` is
    for all others.
    """
    cut = list(_notes(report))
    runs = [
        _run(report, host, paths, [text for name, text in cut if name == host["name"]])
        for host in report["hosts"]
    ]
    notes = [text for _host, text in cut]
    if len(runs) > _MOST_RUNS:
        notes.append(f"SARIF: {len(runs)} hosts; GitHub takes at most {_MOST_RUNS} runs a file.")
    return {"$schema": _SCHEMA, "version": "2.1.0", "runs": runs}, notes
