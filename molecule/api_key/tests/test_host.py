# SPDX-License-Identifier: GPL-3.0-or-later
"""The hardened host from inside: files, sandboxes, local users, and services that fail."""

from __future__ import annotations

import json
import re

import pytest

from tests.lab import curl
from tests.lab.steps import wait_until

GENERATE = curl.generate("tiny", tokens=4, stream=False)


def exposure(gateway, unit):
    """The overall exposure level that systemd-analyze security gives a unit, 0 to 10."""
    text = gateway.host.check_output("systemd-analyze security --no-pager %s", unit)
    return float(re.search(r"Overall exposure level for \S+: ([\d.]+)", text)[1])


@pytest.mark.parametrize("unit", ["llm-key-validator.service", "ollama.service"])
def test_sandbox(gateway, unit):
    assert exposure(gateway, unit) <= 2.0


@pytest.mark.parametrize(
    ("path", "owner", "group", "mode"),
    [
        ("/etc/systemd/system/ollama.service.d/50-llm-hardening.conf", "root", "root", 0o644),
        ("/etc/nginx/conf.d/llm-gateway.conf", "root", "root", 0o640),
        ("/etc/nginx/llm-gateway", "root", "root", 0o750),
        ("/etc/llm-gateway/pki/server.key", "root", "root", 0o600),
        ("/etc/llm-gateway/pki/server.crt", "root", "root", 0o644),
        ("/etc/llm-key-validator/keys.json", "root", "llm-validator", 0o640),
        ("/usr/local/lib/llm-key-validator", "root", "root", 0o755),
        ("/run/llm-key-validator.sock", "root", "www-data", 0o660),
        ("/var/log/nginx/llm-gateway.access.log", "www-data", "adm", 0o640),
    ],
)
def test_owners_and_modes(gateway, path, owner, group, mode):
    file = gateway.host.file(path)
    assert (file.user, file.group, file.mode) == (owner, group, mode)


def test_no_key_is_anywhere_on_the_host(gateway, keys):
    """Only hashes: not in files, the journal, or a process list."""
    texts = "|".join(keys.values())
    where = "/etc /var/log /var/lib /usr/local /run/systemd /root /home /tmp"
    found = gateway.host.run(f"grep -rIlE '{texts}' {where} 2>/dev/null")
    assert found.stdout == ""
    journal = gateway.host.check_output("journalctl --no-pager --output=cat")
    assert not re.search(texts, journal)


def test_only_loopback_and_the_gateway_listen(gateway):
    listening = gateway.host.socket.get_listening_sockets()
    public = {text for text in listening if text.startswith("tcp") and "127.0.0.1" not in text}
    assert {text.rpartition(":")[2] for text in public} <= {"22", "443", "53"}


def test_a_local_user_is_no_wiser(gateway, keys):
    """Neither the socket nor the port tells an unprivileged user whether a key is good."""
    words = "curl --silent --output /dev/null --write-out '%{http_code}' --max-time 5"
    as_nobody = f"runuser -u nobody -- {words} -H 'X-API-Key: {keys['app']}'"
    tcp = gateway.host.run(f"{as_nobody} http://127.0.0.1:8081/validate")
    assert tcp.stdout == "403"
    socket = gateway.host.run(
        f"{as_nobody} --unix-socket /run/llm-key-validator.sock http://localhost/validate"
    )
    assert socket.stdout == "000"


def test_health_of_the_key_validator(gateway, keys):
    text = gateway.host.check_output("curl --silent --fail http://127.0.0.1:8081/healthz")
    assert json.loads(text)["keys"] == len(keys)


def test_the_access_log_knows_the_key_by_name(gateway, keys):
    answer = gateway.ask("/api/tags?secret=in-the-query", key=keys["app"])
    log = "/var/log/nginx/llm-gateway.access.log"
    request_id = answer.headers["x-request-id"]
    # nginx writes it once a second.
    assert wait_until(lambda: gateway.host.run("grep %s %s", request_id, log).rc == 0)
    lines = gateway.host.check_output("tail --lines=50 %s", log).splitlines()
    records = [json.loads(line) for line in lines]
    mine = [one for one in records if one["request_id"] == request_id]
    assert [(one["key_id"], one["route"], one["status"]) for one in mine] == [
        ("app", "/api/tags", 200)
    ]
    assert "in-the-query" not in json.dumps(records)


def test_validator_stopped_means_refused(gateway, keys):
    gateway.host.check_output("systemctl stop llm-key-validator.service")
    try:
        answer = gateway.ask("/api/generate", *GENERATE, key=keys["app"])
        assert answer.status == 503
        assert answer.json()["error"]["type"] == "unavailable"
    finally:
        gateway.host.check_output("systemctl start llm-key-validator.service")
    assert gateway.ask("/api/tags", key=keys["app"]).status == 200


