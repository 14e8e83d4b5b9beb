# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import dataclasses
import ipaddress

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.packets import Packet


def test_a_packet_is_built_from_text():
    packet = Packet.tcp("10.0.0.5", "10.0.0.1", 443, in_interface="eth0")
    assert packet.family == "ip"
    assert packet.source == ipaddress.ip_address("10.0.0.5")
    assert (packet.protocol, packet.destination_port, packet.source_port) == ("tcp", 443, None)
    assert (packet.ct_state, packet.mark, packet.tcp_flags) == ("new", 0, 2)


def test_the_family_is_that_of_the_addresses():
    assert Packet.udp("fd00::5", "fd00::1", 53).family == "ip6"
    assert Packet.udp(None, "fd00::1", 53).family == "ip6"
    assert Packet.icmp("fd00::5", "fd00::1").protocol == "icmpv6"
    assert Packet.icmp("10.0.0.5", "10.0.0.1", 8).protocol == "icmp"


@pytest.mark.parametrize(
    "fields",
    [
        {"source": "10.0.0.256"},
        {"source": "fd00::1"},
        {"source": "fe80::1%eth0", "destination": "fe80::2"},
        {"source": None, "destination": None},
        {"destination_port": 65536},
        {"source_port": -1},
        {"in_interface": ""},
        {"out_interface": "sixteen-letters-"},
        {"ct_state": "old"},
        {"destination_type": "nowhere"},
    ],
)
def test_what_cannot_be_a_packet_is_refused(fields):
    sound = {"source": "10.0.0.5", "destination": "10.0.0.1", "destination_port": 80}
    with pytest.raises(ValueError, match=r"\S"):
        Packet.tcp(**{**sound, **fields})


def test_a_packet_does_not_change():
    packet = Packet.tcp("10.0.0.5", "10.0.0.1", 443)
    with pytest.raises(dataclasses.FrozenInstanceError):
        packet.mark = 5
