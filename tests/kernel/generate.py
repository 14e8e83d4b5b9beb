# SPDX-License-Identifier: GPL-3.0-or-later
"""Random rule sets of supported forms, and packets that have a fair chance to meet their rules."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.iptables_save import (
    BUILT_IN,
)

from tests.kernel.network import LOCAL, MACS, WIRES

SOURCES = {
    "ip": ("10.1.0.1", "10.1.0.2", "10.1.7.9", "192.168.1.5", "203.0.113.7", "10.2.0.1"),
    "ip6": ("fd01::1", "fd01::2", "fd01:0:0:7::9", "2001:db8::5", "fd02::1", "2001:db8:1::7"),
}
BEHIND_T1 = {"ip": ("172.16.5.5", "172.16.5.6"), "ip6": ("fd00:b::5", "fd00:b::6")}
PREFIXES = {
    "ip": ("10.1.0.0/16", "10.2.0.0/30", "192.168.0.0/16", "203.0.113.7/32", "172.16.0.0/12"),
    "ip6": ("fd01::/126", "fd02::/32", "2001:db8::/32", "2001:db9::5/128", "fd00:b::/64"),
}
RANGES = {
    "ip": ("10.1.0.2-10.1.9.0", "203.0.113.0-203.0.113.9", "172.16.5.0-172.16.5.5"),
    "ip6": ("fd01::2-fd01:0:0:8::", "2001:db8::-2001:db8::9", "fd00:b::-fd00:b::5"),
}
PORTS = (22, 53, 80, 443, 8080, 11434)
SOURCE_PORTS = (1024, 5353, 33000, 40000, 60000)
USERS = (0, 33, 1000)
MARKS = (0, 1, 5, 0x10, 0x15)
HOOKS = ("prerouting", "input", "forward", "output", "postrouting")
PRIORITIES = (-300, -250, -150, -1, 0, 0, 5, 10, 50, 101)


@dataclass
class Case:
    """One rule set in the languages of its tools, and the packets to send through it."""

    nft: str = ""
    iptables: dict[str, str] = field(default_factory=dict)  # by the name of the restore command
    packets: list[dict[str, Any]] = field(default_factory=list)

    @property
    def may_stop_early(self) -> bool:
        """Say whether packets may be dropped before the first hook of the oracle."""
        return "hook ingress" in self.nft

    @property
    def takes_tracking_away(self) -> bool:
        """Say whether a packet may come back from lo untracked."""
        return any("notrack" in text for text in (self.nft, *self.iptables.values()))


class Words:
    """A source of random words, of which Hypothesis draws each."""

    def __init__(self, random: random.Random) -> None:
        self.random = random
        self.one = random.choice

    def often(self, share: float) -> bool:
        # Not random(): Hypothesis draws its favourites among the fractions, 0 and the smallest.
        return self.random.randrange(100) < share * 100

    def some(self, values: Any, most: int = 3) -> list[Any]:
        values = list(values)
        return self.random.sample(values, self.random.randint(1, min(most, len(values))))


# -- Packets ---------------------------------------------------------------------------------------


def packets(words: Words, count: int) -> list[dict[str, Any]]:
    """Return packets of which no two belong to one connection."""
    found: list[dict[str, Any]] = []
    connections: set[Any] = set()
    while len(found) < count:
        packet = _packet(words, words.one(("input",) * 5 + ("output",) * 3 + ("forward", "loop")))
        ends = frozenset(
            {
                (packet["source"], packet["source_port"]),
                (packet["destination"], packet["destination_port"]),
            }
        )
        if (packet["protocol"], ends) not in connections:
            connections.add((packet["protocol"], ends))
            found.append({**packet, "id": 1000 + len(found)})
    return found


def _packet(words: Words, way: str) -> dict[str, Any]:
    family = words.one(("ip", "ip", "ip6"))
    protocol = words.one(("tcp", "tcp", "udp"))
    packet: dict[str, Any] = {
        "way": way,
        "family": family,
        "protocol": protocol,
        "source_port": words.one(SOURCE_PORTS),
        "destination_port": words.one(PORTS),
        "tcp_flags": 2,
        "ct_state": "new",
        "user_id": 0,
        "group_id": 0,
        "mark": 0,
        "in_interface": None,
        "out_interface": None,
    }
    if way in ("input", "forward"):
        _arrive(words, packet)
    else:
        _depart(words, packet)
    return packet


def _arrive(words: Words, packet: dict[str, Any]) -> None:
    family = packet["family"]
    device = words.one(("t0", "t0", "t1")) if packet["way"] == "input" else "t0"
    packet["source"] = words.one(SOURCES[family] if device == "t0" else BEHIND_T1[family])
    packet["destination"] = words.one(LOCAL[family])
    packet |= {"in_interface": device, "wire": WIRES[device], "mac": MACS[device]}
    if packet["way"] == "forward":
        packet |= {"destination": words.one(BEHIND_T1[family]), "out_interface": "t1"}
    elif words.often(0.2):
        packet |= {"ct_state": "established", "tcp_flags": 0x12}
    elif packet["protocol"] == "tcp" and words.often(0.1):
        packet |= {"ct_state": "invalid", "tcp_flags": 4}


def _depart(words: Words, packet: dict[str, Any]) -> None:
    family = packet["family"]
    packet |= {"user_id": words.one(USERS), "group_id": words.one(USERS)}
    packet["mark"] = words.one((0, 0, *MARKS))
    if packet["way"] == "loop":
        packet["source"] = packet["destination"] = words.one(LOCAL[family])
        packet |= {"in_interface": "lo", "out_interface": "lo"}
    elif words.often(0.6):
        packet |= {"source": LOCAL[family][0], "destination": words.one(SOURCES[family])}
        packet["out_interface"] = "t0"
    else:
        packet |= {"source": LOCAL[family][1], "destination": words.one(BEHIND_T1[family])}
        packet["out_interface"] = "t1"


# -- nft -------------------------------------------------------------------------------------------

# Named sets of every table, by the expression that is looked up in them.
NAMED = """
  set s4 { type ipv4_addr; flags interval; elements = { %(s4)s }
  }
  set s6 { type ipv6_addr; flags interval; elements = { %(s6)s }
  }
  set ports { type inet_service; elements = { %(ports)s }
  }
  set timed { type ipv4_addr; flags timeout; elements = { %(timed)s timeout 1h comment "x" }
  }
  set wide { type ipv4_addr . inet_service; flags interval; elements = { %(wide)s }
  }
  set ifs { type ifname; elements = { "t0", "lo" }
  }
  set seen4 { type ipv4_addr; flags dynamic; size 1000;
  }
  map by_port { type inet_service : verdict; elements = { %(by_port)s }
  }
  map by_source { type ipv4_addr : verdict; flags interval; elements = { %(by_source)s }
  }
  map marks { type inet_service : mark; elements = { 80 : 0x5, 443 : 0x10 }
  }
