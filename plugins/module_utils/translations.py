# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that send a TCP port of the host somewhere else: no socket of the host shows them.

Takes the texts of `nft -j list ruleset`, of iptables-save and of IPVS's table, and returns what
each rule translates as far as it can be told; what cannot counts as every port. Pure.
"""

from __future__ import annotations

import json
import re
import shlex
import typing as t
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

__all__ = (
    "Translation", "TranslationError", "iptables_translations", "ipvs_translations",
    "nft_translations",
)  # fmt: skip

Range = tuple[int, int]
_ALL = ((0, 0xFFFF),)
_NFT_STATEMENTS = ("dnat", "redirect", "tproxy")
_TARGETS = frozenset({"DNAT", "REDIRECT", "TPROXY", "NETMAP"})
# The option of each target that says where to; NETMAP changes the address only.
_TO = {"DNAT": "--to-destination", "REDIRECT": "--to-ports", "TPROXY": "--on-port"}


class TranslationError(ValueError):
    """The text is not the listing of a rule set: nothing may be concluded from it."""


@dataclass(frozen=True, slots=True)
class Translation:
    """One rule. `outside` are the ports that it takes, `inside` those that it leads to.

    `outside` is None where the rule names none, `inside` where it leaves the port as it is.
    """

    text: str
    outside: tuple[Range, ...] | None
    inside: tuple[Range, ...] | None

    def takes(self, port: int) -> bool:
        """Tell whether the rule names the port as one that it takes."""
        return _within(port, self.outside or ())

    def leads_to(self, port: int) -> bool:
        """Tell whether a connection may end on the port."""
        inside = self.outside if self.inside is None else self.inside
        return _within(port, _ALL if inside is None else inside)

    def only_takes(self, ports: Sequence[int]) -> bool:
        """Tell whether the rule takes none but single ports among these."""
        return bool(self.outside) and all(
            low == high and low in ports for low, high in self.outside or ()
        )


def _within(port: int, ranges: Sequence[Range]) -> bool:
    return any(low <= port <= high for low, high in ranges)


# -- nftables --------------------------------------------------------------------------------------

Sets = Mapping[tuple[str, str, str], t.Any]
Rule = Mapping[str, t.Any]


def nft_translations(text: str, *, known_elsewhere: Sequence[str] = ()) -> list[Translation]:
    """Return the translations of `nft -j list ruleset` (libnftables-json(5)).

    Rules of iptables-nft show no more here than the target's name. In families of
    `known_elsewhere` (ip, ip6) they are left out, as iptables-save tells them.
    """
    try:
        objects = json.loads(text)["nftables"]
        rules = [each["rule"] for each in objects if "rule" in each]
        sets = {
            (body["family"], body["table"], body["name"]): body.get("elem", [])
            for each in objects
            for body in (each.get("set") or each.get("map"),)
            if body
        }
        # What a local process sends passes here, nothing from outside
        local = {
            (chain["family"], chain["table"], chain["name"])
            for each in objects
            if (chain := each.get("chain")) and chain.get("hook") == "output"
        }
        return [
            found
            for rule in rules
            if (rule["family"], rule["table"], rule["chain"]) not in local
            for found in _nft_rule(rule, sets, known_elsewhere)
        ]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as exc:
        raise TranslationError(f"unknown output of nft: {exc!r}") from None


def _nft_rule(rule: Rule, sets: Sets, known_elsewhere: Sequence[str]) -> Iterator[Translation]:
    expressions = rule["expr"]
    table = (rule["family"], rule["table"])
    outside = _nft_outside(expressions, table, sets)
    if outside == ():
        return
    for expression in expressions:
        ((kind, body),) = expression.items() if isinstance(expression, dict) else ((expression, 0),)
        if kind == "xt" and body.get("name") in _TARGETS:
            if rule["family"] not in known_elsewhere:
                yield Translation(_nft_text(rule, str(body["name"])), outside, _ALL)
        elif kind in _NFT_STATEMENTS:
            mapped, inside = _nft_inside(body or {}, table, sets)
            yield Translation(_nft_text(rule, kind, body), mapped or outside, inside)


def _nft_text(rule: Rule, kind: str, body: object = None) -> str:
    where = f"table {rule['family']} {rule['table']}, chain {rule['chain']}"
    matches = [each for each in rule["expr"] if isinstance(each, dict) and "match" in each]
    ports = [json.dumps(each["match"]["right"]) for each in matches if _port_field(each)]
    taken = f"port {' '.join(ports)}: " if ports else ""
    return f"nft {where}: {taken}{kind} {json.dumps(body) if body else ''}".rstrip()


def _port_field(expression: Mapping[str, t.Any]) -> str:
    """Return the protocol of a match on the destination port, "" when it is none."""
    left = expression["match"]["left"]
    payload = left.get("payload") if isinstance(left, dict) else None
    if not isinstance(payload, dict) or payload.get("field") != "dport":
        return ""
    return str(payload.get("protocol"))


def _nft_outside(
    expressions: Sequence[t.Any], table: tuple[str, str], sets: Sets
) -> tuple[Range, ...] | None:
    """Return the ports that a rule names; None for none named, () when they are not TCP's."""
    found: list[Range] = []
    for expression in expressions:
        match = expression.get("match") if isinstance(expression, dict) else None
        if not match:
            continue
        protocol = _port_field(expression)
        if protocol == "udp" or _is_udp(match):
            return ()
        if protocol and match.get("op") in ("==", "in"):
            found += _numbers(match["right"], table, sets)
    return tuple(found) or None


