# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Parse `nft -j list ruleset`.

Format: libnftables-json(5), and what nft 1.0.6 and 1.1.3 really write. Two facts are missing from
the JSON of nft 1.0.6 and are taken from the text of `nft list ruleset`: whether a table is dormant
(its flags are garbage), and the devices of ingress chains.
"""

from __future__ import annotations

import json
import re
import typing as t
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall import nft_text
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.collector import (
    paused_collector,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.numbers import (
    WIDTHS,
    Json,
    Names,
    Region,
    UnknownValueError,
    flags,
    number,
    region_reader,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.pools import (
    ANYTHING,
    Pool,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import (
    Assign,
    Bits,
    Chain,
    Concat,
    Constant,
    Expression,
    Field,
    Foreign,
    Jump,
    Mapped,
    NamedSet,
    Notrack,
    Perhaps,
    PoolSource,
    Rule,
    Ruleset,
    RulesetError,
    Step,
    Switch,
    Table,
    Terminal,
    Test,
    Unknown,
    Update,
)

__all__ = ("parse_nft",)

# What reading JSON of another shape than ours may raise.
_SHAPE_ERRORS = (KeyError, TypeError, ValueError, IndexError, AttributeError, OSError)

_PAYLOAD_KINDS = {
    "ip.saddr": "ipv4", "ip.daddr": "ipv4", "ip.protocol": "proto", "ip.version": "number",
    "ip6.saddr": "ipv6", "ip6.daddr": "ipv6", "ip6.nexthdr": "proto", "ip6.version": "number",
    "tcp.flags": "tcpflags", "icmp.type": "icmptype", "icmp.code": "icmpcode",
    "icmpv6.type": "icmp6type", "icmpv6.code": "number",
}  # fmt: skip
_META_KINDS = {
    "iif": "ifname", "oif": "ifname", "iifname": "ifname", "oifname": "ifname",
    "skuid": "uid", "skgid": "gid", "mark": "mark", "l4proto": "proto", "nfproto": "nfproto",
    "protocol": "ethertype", "pkttype": "pkttype",
}  # fmt: skip
_CT_KINDS = {"state": "ctstate", "status": "ctstatus", "mark": "mark", "direction": "ctdir"}
_BITMASKS = frozenset({"ctstate", "ctstatus", "tcpflags"})
_EXTENSION_HEADERS = frozenset({"hbh", "rt", "rt0", "rt2", "rt4", "frag", "dst", "mh"})

# Statements that neither decide nor change what a later rule looks at.
_PASSIVE = frozenset(
    {"counter", "log", "ct helper", "ct timeout", "ct expectation", "secmark", "last", "flow",
     "dup", "comment"}
)  # fmt: skip
_TERMINALS = frozenset({"accept", "drop", "return", "continue"})
_CONDITIONS = frozenset({"limit", "quota", "ct count", "meter", "osf"})
_TRANSLATIONS = frozenset({"dnat", "snat", "masquerade", "redirect", "tproxy"})
_REJECTS = {"icmp": "ip.saddr", "icmpv6": "ip6.saddr", "tcp reset": "tcp.dport"}
_FIXED_STEPS: dict[str, tuple[Step, ...]] = {
    **dict.fromkeys(_PASSIVE, ()),
    **{kind: (Terminal(kind),) for kind in _TERMINALS},
    **{kind: (Perhaps(kind),) for kind in _CONDITIONS},
    "notrack": (Notrack(),),
    "queue": (Foreign("queue"),),
    "fwd": (Foreign("fwd"),),
}

_TABLE_LINE = re.compile(r"^table (?P<family>\w+) (?P<name>\S+) \{", re.MULTILINE)
_CHAIN_LINE = re.compile(r"^\tchain (?P<name>\S+) \{", re.MULTILINE)
_DORMANT = re.compile(r"^\tflags [^\n]*\bdormant\b", re.MULTILINE)
_DEVICES = re.compile(
    r"^\t\ttype \w+ hook \w+ devices? (?:= )?(?:\{(?P<many>[^}]*)\}|(?P<one>\S+)) priority",
    re.MULTILINE,
)
_FLAG_NAMES = frozenset({"dormant", "owner", "persist"})


@paused_collector()
def parse_nft(
    text: str,
    listing: str = "",
    *,
    users: Mapping[str, int] | None = None,
    groups: Mapping[str, int] | None = None,
) -> Ruleset:
    """Return the rule set in the output of `nft -j list ruleset`.

    `listing` is the output of `nft list ruleset` at the same moment; without it, tables with flags
    and chains at ingress are judged MAYBE. `users` and `groups` resolve names in skuid and skgid
    matches. Raises RulesetError for anything that is not such output; a rule of unknown form is no
    error, it is judged MAYBE.
    """
    names = Names(users or {"root": 0}, groups or {"root": 0})
    objects = _objects(text)
    notes = _notes(listing)
    try:
        return _Reader(names, notes).read(objects)
    except RulesetError:
        raise
    except _SHAPE_ERRORS as exc:
        raise RulesetError(f"not the output of nft -j list ruleset: {exc!r}") from exc


def _objects(text: str) -> list[tuple[str, dict[str, t.Any]]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as exc:
        raise RulesetError(f"not JSON: {exc}") from exc
    listed = document.get("nftables") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise RulesetError("not the output of nft -j list ruleset: there is no list 'nftables'")
    objects = []
    for each in listed:
        if not isinstance(each, dict) or len(each) != 1:
            raise RulesetError(f"not an object of a rule set: {str(each)[:100]}")
        ((kind, body),) = each.items()
        if not isinstance(body, dict):
            raise RulesetError(f"not an object of a rule set: {str(each)[:100]}")
        objects.append((kind, body))
    if not any(kind == "metainfo" for kind, _body in objects):
        raise RulesetError("not the output of nft -j list ruleset: there is no 'metainfo'")
    return objects


class _Notes(t.NamedTuple):
    """What only the text of the listing tells, by (family, table)."""

    dormant: Mapping[tuple[str, str], bool]
    devices: Mapping[tuple[str, str, str], tuple[str, ...]]


def _notes(listing: str) -> _Notes:
    dormant: dict[tuple[str, str], bool] = {}
    devices: dict[tuple[str, str, str], tuple[str, ...]] = {}
    heads = list(_TABLE_LINE.finditer(listing))
    for head, following in pairwise([*heads, None]):
        key = head["family"], head["name"]
        body = listing[head.end() : following.start() if following else len(listing)]
        chains = list(_CHAIN_LINE.finditer(body))
        preamble = body[: chains[0].start()] if chains else body
        dormant[key] = bool(_DORMANT.search(preamble))
        for chain, after in pairwise([*chains, None]):
            found = _DEVICES.search(body, chain.end(), after.start() if after else len(body))
            if found:
                words = (found["many"] or found["one"]).split(",")
                devices[*key, chain["name"]] = tuple(word.strip(' "\t') for word in words)
    return _Notes(dormant, devices)


class _Reader:
    """Builds the tables; one per rule set."""

    def __init__(self, names: Names, notes: _Notes) -> None:
        self._names = names
        self._notes = notes
        self._sets: dict[tuple[str, str, str], dict[str, t.Any]] = {}
        self._pools: dict[tuple[t.Any, ...], NamedSet] = {}
        self._makers: dict[str, Callable[[Json, tuple[str, str]], Sequence[Step]]] = {
            "match": self._match,
            "vmap": self._verdict_map,
            "mangle": self._mangle,
            "set": self._update,
            "reject": lambda body, _place: _reject(body),
            "synproxy": lambda _body, _place: [_only_with("tcp.dport"), Foreign("synproxy")],
        }

    def read(self, objects: Sequence[tuple[str, dict[str, t.Any]]]) -> Ruleset:
        tables: dict[tuple[str, str], dict[str, t.Any]] = {}
        chains: dict[tuple[str, str], dict[str, dict[str, t.Any]]] = {}
        rules: dict[tuple[str, str, str], list[Rule]] = {}
        for kind, body in objects:
            if kind == "table":
                tables[body["family"], body["name"]] = body
            elif kind == "chain":
                chains.setdefault((body["family"], body["table"]), {})[body["name"]] = body
            elif kind in ("set", "map"):
                self._sets[body["family"], body["table"], body["name"]] = body
        for kind, body in objects:
            if kind == "rule":
                place = body["family"], body["table"], body["chain"]
                rules.setdefault(place, []).append(self._rule(body))
        self._check(tables, chains, rules)
        return Ruleset(
            tuple(
                Table(
                    family=family,
                    name=name,
                    chains={
                        chain: self._chain(body, tuple(rules.get((family, name, chain), ())))
                        for chain, body in chains.get((family, name), {}).items()
                    },
                    dormant=self._dormant(table),
                )
                for (family, name), table in tables.items()
            )
        )

    @staticmethod
    def _check(
        tables: Mapping[tuple[str, str], t.Any],
        chains: Mapping[tuple[str, str], Mapping[str, t.Any]],
        rules: Mapping[tuple[str, str, str], t.Any],
    ) -> None:
        """Refuse a listing in which something hangs in the air: part of it is missing."""
        for place in chains:
            if place not in tables:
                raise RulesetError(f"a chain of table {' '.join(place)}, which is not listed")
        for family, table, chain in rules:
            if chain not in chains.get((family, table), {}):
                raise RulesetError(f"a rule of {family} {table} {chain}, which is not listed")

    def _dormant(self, table: dict[str, t.Any]) -> bool | None:
        key = table["family"], table["name"]
        if key in self._notes.dormant:
            return self._notes.dormant[key]
        listed = table.get("flags", [])
        words = listed if isinstance(listed, list) else [listed]
        if not all(word in _FLAG_NAMES for word in words):
            return None
        return "dormant" in words

    def _chain(self, body: dict[str, t.Any], rules: tuple[Rule, ...]) -> Chain:
        devices = body.get("dev")
        if isinstance(devices, str):
            devices = [devices]
        place = body["family"], body["table"], body["name"]
        priority = body.get("prio", 0)
        policy = body.get("policy", "accept")
        if not isinstance(priority, int) or policy not in ("accept", "drop"):
            raise RulesetError(f"chain {' '.join(place)} has no priority and policy we know")
        return Chain(
            name=body["name"],
            rules=rules,
            hook=body.get("hook"),
            priority=priority,
            policy=policy,
            kind=body.get("type", "filter"),
            devices=tuple(devices) if devices else self._notes.devices.get(place),
        )

    # -- Rules -------------------------------------------------------------------------------------

    def _rule(self, body: dict[str, t.Any]) -> Rule:
        place = body["family"], body["table"]
        expr = body.get("expr", [])
        steps: list[Step] = []
        for each in expr:
            try:
                steps += self._steps(each, place)
            except _SHAPE_ERRORS:
                steps.append(_not_understood(each))
        return Rule(
            label=f"rule handle {body.get('handle', '?')}",
            steps=tuple(steps),
            write=lambda: nft_text.write_rule(expr),
        )

    def _steps(self, statement: dict[str, t.Any], place: tuple[str, str]) -> Sequence[Step]:
        ((kind, body),) = statement.items()
        if kind in _FIXED_STEPS:
            return _FIXED_STEPS[kind]
        if kind in ("jump", "goto"):
            return [_verdict_step(statement)]
        if kind in _TRANSLATIONS:
            return _translation(kind, body)
        if kind in self._makers:
            return self._makers[kind](body, place)
        return [_not_understood(statement)]

    def _match(self, body: Json, place: tuple[str, str]) -> Sequence[Step]:
        left, kinds = self._expression(body["left"], place)
        operator, right = body["op"], body["right"]
        if len(kinds) == 1 and not _is_set(right):
            compared = self._comparison(left, kinds[0], operator, right)
            if compared is not None:
                return [compared]
        if operator not in ("==", "!=", "in"):
            raise UnknownValueError(f"operator {operator!r}")
        named = right[1:] if isinstance(right, str) and right.startswith("@") else None
        pool = self._set_pool(right, kinds, place)
        return [Test(left, pool, negated=operator == "!=", named=named)]

    def _comparison(self, left: Expression, kind: str, operator: str, right: Json) -> Test | None:
        """Return the test of an operator that is no membership: of bits, or of an order."""
        if operator == "!" or (operator == "in" and kind in _BITMASKS):
            mask = flags(right, kind, self._names)
            return Test(Bits(left, mask), _pool_of([(0, 0)]), negated=operator == "in")
        if operator in ("<", "<=", ">", ">="):
            return Test(left, _pool_of([_half(operator, number(right, kind, self._names))]))
        return None

    def _verdict_map(self, body: Json, place: tuple[str, str]) -> Sequence[Step]:
        key, kinds = self._expression(body["key"], place)
        data = body["data"]
        named = data[1:] if isinstance(data, str) else None
        return [Switch(key, self._map_pool(data, kinds, _verdict_step, place), named)]

    def _mangle(self, body: Json, place: tuple[str, str]) -> Sequence[Step]:
        ((kind, key),) = body["key"].items()
        if kind == "payload":
            return _rewrite(key)
        if kind in ("meta", "ct"):
            if key["key"] != "mark":
                return [Assign(f"{kind}.{key['key']}", Unknown())]
            try:
                value = self._value(body["value"], "mark", place)
            except _SHAPE_ERRORS:
                value = Unknown()
            return [Assign(f"{kind}.mark", value)]
        if kind == "tcp option":
            return [_only_with("tcp.dport"), Perhaps("a TCP option")]
        return [_not_understood(body)]

    def _update(self, body: Json, place: tuple[str, str]) -> Sequence[Step]:
        """An element is added or deleted; a full set, or a condition inside, ends the rule."""
        name = str(body["set"]).lstrip("@")
        known = self._sets.get((*place, name), {})
        size = known.get("size")
        full = isinstance(size, int) and len(known.get("elem", ())) >= size
        inner = body.get("stmt", [])
        conditions = [each for each in inner if set(each) - _PASSIVE]
        doubt = [Perhaps("set")] if full or conditions or body.get("op") == "delete" else []
        # The address may be missing from the packet: then the rule ends here, too.
        key = body["elem"]
        key = key["elem"]["val"] if isinstance(key, dict) and "elem" in key else key
        left, _kinds = self._expression(key, place)
        return [_anything(left), *doubt, Update(name)]

    # -- Expressions -------------------------------------------------------------------------------

    def _expression(self, left: Json, place: tuple[str, str]) -> tuple[Expression, tuple[str, ...]]:
        """Return an expression and the kinds of the constants it is compared with."""
        ((form, body),) = left.items()
        if form == "concat":
            parts = [self._expression(each, place) for each in body]
            return (
                Concat(tuple(part for part, _kinds in parts)),
                tuple(kinds[0] for _part, kinds in parts),
            )
        if form in ("&", "|", "^"):
            inner, kinds = self._expression(body[0], place)
            bits = 0
            for each in body[1:]:
                bits |= flags(each, kinds[0], self._names)
            return _bitwise(form, inner, bits, WIDTHS[kinds[0]]), kinds
        name, kind = _field(form, body)
        return Field(name), (kind,)

    def _value(self, value: Json, kind: str, place: tuple[str, str]) -> Expression:
        """Return what a statement assigns: a constant, an expression, or a map's answer."""
        if not isinstance(value, dict):
            return Constant(number(value, kind, self._names))
        if "map" in value:
            key, kinds = self._expression(value["map"]["key"], place)
            data = value["map"]["data"]

            def read(item: Json) -> int:
                return number(item, kind, self._names)

            return Mapped(key, self._map_pool(data, kinds, read, place))
        return self._expression(value, place)[0]

    # -- Sets and maps -----------------------------------------------------------------------------

    def _set_pool(self, right: Json, kinds: tuple[str, ...], place: tuple[str, str]) -> PoolSource:
        def read(elements: Sequence[t.Any]) -> Pool:
            return _read_set(elements, kinds, self._names)

        if isinstance(right, str) and right.startswith("@"):
            return self._named((*place, right[1:]), ("set", *kinds), read)
        if isinstance(right, dict) and "set" in right:
            right = right["set"]
            elements = [right] if isinstance(right, str) and right.startswith("@") else right
            if elements is not right:
                return self._set_pool(elements[0], kinds, place)
            return NamedSet(_list(elements), read)
        if isinstance(right, list):
            # flags that must all be set, and no others
            bits = flags(right, kinds[0], self._names)
            return _pool_of([(bits, bits)])
        return NamedSet([right], read)

    def _map_pool(
        self,
        data: Json,
        kinds: tuple[str, ...],
        read_data: Callable[[t.Any], t.Any],
        place: tuple[str, str],
    ) -> PoolSource:
        def read(elements: Sequence[t.Any]) -> Pool:
            return _read_map(elements, kinds, self._names, read_data)

        if isinstance(data, str) and data.startswith("@"):
            return self._named((*place, data[1:]), ("map", read_data.__name__, *kinds), read)
        return NamedSet(_list(data["set"]), read)

    def _named(
        self,
        key: tuple[str, str, str],
        form: tuple[str, ...],
        read: Callable[[Sequence[t.Any]], Pool],
    ) -> PoolSource:
        if key not in self._sets:
            raise UnknownValueError(f"set {key[2]} is not listed")
        if (key, form) not in self._pools:
            self._pools[key, form] = NamedSet(_list(self._sets[key].get("elem", [])), read)
        return self._pools[key, form]


