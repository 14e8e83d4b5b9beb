# SPDX-License-Identifier: GPL-3.0-or-later
"""Look-alikes of known keys are found where a server reads a struct, and only there."""

from __future__ import annotations

import pytest
from llm_key_validator.bodies import structs
from llm_key_validator.bodies.errors import BodyError

LONG_S, KELVIN = "\u017f", "\u212a"


@pytest.mark.parametrize(
    ("struct", "value"),
    [
        (structs.OLLAMA_GENERATE, {"Model": "a"}),
        (structs.OLLAMA_GENERATE, {f"{KELVIN}eep_alive": 1}),
        (structs.OLLAMA_GENERATE, {f"y{LONG_S}tem": "a", f"{LONG_S}ystem": "a"}),
        (structs.OLLAMA_GENERATE, {"options": {"NUM_CTX": 1}}),
        (structs.OLLAMA_CHAT, {f"me{LONG_S}{LONG_S}ages": []}),
        (structs.OLLAMA_CHAT, {"messages": [{"content": "a"}, {"Content": "a"}]}),
        (structs.OLLAMA_CHAT, {"messages": {"Content": "a"}}),
        (structs.OLLAMA_CHAT, {"messages": [{"tool_calls": [{"function": {"NAME": "a"}}]}]}),
        (structs.OLLAMA_CHAT, {"tools": [{"Function": {}}]}),
        (structs.OLLAMA_CHAT, {"tools": [{"function": {"Parameters": {}}}]}),
        (structs.OLLAMA_CHAT, {"tools": [{"function": {"parameters": {"Properties": {}}}}]}),
        (structs.OLLAMA_CREATE, {"FROM": "a"}),
        (structs.OLLAMA_CREATE, {"messages": [{"Role": "a"}]}),
        (structs.OLLAMA_COPY, {"Destination": "a"}),
        (structs.OPENAI_CHAT, {"Max_Completion_Tokens": 1}),
        (structs.OPENAI_CHAT, {"stream_options": {"INCLUDE_USAGE": True}}),
        (structs.OPENAI_CHAT, {"response_format": {"json_schema": {"Schema": {}}}}),
        (structs.OPENAI_RESPONSES, {"input": [{"content": [{"Text": "a"}]}]}),
        (structs.OPENAI_RESPONSES, {"input": [{"output": [{"Image_URL": "a"}]}]}),
        (structs.OPENAI_RESPONSES, {"text": {"Format": {}}}),
        (structs.OPENAI_RESPONSES, {"tools": [{"tools": [{"tools": [{"NAME": "a"}]}]}]}),
        (structs.ANTHROPIC_MESSAGES, {"messages": [{"content": [{"source": {"Data": "a"}}]}]}),
        (structs.ANTHROPIC_MESSAGES, {"thinking": {"Budget_Tokens": 1}}),
    ],
)
def test_a_look_alike_is_refused(struct, value):
    with pytest.raises(BodyError, match="only by case"):
        struct.check(value)


@pytest.mark.parametrize(
    ("struct", "value"),
    [
        (structs.OLLAMA_CHAT, {"format": {"properties": {"Model": {}, "MESSAGES": {}}}}),
        (
            structs.OLLAMA_CHAT,
            {"tools": [{"function": {"parameters": {"properties": {"Name": {"Type": "string"}}}}}]},
        ),
        (
            structs.OLLAMA_CHAT,
            {"messages": [{"tool_calls": [{"function": {"arguments": {"Content": 1}}}]}]},
        ),
        (structs.OPENAI_CHAT, {"metadata": {"Model": "a"}, "unknown": {"Model": "a"}}),
        (structs.OPENAI_RESPONSES, {"tools": [{"parameters": {"Type": "object"}}]}),
        (
            structs.ANTHROPIC_MESSAGES,
            {
                "messages": [{"content": [{"input": {"Name": 1}}]}],
                "tools": [{"input_schema": {"Type": "object"}}],
            },
        ),
        (structs.OLLAMA_GENERATE, {"modell": "a", "mode": "a", "model ": "a", "m\u00f6del": "a"}),
        (structs.OLLAMA_CHAT, {"messages": None, "options": 5, "tools": "x"}),
    ],
)
def test_maps_and_other_keys_are_left_alone(struct, value):
    struct.check(value)


def test_every_field_is_known_as_it_is_and_refused_in_capitals():
    tables = [table for table in vars(structs).values() if isinstance(table, structs.Struct)]
    assert len(tables) > 10
    for table in tables:
        for name in table.fields:
            table.check({name: None})
            if name.upper() != name:
                with pytest.raises(BodyError):
                    table.check({name.upper(): None})
