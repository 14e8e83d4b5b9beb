# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Follow a packet through a rule set: ACCEPT, DROP, or MAYBE, and the rules that decided.

A packet passes a hook when every base chain there lets it go; an accept ends one base chain only,
a drop ends everything. Where a match may go either way, both ways are followed at once: a chain
yields the set of ends it can come to, so the work grows with the number of rules, never with the
number of ways through them. ACCEPT or DROP means that all ways agree.
"""

from __future__ import annotations

import enum
import typing as t
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.collector import (
    paused_collector,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.packets import Packet
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import (
    ABSENT,
    Assign,
    Chain,
    Foreign,
    Jump,
    Mapped,
    Notrack,
    Perhaps,
    Rule,
    Ruleset,
    Step,
    Switch,
    Table,
    Terminal,
    Test,
    Update,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.view import (
    NOT_TRANSLATED,
    WALKS,
    PacketView,
)

__all__ = ("Judgement", "Verdict", "judge", "judge_path")


class Verdict(enum.Enum):
    """What becomes of the packet. A reject is a DROP; MAYBE is never a pass."""

    ACCEPT = "accept"
    DROP = "drop"
    MAYBE = "maybe"


class Judgement(t.NamedTuple):
    """The verdict and, in words, the rules and policies that decided it."""

    verdict: Verdict
    deciding: tuple[str, ...]


# The ends a chain can come to.
_ACCEPT, _DROP, _FOREIGN, _FALL = 1, 2, 4, 8

_MAX_DEPTH = 128  # of jumps; the kernel allows 16 in nft, iptables-legacy as many as it has chains
_MAX_RULES = 3_000_000  # on one way: seconds of work
_SHOWN = 6  # reasons per end
_CONTINUE = Terminal("continue")

# nf_nat runs every nat chain of a hook from one place, whatever priority the chain asked for.
_NAT_PRIORITIES = {"prerouting": -100, "output": -100, "input": 100, "postrouting": 100}


def judge(ruleset: Ruleset, packet: Packet, hook: str = "input") -> Judgement:
    """Judge a packet on its whole way: received ("input"), sent ("output"), passed on ("forward").

    The chains at prerouting, postrouting, ingress and egress on that way count. Raises ValueError
    for another hook.
    """
    if hook not in WALKS:
        raise ValueError(f"{hook!r} is no hook to judge at (one of {', '.join(WALKS)})")
    return judge_path(ruleset, packet, WALKS[hook], judged_at=hook)


@paused_collector()
def judge_path(
    ruleset: Ruleset, packet: Packet, hooks: Iterable[str], *, judged_at: str | None = None
) -> Judgement:
    """Judge a packet at the given hooks only, in their order."""
    hooks = tuple(hooks)
    if judged_at is None:
        judged_at = next((hook for hook in hooks if hook in WALKS), "input")
    walk = _Walk(ruleset, packet, judged_at)
    try:
        if packet.ct_state in ("established", "related", None):
            walk.follow_known_connection()
        for hook in hooks:
            if not walk.pass_hook(hook):
                break
    except _TooMuchError:
        walk.doubt_because_of_size()
    return walk.judgement()


@dataclass
class _Ends:
    """The ends a chain may come to, with a few reasons for each."""

    found: int = 0
    reasons: dict[int, list[str]] = field(default_factory=dict)

    def add(self, end: int, reason: t.Callable[[], str]) -> None:
        self.found |= end
        known = self.reasons.setdefault(end, [])
        if len(known) < _SHOWN:
            text = reason()
            if text not in known:
                known.append(text)

    def merge(self, other: _Ends, ends: int) -> None:
        self.found |= other.found & ends
        for end, reasons in other.reasons.items():
            if end & ends:
                known = self.reasons.setdefault(end, [])
                known += [reason for reason in reasons if reason not in known]
                del known[_SHOWN:]


class _BaseChain(t.NamedTuple):
    priority: int
    table: Table
    chain: Chain
    sure: bool  # whether this packet passes this chain at all


class _Walk:
    """One packet on its way."""

    def __init__(self, ruleset: Ruleset, packet: Packet, judged_at: str) -> None:
        self._ruleset = ruleset
        self._packet = packet
        self._view = PacketView(packet, judged_at)
        self._budget = _Budget()
        self._places: list[str] = []
        self._through = True
        self._accepted: list[str] = []
        self._dropped: list[str] = []
        # Reasons to doubt, and whether they could only add a drop, or do anything.
        self._doubts: list[str] = list(ruleset.gaps)
        self._anything = bool(ruleset.gaps)

    def judgement(self) -> Judgement:
        if self._through and not self._doubts:
            nothing = f"no chain at {', '.join(self._places)} for family {self._packet.family}"
            return Judgement(Verdict.ACCEPT, tuple(self._accepted or [nothing]))
        if not self._through and not self._anything:
            return Judgement(Verdict.DROP, tuple(self._dropped))
        return Judgement(Verdict.MAYBE, tuple(dict.fromkeys(self._doubts + self._dropped)))

    def pass_hook(self, hook: str) -> bool:
        """Go through all base chains of a hook; False when no way leads on."""
        self._places.append(hook)
        chains = self._base_chains(hook)
        while chains and self._through:
            together = [each for each in chains if each.priority == chains[0].priority]
            chains = chains[len(together) :]
            self._through = self._pass_equals(hook, together)
        return self._through

    def follow_known_connection(self) -> None:
        """Doubt what belongs to a connection that the nat chains may have translated.

        They see its first packet only, in its direction; what they decided is in force for all
        others, both ways.
        """
        unknown = replace(self._packet, ct_state=None, user_id=None, group_id=None)
        for packet in (unknown, _reversed(unknown)):
            view = PacketView(packet, "output" if packet.in_interface is None else "input")
            for table in self._ruleset.tables:
                for chain in table.chains.values():
                    if table.dormant is True or chain.kind != "nat" or chain.hook is None:
                        continue
                    if table.family not in ("inet", packet.family):
                        continue
                    view.enter(chain.hook, chain.priority)
                    ends = _Run(table, view, self._budget, sure=False).base_chain(chain)
                    if ends.found & _FOREIGN:
                        self._doubt_everything(ends.reasons[_FOREIGN])

    def doubt_because_of_size(self) -> None:
        """Give up: the rules jump about too much."""
        self._doubt_everything([f"more than {_MAX_RULES} rules on the way"])

    def _doubt_everything(self, reasons: Iterable[str]) -> None:
        self._doubts += reasons
        self._anything = True

    # -- Base chains -------------------------------------------------------------------------------

    def _base_chains(self, hook: str) -> list[_BaseChain]:
        found = [
            _BaseChain(_effective_priority(hook, chain), table, chain, sure)
            for table in self._ruleset.tables
            if table.dormant is not True
            for chain in table.chains.values()
            if chain.hook == hook and (sure := self._passes(table, chain)) is not None
        ]
        return sorted(found, key=lambda each: each.priority)

    def _passes(self, table: Table, chain: Chain) -> bool | None:
        """Say whether the packet meets a base chain: None for no, False for perhaps."""
        sure = table.dormant is False
        if chain.hook in ("ingress", "egress"):
            if table.family not in ("netdev", "inet") or self._is_loopback(chain):
                return None
            return sure and self._device(chain) in (chain.devices or ())
        if table.family in ("inet", self._packet.family):
            return sure
        if table.family == "bridge" and not self._is_loopback(chain):
            return False  # only if the interface is a bridge
        return None

    def _device(self, chain: Chain) -> str | None:
        outward = chain.hook in ("egress", "output", "postrouting")
        return self._packet.out_interface if outward else self._packet.in_interface

    def _is_loopback(self, chain: Chain) -> bool:
        """Say whether the packet goes through lo, which is part of no bridge, bond or VLAN."""
        return self._device(chain) == "lo" and "lo" not in (chain.devices or ())

    def _pass_equals(self, hook: str, chains: Sequence[_BaseChain]) -> bool:
        """Pass base chains of one priority, whose order the listing does not tell.

        What any of them writes is unknown to the others.
        """
        if len(chains) == 1:
            return self._pass_base_chain(hook, chains[0])
        written = dict(self._view.written)
        lengths = len(self._accepted), len(self._dropped), len(self._doubts), self._anything
        passed = self._pass_each(hook, chains)
        changed = {k for k, v in self._view.written.items() if written.get(k, v) != v}
        changed |= self._view.written.keys() - written.keys()
        if not changed:
            return passed
        del self._accepted[lengths[0] :], self._dropped[lengths[1] :], self._doubts[lengths[2] :]
        self._anything = lengths[3]
        passed = self._pass_each(hook, chains, unknown=changed)
        self._forget(changed)
        return passed

    def _pass_each(
        self, hook: str, chains: Sequence[_BaseChain], unknown: Iterable[str] = ()
    ) -> bool:
        passed = True
        for each in chains:
            self._forget(unknown)
            passed = self._pass_base_chain(hook, each) and passed
        return passed

    def _forget(self, names: Iterable[str]) -> None:
        for name in names:
            self._view.written[name] = None

    def _pass_base_chain(self, hook: str, base: _BaseChain) -> bool:
        """Record what a base chain does; False when it certainly does not let the packet go on."""
        self._view.enter(hook, base.priority)
        sure = base.sure
        if base.chain.kind == "nat":
            visited = self._visits_nat(hook)
            if visited is False:
                return True
            sure = sure and visited is True
        run = _Run(base.table, self._view, self._budget, sure=sure)
        ends = run.base_chain(base.chain)
        if ends.found == _DROP and sure:
            self._dropped += ends.reasons[_DROP]
            return False
        self._accepted += ends.reasons.get(_ACCEPT, [])
        if ends.found == _ACCEPT:
            return True
        if ends.found & _FOREIGN:
            self._doubt_everything(ends.reasons[_FOREIGN])
        self._doubts += run.doubts + ends.reasons.get(_DROP, [])
        return bool(ends.found & _ACCEPT) or not sure

    def _visits_nat(self, hook: str) -> bool | None:
        """Say whether nat chains see the packet: the first of a connection, once in each direction.

        One from the loopback interface has passed those at output and postrouting already.
        """
        state = self._view.state
        if state in NOT_TRANSLATED:
            return False
        received = hook in ("prerouting", "input")
        if received and self._packet.in_interface == "lo":
            return False
        unknown = state is None or (received and self._packet.in_interface is None)
        return None if unknown else True


def _effective_priority(hook: str, chain: Chain) -> int:
    return _NAT_PRIORITIES.get(hook, chain.priority) if chain.kind == "nat" else chain.priority


def _reversed(packet: Packet) -> Packet:
    return replace(
        packet,
        source=packet.destination,
        destination=packet.source,
        source_port=packet.destination_port,
        destination_port=packet.source_port,
        in_interface=None,
        out_interface=None,
        tcp_flags=None,
        mark=None,
        destination_type=None,
        reverse_path=None,
    )


class _TooMuchError(Exception):
    """Raised when a walk does not come to an end in reasonable time."""


class _Budget:
    """Counts the rules of a walk: jumps can make them exponentially many."""

    def __init__(self) -> None:
        self._left = _MAX_RULES

    def spend(self, rules: int) -> None:
        self._left -= rules + 1
        if self._left < 0:
            raise _TooMuchError


class _Run:
    """One base chain of one table, and the chains it jumps to."""

    def __init__(self, table: Table, view: PacketView, budget: _Budget, *, sure: bool) -> None:
        self._table = table
        self._view = view
        self._budget = budget
        self._updated: set[str] = set()
        self._known: dict[tuple[t.Any, ...], _Ends] = {}
        self._stack: list[str] = []
        # Whether every step so far was certain to be taken: else writes only widen what is known.
        self._certain = sure
        self.doubts: list[str] = []

    def base_chain(self, chain: Chain) -> _Ends:
        """Return the ends of a base chain: falling off its end is its policy."""
        ends = self._chain(chain)
        if ends.found & _FALL:
            end = _ACCEPT if chain.policy == "accept" else _DROP
            ends.add(
                end,
                lambda: f"policy {chain.policy} of {self._table.describe()}, chain {chain.name}",
            )
            ends.found &= ~_FALL
        return ends

    def _chain(self, chain: Chain) -> _Ends:
        """Return the ends of a chain: in the same state it comes to the same ends as before."""
        before = self._state(chain)
        if before in self._known:
            return self._known[before]
        ends = _Ends()
        if len(self._stack) >= _MAX_DEPTH or chain.name in self._stack:
            for end in (_ACCEPT, _DROP, _FOREIGN):
                ends.add(end, lambda: f"jumps too deep in {self._table.describe()}")
            return ends
        self._budget.spend(len(chain.rules))
        self._stack.append(chain.name)
        for rule in chain.rules:
            if not self._rule(chain, rule, ends):
                break
        else:
            ends.found |= _FALL
        self._stack.pop()
        if before == self._state(chain):
            self._known[before] = ends
        return ends

    def _state(self, chain: Chain) -> tuple[t.Any, ...]:
        written = tuple(sorted(self._view.written.items(), key=lambda item: item[0]))
        return chain.name, self._certain, written, len(self._updated)

    # -- Rules -------------------------------------------------------------------------------------

    def _rule(self, chain: Chain, rule: Rule, ends: _Ends) -> bool:
        """Apply a rule; False when no way leads to the next one."""
        matched = True
        for step in rule.steps:
            if isinstance(step, Test):
                holds = self._holds(step)
                if holds is False:
                    break
                matched = matched and holds is True
            elif isinstance(step, Perhaps):
                matched = False
            elif isinstance(step, Foreign) and not step.certain:
                self._end_anyhow(chain, rule, ends)
                matched = False
            elif isinstance(step, (Terminal, Jump, Switch, Foreign)):
                return self._decide(chain, rule, step, ends, matched=matched)
            else:
                runs = self._write(step, matched=matched)
                if runs is False:
                    break
                matched = runs is True
        return True

    def _holds(self, test: Test) -> bool | None:
        value = test.left.evaluate(self._view)
        if value is ABSENT:
            return False
        if test.named is not None and test.named in self._updated:
            return None
        found = test.pool().contains(value)
        return None if found is None else found is not test.negated

    def _write(self, step: Step, *, matched: bool) -> bool | None:
        """Change what later rules see; return whether the rest of the rule runs (None: perhaps)."""
        certain = matched and self._certain
        if isinstance(step, Assign):
            value = step.value.evaluate(self._view)
            if value is ABSENT:
                return False
            number = value if isinstance(value, int) else None
            # A key that its map may not have may end the rule.
            surely = number is not None or not isinstance(step.value, Mapped)
            self._view.write(step.field, number, certain=certain and surely)
            return True if matched and surely else None
        if isinstance(step, Update):
            self._updated.add(step.name)
        elif isinstance(step, Notrack):
            self._view.notrack(certain=certain)
        return True if matched else None

    # -- Verdicts ----------------------------------------------------------------------------------

    def _decide(self, chain: Chain, rule: Rule, step: Step, ends: _Ends, *, matched: bool) -> bool:
        """Follow a verdict; return whether a way leads on to the next rule."""
        verdicts: tuple[Step, ...] = (step,)
        sure = matched
        if isinstance(step, Switch):
            key = step.key.evaluate(self._view)
            if key is ABSENT:
                return True
            hits = step.pool().look_up(key)
            verdicts = tuple(dict.fromkeys(hits.data))
            sure = matched and not hits.may_miss and len(verdicts) == 1
            sure = sure and step.named not in self._updated
        verdicts = tuple(verdict for verdict in verdicts if verdict != _CONTINUE)
        if not verdicts:
            return True
        if not sure and len(self.doubts) < _SHOWN:
            self.doubts.append(f"perhaps {self._place(chain)}, {rule.describe()}")
        follows = [self._follow(chain, rule, each, ends, sure=sure) for each in verdicts]
        return not sure or any(follows)

    def _follow(self, chain: Chain, rule: Rule, verdict: Step, ends: _Ends, *, sure: bool) -> bool:
        """Follow one verdict; return whether it leads on to the next rule."""
        certain = self._certain
        self._certain = certain and sure
        if isinstance(verdict, Jump):
            return self._jump(chain, rule, verdict, ends, certain=certain)
        end = _FOREIGN
        if isinstance(verdict, Terminal):
            end = {"accept": _ACCEPT, "drop": _DROP, "return": _FALL}[verdict.verdict]
        ends.add(end, lambda: f"{self._place(chain)}, {rule.describe()}")
        return False

    def _jump(self, chain: Chain, rule: Rule, jump: Jump, ends: _Ends, *, certain: bool) -> bool:
        target = self._table.chains.get(jump.target)
        if target is None:
            self._end_anyhow(chain, rule, ends)
            return True
        inside = self._chain(target)
        ends.merge(inside, ~_FALL)
        falls = bool(inside.found & _FALL)
        if jump.goto:
            ends.found |= inside.found & _FALL
            return False
        # All ways through the other chain come back here, whether it was certain or not.
        self._certain = certain if inside.found == _FALL else False
        return falls

    def _end_anyhow(self, chain: Chain, rule: Rule, ends: _Ends) -> None:
        for end in (_ACCEPT, _DROP, _FOREIGN):
            ends.add(end, lambda: f"not understood: {self._place(chain)}, {rule.describe()}")
        self._certain = False

    def _place(self, chain: Chain) -> str:
        return f"{self._table.describe()}, chain {chain.name}"
