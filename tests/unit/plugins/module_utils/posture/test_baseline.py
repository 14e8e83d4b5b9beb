# SPDX-License-Identifier: GPL-3.0-or-later
"""An earlier report: what can be read, and what has become of each finding since."""

from __future__ import annotations

import json

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.baseline import (
    BaselineError,
    parse_baseline,
)

from tests.unit.plugins.module_utils.posture.build import check, host, one_finding, report


@pytest.mark.parametrize(
    ("before", "now", "status"),
    [
        ("fail", "fail", "unchanged"),
        ("pass", "pass", "unchanged"),
        ("error", "error", "unchanged"),
        ("skip", "skip", "unchanged"),
        ("fail", "pass", "fixed"),
        ("error", "pass", "fixed"),
        ("skip", "pass", "new"),
        ("pass", "fail", "new"),
        ("error", "fail", "new"),
        ("fail", "error", "new"),
        ("fail", "skip", "new"),
        (None, "fail", "new"),
        (None, "pass", "new"),
    ],
)
def test_status(before, now, status):
    earlier = [] if before is None else [check("tls.group", before, actual="as it was")]
    first = report({"llm1": host(*earlier)})
    made = report({"llm1": host(check("tls.group", now))}, baseline=first)
    found = one_finding(made, "tls.group")
    assert found["status"] == status
    expected = None if before in {None, now} else {"result": before, "actual": "as it was"}
    assert found["before"] == expected
    newly = made["changes"]["counts"]["newly_failing"]
    assert newly == (status == "new" and now in {"fail", "error"})


def test_findings_of_other_hosts_are_others():
    first = report({"llm2": host(check("tls.group", "fail"))})
    made = report({"llm1": host(check("tls.group", "fail"))}, baseline=first)
    assert one_finding(made, "tls.group")["status"] == "new"
    assert made["changes"]["hosts_missing"] == ["llm2"]
    assert made["notes"] == ["The baseline knows the host llm2, which was not assessed."]


def test_what_failed_and_is_checked_no_more_is_not_fixed_but_gone():
    earlier = host(check("tls.a", "fail"), check("tls.b", "error"), check("tls.c"), check("tls.d"))
    made = report({"llm1": host(check("tls.d"))}, baseline=report({"llm1": earlier}))
    counts = made["changes"]["counts"]
    assert counts == {"new": 0, "fixed": 0, "unchanged": 2, "gone": 2, "newly_failing": 0}
    assert [(one["host"], one["id"], one["result"]) for one in made["changes"]["gone"]] == [
        ("llm1", "tls.a", "fail"),
        ("llm1", "tls.b", "error"),
    ]


def test_a_host_that_is_back_is_fixed_and_what_was_said_of_it_is_not_gone():
    first = report({"llm1": {"failed": "no sudo"}}, expected_controls=["tls"])
    made = report({"llm1": host(check("tls.a"))}, baseline=first, expected_controls=["tls"])
    assert one_finding(made, "assessment.reached")["status"] == "fixed"
    assert made["changes"]["gone"] == []


def test_without_a_baseline_nothing_is_new():
    made = report({"llm1": host(check("tls.group", "fail"))})
    found = one_finding(made, "tls.group")
    assert (found["status"], found["before"], made["changes"]) == (None, None, None)


def test_a_report_read_back_from_its_file_is_all_unchanged():
    hosts = {"llm1": host(check("tls.group", "fail"), check("tls.group", "fail"), check("tls.b"))}
    text = json.dumps(report(hosts))
    made = report(hosts, baseline=json.loads(text))
    assert {one["status"] for one in made["hosts"][0]["findings"]} == {"unchanged"}
    assert made["changes"]["started"] == "2026-11-25T12:00:00Z"


def good():
    return report({"llm1": host(check("tls.group", "fail"))})


@pytest.mark.parametrize("version", ["1.0", "1.9", "1.10"])
def test_versions_of_the_same_major_are_read(version):
    earlier = parse_baseline({**good(), "schema_version": version, "later": "unknown"})
    assert ("llm1", "tls.group") in earlier.findings


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"schema_version": "2.0"}, "schema_version is 2.0, not 1.x"),
        ({"schema_version": "0.9"}, "schema_version is 0.9, not 1.x"),
        ({"schema_version": None}, "schema_version is missing"),
        ({"schema_version": 1}, "schema_version is missing"),
        ({"schema_version": "one"}, "schema_version is missing"),
        ({"run": None}, "run or hosts are missing"),
        ({"hosts": {"llm1": {}}}, "run or hosts are missing"),
        ({"hosts": ["llm1"]}, "a host has no findings"),
        ({"hosts": [{"name": "llm1"}]}, "a host has no findings"),
        ({"hosts": [{"name": "llm1", "findings": ["x"]}]}, "host llm1: a finding has no id"),
        ({"hosts": [{"name": "llm1", "findings": [{"id": "x"}]}]}, "llm1: x has no known result"),
    ],
)
def test_what_is_no_report_is_an_error_that_says_why(change, why):
    with pytest.raises(BaselineError, match=why):
        parse_baseline({**good(), **change})


@pytest.mark.parametrize("raw", [[], "report", 1, None])
def test_what_is_no_object_is_no_report(raw):
    with pytest.raises(BaselineError, match="not an object"):
        parse_baseline(raw)