def _anything(left: Expression) -> Test:
    return Test(left, lambda: ANYTHING)


def _only_with(name: str) -> Test:
    """Return nft's silent condition: a statement on a field ends rules for packets without it."""
    return _anything(Field(name))


def _translation(kind: str, body: Json) -> Sequence[Step]:
    """In an inet table a translation may be of one family only, and passes over the other."""
    if isinstance(body, dict) and body.get("family") in ("ip", "ip6"):
        return [_only_with(f"{body['family']}.saddr"), Foreign(kind)]
    return [Foreign(kind)]


def _rewrite(key: Json) -> Sequence[Step]:
    """Return what it means to write a field of the packet itself."""
    if "base" in key:
        return [Foreign("rewritten bytes", certain=False)]
    name = f"{key['protocol']}.{key['field']}"
    if key["field"] in ("saddr", "daddr", "sport", "dport"):
        return [_only_with(name), Foreign("a rewritten address or port")]
    return [_only_with(name), Assign(name, Unknown())]


def _reject(body: Json) -> Sequence[Step]:
    needed = _REJECTS.get(body.get("type")) if isinstance(body, dict) else None
    return [*([_only_with(needed)] if needed else []), Terminal("drop")]


def _not_understood(statement: Json) -> Step:
    """A match may or may not hold; any other statement may do anything to the packet."""
    if isinstance(statement, dict) and len(statement) == 1:
        ((kind, body),) = statement.items()
        if kind == "match":
            return Perhaps("a match of unknown form")
        if kind == "xt" and isinstance(body, dict) and body.get("type") == "match":
            return Perhaps(f"xt match {body.get('name')}")
        return Foreign(f"{kind} statement", certain=False)
    return Foreign("a statement of unknown form", certain=False)


