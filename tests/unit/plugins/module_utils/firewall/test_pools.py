# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.pools import (
    ANYTHING,
    Pool,
)
from hypothesis import given
from hypothesis import strategies as st

SMALL = st.integers(0, 12)
RANGES = st.tuples(SMALL, SMALL).map(lambda pair: (min(pair), max(pair)))
BOXES = st.tuples(RANGES, RANGES)


@given(st.lists(RANGES, max_size=8), SMALL)
def test_a_set_holds_what_a_range_holds(ranges, value):
    assert Pool(ranges).contains(value) is any(low <= value <= high for low, high in ranges)


@given(st.lists(RANGES, max_size=8), SMALL)
def test_a_map_gives_the_data_of_the_ranges(ranges, value):
    pool = Pool(ranges, data=[f"d{index}" for index in range(len(ranges))])
    expected = {f"d{i}" for i, (low, high) in enumerate(ranges) if low <= value <= high}
    hits = pool.look_up(value)
    assert set(hits.data) == expected
    assert hits.may_miss is not bool(expected)


@given(st.lists(BOXES, max_size=8), SMALL, SMALL)
def test_a_set_of_boxes_holds_what_a_box_holds(boxes, x, y):
    expected = any(a <= x <= b and c <= y <= d for (a, b), (c, d) in boxes)
    assert Pool(boxes, dimensions=2).contains((x, y)) is expected


@given(st.lists(BOXES, max_size=8), SMALL)
def test_an_unknown_part_may_be_anything(boxes, x):
    found = Pool(boxes, dimensions=2).contains((x, None))
    possible = any(low <= x <= high for (low, high), _other in boxes)
    assert found is (None if possible else False)


@given(st.lists(BOXES, max_size=8), SMALL, SMALL)
def test_a_map_of_boxes_gives_all_it_may_give(boxes, x, y):
    pool = Pool(boxes, dimensions=2, data=list(range(len(boxes))))
    expected = {i for i, ((a, b), (c, d)) in enumerate(boxes) if a <= x <= b and c <= y <= d}
    assert set(pool.look_up((x, y)).data) == expected


def test_an_unknown_value_may_be_in_a_set_that_is_not_empty():
    assert Pool([(1, 2)]).contains(None) is None
    assert Pool([]).contains(None) is False
    assert Pool([(1, 1)], data=["a"]).look_up(None) == (("a",), True)


def test_the_catch_all_element_is_found_last():
    pool = Pool([(1, 1)], data=["one"], catchall=("rest",))
    assert pool.look_up(1) == (("one",), False)
    assert pool.look_up(2) == (("rest",), False)
    assert pool.look_up(None) == (("one", "rest"), False)
    assert ANYTHING.contains(None) is True


@pytest.mark.parametrize("dimensions", [1, 2])
def test_what_is_not_found_may_be_among_the_unread(dimensions):
    value = 5 if dimensions == 1 else (5, 5)
    assert Pool([], dimensions=dimensions, incomplete=True).contains(value) is None
    assert Pool([], dimensions=dimensions, data=[], incomplete=True).look_up(value).may_miss


def test_a_large_set_is_searched_not_scanned():
    pool = Pool([(each * 10, each * 10 + 3) for each in range(100_000)])
    assert pool.contains(500_003)
    assert not pool.contains(500_004)
