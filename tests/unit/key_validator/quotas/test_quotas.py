# SPDX-License-Identifier: GPL-3.0-or-later
"""How requests are counted, wherever they are counted: each test runs on both places."""

from __future__ import annotations

import typing as t

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llm_key_validator.quotas.admission import DAY, Admission
from llm_key_validator.tiers import Tier

from .conftest import LEASE, Counter, MemoryCounter, SharedCounter

SECOND = 1_000_000
# Each example counts for a key of its own.
few = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def words(counter: Counter, key_id: str, tier: Tier, times: int) -> list[str]:
    """The reasons of so many requests at once, each of them a new one."""
    return [counter.admit(key_id, tier).reason for _unused in range(times)]


def test_without_limits_everything_passes(counter: Counter) -> None:
    assert counter.admit("a", Tier("free")) == Admission(True)


def test_a_burst_and_then_the_steady_pace(counter: Counter) -> None:
    tier = Tier("a", requests_per_minute=60, burst=2)
    assert words(counter, "a", tier, 5) == ["", "", "", "rate", "rate"]
    counter.now += SECOND - 1
    assert words(counter, "a", tier, 1) == ["rate"]
    counter.now += 1
    assert words(counter, "a", tier, 2) == ["", "rate"]
    counter.now += 3600 * SECOND
    assert words(counter, "a", tier, 4) == ["", "", "", "rate"]


def test_without_a_burst_one_comes_at_a_time(counter: Counter) -> None:
    tier = Tier("a", requests_per_minute=1)
    assert words(counter, "a", tier, 2) == ["", "rate"]
    counter.now += 60 * SECOND
    assert words(counter, "a", tier, 2) == ["", "rate"]


def test_what_is_said_about_the_rate(counter: Counter) -> None:
    tier = Tier("a", requests_per_minute=20, burst=2, requests_per_day=1000)
    assert counter.admit("a", tier) == Admission(True, "", 0, limit=3, remaining=2, reset=3)
    assert counter.admit("a", tier) == Admission(True, "", 0, limit=3, remaining=1, reset=6)
    counter.now += SECOND // 2
    assert counter.admit("a", tier) == Admission(True, "", 0, limit=3, remaining=0, reset=9)
    refused = counter.admit("a", tier)
    assert refused == Admission(False, "rate", 3, limit=3, remaining=0, reset=9)
    counter.now += refused.retry_after * SECOND
    assert counter.admit("a", tier).allowed


def test_days_end_at_midnight_utc(counter: Counter) -> None:
    tier = Tier("a", requests_per_day=2)
    counter.now += DAY - 10 * SECOND
    assert counter.admit("a", tier) == Admission(True, "", 0, limit=2, remaining=1, reset=10)
    assert counter.admit("a", tier) == Admission(True, "", 0, limit=2, remaining=0, reset=10)
    counter.now += SECOND // 2
    assert counter.admit("a", tier) == Admission(False, "day", 10, limit=2, remaining=0, reset=10)
    counter.now += 10 * SECOND - SECOND // 2 - 1
    assert words(counter, "a", tier, 1) == ["day"]
    counter.now += 1
    assert words(counter, "a", tier, 3) == ["", "", "day"]


def test_the_day_speaks_for_itself_when_it_refuses(counter: Counter) -> None:
    tier = Tier("a", requests_per_minute=60, burst=9, requests_per_day=1)
    assert counter.admit("a", tier).limit == 10
    counter.now += DAY - 7 * SECOND
    counter.now += DAY
    assert counter.admit("a", tier).allowed
    assert counter.admit("a", tier) == Admission(False, "day", 7, limit=1, remaining=0, reset=7)


def test_places_are_taken_and_given_back(counter: Counter) -> None:
    tier = Tier("a", parallel_requests=2)
    assert counter.admit("a", tier, "r1").allowed
    assert counter.admit("a", tier, "r2").allowed
    assert counter.admit("a", tier, "r3") == Admission(False, "parallel", 1)
    counter.release("a", "r1")
    assert counter.admit("a", tier, "r3").allowed
    assert counter.admit("a", tier, "r4").reason == "parallel"


