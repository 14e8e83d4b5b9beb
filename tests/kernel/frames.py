# SPDX-License-Identifier: GPL-3.0-or-later
"""Packets as bytes, with right checksums: conntrack calls others invalid."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Any

_PROTOCOLS = {"tcp": 6, "udp": 17}
ETHERTYPES = {"ip": 0x0800, "ip6": 0x86DD}


def _checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _transport(packet: dict[str, Any], source: bytes, destination: bytes) -> bytes:
    number = _PROTOCOLS[packet["protocol"]]
    ports = struct.pack("!HH", packet["source_port"], packet["destination_port"])
    if packet["protocol"] == "tcp":
        offset_and_flags = (5 << 12) | packet["tcp_flags"]
        # Every sequence begins with 1: an ACK answers a SYN that was sent by us, too.
        answered = 2 if packet["tcp_flags"] & 0x10 else 0
        body = ports + struct.pack("!IIHHHH", 1, answered, offset_and_flags, 1024, 0, 0)
        at = 16
    else:
        body = ports + struct.pack("!HH", 8, 0)
        at = 6
    pseudo = source + destination + struct.pack("!II", len(body), number)
    checksum = _checksum(pseudo + body) or 0xFFFF
    return body[:at] + struct.pack("!H", checksum) + body[at + 2 :]


def build(packet: dict[str, Any]) -> bytes:
    """Return the IP packet; `id` becomes the identification, or the flow label in IPv6."""
    source = ipaddress.ip_address(packet["source"]).packed
    destination = ipaddress.ip_address(packet["destination"]).packed
    body = _transport(packet, source, destination)
    number = _PROTOCOLS[packet["protocol"]]
    if packet["family"] == "ip6":
        start = (6 << 28) | packet["id"]
        return struct.pack("!IHBB", start, len(body), number, 64) + source + destination + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), packet["id"], 0, 64, number, 0)
    head += source + destination
    return head[:10] + struct.pack("!H", _checksum(head)) + head[12:] + body


def raw_socket(family: str) -> socket.socket:
    """Open a socket of this process that sends whole IP packets."""
    kind = socket.AF_INET if family == "ip" else socket.AF_INET6
    return socket.socket(kind, socket.SOCK_RAW, socket.IPPROTO_RAW)
