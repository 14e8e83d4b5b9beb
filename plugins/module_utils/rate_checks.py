# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a gateway limits requests as it says, judged from its answers. Pure functions.

nginx's limit_req lets `burst` requests through at once and one more per period of the rate, so the
first 429 must come with request `burst + 2` or soon after (ngx_http_limit_req_module). It counts
before the key is looked at: for somebody without a key the rest is 401.
"""

from __future__ import annotations

import math
import typing as t
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.access_checks import refusal_type
from ansible_collections.llmsec.hardening.plugins.module_utils.findings import (
    finding,
    not_measured,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_routes import (
    GatewayError,
    rate_period,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import Answer

__all__ = (
    "DODGES",
    "Limit",
    "Seen",
    "Tried",
    "answer_finding",
    "dodge_finding",
    "limit_finding",
    "off_finding",
    "parse_limit",
    "recovery_finding",
    "skip_finding",
)

Finding = dict[str, t.Any]

CONTROL = "rate_limit"
# How many requests a slow clock may let through beyond what was counted
_SLACK = 1
_TITLES = {
    "per_address": "requests of one address are limited",
    "per_key": "requests with one key are limited",
}
_VARIABLES = {"per_address": "gateway_limit_per_address", "per_key": "gateway_limit_per_key"}

# What must make nobody a stranger to the limit per address: headers to add, or a word for another
# route. Keys in them are filled in.
DODGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "x_forwarded_for": (
        "X-Forwarded-For makes no other address", ("X-Forwarded-For: 198.51.100.7",),
    ),
    "x_real_ip": (
        "X-Real-IP and its kin make no other address",
        ("X-Real-IP: 198.51.100.8", "X-Client-IP: 198.51.100.8", "True-Client-IP: 198.51.100.8",
         "CF-Connecting-IP: 198.51.100.8", "Forwarded: for=198.51.100.8"),
    ),
    "bearer": ("a new key in Authorization is no way around", ("Authorization: Bearer <key>",)),
    "bearer_spelling": (
        "another spelling of Bearer is no way around", ("Authorization: bearer <key>",),
    ),
    "x_api_key": ("a new key in X-API-Key is no way around", ("X-API-Key: <key>",)),
    "client": (
        "another browser or session is no way around",
        ("User-Agent: llmsec-probe", "Cookie: session=llmsec-probe"),
    ),
    "other_route": ("another route is no way around", ()),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate as nginx writes it, and how many requests more may come at once."""

    rate: str
    burst: int

    @property
    def period(self) -> int:
        """Whole seconds, rounded up, until one more request is let in."""
        return rate_period(self.rate)

    @property
    def at_once(self) -> int:
        """How many requests get through at once."""
        return 1 + self.burst

    def most(self, seconds: float) -> int:
        """How many requests may get through in so many seconds."""
        count, _slash, unit = self.rate.partition("r/")
        per_second = int(count) / {"s": 1, "m": 60}[unit]
        return self.at_once + math.ceil(per_second * seconds) + _SLACK

    def __str__(self) -> str:
        return f"{self.rate} with a burst of {self.burst}"


def parse_limit(raw: Mapping[str, t.Any] | None) -> Limit | None:
    """Return the limit of a dictionary with `rate` and maybe `burst`. Raises GatewayError."""
    if not raw:
        return None
    burst = raw.get("burst") or 0
    if not isinstance(burst, int) or burst < 0:
        raise GatewayError(f"not a burst: {burst!r}")
    limit = Limit(str(raw.get("rate")), burst)
    if limit.period < 1:
        raise GatewayError(f"not a rate: {limit.rate!r}")
    return limit


@dataclass(frozen=True, slots=True)
class Seen:
    """Answers to the same request over and over, in their order, and the seconds they took."""

    answers: tuple[Answer, ...]
    seconds: float

    @property
    def passed(self) -> int | None:
        """How many got through before the first 429; None when there was none."""
        found = (index for index, answer in enumerate(self.answers) if answer.status == 429)
        return next(found, None)

    def __str__(self) -> str:
        counts = Counter(str(answer) for answer in self.answers)
        told = ", ".join(f"{word} ({count})" for word, count in sorted(counts.items()))
        return f"{len(self.answers)} requests in {self.seconds:.1f} s: {told or 'no answer'}"


def _remedy(which: str) -> str:
    return f"Set {_VARIABLES[which]} and apply the role gateway."


def off_finding(which: str) -> Finding:
    """Return the finding of a gateway that is meant to have no such limit."""
    return finding(
        f"rate_limit.{which}", CONTROL, _TITLES[which], "high", "fail", expected="a limit",
        actual=f"none is set ({_VARIABLES[which]} is null)", remediation=_remedy(which),
    )  # fmt: skip


def skip_finding(which: str, why: str) -> Finding:
    """Return the finding of a limit that is not looked at."""
    return finding(
        f"rate_limit.{which}", CONTROL, _TITLES[which], "high", "skip", expected="a limit",
        actual=why,
    )  # fmt: skip


