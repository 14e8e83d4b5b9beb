# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One packet, as the firewall of the judged host sees it."""

from __future__ import annotations

import ipaddress
import typing as t
from dataclasses import dataclass

__all__ = ("Packet",)

_Fields = t.Any  # of a Packet, by name: its own types are checked where it is made

Address = t.Union[ipaddress.IPv4Address, ipaddress.IPv6Address]  # noqa: UP007

_FAMILIES = ("ip", "ip6")
_PROTOCOLS = ("tcp", "udp", "icmp", "icmpv6")
_CT_STATES = ("new", "established", "related", "invalid", "untracked")
_DESTINATION_TYPES = ("local", "unicast", "broadcast", "multicast", "anycast")
_SYN = 0x02


@dataclass(frozen=True, slots=True)
class Packet:
    """A packet that is neither a fragment nor carries IPv6 extension headers or IP options.

    None stands for "unknown": a match on it may go either way. `mark` is the mark it arrives with;
    `user_id` and `group_id` are those of the sending socket (output only); `tcp_flags` is the flag
    byte of the TCP header.

    `destination_type` is what the routing table says of the destination ("local", "unicast", …).
    Where it is None, a packet judged at input is taken to be for an address of the host itself, a
    forwarded one not. `reverse_path` says whether the route back to the source leaves through
    in_interface, which is what strict reverse path filters ask.

    Raises ValueError for fields that cannot be in one packet.
    """

    family: str
    source: Address | None
    destination: Address | None
    protocol: str
    source_port: int | None = None
    destination_port: int | None = None
    in_interface: str | None = None
    out_interface: str | None = None
    ct_state: str | None = "new"
    user_id: int | None = None
    group_id: int | None = None
    mark: int | None = 0
    tcp_flags: int | None = _SYN
    icmp_type: int | None = None
    icmp_code: int | None = None
    destination_type: str | None = None
    reverse_path: bool | None = None

    def __post_init__(self) -> None:
        _choice("family", self.family, _FAMILIES)
        _choice("protocol", self.protocol, _PROTOCOLS)
        if self.ct_state is not None:
            _choice("ct_state", self.ct_state, _CT_STATES)
        if self.destination_type is not None:
            _choice("destination_type", self.destination_type, _DESTINATION_TYPES)
        version = 4 if self.family == "ip" else 6
        for address in (self.source, self.destination):
            if address is not None and address.version != version:
                raise ValueError(f"{address} is no address of family {self.family}")
        for port in (self.source_port, self.destination_port):
            if port is not None and not 0 <= port <= 0xFFFF:
                raise ValueError(f"{port} is no port")
        for name in (self.in_interface, self.out_interface):
            if name is not None and not 0 < len(name.encode()) < 16:
                raise ValueError(f"{name!r} is no name of an interface")

    @classmethod
    def tcp(
        cls,
        source: str | None,
        destination: str | None,
        destination_port: int | None,
        source_port: int | None = None,
        **fields: _Fields,
    ) -> Packet:
        """Build a TCP packet (a SYN unless tcp_flags says otherwise) from text addresses."""
        return cls._between(
            "tcp", source, destination, destination_port=destination_port,
            source_port=source_port, **fields,
        )  # fmt: skip

    @classmethod
    def udp(
        cls,
        source: str | None,
        destination: str | None,
        destination_port: int | None,
        source_port: int | None = None,
        **fields: _Fields,
    ) -> Packet:
        """Build a UDP packet from text addresses."""
        return cls._between(
            "udp", source, destination, destination_port=destination_port,
            source_port=source_port, **fields,
        )  # fmt: skip

    @classmethod
    def icmp(
        cls,
        source: str,
        destination: str,
        icmp_type: int | None = None,
        icmp_code: int | None = None,
        **fields: _Fields,
    ) -> Packet:
        """Build an ICMP or, between IPv6 addresses, an ICMPv6 packet."""
        protocol = "icmp" if _address(source).version == 4 else "icmpv6"
        return cls._between(
            protocol, source, destination, icmp_type=icmp_type, icmp_code=icmp_code, **fields
        )

    @classmethod
    def _between(
        cls, protocol: str, source: str | None, destination: str | None, **fields: _Fields
    ) -> Packet:
        ends = [None if text is None else _address(text) for text in (source, destination)]
        known = next((end for end in ends if end is not None), None)
        if known is None:
            raise ValueError("a packet needs the address of one end at least")
        family = "ip" if known.version == 4 else "ip6"
        return cls(family=family, source=ends[0], destination=ends[1], protocol=protocol, **fields)


def _choice(name: str, value: str, allowed: t.Sequence[str]) -> None:
    if value not in allowed:
        raise ValueError(f"{value!r} is no {name} (one of {', '.join(allowed)})")


def _address(text: str) -> Address:
    address = ipaddress.ip_address(text)
    if getattr(address, "scope_id", None):
        raise ValueError(f"{text}: give the address without its zone")
    return address
