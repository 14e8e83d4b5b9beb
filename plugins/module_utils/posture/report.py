# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: findings of all hosts, waivers and an earlier report as one dictionary.

Its shape is docs/schemas/report.schema.json, whose version is SCHEMA_VERSION: the minor number
grows with what is added, the major number with what readers of older reports would trip over.
The same input gives the same report, byte by byte.
"""

from __future__ import annotations

import datetime
import typing as t
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType

from ansible_collections.llmsec.hardening.plugins.module_utils.controls import (
    CONTROLS,
    RESULTS,
    SEVERITIES,
    Control,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.findings import (
    finding,
    not_measured,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.posture import gate
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.baseline import (
    BAD,
    MAJOR,
    Baseline,
    status,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.text import (
    clean,
    clean_lines,
    one_line,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.waivers import (
    Waiver,
    covering,
)

__all__ = ("ALL_CONTROLS", "OUTCOMES", "SCHEMA", "SCHEMA_VERSION", "ReportError", "assemble")

SCHEMA = f"urn:llmsec:hardening:report:{MAJOR}"
SCHEMA_VERSION = f"{MAJOR}.0"
# From what needs work to what needs none. `waived` is a failure that somebody answers for.
OUTCOMES = ("fail", "error", "waived", "skip", "pass")

Finding = dict[str, t.Any]

ASSESSMENT = Control(
    "assessment",
    "Every host is assessed, and every control is measured there",
    "high",
    "Let the control node reach the host with SSH and sudo, and assess it again.",
    MappingProxyType({"NIST 800-53r5": ("CA-2", "CA-7"), "GDPR": ("32(1)(d)",)}),
)
ALL_CONTROLS: Mapping[str, Control] = MappingProxyType({ASSESSMENT.id: ASSESSMENT, **CONTROLS})

_ORDER = {name: number for number, name in enumerate(ALL_CONTROLS)}
_FACTS = ("distribution", "distribution_version", "architecture", "kernel")
_HOST_KEYS = {"findings", "address", "facts", "unreachable", "failed"}
_RUN_KEYS = {"title", "started", "collection_version"}


class ReportError(ValueError):
    """The report was asked for in a way that makes no sense."""


def _known(raw: object, allowed: set[str], place: str) -> Mapping[str, t.Any]:
    if not isinstance(raw, Mapping):
        raise ReportError(f"{place} must be a dictionary")
    unknown = sorted(str(key) for key in raw if key not in allowed)
    if unknown:
        raise ReportError(f"{place}: unknown {', '.join(unknown)}")
    return raw


def _started(value: object) -> datetime.datetime:
    """Return an ISO 8601 time with an offset, in UTC."""
    try:
        moment = datetime.datetime.fromisoformat(str(value))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise ReportError(f"run: started must be like 2027-01-31T12:00:00Z, not {value!r}")
    return moment.astimezone(datetime.UTC)


# --- one host


def _malformed(raw: object) -> str:
    """Return what is wrong with a finding, empty when nothing is."""
    if not isinstance(raw, Mapping):
        return "it is no dictionary"
    if not isinstance(raw.get("id"), str) or not raw["id"]:
        return "it has no id"
    for key, known in (
        ("control", ALL_CONTROLS),
        ("result", RESULTS),
        ("severity", SEVERITIES),
    ):
        value = raw.get(key)
        if not isinstance(value, str) or value not in known:
            return f"{clean(raw['id'], 80)} has the {key} {clean(value, 40)!r}"
    return ""


def _normal(raw: Mapping[str, t.Any]) -> Finding:
    texts = {key: clean(raw.get(key)) for key in ("expected", "actual", "remediation")}
    return {
        "id": one_line(clean(raw["id"], 300)),
        "control": str(raw["control"]),
        "title": one_line(clean(raw.get("title") or raw["id"], 300)),
        "severity": str(raw["severity"]),
        "result": str(raw["result"]),
        **texts,
        "evidence": clean_lines(raw.get("evidence")),
    }


def _reached(host: Mapping[str, t.Any]) -> Finding:
    name, title = "assessment.reached", "the host was assessed to the end"
    why = "the host could not be reached" if host.get("unreachable") else host.get("failed")
    if not why and not host.get("findings"):
        why = "no module found anything, good or bad"
    if why:
        return not_measured(name, ASSESSMENT.id, title, why, ASSESSMENT.remediation)
    return finding(
        name, ASSESSMENT.id, title, ASSESSMENT.severity, "pass", expected="it was", actual="it was"
    )


def _not_understood(problems: Sequence[str]) -> Finding:
    return not_measured(
        "assessment.findings", ASSESSMENT.id, "the findings can be understood",
        f"{len(problems)} not understood: {problems[0]}",
        "Use modules and report of the same version of the collection.",
    )  # fmt: skip


def _missing(findings: Sequence[Finding], expected: Sequence[str]) -> Iterator[Finding]:
    """Yield an error for each control that nobody looked at: that is no pass."""
    seen = {one["control"] for one in findings}
    for control in expected:
        if control not in seen:
            yield not_measured(
                f"assessment.control.{control}", control, f"{control} is measured",
                "no module said anything about it", ASSESSMENT.remediation,
            )  # fmt: skip


def _found(host: Mapping[str, t.Any], expected: Sequence[str]) -> list[Finding]:
    """Return all findings of a host, those about the assessment itself included."""
    raw = host.get("findings") or []
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        raw = [raw]
    problems = [_malformed(one) for one in raw]
    found = [_normal(one) for one, problem in zip(raw, problems, strict=True) if not problem]
    found.append(_normal(_reached(host)))
    if bad := [problem for problem in problems if problem]:
        found.append(_normal(_not_understood(bad)))
    if not host.get("unreachable"):
        found += map(_normal, _missing(found, expected))
    return found


# --- waivers and baseline


def _expired(waiver: Waiver, covered: Sequence[Finding]) -> Finding:
    """Return the finding about a waiver that has expired and is still needed."""
    grave = any(one["severity"] in {"high", "critical"} for one in covered)
    return finding(
        f"posture.waiver.{waiver.id}", ASSESSMENT.id, "no waiver that is needed has expired",
        "high" if grave else "medium", "fail", expected="repaired, or waived anew",
        actual=f"expired on {waiver.expires}, owner: {waiver.owner}",
        evidence=[f"{one['id']}: {one['title']}" for one in covered],
        remediation="Repair what it waived, or decide anew and set a later expires.",
    )  # fmt: skip


def _distinct(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Yield the findings, the second with an id as `id#2`: none may hide another one."""
    seen: Counter[str] = Counter()
    for one in findings:
        seen[one["id"]] += 1
        number = seen[one["id"]]
        yield {**one, "id": f"{one['id']}#{number}"} if number > 1 else one