def _is_udp(match: Mapping[str, t.Any]) -> bool:
    left = match["left"]
    selects = isinstance(left, dict) and left.get("meta", {}).get("key") == "l4proto"
    return selects and match.get("op") == "==" and match["right"] == "udp"


def _nft_inside(
    body: Mapping[str, t.Any], table: tuple[str, str], sets: Sets
) -> tuple[tuple[Range, ...] | None, tuple[Range, ...] | None]:
    """Return (ports that a map is asked for, ports it leads to), each None where none is named."""
    keys: list[Range] = []
    values: list[Range] = []
    for part in (body.get("addr"), body.get("port")):
        if isinstance(part, dict) and "map" in part:
            for key, value in _pairs(part["map"]["data"], table, sets):
                keys += _numbers(key, table, sets)
                values += _numbers(value, table, sets)
        elif part is body.get("port") and part is not None:
            values += _numbers(part, table, sets) or _ALL
    return tuple(keys) or None, tuple(values) or None


def _pairs(data: object, table: tuple[str, str], sets: Sets) -> Iterator[tuple[t.Any, t.Any]]:
    elements = data.get("set", []) if isinstance(data, dict) else data
    if isinstance(elements, str):
        elements = sets[(*table, elements.removeprefix("@"))]
    for element in t.cast("Sequence[t.Any]", elements):
        yield element[0], element[1]


def _numbers(value: object, table: tuple[str, str], sets: Sets) -> list[Range]:
    """Return all numbers in an expression, through named sets, as ranges."""
    if isinstance(value, int):
        return [(value, value)]
    inner: list[t.Any] = []
    if isinstance(value, list):
        inner = value
    elif isinstance(value, str) and value.startswith("@"):
        inner = sets[(*table, value[1:])]
    elif isinstance(value, dict):
        if "range" in value and all(isinstance(end, int) for end in value["range"]):
            low, high = value["range"]
            return [(low, high)]
        inner = [value[key] for key in ("set", "concat") if key in value]
        inner += [value["elem"]["val"]] if "elem" in value else []
    return [found for each in inner for found in _numbers(each, table, sets)]


# -- iptables --------------------------------------------------------------------------------------


def iptables_translations(text: str, tool: str) -> list[Translation]:
    """Return the translations in the output of an iptables-save; `tool` names it in the text."""
    found = []
    for line in text.splitlines():
        if not line.startswith("-A ") or not _TARGETS & set(line.split()):
            continue
        try:
            words = shlex.split(line)
        except ValueError:
            raise TranslationError(f"unknown line of {tool}-save: {line!r}") from None
        found += _iptables_rule(words, f"{tool}: {line}")
    return found


def _iptables_rule(words: Sequence[str], text: str) -> Iterator[Translation]:
    options = dict(_options(words))
    target = options.get("-j", "")
    if target not in _TARGETS or words[1] == "OUTPUT" or options.get("-p") == "udp":
        return
    ports = options.get("--dport", options.get("--dports"))
    outside = None if ports is None else _port_list(ports)
    to = options.get(_TO.get(target, ""))
    if target == "DNAT" and to is not None:
        # 10.0.0.1:80-90, [fd00::1]:80, :80, or an address alone
        port = re.search(r"(?:\]|\A[^:\[\]]*):([0-9]+(?:-[0-9]+)?)(?:/|\Z)", to)
        to = port[1] if port else None
    yield Translation(text, outside, None if to is None else _port_list(to))


def _options(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each option with its value, negated ones left out: they name what is not taken."""
    for before, word, value in zip(["", *words], words, [*words[1:], ""], strict=False):
        if word.startswith("-") and before != "!":
            yield word, value


def _port_list(text: str) -> tuple[Range, ...]:
    """Read `80`, `80:90`, `80-90` and lists of them; what is no number counts as every port."""
    ranges = []
    for item in text.split(","):
        ends = re.fullmatch(r"([0-9]+)(?:[:-]([0-9]+))?", item)
        if ends is None:
            return _ALL
        ranges.append((int(ends[1]), int(ends[2] or ends[1])))
    return tuple(ranges)


# -- IPVS ------------------------------------------------------------------------------------------


def ipvs_translations(text: str) -> list[Translation]:
    """Return the virtual services in /proc/net/ip_vs, each with the ports of its real servers."""
    services: list[tuple[str, list[str]]] = []
    for line in text.splitlines()[3:]:
        if line.startswith("  -> ") and services:
            services[-1][1].append(line.split()[1])
        elif line.startswith(("TCP ", "UDP ", "SCTP ", "FWM ")):
            services.append((line.strip(), []))
        else:
            raise TranslationError(f"unknown line of /proc/net/ip_vs: {line!r}")
    return [
        Translation(f"IPVS: {title}", _ipvs_ports([title.split()[1]]), _ipvs_ports(servers))
        for title, servers in services
        if title.startswith(("TCP ", "FWM "))
    ]


def _ipvs_ports(addresses: Sequence[str]) -> tuple[Range, ...] | None:
    """Return the ports in hexadecimal digits behind addresses, None where one has none or all."""
    ports = [int(one.rpartition(":")[2], 16) for one in addresses if ":" in one]
    if len(ports) < len(addresses) or 0 in ports:
        return None
    return tuple((port, port) for port in ports)