def _list(elements: Json) -> list[t.Any]:
    return elements if isinstance(elements, list) else [elements]


def _is_set(right: Json) -> bool:
    if isinstance(right, dict):
        return "set" in right
    return isinstance(right, str) and right.startswith("@")


def _pool_of(ranges: Sequence[Region]) -> PoolSource:
    pool = Pool(ranges)
    return lambda: pool


def _half(operator: str, bound: int) -> Region:
    most = (1 << 128) - 1
    return {
        "<": (0, bound - 1), "<=": (0, bound), ">": (bound + 1, most), ">=": (bound, most),
    }[operator]  # fmt: skip


def _bitwise(form: str, inner: Expression, bits: int, width: int) -> Expression:
    ones = (1 << width) - 1
    if form == "&":
        return Bits(inner, bits)
    if form == "|":
        return Bits(inner, ones & ~bits, flip=bits)
    return Bits(inner, ones, flip=bits)


def _field(form: str, body: Json) -> tuple[str, str]:  # noqa: PLR0911 - one per form
    """Return a field's name and the kind of its constants; raises UnknownValueError."""
    if form == "payload":
        return _payload_field(body)
    if form == "meta":
        return f"meta.{body['key']}", _META_KINDS.get(body["key"], "number")
    if form == "ct":
        return _ct_field(body)
    if form == "fib":
        listed = body["flags"] if isinstance(body["flags"], list) else [body["flags"]]
        name = f"fib.{body['result']}:{'.'.join(sorted(listed))}"
        return name, "fibtype" if body["result"] == "type" else "bool"
    if form == "exthdr" and body.get("name") in _EXTENSION_HEADERS:
        if "field" in body:
            return f"exthdr.{body['name']}.field", "number"
        return f"exthdr.{body['name']}", "bool"  # whether the header is there
    return f"unknown.{form}", "number"


