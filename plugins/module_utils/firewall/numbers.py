# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything a rule compares is a number here: names and addresses become integers and ranges.

Interface names are the 16 bytes the kernel compares, so that a wildcard is a range of numbers.
Sources: nft(8) "DATA TYPES", include/uapi/linux/{netfilter/nf_conntrack_common,rtnetlink}.h.
"""

from __future__ import annotations

import socket
import typing as t
from collections.abc import Callable, Mapping

__all__ = (
    "WIDTHS",
    "Json",
    "Names",
    "UnknownValueError",
    "interface",
    "interface_range",
    "ip_number",
    "number",
    "region",
    "region_reader",
)

Json = t.Any  # whatever JSON holds: reading it finds out
Region = tuple[int, int]  # both ends belong to it


class UnknownValueError(ValueError):
    """A constant of the rule set that we do not know how to read."""


class Names(t.NamedTuple):
    """Names of the host's users and groups, for rules that were listed with names."""

    users: Mapping[str, int] = {"root": 0}
    groups: Mapping[str, int] = {"root": 0}


WIDTHS = {
    "ipv4": 32, "ipv6": 128, "port": 16, "proto": 8, "nfproto": 8, "ethertype": 16,
    "ifname": 128, "uid": 32, "gid": 32, "mark": 32, "ctstate": 32, "ctstatus": 32, "ctdir": 8,
    "tcpflags": 8, "icmptype": 8, "icmp6type": 8, "icmpcode": 8, "fibtype": 32, "pkttype": 8,
    "bool": 8, "number": 32,
}  # fmt: skip

_PROTO = {
    "ip": 0, "icmp": 1, "igmp": 2, "tcp": 6, "udp": 17, "dccp": 33, "ipv6": 41, "gre": 47,
    "esp": 50, "ah": 51, "icmpv6": 58, "ipv6-icmp": 58, "ipv6-nonxt": 59, "ospf": 89, "pim": 103,
    "comp": 108, "ipcomp": 108, "vrrp": 112, "sctp": 132, "udplite": 136, "mptcp": 262,
}  # fmt: skip
_NAMES: dict[str, dict[str, int]] = {
    "proto": _PROTO,
    "nfproto": {"ipv4": 2, "ipv6": 10},
    "ethertype": {"ip": 0x0800, "ip6": 0x86DD, "arp": 0x0806, "vlan": 0x8100, "8021q": 0x8100},
    "ctstate": {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 0x40},
    "ctstatus": {
        "expected": 1, "seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 0x10, "dnat": 0x20,
        "dying": 0x200,
    },
    "ctdir": {"original": 0, "reply": 1},
    "tcpflags": {
        "fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 0x10, "urg": 0x20, "ecn": 0x40, "cwr": 0x80,
    },
    "icmptype": {
        "echo-reply": 0, "destination-unreachable": 3, "source-quench": 4, "redirect": 5,
        "echo-request": 8, "router-advertisement": 9, "router-solicitation": 10,
        "time-exceeded": 11, "parameter-problem": 12, "timestamp-request": 13,
        "timestamp-reply": 14, "info-request": 15, "info-reply": 16, "address-mask-request": 17,
        "address-mask-reply": 18,
    },
    "icmp6type": {
        "destination-unreachable": 1, "packet-too-big": 2, "time-exceeded": 3,
        "parameter-problem": 4, "echo-request": 128, "echo-reply": 129, "mld-listener-query": 130,
        "mld-listener-report": 131, "mld-listener-done": 132, "mld-listener-reduction": 132,
        "nd-router-solicit": 133, "nd-router-advert": 134, "nd-neighbor-solicit": 135,
        "nd-neighbor-advert": 136, "nd-redirect": 137, "router-renumbering": 138,
        "ind-neighbor-solicit": 141, "ind-neighbor-advert": 142, "mld2-listener-report": 143,
    },
    "icmpcode": {
        "net-unreachable": 0, "host-unreachable": 1, "prot-unreachable": 2, "port-unreachable": 3,
        "frag-needed": 4, "net-prohibited": 9, "host-prohibited": 10, "admin-prohibited": 13,
    },
    "fibtype": {
        "unspec": 0, "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5,
        "blackhole": 6, "unreachable": 7, "prohibit": 8,
    },
    "pkttype": {"host": 0, "unicast": 0, "broadcast": 1, "multicast": 2, "other": 3},
    "bool": {"false": 0, "true": 1},
}  # fmt: skip

_IFNAMSIZ = 16


