# SPDX-License-Identifier: GPL-3.0-or-later
"""A real nginx as the role sets it up, whole and broken in every way there is to get around it."""

from __future__ import annotations

import contextlib
import http.client
import os
import pwd
import socket
import tempfile
import threading
import time

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import access_probe
from ansible_collections.llmsec.hardening.plugins.modules import verify_access

from tests.lab.certificates import Authority
from tests.unit.gateway.conftest import NGINX
from tests.unit.gateway.stage import Upstream, free_port
from tests.unit.plugins.guarded import NAME, Guarded, as_ollama, by_id, red

ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    if NGINX is None:
        pytest.skip("nginx is not installed here")
    with pytest.MonkeyPatch.context() as patch:
        # Python's server, which plays the validator here, takes a hundred; the real one says 403.
        patch.setattr(http.client, "_MAXHEADERS", 1000)
        with contextlib.closing(Guarded(tmp_path_factory.mktemp("guarded") / "stage")) as stage:
            yield stage


@pytest.fixture
def gate(running):
    running.reset()
    return running


@pytest.fixture
def verify(run_module):
    def run(gate, check=False, **params):
        port = gate if isinstance(gate, int) else gate.port
        common = {"address": "127.0.0.1", "port": port, "server_name": NAME}
        result = run_module(verify_access.main, check=check, **{**common, **params})
        assert result["changed"] is False
        by_id(result["findings"])
        return result["findings"]

    return run


def sent(gate):
    """What reached the LLM server."""
    return [(heard.method, heard.target) for heard in gate.llm.heard]


@pytest.mark.parametrize("check", [False, True])
def test_an_untouched_gateway_is_green(verify, gate, check):
    started = time.monotonic()
    findings = verify(gate, check)
    assert red(findings) == {}
    assert time.monotonic() - started < 20  # about one second on an idle machine
    assert {one["result"] for one in findings} == {"pass"}
    assert sent(gate) == []
    ids = {one["id"] for one in findings}
    assert ids >= {
        "access.gateway", "access.no_key.inference", "access.no_key.read",
        "access.wrong_key.inference", "access.closed.management", "access.closed.account",
        "access.methods", "access.bypass.smuggling_cl_te", "access.credentials.query",
    }  # fmt: skip


def test_the_limits_hide_nothing_and_are_met_once_more(verify, gate):
    """Twice in a row, each far over the limit per address."""
    first, second = verify(gate), verify(gate)
    assert red(first) == red(second) == {}
    assert "429" not in str([one["actual"] for one in first + second])


def test_with_a_key_what_is_closed_stays_closed(verify, gate):
    findings = by_id(verify(gate, key=gate.good, refused_keys=[gate.revoked]))
    assert red(findings.values()) == {}
    assert findings["access.key"]["actual"] == "let in; 1 request: 200 (1)"
    assert findings["access.closed_to_keys.management"]["result"] == "pass"
    assert findings["access.credentials.refused_keys"]["actual"].endswith("401 (1)")
    assert sent(gate) == [("GET", "/api/version")]
    assert gate.good not in str(findings)


def test_a_key_that_is_not_good_proves_nothing(verify, gate):
    findings = by_id(verify(gate, key=gate.revoked))
    assert red(findings.values()) == {"access.key": "error"}
    assert "access.closed_to_keys.management" not in findings


def test_a_revoked_key_that_works_is_seen(verify, gate):
    findings = by_id(verify(gate, refused_keys=[gate.good]))
    assert red(findings.values()) == {"access.credentials.refused_keys": "fail"}
    assert gate.good not in str(findings)


def test_a_neighbour_asks_for_little(verify, gate, monkeypatch):
    monkeypatch.setattr(access_probe.Sources, "take", lambda _self: "127.9.9.9")
    findings = verify(gate, quick=True)
    assert red(findings) == {}
    assert 5 < len(findings) <= 8
    assert len(gate.hop.heard) <= 8
    with gate.changed("llm-gateway/routes.conf", around("/api/chat", "/api/generate", "/api/tags")):
        assert "access.no_key.inference" in red(verify(gate, quick=True))


