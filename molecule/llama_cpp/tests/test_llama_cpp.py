# SPDX-License-Identifier: GPL-3.0-or-later
"""Real llama-servers behind the gateway: one model on two of them, another on a third."""

from __future__ import annotations

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.lab import curl
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
         "embeddings": "tiny-embeddings"}
        for one in gateways
    ]  # fmt: skip
    for answers in ask_clients(lab, gateways[0].ca_file, asked).values():
        assert_served(answers)


def test_a_key_has_its_models_wherever_they_are(ask):
    embed = post("/v1/embeddings", model="tiny-embeddings", input="Hello")
    assert statuses(ask("app", chat(), embed)) == [200, 200]
    assert statuses(ask("chats_only", chat(), embed)) == [200, 403]
    (listed,) = ask("chats_only", Question("/v1/models"))
    assert [model["id"] for model in listed.json()["data"]] == ["tiny"]


def test_what_is_no_chat_is_not_there(ask):
    questions = [Question(path) for path in CLOSED] + [post(path, a="b") for path in CLOSED]
    assert set(statuses(ask("operator", *questions))) == {404}


def test_loopback_alone_is_not_enough(gateway):
    for port in (8080, 8090, 8091):
        url = f"http://127.0.0.1:{port}/v1/chat/completions"
        words = "-s -o /dev/null -w '%{http_code}' -H 'Content-Type: application/json' -d '{}'"
        assert gateway.host.check_output(f"curl {words} {url}") == "401"
    answer = curl.request(gateway.lab, "stranger", f"http://{gateway.address}:8080/health")
    assert answer.why == "refused"
    # service_sandbox's drop-in, over the unit that says 0.0.0.0
    table = gateway.host.check_output("ss --tcp --listening --numeric --no-header").splitlines()
    places = [line.split()[3] for line in table if line.split()[3].endswith(":8080")]
    assert places == ["127.0.0.1:8080"]


def served(gateway, port):
    """How many tokens a server has made: its own word."""
    words = (
        f'printf "Authorization: Bearer %s" "$(cat /etc/llama/api-key)" | curl -s --header @-'
        f" http://127.0.0.1:{port}/metrics"
    )
    text = gateway.host.check_output(words)
    return int(re.search(r"^llamacpp:tokens_predicted_total (\d+)", text, re.MULTILINE)[1])


def is_idle(gateway, port):
    """Whether nothing of the gateway's is under way on a drained server, as the README asks it."""
    links = gateway.host.check_output(f"ss -Hnt state established dst 127.0.0.1:{port}")
    return not links and "shutting down" not in gateway.host.check_output("ps ax")


def answers(gateway, port):
    return gateway.host.run(f"curl -sf http://127.0.0.1:{port}/health").rc == 0


@contextmanager
def stopped(gateway, unit):
    gateway.host.check_output("systemctl stop %s", unit)
    try:
        yield
    finally:
        gateway.host.check_output("systemctl start %s", unit)
        assert wait_until(lambda: answers(gateway, 8090))


def test_the_other_one_answers_for_one_that_is_down(gateway, ask):
    before = served(gateway, 8080), served(gateway, 8090)
    assert statuses(ask("app", *[chat()] * 8)) == [200] * 8
    both = served(gateway, 8080), served(gateway, 8090)
    assert all(now > then for now, then in zip(both, before, strict=True))
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
            # A connection each: an idle one ends with the reload, and a client that had just
            # chosen it would have to ask again.
            for question in (chat(stream=True, max_tokens=60), chat()):
                found += gateway.ask_all([question], key=keys["app"])
        return found

    with ThreadPoolExecutor(3) as pool:
        loads = [pool.submit(load) for _unused in range(3)]
        try:
            drained = harden(
                "llama_cpp", "--tags=gateway_configure", gateway_backends=backends(True)
            )
            idle = wait_until(lambda: is_idle(gateway, 8090), 60)
            before = served(gateway, 8090), served(gateway, 8080)
            time.sleep(2)
            heard = served(gateway, 8090) - before[0], served(gateway, 8080) - before[1]
            gateway.host.check_output("systemctl restart %s", UNITS[8090])
            assert wait_until(lambda: answers(gateway, 8090))
            back = harden("llama_cpp", "--tags=gateway_configure", gateway_backends=backends(False))
            again = wait_until(lambda: served(gateway, 8090), 20)
        finally:
            over.append(True)
        found = [answer for one in loads for answer in one.result()]
    assert (drained.code, back.code) == (0, 0), drained.ending + back.ending
    assert set(statuses(found)) == {200}, [one for one in found if one.status != 200]
    streams = [one.body for one in found if "event-stream" in one.headers["content-type"]]
    assert len(streams) > 5
    assert all(body.rstrip().endswith("data: [DONE]") for body in streams)
    assert idle
    assert heard[0] == 0
    assert heard[1] > 0
    assert again > 0


def test_who_asked_what_is_on_record(gateway, ask):
    ask("app", chat())
    told = gateway.host.check_output("llm-audit query --key app --json | tail -n 20")
    records = [json.loads(line) for line in told.splitlines()]
    assert any(one.get("gen_ai.request.model") in ("tiny", "tiny:latest") for one in records)
    assert {one["gen_ai.provider.name"] for one in records if "gen_ai.provider.name" in one} == {
        "llama_cpp"
    }
