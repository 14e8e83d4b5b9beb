# SPDX-License-Identifier: GPL-3.0-or-later
"""JUnit XML: read by another program's rules, one case a finding, nothing hidden."""

from __future__ import annotations

from xml.etree import ElementTree as ET

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.posture import junit

from tests.unit.plugins.module_utils.posture.build import (
    PAYLOADS,
    WAIVER,
    before,
    before_and_after,
    check,
    host,
    hostile,
    report,
)

# Jenkins' xUnit plugin, junit-10.xsd (github.com/jenkinsci/xunit-plugin), as far as it is used:
# element → (required attributes, other attributes, children)
RULES = {
    "testsuites": (set(), {"name", "tests", "failures", "errors"}, {"testsuite"}),
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"time", "skipped", "timestamp", "hostname"},
        {"testcase"},
    ),
    "testcase": ({"name"}, {"time", "classname"}, {"skipped", "error", "failure"}),
    "failure": (set(), {"type", "message"}, set()),
    "error": (set(), {"type", "message"}, set()),
    "skipped": (set(), {"type", "message"}, set()),
}


def obey(element):
    required, allowed, children = RULES[element.tag]
    assert required <= set(element.attrib) <= required | allowed
    for child in element:
        assert child.tag in children
        obey(child)


def parsed(made):
    """Return the root, after it was held against the rules and its own numbers."""
    root = ET.fromstring(junit.render(made))  # noqa: S314 our own text
    assert root.tag == "testsuites"
    obey(root)
    for element in [root, *root]:
        cases = list(element.iter("testcase"))
        counts = [len(cases), *(len(list(element.iter(tag))) for tag in ("failure", "error"))]
        assert counts == [int(element.get(key)) for key in ("tests", "failures", "errors")]
    for suite in root:
        assert int(suite.get("skipped")) == len(list(suite.iter("skipped")))
    return root


@pytest.mark.parametrize(
    "made", [before_and_after(), report(before()), report({}), report({"a": {}})]
)
def test_numbers_and_names_are_right(made):
    parsed(made)


@pytest.mark.parametrize("payload", PAYLOADS)
def test_whatever_a_host_says_the_elements_stay_the_same(payload):
    plain = [element.tag for element in parsed(hostile("x")).iter()]
    assert [element.tag for element in parsed(hostile(payload)).iter()] == plain


def test_each_outcome():
    findings = [
        check("tls.fail", "fail", remediation="Set x."), check("tls.error", "error"),
        check("tls.skip", "skip", actual="probes are off"), check("tls.pass"),
        check("tls.group", "fail"),
    ]  # fmt: skip
    (suite,) = parsed(report({"llm1": host(*findings)}, waivers=[WAIVER]))
    cases = {case.get("name").split(": ")[1]: case for case in suite}
    assert {name: [child.tag for child in case] for name, case in cases.items()} == {
        "tls.fail": ["failure"], "tls.error": ["error"], "tls.skip": ["skipped"],
        "tls.group": ["skipped"], "tls.pass": [], "assessment.reached": [],
    }  # fmt: skip
    failure = cases["tls.fail"][0]
    assert failure.get("message") == "Set x."
    assert "Remediation: Set x." in failure.text
    assert "Expected: as it should be\nActual: otherwise\nLISTEN" in failure.text
    assert cases["tls.skip"][0].get("message") == "probes are off"
    waived = cases["tls.group"][0].get("message")
    assert waived.startswith("waived until 2026-12-31 by Team Search: The clients")
    assert {case.get("classname") for case in suite} == {"tls", "assessment"}


def test_gitlab_ignores_the_second_case_of_a_name_so_there_is_none():
    twice = [check("tls.a"), check("tls.a", "fail")]
    root = parsed(report({"llm1": host(*twice), "llm2": host(*twice)}))
    names = [(case.get("classname"), case.get("name")) for case in root.iter("testcase")]
    assert len(set(names)) == len(names) == 6


def test_a_report_without_a_host_is_not_green():
    root = parsed(report({}))
    assert root.get("errors") == "1"
    assert next(root.iter("error")).get("message") == "no host was assessed"
