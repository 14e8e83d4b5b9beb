# SPDX-License-Identifier: GPL-3.0-or-later
"""The report: what is told of each host, in which shape and order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.controls import CONTROLS
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.report import (
    SCHEMA,
    ReportError,
)
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from tests.unit.plugins.module_utils.posture.build import (
    PAYLOADS,
    RUN,
    before,
    before_and_after,
    check,
    host,
    hostile,
    one_finding,
    outcomes,
    report,
)

ROOT = Path(__file__).parents[5]
PUBLISHED = json.loads((ROOT / "docs/schemas/report.schema.json").read_text())


def strict(schema):
    """Return the schema with no property allowed but the documented ones."""
    if isinstance(schema, list):
        return [strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {key: strict(value) for key, value in schema.items()}
    if isinstance(schema.get("properties"), dict):
        closed["unevaluatedProperties"] = False
    return closed


def validator():
    schema = strict(PUBLISHED)
    # The waiver is extended by another object, which says what else there may be.
    del schema["$defs"]["waiver"]["unevaluatedProperties"]
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


VALIDATOR = validator()


@pytest.mark.parametrize(
    "made",
    [
        before_and_after(),
        report(before(), fail_on="never"),
        report({}),
        report({"llm1": None}),
        *map(hostile, PAYLOADS),
    ],
)
def test_a_report_is_as_its_published_schema_says(made):
    VALIDATOR.validate(json.loads(json.dumps(made)))
    assert made["$schema"] == SCHEMA == PUBLISHED["$id"]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda made: made.pop("gate"),
        lambda made: made.update(more=1),
        lambda made: made.update(schema_version="2.0"),
        lambda made: made["hosts"][0]["findings"][0].update(result="ok"),
        lambda made: made["hosts"][0]["findings"][0].update(mood="good"),
        lambda made: made["hosts"][0].pop("reached"),
        lambda made: made["changes"]["counts"].pop("gone"),
    ],
)
def test_the_schema_can_say_no(spoil):
    made = before_and_after()
    spoil(made)
    assert not VALIDATOR.is_valid(made)


def test_each_property_is_described_or_plain():
    described = [name for name in PUBLISHED["$defs"] if "description" in PUBLISHED["$defs"][name]]
    assert described == list(PUBLISHED["$defs"])


def test_all_controls_are_there_with_their_standards():
    made = report({"llm1": host(check("tls.a"))})
    controls = {one["id"]: one for one in made["controls"]}
    assert set(controls) == {"assessment", *CONTROLS}
    assert controls["tls"] == CONTROLS["tls"].as_dict()
    assert "32(1)(d)" in controls["assessment"]["standards"]["GDPR"]


# --- what is no pass


@pytest.mark.parametrize("away", [None, {"unreachable": True}])
def test_a_host_that_was_not_reached(away):
    made = report({"llm1": host(check("tls.a")), "llm2": away}, expected_controls=["tls"])
    assert outcomes(made, "llm2") == {"assessment.reached": "error"}
    assert made["hosts"][1]["reached"] is False
    assert made["gate"]["reasons"] == ["1 not measured: llm2: assessment.reached"]


@pytest.mark.parametrize("silent", [{}, {"findings": []}, {"findings": None}])
def test_a_host_of_which_nothing_is_said_is_not_green_among_others(silent):
    made = report({"llm1": host(check("tls.a")), "llm2": silent})
    assert outcomes(made, "llm2") == {"assessment.reached": "error"}
    assert made["gate"]["reasons"] == ["1 not measured: llm2: assessment.reached"]


def test_a_host_where_a_module_failed_keeps_its_findings():
    made = report({"llm1": host(check("tls.a"), failed="verify_tls: no python3")})
    assert outcomes(made) == {"assessment.reached": "error", "tls.a": "pass"}
    actual = one_finding(made, "assessment.reached")["actual"]
    assert actual == "not measured: verify_tls: no python3"


def test_a_control_that_nobody_looked_at():
    made = report({"llm1": host(check("tls.a"))}, expected_controls=["tls", "budget"])
    found = one_finding(made, "assessment.control.budget")
    assert (found["outcome"], found["control"]) == ("error", "budget")
    assert "assessment.control.tls" not in outcomes(made)


@pytest.mark.parametrize(
    "finding",
    [
        None,
        "tls.a",
        {},
        {"id": "tls.a"},
        {**check("tls.a"), "id": ""},
        {**check("tls.a"), "id": 1},
        {**check("tls.a"), "result": "ok"},
        {**check("tls.a"), "result": ["pass"]},
        {**check("tls.a"), "severity": "PASS"},
        {**check("tls.a"), "control": "magic"},
        {**check("tls.a"), "control": {}},
    ],
)
def test_a_finding_that_cannot_be_understood(finding):
    made = report({"llm1": host(check("tls.b"), finding)})
    assert outcomes(made) == {
        "assessment.findings": "error", "tls.b": "pass", "assessment.reached": "pass",
    }  # fmt: skip
    assert made["gate"]["passed"] is False


@pytest.mark.parametrize("findings", ["tls.a", {"id": "tls.a"}, 1])
def test_findings_that_are_no_list(findings):
    assert outcomes(report({"llm1": {"findings": findings}}))["assessment.findings"] == "error"


def test_the_second_finding_of_an_id_does_not_hide_the_first():
    made = report({"llm1": host(check("tls.a"), check("tls.a", "fail"), check("tls.a", "error"))})
    assert outcomes(made) == {
        "tls.a#2": "fail", "tls.a#3": "error", "tls.a": "pass", "assessment.reached": "pass",
    }  # fmt: skip


# --- wrong calls


@pytest.mark.parametrize(
    ("hosts", "more", "why"),
    [
        ({"llm1": []}, {}, "host llm1 must be a dictionary"),
        ({"llm1": {"finding": []}}, {}, "host llm1: unknown finding"),
        ({}, {"run": {**RUN, "colour": "red"}}, "run: unknown colour"),
        ({}, {"run": {}}, "run: started must be like"),
        ({}, {"run": {"started": "2026-11-25T12:00:00"}}, "run: started must be like"),
        ({}, {"run": {"started": "yesterday"}}, "run: started must be like"),
        ({}, {"expected_controls": ["magic"]}, "expected_controls: unknown magic"),
        ({}, {"fail_on": "sometimes"}, "fail_on: unknown sometimes"),
    ],
)
def test_what_nobody_can_have_meant(hosts, more, why):
    with pytest.raises(ReportError, match=why):
        report(hosts, **more)


# --- shape


def test_order_counts_and_texts():
    findings = [
        check("tls.z"), check("tls.a"), check("budget.a", "skip"),
        check("tls.m", "fail", "medium"), check("mtls.c", "fail", "critical"),
        check("tls.e", "error"), check("loopback.a"),
    ]  # fmt: skip
    made = report({"b": host(), "llm1": host(*findings), "a": host()})
    assert [one["name"] for one in made["hosts"]] == ["a", "b", "llm1"]
    assert list(outcomes(made)) == [
        "mtls.c", "tls.m", "tls.e", "budget.a", "assessment.reached", "loopback.a", "tls.a",
        "tls.z",
    ]  # fmt: skip
    assert made["hosts"][2]["summary"] == {
        "outcomes": {"fail": 2, "error": 1, "waived": 0, "skip": 1, "pass": 4},
        "failed": {"critical": 1, "high": 0, "medium": 1, "low": 0, "info": 0},
    }
    assert made["summary"]["hosts"] == 3
    assert made["summary"]["outcomes"]["pass"] == 4
    assert made["summary"]["outcomes"]["error"] == 3


@given(st.permutations(range(6)))
def test_the_same_findings_in_any_order_give_the_same_report(order):
    findings = [
        check("tls.a"), check("tls.b", "fail"), check("mtls.c", "fail"), check("tls.d", "skip"),
        check("loopback.a", "error"), check("budget.a"),
    ]  # fmt: skip
    made = report({"llm1": host(*(findings[number] for number in order))})
    assert json.dumps(made) == json.dumps(report({"llm1": host(*findings)}))


def test_facts_that_are_shown_are_few():
    facts = {"distribution": "Debian", "distribution_version": "13", "env": {"SECRET": "x"}}
    made = report({"llm1": host(facts=facts, address="192.0.2.1")})
    assert made["hosts"][0]["facts"] == {"distribution": "Debian", "distribution_version": "13"}
    assert made["hosts"][0]["address"] == "192.0.2.1"


def test_a_time_of_another_zone_is_told_in_utc():
    made = report({}, run={"started": "2026-11-25T13:30:00+01:30"})
    assert made["run"]["started"] == "2026-11-25T12:00:00Z"


def test_a_missing_title_and_missing_texts():
    bare = {"id": "tls.a", "control": "tls", "severity": "low", "result": "fail"}
    found = one_finding(report({"llm1": host(bare)}), "tls.a")
    texts = [found[key] for key in ("title", "expected", "actual", "remediation", "evidence")]
    assert texts == ["tls.a", "", "", "", []]
