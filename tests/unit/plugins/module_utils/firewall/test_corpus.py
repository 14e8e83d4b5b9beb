# SPDX-License-Identifier: GPL-3.0-or-later
"""What ufw, firewalld and Docker really write, against verdicts decided by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.combine import combine
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import (
    Judgement,
    Verdict,
    judge,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.iptables_save import (
    parse_iptables,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.nft_json import parse_nft
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.packets import Packet
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import Ruleset

CORPUS = Path(__file__).with_name("corpus")
ACCEPT, DROP, MAYBE = Verdict.ACCEPT, Verdict.DROP, Verdict.MAYBE
HOST4, HOST6 = "10.0.0.10", "fd00::10"


@cache
def ruleset(name: str) -> Ruleset:
    place = CORPUS / name
    saved = [
        parse_iptables((place / "iptables-save.txt").read_text(), "ip"),
        parse_iptables((place / "ip6tables-save.txt").read_text(), "ip6"),
    ]
    nft = parse_nft((place / "nft.json").read_text(), (place / "nft.txt").read_text())
    return combine(nft, saved)


def decide(name: str, packet: Packet, hook: str = "input") -> Judgement:
    return judge(ruleset(name), packet, hook)


def received(source: str, port: int, protocol: str = "tcp", **fields: Any) -> Packet:
    """A packet to the host, on eth0 and from where its source lives unless said otherwise."""
    make = Packet.tcp if protocol == "tcp" else Packet.udp
    fields = {"in_interface": "eth0", "reverse_path": True, **fields}
    return make(source, HOST6 if ":" in source else HOST4, port, 40000, **fields)


def sent(destination: str, port: int, **fields: Any) -> Packet:
    source = HOST6 if ":" in destination else HOST4
    return Packet.tcp(
        source,
        destination,
        port,
        40000,
        out_interface="eth0",
        user_id=1000,
        group_id=1000,
        **fields,
    )


UFW_INPUT = [
    (received("10.0.1.5", 443), ACCEPT),
    (received("10.0.1.6", 443), DROP),
    (received("10.0.1.5", 443, "udp"), ACCEPT),
    (received("10.0.1.5", 11434), DROP),
    (received("10.0.1.5", 22), ACCEPT),
    (received("203.0.113.9", 22), ACCEPT),
    (received("203.0.113.9", 22, ct_state="invalid"), DROP),
    (received("203.0.113.9", 11434, ct_state="established"), ACCEPT),
    (received("10.0.1.5", 25), DROP),
    (received("203.0.113.9", 8443), ACCEPT),
    (received("203.0.113.9", 8443, in_interface="eth1"), DROP),
    (received("203.0.113.9", 8443, in_interface=None), MAYBE),
    (received("203.0.113.9", 2222), MAYBE),  # a limit: six within 30 s
    (received("127.0.0.1", 11434, in_interface="lo"), ACCEPT),
    (received("fd00:1::5", 443), ACCEPT),
    (received("fd00:1::6", 443), DROP),
    (received("fd00:1::6", 22), ACCEPT),
    (received("fd00:1::6", 11434), DROP),
    (received("fd00:1::6", 8443), ACCEPT),
    (received("10.0.1.5", 137, "udp"), DROP),
    (Packet.udp("10.0.1.5", "224.0.0.251", 5353, 5353, in_interface="eth0"), ACCEPT),
    (Packet.icmp("10.0.1.5", HOST4, 8, 0, in_interface="eth0"), ACCEPT),
    (Packet.icmp("10.0.1.5", HOST4, 13, 0, in_interface="eth0"), DROP),
]
UFW_OUTPUT = [
    (sent("169.254.169.254", 80), DROP),
    (sent("203.0.113.9", 443), ACCEPT),
    (sent("fd00:9::9", 443), ACCEPT),
    (sent("203.0.113.9", 443, ct_state="established"), ACCEPT),
]
FIREWALLD_INPUT = [
    (received("10.0.1.7", 443), ACCEPT),
    (received("10.0.2.7", 443), DROP),
    (received("10.0.1.7", 11434), DROP),
    (received("10.0.66.7", 22), DROP),  # the rich rule's reject comes before the allowed ssh
    (received("10.0.67.7", 22), ACCEPT),
    (received("203.0.113.9", 8085), ACCEPT),
    (received("203.0.113.9", 8091), DROP),
    (received("203.0.113.9", 8085, "udp"), DROP),
    (received("10.9.1.1", 11434), ACCEPT),  # the trusted zone
    (received("10.9.1.1", 11434, ct_state="invalid"), DROP),
    (received("203.0.113.9", 11434, ct_state="established"), ACCEPT),
    (received("127.0.0.1", 11434, in_interface="lo"), ACCEPT),
    (received("fd00:1::6", 22), ACCEPT),
    (received("fd00:1::6", 443), DROP),
    (received("fd00:1::6", 22, reverse_path=False), DROP),
    (received("fd00:1::6", 22, reverse_path=None), MAYBE),
]
FIREWALLD_OUTPUT = [
    (sent("203.0.113.9", 443), ACCEPT),
    (sent("fd00:9::9", 443), ACCEPT),
    (sent("2002:a9fe:a9fe::1", 80), DROP),  # 6to4 of 169.254.169.254
]
DOCKER_INPUT = [
    (received("10.0.1.7", 22), ACCEPT),
    (received("10.0.1.7", 80), ACCEPT),
    (received("10.0.1.7", 9000), ACCEPT),  # published on 127.0.0.1 only
    (received("10.0.1.7", 11434), MAYBE),
    (received("10.0.1.7", 11434, "udp"), ACCEPT),
    (received("172.17.0.2", 11434, in_interface="docker0"), ACCEPT),
    (received("fd00:1::6", 11434), ACCEPT),  # docker-proxy listens on IPv6, no rule does
]


@pytest.mark.parametrize("debian", [12, 13])
@pytest.mark.parametrize(("packet", "verdict"), UFW_INPUT)
def test_ufw_judges_what_arrives(debian, packet, verdict):
    assert decide(f"debian{debian}-ufw", packet).verdict is verdict


@pytest.mark.parametrize("debian", [12, 13])
@pytest.mark.parametrize(("packet", "verdict"), UFW_OUTPUT)
def test_ufw_judges_what_leaves(debian, packet, verdict):
    assert decide(f"debian{debian}-ufw", packet, "output").verdict is verdict


@pytest.mark.parametrize("debian", [12, 13])
@pytest.mark.parametrize(("packet", "verdict"), FIREWALLD_INPUT)
def test_firewalld_judges_what_arrives(debian, packet, verdict):
    assert decide(f"debian{debian}-firewalld", packet).verdict is verdict


@pytest.mark.parametrize("debian", [12, 13])
@pytest.mark.parametrize(("packet", "verdict"), FIREWALLD_OUTPUT)
def test_firewalld_judges_what_leaves(debian, packet, verdict):
    assert decide(f"debian{debian}-firewalld", packet, "output").verdict is verdict


@pytest.mark.parametrize("debian", [12, 13])
@pytest.mark.parametrize(("packet", "verdict"), DOCKER_INPUT)
def test_docker_judges_what_arrives(debian, packet, verdict):
    assert decide(f"debian{debian}-docker", packet).verdict is verdict


@pytest.mark.parametrize("name", ["debian12-docker", "debian13-docker", "debian12-ufw-docker"])
def test_a_published_port_is_named_as_translated(name):
    judgement = decide(name, received("10.0.1.7", 11434))
    assert judgement.verdict is MAYBE
    assert any("--dport 11434 -j DNAT" in reason for reason in judgement.deciding)


@pytest.mark.parametrize("debian", [12, 13])
def test_a_published_port_is_translated_for_the_host_itself(debian):
    packet = Packet.tcp(
        HOST4, HOST4, 11434, 40000, out_interface="lo", user_id=0, group_id=0,
        destination_type="local",
    )  # fmt: skip
    judgement = decide(f"debian{debian}-docker", packet, "output")
    assert judgement.verdict is MAYBE
    assert any("DNAT" in reason for reason in judgement.deciding)


@pytest.mark.parametrize("debian", [12, 13])
def test_the_container_gets_what_was_translated(debian):
    fields = {"in_interface": "eth0", "out_interface": "docker0", "destination_type": "unicast"}
    packet = Packet.tcp("10.0.1.7", "172.17.0.2", 80, 40000, **fields)
    assert decide(f"debian{debian}-docker", packet, "forward").verdict is ACCEPT


def test_ufw_does_not_see_a_published_port_that_it_denies():
    name = "debian12-ufw-docker"
    assert decide(name, received("10.0.1.7", 11434)).verdict is MAYBE
    assert decide(name, received("10.0.1.7", 11435)).verdict is DROP
    assert decide(name, received("10.0.1.7", 22)).verdict is ACCEPT


@pytest.mark.parametrize("place", sorted(CORPUS.glob("*/")), ids=lambda place: place.name)
def test_no_form_of_the_corpus_is_unknown(place):
    """Only limits, opaque targets that let packets go on, and address translation are left."""
    found = ruleset(place.name)
    assert found.tables
    assert not found.gaps
    doubts = {
        step.why
        for table in found.tables
        for chain in table.chains.values()
        for rule in chain.rules
        for step in rule.steps
        if type(step).__name__ == "Perhaps"
    }
    assert doubts <= {"match limit", "match recent", "match hl", "limit"}
    assert not [
        step
        for table in found.tables
        for chain in table.chains.values()
        for rule in chain.rules
        for step in rule.steps
        if type(step).__name__ == "Foreign" and not step.certain
    ]
