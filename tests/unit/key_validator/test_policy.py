# SPDX-License-Identifier: GPL-3.0-or-later
"""What a key may ask for: each limit at its edge, and what the refusal says."""

from __future__ import annotations

import math
import typing as t

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from llm_key_validator.bodies import Asked, Prompt, Reading
from llm_key_validator.keys import RecordError, parse_record
from llm_key_validator.policy import Refusal, judge_model, judge_reading, judge_size, matcher
from llm_key_validator.tiers import Tier

NO_LIMITS = Tier("free")
CEILINGS = [
    ("max_output_tokens", "output_tokens"),
    ("max_context_tokens", "context_tokens"),
    ("max_keep_alive_seconds", "keep_alive_seconds"),
    ("max_choices", "choices"),
    ("max_messages", "messages"),
    ("max_images", "images"),
]


def reading(*models: str, prompt: str | None = None, **asked: t.Any) -> Reading:
    values = {
        **dict.fromkeys(("output_tokens", "context_tokens", "keep_alive_seconds", "choices")),
        **{"messages": 0, "images": 0, **asked},
    }
    written = None if prompt is None else Prompt(text=prompt, form="text", length=len(prompt))
    return Reading(models=models, operation="chat", prompt=written, asked=Asked(**values))


def reason(refusal: Refusal | None) -> str:
    return "" if refusal is None else refusal.reason


@pytest.mark.parametrize(
    ("globs", "models", "expected"),
    [
        ((), ("secret:latest",), ""),
        ((), (), ""),
        (("tiny",), (), ""),
        (("tiny",), ("tiny:latest",), ""),
        (("tiny",), ("secret:latest",), "model"),
        (("tiny",), ("tiny:latest", "secret:latest"), "model"),
        (("tiny", "sec*"), ("tiny:latest", "secret:latest"), ""),
        (("TINY:*",), ("tiny:q4",), ""),
        (("*",), ("hf.co/user/secret:latest",), ""),
        (("*:*",), ("user/secret:latest",), "model"),
    ],
)
def test_models(globs: tuple[str, ...], models: tuple[str, ...], expected: str) -> None:
    assert reason(judge_reading(globs, NO_LIMITS, reading(*models))) == expected


def test_a_model_that_may_not_be_used_is_not_named() -> None:
    refusal = judge_reading(("tiny",), NO_LIMITS, reading("secret:latest"))
    assert refusal is not None
    assert (refusal.status, refusal.headers) == (403, ())
    assert "secret" not in refusal.message


@pytest.mark.parametrize(
    ("globs", "name", "expected"),
    [
        (("tiny",), "TINY", ""),
        (("tiny",), "registry.ollama.ai/library/tiny:latest", ""),
        (("tiny",), "secret", "model"),
        (("tiny",), "", "model"),
        (("*",), "not a name", "model"),
        ((), "not a name", ""),
    ],
)
def test_a_model_in_the_path(globs: tuple[str, ...], name: str, expected: str) -> None:
    assert reason(judge_model(globs, name)) == expected


def test_matchers_are_made_once() -> None:
    assert matcher(("made", "once")) is matcher(("made", "once"))


GLOBS = st.text("aZ0._-:/*?", max_size=40) | st.lists(
    st.sampled_from(["tiny", "*", "?", "/", ":", "library", "registry.ollama.ai", "x" * 80]),
    max_size=8,
).map("".join)


@given(GLOBS)
@example("x" * 81)
@example("*" * 257)
@example("registry.ollama.ai/library/*")
def test_a_record_takes_the_globs_that_can_be_compiled_and_no_others(glob: str) -> None:
    raw = {"id": "a", "owner": "b", "sha256": "0" * 64, "models": [glob]}
    try:
        parse_record(raw, "keys[0]")
    except RecordError:
        with pytest.raises(ValueError, match="glob"):
            matcher((glob,))
    else:
        matcher((glob,))


@given(st.integers(1, 10**9), st.integers(-2, 2))
def test_size_of_the_body(limit: int, over: int) -> None:
    refusal = judge_size(Tier("a", max_body_bytes=limit), limit + over)
    assert (refusal is not None) is (over > 0)
    if refusal is not None:
        assert (refusal.reason, refusal.status) == ("body_size", 413)
        assert f"{limit} bytes" in refusal.message
        assert f"(max_body_bytes {limit})" in refusal.message


def test_no_limit_on_the_body() -> None:
    assert judge_size(NO_LIMITS, 2**40) is None


@pytest.mark.parametrize(("length", "expected"), [(0, ""), (5, ""), (6, "prompt_size")])
def test_size_of_the_prompt(length: int, expected: str) -> None:
    tier = Tier("a", max_prompt_characters=5)
    refusal = judge_reading((), tier, reading(prompt="p" * length))
    assert reason(refusal) == expected
    assert judge_reading((), tier, reading(prompt=None)) is None
    assert judge_reading((), NO_LIMITS, reading(prompt="p" * length)) is None
    if refusal is not None:
        assert refusal.status == 400
        assert "5 characters" in refusal.message
        assert "(max_prompt_characters 5)" in refusal.message


@pytest.mark.parametrize(("limit", "asked"), CEILINGS)
@pytest.mark.parametrize(
    ("value", "allowed"), [(0, True), (8, True), (8.5, False), (9, False), (math.inf, False)]
)
def test_ceilings(limit: str, asked: str, value: float, allowed: bool) -> None:
    tier = Tier("a", **{limit: 8})
    refusal = judge_reading((), tier, reading(**{asked: value}))
    assert (refusal is None) is allowed
    assert judge_reading((), NO_LIMITS, reading(**{asked: value})) is None
    if refusal is not None:
        assert (refusal.reason, refusal.status) == ("limit", 400)
        assert f"({limit} 8)" in refusal.message


@pytest.mark.parametrize(("limit", "asked"), CEILINGS[:4])
def test_what_is_not_said_is_not_judged(limit: str, asked: str) -> None:
    assert judge_reading((), Tier("a", **{limit: 1}), reading(**{asked: None})) is None


@pytest.mark.parametrize(("limit", "asked"), CEILINGS)
def test_what_cannot_be_compared_is_refused(limit: str, asked: str) -> None:
    tier = Tier("a", **{limit: 8})
    assert reason(judge_reading((), tier, reading(**{asked: math.nan}))) == "limit"


def test_a_ceiling_of_nothing() -> None:
    tier = Tier("a", max_images=0)
    assert judge_reading((), tier, reading(images=0)) is None
    assert reason(judge_reading((), tier, reading(images=1))) == "limit"


def test_the_model_comes_first() -> None:
    """Whoever may not use a model learns nothing about limits from it."""
    tier = Tier("a", max_prompt_characters=1, max_images=0)
    asked = reading("secret:latest", prompt="long", images=1)
    assert reason(judge_reading(("tiny",), tier, asked)) == "model"
    assert reason(judge_reading((), tier, asked)) == "prompt_size"
