# SPDX-License-Identifier: GPL-3.0-or-later
"""When a 429 must come, and what its absence means."""

from __future__ import annotations

import json

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import http_probe
from ansible_collections.llmsec.hardening.plugins.module_utils.controls import CONTROLS
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_routes import GatewayError
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import Answer, no_answer
from ansible_collections.llmsec.hardening.plugins.module_utils.rate_checks import (
    DODGES,
    Limit,
    Seen,
    Tried,
    answer_finding,
    dodge_finding,
    enough,
    limit_finding,
    off_finding,
    parse_limit,
    recovery_finding,
    skip_finding,
)

LIMIT = Limit("30r/m", 10)


def seen(*statuses, seconds=0.0):
    return Seen(tuple(Answer(status) for status in statuses), seconds)


@pytest.mark.parametrize(
    ("raw", "limit"),
    [
        (None, None),
        ({}, None),
        ({"rate": "10r/m", "burst": 5}, Limit("10r/m", 5)),
        ({"rate": "5r/s"}, Limit("5r/s", 0)),
        ({"rate": "5r/s", "burst": None}, Limit("5r/s", 0)),
    ],
)
def test_a_limit_is_written_as_the_gateway_has_it(raw, limit):
    assert parse_limit(raw) == limit


@pytest.mark.parametrize(
    "raw", [{"burst": 5}, {"rate": "10"}, {"rate": "0r/s"}, {"rate": "1r/s", "burst": -1}]
)
def test_what_is_no_limit_is_said(raw):
    with pytest.raises(GatewayError):
        parse_limit(raw)


@pytest.mark.parametrize(
    ("limit", "seconds", "most"),
    [(LIMIT, 0, 12), (LIMIT, 4, 14), (Limit("5r/s", 0), 2, 12), (Limit("1r/m", 1), 0.5, 4)],
)
def test_how_many_may_get_through(limit, seconds, most):
    assert limit.most(seconds) == most


@pytest.mark.parametrize(
    ("answers", "result"),
    [
        (seen(*[401] * 11, 429, 429), "pass"),
        (seen(*[401] * 12, 429), "pass"),
        # A stricter limit is one as well.
        (seen(*[401] * 3, 429), "pass"),
        (seen(*[401] * 14, 429, seconds=4), "pass"),
        (seen(*[401] * 13, 429), "fail"),
        (seen(*[401] * 40), "fail"),
        (seen(*[200] * 40), "fail"),
        (seen(429, 429), "error"),
        (seen(*[403] * 40), "error"),
        (seen(*[404] * 40), "error"),
        (seen(*[401] * 12), "error"),
        (seen(*[401] * 20, seconds=600), "error"),
        (seen(401, 0), "error"),
        (seen(), "error"),
    ],
)
@pytest.mark.parametrize("which", ["per_address", "per_key"])
def test_the_first_429_comes_when_it_must(which, answers, result):
    found = limit_finding(which, LIMIT, answers)
    assert (found["id"], found["result"]) == (f"rate_limit.{which}", result)
    assert found["control"] in CONTROLS
    if result != "pass":
        assert f"gateway_limit_{which}" in found["remediation"]


def test_a_burst_that_somebody_used_up_is_named():
    found = limit_finding("per_address", LIMIT, seen(429))
    assert "somebody else" in found["actual"]
    assert "22 seconds" in found["actual"]


def test_no_limit_at_all_is_a_finding_and_no_look_is_none():
    assert off_finding("per_key")["result"] == "fail"
    assert "gateway_limit_per_key" in off_finding("per_key")["remediation"]
    assert skip_finding("per_key", "not today")["actual"] == "not today"


def limited(after="6", kind="rate_limit"):
    error = {"error": {"type": kind, "message": "m", "request_id": "i"}}
    return Answer(429, {"retry-after": after}, json.dumps(error).encode())


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (limited(), "pass"),
        (limited(after=""), "fail"),
        (limited(after="0"), "fail"),
        (limited(after="soon"), "fail"),
        (limited(kind="other"), "fail"),
        (Answer(429, {"retry-after": "6"}, b"<html>429</html>"), "fail"),
    ],
)
def test_a_429_says_when_to_come_back(answer, result):
    found = answer_finding(Seen((Answer(401), answer), 0))
    assert found["result"] == result
    assert answer_finding(seen(401, 401)) is None


def tries(*words):
    return [Tried(*(Answer(status) for status in word)) for word in words]


SLIPPED, MET, OPEN = (429, 401, 429), (429, 429, 429), (401, 401, 429)


@pytest.mark.parametrize(
    ("tried", "result"),
    [
        ([MET], "pass"),
        # One more was let in just then.
        ([SLIPPED, SLIPPED, MET], "pass"),
        ([OPEN, MET], "pass"),
        ([SLIPPED] * 3, "fail"),
        ([SLIPPED, OPEN, SLIPPED, SLIPPED], "fail"),
        ([SLIPPED] * 2, "error"),
        ([OPEN] * 5, "error"),
        ([], "error"),
        ([(429, 0, 429)] * 5, "error"),
    ],
)
@pytest.mark.parametrize("name", ["x_forwarded_for", "other_route"])
def test_a_dodge_works_when_it_works_each_time(name, tried, result):
    found = dodge_finding(name, tries(*tried))
    assert (found["id"], found["result"]) == (f"rate_limit.dodge.{name}", result)
    assert enough(tries(*tried)) == (result in ("pass", "fail"))


def test_a_route_that_is_not_open_is_no_way_around():
    assert dodge_finding("other_route", tries((429, 404, 429)))["result"] == "skip"
    assert dodge_finding("client", tries(*[(429, 404, 429)] * 3))["result"] == "fail"


@pytest.mark.parametrize(
    ("waited", "answer", "result"),
    [
        (2.2, Answer(401), "pass"),
        (2.2, Answer(429), "fail"),
        (2.2, no_answer(http_probe.SILENT), "error"),
        (None, None, "skip"),
    ],
)
def test_recovery(waited, answer, result):
    assert recovery_finding(LIMIT, waited, answer)["result"] == result


def test_dodges_are_headers_that_can_be_sent():
    for title, headers in DODGES.values():
        assert title
        assert all(": " in one and "\n" not in one for one in headers)
