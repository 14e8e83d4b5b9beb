# SPDX-License-Identifier: GPL-3.0-or-later
"""LocalAI behind the gateway: what is open, what is shut, and how it leaves again."""

from __future__ import annotations

import json
import re

import pytest

from tests.lab import curl
from tests.lab.batch import Question, post
from tests.lab.clients import ask_clients, assert_served
from tests.lab.playbook import harden, play

UNIT = "local-ai.service"
SOCKET = "/etc/systemd/system/local-ai.socket"
KEY_FILE = "/etc/local-ai/credentials/api-key"
OWN = (
    "/opt/local-ai", "/etc/local-ai", "/var/lib/local-ai", "/usr/local/bin/local-ai",
    f"/etc/systemd/system/{UNIT}", f"/etc/systemd/system/{UNIT}.d",
)  # fmt: skip
CHAT = post("/v1/chat/completions", model="tiny", messages=[{"role": "user", "content": "Hello"}])
# core/http/routes of LocalAI: administration, files, memory, and what tells of the inside
CLOSED = (
    "/", "/models/apply", "/models/available", "/models/delete/tiny", "/models/galleries",
    "/models/jobs", "/backends", "/backends/apply", "/backend/monitor", "/backend/shutdown",
    "/api/settings", "/api/cors-proxy", "/api/p2p", "/api/p2p/token", "/api/traces",
    "/api/backend-logs", "/api/agent/jobs", "/swagger", "/swagger/index.html", "/system",
    "/metrics", "/stores/get", "/tts", "/video", "/v1/images/generations", "/v1/files",
    "/v1/assistants", "/v1/mcp/chat/completions", "/ws/backend-logs", "/browse", "/chat/",
    "/v1/tokenize", "/v1/rerank", "/chat/completions", "/v1/engines/tiny/completions",
)  # fmt: skip


@pytest.fixture
def ask(gateway, keys):
    return lambda key, *questions: gateway.ask_all(questions, key=keys[key])


def local(gateway, path, *words, port=8080, key=""):
    """A request on the host itself: the status. The key is no argument."""
    told = f'printf "Authorization: Bearer %s" {key} | ' if key else ""
    header = "--header @- " if key else ""
    rest = " ".join(words)
    url = f"http://127.0.0.1:{port}{path}"
    command = (
        f"{told}curl --silent --output /dev/null --write-out '%{{http_code}}' {header}{rest} {url}"
    )
    return int(gateway.host.run(command).stdout or 0)


def test_what_answers_is_named(gateway):
    """A stand-in says so; with LOCALAI_BINARY this is LocalAI's own word."""
    version = json.loads(gateway.host.check_output("curl -s http://127.0.0.1:8080/version"))[
        "version"
    ]
    assert version.startswith("v"), version
    print(f"LocalAI in this run: {version}")


def test_the_official_clients(lab, gateways, keys):
    asked = [
        {"name": one.name, "base_url": one.url("/v1"), "api_key": keys["app"], "chat": "tiny",
         "embeddings": "tiny"}
        for one in gateways
    ]  # fmt: skip
    for answers in ask_clients(lab, gateways[0].ca_file, asked).values():
        assert answers["openai"]["models"] == ["tiny"]
        assert_served(answers)


def test_a_second_run_changes_nothing(gateways):
    """Of this role; the others' second run is what `api_key` tests."""
    run = harden("localai", harden_roles=["localai"])
    assert run.code == 0, run.ending
    assert set(run.changed.values()) == {0}, run.ending


def test_loopback_alone_is_not_enough(gateway):
    key = gateway.host.file(KEY_FILE).content_string.strip()
    assert local(gateway, "/v1/models", key=key) == 200
    assert local(gateway, "/v1/models") == 401
    assert local(gateway, "/v1/models", key="guessed") == 401
    file = gateway.host.file(KEY_FILE)
    assert (file.user, file.mode) == ("root", 0o600)
    assert key not in gateway.host.check_output("ps -e -o args=")
    assert key not in gateway.host.check_output("journalctl --no-pager --output=cat")
    table = gateway.host.check_output("ss --tcp --listening --numeric --no-header").splitlines()
    places = [line.split()[3] for line in table if line.split()[3].endswith(":8080")]
    assert places == ["127.0.0.1:8080"]
    answer = curl.request(gateway.lab, "stranger", f"http://{gateway.address}:8080/readyz")
    assert answer.why == "refused"


