# SPDX-License-Identifier: GPL-3.0-or-later
"""The records' fields: fast where values are plain, right where they are not."""

from __future__ import annotations

import hashlib
import hmac
import json
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.audit import records
from llm_key_validator.audit.records import (
    PromptDigest,
    PromptDigester,
    refusal_fields,
    request_fields,
    response_fields,
    suppressed_fields,
)

PROMPT = PromptDigest("cd" * 32, "hmac-sha256", "text", 12)
REQUEST: dict[str, t.Any] = {
    "request_id": "0123456789abcdef" * 2,
    "client_ip": "10.0.1.5",
    "key_id": "app1",
    "key_sha256": "ab" * 32,
    "method": "POST",
    "path": "/api/chat",
    "body_bytes": 321,
    "provider": "ollama",
    "operation": "chat",
}
CLIENT = {"key_sha256": None, "certificate": "ef" * 32, "subject": "CN=app,O=Team"}
RESPONSE: dict[str, t.Any] = {
    "request_id": "0123456789abcdef" * 2,
    "key_id": "app1",
    "model": "tiny:latest",
    "status": 200,
    "duration_ns": 123_000_000,
    "body_bytes": 512,
}


def parsed(fields: bytes) -> dict[str, t.Any]:
    assert b"\n" not in fields
    pairs = json.loads(b"{" + fields + b"}", object_pairs_hook=list)
    assert len(dict(pairs)) == len(pairs), "a name twice"
    return dict(pairs)


def test_a_request() -> None:
    assert parsed(request_fields(**REQUEST, model="tiny:latest", prompt=PROMPT)) == {
        "event.action": "request",
        "event.outcome": "unknown",
        "http.request.id": "0123456789abcdef" * 2,
        "client.ip": "10.0.1.5",
        "user.id": "app1",
        "user.hash": "ab" * 32,
        "http.request.method": "POST",
        "url.path": "/api/chat",
        "http.request.body.bytes": 321,
        "gen_ai.provider.name": "ollama",
        "gen_ai.operation.name": "chat",
        "gen_ai.request.model": "tiny:latest",
        "llm.prompt.hash": "cd" * 32,
        "llm.prompt.hash_algorithm": "hmac-sha256",
        "llm.prompt.form": "text",
        "llm.prompt.length": 12,
    }


def test_a_client_with_a_certificate() -> None:
    fields = parsed(request_fields(**REQUEST | CLIENT))
    assert fields["tls.client.hash.sha256"] == "EF" * 32, "in upper case, as ECS wants it"
    assert fields["tls.client.subject"] == "CN=app,O=Team"
    assert fields["user.id"] == "app1"
    assert "user.hash" not in fields


def test_a_response() -> None:
    assert parsed(response_fields(**RESPONSE)) == {
        "event.action": "response",
        "event.outcome": "success",
        "http.request.id": "0123456789abcdef" * 2,
        "http.response.status_code": 200,
        "event.duration": 123_000_000,
        "http.response.body.bytes": 512,
        "user.id": "app1",
        "gen_ai.request.model": "tiny:latest",
    }


@pytest.mark.parametrize(("status", "outcome"), [(399, "success"), (400, "failure")])
def test_a_responses_outcome(status: int, outcome: str) -> None:
    assert parsed(response_fields(**RESPONSE | {"status": status}))["event.outcome"] == outcome


@pytest.mark.parametrize("model", [None, "tiny:latest"])
@pytest.mark.parametrize("prompt", [None, PROMPT])
@pytest.mark.parametrize("key_id", [None, "app1"])
@pytest.mark.parametrize("shown", [{}, CLIENT])
def test_plain_values_take_the_fast_way_and_say_the_same(
    monkeypatch: pytest.MonkeyPatch,
    model: str | None,
    prompt: PromptDigest | None,
    key_id: str | None,
    shown: dict[str, t.Any],
) -> None:
    def both() -> tuple[bytes, bytes]:
        return (
            request_fields(**REQUEST | shown, model=model, prompt=prompt),
            response_fields(**RESPONSE | {"model": model, "key_id": key_id}),
        )

    with monkeypatch.context() as patch:
        patch.setattr(records, "render", None)  # not called
        fast = both()
    monkeypatch.setattr(records, "_plain", lambda _text, _quotes: None)
    assert fast == both()


@given(
    st.dictionaries(
        st.sampled_from(sorted(REQUEST.keys() - {"body_bytes"} | {"subject"})), st.text()
    )
)
def test_no_value_of_a_request_breaks_out(changes: dict[str, str]) -> None:
    shown = {"certificate": "ef" * 32, "subject": "CN=app"} | changes
    fields = parsed(request_fields(**REQUEST | shown, prompt=PROMPT))
    assert len(fields) == 17
    assert fields["event.action"] == "request"


@given(st.text(), st.text(), st.text())
def test_no_value_of_a_response_breaks_out(request_id: str, key_id: str, model: str) -> None:
    values = {"request_id": request_id, "key_id": key_id, "model": model}
    assert len(parsed(response_fields(**RESPONSE | values))) == 8


@pytest.mark.parametrize(
    "path",
    [
        '/","event.action":"response',
        '/\\","x":"y\\',
        "/\n",
        "/\u2028\u202e",
        "/ü",
        "/\ud800",
        '/"' * 3,
    ],
)
def test_a_value_that_would_break_out_stays_a_value(path: str) -> None:
    fields = request_fields(**REQUEST | {"path": path})
    assert fields.isascii()
    wanted = path.encode("utf-8", "replace").decode()
    assert parsed(fields)["url.path"] == wanted


def test_what_a_client_makes_long_is_cut() -> None:
    for fields in (
        request_fields(**REQUEST | {"path": "/" + "x" * 100_000}),
        refusal_fields(reason="route", status=404, path="/" + "\U0001f600" * 100_000),
    ):
        assert len(parsed(fields)["url.path"]) == 1025
        assert len(fields) < 16_000


def test_a_refusal_says_what_is_known() -> None:
    assert parsed(refusal_fields(reason="unknown", status=401, client_ip="10.0.1.5")) == {
        "event.action": "refusal",
        "event.outcome": "failure",
        "event.reason": "unknown",
        "http.response.status_code": 401,
        "client.ip": "10.0.1.5",
    }
    shown = REQUEST | CLIENT
    full = parsed(refusal_fields(reason="limit", status=400, prompt=PROMPT, model="m", **shown))
    request = parsed(request_fields(**shown, model="m", prompt=PROMPT))
    assert full == request | {
        "event.action": "refusal",
        "event.outcome": "failure",
        "event.reason": "limit",
        "http.response.status_code": 400,
    }


def test_suppressed_refusals() -> None:
    assert parsed(suppressed_fields("rate", 12)) == {
        "event.action": "suppressed",
        "event.reason": "rate",
        "llm.audit.count": 12,
    }


def test_digests_of_prompts() -> None:
    plain, keyed = PromptDigester(None), PromptDigester(b"pepper")
    assert plain.digest("hé") == hashlib.sha256("hé".encode()).hexdigest()
    assert keyed.digest("hé") == hmac.new(b"pepper", "hé".encode(), "sha256").hexdigest()
    assert (plain.algorithm, keyed.algorithm) == ("sha256", "hmac-sha256")
    assert plain.digest("\ud800") != plain.digest("\ud801") != plain.digest("?")
