# SPDX-License-Identifier: GPL-3.0-or-later
"""Reports to render: findings by few words, a small fleet, texts of an attacker."""

from __future__ import annotations

from ansible_collections.llmsec.hardening.plugins.module_utils.controls import CONTROLS
from ansible_collections.llmsec.hardening.plugins.module_utils.findings import finding, not_measured
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.baseline import (
    parse_baseline,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.report import assemble
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.waivers import parse_waivers

RUN = {"title": "LLM hosts", "started": "2026-11-25T12:00:00Z", "collection_version": "0.2.0"}
PATHS = {"default": "inventory/hosts.yml", "tls": "group_vars/llm hosts/gateway.yml"}
WAIVER = {
    "id": "tls.group", "reason": "The clients of the old agency cannot do better.",
    "owner": "Team Search", "expires": "2026-12-31",
}  # fmt: skip


def check(name, result="pass", severity="high", control=None, **more):
    """Return a finding of the control that the id begins with, unless it is named."""
    texts = {
        "expected": "as it should be",
        "actual": "as it should be" if result == "pass" else "otherwise",
        "evidence": [] if result == "pass" else ["LISTEN 0 4096 *:11434 users:((ollama))"],
        "remediation": "Run llmsec.hardening.harden.",
    }
    title = more.pop("title", f"{name} holds")
    control = control or name.partition(".")[0]
    return finding(name, control, title, severity, result, **{**texts, **more})


def host(*findings, **more):
    return {"findings": list(findings), **more}


def report(hosts, *, waivers=(), baseline=None, run=None, **more):
    """Return a report; waivers and baseline are plain data."""
    run = RUN if run is None else run
    before = None if baseline is None else parse_baseline(baseline)
    return assemble(hosts, run=run, waivers=parse_waivers(list(waivers)), baseline=before, **more)


def outcomes(made, name="llm1"):
    """Return outcome by id of one host of a report."""
    (found,) = (one for one in made["hosts"] if one["name"] == name)
    return {one["id"]: one["outcome"] for one in found["findings"]}


def one_finding(made, name, host_name="llm1"):
    (found,) = (one for one in made["hosts"] if one["name"] == host_name)
    (hit,) = (one for one in found["findings"] if one["id"] == name)
    return hit


FACTS = {"distribution": "Debian", "distribution_version": "13.2", "python": "3.13"}


def before():
    """Return three hosts that nobody hardened."""
    open_host = [
        check(
            "listeners.llm_server", "fail", "critical", "loopback",
            title="The LLM server listens on loopback only", expected="127.0.0.1 and ::1 only",
            actual="0.0.0.0:11434 and [::]:11434, ollama.service",
            remediation="Apply the role ollama, which sets ollama_host to 127.0.0.1.",
        ),
        check(
            "access.no_key", "fail", "critical", "authentication",
            title="A request without a key is refused", expected="401",
            actual="200 with 3 models", evidence=["GET /api/tags HTTP/1.1", "< HTTP/1.1 200 OK"],
            remediation="Apply the roles key_validator and gateway.",
        ),
        check("tls.protocols", "fail", control="tls", title="Only TLS 1.2 and 1.3 are spoken",
              actual="plain HTTP"),
        check("tls.group", "fail", "low", "tls", title="The key exchange is hybrid"),
        check("rate_limit.burst", "skip", "high", actual="active probes are off"),
        check("audit_log.chain", "error", actual="not measured: no audit log"),
        check("firewall.live", "fail", "medium", "network_isolation"),
        check("service.root", "fail", "medium", "service_sandbox"),
        check("keys.plain", "pass", "high", "secrets_at_rest"),
        check("versions.ollama", "fail", "high"),
    ]  # fmt: skip
    return {
        "llm1": host(*open_host, address="192.0.2.11", facts=FACTS),
        "llm2": host(*open_host[2:], address="192.0.2.12", facts=FACTS),
        "llm3": {"unreachable": True, "address": "192.0.2.13"},
    }


def after():
    """Return the same hosts hardened, with what is left to do."""
    fixed = [
        check(one["id"], "pass", one["severity"], one["control"], title=one["title"])
        for one in before()["llm1"]["findings"]
    ]
    left = check("tls.group", "fail", "low", "tls", title="The key exchange is hybrid",
                 expected="X25519MLKEM768", actual="X25519",
                 remediation="Update OpenSSL to 3.5 or newer (Debian 13).")  # fmt: skip
    new = check(
        "gateway.location.metrics",
        "fail",
        "high",
        "authentication",
        title="Each location asks the key validator",
        expected="auth_request in each location",
        actual="none in location /metrics",
        remediation="Remove it from gateway_extra_locations.",
        evidence=["location /metrics {", "    proxy_pass http://127.0.0.1:9090;", "}"],
    )
    kept = [one for one in fixed if one["id"] not in {"tls.group", "rate_limit.burst"}]
    skipped = check("rate_limit.burst", "skip", actual="active probes are off")
    unread = not_measured(
        "audit_log.head",
        "audit_log",
        "the head is the one of the last assessment",
        "llm-audit: no permission",
        "Let the control node use sudo.",
    )
    many = [check(f"keys.file.{number}", control="secrets_at_rest") for number in range(12)]
    return {
        "llm1": host(*kept, left, skipped, *many, address="192.0.2.11", facts=FACTS),
        "llm2": host(*kept, left, new, skipped, *many, address="192.0.2.12", facts=FACTS),
        "llm3": host(*kept, skipped, unread, address="192.0.2.13", facts=FACTS),
    }  # fmt: skip


def before_and_after(**more):
    """Return the report on the hardened hosts, compared with that on the open ones."""
    first = report(before(), run={**RUN, "title": "Before"}, fail_on="never")
    return report(after(), baseline=first, waivers=[WAIVER], **more)


def fleet(hosts=20, findings=200):
    """Return the report on many hosts: most is well, some is not."""
    controls = list(CONTROLS)

    def result(number):
        return "fail" if number % 25 == 0 else "skip" if number % 30 == 7 else "pass"

    checks = [
        check(
            f"{controls[number % len(controls)]}.check_{number}", result(number),
            title=f"What check {number} looks at is as the guide wants it",
            expected="only what the role configured", actual=f"entry {number} of the configuration",
            evidence=[f"line {line} of something that was found there" for line in range(8)],
        )
        for number in range(findings)
    ]  # fmt: skip
    return report({f"llm{number:02}": host(*checks) for number in range(hosts)})


PAYLOADS = (
    "<script>alert(1)</script>",
    "</script><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "<!--", "]]>", "</style>", "</pre></li></ul></details>", "javascript:alert(1)",
    "&lt;b&gt;", "{{ 7 * 7 }}", "${7*7}", "\u202egnp.exe",
    "\x1b[2J\x1b]0;owned\x07", "\x00\ud800\ufffe",
    "a|b`c``d", "![x](https://evil.example/x.png)", "@everyone /merge", "line\r\n\r\n# heading",
    "é€🂡 日本語",
)  # fmt: skip


def hostile(payload):
    """Return a report in which every text comes from an attacker."""
    texts = dict.fromkeys(("title", "expected", "actual", "remediation"), payload)
    bad = check(f"tls.{payload}", "fail", control="tls", evidence=[payload, payload], **texts)
    good = check(f"keys.{payload}", "pass", control="secrets_at_rest", **texts)
    facts = dict.fromkeys(("distribution", "kernel"), payload)
    waiver = {**WAIVER, "id": "mtls.x", "reason": f"r {payload}", "owner": f"o {payload}"}
    waived = check("mtls.x", "fail", **texts)
    name = f"host {payload}"
    first = report({name: host({**bad, "actual": f"before {payload}", "result": "error"})})
    first["run"]["title"] = payload
    return report(
        {
            name: host(bad, good, waived, address=payload, facts=facts, failed=payload),
            f"x{payload}": {"failed": payload},
        },
        run={**RUN, "title": f"t {payload}", "collection_version": payload},
        waivers=[waiver],
        baseline=first,
    )
