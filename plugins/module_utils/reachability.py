# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a neighbour reaches and what not, judged from its attempts to connect. Pure functions.

Silence proves a closed port only where something else answers: a dead network is silent as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.connect_probe import (
    NO_ROUTE,
    OPEN,
    REFUSED,
    SILENT,
    UNREACHABLE,
    Endpoint,
    Outcome,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.subjects import Finding, Subject

__all__ = ("Probe", "Target", "TargetError", "check_targets", "endpoints", "judge")

_ID = re.compile(r"[a-z0-9][a-z0-9_-]*\Z")
# The worst of several addresses decides.
_WORST = ("fail", "error", "pass", "skip")

_CLOSE = (
    "Set firewall_app_servers and apply the role firewall; for an LLM server's own port, apply its "
    "role first (ollama), which binds it to loopback."
)
_LET_IN = "Add this neighbour to firewall_app_servers, and apply the roles gateway and firewall."


class TargetError(ValueError):
    """The targets make no sense; says which."""


@dataclass(frozen=True, slots=True)
class Target:
    """A port and what must become of a connection to it. A `private` one is an LLM server's.

    `host` is the inventory's name of the host whose port it is, for findings of many hosts.
    """

    id: str
    address: str
    port: int
    expected: str
    title: str
    severity: str
    private: bool = False
    host: str = ""


@dataclass(frozen=True, slots=True)
class Probe:
    """What was found out: addresses by name, what became of connections, this host's versions.

    `witnesses` are what must answer when this neighbour's network works: (name, port).
    """

    vantage: str
    addresses: Mapping[str, Sequence[str] | OSError]
    outcomes: Mapping[Endpoint, Outcome]
    families: frozenset[int]
    witnesses: tuple[tuple[str, int], ...] = ()


def check_targets(vantage: str, targets: Sequence[Target]) -> None:
    """Raise TargetError for a name that would not make a stable, unique id."""
    for name in (vantage, *(target.id for target in targets)):
        if not _ID.match(name):
            raise TargetError(f"{name!r} does not consist of lower case letters, digits, - and _")
    seen: set[tuple[str, str]] = set()
    for target in targets:
        if (target.host, target.id) in seen:
            raise TargetError(f"there are two targets {target.id!r}: give each an id of its own")
        seen.add((target.host, target.id))


def endpoints(
    targets: Sequence[Target], addresses: Mapping[str, Sequence[str] | OSError],
    witness_port: int, witnesses: Sequence[tuple[str, int]],
) -> list[Endpoint]:  # fmt: skip
    """Return all that there is to connect to."""
    places = [(target.address, target.port) for target in targets]
    if witness_port:
        places += [(target.address, witness_port) for target in targets]
    return [
        Endpoint(address, port)
        for name, port in (*places, *witnesses)
        for address in _known(addresses, name)
    ]


def _known(addresses: Mapping[str, Sequence[str] | OSError], name: str) -> Sequence[str]:
    found = addresses[name]
    return [] if isinstance(found, OSError) else found


def judge(targets: Sequence[Target], probe: Probe) -> list[Finding]:
    """Return one finding for each target and IP version in which it has an address.

    Those of targets with a `host` name it in `host`.
    """
    return [
        {**finding, "host": target.host} if target.host else finding
        for target in targets
        for finding in _target(target, probe)
    ]


def _target(target: Target, probe: Probe) -> Iterator[Finding]:
    addresses = probe.addresses[target.address]
    if isinstance(addresses, OSError) or not addresses:
        why = f"{target.address} has no address here: {addresses or 'none was found'}"
        yield _subject(target, probe, "name").not_measured(why)
        return
    places = [Endpoint(address, target.port) for address in addresses]
    for version in (4, 6):
        mine = [place for place in places if place.version == version]
        if mine:
            yield _finding(_subject(target, probe, f"ipv{version}"), target, mine, probe)


def _subject(target: Target, probe: Probe, kind: str) -> Subject:
    over = {"ipv4": " over IPv4", "ipv6": " over IPv6"}.get(kind, "")
    verb = "reaches" if target.expected == "open" else "does not reach"
    exposes = target.private and target.expected == "closed"
    return Subject(
        f"reachability.{probe.vantage}.{target.id}.{kind}",
        "loopback" if exposes else "network_isolation",
        f"{probe.vantage} {verb} {target.title}{over}",
        "critical" if exposes else target.severity,
        _LET_IN if target.expected == "open" else _CLOSE,
    )


def _finding(
    subject: Subject, target: Target, places: Sequence[Endpoint], probe: Probe
) -> Finding:  # fmt: skip
    """Judge all addresses of one IP version; the worst one is what the finding says."""
    verdicts = {place: _verdict(target, place, probe) for place in places}
    worst = min((result for result, _why in verdicts.values()), key=_WORST.index)
    place, why = next(
        (place, why) for place, (result, why) in verdicts.items() if result == worst
    )  # fmt: skip
    said = f"{place}: {probe.outcomes[place]}" + (f"; {why}" if why else "")
    if worst == "error":
        return subject.not_measured(said)
    if worst == "skip":
        return subject.skipped(said)
    return subject.judged([said] if worst == "fail" else [], expected=target.expected, found=said)


def _verdict(target: Target, place: Endpoint, probe: Probe) -> tuple[str, str]:
    """Return (result, what there is to say) of one address."""
    kind = probe.outcomes[place].kind
    wants_open = target.expected == "open"
    if kind == OPEN:
        return ("pass" if wants_open else "fail"), ""
    if kind == REFUSED:
        return ("fail" if wants_open else "pass"), ""
    if kind in (SILENT, UNREACHABLE):
        witness = _witness(place, probe)
        if not witness:
            return "error", "nothing else answered there, so the network may be down"
        return ("fail" if wants_open else "pass"), f"{witness} answered"
    if kind == NO_ROUTE and place.version not in probe.families:
        return "skip", f"this neighbour has no address of IPv{place.version}"
    return "error", ""


def _witness(place: Endpoint, probe: Probe) -> str:
    """Return what proves that packets get there and back; "" when nothing does."""
    named = {
        Endpoint(address, port)
        for name, port in probe.witnesses
        for address in _known(probe.addresses, name)
    }
    for other, outcome in probe.outcomes.items():
        near = other.address == place.address or (
            other in named and other.version == place.version
        )  # fmt: skip
        if near and outcome.kind in (OPEN, REFUSED):
            return str(other)
    return ""
