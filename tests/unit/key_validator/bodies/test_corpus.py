# SPDX-License-Identifier: GPL-3.0-or-later
"""The corpus of odd bodies and of clients' bodies; and whatever else comes to hypothesis' mind."""

from __future__ import annotations

import importlib.util
import json
import time
import typing as t
from collections import Counter

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import get_server
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.bodies import SHAPES, BodyError, Reading, read_body

from ..conftest import FILES


def _corpus() -> t.Any:
    path = FILES.parents[2] / "molecule" / "policy" / "tests" / "bodies.py"
    spec = importlib.util.spec_from_file_location("odd_bodies", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


CORPUS = _corpus()
SHAPE_OF = {route.path: route.body for route in get_server("ollama").routes if route.path}


def models(one: t.Any) -> tuple[str, ...] | None:
    """The models that are judged; None when the body is refused."""
    try:
        return read_body(SHAPE_OF[one.path], one.content_type.encode(), one.body).models
    except BodyError:
        return None


@pytest.mark.parametrize("odd", CORPUS.ODD, ids=lambda odd: odd.why)
def test_the_policy_judges_the_model_that_ollama_runs(odd):
    allowed = {"secret": [None, ("secret:latest",)], "tiny": [None, ("tiny:latest",)]}
    assert models(odd) in allowed.get(odd.runs, [None])


def test_the_corpus_has_bodies_of_each_kind():
    counts = Counter(odd.runs for odd in CORPUS.ODD)
    assert min(counts["secret"], counts["tiny"], counts["refuses"]) >= 15
    # Refusing everything would pass as well.
    assert sum(models(odd) == ("secret:latest",) for odd in CORPUS.ODD) >= 10


@pytest.mark.parametrize(
    "sent", CORPUS.CLIENT_BODIES, ids=lambda sent: f"{sent.client} {sent.path}"
)
def test_what_official_clients_send_passes(sent):
    found = models(sent)
    assert found is not None
    assert found[0] == "tiny:latest"


JSON_SHAPES = sorted(SHAPES - {"none", "opaque", "openai_audio"})
KEYS = st.sampled_from(
    ["model", "name", "from", "source", "destination", "messages", "options", "prompt", "input",
     "images", "content", "role", "type", "keep_alive", "max_tokens", "num_predict", "n", "tools",
     "function", "MODEL", "me\u017fsages", ""]
)  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.sampled_from(["tiny", "5m", "-1s", "image_url", "text"])
)
BODIES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=15,
)


def _read(shape: str, content_type: bytes, body: bytes) -> None:
    started = time.process_time()
    try:
        assert isinstance(read_body(shape, content_type, body), Reading)
    except BodyError as error:
        assert str(error).endswith(".")
    assert time.process_time() - started < 0.2


@given(st.sampled_from(JSON_SHAPES), st.dictionaries(KEYS, BODIES, max_size=6), st.booleans())
def test_any_json_is_read_or_refused(shape, body, named):
    if named:
        body = {**body, "model": "tiny"}
    _read(shape, b"application/json", json.dumps(body).encode())


@given(
    st.sampled_from(sorted(SHAPES)),
    st.sampled_from([b"application/json", b"multipart/form-data; boundary=XX"]) | st.binary(),
    st.binary(max_size=300),
)
def test_any_bytes_are_read_or_refused(shape, content_type, body):
    _read(shape, content_type, body)


@given(st.data())
def test_a_broken_body_of_the_corpus_is_read_or_refused(data):
    one = data.draw(st.sampled_from([*CORPUS.ODD, *CORPUS.CLIENT_BODIES]))
    body = one.body[:2000]
    start = data.draw(st.integers(0, len(body)))
    end = data.draw(st.integers(start, min(len(body), start + 8)))
    body = body[:start] + data.draw(st.binary(max_size=8)) + body[end:]
    _read(SHAPE_OF[one.path], one.content_type.encode(), body)
