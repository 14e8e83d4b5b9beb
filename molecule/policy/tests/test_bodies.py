# SPDX-License-Identifier: GPL-3.0-or-later
"""Odd bodies to the gateway and to Ollama itself: both read the same model, or it is refused."""

from __future__ import annotations

import json
import re

import bodies
import pytest

from tests.lab import batch
from tests.lab.batch import Question

OLLAMA = "http://127.0.0.1:11434"
# The lab's models know nothing of these.
BEYOND_THE_MODELS = {bodies.AUDIO, "/api/embed", "/v1/embeddings"}
MANAGEMENT = {"/api/pull", "/api/push", "/api/delete", "/api/copy", "/api/create"}
ODD = pytest.mark.parametrize(
    "number", range(len(bodies.ODD)), ids=[f"{odd.path}: {odd.why}" for odd in bodies.ODD]
)

# Models that are not there: Ollama's refusal names the one that it read.
_MODELS = re.compile(rb"secret|=73ecret|tiny")
_NOT_FOUND = re.compile(r"model [\\\"']+no-such-(secret|tiny)")


def as_question(odd):
    return Question(odd.path, odd.body, odd.content_type)


def as_direct_question(odd):
    """What no model of the lab can answer asks for models that are not there."""
    gone = odd.path in BEYOND_THE_MODELS
    body = _MODELS.sub(rb"no-such-\g<0>", odd.body) if gone else odd.body
    return Question(odd.path, body, odd.content_type)


def model_that_ran(answer):
    """`tiny`, `secret`, or `refuses`: by the name in the answer, which is the one that was read."""
    not_found = _NOT_FOUND.search(answer.body)
    if not_found:
        return not_found[1]
    # In the lists of /api/show it is Ollama's own word for the model.
    named = re.search(r'"model": ?("(?:[^"\\]|\\.)*")|# FROM (\w+)', answer.body)
    if answer.status != 200 or not named:
        return "refuses"
    name = json.loads(named[1]) if named[1] else named[2]
    return re.search("secret|tiny", name.lower())[0]


def refused_by_the_gateway(answer):
    try:
        return "request_id" in answer.json()["error"]
    except (KeyError, TypeError, ValueError):
        return False


@pytest.fixture(scope="session")
def to_ollama(gateway):
    """Ollama's answers to the whole corpus, asked by root on the host."""
    questions = map(as_direct_question, bodies.ODD)
    return batch.ask_all(gateway.lab, gateway.name, OLLAMA, questions)


@pytest.fixture(scope="session")
def with_tiny_alone(gateway, keys):
    """The gateway's answers to a key that may use `tiny` and nothing else."""
    return gateway.ask_all(map(as_question, bodies.ODD), keys["tiny_only"])


@pytest.fixture(scope="session")
def with_all_models(gateway, keys):
    return gateway.ask_all(map(as_question, bodies.ODD), keys["operator"])


@pytest.fixture(scope="session")
def judged_models(audit, with_all_models):
    """Request id → the model in the audit log's request record."""
    return {
        record["http.request.id"]: record.get("gen_ai.request.model")
        for record in audit.lines("--key", "operator")
        if record["event.action"] == "request"
    }


@ODD
def test_the_corpus_says_what_ollama_does(to_ollama, number):
    assert model_that_ran(to_ollama[number]) == bodies.ODD[number].runs, to_ollama[number]


@ODD
def test_no_other_model_is_reached(with_tiny_alone, number):
    answer = with_tiny_alone[number]
    if refused_by_the_gateway(answer):
        assert answer.status in {400, 403}, answer
    else:
        assert bodies.ODD[number].runs == "tiny", answer
        assert model_that_ran(answer) != "secret", answer


@ODD
def test_the_model_that_runs_is_the_one_that_was_judged(with_all_models, judged_models, number):
    answer, runs = with_all_models[number], bodies.ODD[number].runs
    judged = judged_models.get(answer.headers["x-request-id"])
    if refused_by_the_gateway(answer):
        assert answer.status == 400, answer
        assert judged is None
    elif runs != "refuses":
        assert judged == f"{runs}:latest"
        assert model_that_ran(answer) in {runs, "refuses"}, answer


def test_strictness_leaves_something_to_judge(with_all_models):
    let_through = [answer for answer in with_all_models if not refused_by_the_gateway(answer)]
    assert len(let_through) > 10


def test_a_refusal_says_why_and_repeats_nothing(with_tiny_alone):
    for answer in with_tiny_alone:
        if refused_by_the_gateway(answer):
            message = answer.json()["error"]["message"]
            assert message.endswith(".")
            assert not re.search("secret|tiny", message), message


@pytest.fixture(scope="session")
def to_clients(gateway, keys):
    def question(sent):
        # Nobody's model is deleted, nor another one made of it.
        gone = sent.path in MANAGEMENT
        body = sent.body.replace(b"tiny", b"no-such-model") if gone else sent.body
        method = "DELETE" if sent.path == "/api/delete" else "POST"
        return Question(sent.path, body, sent.content_type, method)

    return gateway.ask_all(map(question, bodies.CLIENT_BODIES), keys["operator"])


@pytest.mark.parametrize(
    "number",
    range(len(bodies.CLIENT_BODIES)),
    ids=[f"{sent.client}: {sent.path}" for sent in bodies.CLIENT_BODIES],
)
def test_what_official_clients_send_passes(to_clients, number):
    """Ollama may find fault with it, such as tools for a model that knows none. Not the gateway."""
    answer = to_clients[number]
    assert answer.status
    assert not refused_by_the_gateway(answer), answer
