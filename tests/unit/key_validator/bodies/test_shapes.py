# SPDX-License-Identifier: GPL-3.0-or-later
"""Which models a body names on which route, and what is no body for it."""

from __future__ import annotations

import json

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import SERVERS
from llm_key_validator.bodies import SHAPES, Asked, BodyError, Prompt, Reading, read_body

JSON = b"application/json"


def read(shape, /, **request):
    return read_body(shape, JSON, json.dumps(request).encode())


def test_the_catalogue_and_the_shapes_are_the_same():
    """One more in either of them would be a route that is always refused, or dead code."""
    named = {route.body for server in SERVERS.values() for route in server.routes}
    assert named == SHAPES


def test_a_whole_reading():
    request = {
        "model": "Tiny",
        "messages": [{"role": "user", "content": "hi", "images": ["x"]}],
        "options": {"num_ctx": 2048, "num_predict": 64},
        "keep_alive": "5m",
    }
    text = '{"messages":[{"content":"hi","images":["x"],"role":"user"}]}'
    assert read("ollama_chat", **request) == Reading(
        models=("tiny:latest",),
        operation="chat",
        prompt=Prompt(text, "json", len(text)),
        asked=Asked(64, 2048, 300, None, 1, 1),
    )


@pytest.mark.parametrize("shape", ["show", "pull", "push", "create", "delete"])
def test_the_old_name_of_the_model(shape):
    shape = f"ollama_{shape}"
    assert read(shape, name="tiny").models == ("tiny:latest",)
    assert read(shape, model="", name="tiny").models == ("tiny:latest",)
    assert read(shape, model="tiny", name=None).models == ("tiny:latest",)
    assert read(shape, model="tiny", name="library/tiny").models == ("tiny:latest",)
    with pytest.raises(BodyError, match="two different"):
        read(shape, model="tiny", name="secret")
    with pytest.raises(BodyError, match="names no model"):
        read(shape, model="", name="")
    with pytest.raises(BodyError, match="`name` must be a string"):
        read(shape, model="tiny", name=["secret"])


def test_every_model_that_a_body_names():
    assert read("ollama_copy", source="a", destination="b").models == ("a:latest", "b:latest")
    assert read("ollama_create", model="a").models == ("a:latest",)
    opaque = {"files": {"Model": "sha256:00"}, "adapters": {"MODEL": "sha256:00"}}
    created = read("ollama_create", model="a", **{"from": "u/b"}, **opaque, system="s")
    assert created.models == ("a:latest", "u/b:latest")
    assert created.prompt == Prompt("s", "text", 1)
    for request in ({"source": "a"}, {"destination": "a"}, {"source": "a", "destination": ""}):
        with pytest.raises(BodyError, match="names no model"):
            read("ollama_copy", **request)
    with pytest.raises(BodyError, match="`from` must be a string"):
        read("ollama_create", model="a", **{"from": 5})


@pytest.mark.parametrize(
    ("shape", "operation"),
    [
        ("ollama_generate", "text_completion"),
        ("ollama_chat", "chat"),
        ("ollama_embed", "embeddings"),
        ("ollama_embeddings", "embeddings"),
        ("openai_chat", "chat"),
        ("openai_completions", "text_completion"),
        ("openai_embeddings", "embeddings"),
        ("openai_responses", "chat"),
        ("anthropic_messages", "chat"),
    ],
)
def test_inference(shape, operation):
    reading = read(shape, model="tiny", max_tokens=5, system="s")
    assert (reading.models, reading.operation) == (("tiny:latest",), operation)
    assert reading.prompt == Prompt("s", "text", 1)
    assert reading.asked.output_tokens == 5
    for request in ({}, {"model": None}, {"model": ""}):
        with pytest.raises(BodyError, match="names no model"):
            read(shape, **request)
    for wrong in (5, ["tiny"], {"tiny": 1}, True, False, 0):
        with pytest.raises(BodyError, match="`model` must be a string"):
            read(shape, model=wrong)


def test_an_error_repeats_nothing_of_the_body():
    for request in (
        {"model": "my secret"},
        {"model": {"my secret": 1}},
        {"model": "tiny", "options": "my secret"},
        {"model": "tiny", "keep_alive": "my secret"},
        {"model": "tiny", "MODEL": "my secret"},
    ):
        with pytest.raises(BodyError) as caught:
            read("ollama_chat", **request)
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "content_type",
    [b"application/json; charset=utf-8", b'Application/JSON;charset="UTF-8"'],
)
def test_content_types_that_are_read(content_type):
    assert read_body("ollama_generate", content_type, b'{"model":"a"}').models == ("a:latest",)


@pytest.mark.parametrize(
    "content_type",
    [
        b"",
        b"text/plain",
        b"text/json",
        b"application/json2",
        b"application/json; charset=latin1",
        b"application/json, text/plain",
        b"application/json; charset=utf-8; charset=utf-16",
        b"multipart/form-data; boundary=XX",
    ],
)
def test_content_types_that_are_refused(content_type):
    with pytest.raises(BodyError, match="Content-Type"):
        read_body("ollama_generate", content_type, b'{"model":"a"}')


def test_routes_without_a_body_to_read():
    nothing = Reading((), "", None, Asked())
    assert read_body("none", b"", b"") == nothing
    assert read_body("opaque", b"application/octet-stream", b"") == nothing
    with pytest.raises(BodyError, match="takes no body"):
        read_body("none", JSON, b"{}")


@pytest.mark.parametrize("shape", sorted(SHAPES - {"none", "opaque"}))
def test_a_body_is_due(shape):
    with pytest.raises(BodyError, match="empty"):
        read_body(shape, JSON, b"")


