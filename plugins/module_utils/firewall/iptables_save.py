# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parse `iptables-save` and `ip6tables-save`, of both the nf_tables and the legacy variant.

Sources: iptables(8), iptables-extensions(8), net/netfilter/xt_*.c.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.collector import (
    paused_collector,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.numbers import (
    Names,
    Region,
    UnknownValueError,
    interface,
    interface_range,
    ip_number,
    number,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.pools import Pool
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import (
    Assign,
    Bits,
    Chain,
    Concat,
    Expression,
    Field,
    Foreign,
    Jump,
    Notrack,
    Otherwise,
    Perhaps,
    Rule,
    Ruleset,
    RulesetError,
    Step,
    Table,
    Terminal,
    Test,
    Unknown,
)

__all__ = ("BUILT_IN", "parse_iptables")

# (hook, priority, type) of the built-in chains, by table: include/uapi/linux/netfilter_ipv4.h.
BUILT_IN: dict[str, dict[str, tuple[str, int, str]]] = {
    "raw": {
        "PREROUTING": ("prerouting", -300, "filter"),
        "OUTPUT": ("output", -300, "filter"),
    },
    "mangle": {
        "PREROUTING": ("prerouting", -150, "filter"),
        "INPUT": ("input", -150, "filter"),
        "FORWARD": ("forward", -150, "filter"),
        "OUTPUT": ("output", -150, "route"),
        "POSTROUTING": ("postrouting", -150, "filter"),
    },
    "nat": {
        "PREROUTING": ("prerouting", -100, "nat"),
        "INPUT": ("input", 100, "nat"),
        "OUTPUT": ("output", -100, "nat"),
        "POSTROUTING": ("postrouting", 100, "nat"),
    },
    "filter": {
        "INPUT": ("input", 0, "filter"),
        "FORWARD": ("forward", 0, "filter"),
        "OUTPUT": ("output", 0, "filter"),
    },
    "security": {
        "INPUT": ("input", 50, "filter"),
        "FORWARD": ("forward", 50, "filter"),
        "OUTPUT": ("output", 50, "filter"),
    },
}

_PASSIVE_TARGETS = frozenset(
    {"LOG", "NFLOG", "ULOG", "TRACE", "AUDIT", "CLASSIFY", "TOS", "DSCP", "TTL", "HL", "ECN",
     "TCPMSS", "TCPOPTSTRIP", "CHECKSUM", "SECMARK", "CONNSECMARK", "RATEEST", "LED", "IDLETIMER",
     "TEE", "SET"}
)  # fmt: skip
_TAKING_TARGETS = frozenset(
    {"DNAT", "SNAT", "REDIRECT", "MASQUERADE", "NETMAP", "TPROXY", "NFQUEUE", "QUEUE", "SYNPROXY",
     "CLUSTERIP", "DNPT", "SNPT"}
)  # fmt: skip
_VERDICTS = {"ACCEPT": "accept", "DROP": "drop", "REJECT": "drop", "RETURN": "return"}
_FIXED_TARGETS: dict[str, tuple[Step, ...]] = {
    **dict.fromkeys(_PASSIVE_TARGETS, ()),
    **{name: (Foreign(name),) for name in _TAKING_TARGETS},
    **{name: (Terminal(verdict),) for name, verdict in _VERDICTS.items()},
    "NOTRACK": (Notrack(),),
    "HMARK": (Assign("meta.mark", Unknown()),),
}
_ADDRESS_FIELDS = {"-s": "saddr", "-d": "daddr"}
_INTERFACE_FIELDS = {"-i": "meta.iifname", "-o": "meta.oifname"}

_LEGACY_WARNING = re.compile(r"^# Warning: .*-legacy tables present", re.MULTILINE)
_CHAIN_LINE = re.compile(r"^:(?P<name>\S+) (?P<policy>\S+)(?: \[\d+:\d+\])?$")
_COUNTERS = re.compile(r"^\[\d+:\d+\] ")
_WORD = re.compile(r'"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>\S+)')
_ESCAPE = re.compile(r"\\(.)")

_ALL_PORTS = 0xFFFF
_NOBODY = -1
_TCP_FLAGS = {
    "FIN": 1, "SYN": 2, "RST": 4, "PSH": 8, "ACK": 0x10, "URG": 0x20, "ALL": 0x3F, "NONE": 0,
}  # fmt: skip


@paused_collector()
def parse_iptables(
    text: str,
    family: str,
    *,
    legacy: bool = False,
    users: Mapping[str, int] | None = None,
    groups: Mapping[str, int] | None = None,
) -> Ruleset:
    """Return the rule set in the output of iptables-save (family "ip") or ip6tables-save ("ip6").

    `legacy` says that the text comes from iptables-legacy-save, whose tables have hooks of their
    own in the kernel. Empty text is an empty rule set: no table is loaded. A match or target of
    unknown form is no error, it is judged MAYBE. Raises RulesetError for any other text, and
    ValueError for an unknown family.
    """
    if family not in ("ip", "ip6"):
        raise ValueError(f"{family!r} is no family of iptables")
    reader = _Reader(family, legacy, Names(users or {"root": 0}, groups or {"root": 0}))
    for line_number, line in enumerate(text.splitlines(), 1):
        try:
            reader.line(line.rstrip())
        except RulesetError as exc:
            raise RulesetError(f"line {line_number}: {exc}") from exc
    return reader.ruleset(text)


@dataclass
class _Draft:
    """A table while it is read."""

    name: str
    policies: dict[str, str] = field(default_factory=dict)
    rules: dict[str, list[Rule]] = field(default_factory=dict)


class _Reader:
    def __init__(self, family: str, legacy: bool, names: Names) -> None:
        self._family = family
        self._tool = "iptables-legacy" if legacy else "iptables"
        self._names = names
        self._done: list[_Draft] = []
        self._open: _Draft | None = None

    def line(self, line: str) -> None:
        if not line or line.startswith("#"):
            return
        if line.startswith("*"):
            if self._open is not None:
                raise RulesetError(f"table {self._open.name} has no COMMIT")
            self._open = _Draft(line[1:])
            return
        if self._open is None:
            raise RulesetError(f"not the output of iptables-save: {line[:100]!r}")
        if line == "COMMIT":
            self._done.append(self._open)
            self._open = None
        elif line.startswith(":"):
            self._chain(self._open, line)
        else:
            self._rule(self._open, _COUNTERS.sub("", line))

    def ruleset(self, text: str) -> Ruleset:
        if self._open is not None:
            raise RulesetError(f"table {self._open.name} has no COMMIT: the text is cut off")
        gaps = []
        if self._tool != "iptables-legacy" and _LEGACY_WARNING.search(text):
            gaps.append(f"legacy tables of family {self._family}")
        return Ruleset(tuple(self._table(draft) for draft in self._done), tuple(gaps))

    @staticmethod
    def _chain(draft: _Draft, line: str) -> None:
        match = _CHAIN_LINE.match(line)
        if match is None:
            raise RulesetError(f"not a chain: {line[:100]!r}")
        draft.policies[match["name"]] = match["policy"]
        draft.rules[match["name"]] = []

    def _rule(self, draft: _Draft, line: str) -> None:
        words = _split(line)
        if len(words) < 2 or words[0] != "-A" or words[1] not in draft.rules:
            raise RulesetError(f"not a rule of a known chain: {line[:100]!r}")
        steps = _RuleReader(words[2:], self._family, self._names, draft.policies).read()
        draft.rules[words[1]].append(Rule("", tuple(steps), lambda: line))

    def _table(self, draft: _Draft) -> Table:
        chains = {}
        for name, policy in draft.policies.items():
            hook, priority, kind = BUILT_IN.get(draft.name, {}).get(name, (None, 0, "filter"))
            if policy not in ("ACCEPT", "DROP", "-") or (policy == "-") != (hook is None):
                raise RulesetError(f"chain {name} of table {draft.name} has policy {policy!r}")
            chains[name] = Chain(
                name=name,
                rules=tuple(draft.rules[name]),
                hook=hook,
                priority=priority,
                policy="drop" if policy == "DROP" else "accept",
                kind=kind,
            )
        return Table(self._family, draft.name, chains, tool=self._tool)


def _split(line: str) -> list[str]:
    """Split a line as iptables-restore does: words, or quoted text with backslash escapes."""
    return [
        match["plain"] if match["quoted"] is None else _ESCAPE.sub(r"\1", match["quoted"])
        for match in _WORD.finditer(line)
    ]


class _Option(t.NamedTuple):
    name: str
    negated: bool
    values: tuple[str, ...]

    @property
    def value(self) -> str:
        if not self.values:
            raise UnknownValueError(f"{self.name} without a value")
        return self.values[0]


class _RuleReader:
    """Turns the words of one rule into steps, in the order in which the kernel looks at them."""

    def __init__(
        self, words: Sequence[str], family: str, names: Names, chains: Mapping[str, str]
    ) -> None:
        self._words = list(words)
        self._family = family
        self._address_kind = "ipv4" if family == "ip" else "ipv6"
        self._names = names
        self._chains = chains

    def read(self) -> list[Step]:
        """Return the steps; what is not understood becomes Perhaps or an uncertain Foreign."""
        steps: list[Step] = []
        for module, options in self._blocks():
            try:
                steps += self._block(module, options)
            except (UnknownValueError, ValueError, IndexError):
                doubt = Perhaps(f"match {module or 'of unknown form'}")
                steps.append(Foreign(module, certain=False) if module in ("-j", "-g") else doubt)
        return steps

    def _block(self, module: str, options: Sequence[_Option]) -> list[Step]:
        if module in ("-j", "-g"):
            return self._target(options, goto=module == "-g")
        if module == "":
            return [step for option in options for step in self._general(option)]
        if module in _MATCHES:
            return _MATCHES[module](self, options)
        return [Perhaps(f"match {module}")]

    def _blocks(self) -> list[tuple[str, list[_Option]]]:
        """Group the options: general ones, those of each -m, those of the target."""
        blocks: list[tuple[str, list[_Option]]] = [("", [])]
        negated = False
        index = 0
        while index < len(self._words):
            word = self._words[index]
            index += 1
            if word == "!":
                negated = True
                continue
            if word == "-m":
                blocks.append((self._words[index] if index < len(self._words) else "", []))
                index += 1
                continue
            start = index
            while index < len(self._words) and not _starts_option(self._words[index]):
                index += 1
            option = _Option(word, negated, tuple(self._words[start:index]))
            negated = False
            if word in ("-j", "-g"):
                blocks.append((word, [option]))
            else:
                blocks[-1][1].append(option)
        return blocks

    # -- General options ---------------------------------------------------------------------------

    def _general(self, option: _Option) -> list[Step]:
        name, negated = option.name, option.negated
        if name in _ADDRESS_FIELDS:
            return [self._address(f"{self._family}.{_ADDRESS_FIELDS[name]}", option.value, negated)]
        if name in _INTERFACE_FIELDS:
            left = Field(_INTERFACE_FIELDS[name])
            return [_test(left, [_interface(option.value)], negated)]
        if name == "-p":
            return self._on_protocol(option.value, negated)
        if name == "-f":
            return [_test(Field("ip.fragment"), [(0, 0)], not negated)]
        return [Perhaps(f"option {name}")]

    def _on_protocol(self, value: str, negated: bool) -> list[Step]:
        if value in ("all", "0"):
            return [_never()] if negated else []
        return [_test(Field("meta.l4proto"), [_same(number(value, "proto"))], negated)]

    def _address(self, name: str, value: str, negated: bool) -> Step:
        text, _slash, mask = value.partition("/")
        base = ip_number(text, self._address_kind)
        width = 32 if self._family == "ip" else 128
        ones = (1 << width) - 1
        if not mask:
            bits = ones
        elif mask.isdigit():
            bits = ones ^ (ones >> int(mask))
        else:
            bits = ip_number(mask, self._address_kind)
        host = ones & ~bits
        if host & (host + 1) == 0:
            return _test(Field(name), [(base & bits, base & bits | host)], negated)
        return _test(Bits(Field(name), bits), [_same(base & bits)], negated)

    # -- Targets -----------------------------------------------------------------------------------

    def _target(self, options: Sequence[_Option], *, goto: bool) -> list[Step]:
        first, *more = options
        name = first.value
        if goto or name in self._chains:
            return [Jump(name, goto=goto)]
        if name in _FIXED_TARGETS:
            return list(_FIXED_TARGETS[name])
        if name == "CT":
            return [Notrack()] if any(option.name == "--notrack" for option in more) else []
        if name == "MARK":
            return [Assign("meta.mark", _new_mark(more))]
        if name == "CONNMARK":
            return _connmark(more)
        return [Foreign(name, certain=False)]


def _starts_option(word: str) -> bool:
    """Say whether a word begins an option; a negative number does not."""
    return word == "!" or (len(word) > 1 and word[0] == "-" and not word[1].isdigit())


# -- Steps -----------------------------------------------------------------------------------------


def _same(value: int) -> Region:
    return value, value


def _test(left: Expression, ranges: Sequence[Region], negated: bool) -> Test:
    pool = Pool(ranges)
    return Test(left, lambda: pool, negated)


def _never() -> Step:
    return _test(Field("meta.nfproto"), [], negated=False)


def _interface(value: str) -> Region:
    return interface_range(value[:-1]) if value.endswith("+") else _same(interface(value))


def _masked(value: str) -> tuple[int, int]:
    """Return (value, mask) of "0x1/0xff"."""
    text, slash, mask = value.partition("/")
    return int(text, 0), int(mask, 0) if slash else 0xFFFFFFFF


def _number_range(value: str, separator: str, top: int) -> Region:
    low, found, high = value.partition(separator)
    if not found:
        return _same(int(low))
    return int(low or 0), int(high or top)


def _port_range(value: str) -> Region:
    return _number_range(value, ":", _ALL_PORTS)


def _new_mark(options: Sequence[_Option]) -> Expression:
    """Return the packet mark that -j MARK leaves: (mark & ~mask) ^ value."""
    ones = 0xFFFFFFFF
    mark = Field("meta.mark")
    option = options[0]
    if option.name == "--set-xmark":
        value, mask = _masked(option.value)
        return Bits(mark, ones & ~mask, flip=value)
    if option.name == "--set-mark":
        value, mask = _masked(option.value)
        return Bits(mark, ones & ~(mask | value), flip=value)
    bits = int(option.value, 0)
    if option.name == "--and-mark":
        return Bits(mark, bits)
    if option.name == "--or-mark":
        return Bits(mark, ones & ~bits, flip=bits)
    if option.name == "--xor-mark":
        return Bits(mark, ones, flip=bits)
    return Unknown()


def _connmark(options: Sequence[_Option]) -> list[Step]:
    """-j CONNMARK writes one of the two marks; with whole masks, a copy of the other."""
    names = {option.name for option in options}
    masks = [option.value for option in options if option.name in ("--nfmask", "--ctmask")]
    whole = all(int(mask, 0) == 0xFFFFFFFF for mask in masks)
    if "--restore-mark" in names:
        return [Assign("meta.mark", Field("ct.mark") if whole else Unknown())]
    if "--save-mark" in names:
        return [Assign("ct.mark", Field("meta.mark") if whole else Unknown())]
    return [Assign("ct.mark", Unknown())]


# -- Matches ---------------------------------------------------------------------------------------

_Match = Callable[[_RuleReader, Sequence[_Option]], list[Step]]


def _comment(_reader: _RuleReader, _options: Sequence[_Option]) -> list[Step]:
    return []


def _ports(reader: _RuleReader, options: Sequence[_Option]) -> list[Step]:
    """-m tcp, -m udp: they match their protocol, which -p names as well."""
    steps: list[Step] = []
    for option in options:
        if option.name in ("--sport", "--dport"):
            field_name = f"th.{option.name[2:]}"
            steps.append(_test(Field(field_name), [_port_range(option.value)], option.negated))
        elif option.name == "--tcp-flags":
            mask, wanted = (_tcp_flags(words) for words in option.values[:2])
            steps.append(_test(Bits(Field("tcp.flags"), mask), [_same(wanted)], option.negated))
        else:
            steps.append(Perhaps(f"option {option.name}"))
    return steps


def _tcp_flags(words: str) -> int:
    bits = 0
    for word in words.split(","):
        if word not in _TCP_FLAGS:
            raise UnknownValueError(f"TCP flag {word!r}")
        bits |= _TCP_FLAGS[word]
    return bits


def _multiport(_reader: _RuleReader, options: Sequence[_Option]) -> list[Step]:
    steps: list[Step] = []
    for option in options:
        ranges = [_port_range(each) for each in option.value.split(",")]
        if option.name in ("--sports", "--dports"):
            steps.append(_test(Field(f"th.{option.name[2:-1]}"), ranges, option.negated))
        elif option.name == "--ports":
            steps.append(_either_port(ranges, option.negated))
        else:
            steps.append(Perhaps(f"option {option.name}"))
    return steps


def _either_port(ranges: Sequence[Region], negated: bool) -> Step:
    anything = (0, _ALL_PORTS)
    boxes = [box for each in ranges for box in ((each, anything), (anything, each))]
    pool = Pool(boxes, dimensions=2)
    return Test(Concat((Field("th.sport"), Field("th.dport"))), lambda: pool, negated)


_STATES = {"INVALID": 1, "ESTABLISHED": 2, "RELATED": 4, "NEW": 8, "UNTRACKED": 0x40}
_STATUSES = {"NONE": 0, "EXPECTED": 1, "SEEN_REPLY": 2, "ASSURED": 4, "CONFIRMED": 8}


def _conntrack(_reader: _RuleReader, options: Sequence[_Option]) -> list[Step]:
    return [_conntrack_option(option) for option in options]


def _conntrack_option(option: _Option) -> Step:
    words = option.value.split(",")
    if option.name in ("--ctstate", "--state"):
        if "SNAT" in words or "DNAT" in words:
            return _nat_state(words, option.negated)
        bits = sum(_STATES[word] for word in set(words) if word in _STATES)
        if not set(words) <= _STATES.keys():
            raise UnknownValueError(f"connection state {option.value}")
        return _test(Bits(Field("ct.state"), bits), [_same(0)], not option.negated)
    if option.name == "--ctdir":
        return _test(
            Field("ct.direction"), [_same(number(words[0].lower(), "ctdir"))], option.negated
        )
    if option.name == "--ctstatus" and set(words) <= _STATUSES.keys():
        bits = sum(_STATUSES[word] for word in set(words))
        return _test(Bits(Field("ct.status"), bits), [_same(0)], not option.negated)
    if option.name == "--ctorigdstport":
        return _test(Field("ct.original.proto-dst"), [_port_range(option.value)], option.negated)
    return Perhaps(f"option {option.name}")


def _nat_state(words: Sequence[str], negated: bool) -> Step:
    """--ctstate DNAT asks for a bit of the status; mixed with states it asks for either."""
    bits = sum({"SNAT": 0x10, "DNAT": 0x20}.get(word, 0) for word in set(words))
    if set(words) <= {"SNAT", "DNAT"}:
        return _test(Bits(Field("ct.status"), bits), [_same(0)], not negated)
    return Perhaps("conntrack states mixed with NAT")


def _owner(reader: _RuleReader, options: Sequence[_Option]) -> list[Step]:
    steps: list[Step] = []
    for option in options:
        kind = {"--uid-owner": "uid", "--gid-owner": "gid"}.get(option.name)
        if kind is None:
            steps.append(Perhaps(f"option {option.name}"))
            continue
        name = "meta.skuid" if kind == "uid" else "meta.skgid"
        low, dash, high = option.value.partition("-")
        if dash and low.isdigit() and high.isdigit():
            found = int(low), int(high)
        else:
            found = _same(number(option.value, kind, reader._names))
        # Nobody's packet, such as a forwarded one, has an owner other than every named one.
        left = Otherwise(Field(name), _NOBODY)
        steps.append(_test(left, [found], option.negated))
    return steps


def _marks(name: str) -> _Match:
    def read(_reader: _RuleReader, options: Sequence[_Option]) -> list[Step]:
        steps: list[Step] = []
        for option in options:
            value, mask = _masked(option.value)
            steps.append(_test(Bits(Field(name), mask), [_same(value)], option.negated))
        return steps

    return read


def _addrtype(_reader: _RuleReader, options: Sequence[_Option]) -> list[Step]:
    """The route's type; limited to an interface, it is another question."""
    limited = any(option.name.startswith("--limit-iface") for option in options)
    steps: list[Step] = []
    for option in options:
        end = {"--dst-type": "daddr", "--src-type": "saddr"}.get(option.name)
        if end is None or limited:
            steps.append(Perhaps(f"option {option.name}"))
            continue
        types = [_same(number(word.lower(), "fibtype")) for word in option.value.split(",")]
        steps.append(_test(Field(f"fib.type:{end}"), types, option.negated))
    return steps


def _icmp(reader: _RuleReader, options: Sequence[_Option]) -> list[Step]:
    protocol, kind = ("icmp", "icmptype") if reader._family == "ip" else ("icmpv6", "icmp6type")
    steps: list[Step] = []
    for option in options:
        if option.value in ("any", "255"):
            continue
        kind_text, slash, code = option.value.partition("/")
        if slash and option.negated:
            steps.append(Perhaps("a type and code that must not both fit"))
            continue
        wanted = [_same(number(kind_text, kind))]
        steps.append(_test(Field(f"{protocol}.type"), wanted, option.negated))
        if slash:
            steps.append(_test(Field(f"{protocol}.code"), [_same(int(code))], negated=False))
    return steps


def _iprange(reader: _RuleReader, options: Sequence[_Option]) -> list[Step]:
    steps: list[Step] = []
    for option in options:
        end = {"--src-range": "saddr", "--dst-range": "daddr"}[option.name]
        low, _dash, high = option.value.partition("-")
        ends = ip_number(low, reader._address_kind), ip_number(high, reader._address_kind)
        steps.append(_test(Field(f"{reader._family}.{end}"), [ends], option.negated))
    return steps


def _recent(_reader: _RuleReader, options: Sequence[_Option]) -> list[Step]:
    """--set always matches; the other modes look into a list that only the kernel has."""
    names = [option.name for option in options]
    negated = any(option.negated for option in options)
    if "--set" in names and not negated and not {"--rttl", "--rcheck", "--update"} & set(names):
        return []
    return [Perhaps("match recent")]


def _rpfilter(_reader: _RuleReader, options: Sequence[_Option]) -> list[Step]:
    names = {option.name for option in options}
    if names - {"--invert", "--validmark"}:
        return [Perhaps("match rpfilter")]
    left = Field("fib.oif:iif.saddr")
    return [_test(left, [_same(1)], "--invert" in names)]


def _pkttype(_reader: _RuleReader, options: Sequence[_Option]) -> list[Step]:
    return [
        _test(Field("meta.pkttype"), [_same(number(o.value, "pkttype"))], o.negated)
        for o in options
    ]


def _extension_header(_reader: _RuleReader, _options: Sequence[_Option]) -> list[Step]:
    """A packet without the header never matches, whatever is asked of the header."""
    return [_never()]


_MATCHES: dict[str, _Match] = {
    "comment": _comment,
    "tcp": _ports,
    "udp": _ports,
    "multiport": _multiport,
    "conntrack": _conntrack,
    "state": _conntrack,
    "owner": _owner,
    "mark": _marks("meta.mark"),
    "connmark": _marks("ct.mark"),
    "addrtype": _addrtype,
    "icmp": _icmp,
    "icmp6": _icmp,
    "iprange": _iprange,
    "recent": _recent,
    "rpfilter": _rpfilter,
    "pkttype": _pkttype,
    "rt": _extension_header,
    "frag": _extension_header,
    "hbh": _extension_header,
    "dst": _extension_header,
    "mh": _extension_header,
}
