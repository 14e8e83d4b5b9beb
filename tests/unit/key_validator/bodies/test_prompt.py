# SPDX-License-Identifier: GPL-3.0-or-later
"""The canonical form: nothing that a model reads is missing, nothing that steers is in it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.bodies.prompt import CONTROLS, Prompt, canonical_prompt

TEXT = st.text(st.characters(codec="utf-8"), min_size=1)


@pytest.mark.parametrize(
    "request_",
    [
        {"prompt": "hi"},
        {"prompt": "hi", "suffix": "", "system": None, "context": [], "format": {}, "raw": False},
        {"prompt": "hi", "model": "tiny", "stream": True, "options": {"num_ctx": 5, "stop": ["x"]}},
        {"input": "hi"},
        {"input": ["hi"]},
        {"messages": [{"role": "user", "content": "hi"}]},
        {"messages": [{"role": "user", "content": "hi", "images": None}], "tools": []},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]},
        {"input": [{"type": "message", "content": [{"type": "input_text", "text": "hi"}]}]},
        {"prompt": "hi", "response_format": {"type": "json_object"}, "user": "u1", "seed": 1},
    ],
)
def test_one_piece_of_text_is_the_form(request_):
    assert canonical_prompt(request_) == Prompt("hi", "text", 2)


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        ({"prompt": "b", "system": "a"}, '{"prompt":"b","system":"a"}'),
        ({"system": "a", "prompt": "b"}, '{"prompt":"b","system":"a"}'),
        (
            {"prompt": "\u00e9\n\U0001f600", "raw": True},
            '{"prompt":"\u00e9\\n\U0001f600","raw":true}',
        ),
        ({"input": ["a", "b"]}, '{"input":["a","b"]}'),
        ({"prompt": "a", "format": "json"}, '{"format":"json","prompt":"a"}'),
        ({"prompt": "a", "secret_channel": "b"}, '{"prompt":"a","secret_channel":"b"}'),
        ({"context": [1, 2.5]}, '{"context":[1,2.5]}'),
        (
            {"messages": [{"role": "user", "content": "a", "name": "b"}]},
            '{"messages":[{"content":"a","name":"b","role":"user"}]}',
        ),
        (
            {"messages": [{"role": "r" * 200, "content": "a"}]},
            '{"messages":[{"content":"a","role":"' + "r" * 200 + '"}]}',
        ),
        ({"messages": [{"tool_name": "a"}]}, '{"messages":[{"tool_name":"a"}]}'),
        (
            {"messages": [{"type": "image_url", "text": "a"}]},
            '{"messages":[{"text":"a","type":"image_url"}]}',
        ),
        ({"prompt": "a", "options": {"x": 1}}, '{"options":{"x":1},"prompt":"a"}'),
        ({"prompt": "a", "options": "x"}, '{"options":"x","prompt":"a"}'),
        ({"prompt": "a", "user": "u" * 129}, '{"prompt":"a","user":"' + "u" * 129 + '"}'),
        (
            {"prompt": "a", "metadata": {"k" * 129: 1}},
            '{"metadata":{"' + "k" * 129 + '":1},"prompt":"a"}',
        ),
        (
            {"prompt": "a", "metadata": {"a": {"b": {"c": 1}}}},
            '{"metadata":{"a":{"b":{"c":1}}},"prompt":"a"}',
        ),
        (
            {"prompt": "a", "response_format": {"json_schema": {"schema": {"x": 1}}}},
            '{"prompt":"a","response_format":{"json_schema":{"schema":{"x":1}}}}',
        ),
    ],
)
def test_all_else_is_json(request_, text):
    assert canonical_prompt(request_) == Prompt(text, "json", len(text))


def test_no_prompt():
    assert canonical_prompt({}) is None
    assert canonical_prompt({"model": "tiny", "prompt": "", "keep_alive": "5m"}) is None


def test_length_counts_code_points():
    assert canonical_prompt({"prompt": "\U0001f600\u0301x"}).length == 3


@given(st.text(min_size=1).filter(lambda name: name not in CONTROLS), TEXT, TEXT)
def test_nothing_hides_in_an_unknown_member(name, prompt, text):
    if name in {"prompt", "options"}:
        return
    form = canonical_prompt({"prompt": prompt, name: text})
    assert form.form == "json"
    assert json.loads(form.text) == {"prompt": prompt, name: text}


@given(st.sampled_from(sorted(CONTROLS)), st.text(min_size=129, max_size=200))
def test_nothing_hides_in_a_control(name, text):
    form = canonical_prompt({"prompt": "a", name: text})
    assert json.loads(form.text)[name] == text
    if name != "options":
        assert canonical_prompt({"prompt": "a", name: [[text]]}).form == "json"
        assert canonical_prompt({"prompt": "a", name: list(range(65))}).form == "json"


@given(TEXT, TEXT)
def test_different_prompts_have_different_forms(one, other):
    if one != other:
        assert canonical_prompt({"prompt": one}) != canonical_prompt({"prompt": other})
        assert canonical_prompt({"prompt": one, "system": other}) != canonical_prompt(
            {"prompt": other, "system": one}
        )
