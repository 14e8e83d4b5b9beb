# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report as JUnit XML, as GitLab and Jenkins read it: one suite a host, one case a finding.

GitLab tells cases apart by class name and name over all suites, and ignores the second of a name
(docs.gitlab.com, "Unit test reports"), so the name begins with the host. It shows the text of a
failure, not its message, so the remediation is in both. Names and attributes are those of the
Jenkins xUnit plugin's junit-10.xsd.
"""

from __future__ import annotations

import typing as t
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree as ET  # only written with, never read with

__all__ = ("render",)

Record = Mapping[str, t.Any]


def _details(one: Record) -> str:
    lines = [
        f"Severity: {one['severity']}", f"Expected: {one['expected']}",
        f"Actual: {one['actual']}", *one["evidence"],
    ]  # fmt: skip
    if one["remediation"]:
        lines.append(f"Remediation: {one['remediation']}")
    return "\n".join(lines)


def _skipped(one: Record) -> str:
    if one["outcome"] == "skip":
        return str(one["actual"])
    waiver = one["waiver"]
    return f"waived until {waiver['expires']} by {waiver['owner']}: {waiver['reason']}"


def _case(suite: ET.Element, one: Record) -> None:
    name = f"{one['host']}: {one['id']}: {one['title']}"
    case = ET.SubElement(suite, "testcase", classname=one["control"], name=name, time="0")
    if one["outcome"] in {"skip", "waived"}:
        ET.SubElement(case, "skipped", message=_skipped(one))
    elif one["outcome"] != "pass":
        tag = "error" if one["outcome"] == "error" else "failure"
        message = one["remediation"] or one["actual"]
        ET.SubElement(case, tag, type=one["severity"], message=message).text = _details(one)


def _totals(outcomes: Mapping[str, int]) -> dict[str, str]:
    numbers = {
        "tests": sum(outcomes.values()), "failures": outcomes["fail"],
        "errors": outcomes["error"], "skipped": outcomes["skip"] + outcomes["waived"],
    }  # fmt: skip
    return {key: str(number) for key, number in numbers.items()}


def _nothing(root: ET.Element, reasons: Sequence[str]) -> None:
    """No host, no case, no failure would be a green report."""
    root.set("tests", "1")
    root.set("errors", "1")
    suite = ET.SubElement(
        root, "testsuite", name="assessment", tests="1", failures="0", errors="1", skipped="0"
    )
    case = ET.SubElement(suite, "testcase", classname="assessment", name="hosts", time="0")
    ET.SubElement(case, "error", type="high", message="; ".join(reasons))


def render(report: Record) -> str:
    """Return the XML text."""
    root = ET.Element(
        "testsuites", name=report["run"]["title"], **_totals(report["summary"]["outcomes"])
    )
    del root.attrib["skipped"]  # which only a suite may have
    for host in report["hosts"]:
        suite = ET.SubElement(
            root, "testsuite", name=host["name"], hostname=host["name"],
            # xs:dateTime without an offset is what the format's schema demands
            timestamp=report["run"]["started"].removesuffix("Z"), time="0",
            **_totals(host["summary"]["outcomes"]),
        )  # fmt: skip
        for one in host["findings"]:
            _case(suite, one)
    if not any(host["findings"] for host in report["hosts"]):
        _nothing(root, report["gate"]["reasons"])
    ET.indent(root)
    text = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'
