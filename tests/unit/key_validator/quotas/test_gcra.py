# SPDX-License-Identifier: GPL-3.0-or-later
"""The rate limit's arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.quotas.gcra import Rate, fits, rate_of, remaining, used, wait

RATES = st.builds(rate_of, st.integers(1, 600_000), st.integers(0, 1_000_000))
INSTANTS = st.integers(0, 10**16)


@pytest.mark.parametrize(
    ("per_minute", "burst", "expected"),
    [
        (1, 0, Rate(60_000_000, 60_000_000)),
        (60, 9, Rate(1_000_000, 10_000_000)),
        (7, 0, Rate(8_571_429, 8_571_429)),
        (600_000, 1_000_000, Rate(100, 100_000_100)),
    ],
)
def test_rates(per_minute: int, burst: int, expected: Rate) -> None:
    assert rate_of(per_minute, burst) == expected


@given(st.integers(1, 600_000))
def test_rounding_never_allows_more_and_hardly_less(per_minute: int) -> None:
    a_minute = rate_of(per_minute, 0).interval * per_minute
    assert 60_000_000 <= a_minute < 60_000_000 * 1.011


@given(RATES, INSTANTS, INSTANTS)
def test_never_more_than_everything_is_used_up(rate: Rate, arrival: int, now: int) -> None:
    used_up = used(rate, arrival, now)
    assert 0 <= used_up <= rate.capacity
    assert used_up == arrival - now or used_up in (0, rate.capacity)


@given(RATES, st.data())
def test_what_fits_is_what_remains(rate: Rate, data: st.DataObject) -> None:
    used_up = data.draw(st.integers(0, rate.capacity))
    assert fits(rate, used_up) is (remaining(rate, used_up) > 0)


@given(RATES, st.data())
def test_it_fits_after_the_wait_and_not_before(rate: Rate, data: st.DataObject) -> None:
    used_up = data.draw(st.integers(rate.capacity - rate.interval + 1, rate.capacity))
    pause = wait(rate, used_up)
    assert pause > 0
    assert not fits(rate, used(rate, used_up, pause - 1))
    assert fits(rate, used(rate, used_up, pause))
