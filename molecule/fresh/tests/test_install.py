# SPDX-License-Identifier: GPL-3.0-or-later
"""What the roles put on a bare host."""

from __future__ import annotations

import json

from tests.lab import curl


def test_ollama_was_installed_and_answers(gateway, keys):
    answer = gateway.ask(
        "/api/generate", *curl.generate("tiny", stream=False), key=keys["operator"]
    )
    assert answer.status == 200, answer.body
    assert answer.json()["eval_count"] > 0


def test_services_run_and_are_enabled(gateway):
    for unit in ("nginx", "ollama", "llm-key-validator.socket", "llm-key-validator.service"):
        assert gateway.host.service(unit).is_running, unit
        state = gateway.host.run("systemctl is-enabled %s", unit).stdout.strip()
        assert state in {"enabled", "indirect"} or unit.endswith(".socket"), (unit, state)


def test_ollama_stays_away_from_the_cloud(gateway):
    pid = gateway.host.check_output("systemctl show --value -p MainPID ollama.service")
    environment = gateway.host.file(f"/proc/{pid}/environ").content_string.split("\0")
    assert "OLLAMA_HOST=127.0.0.1:11434" in environment
    assert "OLLAMA_NO_CLOUD=1" in environment
    assert not any(line.startswith("OLLAMA_DEBUG_LOG_REQUESTS") for line in environment)


def test_no_welcome_page(gateway):
    assert not gateway.host.file("/etc/nginx/sites-enabled/default").exists
    assert not gateway.host.socket("tcp://0.0.0.0:80").is_listening


def test_certificate(gateway, lab):
    """Judged by OpenSSL on the application server: chain, name, purpose, versions, HTTP/2."""
    connect = f"openssl s_client -connect {gateway.address}:443 -CAfile {gateway.ca_file}"
    name = f"-servername {gateway.server_name} -verify_hostname {gateway.server_name}"

    def ask(words):
        script = f"{connect} {name} -verify_return_error -purpose sslserver {words} </dev/null 2>&1"
        return lab.run("app-server", "sh", "-c", script)

    for version in ("-tls1_2", "-tls1_3"):
        done = ask(version)
        assert done.returncode == 0, done.stdout
        assert "Verification: OK" in done.stdout
    assert ask("-tls1_1").returncode != 0
    assert "No ALPN negotiated" in ask("-alpn h2").stdout
    assert ask("-tls1_2 -cipher AES128-SHA").returncode != 0


def test_private_key_of_the_ca_stays_on_the_control_node(gateway):
    files = gateway.host.check_output("find /etc/llm-gateway -type f").splitlines()
    assert sorted(name.rpartition("/")[2] for name in files if name.endswith(".key")) == [
        "server.key"
    ]


def test_registry_has_hashes_only(gateway, keys):
    registry = json.loads(gateway.host.file("/etc/llm-key-validator/keys.json").content_string)
    assert {record["id"] for record in registry["keys"]} == set(keys)
    assert not set(keys.values()) & {str(v) for r in registry["keys"] for v in r.values()}