def test_a_neighbour_who_asks_for_all_meets_the_limit_and_says_so(verify, gate, monkeypatch):
    monkeypatch.setattr(access_probe, "Sources", None)
    monkeypatch.setattr(verify_access, "Sources", One)
    found = red(verify(gate, within=3))
    assert set(found.values()) == {"error"}
    assert "access.no_key.read" in found
    assert "access.closed.management" not in found, "routes that are not there are not counted"


class One:
    """Only one address to ask from."""

    many = False

    def __init__(self, _address):
        self.address = f"127.8.{os.getpid() % 250}.{time.monotonic_ns() % 250 + 1}"

    def take(self):
        return self.address


def around(*paths):
    """Have these routes go straight to the LLM server: `auth_request` is still there."""

    def change(text):
        for path in paths:
            head = f"location = {path} {{"
            at = text.index(head) + len(head)
            end = text.index("\n}", at)
            text = f"{text[:at]}\n    proxy_pass http://llm_server;{text[end:]}"
        return text

    return change


def test_one_route_of_many_around_the_validator(verify, gate):
    """A small body is not asked for its key before the policy hop, which is gone here."""
    with gate.changed("llm-gateway/routes.conf", around("/v1/embeddings")):
        findings = by_id(verify(gate))
    assert {name for name in red(findings.values()) if "bypass" not in name} == {
        "access.no_key.inference", "access.wrong_key.inference", "access.methods",
    }  # fmt: skip
    found = findings["access.no_key.inference"]
    assert found["severity"] == "critical"
    assert found["evidence"] == [
        "POST /v1/embeddings HTTP/1.1 -> 404 "
        "'{\"error\":\"model \\'llmsec-probe/none\\' not found\"}'"
    ]


def test_auth_request_off_in_one_location(verify, gate):
    def change(text):
        return around("/api/tags")(text).replace(
            "proxy_pass http://llm_server;", "auth_request off; proxy_pass http://llm_server;"
        )

    with gate.changed("llm-gateway/routes.conf", change):
        found = red(verify(gate))
    assert {"access.no_key.read", "access.wrong_key.read", "access.bypass.scanners"} <= found.keys()
    assert "access.no_key.inference" not in found


def test_a_validator_that_says_yes_to_everybody(verify, gate):
    gate.careless = True
    found = red(verify(gate))
    assert {
        "access.no_key.inference",
        "access.no_key.read",
        "access.wrong_key.read",
    } <= found.keys()
    assert "access.credentials.unknown_key" in found
    assert "access.closed.management" not in found
    assert set(found.values()) == {"fail"}


def test_a_validator_that_is_down_proves_nothing(verify, gate):
    answer = gate.hop.answer

    def hang_up(heard):
        raise ConnectionError

    gate.hop.answer = hang_up
    try:
        findings = by_id(verify(gate))
    finally:
        gate.hop.answer = answer
    found = red(findings.values())
    assert found["access.no_key.inference"] == "error"
    assert "503" in findings["access.no_key.inference"]["actual"]
    assert "fail" not in found.values()


def server(name, more=""):
    """Another server block on the same port, with a way to the LLM server."""
    return (
        f"\nserver {{ listen PORT ssl; server_name {name}; include llm-gateway/tls.conf; {more}"
        "location / { proxy_pass http://llm_server; } }\n"
    )


@pytest.mark.parametrize(
    ("name", "params"),
    [("ollama.test", {}), ("localhost", {}), ("way.around", {"other_names": ["way.around"]})],
)
def test_a_second_server_block(verify, gate, name, params):
    block = server(name).replace("PORT", str(gate.port))
    with gate.changed("conf.d/llm-gateway.conf", lambda text: text + block):
        findings = by_id(verify(gate, **params))
    found = red(findings.values())
    assert found["access.bypass.other_name"] == "fail"
    assert findings["access.bypass.other_name"]["severity"] == "critical"
    assert "access.no_key.read" not in found


def test_a_default_server_that_answers_by_any_name(verify, gate):
    def change(text):
        return text.replace("return 444;", "location / { proxy_pass http://llm_server; }", 1)

    with gate.changed("conf.d/llm-gateway.conf", change):
        found = red(verify(gate))
    assert found["access.bypass.unknown_host"] == "fail"
    assert found["access.bypass.other_host"] == "fail"


