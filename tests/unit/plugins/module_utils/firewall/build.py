# SPDX-License-Identifier: GPL-3.0-or-later
"""Short ways to write nft's JSON, and packets to judge."""

from __future__ import annotations

import json
from typing import Any

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import (
    Verdict,
    judge,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.iptables_save import (
    parse_iptables,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.nft_json import parse_nft
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.packets import Packet
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import Ruleset

ACCEPT, DROP, MAYBE = Verdict.ACCEPT, Verdict.DROP, Verdict.MAYBE
ALLOW: dict[str, Any] = {"accept": None}
DENY: dict[str, Any] = {"drop": None}
LIMIT: dict[str, Any] = {"limit": {"rate": 5, "burst": 5, "per": "second"}}


def payload(protocol: str, name: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": name}}


def meta(key: str) -> dict[str, Any]:
    return {"meta": {"key": key}}


def ct(key: str) -> dict[str, Any]:
    return {"ct": {"key": key}}


def match(left: Any, right: Any, op: str = "==") -> dict[str, Any]:
    return {"match": {"op": op, "left": left, "right": right}}


DPORT = payload("tcp", "dport")
SADDR = payload("ip", "saddr")


def port(number: int) -> dict[str, Any]:
    return match(DPORT, number)


def jump(target: str, verb: str = "jump") -> dict[str, Any]:
    return {verb: {"target": target}}


def table(
    name: str = "t",
    chains: dict[str, Any] | None = None,
    *,
    family: str = "inet",
    sets: list[dict[str, Any]] | None = None,
    maps: list[dict[str, Any]] | None = None,
    **fields: Any,
) -> list[dict[str, Any]]:
    """A table's objects. A chain is a list of rules, or (hook, priority, policy, rules[, type])."""
    place = {"family": family, "table": name}
    found: list[dict[str, Any]] = [{"table": {"family": family, "name": name, **fields}}]
    found += [{"set": {**place, **each}} for each in sets or ()]
    found += [{"map": {**place, **each}} for each in maps or ()]
    rules: list[dict[str, Any]] = []
    for chain, what in (chains or {}).items():
        base: dict[str, Any] = {}
        if isinstance(what, tuple):
            hook, priority, policy, listed, *kind = what
            base = {"hook": hook, "prio": priority, "policy": policy, "type": (*kind, "filter")[0]}
        else:
            listed = what
        found.append({"chain": {**place, "name": chain, "handle": 1, **base}})
        rules += [
            {"rule": {**place, "chain": chain, "handle": number, "expr": expr}}
            for number, expr in enumerate(listed, 1)
        ]
    return found + rules


def text(*objects: list[dict[str, Any]]) -> str:
    flat = [each for some in objects for each in some]
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.6"}}, *flat]})


def rules(*objects: list[dict[str, Any]], listing: str = "", **names: Any) -> Ruleset:
    return parse_nft(text(*objects), listing, **names)


def tcp(destination_port: int = 80, source: str = "10.0.0.5", **fields: Any) -> Packet:
    fields = {"in_interface": "eth0", "out_interface": None, **fields}
    destination = fields.pop("destination", "fd00::1" if ":" in source else "10.0.0.1")
    return Packet.tcp(source, destination, destination_port, 40000, **fields)


def udp(destination_port: int = 53, source: str = "10.0.0.5", **fields: Any) -> Packet:
    fields = {"in_interface": "eth0", **fields}
    destination = "fd00::1" if ":" in source else "10.0.0.1"
    return Packet.udp(source, destination, destination_port, 40000, **fields)


def decide(
    expr: list[Any], packet: Packet, *, hook: str = "input", priority: int = 0, **parts: Any
) -> Verdict:
    """Judge by one rule, followed by accept, in a chain that drops: a match is a pass."""
    chains = {
        "c": (hook, priority, "drop", [[*expr, ALLOW]]),
        "other": [],
        **parts.pop("chains", {}),
    }
    names = {key: parts.pop(key) for key in ("users", "groups") if key in parts}
    judged_at = {"prerouting": "input", "postrouting": "output"}.get(hook, hook)
    return judge(rules(table(chains=chains, **parts), **names), packet, judged_at).verdict


def decide_iptables(
    words: str, packet: Packet, family: str = "ip", chain: str = "INPUT"
) -> Verdict:
    """The same for one rule of iptables, without its target."""
    hook = chain.lower()
    lines = ["*filter", ":INPUT ACCEPT [0:0]", ":FORWARD ACCEPT [0:0]", ":OUTPUT ACCEPT [0:0]"]
    lines = [line.replace("ACCEPT", "DROP") if f":{chain} " in line else line for line in lines]
    listed = "\n".join([*lines, f"-A {chain} {words} -j ACCEPT", "COMMIT", ""])
    return judge(parse_iptables(listed, family), packet, hook).verdict
