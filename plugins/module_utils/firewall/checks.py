# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Hold a rule set against a policy: findings about who gets in and out, judged, not probed."""

from __future__ import annotations

import ipaddress
import re
import typing as t
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.findings import finding
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import (
    Judgement,
    Verdict,
    judge,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.packets import Packet
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.policy import (
    METADATA,
    Egress,
    Guard,
    LoopbackGuard,
    Network,
    Policy,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import Ruleset

__all__ = (
    "Case",
    "Connection",
    "Place",
    "cases",
    "lock_out",
    "other_firewalls",
    "published_port",
    "verdict_findings",
)  # fmt: skip

# Documentation networks (RFC 5737, RFC 3849): nobody's address, tried in this order.
_STRANGERS = {
    4: ("203.0.113.77", "198.51.100.77", "192.0.2.77"),
    6: ("2001:db8:ffff::77", "2001:db8:eeee::77", "2001:db8:dddd::77"),
}
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}
_NOBODY = 65534
# Comments, which may say anything
_QUOTED = re.compile(r'"(?:\\.|[^"\\])*"')
_FORWARDS = re.compile(r"\b(?:DNAT|dnat|REDIRECT|redirect)\b")
_WORDS = {Verdict.ACCEPT: "accepted", Verdict.DROP: "refused", Verdict.MAYBE: "not decided"}


@dataclass(frozen=True, slots=True)
class Place:
    """One of the host's own addresses and the interface that has it."""

    address: str
    interface: str

    @property
    def version(self) -> int:
        return ipaddress.ip_address(self.address).version


@dataclass(frozen=True, slots=True)
class Connection:
    """The connection that the change is made through. `interface` is where its packets arrive."""

    client: str
    server: str
    port: int
    interface: str | None

    def packet(self) -> Packet:
        return Packet.tcp(self.client, self.server, self.port, in_interface=self.interface)


@dataclass(frozen=True, slots=True)
class Case:
    """One packet, the hook where it is judged, and what must become of it."""

    id: str
    title: str
    severity: str
    hook: str
    packet: Packet
    expected: Verdict
    remediation: str


def lock_out(own: Ruleset, whole: Ruleset, connection: Connection) -> str:
    """Return why the connection could not be made anew under the candidate; "" when it could.

    `own` is the candidate alone, which is fully understood; `whole` is with everything else on the
    host, where what cannot be decided is left to the timer.
    """
    for ruleset, refused in ((own, (Verdict.DROP, Verdict.MAYBE)), (whole, (Verdict.DROP,))):
        judgement = judge(ruleset, connection.packet(), "input")
        if judgement.verdict in refused:
            return "; ".join(judgement.deciding)
    return ""


def other_firewalls(listing: str) -> list[str]:
    """Name what else writes rules on this host, by the tables and chains of `nft list ruleset`."""
    marks = {
        "Docker": r"chain DOCKER\b|table \S+ docker-bridges",
        "ufw": r"chain ufw6?-",
        "firewalld": r"table \S+ firewalld\b",
    }
    return [name for name, mark in marks.items() if re.search(mark, listing)]


def published_port(rules: Iterable[str], port: int) -> str:
    """Return the rule that forwards the port somewhere else (DNAT); "" when none does.

    Takes the lines of iptables-save and of `nft list ruleset`. A rule for loopback addresses
    is let be: no router carries a packet for them to here.
    """
    for line in rules:
        words = _QUOTED.sub('""', line)
        if _FORWARDS.search(words) and _names(words, port) and not _for_loopback(words):
            return line.strip()
    return ""


def _names(rule: str, port: int) -> bool:
    """Tell whether a rule names the port: alone, in a list or set, or within a range."""
    named = re.search(r"\bdports? (\{[^}]*\}|[\d,:-]+)", rule)
    ranges = re.findall(r"\b(\d+)(?:[:-](\d+))?\b", named[1]) if named else []
    return any(int(low) <= port <= int(high or low) for low, high in ranges)


def _for_loopback(rule: str) -> bool:
    found = re.search(r"(?:(?<!! )(?<= )-d|\bip6? daddr) (\S+)", rule)
    try:
        return found is not None and ipaddress.ip_network(found[1]).is_loopback
    except ValueError:  # a set, a range, or `!=`
        return False


def cases(policy: Policy, places: Sequence[Place]) -> Iterator[Case]:
    """Yield what must hold, for each IP version in which the host has an address."""
    for place in places:
        for guard in policy.guards:
            yield from _guard(guard, place)
        if policy.drops_rest:
            yield _rest(policy, place)
    for version in sorted({4, *(place.version for place in places)}):
        for loopback in policy.loopback:
            yield from _loopback(loopback, version)
    if policy.egress:
        for place in places:
            yield from _egress(policy.egress, place)


def _guard(guard: Guard, place: Place) -> Iterator[Case]:
    def case(who: str, source: str, expected: Verdict) -> Case:
        packet = Packet.tcp(source, place.address, guard.port, in_interface=place.interface)
        verb = "reaches" if expected is Verdict.ACCEPT else "does not reach"
        return Case(
            f"firewall.port.{guard.port}.ipv{place.version}.{who}",
            f"{who} {verb} port {guard.port} over IPv{place.version} ({guard.title})",
            "high" if expected is Verdict.DROP else "medium", "input", packet, expected,
            "Run llmsec.hardening.harden; where another firewall decides, change its rules.",
        )  # fmt: skip

    stranger = _outside(guard.of_version(place.version), place.version)
    if stranger:
        yield case("a-stranger", stranger, Verdict.DROP)
    for network in guard.of_version(place.version)[:1]:
        yield case("an-allowed-source", _member(network), Verdict.ACCEPT)


def _rest(policy: Policy, place: Place) -> Case:
    named = {guard.port for guard in policy.guards}
    port = next(number for number in range(0xFFFF, 0, -1) if number not in named)
    packet = Packet.tcp(
        _STRANGERS[place.version][0], place.address, port, in_interface=place.interface
    )
    return Case(
        f"firewall.default.ipv{place.version}",
        f"nobody reaches a port that no rule names over IPv{place.version}",
        "medium", "input", packet, Verdict.DROP, "Run llmsec.hardening.harden.",
    )  # fmt: skip


def _outside(networks: Sequence[Network], version: int) -> str:
    for text in _STRANGERS[version]:
        if not any(ipaddress.ip_address(text) in network for network in networks):
            return text
    return ""


def _member(network: Network) -> str:
    return str(network[1] if network.num_addresses > 2 else network[0])


def _loopback(guard: LoopbackGuard, version: int) -> Iterator[Case]:
    outsider = next((uid for uid in range(_NOBODY, 0, -1) if uid not in guard.users), 0)
    for uid, expected in [
        (outsider, Verdict.DROP),
        *((uid, Verdict.ACCEPT) for uid in guard.users),
    ]:
        address = _LOOPBACK[version]
        packet = Packet.tcp(address, address, guard.port, out_interface="lo", user_id=uid)
        verb = "reaches" if expected is Verdict.ACCEPT else "does not reach"
        yield Case(
            f"firewall.loopback.{guard.port}.ipv{version}.user-{uid}",
            f"the local user {uid} {verb} port {guard.port} over IPv{version} ({guard.title})",
            "high" if expected is Verdict.DROP else "medium", "output", packet, expected,
            "Run llmsec.hardening.harden.",
        )  # fmt: skip


def _egress(egress: Egress, place: Place) -> Iterator[Case]:
    def case(what: str, destination: str, port: int, expected: Verdict, device: str) -> Case:
        packet = Packet.tcp(
            place.address, destination, port, out_interface=device, user_id=egress.user,
            ct_state="new",
        )  # fmt: skip
        verb = "reaches" if expected is Verdict.ACCEPT else "does not reach"
        return Case(
            f"firewall.egress.ipv{place.version}.{what}",
            f"the LLM server {verb} {what} over IPv{place.version}",
            "high", "output", packet, expected,
            "Run llmsec.hardening.harden; a window for a model that is pulled closes by itself.",
        )  # fmt: skip

    allowed = [item.network for item in egress.allow]
    if egress.metadata:
        for network in METADATA:
            if network.version == place.version:
                known = network.num_addresses == 1
                target = str(network[0] if known else network[0xA9FE] if place.version == 4
                             else network[1])  # fmt: skip
                yield case(f"metadata-{network[0]}", target, 80, Verdict.DROP, place.interface)
    if egress.restrict:
        stranger = _outside(
            [item for item in allowed if item.version == place.version], place.version
        )
        if stranger:
            yield case("the-network", stranger, 443, Verdict.DROP, place.interface)


def verdict_findings(
    policy: Policy, places: Sequence[Place], rulesets: Mapping[str, Ruleset]
) -> Iterator[dict[str, t.Any]]:
    """Yield a finding for each case under each rule set, by name (`live`, `kept`)."""
    for name, ruleset in rulesets.items():
        for case in cases(policy, places):
            judgement = judge(ruleset, case.packet, case.hook)
            yield finding(
                f"{case.id}.{name}", "network_isolation", f"{name}: {case.title}", case.severity,
                _result(case, judgement), expected=_WORDS[case.expected],
                actual=_WORDS[judgement.verdict], evidence=judgement.deciding,
                remediation=case.remediation,
            )  # fmt: skip


def _result(case: Case, judgement: Judgement) -> str:
    if judgement.verdict is Verdict.MAYBE:
        return "error"
    return "pass" if judgement.verdict is case.expected else "fail"