def test_a_welcome_page_is_no_refusal(verify, gate):
    page = "default_type text/html; return 200 'Welcome to nginx!';"
    with gate.changed("conf.d/llm-gateway.conf", lambda text: text.replace("return 444;", page, 1)):
        findings = by_id(verify(gate))
    found = findings["access.bypass.unknown_host"]
    assert (found["result"], found["severity"]) == ("fail", "medium")


OPEN = "auth_request off; proxy_pass http://llm_server;"


# Each is one hole, and what must turn red for it.
HOLES = {
    # A deny list in place of an exact one
    f'location ~ "^/api/pull/\\z" {{ {OPEN} }}': "access.bypass.trailing_slash",
    f"location ~* ^/API/PULL\\z {{ if ($uri = /api/pull) {{ return 404; }} {OPEN} }}": (
        "access.bypass.upper_case"
    ),
    f'location ~ "^/api/pull;" {{ {OPEN} }}': "access.bypass.semicolon",
    f"location = /metrics {{ {OPEN} }}": "access.bypass.metrics",
    f"location = /healthz {{ {OPEN} }}": "access.bypass.healthz",
    f"location = /authorize {{ {OPEN} }}": "access.bypass.internal_locations",
    f"location = /model/info {{ {OPEN} }}": "access.bypass.scanners",
    f"location /debug/ {{ {OPEN} }}": "access.closed.account",
    f"location = /api/signout {{ {OPEN} }}": "access.methods",
    f"location = /api/copy {{ limit_except POST {{ deny all; }} {OPEN} }}": (
        "access.closed.management"
    ),
}


def test_locations_added_by_hand(verify, gate):
    with gate.changed("llm-gateway/routes.conf", lambda text: "\n".join([text, *HOLES])):
        findings = verify(gate)
    found = red(findings)
    assert set(found) == set(HOLES.values())
    unclear = [(one["actual"], one["evidence"]) for one in findings if one["result"] == "error"]
    assert unclear == []
    assert ("GET", "/api/signout") in sent(gate)
    assert ("POST", "/api/signout") not in sent(gate), "the server would have been signed out"


def test_a_prefix_in_front_of_everything(verify, gate):
    way = f"error_page 404 = @open; return 404; }} location @open {{ {OPEN}"
    location = f"location /api/ {{ auth_request off; {way} }}"
    with gate.changed("llm-gateway/routes.conf", lambda text: f"{text}\n{location}\n"):
        found = red(verify(gate))
    assert found["access.closed.management"] == found["access.closed.inspect"] == "fail"


# Whom a header lets in, and what must turn red for it
HEADERS = {
    '$http_x_forwarded_for = "127.0.0.1"': "access.bypass.x_forwarded_for",
    "$http_x_original_uri != ''": "access.bypass.x_original_uri",
    "$http_x_key_id != ''": "access.bypass.identity",
    "$http_x_client_certificate != ''": "access.bypass.certificate_header",
    "$http_x_accel_redirect != ''": "access.bypass.x_accel_redirect",
    "$http_upgrade = websocket": "access.bypass.websocket",
    "$http_upgrade = h2c": "access.bypass.h2c",
    "$arg_api_key != ''": "access.credentials.query",
    "$cookie_token != ''": "access.credentials.cookie",
    '$http_authorization ~ "^Basic"': "access.credentials.basic",
    '$http_authorization ~* "sk-1234$"': "access.credentials.default_key",
    '$http_authorization ~* "^bearer$"': "access.credentials.empty_key",
}


def test_whom_a_header_lets_in(verify, gate):
    """Only whoever sends it: everybody else is still refused."""
    holes = [f"if ({one}) {{ proxy_pass http://llm_server; }}" for one in HEADERS]
    hole = "\n".join(["location = /api/version {", *holes])
    with gate.changed(
        "llm-gateway/routes.conf", lambda text: text.replace("location = /api/version {", hole)
    ):
        findings = by_id(verify(gate))
    found = red(findings.values())
    assert set(found) == set(HEADERS.values())
    assert {findings[name]["severity"] for name in found} == {"critical"}
    assert set(found.values()) == {"fail"}


