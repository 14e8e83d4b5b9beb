# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A policy as a file for `nft -f`: our own table, replaced in one transaction."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.policy import (
    METADATA,
    Destination,
    Egress,
    Guard,
    LoopbackGuard,
    Network,
    Policy,
)

__all__ = ("REMOVAL", "TABLE", "WINDOW", "render_nft")

TABLE = "llm_hardening"
WINDOW = "pull_window"

# Creating before deleting makes the deletion work whether or not the table is there.
REMOVAL = f"table inet {TABLE}\ndelete table inet {TABLE}\n"

_HEAD = """\
#!/usr/sbin/nft -f
# Managed by Ansible (llmsec.hardening): changes to this file are overwritten.
# Loads one table and touches no other. Loading it again changes nothing.
"""
_WINDOW = f"""\
    # Users that may reach the network for a while, to pull a model. Closes by itself.
    set {WINDOW} {{
        type uid
        flags timeout
    }}
"""


def render_nft(policy: Policy) -> str:
    """Return the whole file."""
    sets = [_set(guard, version) for guard in policy.guards for version in (4, 6)]
    parts = [text for text in sets if text]
    if policy.egress and policy.egress.restrict:
        parts.append(_WINDOW)
    if policy.guards or policy.drops_rest:
        fate = "drop" if policy.drops_rest else "accept"
        parts.append(_chain("input", _input(policy), fate))
    if policy.loopback or policy.egress:
        parts.append(_chain("output", _output(policy)))
    if policy.egress:
        parts.append(_chain("llm_egress", _egress(policy.egress), hook=False))
    return f"{_HEAD}{REMOVAL}\ntable inet {TABLE} {{\n{chr(10).join(parts)}}}\n"


def _set_name(guard: Guard, version: int) -> str:
    return f"port_{guard.port}_v{version}"


def _set(guard: Guard, version: int) -> str:
    networks = guard.of_version(version)
    if not networks:
        return ""
    elements = ",\n            ".join(_network(network) for network in networks)
    return f"""\
    # {guard.title}
    set {_set_name(guard, version)} {{
        type ipv{version}_addr
        flags interval
        elements = {{
            {elements}
        }}
    }}
"""


def _network(network: Network) -> str:
    whole = network.prefixlen == network.max_prefixlen
    return str(network.network_address if whole else network)


def _chain(name: str, rules: Iterator[str], fate: str = "accept", *, hook: bool = True) -> str:
    head = f"        type filter hook {name} priority filter; policy {fate};\n\n" if hook else ""
    lines = "".join(f"        {rule}\n" for rule in rules)
    return f"    chain {name} {{\n{head}{lines}    }}\n"


def _input(policy: Policy) -> Iterator[str]:
    yield "# What the host says to itself is judged at output, where its users are known."
    yield 'iifname "lo" accept'
    for guard in policy.guards:
        for version, word in ((4, "ip"), (6, "ip6")):
            if guard.of_version(version):
                yield f"tcp dport {guard.port} {word} saddr @{_set_name(guard, version)} accept"
        yield f'tcp dport {guard.port} drop comment "{guard.title}"'
    if policy.drops_rest:
        yield "# Nothing else comes in but replies, ICMP (path MTU, neighbours) and DHCPv6 answers."
        yield "ct state established,related accept"
        # ICMP of both IP versions, by number: a small host has no /etc/protocols for names.
        yield "meta l4proto { 1, 58 } accept"
        yield "ip6 saddr fe80::/10 udp dport 546 accept"


def _output(policy: Policy) -> Iterator[str]:
    for guard in policy.loopback:
        yield _loopback(guard)
    if policy.egress:
        yield f"meta skuid {policy.egress.user} jump llm_egress"


def _loopback(guard: LoopbackGuard) -> str:
    others = f"meta skuid != {{ {', '.join(map(str, guard.users))} }} " if guard.users else ""
    return (
        f'oifname "lo" tcp dport {guard.port} {others}reject with tcp reset comment "{guard.title}"'
    )


def _egress(egress: Egress) -> Iterator[str]:
    if egress.metadata:
        yield "# Never, not in a window either."
        for version, word in ((4, "ip"), (6, "ip6")):
            found = ", ".join(_network(item) for item in METADATA if item.version == version)
            yield f"{word} daddr {{ {found} }} {_refusal('cloud metadata and link-local')}"
    if egress.restrict:
        yield 'oifname "lo" accept'
        yield "ct direction reply accept"
        for destination in egress.allow:
            yield _destination(destination)
        yield f"meta skuid @{WINDOW} accept"
        yield _refusal("the LLM server needs no network")


def _destination(destination: Destination) -> str:
    word = "ip" if destination.network.version == 4 else "ip6"
    place = f"{word} daddr {_network(destination.network)}"
    return f"{place} {destination.protocol} dport {destination.port} accept"


def _refusal(comment: str) -> str:
    return f'reject with icmpx admin-prohibited comment "{comment}"'