def _waived(
    name: str, findings: Sequence[Finding], waivers: Sequence[Waiver], today: datetime.date
) -> tuple[list[Finding], Counter[Waiver]]:
    """Return the findings of a host with `outcome` and `waiver`, and how often each was used."""
    used: Counter[Waiver] = Counter()
    late: dict[Waiver, list[Finding]] = {}
    done = []
    for one in findings:
        waiver = covering(waivers, name, one, today)
        holds = waiver is not None and not waiver.expired(today)
        if waiver is not None:
            used[waiver] += 1
            if not holds:
                late.setdefault(waiver, []).append(one)
        outcome = "waived" if holds else one["result"]
        done.append({**one, "outcome": outcome, "waiver": waiver.as_dict() if waiver else None})
    for waiver, covered in late.items():
        done.append({**_normal(_expired(waiver, covered)), "outcome": "fail", "waiver": None})
    return list(_distinct(done)), used


def _compared(name: str, one: Finding, baseline: Baseline | None) -> Finding:
    """Return the finding with `status` and `before`, which are None without a baseline."""
    if baseline is None:
        return {**one, "status": None, "before": None}
    before = baseline.findings.get((name, one["id"]))
    now = status(one["result"], before)
    changed = before is not None and now != "unchanged"
    kept = {key: before[key] for key in ("result", "actual")} if before and changed else None
    return {**one, "status": now, "before": kept}


def _rank(one: Finding) -> tuple[int, int, int, str]:
    return (
        OUTCOMES.index(one["outcome"]), -SEVERITIES.index(one["severity"]),
        _ORDER[one["control"]], one["id"],
    )  # fmt: skip


# --- the whole


def _counts(findings: Sequence[Finding]) -> dict[str, t.Any]:
    """Return how many findings there are by outcome, and failures by severity."""
    outcomes = Counter(one["outcome"] for one in findings)
    failed = Counter(one["severity"] for one in findings if one["outcome"] == "fail")
    return {
        "outcomes": {name: outcomes[name] for name in OUTCOMES},
        "failed": {name: failed[name] for name in reversed(SEVERITIES)},
    }


