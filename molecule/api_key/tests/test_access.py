# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets in, judged from the application server and from a stranger."""

from __future__ import annotations

import json

import pytest

from tests.lab import curl

GENERATE = curl.generate("tiny", tokens=4, stream=False)
UNKNOWN_KEY = "llmk_0000000000000000000000000000000000000000000000"


def assert_refused(answer: curl.Answer, status: int) -> None:
    assert answer.status == status, answer
    assert answer.headers["content-type"] == "application/json"
    error = answer.json()["error"]
    assert set(error) == {"type", "message", "request_id"}
    assert error["request_id"] == answer.headers["x-request-id"]
    if status == 401:
        assert answer.headers["www-authenticate"].startswith("Bearer")


def test_the_application_server_gets_tokens(gateway, keys):
    answer = gateway.ask("/api/generate", *GENERATE, key=keys["app"])
    assert answer.status == 200, answer.body
    assert answer.json()["done"] is True
    assert answer.json()["eval_count"] > 0


@pytest.mark.parametrize("header", ["X-API-Key: {}", "x-api-key: {}", "Authorization: bearer {}"])
def test_each_way_to_send_the_key(gateway, keys, header):
    answer = gateway.ask("/api/tags", "--header", header.format(keys["app"]))
    assert answer.status == 200


@pytest.mark.parametrize(
    ("name", "status"),
    [("expired", 401), ("early", 401), ("revoked", 401), ("elsewhere", 403), ("reader", 403)],
)
def test_a_key_that_is_not_good_here(gateway, keys, name, status):
    assert_refused(gateway.ask("/api/generate", *GENERATE, key=keys[name]), status)


def test_a_reader_may_read(gateway, keys):
    assert gateway.ask("/api/tags", key=keys["reader"]).status == 200


@pytest.mark.parametrize("host", ["app-server", "stranger"])
@pytest.mark.parametrize(
    "headers",
    [
        [],
        ["Authorization: Bearer"],
        ["Authorization: Basic dXNlcjpwYXNz"],
        [f"Authorization: Bearer {UNKNOWN_KEY}"],
        [f"X-API-Key: {UNKNOWN_KEY}"],
        ["X-API-Key: " + "a" * 5000],
        ["Cookie: key=1"],
        # What a validator behind a careless proxy would believe.
        ["X-Key-Id: app", f"X-Gateway-Request: {'0' * 32} 127.0.0.1 read GET /api/tags"],
    ],
)
def test_no_good_key(gateway, host, headers):
    words = [word for header in headers for word in ("--header", header)]
    assert_refused(gateway.ask("/api/tags", *words, by=host), 401)


@pytest.mark.parametrize(
    "change",
    [lambda key: key[:-1], lambda key: key + "x", str.swapcase, lambda key: key[:-1] + "_"],
)
def test_a_key_with_a_typo(gateway, keys, change):
    assert_refused(gateway.ask("/api/tags", key=change(keys["app"])), 401)


def test_two_different_keys(gateway, keys):
    words = ["--header", f"X-API-Key: {keys['reader']}"]
    assert_refused(gateway.ask("/api/tags", *words, key=keys["app"]), 401)
    words = ["--header", f"X-API-Key: {keys['app']}", "--header", f"X-API-Key: {UNKNOWN_KEY}"]
    assert_refused(gateway.ask("/api/tags", *words), 401)


def test_a_key_in_the_query_is_no_key(gateway, keys):
    assert_refused(gateway.ask(f"/api/tags?api_key={keys['app']}"), 401)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/pull"),
        ("POST", "/api/push"),
        ("POST", "/api/create"),
        ("POST", "/api/copy"),
        ("DELETE", "/api/delete"),
        ("POST", "/api/show"),
        ("POST", "/api/blobs/sha256:" + "0" * 64),
        ("HEAD", "/api/blobs/sha256:" + "0" * 64),
        ("POST", "/api/me"),
        ("POST", "/api/signout"),
        ("DELETE", "/api/user/keys/abc"),
        ("GET", "/api/experimental/x"),
        ("GET", "/debug/pprof/"),
        ("GET", "/validate-key"),
        ("GET", "/validate"),
        ("GET", "/metrics"),
        ("GET", "/llm-gateway/errors/401"),
        # Other methods of routes that are open.
        ("GET", "/api/generate"),
        ("DELETE", "/api/chat"),
        ("PUT", "/api/tags"),
        ("OPTIONS", "/api/chat"),
        ("TRACE", "/api/tags"),
        ("get", "/api/tags"),
        # Spellings that slip past a deny list.
        ("POST", "/api/pull/"),
        ("POST", "/api/pull%2f"),
        ("POST", "/api/PULL"),
        ("POST", "/api/pull;x"),
        ("POST", "/api/pull?x"),
        ("POST", "//api/pull"),
        ("POST", "/api/%70ull"),
        ("POST", "/api/generate/../pull"),
        ("POST", "/api/generate/%2e%2e/pull"),
        ("POST", "/v1/models/../../api/pull"),
        ("GET", "/v1/models/"),
        ("GET", "/v1/models/a/b"),
        ("GET", "/v1/models/tiny%0a"),
        ("GET", "/v1/models/tiny%0d%0aX-API-Key:%20x"),
        ("GET", "/v1/models/..%2f..%2fdebug"),
    ],
)
def test_what_is_not_on_the_list_does_not_exist(gateway, keys, method, path):
    words = ["--head"] if method == "HEAD" else ["--request", method]
    answer = (
        gateway.ask(path, *words, "--data", "{}", key=keys["operator"])
        if (method not in {"HEAD", "GET", "TRACE", "get"})
        else gateway.ask(path, *words, key=keys["operator"])
    )
    # nginx itself refuses TRACE and methods that it does not know, before any location.
    assert answer.status in ({400, 404, 405} if method in {"TRACE", "get"} else {404}), answer
    assert "ollama" not in answer.body.lower()


