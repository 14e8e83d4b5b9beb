# SPDX-License-Identifier: GPL-3.0-or-later
"""What llm-audit says, and what records may hold."""

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.audit_checks import (
    FIELDS,
    Verdict,
    chain_findings,
    head_of,
    parse_verdict,
    sealed_finding,
    space_finding,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.validator_service import Metrics

DOCS = Path(__file__).parents[4] / "docs" / "audit-log.md"
SAID: dict[str, t.Any] = {
    "verdict": "whole", "records": 3, "files": 1, "head": {"sequence": 3, "hash": "ab" * 32},
    "findings": [{"level": "info", "text": "x", "file": "f", "line": 2, "sequence": 1}],
}  # fmt: skip
GOOD = Metrics({"audit_writable": 1.0, "audit_sealed": 1.0})


def test_the_fields_are_those_of_the_documentation():
    table = DOCS.read_text().partition("| Field |")[2].partition("\n\n")[0]
    assert set(re.findall(r"^\| `([^`]+)` \|", table, re.MULTILINE)) == FIELDS


def test_a_verdict_is_read():
    found = parse_verdict(0, json.dumps(SAID), "")
    assert (found.verdict, found.sequence, found.records) == ("whole", 3, 3)
    assert found.findings == (("info", "f:2: sequence 1: x"),)


@pytest.mark.parametrize(
    ("status", "output"),
    [
        (2, ""), (0, "{}"), (0, "[]"), (1, json.dumps(SAID)),
        (0, json.dumps({**SAID, "files": "x"})),
        (0, json.dumps({**SAID, "verdict": "broken"})),
    ],
)  # fmt: skip
def test_what_is_no_verdict_is_an_error(status, output):
    with pytest.raises(ValueError, match="llm-audit"):
        parse_verdict(status, output, "broken")


def results(verdict, anchor=None, last=3):
    return {one["id"]: one["result"] for one in chain_findings(verdict, anchor, {}, last, 0)}


def test_a_chain_that_was_not_checked_is_no_pass():
    assert results(ValueError("x"), {"sequence": 1}) == {
        "audit_log.chain": "error", "audit_log.anchor": "error",
    }  # fmt: skip
    # That records are gone the module sees by itself.
    assert results(ValueError("x"), {"sequence": 9})["audit_log.anchor"] == "fail"
    unchecked = Verdict("unchecked", 3, "", 1, 3, (("unchecked", "epoch 7 is too far"),))
    assert results(unchecked)["audit_log.chain"] == "error"


def test_a_verdict_about_another_log_is_no_pass():
    assert results(Verdict("whole", 30, "", 1, 30))["audit_log.chain"] == "fail"


def line(sequence, action, **fields):
    stamp = "2026-11-23T00:00:00.000000Z"
    values = {"@timestamp": stamp, "event.sequence": sequence, "event.action": action, **fields}
    return json.dumps(values, separators=(",", ":")).encode()


def test_the_head_has_its_epoch():
    lines = [line(1, "open", **{"llm.audit.key.epoch": 4}), line(2, "request"), line(3, "request")]
    verdict = Verdict("whole", 2, "ab" * 32)
    assert head_of(lines, verdict, "audit.jsonl") == {
        "sequence": 2, "hash": "ab" * 32, "epoch": 4, "file": "audit.jsonl",
        "time": "2026-11-23T00:00:00.000000Z",
    }  # fmt: skip
    lines.insert(1, line(1, "seal", **{"llm.audit.seal.epoch": 4}))
    assert head_of(lines, verdict, "audit.jsonl")["epoch"] == 5
    assert head_of([b"x", b"[]"], verdict, "audit.jsonl") == {}


def test_records_that_wait_for_a_seal():
    start = 1795392000.0
    waiting = [line(1, "seal"), line(2, "request")]
    for lines, seconds, result in (
        (waiting, 100, "pass"), (waiting, 5000, "fail"), (waiting[:1], 5000, "pass"),
        # Where no seal is seen, nothing is known of what waits.
        (waiting[1:], 5000, "pass"),
    ):  # fmt: skip
        assert sealed_finding(GOOD, {}, lines, start + seconds)["result"] == result
    assert sealed_finding(OSError("x"), {}, waiting, start)["result"] == "error"


def test_space_that_cannot_be_asked_for_is_no_pass():
    assert space_finding(OSError("x"), 1, 1)["result"] == "error"
    assert space_finding((10, 100), 10, 10)["result"] == "pass"
    assert space_finding((9, 100), 10, 5)["result"] == "fail"
