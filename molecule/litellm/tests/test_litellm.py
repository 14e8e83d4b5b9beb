# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain gateway, LiteLLM, Ollama: its answers, its locks, its money."""

from __future__ import annotations

import base64
import json

import pytest
from chain import CREDENTIALS, chat

from tests.lab.batch import Question, post
from tests.lab.clients import ask_clients, assert_served
from tests.lab.playbook import harden
from tests.lab.steps import wait_until

SECRETS = ("master-key", "salt-key", "database-password", "redis-password", "gateway-key")
CLOSED = (
    "/", "/ui", "/ui/", "/docs", "/redoc", "/openapi.json", "/health", "/health/readiness",
    "/routes", "/key/generate", "/key/info", "/user/new", "/team/new", "/model/info",
    "/model/new", "/config/yaml", "/budget/new", "/customer/new", "/spend/logs", "/global/spend",
    "/sso/key/generate", "/login", "/v1/model/info", "/cache/ping", "/credentials", "/v1/files",
    "/v1/images/generations", "/metrics", "/mcp", "/v1/batches",
    "/engines/house/chat/completions", "/chat/completions",
)  # fmt: skip


def said(answer) -> str:
    assert answer.status == 200, answer
    return answer.json()["choices"][0]["message"]["content"]


def test_chat_stream_and_embeddings(ask):
    embed = post("/v1/embeddings", model="house-embeddings", input="Hello")
    plain, streamed, embedded = ask("app", chat(), chat(stream=True), embed)
    assert said(plain)
    assert streamed.status == 200, streamed
    events = [line for line in streamed.body.splitlines() if line.startswith("data: ")]
    assert len(events) > 3, streamed.body
    assert events[-1] == "data: [DONE]"
    assert embedded.status == 200, embedded
    assert len(embedded.json()["data"][0]["embedding"]) > 8


def test_the_official_clients(lab, gateways, keys):
    asked = [
        {"name": one.name, "base_url": one.url("/v1"), "api_key": keys["app"], "chat": "house",
         "embeddings": "house-embeddings"}
        for one in gateways
    ]  # fmt: skip
    for answers in ask_clients(lab, gateways[0].ca_file, asked).values():
        assert_served(answers)


def test_a_second_run_changes_nothing(gateways):
    """Of this role; the others' second run is what `api_key` tests."""
    run = harden("litellm", harden_roles=["litellm"])
    assert run.code == 0, run.ending
    assert set(run.changed.values()) == {0}, run.ending


def test_a_key_sees_and_gets_its_own_models_only(ask):
    everything, own = ask("app", Question("/v1/models")), ask("house_only", Question("/v1/models"))
    names = [{model["id"] for model in one.json()["data"]} for one in (*everything, *own)]
    assert names == [{"house", "other", "house-embeddings"}, {"house"}]
    good, bad = ask("house_only", chat(), chat(model="other"))
    assert (good.status, bad.status) == (200, 403)


@pytest.mark.parametrize(
    "order",
    [
        {"fallbacks": ["other"], "mock_testing_fallbacks": True},
        {"mock_response": "for free"},
        {"metadata": {"tags": ["somebody's"]}},
        {"api_base": "http://127.0.0.1:9"},
        {"litellm_metadata": {"user": "app"}},
    ],
)
def test_no_order_in_a_body_reaches_it(ask, order):
    """LiteLLM itself would take the first: another model, which no policy has judged."""
    (answer,) = ask("house_only", chat(**order))
    assert answer.status == 400, answer
    assert "not let through to this LLM server" in answer.json()["error"]["message"]


def test_nobody_administers_it_through_the_gateway(ask):
    questions = [Question(path) for path in CLOSED] + [post(path, a="b") for path in CLOSED]
    for key in ("app", "operator"):
        answers = ask(key, *questions)
        assert {answer.status for answer in answers} == {404}, [
            *zip(CLOSED * 2, answers, strict=True)
        ]


def test_who_reaches_its_port_may_not_use_it(inside):
    """Loopback alone is not enough, and its documentation is off."""
    message = {"model": "house", "messages": [{"role": "user", "content": "Hello"}]}
    for key in ("", "sk-guessed"):
        assert inside.call("/v1/models", key=key)[0] in (401, 403)
        assert inside.call("/v1/chat/completions", key=key, **message)[0] in (401, 403)
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert inside.call(path, key="")[0] == 404


def test_the_gateways_own_key_asks_models_and_nothing_else(inside):
    key = inside.secret("gateway-key")
    assert key != inside.secret("master-key")
    assert inside.call("/v1/models", key=key)[0] == 200
    for path in ("/key/list", "/user/list", "/team/list", "/spend/logs", "/global/spend/report"):
        assert inside.call(path, key=key)[0] in (401, 403), path
    assert inside.call("/key/generate", key=key, models=[])[0] in (401, 403)


