# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters in memory: what is forgotten, and when."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.quotas.memory import MemoryQuotas
from llm_key_validator.tiers import Tier

from ..conftest import NOW

DAY = 86400.0
EVERYTHING = Tier("a", requests_per_minute=60, burst=9, requests_per_day=99, parallel_requests=9)


def sweep_all(quotas: MemoryQuotas, now: float) -> None:
    """One sweep looks at some keys only."""
    for _unused in range(len(quotas) // 1000 + 3):
        quotas.sweep(now)


@pytest.mark.parametrize(
    ("limits", "forgotten_after"),
    [
        ({}, 0.0),
        ({"requests_per_minute": 1}, 60.0),
        ({"requests_per_day": 1}, DAY),
        ({"parallel_requests": 1}, 600.0),
    ],
)
def test_a_key_is_forgotten_when_nothing_depends_on_it(
    limits: dict[str, int], forgotten_after: float
) -> None:
    quotas = MemoryQuotas(lease_seconds=600.0)
    quotas.admit("a", Tier("a", **limits), "r1", NOW)
    sweep_all(quotas, NOW + forgotten_after - 1)
    assert len(quotas) == (1 if forgotten_after else 0)
    sweep_all(quotas, NOW + forgotten_after)
    assert len(quotas) == 0


def test_whoever_is_under_way_is_not_forgotten() -> None:
    quotas = MemoryQuotas(lease_seconds=600.0)
    tier = Tier("a", parallel_requests=1)
    assert quotas.admit("a", tier, "r1", NOW).allowed
    sweep_all(quotas, NOW + 599)
    assert not quotas.admit("a", tier, "r2", NOW + 599).allowed
    quotas.release("a", "r1")
    sweep_all(quotas, NOW + 599)
    assert len(quotas) == 0
    quotas.release("a", "r1")


def test_memory_is_bounded_by_what_still_matters() -> None:
    quotas = MemoryQuotas(lease_seconds=600.0)
    for number in range(5000):
        quotas.admit(f"key{number}", EVERYTHING, f"r{number}", NOW)
    sweep_all(quotas, NOW + 60)
    assert len(quotas) == 5000
    sweep_all(quotas, NOW + DAY)
    assert len(quotas) == 0


def test_one_key_does_not_hoard_lost_requests() -> None:
    quotas = MemoryQuotas(lease_seconds=600.0)
    tier = Tier("a", parallel_requests=1000)
    for number in range(1000):
        assert quotas.admit("a", tier, f"lost{number}", NOW).allowed
    assert not quotas.admit("a", tier, "r", NOW).allowed
    for number in range(1000):
        assert quotas.admit("a", tier, f"r{number}", NOW + 600).allowed
    assert not quotas.admit("a", tier, "r", NOW + 600).allowed


def test_a_sweep_is_short_and_gets_round(monkeypatch: pytest.MonkeyPatch) -> None:
    quotas = MemoryQuotas()
    for number in range(2500):
        quotas.admit(f"key{number}", Tier("free"), "r", NOW)
    left = []
    for _unused in range(5):
        quotas.sweep(NOW)
        left.append(len(quotas))
    assert max(one - other for one, other in pairwise(left)) <= 1000
    assert left[-1] == 0


@given(st.lists(st.tuples(st.integers(0, 90_000), st.sampled_from("abc"), st.booleans())))
def test_forgetting_changes_no_decision(steps: list[tuple[int, str, bool]]) -> None:
    swept, kept = MemoryQuotas(600.0), MemoryQuotas(600.0)
    tier = Tier("a", requests_per_minute=1, burst=1, requests_per_day=5, parallel_requests=2)
    now = NOW
    for number, (pause, key_id, ends) in enumerate(steps):
        now += pause
        sweep_all(swept, now)
        request_id = f"r{number}"
        seen = [one.admit(key_id, tier, request_id, now) for one in (swept, kept)]
        assert seen[0] == seen[1]
        if ends:
            swept.release(key_id, request_id)
            kept.release(key_id, request_id)
