# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the firewall of an LLM host shall do, checked and in one form for both backends."""

from __future__ import annotations

import ipaddress
import typing as t
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

__all__ = (
    "METADATA",
    "Destination",
    "Egress",
    "Guard",
    "LoopbackGuard",
    "Network",
    "Policy",
    "PolicyError",
    "parse_network",
    "parse_policy",
)

Network = t.Union[ipaddress.IPv4Network, ipaddress.IPv6Network]  # noqa: UP007

# Where clouds answer with a machine's credentials, and all that is link-local with them.
METADATA: tuple[Network, ...] = (
    ipaddress.ip_network("169.254.0.0/16"),
    ipaddress.ip_network("100.100.100.200/32"),  # Alibaba Cloud
    ipaddress.ip_network("fd00:ec2::254/128"),  # AWS
    ipaddress.ip_network("fd20:ce::254/128"),  # Google Cloud
    ipaddress.ip_network("fd00:c1::a9fe:a9fe/128"),  # Oracle Cloud
    ipaddress.ip_network("fd00:42::42/128"),  # Scaleway
    ipaddress.ip_network("fe80::/10"),
)
_PROTOCOLS = ("tcp", "udp")


class PolicyError(ValueError):
    """What was asked for is no policy; the message is one sentence."""


@dataclass(frozen=True, slots=True)
class Guard:
    """A TCP port that only `sources` may reach over the network; nobody when there are none."""

    port: int
    title: str
    sources: tuple[Network, ...]

    def of_version(self, version: int) -> tuple[Network, ...]:
        return tuple(network for network in self.sources if network.version == version)


@dataclass(frozen=True, slots=True)
class LoopbackGuard:
    """A TCP port that only processes of `users` (numbers) may reach from the host itself."""

    port: int
    title: str
    users: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Destination:
    """Where the LLM server's user may connect to."""

    network: Network
    port: int
    protocol: str


@dataclass(frozen=True, slots=True)
class Egress:
    """What processes of `user` may reach: loopback, replies and `allow`; all when not `restrict`.

    With `metadata` none of METADATA, whatever else is allowed.
    """

    user: int
    restrict: bool
    metadata: bool
    allow: tuple[Destination, ...]


@dataclass(frozen=True, slots=True)
class Policy:
    """All of it. What is not named here is left to the host's other rules."""

    guards: tuple[Guard, ...]
    loopback: tuple[LoopbackGuard, ...]
    egress: Egress | None
    drops_rest: bool = False  # what comes over the network to a port that no guard names


def parse_policy(
    data: Mapping[str, t.Any], user_number: Callable[[str], int | None], *, partial: bool = False
) -> Policy:
    """Return the policy of `guards`, `default`, `loopback` and `egress`, see the module's options.

    `user_number` looks a user's name up on the host. Loopback users that are not there are left
    out: nobody can come as them. The egress user must exist, except in a `partial` policy, which is
    then one without egress. Raises PolicyError.
    """
    guards = tuple(_guard(item) for item in data.get("guards") or ())
    loopback = tuple(_loopback(item, user_number) for item in data.get("loopback") or ())
    for kind, ports in (("guards", guards), ("loopback", loopback)):
        twice = _twice(item.port for item in ports)
        if twice:
            raise PolicyError(f"{kind}: port {twice[0]} is named twice")
    found = data.get("egress")
    egress = _egress(found, user_number, partial) if found else None
    return Policy(guards, loopback, egress, data.get("default") == "drop")


def _twice(ports: Iterable[int]) -> list[int]:
    seen = list(ports)
    return [port for port in dict.fromkeys(seen) if seen.count(port) > 1]


def _port(value: object, where: str) -> int:
    try:
        port = int(str(value))
    except ValueError:
        port = 0
    if not 1 <= port <= 0xFFFF:
        raise PolicyError(f"{where} must be a port between 1 and 65535, not {value}")
    return port


def _title(value: object) -> str:
    """Return text that may stand in a comment of either backend."""
    text = str(value)
    if not text.isascii() or not text.isprintable() or set(text) & set('"\\') or len(text) > 100:
        raise PolicyError(f"{text!r} cannot stand in a rule's comment")
    return text


def parse_network(value: object) -> Network:
    """Return an address or network of either IP version. Raises PolicyError for anything else."""
    text = str(value)
    try:
        network = ipaddress.ip_network(text)
    except ValueError as exc:
        reason = str(exc).partition(" has host bits")
        why = "it has bits set beyond its prefix" if reason[1] else "not IPv4 or IPv6"
        raise PolicyError(f"{text} is no address or network ({why})") from exc
    if getattr(network.network_address, "scope_id", None):
        raise PolicyError(f"{text} must be given without its zone")
    return network


def _networks(values: Sequence[t.Any]) -> tuple[Network, ...]:
    """Return the networks without overlaps, which sets of nftables refuse."""
    found = [parse_network(value) for value in values]
    v4 = ipaddress.collapse_addresses(item for item in found if item.version == 4)
    v6 = ipaddress.collapse_addresses(item for item in found if item.version == 6)
    return (*v4, *v6)


def _guard(item: Mapping[str, t.Any]) -> Guard:
    title = _title(item["title"])
    return Guard(_port(item["port"], title), title, _networks(item.get("sources") or ()))


def _loopback(item: Mapping[str, t.Any], user_number: Callable[[str], int | None]) -> LoopbackGuard:
    title = _title(item["title"])
    found = {user_number(str(name)) for name in item.get("users") or ()}
    users = tuple(sorted(number for number in found if number is not None))
    return LoopbackGuard(_port(item["port"], title), title, users)


def _egress(
    item: Mapping[str, t.Any], user_number: Callable[[str], int | None], partial: bool
) -> Egress | None:
    name = str(item["user"])
    number = user_number(name)
    if number is None and partial:
        return None
    if number is None:
        raise PolicyError(f"there is no user {name} whose way out could be closed")
    if number == 0:
        raise PolicyError("the LLM server runs as root, whose way out must not be closed")
    allow = tuple(_destination(entry) for entry in item.get("allow") or ())
    restrict, metadata = bool(item.get("restrict", True)), bool(item.get("metadata", True))
    return Egress(number, restrict, metadata, allow)


def _destination(item: Mapping[str, t.Any]) -> Destination:
    protocol = str(item.get("protocol") or "tcp")
    if protocol not in _PROTOCOLS:
        raise PolicyError(f"{protocol} is not one of {', '.join(_PROTOCOLS)}")
    return Destination(parse_network(item["destination"]), _port(item["port"], "egress"), protocol)