def test_an_unknown_shape_is_refused():
    with pytest.raises(BodyError, match="cannot read"):
        read_body("vllm_chat", JSON, b'{"model":"a"}')


def audio(**fields):
    parts = []
    for name, value in fields.items():
        file = '; filename="a"' if isinstance(value, bytes) else ""
        text = value if isinstance(value, bytes) else value.encode()
        head = f'--XX\r\nContent-Disposition: form-data; name="{name}"{file}\r\n\r\n'
        parts.append(head.encode() + text + b"\r\n")
    body = b"".join(parts) + b"--XX--\r\n"
    return read_body("openai_audio", b"multipart/form-data; boundary=XX", body)


def test_audio():
    digest = "2d711642b726b04401627ca9fbac32f5c8530fb1903cc4db02258717921a4881"
    reading = audio(model="Tiny", file=b"x", response_format="json", language="en")
    assert reading.models == ("tiny:latest",)
    # Ollama writes the language into the prompt.
    text = f'{{"file":{{"bytes":1,"sha256":"{digest}"}},"language":"en"}}'
    assert reading.prompt == Prompt(text, "json", len(text))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "tiny"}, "no file"),
        ({"model": "tiny", "file": "x"}, "no file"),
        ({"file": b"x"}, "no model"),
        ({"model": "", "file": b"x"}, "no model"),
        ({"model": b"tiny", "file": b"x"}, "where text is due"),
        ({"model": "tiny", "file": b"x", "prompt": b"x"}, "where text is due"),
        ({"model": "tiny", "file": b"x", "Model": "secret"}, "only by case"),
        ({"model": " tiny", "file": b"x"}, "model name"),
        ({"model[]": "tiny", "file": b"x"}, "no model"),
    ],
)
def test_audio_that_is_refused(fields, message):
    with pytest.raises(BodyError, match=message):
        audio(**fields)


STANDARD = {
    "openai_chat": {"messages": [], "tools": [], "tool_choice": "auto", "user": "u", "seed": 1},
    "openai_completions": {"prompt": "p", "echo": True, "best_of": 2},
    "openai_embeddings": {"input": "i", "encoding_format": "base64", "user": "u"},
    "openai_responses": {"input": "i", "tool_choice": "auto", "stream_options": {}},
    "anthropic_messages": {"messages": [], "max_tokens": 1, "metadata": {"user_id": "u"}},
    "ollama_chat": {"messages": [], "options": {"top_k": 1}, "keep_alive": "5m", "think": True},
}
ORDERS = {
    "fallbacks": ["secret"], "mock_testing_fallbacks": True, "api_base": "http://192.0.2.1",
    "model_list": [], "guardrails": [], "Fallbacks": ["secret"], "litellm_metadata": {},
    "backend": "diffusers", "store": True, "previous_response_id": "r",
}  # fmt: skip


@pytest.mark.parametrize("shape", STANDARD)
def test_what_is_not_the_apis_own_is_an_order_to_some_servers(shape):
    def judged(**fields):
        body = json.dumps({"model": "a", **STANDARD[shape], **fields}).encode()
        return read_body(shape, JSON, body, only_standard=True)

    assert judged().models == ("a:latest",)
    for name, value in ORDERS.items():
        with pytest.raises(BodyError, match=f"not let through to this LLM server: {name}"):
            judged(**{name: value})
    with pytest.raises(BodyError, match=r"to this LLM server\.$"):
        judged(**{"sk-secret of somebody": 1})
    with pytest.raises(BodyError, match=r"LLM server: (metadata|tags)"):
        judged(metadata={"user_id": "u", "tags": ["paid by somebody else"]})


@pytest.mark.parametrize("shape", ["openai_chat", "openai_embeddings", "openai_responses"])
@pytest.mark.parametrize(
    ("name", "value"),
    [("options", {}), ("keep_alive", "5m"), ("metadata", {}), ("conversation", "c")],
)
def test_what_ollama_reads_beside_the_api_is_no_more_welcome(shape, name, value):
    body = json.dumps({"model": "a", name: value}).encode()
    assert read_body(shape, JSON, body).models == ("a:latest",)
    with pytest.raises(BodyError, match=name):
        read_body(shape, JSON, body, only_standard=True)


@pytest.mark.parametrize("shape", ["openai_chat", "openai_responses", "anthropic_messages"])
@pytest.mark.parametrize("kind", ["mcp", "image_generation", "file_search", "web_search_20250305"])
def test_tools_that_the_server_would_run(shape, kind):
    tools = [{"type": "function", "name": "f"}, {"name": "g"}, {"type": "custom", "name": "h"}]

    def judged(*more):
        body = json.dumps({"model": "a", "max_tokens": 1, "tools": [*tools, *more]}).encode()
        return read_body(shape, JSON, body, only_standard=True)

    assert judged().models == ("a:latest",)
    with pytest.raises(BodyError, match="a tool that the LLM server would run"):
        judged({"type": kind, "server_url": "litellm_proxy/mcp"})


def test_a_form_has_the_apis_own_fields_as_well():
    def form(*names):
        parts = "".join(
            f'--b\r\nContent-Disposition: form-data; name="{name}"\r\n\r\na\r\n' for name in names
        )
        file = (
            '--b\r\nContent-Disposition: form-data; name="file"; filename="f"\r\n\r\nx\r\n--b--\r\n'
        )
        return (parts + file).encode()

    kind = b"multipart/form-data; boundary=b"
    usual = form("model", "language", "timestamp_granularities[]")
    assert read_body("openai_audio", kind, usual, only_standard=True).models == ("a:latest",)
    with pytest.raises(BodyError, match="fallbacks"):
        read_body("openai_audio", kind, form("model", "fallbacks"), only_standard=True)
