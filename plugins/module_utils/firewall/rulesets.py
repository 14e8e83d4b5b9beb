# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The model of a host's rule sets: tables, chains, rules, and the steps a rule is made of.

Every expression yields one number (or a tuple of numbers for a concatenation), None for "not
known", or ABSENT where the kernel cannot load the field from this packet and the rule does not
match, whatever its operator (nft's NFT_BREAK).
"""

from __future__ import annotations

import enum
import typing as t
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.pools import Pool

__all__ = (
    "ABSENT",
    "Absent",
    "Assign",
    "Bits",
    "Chain",
    "Concat",
    "Constant",
    "Expression",
    "Field",
    "Foreign",
    "Jump",
    "Mapped",
    "NamedSet",
    "Notrack",
    "Otherwise",
    "Perhaps",
    "Rule",
    "Ruleset",
    "RulesetError",
    "Step",
    "Switch",
    "Table",
    "Terminal",
    "Test",
    "Unknown",
    "Update",
    "View",
)


class RulesetError(ValueError):
    """The text is not the listing of a rule set: nothing may be concluded from it."""


class Absent(enum.Enum):
    """The type of ABSENT."""

    ABSENT = enum.auto()


ABSENT = Absent.ABSENT
Value = t.Union[int, None, Absent, tuple[t.Optional[int], ...]]  # noqa: UP007, UP045


class View(t.Protocol):
    """The packet as a rule sees it, at one hook."""

    def load(self, name: str) -> int | Absent | None:
        """Return a field's value."""

    def known_bits(self, name: str) -> tuple[int, int]:
        """Return (value, mask) of a field of which some bits are known even if not all are."""


# -- Expressions -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Field:
    """A field of the packet or its metadata: "ip.saddr", "meta.iifname", "ct.state"."""

    name: str

    def evaluate(self, view: View) -> Value:
        return view.load(self.name)


@dataclass(frozen=True, slots=True)
class Constant:
    """A number written in the rule."""

    value: int

    def evaluate(self, view: View) -> Value:
        return self.value


@dataclass(frozen=True, slots=True)
class Unknown:
    """An expression that only the kernel can evaluate."""

    def evaluate(self, view: View) -> Value:
        return None


@dataclass(frozen=True, slots=True)
class Bits:
    """(expression & mask) ^ flip: every bitwise operation with constants has this form."""

    of: Expression
    mask: int
    flip: int = 0

    def evaluate(self, view: View) -> Value:
        value = self.of.evaluate(view)
        if value is None and self.mask == 0:
            return self.flip
        if value is None and isinstance(self.of, Field):
            bits, known = view.known_bits(self.of.name)
            return (bits & self.mask) ^ self.flip if self.mask & ~known == 0 else None
        return (value & self.mask) ^ self.flip if isinstance(value, int) else _scalar(value)


@dataclass(frozen=True, slots=True)
class Otherwise:
    """An expression, or a constant where the packet does not have it."""

    of: Expression
    constant: int

    def evaluate(self, view: View) -> Value:
        value = self.of.evaluate(view)
        return self.constant if value is ABSENT else value


@dataclass(frozen=True, slots=True)
class Concat:
    """Several expressions looked up together."""

    parts: tuple[Expression, ...]

    def evaluate(self, view: View) -> Value:
        values = []
        for part in self.parts:
            value = part.evaluate(view)
            if value is ABSENT:
                return ABSENT
            values.append(value if isinstance(value, int) else None)
        return tuple(values)


@dataclass(frozen=True, slots=True)
class Mapped:
    """The value a map gives for a key; a key without an element ends the rule."""

    key: Expression
    pool: PoolSource

    def evaluate(self, view: View) -> Value:
        key = self.key.evaluate(view)
        if key is ABSENT:
            return ABSENT
        hits = self.pool().look_up(key)
        if not hits.data:
            return None if self.pool().incomplete else ABSENT
        first = hits.data[0]
        if hits.may_miss or any(each != first for each in hits.data):
            return None
        return first


Expression = t.Union[Field, Constant, Unknown, Bits, Otherwise, Concat, Mapped]  # noqa: UP007


def _scalar(value: Value) -> Value:
    return value if value is ABSENT else None


PoolSource = Callable[[], Pool]


# -- Steps -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Test:
    """Go on if the expression's value is (not) in the pool."""

    left: Expression
    pool: PoolSource
    negated: bool = False
    named: str | None = None  # the set, where it has a name: packets may add to it


@dataclass(frozen=True, slots=True)
class Perhaps:
    """Go on, or not: only the kernel can tell (limits, unknown matches)."""

    why: str


@dataclass(frozen=True, slots=True)
class Terminal:
    """End the chain: "accept", "drop", "return"; "continue" ends the rule."""

    verdict: str


@dataclass(frozen=True, slots=True)
class Jump:
    """Go on in another chain of the table; after `goto` there is no way back here."""

    target: str
    goto: bool = False


@dataclass(frozen=True, slots=True)
class Switch:
    """A verdict map: its data are Terminal, Jump and Foreign steps."""

    key: Expression
    pool: PoolSource
    named: str | None = None


@dataclass(frozen=True, slots=True)
class Assign:
    """Write a field (mark, ct mark, …) that later rules may read."""

    field: str
    value: Expression


@dataclass(frozen=True, slots=True)
class Update:
    """Add to or delete from a named set."""

    name: str


@dataclass(frozen=True, slots=True)
class Notrack:
    """Take the packet away from connection tracking."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """Something decides that is not a rule: address translation, a queue, an opaque target.

    With `certain`, it is known to take the packet; without, it may also let it go on, or end it.
    """

    what: str
    certain: bool = True


Step = t.Union[Test, Perhaps, Terminal, Jump, Switch, Assign, Update, Notrack, Foreign]  # noqa: UP007


# -- Rules, chains, tables -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `write` returns its text, which is made only for rules that decided."""

    label: str
    steps: tuple[Step, ...]
    write: Callable[[], str]

    def describe(self) -> str:
        """Return e.g. "rule handle 7: tcp dport 443 accept"."""
        return f"{self.label}: {self.write()}" if self.label else self.write()


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain; a base chain has a hook. Devices belong to ingress and egress (None: not known)."""

    name: str
    rules: tuple[Rule, ...] = ()
    hook: str | None = None
    priority: int = 0
    policy: str = "accept"
    kind: str = "filter"
    devices: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Table:
    """A table of one family. dormant is None where the listing does not tell."""

    family: str
    name: str
    chains: Mapping[str, Chain] = field(default_factory=dict)
    dormant: bool | None = False
    tool: str = "nft"  # "nft", "iptables" (its nft tables) or "iptables-legacy"

    def describe(self) -> str:
        """Return e.g. "table inet filter" or "iptables-legacy table ip filter"."""
        return f"table {self.family} {self.name}" + (
            "" if self.tool == "nft" else f" ({self.tool})"
        )


@dataclass(frozen=True)
class Ruleset:
    """All tables of a host. `gaps` names what is known to be in force but was not shown to us."""

    tables: tuple[Table, ...] = ()
    gaps: tuple[str, ...] = ()


class NamedSet:
    """A named set or map. Its elements are read when a rule first looks into it."""

    def __init__(
        self, elements: t.Sequence[t.Any], read: Callable[[t.Sequence[t.Any]], Pool]
    ) -> None:
        self._elements = elements
        self._read = read
        self._pool: Pool | None = None

    def __call__(self) -> Pool:
        if self._pool is None:
            self._pool = self._read(self._elements)
        return self._pool