def test_management_routes_that_a_key_would_open(verify, gate):
    route = (
        "location = /api/pull { if ($request_method != POST) { return 404; }"
        ' set $llm_route "/api/pull"; set $llm_endpoint_class management;'
        " include llm-gateway/authorize.conf; }"
    )
    with gate.changed("llm-gateway/routes.conf", lambda text: f"{text}\n{route}\n"):
        findings = by_id(verify(gate, key=gate.good))
        meant = by_id(verify(gate, extra_routes=["POST /api/pull"]))
    found = red(findings.values())
    # The key of this test is good for reading and inference only.
    assert found == {"access.closed.management": "fail"}
    assert findings["access.closed.management"]["severity"] == "high"
    assert findings["access.closed.management"]["evidence"] == ["POST /api/pull HTTP/1.1 -> 401"]
    assert red(meant.values()) == {}
    assert meant["access.no_key.management"]["result"] == "pass"


def test_management_routes_that_answer_a_key(verify, gate):
    hole = (
        "location = /api/pull { auth_request off; if ($http_authorization = '') { return 404; }"
        " proxy_pass http://llm_server; }"
    )
    with gate.changed("llm-gateway/routes.conf", lambda text: f"{text}\n{hole}\n"):
        found = red(verify(gate, key=gate.good))
    assert found["access.closed_to_keys.management"] == "fail"
    assert "access.closed.management" not in found


@pytest.fixture(params=["both", "either"])
def certified(request, tmp_path, running):
    """A gate that wants certificates, and the files of a good one."""
    authority = Authority("Clients")
    (tmp_path / "ca.crt").write_text(authority.pem)
    pair = authority.issue("app")
    (tmp_path / "app.crt").write_text(pair.pem())
    (tmp_path / "app.key").write_text(pair.key_pem())
    variables = {"gateway_client_ca": str(tmp_path / "ca.crt"), "gateway_client_crl": ""}
    made = Guarded(tmp_path / "stage", gateway_auth=request.param, **variables)
    with contextlib.closing(made) as gate:
        yield gate


def test_a_gateway_that_wants_certificates_is_green(verify, certified):
    findings = verify(certified, auth=certified.auth, key=certified.good)
    assert red(findings) == {}
    if certified.auth == "both":
        skipped = by_id(findings)["access.key"]
        assert skipped["result"] == "skip"
        assert "client_certificate" in skipped["actual"]


def test_without_a_gateway_one_finding_says_so(verify):
    findings = verify(free_port())
    assert red(findings) == {"access.gateway": "error"}
    assert len(findings) == 1


