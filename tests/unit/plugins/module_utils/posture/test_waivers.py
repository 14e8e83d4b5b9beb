# SPDX-License-Identifier: GPL-3.0-or-later
"""Waivers: what one must say, what it covers, and what becomes of it when it has expired."""

from __future__ import annotations

import datetime

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.waivers import (
    WaiverError,
    parse_waivers,
)

from tests.unit.plugins.module_utils.posture.build import (
    WAIVER,
    check,
    host,
    one_finding,
    outcomes,
    report,
)

FAILED = check("tls.group", "fail", "low")
ERROR = check("tls.group", "error")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"reason": None}, "reason must be a text"),
        ({"reason": "  "}, "reason must be a text"),
        ({"owner": ["me"]}, "owner must be a text"),
        ({"id": ""}, "id must be a text"),
        ({"id": "*"}, "must begin with the subject"),
        ({"id": "?ls.*"}, "must begin with the subject"),
        ({"id": "[a-z]*"}, "must begin with the subject"),
        ({"expires": "31.12.2026"}, "expires must be a day like"),
        ({"expires": "2026-02-30"}, "expires must be a day like"),
        ({"expires": "20261231"}, "expires must be a day like"),
        ({"expires": "2026-W01-1"}, "expires must be a day like"),
        ({"expires": "never"}, "expires must be a day like"),
        ({"expires": datetime.datetime(2026, 12, 31, tzinfo=datetime.UTC)}, "must be a day like"),
        ({"hosts": "llm1"}, "hosts must be a list"),
        ({"hosts": []}, "hosts must be a list"),
        ({"hosts": [1]}, "hosts must be a list"),
        ({"also_errors": "yes"}, "also_errors must be true or false"),
        ({"expire": "2026-12-31"}, "unknown expire"),
    ],
)
def test_what_a_waiver_may_not_say(change, why):
    with pytest.raises(WaiverError, match=f"^waiver 2.*{why}"):
        parse_waivers([WAIVER, {**WAIVER, **change}])


@pytest.mark.parametrize("key", ["id", "reason", "owner", "expires"])
def test_what_a_waiver_must_say(key):
    with pytest.raises(WaiverError, match=f"^waiver 1: {key} missing"):
        parse_waivers([{name: text for name, text in WAIVER.items() if name != key}])


@pytest.mark.parametrize("raw", ["tls.group", WAIVER, None, [["tls.group"]]])
def test_waivers_are_a_list_of_dictionaries(raw):
    with pytest.raises(WaiverError, match="must be a"):
        parse_waivers(raw)


@pytest.mark.parametrize("expires", ["2026-12-31", datetime.date(2026, 12, 31)])
def test_a_day_with_and_without_quotes(expires):
    (waiver,) = parse_waivers([{**WAIVER, "expires": expires}])
    assert waiver.as_dict()["expires"] == "2026-12-31"


@pytest.mark.parametrize(
    ("waiver", "finding", "outcome"),
    [
        ({}, FAILED, "waived"),
        ({"id": "tls.*"}, FAILED, "waived"),
        ({"id": "tls"}, FAILED, "fail"),
        ({"id": "TLS.*"}, FAILED, "fail"),
        ({"hosts": ["llm1"]}, FAILED, "waived"),
        ({"hosts": ["db*", "llm?"]}, FAILED, "waived"),
        ({"hosts": ["llm2"]}, FAILED, "fail"),
        ({"expires": "2026-11-25"}, FAILED, "waived"),
        ({"expires": "2026-11-24"}, FAILED, "fail"),
        ({}, ERROR, "error"),
        ({"also_errors": True}, ERROR, "waived"),
        ({"also_errors": True}, FAILED, "waived"),
        ({}, check("tls.group"), "pass"),
        ({}, check("tls.group", "skip"), "skip"),
    ],
)
def test_what_a_waiver_covers(waiver, finding, outcome):
    made = report({"llm1": host(finding)}, waivers=[{**WAIVER, **waiver}])
    assert outcomes(made)["tls.group"] == outcome
    assert one_finding(made, "tls.group")["result"] == finding["result"]
    told = made["notes"] == []
    assert told == (made["waivers"][0]["used"] == 1)


def test_a_waived_failure_opens_the_gate_and_counts_apart():
    hosts = {"llm1": host(check("tls.group", "fail", "critical"))}
    assert report(hosts)["gate"]["passed"] is False
    made = report(hosts, waivers=[WAIVER])
    assert made["gate"] == {"passed": True, "fail_on": "high", "reasons": []}
    assert made["summary"]["outcomes"]["waived"] == 1
    assert made["summary"]["failed"]["critical"] == 0


LATE = {**WAIVER, "expires": "2026-11-24"}


@pytest.mark.parametrize(("covered", "severity"), [("critical", "high"), ("low", "medium")])
def test_one_that_has_expired_is_a_failure_itself(covered, severity):
    hosts = {"llm1": host(check("tls.group", "fail", covered)), "llm2": host(check("tls.other"))}
    made = report(hosts, waivers=[LATE])
    found = one_finding(made, "posture.waiver.tls.group")
    assert (found["outcome"], found["severity"]) == ("fail", severity)
    assert "expired on 2026-11-24, owner: Team Search" in found["actual"]
    assert outcomes(made)["tls.group"] == "fail"
    assert one_finding(made, "tls.group")["waiver"]["expires"] == "2026-11-24"
    assert "posture.waiver.tls.group" not in outcomes(made, "llm2")
    assert made["waivers"][0]["expired"] is True
    assert report(hosts, waivers=[LATE], fail_on="medium")["gate"]["passed"] is False


def test_one_that_has_expired_and_is_not_needed_is_only_told():
    made = report({"llm1": host(check("tls.group"))}, waivers=[LATE])
    assert made["gate"]["passed"] is True
    assert made["notes"] == [
        "The waiver tls.group of Team Search has expired and is needed no more: remove it."
    ]


def test_one_that_covers_nothing_is_told():
    made = report({"llm1": host(check("tls.group"))}, waivers=[WAIVER])
    assert made["notes"] == ["The waiver tls.group of Team Search is not used: remove it."]


@pytest.mark.parametrize("order", [1, -1])
def test_one_that_holds_goes_before_one_that_has_expired(order):
    made = report({"llm1": host(FAILED)}, waivers=[LATE, {**WAIVER, "id": "tls.*"}][::order])
    assert outcomes(made) == {"tls.group": "waived", "assessment.reached": "pass"}


@pytest.mark.parametrize(("more", "outcome"), [({}, "error"), ({"also_errors": True}, "waived")])
def test_a_host_that_is_away_needs_a_waiver_that_says_so(more, outcome):
    waiver = {**WAIVER, "id": "assessment.reached", "hosts": ["llm2"], **more}
    hosts = {"llm1": host(check("tls.group")), "llm2": {"unreachable": True}}
    made = report(hosts, waivers=[waiver])
    assert outcomes(made, "llm2") == {"assessment.reached": outcome}
    assert made["gate"]["passed"] is (outcome == "waived")


def test_nobody_can_waive_the_failure_of_a_waiver():
    more = {**WAIVER, "id": "posture.*"}
    made = report({"llm1": host(FAILED)}, waivers=[LATE, more])
    assert outcomes(made)["posture.waiver.tls.group"] == "fail"


def test_a_waiver_covers_each_finding_of_its_id():
    made = report({"llm1": host(FAILED, FAILED)}, waivers=[WAIVER])
    assert outcomes(made) == {
        "tls.group": "waived", "tls.group#2": "waived", "assessment.reached": "pass",
    }  # fmt: skip
