# SPDX-License-Identifier: GPL-3.0-or-later
"""Bad input and hosts in the wrong state: one sentence with what and where, nothing changed."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from tests.lab import playbook
from tests.lab.playbook import Counts

APP = ["192.0.2.7"]
GOOD_KEY = {"id": "app", "sha256": "0" * 64, "owner": "app"}
CLIENT = {"id": "client", "certificate_sha256": ["a" * 64, "b" * 64], "owner": "client"}


HOSTS = ("refusals-d12", "refusals-d13")


def assert_refused(message, *, hosts=HOSTS, **variables):
    run = playbook.harden(",".join(hosts), **variables)
    assert run.code != 0
    assert re.search(message, run.text), run.ending
    assert run.hosts == dict.fromkeys(hosts, Counts(changed=0, failed=1)), run.ending


ROLES = ("ollama", "pki", "key_validator", "gateway", "firewall")


def test_check_mode_on_the_fresh_host_changes_nothing(lab):
    run = playbook.harden("refusals", "--check", "--diff")
    assert run.code == 0, run.ending
    assert len(run.changed) == 2
    assert all(run.changed.values()), run.ending
    for name in HOSTS:
        looked = lab.run(name, "ls", "/etc/nginx", "/etc/llm-gateway", "/etc/llm-key-validator")
        assert looked.stdout == ""
        assert "HOST=0.0.0.0" in lab.run(name, "cat", "/etc/systemd/system/ollama.service").stdout


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"gateway_limit_per_key": {"rate": "10 per minute"}}, "gateway_limit_per_key must be"),
        ({"gateway_port": "https"}, "gateway_port"),
    ],
)
def test_bad_input_of_the_last_role_stops_the_first_one(variables, message):
    assert_refused(message, **variables)


BAD = [
    ({"gateway_limit_per_address": {"rate": "5r/m", "burst": "x"}}, "burst"),
    ({"gateway_limit_per_key": 10}, "gateway_limit_per_key must be"),
    ({"gateway_connections_per_address": 0}, "gateway_connections_per_address must be"),
    ({"gateway_server_names": ["https://llm.example.com"]}, "needs host names.*https://llm"),
    ({"gateway_server_names": []}, "gateway_server_names"),
    ({"gateway_server_names": ["a b; return 200"]}, "gateway_server_names.*a b; return 200"),
    ({"gateway_route_classes": ["account"]}, "gateway_route_classes.*account"),
    ({"gateway_extra_routes": ["POST /api/signout"]}, "POST /api/signout"),
    ({"gateway_max_body_size": "ten"}, "gateway_max_body_size must be a size"),
    ({"gateway_port": 70000}, "gateway_port must be between"),
    ({"gateway_llm_server": "gpt"}, "unknown LLM server 'gpt'"),
    ({"gateway_certificate": "/etc/x; include /etc/passwd"}, "gateway_certificate must be"),
    ({"gateway_state": "gone"}, "gateway_state"),
    ({"gateway_auth": "none"}, "gateway_auth"),
    ({"gateway_auth": "mtls", "gateway_client_ca": ""}, "gateway_client_ca must be"),
    ({"gateway_auth": "mtls", "gateway_client_ca": "/a", "gateway_client_crl": "b; #"},
     "gateway_client_crl must be an absolute path"),
    ({"gateway_client_verify_depth": 99}, "gateway_client_verify_depth must be between"),
    ({"key_validator_keys": [{**GOOD_KEY, "networks": ["10.0.0.0/33"]}]}, r"keys\[0\].net"),
    ({"key_validator_keys": [{**GOOD_KEY, "expires": "tomorrow"}]}, r"keys\[0\].*expires"),
    ({"key_validator_keys": [{**GOOD_KEY, "tier": "gold"}]}, r"keys\[0\].*tier"),
    ({"key_validator_keys": [GOOD_KEY, GOOD_KEY]}, r"keys\[1\]"),
    ({"key_validator_keys": [CLIENT, {**GOOD_KEY, "certificate_sha256": "a" * 64}]},
     r"keys\[1\].certificate_sha256: is used"),
    ({"key_validator_keys": [{"id": "app", "owner": "app"}]}, r"keys\[0\].sha256"),
    ({"key_validator_port": 0}, "key_validator_port"),
    ({"pki_source": "provided", "pki_certificate_file": "/nonexistent/a.crt",
      "pki_private_key_file": "/nonexistent/a.key"}, "/nonexistent/a.(crt|key)"),
    ({"pki_server_days": 0}, "pki_server_days"),
    ({"ollama_models": [{"gguf": "/nonexistent.gguf"}]}, "ollama_models"),
    ({"ollama_models": [{"name": "x", "gguf": "/nonexistent.gguf"}]}, "/nonexistent.gguf"),
    ({"ollama_require_version_floor": True}, "CVE-2026-103663"),
    ({"firewall_app_servers": []}, "firewall_app_servers is empty"),
    ({"firewall_app_servers": ["10.0.0.300"]}, "firewall_app_servers: 10.0.0.300 is no addr"),
    ({"firewall_app_servers": APP, "firewall_gateway_port": 70000}, "between 1 and 65535"),
    ({"firewall_app_servers": APP, "firewall_backend": "pf"}, "firewall_backend.*pf"),
    ({"firewall_app_servers": APP, "firewall_admin_networks": ["10.0.0.1/8"]}, "beyond its"),
    ({"firewall_app_servers": APP, "firewall_port_sources": [{"port": 443}]}, "must differ"),
    ({"firewall_app_servers": APP, "firewall_default_policy": "drop"}, "nobody with SSH"),
    ({"firewall_app_servers": APP, "firewall_egress_allow": [
        {"destination": "llm.example.com", "port": 443}]}, "llm.example.com is no address"),
]  # fmt: skip
CASES = {f"case-{number}": case for number, case in enumerate(BAD)}


@pytest.fixture(scope="module")
def refused(tmp_path_factory):
    """One run with a host for each bad variable, all of which are one machine by other names.

    Which release it has, the checks of variables do not ask.
    """
    lab = json.loads((playbook.INVENTORY / "hosts.yml").read_text())["all"]["children"]["lab"]
    common = {**lab["vars"], **lab["hosts"][HOSTS[1]]}
    common = json.loads(json.dumps(common).replace("{{ inventory_dir }}", str(playbook.INVENTORY)))
    hosts = {}
    for name, (variables, _message) in CASES.items():
        role = next(name for name in ROLES if next(iter(variables)).startswith(name))
        hosts[name] = {**common, "harden_roles": [role], **variables}
    groups = {"refused": {"hosts": hosts}, "refusals": {"children": {"refused": {}}}}
    inventory = tmp_path_factory.mktemp("refused") / "hosts.yml"
    inventory.write_text(json.dumps(groups))
    return playbook.harden("refused", "-i", str(inventory))


@pytest.mark.parametrize("name", CASES)
def test_bad_variable(refused, name):
    assert refused.code != 0
    assert refused.hosts.keys() == CASES.keys(), refused.ending
    assert refused.hosts[name] == Counts(changed=0, failed=1), refused.said[name]
    assert re.search(CASES[name][1], refused.said[name]), refused.said[name]


def test_nothing_to_harden():
    run = playbook.harden("no_such_group")
    assert run.code != 0
    assert "nothing to harden" in run.text


def on_both(lab, *command, stdin=""):
    for name in HOSTS:
        lab.run(name, *command, stdin=stdin, check=True)


@pytest.mark.parametrize(("port", "name"), [(443, "gateway_port"), (8081, "key_validator_port")])
def test_port_taken(lab, port, name):
    listen = [
        "systemd-run",
        "--quiet",
        "--unit=squatter",
        "python3",
        "-m",
        "http.server",
        str(port),
    ]
    on_both(lab, *listen)
    try:
        role = name.removesuffix("_port")
        message = f"[Pp]ort {port} on refusals-d1[23] is (taken|held) by python3.*{name}"
        assert_refused(message, harden_roles=[role])
    finally:
        on_both(lab, "systemctl", "stop", "squatter.service")


def test_another_drop_in_would_win(lab):
    path = "/etc/systemd/system/ollama.service.d/override.conf"
    text = '[Service]\nEnvironment="OLLAMA_HOST=0.0.0.0"\n'
    on_both(lab, "sh", "-c", f"mkdir -p {Path(path).parent}; cat >{path}", stdin=text)
    try:
        message = f"OLLAMA_HOST=0.0.0.0.*{path}|{path}.*OLLAMA_HOST"
        assert_refused(message, harden_roles=["ollama"])
    finally:
        on_both(lab, "rm", "-r", str(Path(path).parent))


def test_unsupported_distribution(lab):
    on_both(lab, "cp", "/etc/os-release", "/root/os-release")
    on_both(
        lab, "sh", "-c", "rm /etc/os-release; sed s/1[23]/11/g /root/os-release >/etc/os-release"
    )
    on_both(lab, "cp", "/etc/debian_version", "/root/debian_version")
    on_both(lab, "sh", "-c", "echo 11.9 >/etc/debian_version")
    try:
        assert_refused("supports Debian 12 and 13.*runs Debian 11")
    finally:
        on_both(lab, "ln", "-sf", "../usr/lib/os-release", "/etc/os-release")
        on_both(lab, "cp", "/root/debian_version", "/etc/debian_version")