def ip_number(text: str, kind: str) -> int:
    """Return an address of kind "ipv4" or "ipv6" as a number; raises UnknownValueError."""
    family = socket.AF_INET if kind == "ipv4" else socket.AF_INET6
    try:
        return int.from_bytes(socket.inet_pton(family, text), "big")
    except (OSError, TypeError, ValueError) as exc:
        raise UnknownValueError(f"{text!r} is no {kind} address") from exc


def interface(name: str) -> int:
    """Return an interface's name as the kernel compares it; "" stands for no interface."""
    raw = name.encode()
    if len(raw) >= _IFNAMSIZ:
        raise UnknownValueError(f"{name!r} is no name of an interface")
    return int.from_bytes(raw.ljust(_IFNAMSIZ, b"\0"), "big")


def interface_range(prefix: str) -> Region:
    """Return the names that begin with prefix."""
    raw = prefix.encode()
    if len(raw) > _IFNAMSIZ:
        raise UnknownValueError(f"{prefix!r} is no prefix of an interface's name")
    return (
        int.from_bytes(raw.ljust(_IFNAMSIZ, b"\0"), "big"),
        int.from_bytes(raw.ljust(_IFNAMSIZ, b"\xff"), "big"),
    )


def number(value: object, kind: str, names: Names = Names()) -> int:  # noqa: B008 - immutable
    """Return one constant as a number; raises UnknownValueError."""
    if isinstance(value, bool):
        if kind == "bool":
            return int(value)
    elif isinstance(value, int):
        if kind not in ("ipv4", "ipv6", "ifname") and 0 <= value < 1 << WIDTHS[kind]:
            return value
    elif isinstance(value, str):
        return _number_of_text(value, kind, names)
    raise UnknownValueError(f"{value!r} is no {kind}")


def _number_of_text(text: str, kind: str, names: Names) -> int:
    if kind in ("ipv4", "ipv6"):
        return ip_number(text, kind)
    if kind == "ifname":
        return interface(text.replace("\\*", "*"))
    table: Mapping[str, int] = _NAMES.get(kind, {})
    if kind in ("uid", "gid"):
        table = names.users if kind == "uid" else names.groups
    if text in table:
        return table[text]
    try:
        return number(int(text, 0), kind)
    except ValueError as exc:
        raise UnknownValueError(f"{text!r} is no {kind} we know") from exc


def region(value: object, kind: str, names: Names = Names()) -> Region:  # noqa: B008 - immutable
    """Return the range of numbers that one element of nft's JSON stands for.

    A constant, {"prefix": {"addr", "len"}}, {"range": [low, high]} or {"|": [flags]}.
    """
    if isinstance(value, dict) and len(value) == 1:
        ((form, body),) = value.items()
        if form == "prefix":
            return _prefix(number(body["addr"], kind, names), body["len"], WIDTHS[kind])
        if form == "range":
            low, high = body
            return number(low, kind, names), number(high, kind, names)
        if form == "|":
            return (flags(body, kind, names),) * 2
    if kind == "ifname" and isinstance(value, str) and _is_wildcard(value):
        return interface_range(value[:-1].replace("\\*", "*"))
    found = number(value, kind, names)
    return found, found


def region_reader(kind: str, names: Names) -> Callable[[Json], Region]:
    """Return a function that does what `region` does, fast for plain addresses and numbers."""
    if kind in ("ipv4", "ipv6"):
        family = socket.AF_INET if kind == "ipv4" else socket.AF_INET6
        plain: type = str

        def convert(value: Json) -> int:
            return int.from_bytes(socket.inet_pton(family, value), "big")
    else:
        plain, top = int, 1 << WIDTHS[kind]

        def convert(value: Json) -> int:
            if 0 <= value < top and kind != "ifname":
                return value
            raise UnknownValueError(f"{value!r} is no {kind}")

    def read(value: Json) -> Region:
        if type(value) is plain:  # a bool is no number  # pylint: disable=unidiomatic-typecheck
            found = convert(value)
            return found, found
        return region(value, kind, names)

    return read


def flags(value: object, kind: str, names: Names) -> int:
    """Return the bits of one flag or of a list of flags."""
    if isinstance(value, dict) and set(value) == {"|"}:
        value = value["|"]
    if not isinstance(value, list):
        return number(value, kind, names)
    bits = 0
    for each in value:
        bits |= flags(each, kind, names)
    return bits


def _is_wildcard(text: str) -> bool:
    return text.endswith("*") and not text.endswith("\\*")


def _prefix(base: int, length: object, width: int) -> Region:
    if not isinstance(length, int) or not 0 <= length <= width:
        raise UnknownValueError(f"{length!r} is no length of a prefix")
    host = (1 << (width - length)) - 1
    return base & ~host, base | host
