# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A policy as files for `iptables-restore --noflush` and `ip6tables-restore --noflush`.

They fill our own chains; the rules that jump there are not in the files, because a restore would
add them once more each time. Chains RETURN what they let through: other rules still judge it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.policy import (
    METADATA,
    Egress,
    Guard,
    LoopbackGuard,
    Policy,
)

__all__ = ("CHAINS", "JUMPS", "WINDOW_CHAIN", "own_part", "render_iptables", "with_candidate")

_INPUT, _OUTPUT, _EGRESS = "LLM-HARDENING-INPUT", "LLM-HARDENING-OUTPUT", "LLM-HARDENING-EGRESS"
WINDOW_CHAIN = "LLM-HARDENING-WINDOW"
CHAINS = (_INPUT, _OUTPUT, _EGRESS, WINDOW_CHAIN)
JUMPS = {"INPUT": _INPUT, "OUTPUT": _OUTPUT}

_HEAD = """\
# Managed by Ansible (llmsec.hardening): changes to this file are overwritten.
# For {tool}-restore --noflush: fills our own chains and touches no other.
*filter
"""
_LAST_USER = 0xFFFFFFFE
_REFUSALS = {4: "icmp-admin-prohibited", 6: "icmp6-adm-prohibited"}


def render_iptables(policy: Policy, version: int) -> str:
    """Return the whole file for IP version 4 or 6."""
    rules = [
        *(rule for guard in policy.guards for rule in _guard(guard, version)),
        *(_rest(version) if policy.drops_rest else ()),
        *(rule for guard in policy.loopback for rule in _loopback(guard)),
        *(_egress(policy.egress, version) if policy.egress else ()),
    ]
    if policy.guards or policy.drops_rest:
        rules.insert(0, f"-A {_INPUT} -i lo -j RETURN")
    chains = "".join(f":{chain} - [0:0]\n" for chain in CHAINS)
    tool = "iptables" if version == 4 else "ip6tables"
    return _HEAD.format(tool=tool) + chains + "".join(f"{rule}\n" for rule in rules) + "COMMIT\n"


def _comment(text: str) -> str:
    return f'-m comment --comment "{text}"'


def _guard(guard: Guard, version: int) -> Iterator[str]:
    port = f"-p tcp -m tcp --dport {guard.port}"
    for network in guard.of_version(version):
        source = f"-s {network} " if network.prefixlen else ""
        yield f"-A {_INPUT} {source}{port} -j RETURN"
    yield f"-A {_INPUT} {port} {_comment(guard.title)} -j DROP"


def _rest(version: int) -> Iterator[str]:
    """Nothing else comes in but replies, ICMP (path MTU, neighbours) and DHCPv6 answers."""
    yield f"-A {_INPUT} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
    if version == 4:
        yield f"-A {_INPUT} -p icmp -j RETURN"
    else:
        yield f"-A {_INPUT} -p ipv6-icmp -j RETURN"
        yield f"-A {_INPUT} -s fe80::/10 -p udp -m udp --dport 546 -j RETURN"
    yield f"-A {_INPUT} {_comment('nobody asked for anything else')} -j DROP"


def _loopback(guard: LoopbackGuard) -> Iterator[str]:
    # Ranges, because `! --uid-owner` holds for packets without a socket too, such as the last ones
    # of a connection that its program has closed (net/netfilter/xt_owner.c).
    for low, high in _others(guard.users):
        users = f"-m owner --uid-owner {low}-{high}"
        port = f"-o lo -p tcp -m tcp --dport {guard.port}"
        refusal = "-j REJECT --reject-with tcp-reset"
        yield f"-A {_OUTPUT} {port} {users} {_comment(guard.title)} {refusal}"


def _others(users: tuple[int, ...]) -> Iterator[tuple[int, int]]:
    """Yield the ranges of user numbers that are not in `users`, which are sorted."""
    low = 0
    for user in (*users, _LAST_USER + 1):
        if low < user:
            yield low, user - 1
        low = user + 1


def _egress(egress: Egress, version: int) -> Iterator[str]:
    yield f"-A {_OUTPUT} -m owner --uid-owner {egress.user} -j {_EGRESS}"
    refusal = f"-j REJECT --reject-with {_REFUSALS[version]}"
    if egress.metadata:
        for network in (item for item in METADATA if item.version == version):
            comment = _comment("cloud metadata and link-local")
            yield f"-A {_EGRESS} -d {network} {comment} {refusal}"
    if egress.restrict:
        yield f"-A {_EGRESS} -o lo -j RETURN"
        yield f"-A {_EGRESS} -m conntrack --ctdir REPLY -j RETURN"
        for item in egress.allow:
            if item.network.version == version:
                place = f"-d {item.network} " if item.network.prefixlen else ""
                match = f"-p {item.protocol} -m {item.protocol} --dport {item.port}"
                yield f"-A {_EGRESS} {place}{match} -j RETURN"
        yield f"-A {_EGRESS} -j {WINDOW_CHAIN}"
        yield f"-A {_EGRESS} {_comment('the LLM server needs no network')} {refusal}"


def _is_own(line: str) -> bool:
    words = line.split()
    if not words:
        return False
    if words[0].startswith(":"):
        return words[0][1:] in CHAINS
    return words[0] == "-A" and (words[1] in CHAINS or words[-1] in CHAINS)


def own_part(saved: str) -> list[str]:
    """Return our chains' rules and the jumps to them, of the output of iptables-save.

    Left out: counters, and what a window that is open now holds. A jump that is not the first rule
    of its chain is marked, because what stands before it may let packets past us.
    """
    own, seen, table = [], set(), ""
    for line in saved.splitlines():
        words = line.split()
        table = line[1:] if line.startswith("*") else table
        if table != "filter" or not words:
            continue
        if _is_own(line):
            if words[0].startswith(":"):
                own.append(f"{words[0]} -")
            elif words[1] != WINDOW_CHAIN:
                late = words[1] in JUMPS and words[1] in seen
                own.append(f"{line} # not the first rule of its chain" if late else line)
        if words[0] == "-A":
            seen.add(words[1])
    # The tools list chains in the order in which they came to be, or by name.
    return sorted(own, key=lambda line: (line[0] != ":", line.split()[line[0] != ":"]))


def with_candidate(saved: str, candidate: str | None) -> str:
    """Return the output of iptables-save as it would be after the candidate was loaded."""
    body = [] if candidate is None else candidate.splitlines()
    rules = [line for line in body if line.startswith((":", "-A"))]
    jumps = [f"-A {chain} -j {own}" for chain, own in JUMPS.items()] if rules else []
    declared = [line for line in rules if line.startswith(":")]
    added = [*jumps, *(line for line in rules if line.startswith("-A"))]
    lines = [line for line in saved.splitlines() if not _is_own(line)]
    if "*filter" not in lines:
        policies = [f":{chain} ACCEPT [0:0]" for chain in ("INPUT", "FORWARD", "OUTPUT")]
        lines += ["*filter", *policies, "COMMIT"]
    start = lines.index("*filter") + 1
    end = next(place for place in range(start, len(lines)) if not lines[place].startswith(":"))
    return "\n".join([*lines[:end], *declared, *added, *lines[end:]]) + "\n"