def _payload_field(body: Json) -> tuple[str, str]:
    if "protocol" in body:
        name = f"{body['protocol']}.{body['field']}"
        if body["field"] in ("sport", "dport"):
            return name, "port"
        return name, _PAYLOAD_KINDS.get(name, "number")
    raw = body["base"], body["offset"], body["len"]
    if raw == ("th", 0, 16):
        return "th.sport", "port"
    if raw == ("th", 16, 16):
        return "th.dport", "port"
    return "unknown.payload", "number"


def _ct_field(body: Json) -> tuple[str, str]:
    key = body["key"]
    if "dir" not in body:
        return f"ct.{key}", _CT_KINDS.get(key, "number")
    kind = {"ip saddr": "ipv4", "ip daddr": "ipv4", "ip6 saddr": "ipv6", "ip6 daddr": "ipv6",
            "proto-src": "port", "proto-dst": "port"}.get(key, "number")  # fmt: skip
    return f"ct.{body['dir']}.{key}", kind


def _verdict_step(verdict: Json) -> Step:
    ((kind, body),) = verdict.items()
    if kind in ("jump", "goto"):
        return Jump(str(body["target"]), goto=kind == "goto")
    if kind in _TERMINALS:
        return Terminal(kind)
    raise UnknownValueError(f"verdict {kind!r}")