def test_giving_back_is_harmless(counter: Counter) -> None:
    tier = Tier("a", parallel_requests=1)
    counter.release("a", "never")
    assert counter.admit("a", tier, "r1").allowed
    for key_id, request_id in (("a", "r2"), ("b", "r1"), ("a", "")):
        counter.release(key_id, request_id)
        assert counter.admit("a", tier, "r2").reason == "parallel"
    counter.release("a", "r1")
    counter.release("a", "r1")
    assert counter.admit("a", tier, "r2").allowed
    assert counter.admit("a", tier, "r3").reason == "parallel"


def test_one_request_takes_one_place(counter: Counter) -> None:
    tier = Tier("a", parallel_requests=1)
    assert counter.admit("a", tier, "r1").allowed
    assert counter.admit("a", tier, "r1").allowed
    assert counter.admit("a", tier, "r2").reason == "parallel"
    counter.release("a", "r1")
    assert counter.admit("a", tier, "r2").allowed


def test_a_lost_request_gives_its_place_back_when_its_lease_is_over(counter: Counter) -> None:
    tier = Tier("a", parallel_requests=2)
    assert counter.admit("a", tier, "r1").allowed
    counter.now += 10 * SECOND
    assert counter.admit("a", tier, "r2").allowed
    counter.now += (LEASE - 10) * SECOND - 1
    assert counter.admit("a", tier, "r3").reason == "parallel"
    counter.now += 1
    assert counter.admit("a", tier, "r3").allowed
    assert counter.admit("a", tier, "r4").reason == "parallel"


def test_asking_again_begins_the_lease_anew(counter: Counter) -> None:
    tier = Tier("a", parallel_requests=2)
    for request_id in ("r1", "r2"):
        assert counter.admit("a", tier, request_id).allowed
    counter.now += 10 * SECOND
    assert counter.admit("a", tier, "r1").allowed
    counter.now += (LEASE - 10) * SECOND
    assert words(counter, "a", tier, 2) == ["", "parallel"]


def test_keys_do_not_share(counter: Counter) -> None:
    tier = Tier("a", requests_per_minute=1, requests_per_day=1, parallel_requests=1)
    assert counter.admit("a", tier, "r1").allowed
    assert counter.admit("b", tier, "r1").allowed
    assert not counter.admit("a", tier, "r2").allowed


@pytest.mark.parametrize("reason", ["rate", "day", "parallel"])
def test_who_is_refused_by_one_quota_uses_up_none(counter: Counter, reason: str) -> None:
    """Each tier has one narrow quota and two wide ones; only admitted requests count for those."""
    narrow: dict[str, t.Any] = {
        "rate": {"requests_per_minute": 1},
        "day": {"requests_per_day": 1},
        "parallel": {"parallel_requests": 1},
    }[reason]
    wide = {"requests_per_minute": 60, "requests_per_day": 3, "parallel_requests": 3}
    tier = Tier("narrow", **{**wide, "burst": 2 if reason != "rate" else 0, **narrow})
    assert words(counter, "a", tier, 5) == ["", *[reason] * 4]
    counter.now += 1
    # Two more of each that was not the narrow one are left.
    rest = {name: value for name, value in wide.items() if name not in narrow}
    after = Tier("wide", **rest, burst=2 if "requests_per_minute" in rest else None)
    assert words(counter, "a", after, 3)[:2] == ["", ""]
    assert words(counter, "a", after, 1) != [""]


def test_the_longest_wait_is_said(counter: Counter) -> None:
    everything = {"requests_per_minute": 1, "requests_per_day": 1, "parallel_requests": 1}
    assert counter.admit("a", Tier("a", **everything)).allowed
    assert counter.admit("a", Tier("a", **everything)).reason == "day"
    del everything["requests_per_day"]
    assert counter.admit("a", Tier("a", **everything)).reason == "rate"
    del everything["requests_per_minute"]
    assert counter.admit("a", Tier("a", **everything)).reason == "parallel"


