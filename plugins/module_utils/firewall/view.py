# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a rule sees of a packet at one hook: every field as a number, None, or ABSENT.

Facts about hooks from the kernel (6.1 to 6.18): net/netfilter/{nft_meta,nft_ct,nft_fib}.c and
nf_conntrack_core.c; tests/kernel compares.
"""

from __future__ import annotations

import typing as t

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.numbers import interface
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.packets import Packet
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import (
    ABSENT,
    Absent,
)

__all__ = ("CONNTRACK_PRIORITY", "NOT_TRANSLATED", "WALKS", "PacketView")

# The hooks a packet passes, by the hook it is judged at.
WALKS: dict[str, tuple[str, ...]] = {
    "input": ("ingress", "prerouting", "input"),
    "forward": ("ingress", "prerouting", "forward", "postrouting", "egress"),
    "output": ("output", "postrouting", "egress"),
}

# NF_IP_PRI_CONNTRACK: before it, a packet from the wire has no connection.
CONNTRACK_PRIORITY = -200

_PROTO = {"tcp": 6, "udp": 17, "icmp": 1, "icmpv6": 58}
_STATES = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 0x40}
_WITHOUT_CONNECTION = frozenset({_STATES["invalid"], _STATES["untracked"]})
# The nat chains see the first packet of a connection only.
NOT_TRANSLATED = _WITHOUT_CONNECTION | {_STATES["established"], _STATES["related"]}
_ROUTE_TYPES = {"unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5}
_TRANSPORTS = frozenset(
    {"tcp", "udp", "icmp", "icmpv6", "udplite", "sctp", "dccp", "igmp", "esp", "ah", "comp", "gre"}
)
_NETWORKS = frozenset({"ip", "ip6", "arp"})
# Status bits (IPS_EXPECTED, IPS_SEEN_REPLY, IPS_ASSURED, IPS_SRC_NAT, IPS_DST_NAT) that the first
# packet of a connection does not have; a packet that NAT touches is not followed so far.
_STATUS_OF_NEW = (0, 0x1 | 0x2 | 0x4 | 0x10 | 0x20)

_UNTRACKED = "untracked"  # no field of a rule: set by `notrack`

Loaded = t.Union[int, None, Absent]  # noqa: UP007


class PacketView:
    """The fields of a packet on its way; rules may change them."""

    def __init__(self, packet: Packet, judged_at: str) -> None:
        self._packet = packet
        self._judged_at = judged_at
        network = packet.family
        self._absent = (_NETWORKS - {network}) | (_TRANSPORTS - {packet.protocol})
        self._fields: dict[str, Loaded] = {
            **self._constant_fields(),
            **self._route_fields(),
        }
        self._at_hook: dict[str, Loaded] = {}
        self._tracked: dict[str, Loaded] = {}
        self._place = ("", 0)
        self.written: dict[str, int | None] = {"meta.mark": packet.mark, _UNTRACKED: 0}

    # -- What the evaluator calls ------------------------------------------------------------------

    def enter(self, hook: str, priority: int) -> None:
        """Move on to a base chain."""
        self._place = (hook, priority)
        self._at_hook = self._interfaces(hook) | self._socket_owner(hook)
        self._tracked = self._connection(hook, priority)

    def load(self, name: str) -> Loaded:
        """Return a field's value."""
        if name.startswith("ct."):
            return self._load_tracked(name)
        for fields in (self.written, self._fields, self._at_hook):
            if name in fields:
                return fields[name]
        return ABSENT if name.partition(".")[0] in self._absent else None

    def known_bits(self, name: str) -> tuple[int, int]:
        """Return the bits that are known of a field whose value is not, and their mask."""
        if name == "ct.status" and self._connection_is_new():
            return _STATUS_OF_NEW
        return 0, 0

    def write(self, name: str, value: int | None, *, certain: bool) -> None:
        """Set a field; where it is not certain that the rule ran, the field may have either."""
        if name == "ct.mark" and self._load_tracked("ct.mark") is ABSENT:
            return
        if not certain:
            before = self.load(name)
            value = value if before == value else None
        self.written[name] = value

    def notrack(self, *, certain: bool) -> None:
        """Take a packet without a connection out of connection tracking; others keep theirs."""
        state = self._tracked["ct.state"]
        if state in (_STATES["invalid"], None):
            self.write(_UNTRACKED, 1, certain=certain and state is not None)
            self._tracked = self._connection(*self._place)

    @property
    def state(self) -> int | None:
        """The connection's state as `ct state` shows it here."""
        found = self._tracked["ct.state"]
        return found if isinstance(found, int) else None

    # -- Fields ------------------------------------------------------------------------------------

    def _constant_fields(self) -> dict[str, Loaded]:
        packet = self._packet
        network, transport = packet.family, packet.protocol
        source = None if packet.source is None else int(packet.source)
        destination = None if packet.destination is None else int(packet.destination)
        fields: dict[str, Loaded] = {
            f"{network}.saddr": source,
            f"{network}.daddr": destination,
            f"{network}.version": 4 if network == "ip" else 6,
            "meta.l4proto": _PROTO[transport],
            "meta.nfproto": 2 if network == "ip" else 10,
            "meta.protocol": 0x0800 if network == "ip" else 0x86DD,
            "th.sport": packet.source_port,
            "th.dport": packet.destination_port,
        }
        fields["ip.protocol" if network == "ip" else "ip6.nexthdr"] = _PROTO[transport]
        if network == "ip":
            # An unfragmented packet; the flag "don't fragment" is the sender's choice.
            fields["ip.fragment"] = 0
        if transport in ("tcp", "udp"):
            fields[f"{transport}.sport"] = packet.source_port
            fields[f"{transport}.dport"] = packet.destination_port
        if transport == "tcp":
            fields["tcp.flags"] = packet.tcp_flags
        if transport in ("icmp", "icmpv6"):
            fields[f"{transport}.type"] = packet.icmp_type
            fields[f"{transport}.code"] = packet.icmp_code
        for header in ("hbh", "rt", "rt0", "rt2", "rt4", "frag", "dst", "mh"):
            # Asking for a header that is not there gives "no"; asking for its field ends the rule.
            fields[f"exthdr.{header}"] = 0 if network == "ip6" else ABSENT
            fields[f"exthdr.{header}.field"] = ABSENT
        return fields

    def _route_fields(self) -> dict[str, Loaded]:
        packet = self._packet
        fields: dict[str, Loaded] = {}
        found = self._destination_type()
        fields["fib.type:daddr"] = found
        if packet.reverse_path is not None:
            for selector in ("iif.saddr", "iif.mark.saddr"):
                fields[f"fib.oif:{selector}"] = int(packet.reverse_path)
        return fields

    def _destination_type(self) -> int | None:
        packet = self._packet
        if packet.destination_type is not None:
            return _ROUTE_TYPES[packet.destination_type]
        if packet.destination is None:
            return None
        if packet.destination.is_multicast:
            return _ROUTE_TYPES["multicast"]
        if str(packet.destination) == "255.255.255.255":
            return _ROUTE_TYPES["broadcast"]
        if self._judged_at == "input" or packet.destination.is_loopback:
            return _ROUTE_TYPES["local"]
        return _ROUTE_TYPES["unicast"] if self._judged_at == "forward" else None

    def _interfaces(self, hook: str) -> dict[str, Loaded]:
        """Name the interfaces known at a hook; a missing one compares as the empty name."""
        packet = self._packet
        incoming: Loaded = _name(packet.in_interface)
        outgoing: Loaded = _name(packet.out_interface)
        if hook in ("ingress", "prerouting", "input"):
            outgoing = 0
        if hook == "output":
            incoming = 0
        if hook in ("postrouting", "egress") and self._judged_at == "output":
            incoming = None
        fields = {
            "meta.iifname": incoming, "meta.iif": incoming,
            "meta.oifname": outgoing, "meta.oif": outgoing,
        }  # fmt: skip
        if hook != "output" and self._judged_at != "output" and packet.protocol == "tcp":
            fields["meta.pkttype"] = 0
        return fields

    def _socket_owner(self, hook: str) -> dict[str, Loaded]:
        """Only a packet that a local process sends has an owner; a received one may find it early.

        The kernel looks for the socket before the input hook, but finds connected ones only.
        """
        packet = self._packet
        if self._judged_at == "output":
            return {"meta.skuid": packet.user_id, "meta.skgid": packet.group_id}
        passed_on = hook in ("forward", "postrouting", "egress")
        if passed_on or (packet.protocol == "tcp" and packet.ct_state == "new"):
            return {"meta.skuid": ABSENT, "meta.skgid": ABSENT}
        return {"meta.skuid": None, "meta.skgid": None}

    # -- Connection tracking -----------------------------------------------------------------------

    def _connection(self, hook: str, priority: int) -> dict[str, Loaded]:
        """Return the ct fields; before conntrack has seen it, a packet counts as invalid."""
        packet = self._packet
        if self.written[_UNTRACKED] != 0:
            unknown = self.written[_UNTRACKED] is None
            return {"ct.state": None if unknown else _STATES["untracked"]}
        early = hook == "ingress" or (
            hook in ("prerouting", "output") and priority <= CONNTRACK_PRIORITY
        )
        if early:
            # On the loopback interface a packet keeps the connection it got on its way out.
            looped = hook != "output" and packet.in_interface in (None, "lo")
            unsure = looped or (priority == CONNTRACK_PRIORITY and hook != "ingress")
            return {"ct.state": None if unsure else _STATES["invalid"]}
        return {"ct.state": None if packet.ct_state is None else _STATES[packet.ct_state]}

    def _connection_is_new(self) -> bool:
        return self._tracked.get("ct.state") == _STATES["new"]

    def _load_tracked(self, name: str) -> Loaded:
        state = self._tracked["ct.state"]
        if name == "ct.state":
            return state
        if state in _WITHOUT_CONNECTION:
            return ABSENT
        if name in self.written:
            return self.written[name]
        if state != _STATES["new"]:
            return None
        return self._of_new_connection(name)

    def _of_new_connection(self, name: str) -> Loaded:
        """Return a field of a connection of which this is the first packet."""
        packet = self._packet
        network = packet.family
        source, destination = self._fields[f"{network}.saddr"], self._fields[f"{network}.daddr"]
        known: dict[str, Loaded] = {
            "ct.direction": 0,
            "ct.mark": 0,
            "ct.original.proto-src": packet.source_port,
            "ct.original.proto-dst": packet.destination_port,
            f"ct.original.{network} saddr": source,
            f"ct.original.{network} daddr": destination,
        }
        return known.get(name)


def _name(name: str | None) -> int | None:
    return None if name is None else interface(name)
