# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether somebody without a good key was let in, judged from the answers. Pure functions.

What makes a finding red is an answer of somebody behind the gateway: the gateway's own refusals are
known by their shape, nginx's by its pages, and whatever is neither is not the gateway's.
"""

from __future__ import annotations

import collections
import json
import re
import typing as t
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils import http_probe
from ansible_collections.llmsec.hardening.plugins.module_utils.access_corpus import Case, Question
from ansible_collections.llmsec.hardening.plugins.module_utils.findings import (
    finding,
    not_measured,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import Answer

__all__ = (
    "Asked", "Direct", "Local", "case_findings", "direct_findings", "gateway_finding", "is_limited",
    "key_finding", "kind_of", "local_findings", "question_findings", "refusal_type", "skipped",
)  # fmt: skip

Finding = dict[str, t.Any]

# What an answer is. The order is that of their weight: the first one found decides.
LET_IN = "let in"  # not the gateway's, or its word that the LLM server did not answer
PAGE = "page"  # a page of nginx's own that is no refusal
LIMITED = "limited"  # refused for the number of requests: says nothing of what was asked
UNDECIDED = "undecided"  # refused because the gateway could not judge
NOTHING = "nothing"  # no answer in time, or none was asked for
SHUT = "shut"  # hung up without an answer
REFUSED = "refused"
_WEIGHTS = (LET_IN, PAGE, LIMITED, UNDECIDED, NOTHING, SHUT, REFUSED)

_BY_STATUS = {429: LIMITED, 500: UNDECIDED, 503: UNDECIDED, 502: LET_IN, 504: LET_IN}
_NGINX_PAGE = re.compile(rb"<hr><center>(?:nginx|openresty)|Welcome to nginx!", re.IGNORECASE)
_REQUEST_ID = re.compile(r"[0-9a-f]{32}\Z")
_WHY_SHUT = (http_probe.CLOSED, http_probe.NO_TLS, http_probe.REFUSED)
_LINES = 20

_REMEDY = "Apply the roles key_validator and gateway, which write all of the gateway's files anew."
_CLOSE = (
    "Take the class out of gateway_route_classes and gateway_extra_routes, and apply the role "
    "gateway."
)
_AGAIN = (
    "See that the gateway and the key validator run, and ask again; from another host than the "
    "gateway with `quick`, which stays below the limit per address."
)


def refusal_type(answer: Answer) -> str:
    """Return `type` of the gateway's JSON error, nothing when the answer is not of its shape.

    `{"error": {"type", "message", "request_id"}}`, the id being that in the header X-Request-Id.
    """
    try:
        error = json.loads(answer.body)["error"]
        request_id, kind = error["request_id"], error["type"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    named = answer.headers.get("x-request-id", request_id)
    shaped = isinstance(request_id, str) and isinstance(kind, str) and isinstance(
        error.get("message"), str
    )  # fmt: skip
    return kind if shaped and request_id and named == request_id else ""


def _is_headless_refusal(answer: Answer, method: str) -> bool:
    """Judge an answer to HEAD, which has no body, by its headers."""
    if method != "HEAD" or answer.status < 400:
        return False
    kind = answer.headers.get("content-type", "")
    if kind.startswith("application/json"):
        return bool(_REQUEST_ID.match(answer.headers.get("x-request-id", "")))
    server = answer.headers.get("server", "")
    return kind.startswith("text/html") and server.startswith(("nginx", "openresty"))


def kind_of(answer: Answer, method: str = "GET") -> str:
    """Return which of the kinds above the answer to a request of `method` is."""
    if answer.why in _WHY_SHUT:
        return SHUT
    if not answer.status and answer.why != http_probe.GARBAGE:
        return NOTHING
    page = _NGINX_PAGE.search(answer.body) is not None
    if page and answer.status < 400 and answer.status:
        return PAGE
    if not (page or refusal_type(answer) or _is_headless_refusal(answer, method)):
        return LET_IN
    # HTTP/0.9 has no status: the refusal is the whole answer.
    return _BY_STATUS.get(answer.status, REFUSED)


def is_limited(answer: Answer) -> bool:
    """Say whether to ask again later, or from elsewhere."""
    return answer.status == 429


@dataclass(frozen=True, slots=True)
class Asked:
    """A request's first line as people may see it, its method, and all answers to it."""

    line: str
    method: str
    answers: tuple[Answer, ...]

    @property
    def kind(self) -> str:
        """The weightiest kind among the answers."""
        kinds = {kind_of(answer, self.method) for answer in self.answers}
        return next((kind for kind in _WEIGHTS if kind in kinds), NOTHING)

    def __str__(self) -> str:
        said = ", ".join(str(answer) for answer in self.answers) or http_probe.LATE
        told = [_told(answer) for answer in self.answers if kind_of(answer, self.method) == LET_IN]
        return f"{self.line} -> {said}{'; '.join(told)}"


