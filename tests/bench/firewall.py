# SPDX-License-Identifier: GPL-3.0-or-later
"""How long it takes to parse a large rule set and to judge packets.

10,000 rules and sets of 100,000 elements, as `nft -j list ruleset` lists them; no firewall is
touched. Parsing reads the elements of a set only when a rule looks into it, so the first packet
pays for that: parse and first judgement together are what a module waits for. The goal is 2 s;
missing it is the exit code 1.

Figures are processor time, of one core: what else runs on the machine does not count.
"""

from __future__ import annotations

import ipaddress
import json
import os
import platform
import random
import statistics
import time
from typing import Any

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import judge
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.iptables_save import (
    parse_iptables,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.nft_json import parse_nft
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.packets import Packet

from tests.lab.steps import CACHE

RULES, ELEMENTS, ROUNDS = 10_000, 100_000, 5
GOAL = 2.0  # seconds
RESULT = CACHE / "bench-firewall.json"


def _addresses(words: random.Random, count: int) -> list[Any]:
    """Half single addresses, half prefixes, none inside another: as an interval set lists them."""
    starts = sorted(words.sample(range(1 << 24), count))
    found: list[Any] = []
    for start in starts:
        address = str(ipaddress.IPv4Address(start << 8))
        found.append({"prefix": {"addr": address, "len": 24}} if start % 2 else address)
    return found


def _sets(words: random.Random) -> list[dict[str, Any]]:
    place = {"family": "inet", "table": "bench"}
    pairs = [
        {"concat": [str(ipaddress.IPv4Address(words.getrandbits(32))), words.randrange(1, 1 << 16)]}
        for _unused in range(ELEMENTS)
    ]
    return [
        {"set": {**place, "name": "blocked", "type": "ipv4_addr", "flags": ["interval"],
                 "elem": _addresses(words, ELEMENTS)}},
        {"set": {**place, "name": "pairs", "type": ["ipv4_addr", "inet_service"], "elem": pairs}},
    ]  # fmt: skip


def _match(protocol: str, name: str, right: Any, operator: str = "==") -> dict[str, Any]:
    left = {"payload": {"protocol": protocol, "field": name}}
    return {"match": {"op": operator, "left": left, "right": right}}


def _rules(words: random.Random) -> list[dict[str, Any]]:
    """Rules of which none takes the benched packet: it passes them all, and meets the policy."""
    pair = [{"payload": {"protocol": "ip", "field": "saddr"}},
            {"payload": {"protocol": "tcp", "field": "dport"}}]  # fmt: skip
    found = [
        [_match("ip", "saddr", "@blocked"), {"drop": None}],
        [{"match": {"op": "==", "left": {"concat": pair}, "right": "@pairs"}}, {"accept": None}],
    ]
    while len(found) < RULES:
        source = {"prefix": {"addr": f"10.{words.randrange(256)}.0.0", "len": 16}}
        port = words.randrange(1, 11000)
        ports = {"set": [port, {"range": [12000, 12000 + port]}]}
        found.append(
            [
                _match("ip", "saddr", source if len(found) % 3 else "192.0.2.7", "!="),
                _match("tcp", "dport", ports if len(found) % 2 else port),
                {"counter": {"packets": 0, "bytes": 0}},
                {"accept": None},
            ]
        )
    return [
        {"rule": {"family": "inet", "table": "bench", "chain": "input", "handle": n, "expr": expr}}
        for n, expr in enumerate(found)
    ]


def nft_text() -> str:
    """Return the listing of the benched rule set."""
    words = random.Random(1)  # noqa: S311 - figures must compare
    chain = {"family": "inet", "table": "bench", "name": "input", "handle": 1, "type": "filter",
             "hook": "input", "prio": 0, "policy": "drop"}  # fmt: skip
    head = [
        {"metainfo": {"version": "1.0.6", "json_schema_version": 1}},
        {"table": {"family": "inet", "name": "bench", "handle": 1}},
        {"chain": chain},
    ]
    return json.dumps({"nftables": [*head, *_sets(words), *_rules(words)]})


def iptables_text() -> str:
    """Return as many rules as iptables-save lists them."""
    words = random.Random(1)  # noqa: S311 - figures must compare
    rules = "\n".join(
        f"-A INPUT -s 10.{words.randrange(256)}.0.0/16 -p tcp -m tcp"
        f" --dport {words.randrange(1, 11000)} -m conntrack --ctstate NEW -j ACCEPT"
        for _unused in range(RULES)
    )
    return f"*filter\n:INPUT DROP [0:0]\n{rules}\nCOMMIT\n"


def _seconds(work: Any) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def _round(parse: Any, packet: Packet) -> dict[str, float]:
    parsing, ruleset = _seconds(parse)
    first, _judgement = _seconds(lambda: judge(ruleset, packet))
    again, _judgement = _seconds(lambda: judge(ruleset, packet))
    return {"parse": parsing, "first judgement": first, "next judgement": again}


def main(_words: list[str]) -> int:
    packet = Packet.tcp("198.51.100.7", "192.0.2.1", 11434, 40000, in_interface="eth0")
    nft, iptables = nft_text(), iptables_text()
    figures: dict[str, dict[str, float]] = {}
    slowest = 0.0
    for name, parse in (
        (f"nft, {RULES} rules, 2 sets of {ELEMENTS}", lambda: parse_nft(nft)),
        (f"iptables-save, {RULES} rules", lambda: parse_iptables(iptables, "ip")),
    ):
        rounds = [_round(parse, packet) for _unused in range(ROUNDS)]
        figures[name] = {
            part: statistics.median(each[part] for each in rounds) for part in rounds[0]
        }
        whole = figures[name]["parse"] + figures[name]["first judgement"]
        slowest = max(slowest, whole)
        print(f"{name} ({'within' if whole <= GOAL else 'OVER'} the goal of {GOAL:.0f} s)")
        for part, seconds in figures[name].items():
            print(f"  {part:16} {seconds * 1000:8.1f} ms")
    machine = {"cores": os.cpu_count(), "python": platform.python_version()}
    CACHE.mkdir(parents=True, exist_ok=True)
    RESULT.write_text(json.dumps({"machine": machine, "seconds": figures}, indent=2) + "\n")
    return 0 if slowest <= GOAL else 1
