# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiers: every limit is read or refused by name."""

from __future__ import annotations

import typing as t
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.tiers import LIMITS, Tier, TierError, parse_tiers


def test_a_whole_tier() -> None:
    limits = {limit: index + 1 for index, limit in enumerate(LIMITS)}
    tiers = parse_tiers({"standard": limits, "free-for.all_2": {}})
    assert tiers["standard"] == Tier("standard", **limits)
    assert tiers["free-for.all_2"] == Tier("free-for.all_2")
    assert {getattr(tiers["free-for.all_2"], limit) for limit in LIMITS} == {None}


def test_null_is_no_limit() -> None:
    assert parse_tiers({"a": dict.fromkeys(LIMITS)}) == {"a": Tier("a")}


def test_zero_where_it_makes_sense() -> None:
    limits = {"requests_per_minute": 1, "burst": 0, "max_images": 0, "max_keep_alive_seconds": 0}
    assert parse_tiers({"a": limits}) == {"a": Tier("a", **limits)}


def test_every_field_is_a_limit_with_bounds() -> None:
    for field in fields(Tier)[1:]:
        for value in (-1, 10**18):
            with pytest.raises(TierError, match=rf"^a\.{field.name}: must be a whole number"):
                parse_tiers({"a": {"requests_per_minute": 1, field.name: value}})


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (None, "at least one tier"),
        ({}, "at least one tier"),
        ([], "at least one tier"),
        ({"Standard": {}}, "a tier's name"),
        ({"": {}}, "a tier's name"),
        ({7: {}}, "a tier's name"),
        ({"a": None}, "a: must be an object"),
        ({"a": []}, "a: must be an object"),
        ({"a": {"request_per_minute": 1}}, "a: has an unknown limit"),
        ({"a": {"name": "b"}}, "a: has an unknown limit"),
        ({"a": {"burst": 1}}, "a.burst: is nothing without"),
        ({"a": {"burst": 1, "requests_per_minute": None}}, "a.burst: is nothing without"),
        ({"a": {"requests_per_minute": 0}}, "a.requests_per_minute: must be"),
        ({"a": {"parallel_requests": 0}}, "a.parallel_requests: must be"),
        ({"a": {"max_images": True}}, "a.max_images: must be"),
        ({"a": {"max_images": 1.0}}, "a.max_images: must be"),
        ({"a": {"max_images": "1"}}, "a.max_images: must be"),
        ({"good": {}, "bad": {"max_images": -1}}, "bad.max_images: must be"),
    ],
)
def test_what_is_refused_and_why(raw: t.Any, text: str) -> None:
    with pytest.raises(TierError) as caught:
        parse_tiers(raw)
    assert text in str(caught.value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(LIMITS), inner),
    max_leaves=8,
)


@given(JSON)
def test_anything_is_tiers_or_a_tier_error(raw: t.Any) -> None:
    try:
        tiers = parse_tiers(raw)
    except TierError:
        return
    assert {name: tier.name for name, tier in tiers.items()} == {name: name for name in raw}


@given(st.sampled_from(LIMITS), st.text(min_size=12))
def test_values_are_not_repeated(limit: str, value: str) -> None:
    with pytest.raises(TierError) as caught:
        parse_tiers({"a": {limit: value}})
    assert value not in str(caught.value)
