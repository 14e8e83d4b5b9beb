# SPDX-License-Identifier: GPL-3.0-or-later
"""Real llama-servers behind the gateway: one model on two of them, another on a third."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.lab.batch import Question, post
from tests.lab.clients import ask_clients, assert_served
from tests.lab.playbook import harden
from tests.lab.steps import wait_until

UNITS = {8080: "llama-server.service", 8090: "llama-server-2.service"}
CLOSED = (
    "/", "/props", "/slots", "/slots/0", "/metrics", "/lora-adapters", "/completion",
    "/completions", "/embedding", "/embeddings", "/infill", "/tokenize", "/detokenize",
    "/apply-template", "/rerank", "/models", "/models/load", "/models/unload", "/v1/rerank",
    "/api/show", "/index.html", "/tools",
)  # fmt: skip


def chat(model="tiny", **more):
    message = {"role": "user", "content": "Hello"}
    more = {"max_tokens": 8, "seed": 3, **more}
    return post("/v1/chat/completions", model=model, messages=[message], **more)


@pytest.fixture
def ask(gateway, keys):
    return lambda key, *questions: gateway.ask_all(questions, key=keys[key])


def statuses(answers):
    return [answer.status for answer in answers]


def test_the_official_clients(lab, gateways, keys):
    asked = [
        {"name": one.name, "base_url": one.url("/v1"), "api_key": keys["app"], "chat": "tiny",
         "embeddings": "tiny-embeddings", "tool_choice": "required"}
        for one in gateways
    ]  # fmt: skip
    for answers in ask_clients(lab, gateways[0].ca_file, asked).values():
        assert_served(answers, calls=True)


def test_a_key_has_its_models_wherever_they_are(ask):
    embed = post("/v1/embeddings", model="tiny-embeddings", input="Hello")
    assert statuses(ask("app", chat(), embed)) == [200, 200]
    assert statuses(ask("chats_only", chat(), embed)) == [200, 403]
    # llama-server answers any name with the model that it has; the third one has no chats.
    assert statuses(ask("app", chat("tiny-embeddings")))[0] >= 400


def test_what_is_no_chat_is_not_there(ask):
    questions = [Question(path) for path in CLOSED] + [post(path, a="b") for path in CLOSED]
    assert set(statuses(ask("operator", *questions))) == {404}


def test_loopback_alone_is_not_enough(gateway):
    url = "http://127.0.0.1:8080/v1/chat/completions"
    words = (
        f"-s -o /dev/null -w '%{{http_code}}' -H 'Content-Type: application/json' -d '{{}}' {url}"
    )
    assert gateway.host.check_output(f"curl {words}") == "401"
    # service_sandbox's drop-in, over the unit that says 0.0.0.0
    table = gateway.host.check_output("ss --tcp --listening --numeric --no-header").splitlines()
    places = [line.split()[3] for line in table if line.split()[3].endswith(":8080")]
    assert places == ["127.0.0.1:8080"]


def served(gateway, port):
    """How many chats a server has had: its own word."""
    words = f"journalctl --no-pager --output=cat --unit={UNITS[port]} | grep -c 'POST /v1/chat'"
    return int(gateway.host.run(words).stdout)


@contextmanager
def stopped(gateway, unit):
    gateway.host.check_output("systemctl stop %s", unit)
    try:
        yield
    finally:
        gateway.host.check_output("systemctl start %s", unit)
        assert wait_until(lambda: gateway.host.run("curl -sf http://127.0.0.1:8090/health").rc == 0)


def test_the_other_one_answers_for_one_that_is_down(gateway, ask):
    before = served(gateway, 8080), served(gateway, 8090)
    assert statuses(ask("app", *[chat()] * 8)) == [200] * 8
    both = served(gateway, 8080), served(gateway, 8090)
    assert [now - then for now, then in zip(both, before, strict=True)] == [4, 4]
    with stopped(gateway, UNITS[8090]):
        assert statuses(ask("app", *[chat()] * 8)) == [200] * 8


def backends(drained):
    return [
        {"address": "127.0.0.1:8080"},
        {"address": "127.0.0.1:8090", "drain": drained},
        {"address": "127.0.0.1:8091", "models": ["tiny-embeddings"]},
    ]


def test_one_is_drained_for_maintenance_without_a_failed_request(gateways, keys):
    """As the role's README says: streams go on to their end, nothing new comes."""
    gateway = gateways[0]
    over = []

    def load():
        found = []
        while not over:
            questions = [chat(stream=True, max_tokens=60), chat()]
            found += gateway.ask_all(questions, key=keys["app"])
        return found

    with ThreadPoolExecutor(3) as pool:
        loads = [pool.submit(load) for _unused in range(3)]
        try:
            drained = harden(
                "llama_cpp", "--tags=gateway_configure", gateway_backends=backends(True)
            )
            time.sleep(1)
            before = served(gateway, 8090)
            gateway.host.check_output("systemctl restart %s", UNITS[8090])
            time.sleep(2)
            heard = served(gateway, 8090) - before
            back = harden("llama_cpp", "--tags=gateway_configure", gateway_backends=backends(False))
            time.sleep(2)
            again = served(gateway, 8090) - before
        finally:
            over.append(True)
        answers = [answer for one in loads for answer in one.result()]
    assert (drained.code, back.code) == (0, 0), drained.ending + back.ending
    assert set(statuses(answers)) == {200}, [answer for answer in answers if answer.status != 200]
    streams = [
        answer.body for answer in answers if "event-stream" in answer.headers["content-type"]
    ]
    assert len(streams) > 5
    assert all(body.rstrip().endswith("data: [DONE]") for body in streams)
    assert heard == 0
    assert again > 0


def test_who_asked_what_is_on_record(gateway, ask):
    ask("app", chat())
    told = gateway.host.check_output("llm-audit query --key app --json | tail -n 20")
    records = [json.loads(line) for line in told.splitlines()]
    assert any(one.get("gen_ai.request.model", "").startswith("tiny") for one in records)
    assert {one["gen_ai.provider.name"] for one in records if "gen_ai.provider.name" in one} == {
        "llama_cpp"
    }