def test_nobody_takes_the_validators_place(gateway, keys):
    """A local user on port 8081 says yes to everybody; nginx does not ask there."""
    gateway.host.check_output("systemctl stop llm-key-validator.service")
    answer_yes = (
        "import http.server as h\n"
        "class Yes(h.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(204); self.end_headers()\n"
        "h.HTTPServer(('127.0.0.1', 8081), Yes).serve_forever()\n"
    )
    try:
        gateway.host.check_output(
            "systemd-run --quiet --unit=impostor --uid=nobody python3 -c %s", answer_yes
        )
        probe = (
            "curl --silent --output /dev/null --write-out '%{http_code}' 127.0.0.1:8081/validate"
        )
        assert wait_until(lambda: gateway.host.run(probe).stdout == "204")
        assert gateway.ask("/api/tags", key=keys["app"]).status == 503
    finally:
        gateway.host.run("systemctl stop impostor.service")
        gateway.host.check_output("systemctl start llm-key-validator.service")
    assert gateway.ask("/api/tags", key=keys["app"]).status == 200


def test_validator_killed_comes_back(gateway, keys):
    for _unused in range(3):
        gateway.host.check_output("systemctl kill --signal=KILL llm-key-validator.service")
        assert gateway.ask("/api/tags", key="llmk_wrong").status in {401, 503}
    assert wait_until(lambda: gateway.ask("/api/tags", key=keys["app"]).status == 200)


def test_a_broken_registry_keeps_the_last_good_one(gateway, keys):
    path = "/etc/llm-key-validator/keys.json"
    gateway.host.check_output(f"cp --archive {path} /root/keys.json")
    refused = "journalctl --unit=llm-key-validator.service --output=cat --since=-60s"
    try:
        gateway.host.check_output(f"sh -c 'echo garbage >{path}'")
        assert wait_until(lambda: "refused" in gateway.host.check_output(refused))
        assert gateway.ask("/api/tags", key=keys["app"]).status == 200
    finally:
        gateway.host.check_output(f"mv /root/keys.json {path}")


def test_a_revoked_key_is_refused_at_once(gateway, keys):
    def ask():
        return gateway.ask("/api/tags", key=keys["app"])

    path = "/etc/llm-key-validator/keys.json"
    gateway.host.check_output(f"cp --archive {path} /root/keys.json")
    registry = json.loads(gateway.host.file(path).content_string)
    for record in registry["keys"]:
        record["revoked"] = True
    try:
        gateway.lab.run(
            gateway.name, "sh", "-c", f"cat >{path}", stdin=json.dumps(registry), check=True
        )
        assert wait_until(lambda: ask().status == 401, seconds=5)
        assert "revoked" in ask().json()["error"]["message"]
    finally:
        gateway.host.check_output(f"mv /root/keys.json {path}")
    assert wait_until(lambda: ask().status == 200, seconds=5)


def test_llm_server_stopped(gateway, keys):
    gateway.host.check_output("systemctl stop ollama.service")
    try:
        answer = gateway.ask("/api/tags", key=keys["app"])
        assert answer.status == 502
        assert answer.json()["error"]["type"] == "upstream_error"
        assert gateway.ask("/api/tags").status == 401
    finally:
        gateway.host.check_output("systemctl start ollama.service")
    assert wait_until(lambda: gateway.ask("/api/tags", key=keys["app"]).status == 200)


def test_the_sandbox_keeps_the_llm_server_off_the_network(gateway):
    """Measured inside the unit's control group: what systemctl shows is not always in force."""
    v4, _unused = gateway.lab.addresses()["app-server"]
    group = gateway.host.check_output("systemctl show --value -p ControlGroup ollama.service")
    script = (
        'for base in /sys/fs/cgroup/unified /sys/fs/cgroup; do test -d "$base$1" && break; done; '
        'echo $$ >"$base$1/cgroup.procs"; exec python3 -c "$2"'
    )

    def connect(address, port, where):
        code = f"import socket; socket.create_connection(('{address}', {port}), 3)"
        words = ["python3", "-c", code] if not where else ["sh", "-c", script, "sh", where, code]
        return gateway.lab.run(gateway.name, *words).returncode

    assert connect(v4, 22, "") == 0, "the positive control: the host itself reaches the neighbour"
    assert connect(v4, 22, group) != 0
    assert connect("127.0.0.1", 11434, group) == 0