def _read_set(elements: Sequence[Json], kinds: tuple[str, ...], names: Names) -> Pool:
    read = _element_reader(kinds, names)
    boxes: list[Json] = []
    catchall: tuple[None, ...] = ()
    incomplete = False
    for element in elements:
        try:
            if element == "*":
                catchall = (None,)
            else:
                boxes.append(read(element))
        except _SHAPE_ERRORS:
            incomplete = True
    return Pool(boxes, dimensions=len(kinds), catchall=catchall, incomplete=incomplete)


def _read_map(
    elements: Sequence[Json],
    kinds: tuple[str, ...],
    names: Names,
    read_data: Callable[[Json], t.Any],
) -> Pool:
    read = _element_reader(kinds, names)
    boxes: list[Json] = []
    data: list[t.Any] = []
    catchall: tuple[t.Any, ...] = ()
    incomplete = False
    for element in elements:
        try:
            key, item = element
            datum = read_data(item)
            if key == "*" or _without_notes(key) == "*":
                catchall = (datum,)
            else:
                boxes.append(read(key))
                data.append(datum)
        except _SHAPE_ERRORS:
            incomplete = True
    return Pool(boxes, dimensions=len(kinds), data=data, catchall=catchall, incomplete=incomplete)


def _without_notes(element: Json) -> Json:
    """Return an element without its expiry, counter and comment."""
    if isinstance(element, dict) and "elem" in element:
        return element["elem"]["val"]
    return element


def _element_reader(kinds: tuple[str, ...], names: Names) -> Callable[[Json], Json]:
    """Return a function from an element to its range, or its ranges in several dimensions."""
    readers = [region_reader(kind, names) for kind in kinds]
    if len(readers) == 1:
        (read,) = readers
        return lambda element: read(_without_notes(element))

    def read_all(element: Json) -> Json:
        parts = _without_notes(element)["concat"]
        return tuple([read(part) for read, part in zip(readers, parts, strict=True)])

    return read_all