def limit_finding(which: str, limit: Limit, seen: Seen) -> Finding:
    """Return whether the first 429 came when it must."""
    finding_id, title = f"rate_limit.{which}", _TITLES[which]
    if why := _undecided(limit, seen):
        return not_measured(finding_id, CONTROL, title, f"{why}; {seen}", _remedy(which))
    most, passed = limit.most(seen.seconds), seen.passed
    good = passed is not None and passed <= most
    got = f"429 after {passed}" if passed is not None else "no 429"
    return finding(
        finding_id, CONTROL, title, "high", "pass" if good else "fail",
        expected=f"429 after at most {most} ({limit})", actual=f"{got}; {seen}",
        remediation=_remedy(which),
    )  # fmt: skip


def _undecided(limit: Limit, seen: Seen) -> str:
    """Return why the answers prove nothing, empty when they do."""
    if seen.passed == 0:
        return (
            "the first request was limited already, so somebody else has used the burst up; "
            f"wait {limit.at_once * limit.period} seconds without requests from this address"
        )
    if seen.passed is not None:
        return ""
    statuses = {answer.status for answer in seen.answers}
    reasons = {
        "not every request was answered": not statuses or 0 in statuses,
        "all were refused before they were counted; client_certificate may be needed": (
            statuses == {403}
        ),
        "there is no such route, and only routes are counted (path)": statuses == {404},
        "there were too few requests to reach the limit (requests, within)": (
            len(seen.answers) <= limit.most(seen.seconds)
        ),
    }
    return next((why for why, holds in reasons.items() if holds), "")


def answer_finding(seen: Seen) -> Finding | None:
    """Return whether a 429 says when to come back, in the gateway's JSON; None without a 429."""
    limited = next((answer for answer in seen.answers if answer.status == 429), None)
    if limited is None:
        return None
    after = limited.headers.get("retry-after", "")
    timed = after.isdecimal() and int(after) > 0
    good = timed and refusal_type(limited) == "rate_limit"
    shape = refusal_type(limited) or "no error of the gateway"
    return finding(
        "rate_limit.answer", CONTROL, "a limited client learns when to come back", "low",
        "pass" if good else "fail", expected="Retry-After and a JSON error of type rate_limit",
        actual=f"Retry-After: {after or 'none'}; {shape}",
        remediation="Apply the role gateway, which writes its error pages anew.",
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Tried:
    """One try to dodge a limit that is used up: a plain request before it, the try, one after."""

    before: Answer
    dodge: Answer
    after: Answer

    @property
    def limited(self) -> bool:
        """Whether the try met the limit."""
        return self.dodge.status == 429

    @property
    def slipped(self) -> bool:
        """Whether it got through where plain requests did not."""
        around = {self.before.status, self.after.status}
        return around == {429} and self.dodge.status not in (0, 429)

    def __str__(self) -> str:
        return f"plain {self.before}, dodge {self.dodge}, plain {self.after}"


# One may slip through by chance, between two others, when the limit lets one more in.
_CERTAIN = 3


def dodge_finding(name: str, tries: Sequence[Tried]) -> Finding:
    """Return whether a dodge works: it does when it gets through each time."""
    finding_id, title = f"rate_limit.dodge.{name}", DODGES[name][0]
    evidence = [str(one) for one in tries]
    remedy = "Apply the role gateway: its zone per address counts by $binary_remote_addr alone."
    if any(one.limited for one in tries):
        return finding(finding_id, CONTROL, title, "high", "pass", expected="429", actual="429",
                       evidence=evidence)  # fmt: skip
    if name == "other_route" and tries and tries[-1].dodge.status == 404:
        return finding(finding_id, CONTROL, title, "high", "skip", expected="429",
                       actual="no other route is open", evidence=evidence)  # fmt: skip
    if sum(one.slipped for one in tries) >= _CERTAIN:
        return finding(
            finding_id, CONTROL, title, "high", "fail", expected="429",
            actual=f"{tries[-1].dodge}, while plain requests get 429", evidence=evidence,
            remediation=remedy,
        )  # fmt: skip
    why = "the limit let plain requests through as well, or there was no time"
    return {**not_measured(finding_id, CONTROL, title, why, remedy), "evidence": evidence}


def recovery_finding(limit: Limit, waited: float | None, answer: Answer | None) -> Finding:
    """Return whether one more request is let in after the period; None for what was not tried."""
    finding_id, title = "rate_limit.recovery", "a client is let in again after the period"
    common: dict[str, t.Any] = {"expected": f"no 429 after {limit.period} seconds"}
    if answer is None or waited is None:
        return finding(
            finding_id, CONTROL, title, "low", "skip",
            actual=f"{limit.period} seconds are more than recover_within", **common,
        )  # fmt: skip
    if not answer.status:
        why = f"no answer after {waited:.1f} s: {answer}"
        return not_measured(finding_id, CONTROL, title, why, _remedy("per_address"))
    return finding(
        finding_id, CONTROL, title, "low", "fail" if answer.status == 429 else "pass",
        actual=f"{answer} after {waited:.1f} s", remediation=_remedy("per_address"), **common,
    )  # fmt: skip


def enough(tries: Iterable[Tried]) -> bool:
    """Say whether there is no need to try a dodge again."""
    seen = [*tries]
    return any(one.limited for one in seen) or sum(one.slipped for one in seen) >= _CERTAIN