def test_a_key_may_change_its_tier(counter: Counter) -> None:
    assert words(counter, "a", Tier("wide", requests_per_day=5), 3) == ["", "", ""]
    narrow = counter.admit("a", Tier("narrow", requests_per_day=2))
    assert (narrow.reason, narrow.limit, narrow.remaining) == ("day", 2, 0)
    assert words(counter, "a", Tier("free"), 3) == ["", "", ""]
    assert words(counter, "a", Tier("wide", requests_per_day=5), 3) == ["", "", "day"]


def test_a_clock_set_back_does_not_lock_out(counter: Counter) -> None:
    tier = Tier("a", requests_per_minute=60, burst=1)
    assert words(counter, "a", tier, 3) == ["", "", "rate"]
    counter.now -= 3600 * SECOND
    refused = counter.admit("a", tier)
    assert (refused.reason, refused.retry_after) == ("rate", 1)
    counter.now += SECOND
    assert words(counter, "a", tier, 2) == ["", "rate"]


def test_a_clock_that_goes_back_over_midnight_does_not_begin_the_day_anew(
    counter: Counter,
) -> None:
    tier = Tier("a", requests_per_day=1)
    counter.now += DAY
    assert words(counter, "a", tier, 2) == ["", "day"]
    counter.now -= SECOND
    assert words(counter, "a", tier, 1) == ["day"]
    counter.now += 2 * SECOND
    assert words(counter, "a", tier, 1) == ["day"]
    counter.now -= 3 * DAY
    assert words(counter, "a", tier, 2) == ["", "day"]


@few
@given(
    per_minute=st.integers(1, 600_000),
    burst=st.integers(0, 20),
    pauses=st.lists(st.integers(0, 3) | st.integers(0, 10**8), min_size=1, max_size=40),
)
def test_in_no_stretch_of_time_more_than_the_rate_allows(
    counter: Counter, per_minute: int, burst: int, pauses: list[int]
) -> None:
    tier, key_id = Tier("a", requests_per_minute=per_minute, burst=burst), counter.fresh()
    admitted = []
    for pause in pauses:
        counter.now += pause
        if counter.admit(key_id, tier).allowed:
            admitted.append(counter.now)
    assert admitted, "the first one always passes"
    for first, begin in enumerate(admitted):
        for last, end in enumerate(admitted[first:], first):
            allowed = burst + 1 + per_minute * (end - begin) / 60_000_000
            assert last - first + 1 <= allowed


def steps(forward: list[int], backward: list[int], places: list[int | None]) -> t.Any:
    """Lists of: how far the clock goes, the key's tier, a request, and whether that ends then."""
    tiers = st.builds(
        Tier,
        name=st.just("a"),
        requests_per_minute=st.sampled_from([None, 1, 7, 60, 600_000]),
        burst=st.sampled_from([None, 0, 3]),
        requests_per_day=st.sampled_from([None, 1, 5]),
        parallel_requests=st.sampled_from(places),
    )
    pauses = st.sampled_from(forward + backward)
    step = st.tuples(pauses, tiers, st.sampled_from("abcdef"), st.booleans())
    return st.lists(step, max_size=25)


FORWARD = [0, 1, 1000, SECOND, 9 * SECOND, LEASE * SECOND, DAY]


# When the clock goes back, both may remember a lost request for longer, and not equally long.
@few
@given(steps(FORWARD, [], [None, 1, 3]) | steps(FORWARD, [-1, -SECOND, -DAY], [None]))
def test_both_places_count_alike(
    shared: SharedCounter, taken: list[tuple[int, Tier, str, bool]]
) -> None:
    memory, key_id = MemoryCounter(), shared.fresh()
    memory.now = shared.now
    for pause, tier, request_id, ends in taken:
        memory.now += pause
        shared.now += pause
        seen = [counter.admit(key_id, tier, request_id) for counter in (memory, shared)]
        assert seen[0] == seen[1]
        if ends:
            for counter in (memory, shared):
                counter.release(key_id, request_id)
