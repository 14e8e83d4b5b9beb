# SPDX-License-Identifier: GPL-3.0-or-later
"""Loads rule sets into the host of the network, sends the packets, and judges the same."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.combine import combine
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import (
    Judgement,
    Verdict,
    judge,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.iptables_save import (
    parse_iptables,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.nft_json import parse_nft
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.packets import Packet
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import Ruleset

from tests.kernel.generate import Case
from tests.kernel.network import Network


@dataclass
class Outcome:
    """What the kernel did with a packet, and what was said of it."""

    packet: dict[str, Any]
    passed: bool
    judgement: Judgement

    @property
    def agrees(self) -> bool:
        if self.judgement.verdict is Verdict.MAYBE:
            return True
        return self.passed == (self.judgement.verdict is Verdict.ACCEPT)


def run(network: Network, case: Case) -> list[Outcome]:
    """Return one outcome per packet."""
    network.fresh()
    network.host.ask("greet", packets=[p for p in case.packets if p["ct_state"] == "established"])
    if case.nft:
        network.host.run("nft", "-f", "-", stdin=case.nft)
    for command, text in case.iptables.items():
        network.restore(command, text)
    ruleset = read_back(network, case)
    arriving = [p for p in case.packets if p["way"] in ("input", "forward")]
    network.world.ask("inject", packets=arriving)
    network.host.ask("send", packets=[p for p in case.packets if p not in arriving])
    sent = {(p["family"], p["id"]) for p in case.packets}
    seen = network.seen(sent, all_come=not case.may_stop_early)
    return [
        Outcome(packet, _passed(packet, seen), verdict(ruleset, packet, case))
        for packet in case.packets
    ]


def read_back(network: Network, case: Case) -> Ruleset:
    """Return the model of what is loaded, read as a module would read it."""
    saved = []
    for command in case.iptables:
        text = network.host.run(f"{command}-save")
        family = "ip6" if command.startswith("ip6") else "ip"
        saved.append(parse_iptables(text, family, legacy=command.endswith("-legacy")))
    return combine(parse_nft(*network.listings()), saved)


def _passed(packet: dict[str, Any], seen: dict[str, set[tuple[str, int]]]) -> bool:
    place = "left" if packet["way"] in ("output", "forward") else "got"
    return (packet["family"], packet["id"]) in seen[place]


def verdict(ruleset: Ruleset, packet: dict[str, Any], case: Case) -> Judgement:
    """Judge a packet on its whole way; one to ourselves leaves first, then arrives."""
    if packet["way"] != "loop":
        return judge(ruleset, as_packet(packet), packet["way"])
    out = judge(ruleset, as_packet({**packet, "in_interface": None}), "output")
    if out.verdict is Verdict.DROP:
        return out
    back = {**packet, "mark": None, "out_interface": None, "user_id": None, "group_id": None}
    if case.takes_tracking_away:
        back["ct_state"] = None
    arrival = judge(ruleset, as_packet(back), "input")
    if arrival.verdict is Verdict.ACCEPT and out.verdict is Verdict.MAYBE:
        return out
    return arrival


def as_packet(packet: dict[str, Any]) -> Packet:
    make = Packet.tcp if packet["protocol"] == "tcp" else Packet.udp
    words = ("in_interface", "out_interface", "ct_state", "user_id", "group_id", "mark")
    return make(
        packet["source"],
        packet["destination"],
        packet["destination_port"],
        packet["source_port"],
        tcp_flags=packet["tcp_flags"],
        destination_type="local" if packet["way"] in ("input", "loop") else "unicast",
        reverse_path=True if packet["way"] in ("input", "forward") else None,
        **{word: packet[word] for word in words},
    )