"""


# Forms that only the kernel can decide, or that rewrite the packet: never a wrong ACCEPT or DROP.
WILD_MATCHES = (
    "limit rate 1/hour burst 3 packets", "limit rate over 1/hour", "quota over 200 bytes",
    "numgen inc mod 2 0", "ct status dnat", "ct status != dnat", "ct status seen-reply",
    "ct direction original", "ct direction reply", "ct original ip saddr 10.1.0.1", "meta cpu 0",
    "meta pkttype host", "meta pkttype { broadcast, multicast }", "ip ttl 64", "ip length < 41",
    "tcp option maxseg exists", "fib saddr type local", "fib daddr . iif type local",
    "meta skuid 0", "meta skuid != 0", "ct mark 5", "ct count 2", "ip dscp cs0", "ip frag-off 0",
    "tcp sequence 1", "udp length 8", "icmp type echo-request", "meta length 40", "ct id 5",
    "@th,16,16 443", "@nh,64,8 64", "ether saddr 02:00:00:00:00:99", "iifgroup 0",
    "meta time > \"2000-01-01\"", "ct bytes > 10", "ct packets > 0", "ct l3proto ipv4",
)  # fmt: skip
WILD_STATEMENTS = (
    "tcp dport set 80", "ip daddr set 10.0.0.1", "ip dscp set cs1", "ip ttl set 5",
    "meta priority set 1", "meta nftrace set 0", "ct mark set ct mark or 1",
    "update @seen4 { ip saddr limit rate over 1/hour }", "delete @seen4 { ip saddr }",
    "add @seen4 { ip saddr counter }", "meta mark set numgen inc mod 7",
    "meter m { ip saddr limit rate 1/hour }", "log group 5", "notrack",
)  # fmt: skip
_TRANSLATIONS = {
    "prerouting": ("dnat ip to 10.0.0.1", "tcp dport 80 redirect to :22"),
    "output": ("dnat ip to 10.1.0.1", "tcp dport 80 redirect to :22"),
    "postrouting": ("masquerade", "snat ip to 10.0.0.1"),
    "input": ("snat ip to 10.1.0.9",),
}
# Families whose chains an IP packet of the test meets at most on a device.
STRANGERS = (
    'table netdev {n} {{\nchain c {{ type filter hook ingress device "{device}" priority 0;'
    " policy {policy};\n ip saddr 10.1.0.0/16 accept\n tcp dport 80 drop\n }}\n}}\n",
    "table bridge {n} {{\nchain c {{ type filter hook input priority 0; policy {policy};\n"
    " }}\n}}\n",
    "table arp {n} {{\nchain c {{ type filter hook input priority 0; policy accept;\n }}\n}}\n",
)


def nft(words: Words, *, wild: bool = False) -> str:
    """Return one to three tables."""
    families = [
        words.one(("inet", "inet", "ip", "ip6")) for _unused in range(words.one((1, 1, 2, 3)))
    ]
    tables = [
        NftTable(words, family, f"t{n}", wild=wild).write() for n, family in enumerate(families)
    ]
    if wild and words.often(0.3):
        device, policy = words.one(("t0", "t1")), words.one(("accept", "drop"))
        tables.append(words.one(STRANGERS).format(n="s", device=device, policy=policy))
    return "".join(tables)


class NftTable:
    """Writes one random table."""

    def __init__(self, words: Words, family: str, name: str, *, wild: bool) -> None:
        self.words = words
        self.wild = wild
        self.family = family
        self.name = name
        self.networks = ("ip", "ip6") if family == "inet" else (family,)
        # One rule speaks of one network and one transport protocol: nft refuses contradictions.
        self.network = self.networks[0]
        self.transport = "th"
        self.chains = [f"c{n}" for n in range(words.one((0, 1, 2, 3)))]

    def write(self) -> str:
        words = self.words
        lines = [f"table {self.family} {self.name} {{"]
        if words.often(0.05):
            lines.append("flags dormant;")
        # A chain must be there before a map or a rule names it.
        for number in reversed(range(len(self.chains))):
            lines.append(f"  chain {self.chains[number]} {{")
            lines += self._rules(None, self.chains[number + 1 :], words.one((0, 1, 2, 3)))
            lines.append("  }")
        lines.append(self._named())
        for number in range(words.one((1, 2, 2, 3))):
            lines += self._base_chain(number)
        if words.often(0.35):
            lines += self._relay()
        return "\n".join([*lines, "}\n"])

    def _relay(self) -> list[str]:
        """Return two base chains of which one marks packets and one drops by mark.

        Only their order tells what becomes of a packet, and the order of nat chains is not the one
        they ask for.
        """
        words = self.words
        hook = words.one(HOOKS)
        mark = words.one(MARKS[1:])
        first, second = words.random.sample((-300, -190, -120, -90, -1, 3, 90, 110), 2)
        kind = "nat" if hook != "forward" and first > -200 and words.often(0.4) else "filter"
        self._turn()
        marks = " ".join([*self._matches(hook, most=1), f"meta mark set {mark}"])
        self._turn()
        drops = " ".join([*self._matches(hook, most=1), f"meta mark {mark} drop"])
        return [
            f"  chain marks {{ type {kind} hook {hook} priority {first};", f"    {marks}", "  }",
            f"  chain drops {{ type filter hook {hook} priority {second};", f"    {drops}", "  }",
        ]  # fmt: skip

    def _named(self) -> str:
        words = self.words
        return NAMED % {
            "s4": ", ".join(words.some(PREFIXES["ip"])),
            "s6": ", ".join(words.some(PREFIXES["ip6"])),
            "ports": ", ".join(map(str, words.some(PORTS))),
            "timed": words.one(SOURCES["ip"]),
            "wide": self._pairs(),
            "by_port": ", ".join(
                f"{port} : {self._map_verdict(self.chains)}" for port in words.some(PORTS)
            ),
            "by_source": ", ".join(
                [
                    *(
                        f"{prefix} : {self._map_verdict(self.chains)}"
                        for prefix in words.some(("10.1.0.0/16", "192.168.0.0/16", "172.16.0.0/12"))
                    ),
                    *(["* : accept"] if words.often(0.2) else []),
                ]
            ),
        }

    def _pairs(self) -> str:
        choices = ("10.1.0.0/16 . 80-443", "192.168.1.5 . 22", "203.0.113.7 . 11434",
                   "172.16.0.0/12 . 8080", "10.2.0.0-10.2.0.9 . 53")  # fmt: skip
        return ", ".join(self.words.some(choices))

    def _base_chain(self, number: int) -> list[str]:
        words = self.words
        hook = words.one((*HOOKS, "input", "input", "output"))
        kind = "filter"
        if hook != "forward" and words.often(0.1):
            kind = "nat"
        elif hook == "output" and words.often(0.2):
            kind = "route"
        priority = words.one(PRIORITIES[3:] if kind == "nat" else PRIORITIES)
        policy = words.one(("accept", "accept", "drop"))
        if self.wild and kind == "nat":
            rules = [f"    {self._translation(hook)}"]
            return [
                f"  chain b{number} {{ type nat hook {hook} priority {priority};",
                *rules,
                "  }",
            ]
        head = f"type {kind} hook {hook} priority {priority}; policy {policy};"
        rules = self._rules((hook, priority, kind), self.chains, words.one((1, 2, 3, 4, 6)))
        if policy == "drop" and words.often(0.7):
            self._turn()
            rules.append("    " + " ".join([*self._matches(hook), "accept"]))
        return [f"  chain b{number} {{ {head}", *rules, "  }"]

    def _translation(self, hook: str) -> str:
        self._turn()
        self.transport = "tcp"
        if self.family == "inet":
            self.network = "ip"
        statement = self.words.one(_TRANSLATIONS[hook])
        if self.family == "ip6":
            statement = "masquerade" if hook == "postrouting" else "counter"
        return " ".join([*self._matches(None, most=1), statement])

    # -- Rules -------------------------------------------------------------------------------------

    def _rules(
        self, base: tuple[str, int, str] | None, targets: list[str], count: int
    ) -> list[str]:
        return ["    " + self._rule(base, targets) for _unused in range(count)]

    def _rule(self, base: tuple[str, int, str] | None, targets: list[str]) -> str:
        words = self.words
        hook = base[0] if base else None
        self._turn()
        if words.often(0.15):
            return " ".join([*self._matches(hook, most=1), self._verdict_map(hook, targets)])
        parts = self._matches(hook)
        if self.wild and words.often(0.3):
            verdict = self._verdict(hook, targets).partition(" with ")[0]
            return " ".join([*self._wild(base), verdict])
        if words.often(0.2):
            parts.append(self._statement(base))
        if words.often(0.1):
            parts += self._matches(hook, most=1)
        return " ".join([*parts, words.one(("", "counter")), self._verdict(hook, targets)])

    def _wild(self, base: tuple[str, int, str] | None) -> list[str]:
        """Return a form of its own, on its own: it may contradict what else the rule says."""
        words = self.words
        form = words.one((*WILD_MATCHES, *WILD_STATEMENTS))
        if self.family == "ip6" and ("ip " in form or "icmp " in form or "seen4" in form):
            return []
        if form == "notrack" and not (base and base[0] in ("prerouting", "output")):
            return []
        if form.startswith(("fib", "ether", "iifgroup")) and not (base and base[0] == "input"):
            return []
        # The name of a meter is for one rule only.
        return [form.replace("meter m", f"meter m{words.random.randrange(10**9)}")]

    def _turn(self) -> None:
        """Choose what the next rule speaks of."""
        self.network = self.words.one(self.networks)
        self.transport = self.words.one(("tcp", "tcp", "udp", "th"))

    def _verdict(self, hook: str | None, targets: list[str]) -> str:
        choices = ["accept", "accept", "drop", "drop", "return", "continue", ""]
        if hook in ("input", "forward", "output"):
            icmp = "icmp host-unreachable" if self.network == "ip" else "icmpv6 addr-unreachable"
            choices += ["reject", f"reject with {icmp}"]
            if self.family == "inet":
                choices.append("reject with icmpx admin-prohibited")
            if self.transport == "tcp":
                choices.append("reject with tcp reset")
        choices += [f"{verb} {target}" for target in targets for verb in ("jump", "goto")]
        return self.words.one(choices)

    def _map_verdict(self, targets: list[str]) -> str:
        targets = [f"{verb} {target}" for target in targets for verb in ("jump", "goto")]
        return self.words.one(("accept", "drop", "return", "continue", *targets))

    def _statement(self, base: tuple[str, int, str] | None) -> str:
        choices = [
            f"meta mark set {self.words.one(MARKS)}",
            f"meta mark set meta mark or {self.words.one(MARKS)}",
            f"meta mark set meta mark and {self.words.one(MARKS)}",
            f"meta mark set meta mark xor {self.words.one(MARKS)}",
            "meta mark set ct mark",
            f"ct mark set {self.words.one(MARKS)}",
            "ct mark set meta mark",
            f"meta mark set {self.transport} dport map @marks",
            f"meta mark set {self.transport} dport map {{ 22 : 0x1, 8080 : 0x15 }}",
        ]
        if self.network == "ip":
            choices += ["add @seen4 { ip saddr }", "update @seen4 { ip daddr }"]
        if base and base[0] in ("prerouting", "output") and base[1] < -200:
            choices += ["notrack"] * 4
        return self.words.one(choices)

    def _verdict_map(self, hook: str | None, targets: list[str]) -> str:
        words = self.words
        verdicts = [self._map_verdict(targets) for _unused in range(4)]
        transport, source = self.transport, words.one(SOURCES[self.network])
        choices = [
            f"{transport} dport vmap {{ 22 : {verdicts[0]}, 80-443 : {verdicts[1]},"
            f" 8080 : {verdicts[2]} }}",
            f"{transport} dport vmap {{ 53 : {verdicts[0]}, 1-52 : {verdicts[1]},"
            f" * : {verdicts[2]} }}",
            f"ct state vmap {{ established : {verdicts[0]}, new : {verdicts[1]},"
            f" invalid : {verdicts[2]}, untracked : {verdicts[3]} }}",
            f"meta mark vmap {{ 0x0 : {verdicts[0]}, 0x5 : {verdicts[1]} }}",
            f"{self.network} saddr vmap {{ {source} : {verdicts[0]} }}",
        ]
        if transport == "th":
            choices.append(
                f"meta l4proto . th dport vmap {{ tcp . 22-80 : {verdicts[0]},"
                f" udp . 53 : {verdicts[1]} }}"
            )
        if targets == self.chains:  # what the named maps name must not lead back here
            choices.append(f"{transport} dport vmap @by_port")
            if self.network == "ip":
                choices.append("ip saddr vmap @by_source")
        if hook in ("input", "prerouting", "forward"):
            choices.append(f'iifname vmap {{ "t0" : {verdicts[0]}, "lo" : {verdicts[1]} }}')
        return words.one(choices)

    # -- Matches -----------------------------------------------------------------------------------

    def _matches(self, hook: str | None, most: int = 3) -> list[str]:
        count = self.words.random.randint(0, most)
        return [self._match(hook) for _unused in range(count)]

    def _match(self, hook: str | None) -> str:
        kinds = [
            self._address, self._address, self._address, self._port, self._port, self._port,
            self._family, self._state, self._mark, self._pair,
        ]  # fmt: skip
        if self.transport == "tcp":
            kinds.append(self._flags)
        if self.transport == "th":
            kinds.append(self._protocol)
        if hook is not None:
            kinds += [lambda: self._interface(hook)] * 2
        if hook in ("output", "postrouting"):
            kinds += [self._owner] * 2
        if hook in ("prerouting", "input"):
            kinds += [lambda: self._route(hook)]
        return self.words.one(kinds)()

    def _address(self) -> str:
        words = self.words
        network = self.network
        end = words.one(("saddr", "saddr", "daddr"))
        single = words.one((*SOURCES[network], *LOCAL[network], *BEHIND_T1[network]))
        values = [single, words.one(PREFIXES[network]), words.one(RANGES[network])]
        values.append("{ " + ", ".join(words.some((*SOURCES[network], *LOCAL[network]))) + " }")
        values.append("{ " + ", ".join(words.some(PREFIXES[network])) + " }")
        values.append("@s4" if network == "ip" else "@s6")
        if network == "ip":
            values.append("@timed")
            if words.often(0.15):
                return f"ip {end} & 255.255.0.255 == {words.one(('10.1.0.1', '192.168.0.5'))}"
            if end == "saddr" and words.often(0.1):
                return "ip saddr @seen4"
        return f"{network} {end} {words.one(('', '', '!= '))}{words.one(values)}"

    def _port(self) -> str:
        words = self.words
        protocol = self.transport
        end = words.one(("dport", "dport", "dport", "sport"))
        port = words.one(PORTS if end == "dport" else SOURCE_PORTS)
        values = [
            f"{port}", f"!= {port}", f"{{ {port}, 1-52, 8000-9000 }}", f"!= {{ {port}, 53 }}",
            f"{port}-{port + 1000}", f"!= {port}-{port + 400}", f"< {port}", f"> {port}",
            f"<= {port}", f">= {port}", "@ports", "!= @ports",
        ]  # fmt: skip
        return f"{protocol} {end} {words.one(values)}"

    def _protocol(self) -> str:
        choices = ["meta l4proto tcp", "meta l4proto != udp", "meta l4proto { tcp, udp }",
                   "meta l4proto { udp, sctp }"]  # fmt: skip
        return self.words.one(choices)

    def _family(self) -> str:
        protocol = "tcp" if self.transport == "th" else self.transport
        if self.network == "ip":
            choices = [f"ip protocol {protocol}", "ip version 4"]
        else:
            choices = [f"ip6 nexthdr {protocol}", "exthdr frag missing", "exthdr rt exists"]
        if self.family == "inet":
            name = "ipv4" if self.network == "ip" else "ipv6"
            choices += [f"meta nfproto {name}", f"meta protocol {self.network}"]
        return self.words.one(choices)

    def _state(self) -> str:
        words = self.words
        names = words.some(("new", "established", "related", "invalid", "untracked"))
        choices = [
            f"ct state {','.join(names)}",
            f"ct state {{ {', '.join(names)} }}",
            f"ct state != {names[0]}",
            f"ct state != {{ {', '.join(names)} }}",
            f"ct state ! {','.join(names)}",
            "ct state == new",
        ]
        return words.one(choices)

    def _flags(self) -> str:
        choices = ("tcp flags syn", "tcp flags & (fin|syn|rst|ack) == syn", "tcp flags syn,rst",
                   "tcp flags != syn", "tcp flags { syn, syn|ack }", "tcp flags ! ack",
                   "tcp flags & (syn|ack) != syn", "tcp flags == syn")  # fmt: skip
        return self.words.one(choices)

    def _mark(self) -> str:
        words = self.words
        mark = words.one(MARKS)
        choices = (f"meta mark {mark}", f"meta mark != {mark}", f"meta mark & 0xf == {mark & 0xF}",
                   f"meta mark & 0x11 != {mark & 0x11}", f"meta mark {mark}-{mark + 4}",
                   f"meta mark {{ {mark}, 0x20-0x30 }}", f"ct mark {mark}")  # fmt: skip
        return words.one(choices[:-1] if words.often(0.9) else choices)

    def _pair(self) -> str:
        words = self.words
        port = words.one(PORTS)
        source, transport = words.one(SOURCES[self.network]), self.transport
        choices = [f"{self.network} saddr . meta mark {{ {source} . {words.one(MARKS)} }}"]
        if transport == "th":
            choices += [
                f"meta l4proto . th dport {{ tcp . {port}, udp . 53, tcp . 8000-12000 }}",
                f"meta l4proto . th dport != {{ tcp . {port}, udp . 53 }}",
            ]
        if self.network == "ip":
            choices += [
                f"ip saddr . {transport} dport {{ {source} . {port}, 10.1.0.0/16 . 80-443 }}",
                f"ip saddr . ip daddr {{ {source} . 10.0.0.1, 10.1.0.0/16 . 172.16.0.0/12 }}",
                f"ip saddr . {transport} dport @wide",
                f"ip saddr . {transport} dport != @wide",
            ]
        else:
            choices.append(f"ip6 saddr . {transport} dport {{ {source} . {port}, fd01::/32 . 80 }}")
        return words.one(choices)

    def _interface(self, hook: str) -> str:
        words = self.words
        sides = {"postrouting": ("oif",)}.get(hook, ("iif", "oif"))
        side = words.one(sides)
        values = ('"t0"', '!= "t0"', '"t*"', '!= "t*"', '{ "t1", "lo" }', '"lo"', "@ifs",
                  '!= { "t0", "l*" }')  # fmt: skip
        if words.often(0.2):
            return f"{side} {words.one(('t0', 'lo', '!= t0'))}"
        return f"{side}name {words.one(values)}"

    def _owner(self) -> str:
        choices = ("meta skuid 0", "meta skuid != 0", "meta skuid { 0, 33 }",
                   "meta skuid != { 33, 1000 }", "meta skuid 1-999", "meta skuid > 33",
                   "meta skgid 33", "meta skgid != { 0, 33 }")  # fmt: skip
        return self.words.one(choices)

    def _route(self, hook: str) -> str:
        choices = ("fib daddr type local", "fib daddr type != local",
                   "fib saddr . iif oif missing", "fib saddr . iif oif exists")  # fmt: skip
        return self.words.one(choices)


# -- iptables --------------------------------------------------------------------------------------


def iptables(words: Words, family: str) -> str:
    """Return input of iptables-restore."""
    return "".join(
        _iptables_table(words, family, name)
        for name in words.some(("filter", "filter", "mangle", "raw", "security"), 2)
        if name
    )


def _iptables_table(words: Words, family: str, name: str) -> str:
    mine = ["one", "two"][: words.one((0, 1, 2))]
    lines = [f"*{name}"]
    for chain in BUILT_IN[name]:
        lines.append(f":{chain} {words.one(('ACCEPT', 'ACCEPT', 'DROP'))} [0:0]")
    lines += [f":{chain} - [0:0]" for chain in mine]
    for number, chain in enumerate((*BUILT_IN[name], *mine)):
        later = mine if chain not in mine else mine[mine.index(chain) + 1 :]
        for _unused in range(words.one((0, 1, 2, 3)) + (number == 0)):
            lines.append(f"-A {chain} {IptablesRule(words, family, name, chain, later).write()}")
    return "\n".join([*lines, "COMMIT\n"])


class IptablesRule:
    """Writes one random rule."""

    def __init__(
        self, words: Words, family: str, table: str, chain: str, targets: list[str]
    ) -> None:
        self.words = words
        self.family = family
        self.table = table
        self.chain = chain
        self.targets = targets
        self.protocol = words.one(("", "tcp", "tcp", "udp"))

    def write(self) -> str:
        parts = [f"-p {self.protocol}"] if self.protocol else []
        makers = [self._address, self._state, self._mark]
        if self.protocol:
            makers.append(self._port)
        if self.chain in ("INPUT", "FORWARD", "OUTPUT"):
            makers.append(self._interface)
        if self.chain in ("OUTPUT", "POSTROUTING"):
            makers.append(self._owner)
        if self.chain in ("INPUT", "PREROUTING"):
            makers.append(self._type)
        for maker in self.words.some(makers, 2):
            parts.append(maker())
        if self.words.often(0.1):
            parts.append('-m comment --comment "it\'s a \\"test\\" -j DROP"')
        return " ".join([*parts, self._target()])

    def _negation(self) -> str:
        return "! " if self.words.often(0.25) else ""

    def _address(self) -> str:
        words, family = self.words, self.family
        if words.often(0.2):
            option = words.one(("--src-range", "--dst-range"))
            return f"-m iprange {self._negation()}{option} {words.one(RANGES[family])}"
        value = words.one((*SOURCES[family], *PREFIXES[family]))
        if family == "ip" and words.often(0.1):
            value = "10.1.0.1/255.255.0.255"
        return f"{self._negation()}{words.one(('-s', '-s', '-d'))} {value}"

    def _port(self) -> str:
        words = self.words
        port = words.one(PORTS)
        choices = [
            f"{self._negation()}--dport {port}",
            f"{self._negation()}--dport 1:{port}",
            f"--sport {words.one(SOURCE_PORTS)}:",
            f"-m multiport {self._negation()}--dports {port},53,8000:9000",
            f"-m multiport --sports 1:2000,{words.one(SOURCE_PORTS)}",
        ]
        if self.protocol == "tcp":
            choices += [f"{self._negation()}--syn", "--tcp-flags SYN,ACK SYN,ACK"]
        return words.one(choices)

    def _state(self) -> str:
        names = self.words.some(("NEW", "ESTABLISHED", "RELATED", "INVALID", "UNTRACKED"))
        option = self.words.one(("-m conntrack {}--ctstate {}", "-m state {}--state {}"))
        return option.format(self._negation(), ",".join(names))

    def _mark(self) -> str:
        mark = self.words.one(MARKS)
        return (
            f"-m mark {self._negation()}--mark {self.words.one((f'{mark}', f'{mark & 0xF}/0xf'))}"
        )

    def _interface(self) -> str:
        options = {"INPUT": ("-i",), "OUTPUT": ("-o",), "FORWARD": ("-i", "-o")}[self.chain]
        return f"{self._negation()}{self.words.one(options)} {self.words.one(('t0', 't+', 'lo'))}"

    def _owner(self) -> str:
        option = self.words.one(("--uid-owner 0", "--uid-owner 1-999", "--gid-owner 33"))
        return f"-m owner {self._negation()}{option}"

    def _type(self) -> str:
        return f"-m addrtype {self._negation()}--dst-type {self.words.one(('LOCAL', 'MULTICAST'))}"

    def _target(self) -> str:
        choices = ["-j ACCEPT", "-j ACCEPT", "-j DROP", "-j DROP", "-j RETURN"]
        choices += [f"{verb} {target}" for target in self.targets for verb in ("-j", "-g")]
        if self.table == "filter":
            choices.append("-j REJECT")
        if self.table == "mangle":
            choices += [
                f"-j MARK --set-xmark {self.words.one(MARKS)}/{self.words.one((255, 1))}"
            ] * 3
            choices += ["-j CONNMARK --save-mark", "-j CONNMARK --restore-mark"]
        if self.table == "raw":
            choices += ["-j CT --notrack"] * 2
        return self.words.one(choices)


# -- Cases -----------------------------------------------------------------------------------------


def case(random: random.Random, count: int, tools: str, *, wild: bool = False) -> Case:
    """Return a rule set for "nft", "iptables" or "legacy", and `count` packets."""
    words = Words(random)
    made = Case()
    if tools == "nft" or words.often(0.5):
        made.nft = nft(words, wild=wild)
    if tools != "nft":
        suffix = "-legacy" if tools == "legacy" else "-nft"
        for family, command in (("ip", "iptables"), ("ip6", "ip6tables")):
            made.iptables[f"{command}{suffix}"] = iptables(words, family)
    made.packets = packets(words, count)
    return made
