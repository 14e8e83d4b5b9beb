# SPDX-License-Identifier: GPL-3.0-or-later
"""Every setting that the scenario flips shows in what the gateway does."""

from __future__ import annotations

import ssl
import subprocess

import pytest

from tests.lab import curl
from tests.lab.batch import Question, post
from tests.lab.hosts import STATE
from tests.lab.link import Door
from tests.lab.steps import wait_until

PORT = 8443
PKI = STATE / "molecule/pki/alternative"


def test_other_port_and_certificate_of_the_corporate_ca(gateway, keys):
    answer = gateway.ask("/api/version", key=keys["app"], port=PORT)
    assert answer.status == 200
    assert "strict-transport-security" not in answer.headers


def test_called_by_address(gateway, keys, lab):
    url = f"https://{gateway.address}:{PORT}/api/version"
    answer = curl.request(lab, "app-server", url, key=keys["app"], ca_file=gateway.ca_file)
    assert answer.status == 200


def test_another_name_is_refused_after_the_handshake(gateway, keys, lab):
    words = ["--connect-to", f"::{gateway.server_name}:{PORT}", "--insecure"]
    url = "https://other.example.com/api/version"
    answer = curl.request(lab, "app-server", *words, url, key=keys["app"])
    assert (answer.status, answer.why) == (0, "no answer")


@pytest.mark.parametrize(
    ("client", "status", "words"),
    [
        ("partner", 200, '"version"'),
        ("stranger", 403, "is not of a CA that is trusted here"),
        ("leaver", 403, "was revoked"),
    ],
)
def test_clients_with_certificates_of_the_partners_ca(gateway, client, status, words):
    """The stranger's has the same subject, of a CA of the same name."""
    trust = ssl.create_default_context(cafile=PKI / "ca.crt")
    trust.load_cert_chain(PKI / f"{client}.crt", PKI / f"{client}.key")
    with Door(gateway.address, gateway.server_name, trust, PORT).open() as link:
        link.request("GET", "/api/version")
        with link.getresponse() as answer:
            body = answer.read().decode()
    assert answer.status == status, body
    assert words in body


def test_the_corporate_cas_word_is_stapled(gateway):
    """nginx has asked the responder that the certificate names."""
    words = ["openssl", "s_client", "-status", "-connect", f"{gateway.address}:{PORT}"]
    words += ["-servername", gateway.server_name, "-CAfile", PKI / "ca.crt"]

    def stapled():
        done = subprocess.run(words, input="", capture_output=True, text=True, check=False)
        return done.stdout if "OCSP Response Status: successful" in done.stdout else ""

    assert "Cert Status: good" in wait_until(stapled)


def test_no_limits(ask):
    assert {answer.status for answer in ask("app", *[Question("/api/version")] * 40)} == {200}


@pytest.mark.parametrize(
    ("path", "key", "status"),
    [
        ("/api/tags", "operator", 404),
        ("/api/version", "app", 200),
        ("/api/show", "app", 403),
        ("/api/show", "operator", 200),
        ("/api/copy", "operator", 404),
    ],
)
def test_routes(gateway, keys, path, key, status):
    words = ["--json", '{"model":"tiny"}'] if path in {"/api/show", "/api/copy"} else []
    assert gateway.ask(path, *words, key=keys[key], port=PORT).status == status


def test_a_named_management_route_needs_its_class(gateway, keys):
    words = ["--request", "DELETE", "--json", '{"model":"no-such-model"}']
    assert gateway.ask("/api/delete", *words, key=keys["app"], port=PORT).status == 403
    answer = gateway.ask("/api/delete", *words, key=keys["operator"], port=PORT)
    assert answer.status == 404
    assert "no-such-model" in answer.body  # it is Ollama that says so


@pytest.mark.parametrize(("size", "status"), [(60_000, 404), (70_000, 413)])
def test_body_limit(ask, size, status):
    """What is let through reaches Ollama, which says that there is no such model."""
    (answer,) = ask("app", post("/api/generate", model="no-such-model", prompt="x" * size))
    assert answer.status == status
    assert ("no-such-model" in answer.body) == (status == 404)


def test_header_limit(gateway, keys):
    answer = gateway.ask(
        "/api/version", "--header", "X-L: " + "a" * 3000, key=keys["app"], port=PORT
    )
    assert answer.status == 431


def test_welcome_page_stays(gateway, lab):
    answer = curl.request(lab, "stranger", f"http://{gateway.address}/")
    assert answer.status == 200
    assert "Welcome to nginx" in answer.body


def test_no_access_log(gateway):
    assert not gateway.host.file("/var/log/nginx/llm-gateway.access.log").exists


def test_validator_on_the_other_port(gateway):
    assert gateway.host.socket("tcp://127.0.0.1:18081").is_listening
    assert not gateway.host.socket("tcp://127.0.0.1:8081").is_listening
