# SPDX-License-Identifier: GPL-3.0-or-later
"""Random policies and packets, and what must become of each packet, said without any rule."""

from __future__ import annotations

import ipaddress

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import Verdict
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.packets import Packet
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.policy import (
    METADATA,
    Destination,
    Egress,
    Guard,
    LoopbackGuard,
    Policy,
)
from hypothesis import strategies as st

PORTS = st.sampled_from([22, 443, 8081, 11434])
USERS = st.sampled_from([0, 33, 997, 1000, 65534])
# Few, so that packets and policies meet often.
ADDRESSES = [
    "192.0.2.1", "192.0.2.9", "198.51.100.7", "127.0.0.1", "169.254.169.254", "169.254.0.1",
    "2001:db8::1", "2001:db8::9", "2001:db8:1::7", "::1", "fd00:ec2::254", "fe80::7", "fd00::1",
]  # fmt: skip
NETWORKS = st.sampled_from([
    "192.0.2.0/24", "192.0.2.1/32", "198.51.100.0/24", "0.0.0.0/0",
    "2001:db8::/64", "2001:db8::1/128", "2001:db8:1::/48", "::/0",
]).map(ipaddress.ip_network)  # fmt: skip


def collapsed(networks):
    return tuple(
        network
        for version in (4, 6)
        for network in ipaddress.collapse_addresses(
            [item for item in networks if item.version == version]
        )
    )


sources = st.lists(NETWORKS, max_size=3).map(collapsed)
guards = st.lists(
    st.builds(Guard, PORTS, st.just("a guard"), sources), max_size=3, unique_by=lambda g: g.port
).map(tuple)
loopback_guards = st.lists(
    st.builds(
        LoopbackGuard,
        PORTS,
        st.just("a loopback guard"),
        st.sets(USERS, max_size=3).map(lambda users: tuple(sorted(users))),
    ),
    max_size=2,
    unique_by=lambda g: g.port,
).map(tuple)
destinations = st.builds(Destination, NETWORKS, PORTS, st.sampled_from(["tcp", "udp"]))
egresses = st.builds(
    Egress,
    st.sampled_from([997, 1000]),
    st.booleans(),
    st.booleans(),
    st.lists(destinations, max_size=2).map(tuple),
)
policies = st.builds(Policy, guards, loopback_guards, st.none() | egresses, st.booleans())


@st.composite
def packets(draw):
    """Return (hook, packet)."""
    source = draw(st.sampled_from(ADDRESSES))
    version = ipaddress.ip_address(source).version
    target = draw(
        st.sampled_from([a for a in ADDRESSES if ipaddress.ip_address(a).version == version])
    )
    build = draw(st.sampled_from([Packet.tcp, Packet.tcp, Packet.udp]))
    port, device = draw(PORTS), draw(st.sampled_from(["lo", "eth0"]))
    if draw(st.booleans()):
        return "input", build(source, target, port, in_interface=device)
    return "output", build(source, target, port, out_interface=device, user_id=draw(USERS))


def expected(policy, hook, packet):
    """Return what must become of the first packet of a connection."""
    if hook == "input":
        refused = packet.in_interface != "lo" and _refused_at_input(policy, packet)
    else:
        refused = _refused_at_output(policy, packet)
    return Verdict.DROP if refused else Verdict.ACCEPT


def _refused_at_input(policy, packet):
    for guard in policy.guards:
        if packet.protocol == "tcp" and guard.port == packet.destination_port:
            return not any(packet.source in network for network in guard.sources)
    return policy.drops_rest


def _refused_at_output(policy, packet):
    if packet.out_interface == "lo" and packet.protocol == "tcp":
        for guard in policy.loopback:
            if guard.port == packet.destination_port and packet.user_id not in guard.users:
                return True
    egress = policy.egress
    if egress is None or packet.user_id != egress.user:
        return False
    if egress.metadata and any(packet.destination in network for network in METADATA):
        return True
    allowed = packet.out_interface == "lo" or any(
        packet.destination in item.network
        and (packet.destination_port, packet.protocol) == (item.port, item.protocol)
        for item in egress.allow
    )
    return egress.restrict and not allowed