@pytest.mark.parametrize(
    "garbage", [b"", b"\0" * 100, b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", b"SSH-2.0-x\r\n"]
)
def test_somebody_else_on_the_port(verify, garbage):
    with socket.create_server(("127.0.0.1", 0)) as other:

        def serve():
            other.settimeout(30)
            with contextlib.suppress(OSError):
                while True:
                    one, _peer = other.accept()
                    with one, contextlib.suppress(OSError):
                        one.recv(1000)
                        one.sendall(garbage)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            findings = verify(other.getsockname()[1], tls=False, timeout=2, within=10)
        finally:
            other.shutdown(socket.SHUT_RDWR)
            thread.join()
    assert "pass" not in {one["result"] for one in findings if one["id"] != "access.gateway"}


@pytest.fixture
def open_ollama():
    with contextlib.closing(Upstream(("127.0.0.1", free_port()), as_ollama)) as ollama:
        ollama.port = ollama._server.server_address[1]
        yield ollama


def test_an_ollama_in_the_clear_is_red_all_over(verify, open_ollama):
    findings = by_id(verify(open_ollama.port, tls=False))
    found = red(findings.values())
    assert found["access.no_key.inference"] == found["access.closed.management"] == "fail"
    assert findings["access.no_key.read"]["severity"] == "critical"
    asked = {(heard.method, heard.target) for heard in open_ollama.heard}
    assert not {("POST", "/api/signout"), ("POST", "/api/me")} & asked
    assert not [one for one in asked if one[0] == "DELETE" and "/user/keys/" in one[1]]


def test_a_port_that_answers_around_the_gateway(verify, open_ollama, monkeypatch):
    monkeypatch.setattr(verify_access, "is_loopback", lambda address: False)
    free = free_port()
    direct = [{"address": "127.0.0.1", "port": port} for port in (open_ollama.port, free)]
    findings = by_id(verify(free, direct=direct, timeout=2))
    found = findings[f"access.direct.{open_ollama.port}"]
    assert (found["result"], found["severity"]) == ("fail", "critical")
    assert "Ollama is running" in found["evidence"][0]
    assert findings[f"access.direct.{free}"]["result"] == "pass"


def test_loopback_is_for_local_users_to_try(verify):
    direct = [{"address": "127.0.0.1", "port": 1}, {"address": "::1", "port": 1}]
    findings = by_id(verify(free_port(), direct=direct))
    assert findings["access.local"]["result"] == "skip"
    assert "access.direct.1" not in findings


@ROOT
def test_local_users_at_ports_and_sockets(verify, open_ollama):
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        os.chmod(folder, 0o711)  # noqa: S103 - others must get at the sockets in it
        paths = {name: f"{folder}/{name}" for name in ("shut", "open", "gone", "group")}
        for name, mode in (("shut", 0o660), ("open", 0o666), ("group", 0o660)):
            one = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            one.bind(paths[name])
            os.chmod(paths[name], mode)
        entry = pwd.getpwnam("nobody")
        os.chown(paths["group"], 0, entry.pw_gid)
        direct = [{"address": "127.0.0.1", "port": open_ollama.port}]
        params = {"direct": direct, "local_users": ["nobody"], "sockets": list(paths.values())}
        findings = by_id(verify(free_port(), **params))
        unguarded = by_id(verify(free_port(), loopback_guarded=False, **params))
    results = {name: findings[f"access.local.nobody.{name}"]["result"] for name in paths}
    assert results == {"shut": "pass", "open": "fail", "gone": "error", "group": "fail"}
    # Nothing guards loopback here.
    place = f"access.local.nobody.{open_ollama.port}"
    assert findings[place]["result"] == "fail"
    assert unguarded[place]["result"] == "skip"
    assert unguarded["access.local.nobody.open"]["result"] == "fail"


@ROOT
def test_a_refusal_counts_only_where_somebody_listens(verify, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        direct = [{"address": "127.0.0.1", "port": port}]
        # As the firewall's guard refuses
        monkeypatch.setattr(access_probe, "_tcp", lambda *_unused: "refused")
        guarded = by_id(verify(free_port(), direct=direct, local_users=["nobody"], sockets=[]))
    after = by_id(verify(free_port(), direct=direct, local_users=["nobody"], sockets=[]))
    place = f"access.local.nobody.{port}"
    assert (guarded[place]["result"], after[place]["result"]) == ("pass", "error")


@pytest.mark.parametrize("user", ["no-such-user", "root"])
def test_a_user_who_cannot_be_tried(verify, user):
    direct = [{"address": "127.0.0.1", "port": 1}]
    findings = by_id(verify(free_port(), direct=direct, local_users=[user], sockets=[]))
    assert findings[f"access.local.{user}.1"]["result"] == "error"


def test_only_root_can_try_as_somebody_else(verify, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    findings = by_id(verify(free_port(), local_users=["nobody"], sockets=["/run/x.sock"]))
    found = findings["access.local.nobody.x.sock"]
    assert found["result"] == "error"
    assert "root" in found["actual"]


@pytest.mark.parametrize(
    "params",
    [
        {"extra_routes": ["POST /api/me"]},
        {"extra_routes": ["POST /no/such"]},
        {"ca_file": "/nonexistent", "key": "x"},
        {"client_certificate": "/nonexistent"},
    ],
)
def test_called_wrongly_it_fails(run_module, params):
    common = {"address": "127.0.0.1", "server_name": NAME}
    result = run_module(verify_access.main, **common, **params)
    assert result["failed"] is True
    assert "Cannot ask the gateway" in result["msg"]


def test_time_is_bounded(verify, gate):
    findings = by_id(verify(gate, within=0))
    assert red(findings.values()) == {"access.gateway": "error"}
