# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.checks import (
    Connection,
    Place,
    cases,
    lock_out,
    other_firewalls,
    published_port,
    verdict_findings,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.combine import combine
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.iptables_save import (
    parse_iptables,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.nft_json import parse_nft
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.policy import parse_policy
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.render_iptables import (
    render_iptables,
    with_candidate,
)
from hypothesis import given, settings

from tests.unit.plugins.module_utils.firewall.policies import expected, policies

PLACES = [Place("203.0.113.5", "eth0"), Place("2001:db8:ffff::5", "eth0")]
BUILT_IN = "*filter\n:INPUT {} [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\n"
EMPTY = parse_nft('{"nftables": [{"metainfo": {"json_schema_version": 1}}]}')
POLICY = parse_policy(
    {
        "guards": [{"port": 443, "title": "gateway", "sources": ["192.0.2.0/24"]}],
        "loopback": [{"port": 11434, "title": "local", "users": ["root"]}],
        "egress": {"user": "ollama"},
    },
    {"root": 0, "ollama": 997}.get,
)


def ruleset(policy, save=""):
    """Return the policy's rules, and behind them somebody's for IPv4."""
    saves = {4: ("ip", save), 6: ("ip6", "")}
    return combine(EMPTY, [
        parse_iptables(with_candidate(text, render_iptables(policy, version)), family)
        for version, (family, text) in saves.items()
    ])  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(policies)
def test_each_case_asks_what_the_policy_says(policy):
    for case in cases(policy, PLACES):
        assert case.expected is expected(policy, case.hook, case.packet), case.id


@settings(max_examples=100, deadline=None)
@given(policies)
def test_our_own_rules_pass(policy):
    found = list(verdict_findings(policy, PLACES, {"live": ruleset(policy)}))
    assert {finding["result"] for finding in found} <= {"pass"}
    assert len({finding["id"] for finding in found}) == len(found)


def test_without_rules_every_refusal_fails():
    found = list(verdict_findings(POLICY, PLACES, {"live": EMPTY}))
    results = {(finding["expected"], finding["result"]) for finding in found}
    assert results == {("refused", "fail"), ("accepted", "pass")}
    assert all(finding["remediation"] for finding in found if finding["result"] == "fail")


def test_what_nobody_can_decide_is_an_error():
    other = f"{BUILT_IN.format('ACCEPT')}-A INPUT -m bpf --bytecode x -j DROP\nCOMMIT\n"
    found = list(verdict_findings(POLICY, PLACES, {"live": ruleset(POLICY, other)}))
    undecided = {finding["id"] for finding in found if finding["result"] == "error"}
    assert undecided == {"firewall.port.443.ipv4.an-allowed-source.live"}


def test_lock_out():
    whole = ruleset(POLICY, f"{BUILT_IN.format('DROP')}COMMIT\n")
    connection = Connection("198.51.100.1", "203.0.113.5", 22, "eth0")
    own = ruleset(POLICY)
    assert lock_out(own, own, connection) == ""
    assert "INPUT" in lock_out(own, whole, connection)
    to_gateway = Connection("198.51.100.1", "203.0.113.5", 443, "eth0")
    assert "gateway" in lock_out(own, own, to_gateway)


@pytest.mark.parametrize(
    "line",
    [
        "-A DOCKER ! -i docker0 -p tcp -m tcp --dport 11434 -j DNAT --to-destination 172.17.0.2:1",
        "\t\ttcp dport 11434 dnat to 172.17.0.2:11434",
        "\t\ttcp dport { 80, 11434 } counter dnat ip to 172.17.0.2",
        "-A PREROUTING -p tcp -m tcp --dport 11434 -j REDIRECT --to-ports 80",
        "-A PREROUTING -p tcp -m tcp --dport 11434:11440 -j DNAT",
        "-A PREROUTING -p tcp -m tcp --dport 11000:11434 -j DNAT",
        "-A PREROUTING -p tcp -m multiport --dports 80,11434,9000 -j DNAT",
        "-A PREROUTING -p tcp -m multiport --dports 80,11000:12000 -j DNAT",
        "\t\ttcp dport 11000-12000 dnat to 172.17.0.2",
        "\t\ttcp dport { 80, 11000-12000 } dnat to 172.17.0.2",
        # Not for loopback alone
        "-A DOCKER -d 192.0.2.1/32 -p tcp -m tcp --dport 11434 -j DNAT",
        "-A DOCKER ! -d 127.0.0.0/8 -p tcp -m tcp --dport 11434 -j DNAT",
        "-A DOCKER -d 126.0.0.0/7 -p tcp -m tcp --dport 11434 -j DNAT",
        "-A DOCKER -s 127.0.0.1/32 -p tcp -m tcp --dport 11434 -j DNAT",
        '-A DOCKER -m comment --comment " -d ::1/128 " -p tcp -m tcp --dport 11434 -j DNAT',
        "\t\tip daddr != 127.0.0.1 tcp dport 11434 dnat to 172.17.0.2:80",
        "\t\tip daddr { 127.0.0.1, 192.0.2.1 } tcp dport 11434 dnat to 172.17.0.2:80",
    ],
)
def test_a_published_port(line):
    assert published_port(["-A x -j y", line], 11434) == line.strip()
    assert published_port([line], 1143) == ""


@pytest.mark.parametrize(
    "line",
    [
        # As Docker publishes on 127.0.0.1 and ::1, told by both tools
        "-A DOCKER -d 127.0.0.1/32 ! -i docker0 -p tcp -m tcp --dport 11434 -j DNAT",
        "-A DOCKER -d ::1/128 ! -i docker0 -p tcp -m tcp --dport 11434 -j DNAT",
        '\t\tiifname != "docker0" ip daddr 127.0.0.1 tcp dport 11434 counter dnat to 172.17.0.2:90',
        "\t\tip daddr 127.0.0.0/8 tcp dport 11434 dnat to 172.17.0.2:90",
        "\t\tip6 daddr ::1 tcp dport 11434 dnat to [fd00::2]:90",
        # Another port
        "-A DOCKER -p tcp -m tcp --dport 80 -j DNAT",
        "-A DOCKER -p tcp -m tcp --dport 11435:12000 -j DNAT",
        "-A DOCKER -p tcp -m multiport --dports 80,11435:12000 -j DNAT",
        '-A DOCKER -m comment --comment "dport 11434" -p tcp -j DNAT --to-destination 10.0.0.2',
        # Not forwarded
        "-A INPUT -p tcp -m tcp --dport 11434 -j ACCEPT",
        '-A INPUT -p tcp -m tcp --dport 11434 -m comment --comment "no DNAT" -j ACCEPT',
    ],
)
def test_no_published_port(line):
    assert published_port([line], 11434) == ""


def test_others_by_their_marks():
    assert other_firewalls("table ip nat {\n\tchain DOCKER {\n") == ["Docker"]
    assert other_firewalls("chain ufw-before-input {\ntable inet firewalld {") == [
        "ufw",
        "firewalld",
    ]
    assert other_firewalls("table inet llm_hardening { chain input {") == []
