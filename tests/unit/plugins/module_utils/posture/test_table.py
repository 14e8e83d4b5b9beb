# SPDX-License-Identifier: GPL-3.0-or-later
"""The terminal's table: bounded, printable, and the verdict last."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.posture import table

from tests.unit.plugins.module_utils.posture.build import (
    PAYLOADS,
    WAIVER,
    before_and_after,
    check,
    fleet,
    host,
    hostile,
    report,
)


def lines(made):
    rendered = table.render(made)
    for line in rendered:
        assert len(line) <= table.WIDTH
        assert not line or (line.isascii() and line.isprintable())
    return rendered


@pytest.mark.parametrize("payload", PAYLOADS)
def test_whatever_a_host_says_the_terminal_is_safe(payload):
    assert len(lines(hostile(payload))) == len(lines(hostile("x")))


def test_hosts_and_controls():
    findings = [
        check("loopback.a", "fail"), check("loopback.b", "fail"), check("mtls.a", "error"),
        check("tls.group", "fail"), check("budget.a", "skip"), check("versions.a"),
    ]  # fmt: skip
    made = report({"good": host(check("loopback.a")), "bad": host(*findings)}, waivers=[WAIVER])
    header, first, second = lines(made)[1:4]
    assert header.split() == ["assmt", "loopb", "mtls", "tls", "vers", "budg"]
    assert first.split() == ["bad", "ok", "X2", "?1", "w1", "ok", "s"]
    assert second.split() == ["good", "ok", "ok", "-", "-", "-", "-"]


def test_one_pass_among_skips_is_a_pass_and_one_failure_among_passes_is_a_failure():
    skipped = report({"llm1": host(check("tls.a", "skip"), check("tls.b"))})
    assert lines(skipped)[2].split() == ["llm1", "ok", "ok"]
    failed = report({"llm1": host(check("tls.a", "fail", "info"), check("tls.b"))})
    assert lines(failed)[2].split() == ["llm1", "ok", "X1"]


def test_findings_with_what_to_do_and_the_verdict_last():
    text = "\n".join(lines(before_and_after()))
    assert (
        "X high: llm2: Each location asks the key validator (gateway.location.metrics)\n"
        "    is none in location /metrics\n"
        "    -> Remove it from gateway_extra_locations.\n"
    ) in text
    assert text.endswith(
        "Since Before (2026-11-25T12:00:00Z): 2 newly failing, 13 fixed, 0 gone\n"
        "Gate (fails on high): FAILED\n"
        "  1 not measured: llm3: audit_log.head\n"
        "  1 failed, high: llm2: gateway.location.metrics"
    )
    assert lines(report({"llm1": host(check("tls.a"))}))[-1] == "Gate (fails on high): passed"


def test_it_is_bounded():
    made = report({f"host{number:03}{'x' * 90}": host(
        *(check(f"tls.{name}", "fail") for name in range(5))) for number in range(99)})  # fmt: skip
    rendered = lines(made)
    assert len(rendered) < 80
    assert "and 69 more hosts" in rendered
    assert "and 485 more, which the report has" in rendered


def test_all_controls_fit():
    assert len(lines(fleet(2, 200))[1].split()) == 13


def test_no_host():
    assert lines(report({}))[-2:] == ["Gate (fails on high): FAILED", "  no host was assessed"]
