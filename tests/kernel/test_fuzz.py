# SPDX-License-Identifier: GPL-3.0-or-later
"""Zero disagreements: what the evaluator calls ACCEPT passes, what it calls DROP does not."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import Verdict

from tests.kernel import generate, trial
from tests.kernel.conftest import Plan, Tally
from tests.kernel.network import Network

PACKETS = 25  # per rule set
MOST_MAYBE = 0.02
SHOWN = 5  # disagreements


@dataclass(frozen=True)
class Kind:
    """A kind of rule sets: their tool, and how many by day and by night."""

    tools: str
    wild: bool
    day: int
    night: int

    @property
    def name(self) -> str:
        return f"wild-{self.tools}" if self.wild else self.tools


SUPPORTED = Kind("nft", False, 16, 240)
IPTABLES = Kind("iptables", False, 8, 120)
LEGACY = Kind("legacy", False, 8, 120)
WILD = Kind("nft", True, 8, 120)


def report(outcome: trial.Outcome, case: generate.Case) -> str:
    """Return all that is needed to see and to repeat a disagreement."""
    did = "let it pass" if outcome.passed else "dropped it"
    return "\n".join(
        [
            f"The kernel {did}, the evaluator says {outcome.judgement.verdict.name}: "
            + "; ".join(outcome.judgement.deciding),
            f"packet: {outcome.packet}",
            case.nft,
            *(f"{command}:\n{text}" for command, text in case.iptables.items()),
            f"again: ./dev test kernel --seed {case.seed}",
        ]
    )


def run(network: Network, plan: Plan, kind: Kind) -> tuple[Counter[str], list[str]]:
    """Return the number of cases by verdict ("passed" among them), and the disagreements."""
    counts: Counter[str] = Counter()
    reports: list[str] = []
    seeds = [
        f"{plan.base}-{kind.name}-{n}" for n in range(kind.night if plan.nightly else kind.day)
    ]
    if plan.only is not None:
        if plan.only.split("-", 1)[1].rpartition("-")[0] != kind.name:
            pytest.skip(f"--seed {plan.only} is of another kind")
        seeds = [plan.only]
    for seed in seeds:
        case = generate.case(seed, PACKETS, kind.tools, wild=kind.wild)
        for outcome in trial.run(network, case):
            counts[outcome.judgement.verdict.name] += 1
            counts["passed"] += outcome.passed
            if not outcome.agrees:
                reports.append(report(outcome, case))
    return counts, reports


def check(network: Network, plan: Plan, tally: Tally, kind: Kind) -> Counter[str]:
    counts, reports = run(network, plan, kind)
    cases = sum(counts[verdict.name] for verdict in Verdict)
    tally.lines.append(
        f"{kind.name}: {cases} cases, {counts['passed']} passed, {len(reports)} disagreements, "
        f"{counts['MAYBE']} MAYBE ({counts['MAYBE'] / cases:.2%})"
    )
    assert not reports, f"{len(reports)} disagreements\n\n" + "\n\n".join(reports[:SHOWN])
    if plan.only is None:
        # A test in which everything passes, or nothing, would say little.
        assert 0.1 < counts["passed"] / cases < 0.9
        assert counts["ACCEPT"] > cases / 10
        assert counts["DROP"] > cases / 10
    return counts


@pytest.mark.parametrize("kind", [SUPPORTED, IPTABLES], ids=lambda kind: kind.name)
def test_supported_forms_are_judged_as_the_kernel_does(network, plan, tally, kind):
    counts = check(network, plan, tally, kind)
    cases = counts["ACCEPT"] + counts["DROP"] + counts["MAYBE"]
    assert plan.only is not None or counts["MAYBE"] / cases < MOST_MAYBE


def test_legacy_tables_are_judged_as_the_kernel_does(network, plan, tally):
    if not network.has_legacy():
        tally.lines.append("legacy: not tested, this kernel has no legacy iptables")
        pytest.skip("this kernel has no legacy iptables")
    counts = check(network, plan, tally, LEGACY)
    cases = counts["ACCEPT"] + counts["DROP"] + counts["MAYBE"]
    assert plan.only is not None or counts["MAYBE"] / cases < MOST_MAYBE


def test_other_forms_never_lead_to_a_wrong_verdict(network, plan, tally):
    """Limits, translations, rewritten packets and the like: MAYBE as often as it takes."""
    check(network, plan, tally, WILD)
