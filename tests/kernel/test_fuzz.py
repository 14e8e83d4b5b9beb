# SPDX-License-Identifier: GPL-3.0-or-later
"""Zero disagreements: what the evaluator calls ACCEPT passes, what it calls DROP does not.

An example of Hypothesis is a whole rule set with its packets, all sent at once.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import Verdict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernel import generate, trial
from tests.kernel.conftest import Tally
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
    """Return all that is needed to see a disagreement."""
    did = "let it pass" if outcome.passed else "dropped it"
    return "\n".join(
        [
            f"The kernel {did}, the evaluator says {outcome.judgement.verdict.name}: "
            + "; ".join(outcome.judgement.deciding),
            f"packet: {outcome.packet}",
            case.nft,
            *(f"{command}:\n{text}" for command, text in case.iptables.items()),
        ]
    )


def run(network: Network, kind: Kind, *, nightly: bool) -> Counter[str]:
    """Return the number of cases by verdict ("passed" among them)."""
    counts: Counter[str] = Counter()

    @settings(
        max_examples=kind.night if nightly else kind.day,
        derandomize=not nightly,
        database=None,
        deadline=None,
        print_blob=True,  # how to run a failing rule set again
        suppress_health_check=list(HealthCheck),
    )
    @given(random=st.randoms(use_true_random=False))
    def agree(random):
        case = generate.case(random, PACKETS, kind.tools, wild=kind.wild)
        outcomes = trial.run(network, case)
        counts.update(outcome.judgement.verdict.name for outcome in outcomes)
        counts["passed"] += sum(outcome.passed for outcome in outcomes)
        reports = [report(outcome, case) for outcome in outcomes if not outcome.agrees]
        assert not reports, f"{len(reports)} disagreements\n\n" + "\n\n".join(reports[:SHOWN])

    agree()
    return counts


def check(network: Network, tally: Tally, kind: Kind, *, nightly: bool) -> Counter[str]:
    counts = run(network, kind, nightly=nightly)
    cases = sum(counts[verdict.name] for verdict in Verdict)
    tally.lines.append(
        f"{kind.name}: {cases} cases, {counts['passed']} passed, no disagreement, "
        f"{counts['MAYBE']} MAYBE ({counts['MAYBE'] / cases:.2%})"
    )
    assert cases >= (kind.night if nightly else kind.day) * PACKETS
    # A test in which everything passes, or nothing, would say little.
    assert 0.1 < counts["passed"] / cases < 0.9
    assert counts["ACCEPT"] > cases / 10
    assert counts["DROP"] > cases / 10
    return counts


def maybes(counts: Counter[str]) -> float:
    return counts["MAYBE"] / sum(counts[verdict.name] for verdict in Verdict)


@pytest.mark.parametrize("kind", [SUPPORTED, IPTABLES], ids=lambda kind: kind.name)
def test_supported_forms_are_judged_as_the_kernel_does(network, nightly, tally, kind):
    assert maybes(check(network, tally, kind, nightly=nightly)) < MOST_MAYBE


def test_legacy_tables_are_judged_as_the_kernel_does(network, nightly, tally):
    if not network.has_legacy():
        tally.lines.append("legacy: not tested, this kernel has no legacy iptables")
        pytest.skip("this kernel has no legacy iptables")
    assert maybes(check(network, tally, LEGACY, nightly=nightly)) < MOST_MAYBE


def test_other_forms_never_lead_to_a_wrong_verdict(network, nightly, tally):
    """Limits, translations, rewritten packets and the like: MAYBE as often as it takes."""
    check(network, tally, WILD, nightly=nightly)