def test_secrets_are_roots_alone_and_told_to_nobody(gateway, inside):
    folder = gateway.host.file(CREDENTIALS)
    assert (folder.user, folder.mode) == ("root", 0o700)
    secrets = {name: inside.secret(name) for name in SECRETS}
    for name in (*SECRETS, "environment"):
        file = gateway.host.file(f"{CREDENTIALS}/{name}")
        assert (file.user, file.mode) == ("root", 0o600), name
    shown = gateway.host.check_output("ps -e -o args=")
    written = gateway.host.check_output("journalctl --no-pager --output=cat")
    written += gateway.host.check_output("cat /var/log/llm-gateway/*.jsonl /var/log/nginx/*.log")
    for name, secret in secrets.items():
        assert len(secret) > 16, name
        for text in (shown, written):
            assert secret not in text, name
    gateway.lab.run(
        gateway.name, "sh", "-c", "umask 077; cat >/root/secrets", stdin="\n".join(secrets.values())
    )
    readable = gateway.host.run(
        "find /etc /var/log /var/lib /opt /tmp -xdev -type f -perm -o=r -size -1024k -print0"
        " | xargs -0 grep -lFf /root/secrets; rm /root/secrets"
    )
    assert not readable.stdout


def test_services_listen_on_loopback_and_want_passwords(gateway, inside):
    table = gateway.host.check_output("ss --tcp --listening --numeric --no-header")
    listening = [line.split()[3] for line in table.splitlines()]
    for port in (4000, 5432, 6380, 11434, 11435):
        places = [place for place in listening if place.endswith(f":{port}")]
        assert places, port
        assert all(place.startswith(("127.", "[::1]")) for place in places), places
    tool = "redis-cli" if gateway.name.endswith("d12") else "valkey-cli"
    assert "NOAUTH" in gateway.host.run(f"{tool} -p 6380 ping").stdout
    rules = inside.sql(
        "select distinct auth_method from pg_hba_file_rules where address is not null"
    )
    assert rules == [["scram-sha-256"]]


def not_answered(answer):
    return answer if answer.status != 200 else None


def spent(inside) -> dict[str, float]:
    rows = inside.sql('select end_user, sum(spend) from "LiteLLM_SpendLogs" group by end_user')
    return {user: float(money) for user, money in rows}


def test_money_is_counted_by_the_gateways_key(ask, inside):
    """The tiny model's tokens have a price in the scenario's list."""
    before = spent(inside)
    # That another one should pay is read by nobody.
    answers = ask("spender", *[chat(user="app") for _unused in range(3)])
    usage = [answer.json()["usage"] for answer in answers]
    cost = sum(0.001 * one["prompt_tokens"] + 0.002 * one["completion_tokens"] for one in usage)

    def counted() -> bool:
        now = spent(inside)
        return abs(now.get("spender", 0) - before.get("spender", 0) - cost) < 1e-6

    assert wait_until(counted, 90), (spent(inside), cost)
    assert spent(inside).get("app", 0) == pytest.approx(before.get("app", 0), abs=1e-6)


def test_who_spent_a_budget_is_refused_and_nobody_else(ask, inside):
    def allow(money):
        status, told = inside.call("/customer/update", user_id="spender", max_budget=money)
        assert status == 200, told

    assert ask("spender", chat())[0].status == 200
    allow(0.000001)
    try:
        # It remembers a user for a minute.
        mine = wait_until(lambda: not_answered(ask("spender", chat())[0]), 100)
        (other,) = ask("app", chat())
    finally:
        allow(1000)
    assert mine
    assert 400 <= mine.status < 500, mine
    assert "budget" in mine.body.lower()
    assert other.status == 200, other


def test_langfuse_hears_who_and_how_much_but_not_what(ask, inside):
    words = "zanzibar xylophone quince"
    (answer,) = ask("house_only", chat(words))
    answered = said(answer)
    identifier = answer.json()["id"].encode()

    def arrived():
        return [trace for trace in inside.traces() if identifier in trace]

    found = wait_until(arrived, 30)
    assert found, len(inside.traces())
    told = b"".join(found)
    # The key's id, the model's tokens and their price, as attributes of OpenTelemetry's spans
    for word in (b"house_only", b"langfuse.observation.usage_details", b"prompt_tokens"):
        assert word in told, told
    whole = b"".join(inside.traces())
    assert b"redacted-by-litellm" in whole
    for word in (*words.encode().split(), json.dumps(answered).encode()[1:-1]):
        assert word not in whole
    keys = base64.b64encode(b"pk-lf-lab:sk-lf-lab").decode()
    assert inside.langfuse_credentials() == {f"Basic {keys}"}
