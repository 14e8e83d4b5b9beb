# SPDX-License-Identifier: GPL-3.0-or-later
"""SARIF: as the standard and GitHub want it, for what needs work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.posture import sarif
from jsonschema import Draft202012Validator

from tests.unit.plugins.module_utils.posture.build import (
    PATHS,
    PAYLOADS,
    WAIVER,
    before,
    before_and_after,
    check,
    fleet,
    host,
    hostile,
    report,
)

SCHEMA = json.loads((Path(__file__).parent / "schemas/sarif.json").read_text())
Draft202012Validator.check_schema(SCHEMA)
VALIDATOR = Draft202012Validator(SCHEMA, format_checker=Draft202012Validator.FORMAT_CHECKER)


def log(made):
    """Return the log of a report, judged by the schema, and the notes."""
    rendered, notes = sarif.render(made, PATHS)
    VALIDATOR.validate(json.loads(json.dumps(rendered)))
    return rendered, notes


def results(made, name="llm1"):
    """Return the results of one host by the id of their rule."""
    for run in log(made)[0]["runs"]:
        if run["automationDetails"]["id"] == f"llmsec.hardening/{name}/":
            rules = run["tool"]["driver"]["rules"]
            for result in run["results"]:
                assert rules[result["ruleIndex"]]["id"] == result["ruleId"]
            return {result["ruleId"]: result for result in run["results"]}
    raise LookupError(name)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_whatever_a_host_says_it_is_sarif(payload):
    rendered, _notes = log(hostile(payload))
    assert len(rendered["runs"]) == 2


@pytest.mark.parametrize(
    "spoil",
    [
        lambda run: run["results"][0].update(kind="pass"),
        lambda run: run["results"][0].update(level="critical"),
        lambda run: run["results"][0].pop("locations"),
        lambda run: run["results"][0].update(locations=[]),
        lambda run: run["results"][0].pop("partialFingerprints"),
        lambda run: run["tool"]["driver"]["rules"][0]["properties"].update(
            {"security-severity": 9.5}
        ),
        lambda run: run["tool"]["driver"]["rules"][0].pop("help"),
        lambda run: run.update(colour="red"),
        lambda run: run["automationDetails"].update(id="same"),
    ],
)
def test_the_schema_can_say_no(spoil):
    rendered, _notes = log(report(before()))
    spoil(rendered["runs"][0])
    assert not VALIDATOR.is_valid(rendered)


def test_one_run_a_host_that_is_told_from_the_others():
    rendered, notes = log(before_and_after())
    names = [run["automationDetails"]["id"] for run in rendered["runs"]]
    assert names == [f"llmsec.hardening/llm{number}/" for number in (1, 2, 3)]
    assert notes == []


@pytest.mark.parametrize(
    ("severity", "level", "number"),
    [
        ("critical", "error", "9.5"),
        ("high", "error", "8.0"),
        ("medium", "warning", "5.5"),
        ("low", "note", "2.0"),
        ("info", "note", "0.1"),
    ],
)
def test_severity(severity, level, number):
    made = report({"llm1": host(check("tls.a", "fail", severity))})
    assert results(made)["tls.a"]["level"] == level
    (rule,) = log(made)[0]["runs"][0]["tool"]["driver"]["rules"]
    assert rule["properties"]["security-severity"] == number
    assert rule["defaultConfiguration"]["level"] == level


def test_only_what_needs_work_is_there():
    found = [check(f"tls.{result}", result) for result in ("pass", "fail", "error", "skip")]
    made = report({"llm1": host(*found)})
    assert set(results(made)) == {"tls.fail", "tls.error"}


def test_what_was_not_measured_is_an_error_that_nobody_overlooks():
    found = results(report({"llm1": host(check("tls.a", "error", "low"))}))["tls.a"]
    assert (found["kind"], found["level"], found["properties"]["result"]) == (
        "fail", "error", "error",
    )  # fmt: skip


def test_a_waived_failure_is_suppressed_with_its_reason():
    made = report({"llm1": host(check("tls.group", "fail"), check("tls.b", "fail"))},
                  waivers=[WAIVER])  # fmt: skip
    found = results(made)
    (suppression,) = found["tls.group"]["suppressions"]
    assert suppression["kind"] == "external"
    assert suppression["justification"] == (
        "The clients of the old agency cannot do better. (owner: Team Search, until 2026-12-31)"
    )
    assert "suppressions" not in found["tls.b"]


def test_locations_are_files_of_the_repository_by_control():
    found = results(report({"llm1": host(check("tls.a", "fail"), check("mtls.a", "fail"))}))
    uris = {
        name: one["locations"][0]["physicalLocation"]["artifactLocation"]["uri"]
        for name, one in found.items()
    }
    assert uris == {
        "tls.a": "group_vars/llm%20hosts/gateway.yml", "mtls.a": "inventory/hosts.yml",
    }  # fmt: skip


def test_fingerprints_are_stable_and_differ_by_host_and_check():
    hosts = {name: host(check("tls.a", "fail"), check("tls.b", "fail")) for name in ("h1", "h2")}
    marks = [
        one["partialFingerprints"]["primaryLocationLineHash"]
        for name in hosts
        for one in results(report(hosts), name).values()
    ]
    assert len(set(marks)) == 4
    # Another text, severity or neighbour is no other finding.
    other = check("tls.a", "error", "low", actual="something else")
    again = results(report({"h1": host(other, check("tls.0", "fail"))}), "h1")["tls.a"]
    assert again["partialFingerprints"]["primaryLocationLineHash"] == marks[0]


def test_a_rule_is_as_grave_as_its_gravest_finding_and_has_help():
    control = check("audit_log.a", "fail", "medium")
    (rule,) = log(report({"llm1": host(control)}))[0]["runs"][0]["tool"]["driver"]["rules"]
    assert "Run llmsec.hardening.harden." in rule["help"]["text"]
    assert "- NIST 800-53r5: AU-2, AU-3" in rule["help"]["markdown"]
    assert "helpUri" not in rule
    tags = rule["properties"]["tags"]
    assert tags[:2] == ["security", "audit_log"]
    assert "GDPR: 25" in tags


@pytest.mark.parametrize(
    ("was", "now", "state"),
    [("fail", "fail", "unchanged"), ("pass", "fail", "new"), (None, "fail", "new")],
)
def test_baseline(was, now, state):
    earlier = report({"llm1": host(*([check("tls.a", was)] if was else []))})
    made = report({"llm1": host(check("tls.a", now))}, baseline=earlier)
    assert results(made)["tls.a"]["baselineState"] == state
    assert "baselineState" not in results(report({"llm1": host(check("tls.a", now))}))["tls.a"]


@pytest.mark.parametrize(
    ("given", "well"), [(host(check("tls.a")), True), (None, False), ({"failed": "x"}, False)]
)
def test_an_assessment_that_did_not_end_was_no_success(given, well):
    (run,) = log(report({"llm1": given}))[0]["runs"]
    assert run["invocations"][0]["executionSuccessful"] is well


def test_too_many_results_are_cut_and_it_is_told(monkeypatch):
    monkeypatch.setattr(sarif, "MOST_RESULTS", 2)
    found = [check(f"tls.{name}", "fail", "low") for name in "abc"]
    made = report({"llm1": host(*found, check("tls.z", "fail", "critical"))})
    rendered, notes = log(made)
    assert list(results(made)) == ["tls.z", "tls.a"]
    assert notes == ["SARIF: llm1 has 4 results, 2 kept."]
    told = rendered["runs"][0]["invocations"][0]["toolExecutionNotifications"]
    assert told[0]["message"]["text"] == notes[0]


def test_more_hosts_than_github_takes_are_told():
    assert log(fleet(20, 1))[1] == []
    assert log(fleet(21, 1))[1] == ["SARIF: 21 hosts; GitHub takes at most 20 runs a file."]
