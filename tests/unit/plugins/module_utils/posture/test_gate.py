# SPDX-License-Identifier: GPL-3.0-or-later
"""The gate: green only for what was measured and is good enough."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.controls import SEVERITIES
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.gate import FAIL_ON

from tests.unit.plugins.module_utils.posture.build import check, host, report


def gate(*findings, fail_on="high"):
    return report({"llm1": host(*findings)}, fail_on=fail_on)["gate"]


@pytest.mark.parametrize("fail_on", SEVERITIES)
@pytest.mark.parametrize("severity", SEVERITIES)
def test_failures_from_a_severity_on(severity, fail_on):
    verdict = gate(check("tls.a", "fail", severity), fail_on=fail_on)
    bad = SEVERITIES.index(severity) >= SEVERITIES.index(fail_on)
    assert verdict["passed"] is not bad
    assert verdict["reasons"] == ([f"1 failed, {severity}: llm1: tls.a"] if bad else [])


@pytest.mark.parametrize("fail_on", FAIL_ON)
def test_what_was_not_measured(fail_on):
    verdict = gate(check("tls.a", "error", "info"), check("tls.b"), fail_on=fail_on)
    assert verdict["passed"] is (fail_on == "never")


@pytest.mark.parametrize("result", ["pass", "skip"])
def test_nothing_wrong(result):
    assert gate(check("tls.a", result), check("tls.b"))["passed"] is True


@pytest.mark.parametrize("fail_on", FAIL_ON)
@pytest.mark.parametrize(
    ("hosts", "why"),
    [
        ({}, "no host was assessed"),
        ({"llm1": host()}, "nothing was measured"),
        ({"llm1": host(check("tls.a", "skip"))}, "nothing was measured"),
        ({"llm1": host(check("tls.a", "error"))}, "nothing was measured"),
        ({"llm1": {}}, "nothing was measured"),
    ],
)
def test_an_assessment_of_nothing_is_red_whatever_was_asked_for(hosts, why, fail_on):
    verdict = report(hosts, fail_on=fail_on)["gate"]
    assert verdict["passed"] is False
    assert verdict["reasons"][0] == why


def test_reasons_are_the_worst_first_and_bounded():
    many = [check(f"tls.{number}", "fail", "high") for number in range(9)]
    verdict = gate(*many, check("tls.x", "fail", "critical"), check("tls.y", "error"))
    named = ", ".join(f"llm1: tls.{number}" for number in range(5))
    assert verdict["reasons"] == [
        "1 not measured: llm1: tls.y",
        "1 failed, critical: llm1: tls.x",
        f"9 failed, high: {named} and 4 more",
    ]