def _host(
    name: str, raw: Mapping[str, t.Any], findings: Sequence[Finding], baseline: Baseline | None
) -> dict[str, t.Any]:
    facts = raw.get("facts") if isinstance(raw.get("facts"), Mapping) else {}
    complete = ({"host": name, **_compared(name, one, baseline)} for one in findings)
    return {
        "name": name,
        "address": one_line(clean(raw.get("address"), 300)),
        "facts": {key: one_line(clean(facts[key], 300)) for key in _FACTS if facts.get(key)},
        "reached": not raw.get("unreachable"),
        "summary": _counts(findings),
        "findings": sorted(complete, key=_rank),
    }


def _changes(
    baseline: Baseline | None, hosts: Sequence[Mapping[str, t.Any]], findings: Sequence[Finding]
) -> dict[str, t.Any] | None:
    if baseline is None:
        return None
    gone = list(baseline.gone({(one["host"], one["id"]) for one in findings}))
    statuses = Counter(one["status"] for one in findings)
    assessed = {host["name"] for host in hosts}
    return {
        "title": baseline.title,
        "started": baseline.started,
        "counts": {
            **{name: statuses[name] for name in ("new", "fixed", "unchanged")},
            "gone": len(gone),
            "newly_failing": sum(
                one["status"] == "new" and one["outcome"] in BAD for one in findings
            ),
        },
        "gone": gone,
        "hosts_missing": sorted({host for host, _id in baseline.findings} - assessed),
    }


def _waiver_notes(
    waivers: Sequence[Waiver], used: Counter[Waiver], today: datetime.date
) -> Iterator[str]:
    for waiver in waivers:
        if not used[waiver]:
            what = "has expired and is needed no more" if waiver.expired(today) else "is not used"
            yield f"The waiver {waiver.id} of {waiver.owner} {what}: remove it."


def _baseline_notes(changes: Mapping[str, t.Any] | None) -> Iterator[str]:
    for name in changes["hosts_missing"] if changes else ():
        yield f"The baseline knows the host {name}, which was not assessed."


def assemble(
    hosts: Mapping[str, t.Any],
    *,
    run: Mapping[str, t.Any],
    waivers: Sequence[Waiver] = (),
    baseline: Baseline | None = None,
    fail_on: str = "high",
    expected_controls: Sequence[str] = (),
) -> dict[str, t.Any]:
    """Return the report. Raises ReportError for what nobody can have meant.

    `hosts` maps names to {findings, address, facts, unreachable, failed}, all optional, or to None
    for one that was not reached; `run` is {started: ISO 8601, title, collection_version}.
    Only `started` tells the time.
    """
    moment = _started(_known(run, _RUN_KEYS, "run").get("started"))
    unknown = [name for name in expected_controls if name not in CONTROLS]
    if unknown:
        raise ReportError(f"expected_controls: unknown {', '.join(map(str, unknown))}")
    if fail_on not in gate.FAIL_ON:
        raise ReportError(f"fail_on: unknown {fail_on}")
    used: Counter[Waiver] = Counter()
    listed = []
    for key in sorted(hosts, key=str):
        given = {"unreachable": True} if hosts[key] is None else hosts[key]
        raw = _known(given, _HOST_KEYS, f"host {key}")
        name = one_line(clean(key, 300))
        found, covered = _waived(name, _found(raw, expected_controls), waivers, moment.date())
        used += covered
        listed.append(_host(name, raw, found, baseline))
    findings = sorted((one for host in listed for one in host["findings"]), key=_rank)
    changes = _changes(baseline, listed, findings)
    return {
        "$schema": SCHEMA,
        "schema_version": SCHEMA_VERSION,
        "run": {
            "title": one_line(clean(run.get("title"), 300)) or "LLM server posture",
            "started": moment.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "collection_version": one_line(clean(run.get("collection_version"), 300)),
        },
        "gate": gate.judge(len(listed), findings, fail_on),
        "summary": {"hosts": len(listed), **_counts(findings)},
        "changes": changes,
        "controls": [control.as_dict() for control in ALL_CONTROLS.values()],
        "hosts": listed,
        "waivers": [
            {**one.as_dict(), "expired": one.expired(moment.date()), "used": used[one]}
            for one in waivers
        ],
        "notes": [*_waiver_notes(waivers, used, moment.date()), *_baseline_notes(changes)],
    }