@pytest.mark.parametrize("path", ["/api/pull/../chat", "//api//chat", "/api/%63hat"])
def test_the_llm_server_gets_the_path_that_was_judged(gateway, keys, path):
    body = json.dumps({"model": "tiny", "messages": [], "stream": False})
    answer = gateway.ask(path, "--json", body, key=keys["app"])
    assert answer.status == 200, answer.body
    assert answer.json()["model"] == "tiny"


def test_one_model_by_name(gateway, keys):
    assert gateway.ask("/v1/models/tiny", key=keys["app"]).json()["id"] == "tiny"


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("by", ["app-server", "stranger"])
def test_the_llm_server_itself_is_out_of_reach(gateway, lab, by, version):
    address = gateway.address if version == 4 else f"[{gateway.address6}]"
    for port in (11434, 8081, 80):
        answer = curl.request(lab, by, f"http://{address}:{port}/api/tags")
        assert (answer.status, answer.why) == (0, "refused"), port


def test_the_gateway_answers_over_ipv6(gateway, keys):
    resolve = f"{gateway.server_name}:443:[{gateway.address6}]"
    assert gateway.ask("/api/tags", "--resolve", resolve, key=keys["app"]).status == 200


def test_another_name_gets_no_handshake(gateway, keys, lab):
    words = ["--connect-to", f"::{gateway.server_name}:443", "--insecure"]
    for url in ("https://other.example.com/api/tags", f"https://{gateway.address}/api/tags"):
        answer = curl.request(lab, "app-server", *words, url, key=keys["app"])
        assert (answer.status, answer.why) == (0, "TLS refused")


def test_a_header_that_cannot_be_read(gateway):
    """What the validator cannot parse is refused as well, never an error of the gateway."""
    assert_refused(gateway.ask("/api/tags", "--header", "X-API-Key: \x01"), 403)


def test_no_host_header(gateway, keys):
    assert_refused(gateway.ask("/api/tags", "--header", "Host;", key=keys["app"]), 400)


@pytest.mark.parametrize("host", ["other.example.com", "localhost:11434"])
def test_another_host_header_gets_no_answer(gateway, keys, host):
    words = ["--header", f"Host: {host}"]
    answer = gateway.ask("/api/tags", *words, key=keys["app"])
    assert (answer.status, answer.body) == (0, "")


@pytest.mark.parametrize(
    "headers",
    [
        ["Authorization: Bearer  {}"],
        ["Authorization: BEARER {}"],
        ["Authorization: Bearer\t{}"],
        ["X-API-Key: {},{}"],
        ["X-API-Key:\t{}"],
    ],
)
def test_a_spelling_that_would_have_a_limit_of_its_own(gateway, keys, headers):
    words = [word for header in headers for word in ("--header", header.replace("{}", keys["app"]))]
    answer = gateway.ask("/api/tags", *words)
    # curl or nginx may tidy white space up; then it is one of the usual spellings.
    assert answer.status == 401 or "\t" in headers[0], answer


def test_an_idle_connection_is_closed_in_time(gateway, lab):
    """A half-open client holds its place for gateway_client_timeout, not for nginx's minute."""
    code = (
        "import socket, sys, time; start = time.monotonic()\n"
        "link = socket.create_connection((sys.argv[1], 443), 30); link.recv(1)\n"
        "print(time.monotonic() - start)"
    )
    done = lab.run("stranger", "python3", "-c", code, gateway.address, check=True)
    assert 8 < float(done.stdout) < 20


def test_http_that_nginx_does_not_know(gateway, keys):
    answer = gateway.ask("/api/tags", "--header", "Transfer-Encoding: x", key=keys["app"])
    assert_refused(answer, 501)


def test_plain_http_on_the_tls_port(gateway, keys, lab):
    url = f"http://{gateway.server_name}:443/api/tags"
    answer = curl.request(lab, "app-server", url, key=keys["app"])
    assert_refused(answer, 400)


def test_too_large_a_body(gateway, keys, lab):
    lab.run("app-server", "truncate", "--size=11M", "/root/large", check=True)
    words = ["--data-binary", "@/root/large", "--header", "Expect:"]
    answer = gateway.ask("/api/chat", *words, key=keys["app"])
    assert_refused(answer, 413)


def test_too_large_a_header(gateway, keys):
    answer = gateway.ask("/api/tags", "--header", "X-Large: " + "a" * 9000, key=keys["app"])
    assert_refused(answer, 431)


def test_client_headers_do_not_reach_the_llm_server(gateway, keys):
    # Ollama answers 403 to a foreign Origin when it listens on loopback.
    words = ["--header", "Origin: https://evil.example.com", "--header", "X-Forwarded-For: ::1"]
    assert gateway.ask("/api/tags", *words, key=keys["app"]).status == 200
