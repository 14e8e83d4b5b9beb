# SPDX-License-Identifier: GPL-3.0-or-later
"""The figures that ceilings apply to, under all of their names."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.bodies.asked import Asked, read_asked
from llm_key_validator.bodies.errors import BodyError


def asked(conversation="messages", /, **request):
    return read_asked(request, conversation)


def test_nothing_said():
    silent = {"options": None, "keep_alive": None, "max_tokens": None, "n": None, "messages": None}
    assert asked() == asked(**silent) == asked(options={"num_predict": None}) == Asked()


@pytest.mark.parametrize(
    ("request_", "tokens"),
    [
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 5}, 5),
        ({"max_output_tokens": 5}, 5),
        ({"num_predict": 5}, 5),
        ({"options": {"num_predict": 5}}, 5),
        ({"options": {"num_predict": 5.9}}, 5),
        ({"max_tokens": 5, "options": {"num_predict": 7}, "max_completion_tokens": 6}, 7),
        ({"max_tokens": -1}, math.inf),
        ({"max_tokens": -2, "max_completion_tokens": 6}, math.inf),
        ({"max_tokens": 0}, math.inf),
        ({"options": {"num_predict": 0.9}}, math.inf),
        ({"options": {"num_predict": 1e300}}, math.inf),
        ({"max_tokens": 2**63 - 1}, math.inf),
    ],
)
def test_output_tokens(request_, tokens):
    assert asked(**request_).output_tokens == tokens


def test_context_tokens():
    assert asked(options={"num_ctx": 4096}).context_tokens == 4096
    assert asked(options={"num_ctx": 4096}, num_ctx=8192).context_tokens == 8192
    assert asked(options={"num_ctx": -1}).context_tokens == math.inf


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (0, 0), (300, 300), (1.5, 1.5), (-1, math.inf), (-0.5, math.inf), (1e12, math.inf),
        ("5m", 300), ("1h30m", 5400), ("1.5h", 5400), ("0", 0), ("-0", 0), ("+3s", 3),
        (".5s", 0.5), ("5.s", 5), ("100ms", 0.1), ("1us", 1e-6), ("1\u00b5s", 1e-6),
        ("1\u03bcs", 1e-6), ("5m0s", 300), ("-1s", math.inf), ("-1", None), ("5", None),
        ("", None), ("5 m", None), ("m", None), ("1d", None), ("1h-3m", None), ("1e3s", None),
        ("forever", None), ("\u0665m", None), ("1s\n", None), ("9" * 60 + "h", math.inf),
        ("1s" * 50, None), (True, None), ([5], None), ({}, None),
    ],
)  # fmt: skip
def test_keep_alive(value, seconds):
    """As Go's time.ParseDuration and Ollama's api.Duration have it; None is refused."""
    if seconds is None:
        with pytest.raises(BodyError, match="keep_alive"):
            asked(keep_alive=value)
    else:
        assert asked(keep_alive=value).keep_alive_seconds == pytest.approx(seconds)


def test_choices():
    assert asked(n=2).choices == 2
    assert asked(n=2, best_of=5).choices == 5


@pytest.mark.parametrize(
    "request_",
    [
        {"max_tokens": "5"}, {"max_tokens": True}, {"max_tokens": [5]}, {"options": []},
        {"options": "x"}, {"options": {"num_predict": "5"}}, {"options": {"num_ctx": False}},
        {"n": 0}, {"n": -1}, {"n": 1.0}, {"n": True}, {"best_of": "2"}, {"messages": "x"},
        {"messages": {}}, {"messages": [None]}, {"messages": ["x"]}, {"images": "x"},
        {"images": [1]}, {"messages": [{"images": {}}]},
    ],
)  # fmt: skip
def test_wrong_types(request_):
    with pytest.raises(BodyError, match="must be"):
        asked(**request_)


def test_messages_and_images_of_each_kind():
    ollama = {"role": "user", "content": "a", "images": ["x", "y"]}
    openai = {"content": [{"type": "text"}, {"type": "image_url"}, {"type": "input_audio"}]}
    anthropic = {
        "content": [
            {"type": "image"},
            {"type": "tool_result", "content": [{"type": "image"}, {"type": ["image"]}, 5]},
        ]
    }
    responses = {"output": [{"type": "input_image"}]}
    found = asked(messages=[ollama, openai, anthropic], images=["z"])
    assert (found.messages, found.images) == (3, 7)
    found = asked("input", input=[responses, {"role": "user", "content": "a"}])
    assert (found.messages, found.images) == (2, 1)
    assert asked("input", input="hi").messages == 0


@given(st.integers(1, 2**62), st.integers(1, 2**62))
def test_the_largest_figure_counts(one, other):
    found = asked(max_tokens=one, options={"num_predict": other})
    assert found.output_tokens == max(one, other)