def test_nobody_administers_it_through_the_gateway(ask):
    questions = [Question(path) for path in CLOSED] + [post(path, a="b") for path in CLOSED]
    for key in ("app", "operator"):
        statuses = [answer.status for answer in ask(key, *questions)]
        assert statuses == [404] * len(questions), [*zip(questions, statuses, strict=True)]


def test_no_program_is_chosen_in_a_body(ask):
    """`backend` names what runs the model."""
    body = json.loads(CHAT.body)
    answers = ask(
        "app", CHAT, post(CHAT.path, **body, backend="x"), post(CHAT.path, **body, file="x")
    )
    assert [answer.status for answer in answers] == [200, 400, 400]


def test_its_sandbox_holds(gateway):
    shown = gateway.host.check_output(
        f"systemctl show {UNIT} -p User -p NoNewPrivileges -p ProtectSystem -p IPAddressDeny"
    )
    assert "User=localai" in shown
    assert "NoNewPrivileges=yes" in shown
    assert "ProtectSystem=strict" in shown
    assert "0.0.0.0/0" in shown
    environment = gateway.host.check_output(
        f"tr '\\0' '\\n' </proc/{gateway.main_pid(UNIT)}/environ"
    )
    for line in (
        "LOCALAI_ADDRESS=127.0.0.1:8080", "LOCALAI_DISABLE_WEBUI=true",
        "LOCALAI_DISABLE_RUNTIME_SETTINGS=true", "LOCALAI_DISABLE_METRICS_ENDPOINT=true",
        "LOCALAI_REQUIRE_BACKEND_INTEGRITY=true",
    ):  # fmt: skip
        assert line in environment.splitlines()


def test_a_socket_unit_is_refused_before_anything_changes(gateways):
    """Under one LocalAI would take whatever socket it is handed."""
    socket = "[Socket]\nListenStream=0.0.0.0:8090\n[Install]\nWantedBy=sockets.target\n"
    pids = [gateway.main_pid(UNIT) for gateway in gateways]
    for gateway in gateways:
        gateway.lab.run(
            gateway.name, "sh", "-c", f"cat >{SOCKET} && systemctl enable local-ai.socket",
            stdin=socket, check=True,
        )  # fmt: skip
    run = harden("localai", harden_roles=["localai"])
    for gateway in gateways:
        gateway.host.check_output(
            f"systemctl disable local-ai.socket && rm {SOCKET} && systemctl daemon-reload"
        )
        assert (run.hosts[gateway.name].failed, run.changed[gateway.name]) == (1, 0), run.ending
        assert "local-ai.socket" in run.said[gateway.name]
    assert [gateway.main_pid(UNIT) for gateway in gateways] == pids


def test_an_assessment_finds_nothing_but_the_missing_firewall(gateways):
    run = play("assess", assess_hosts="localai", posture_stop=False)
    assert run.code == 0, run.ending
    assert "Gate (fails on high): passed" in run.text, run.ending
    found = re.findall(r"X (\w+): [\w-]+: .*?\(([\w.]+)\)", run.text)
    assert found == [("medium", "firewall.wanted")] * len(gateways)


def test_it_leaves_nothing_behind(gateways):
    roles = ["gateway", "key_validator", "pki", "localai"]
    run = play(
        "rollback", rollback_hosts="localai", rollback_roles=roles, localai_remove_models=True
    )
    assert run.code == 0, run.ending
    for gateway in gateways:
        for place in OWN:
            assert not gateway.host.file(place).exists, place
        assert not gateway.host.user("localai").exists
        assert local(gateway, "/readyz") == 0