def _told(answer: Answer) -> str:
    """Return the beginning of a body that should not have come, in one line."""
    text = answer.body[:80].decode("ascii", "replace").replace("\ufffd", "?")
    text = " ".join("".join(char if char.isprintable() else " " for char in text).split())
    return f" {text!r}" if text else ""


def _counted(asked: Iterable[Asked]) -> str:
    """Return `22 requests: 401 (20), 404 (2)`."""
    words = [str(answer) for one in asked for answer in one.answers[:1]]
    found = collections.Counter(words)
    each = ", ".join(f"{word} ({count})" for word, count in sorted(found.items()))
    return f"{len(words)} request{'' if len(words) == 1 else 's'}: {each}"


def _evidence(asked: Sequence[Asked]) -> list[str]:
    lines = [str(one)[:300] for one in asked]
    if len(lines) <= _LINES:
        return lines
    return [*lines[: _LINES - 1], f"... and {len(lines) - _LINES + 1} more"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Check:
    """What a finding says beside its result."""

    id: str
    control: str
    title: str
    expected: str
    remediation: str

    def say(self, severity: str, result: str, actual: str, asked: Sequence[Asked]) -> Finding:
        return finding(
            self.id, self.control, self.title, severity, result, expected=self.expected,
            actual=actual, evidence=_evidence(asked), remediation=self.remediation,
        )  # fmt: skip

    def error(self, asked: Sequence[Asked], why: str) -> Finding:
        found = not_measured(self.id, self.control, self.title, why, _AGAIN)
        return {**found, "evidence": _evidence(asked)}


def _judged(
    check: _Check, asked: Sequence[Asked], bad: Mapping[str, tuple[str, str]],
    unclear: Iterable[str],
) -> Finding:  # fmt: skip
    """Return the finding: `bad` kinds fail with (severity, what happened), `unclear` ones err."""
    for kind, (severity, what) in bad.items():
        if found := [one for one in asked if one.kind == kind]:
            return check.say(severity, "fail", f"{what}; {_counted(asked)}", found)
    if found := [one for one in asked if one.kind in {*unclear}]:
        return check.error(found, f"no decisive answer to {len(found)} of {_counted(asked)}")
    if not asked:
        return check.error([], "nothing was asked")
    return check.say("critical", "pass", f"refused; {_counted(asked)}", [])


def key_finding(asked: Asked) -> Finding:
    """Return whether the key that was given is good: if not, its refusals prove nothing."""
    check = _Check(
        id="access.key", control="authentication", title="the given key is let in",
        expected="the LLM server's answer", remediation="Give a key that is good from here.",
    )  # fmt: skip
    if asked.kind == LET_IN and all(0 < answer.status < 400 for answer in asked.answers):
        return check.say("high", "pass", f"let in; {_counted([asked])}", [])
    return check.error([asked], f"the key was not let in: {_counted([asked])}")


def skipped(finding_id: str, control: str, title: str, why: str) -> Finding:
    """Return the finding of something that there is a reason not to look at."""
    return finding(
        finding_id, control, title, "high", "skip", expected="measured", actual=why,
    )  # fmt: skip


_BAD = {
    LET_IN: ("critical", "somebody behind the gateway answered"),
    PAGE: ("medium", "nginx answered with a page that is no refusal"),
}
_UNCLEAR = (LIMITED, UNDECIDED, NOTHING)


def gateway_finding(asked: Asked) -> Finding:
    """Return whether anybody answers at all: if not, no refusal proves anything."""
    check = _Check(
        id="access.gateway", control="authentication", title="the gateway answers",
        expected="an HTTP answer", remediation=_AGAIN,
    )  # fmt: skip
    if asked.kind in (SHUT, NOTHING):
        why = ", ".join(str(answer) for answer in asked.answers) or http_probe.LATE
        return check.error([asked], f"no answer: {why}")
    return check.say("high", "pass", f"it answers; {_counted([asked])}", [])


def case_findings(cases: Iterable[tuple[Case, Sequence[Asked]]], area: str) -> Iterator[Finding]:
    """Yield a finding for each id of the cases in an area (`bypass`, `credentials`)."""
    together: dict[str, list[Asked]] = {}
    of: dict[str, Case] = {}
    for case, asked in cases:
        of[case.id] = case
        together.setdefault(case.id, []).extend(asked)
    for case_id, asked in together.items():
        case = of[case_id]
        check = _Check(
            id=f"access.{area}.{case_id}", control="authentication", title=case.title,
            expected="refused by the gateway", remediation=_REMEDY,
        )  # fmt: skip
        bad, unclear = dict(_BAD), {*_UNCLEAR}
        if case.waits:
            bad[NOTHING] = ("medium", "the gateway waits for the body of a stranger")
        if not case.may_close:
            unclear.add(SHUT)
        yield _judged(check, asked, bad, unclear)


_GROUPS = {
    "no_key": ("authentication", "{} routes refuse who shows nothing", "401, or 403", _REMEDY),
    "wrong_key": ("authentication", "{} routes refuse an unknown key", "401, or 403", _REMEDY),
    "closed": ("management_routes", "{} routes do not exist here", "404", _CLOSE),
    "closed_to_keys": ("management_routes", "{} routes do not exist for a key either", "404",
                       _CLOSE),
    "methods": ("authentication", "other methods of the LLM server's paths are refused",
                "404, or 403", _REMEDY),
}  # fmt: skip
# A route that asks for a key is there, for whoever has one.
_ABSENT = ("inspect", "medium"), ("management", "high"), ("account", "high")


def question_findings(asked: Iterable[tuple[Question, Asked]]) -> Iterator[Finding]:
    """Yield a finding for each group of questions."""
    groups: dict[str, list[tuple[Question, Asked]]] = {}
    for question, one in asked:
        groups.setdefault(question.group, []).append((question, one))
    for group, found in groups.items():
        yield _group_finding(group, found)


def _group_finding(group: str, found: Sequence[tuple[Question, Asked]]) -> Finding:
    kind, _dot, endpoint_class = group.partition(".")
    control, title, expected, remediation = _GROUPS[kind]
    check = _Check(
        id=f"access.{group}", control=control, title=title.format(endpoint_class),
        expected=expected, remediation=remediation,
    )  # fmt: skip
    bad = dict(_BAD)
    if kind == "closed_to_keys":
        bad[LET_IN] = ("high", "a key got through to somebody behind the gateway")
    if any(question.unsafe for question, _one in found):
        bad[NOTHING] = ("medium", "the gateway waits for the body of a stranger")
    judged = _judged(check, [one for _q, one in found], bad, {*_UNCLEAR, SHUT})
    there = [one for question, one in found if question.absent and _asks_for_a_key(one)]
    if there and judged["result"] == "pass":
        severity = dict(_ABSENT).get(endpoint_class, "medium")
        said = "they exist for whoever has a key"
        return check.say(severity, "fail", f"{said}; {_counted([one for _q, one in found])}", there)
    return judged


def _asks_for_a_key(asked: Asked) -> bool:
    return any(answer.status == 401 for answer in asked.answers)


@dataclass(frozen=True, slots=True, kw_only=True)
class Direct:
    """An address of the LLM server or the key validator that was asked without the gateway.

    `answer` is that to `GET /`; `why` says why there was no connection, if there was none.
    """

    address: str
    port: int
    answer: Answer
    why: str = ""

    def __str__(self) -> str:
        said = self.why or f"connected, {self.answer}{_told(self.answer)}"
        return f"{self.address} port {self.port}: {said}"[:300]


def direct_findings(asked: Sequence[Direct], gateway_answers: bool) -> Iterator[Finding]:
    """Yield a finding for each port that nobody shall reach but through the gateway.

    When the gateway does not answer either, silence may be that of a host that is down.
    """
    for port in dict.fromkeys(one.port for one in asked):
        yield _direct_finding(port, [one for one in asked if one.port == port], gateway_answers)


def _direct_finding(port: int, asked: Sequence[Direct], gateway_answers: bool) -> Finding:
    place = f"access.direct.{port}"
    title = f"port {port} is reached through the gateway only"
    remedy = "Apply the role of the LLM server, which binds it to loopback, and the role firewall."
    evidence = [str(one) for one in asked][:_LINES]
    reached = [one for one in asked if not one.why]
    if reached:
        is_open = any(0 < one.answer.status < 400 for one in reached)
        return finding(
            place, "loopback", title, "critical" if is_open else "high", "fail",
            expected="no connection", evidence=[str(one) for one in reached][:_LINES],
            actual="it answers anybody" if is_open else "it can be reached", remediation=remedy,
        )  # fmt: skip
    vague = (http_probe.UNREACHABLE, *(() if gateway_answers else (http_probe.SILENT,)))
    if unsure := [one for one in asked if one.why in vague]:
        found = not_measured(place, "loopback", title, unsure[0].why, _AGAIN)
        return {**found, "evidence": evidence}
    return finding(
        place, "loopback", title, "critical", "pass", expected="no connection",
        actual="no connection", evidence=evidence, remediation=remedy,
    )  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Local:
    """What became of a local user who tried a port on loopback, or a unix socket.

    `outcome` is `connected`, `refused`, or why nothing is known.
    """

    user: str
    place: str  # a port, or the name of a socket's file
    what: str  # for people: address and port, or path
    outcome: str


def local_findings(tried: Iterable[Local]) -> Iterator[Finding]:
    """Yield a finding for each local user and place."""
    together: dict[tuple[str, str], list[Local]] = {}
    for one in tried:
        together.setdefault((one.user, one.place), []).append(one)
    for (user, place), found in together.items():
        yield _local_finding(user, place, found)


def _local_finding(user: str, place: str, found: Sequence[Local]) -> Finding:
    title = f"the local user {user} is kept off {place}"
    remedy = "Set firewall_loopback_users and apply the role firewall; apply key_validator."
    common: dict[str, t.Any] = {
        "expected": "refused", "evidence": [f"{one.what}: {one.outcome}" for one in found][:_LINES]
    }  # fmt: skip
    finding_id = f"access.local.{user}.{place}"
    if any(one.outcome == "connected" for one in found):
        return finding(finding_id, "loopback", title, "high", "fail", actual="connected",
                       remediation=remedy, **common)  # fmt: skip
    if skipped := [one.outcome for one in found if one.outcome.startswith("skipped: ")]:
        why = skipped[0].removeprefix("skipped: ")
        return finding(finding_id, "loopback", title, "high", "skip", actual=why, **common)
    if unknown := [one.outcome for one in found if one.outcome != "refused"]:
        unmeasured = not_measured(finding_id, "loopback", title, unknown[0], remedy)
        return {**unmeasured, "evidence": common["evidence"]}
    return finding(finding_id, "loopback", title, "high", "pass", actual="refused", **common)
