# SPDX-License-Identifier: GPL-3.0-or-later
"""The way of a request through nginx: to the policy hop with its body, and on, or not."""

from __future__ import annotations

import base64
import gzip
import json
import subprocess
import typing as t
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from tests.lab.steps import wait_until

from .rendering import NAME, rendered
from .stage import GO_ON, Heard, Say, Stage

# Too long to be read before anybody says who sends it
LARGE = 10_000
CHAT = b'{"model":"tiny","messages":[{"role":"user","content":"h\xc3\xa9llo"}]}'
BLOB = "/api/blobs/sha256:" + "0123456789abcdef" * 4


def refuse(status: int, **headers: str) -> t.Callable[[Heard], Say]:
    body = json.dumps({"error": {"type": "made_by_the_service"}}).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda heard: Say(status, {"Content-Type": "application/json", **named}, body)


def test_nginx_finds_nothing_to_complain_about(stage: Stage) -> None:
    said = stage.test_configuration()
    assert "test is successful" in said
    assert "[warn]" not in said
    assert "[emerg]" not in said


@pytest.mark.parametrize("size", [len(CHAT), 3_000_000])
@pytest.mark.parametrize("chunked", [False, True])
def test_the_body_reaches_both_whole(stage: Stage, size: int, chunked: bool) -> None:
    body = CHAT + b" " * (size - len(CHAT))
    sent: t.Any = (body[at : at + 65536] for at in range(0, size, 65536)) if chunked else body
    answer = stage.ask("POST", "/api/chat", sent, Content_Type="application/json")
    assert (answer.status, answer.body) == (200, b"fine")
    (hop,), (llm,) = stage.authorized(), stage.llm.heard
    assert hop.body == llm.body == body
    assert (llm.method, llm.target) == ("POST", "/api/chat")
    assert hop.headers["content-type"] == llm.headers["content-type"] == ["application/json"]
    assert hop.headers["content-length"] == llm.headers["content-length"] == [str(size)]


@pytest.mark.parametrize("size", [len(CHAT), LARGE])
def test_who_asks_for_what_is_nginx_word_alone(stage: Stage, size: int) -> None:
    forged = dict.fromkeys(("X_Gateway_Request", "X_Limit_Key", "X_Client_Certificate"), "x")
    answer = stage.ask(
        "POST", "/api/chat?a=b", CHAT.ljust(size), Content_Type="a/b", Accept="d/e",
        Host="x", Connection="keep-alive, x-gateway-request", **forged,
    )  # fmt: skip
    request_id = answer.headers["x-request-id"]
    for heard in (*stage.validated(), *stage.authorized()):
        assert heard.headers["x-gateway-request"] == [
            f"{request_id} 127.0.0.1 inference POST /api/chat"
        ]
        assert heard.headers["x-limit-key"] == [f"<Bearer {stage.key}>"]
        assert not {"x-client-certificate", "connection", "transfer-encoding"} & set(heard.headers)
    (hop,) = stage.authorized()
    assert hop.method == "POST"
    assert hop.headers["host"] == ["llm-key-validator"]
    assert hop.headers["content-type"] == ["a/b"]
    assert hop.headers["content-length"] == [str(size)]


@pytest.mark.parametrize(
    ("body", "asked"),
    [
        (None, 0),
        (CHAT, 0),
        (CHAT.ljust(LARGE - 1), 0),
        (CHAT.ljust(LARGE), 1),
        (iter([CHAT]), 1),
    ],
)
def test_a_large_body_is_read_only_for_a_key(stage: Stage, body: t.Any, asked: int) -> None:
    assert stage.ask("POST", "/api/chat", body).status == 200
    assert len(stage.validated()) == asked
    assert len(stage.authorized()) == 1


def test_a_body_of_unknown_length_over_http_2_is_large(tmp_path: Path, running: Stage) -> None:
    """Nothing here turns HTTP/2 on, but an administrator's own nginx.conf can."""
    stage = Stage(tmp_path / "stage", after=lambda text: text.replace(" ssl;", " ssl http2;"))
    curl = ["curl", "--silent", "--http2", "--insecure", "--noproxy", "*", "--max-time", "10"]
    curl += ["--resolve", f"{NAME}:{stage.port}:127.0.0.1", "--write-out", "%{http_version}"]
    curl += ["--header", "Content-Length:", "--data-binary", "@-", "--output", "/dev/null"]
    try:
        asked = [*curl, f"https://{NAME}:{stage.port}/api/chat"]
        done = subprocess.run(asked, input=CHAT, capture_output=True, check=True)
        assert done.stdout == b"2"
        assert (len(stage.validated()), stage.authorized()) == (1, [])
    finally:
        stage.close()


def test_a_stranger_is_refused_before_a_large_body_is_there(stage: Stage) -> None:
    """Its length is announced, and not one byte of it sent."""
    answer = stage.ask("POST", "/api/chat", None, key="wrong", Content_Length=str(LARGE))
    assert answer.status == 401
    assert json.loads(answer.body)["error"]["message"] == "A valid API key is required."
    assert len(stage.validated()) == 1
    assert stage.authorized() == []


def test_the_llm_server_hears_no_identity_and_no_query(stage: Stage) -> None:
    stage.ask("POST", "/api/chat?a=b", CHAT, Content_Type="a/b", Cookie="c", Accept="d/e")
    (llm,) = stage.llm.heard
    assert llm.target == "/api/chat"
    assert set(llm.headers) == {"host", "accept", "content-type", "content-length", "x-request-id"}
    assert llm.headers["host"] == ["localhost:11434"]


@pytest.mark.parametrize("body", [CHAT, gzip.compress(CHAT)], ids=["plain", "gzip"])
@pytest.mark.parametrize("encoding", ["zstd", "gzip", "identity"])
def test_the_hop_hears_how_a_body_is_encoded(stage: Stage, encoding: str, body: bytes) -> None:
    """The hop refuses all but the last; the LLM server would learn of none."""
    stage.ask("POST", "/api/chat", body, Content_Encoding=encoding)
    (hop,), (llm,) = stage.authorized(), stage.llm.heard
    assert hop.headers["content-encoding"] == [encoding]
    assert "content-encoding" not in llm.headers
    assert hop.body == llm.body == body


def test_an_answer_streams_through(stage: Stage) -> None:
    pieces = tuple(b'{"part":%d}\n' % number for number in range(4))
    stage.llm_says = lambda heard: Say(200, {"Content-Type": "application/x-ndjson"}, pieces=pieces)
    answer = stage.ask("POST", "/api/chat", CHAT)
    assert answer.body == b"".join(pieces)
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert len(answer.times) == len(pieces)
    assert answer.times[-1] > 0.3


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_reading_goes_through_the_hop(stage: Stage, method: str) -> None:
    answer = stage.ask(method, "/api/version")
    assert answer.status == 200
    (hop,), (llm,) = stage.authorized(), stage.llm.heard
    assert hop.headers["x-gateway-request"][0].split()[3] == method == hop.method == llm.method
    assert "content-length" not in hop.headers
    assert llm.target == "/api/version"


def test_a_route_with_a_name_in_it(stage: Stage) -> None:
    assert stage.ask("GET", "/v1/x/../models/tiny%3Alatest?a=b").status == 200
    (described,) = stage.authorized()[0].headers["x-gateway-request"]
    assert described.split()[3:] == ["GET", "/v1/models/tiny:latest"]
    assert stage.llm.heard[0].target == "/v1/models/tiny:latest"


@pytest.mark.parametrize(("method", "chunked"), [("HEAD", False), ("POST", False), ("POST", True)])
def test_a_blob_passes_the_hop_by(stage: Stage, method: str, chunked: bool) -> None:
    blob = b"\0\xff" * 50_000 if method == "POST" else b""
    sent: t.Any = iter([blob[:70_000], blob[70_000:]]) if chunked else blob or None
    assert stage.ask(method, BLOB, sent).status == 200
    (hop,), (llm,) = stage.authorized(), stage.llm.heard
    assert hop.body == b""
    assert not {"content-length", "transfer-encoding"} & set(hop.headers)
    assert llm.body == blob
    assert llm.target == BLOB


LIMITS = {"RateLimit-Limit": "60", "RateLimit-Remaining": "59", "RateLimit-Reset": "1"}


@pytest.mark.parametrize("status", [200, 400, 500])
def test_what_is_left_comes_from_the_hop_alone(stage: Stage, status: int) -> None:
    stage.hop_says = lambda heard: Say(200, {**GO_ON, **LIMITS})
    lies = {**dict.fromkeys(LIMITS, "999"), "X-Request-Id": "x", "X-Key-Id": "x"}
    stage.llm_says = lambda heard: Say(status, lies, b"said")
    answer = stage.ask("POST", "/api/chat", CHAT)
    assert (answer.status, answer.body) == (status, b"said")
    assert {name: answer.headers[name.lower()] for name in LIMITS} == LIMITS
    assert len(answer.headers["x-request-id"]) == 32
    assert "x-key-id" not in answer.headers
    assert "strict-transport-security" in answer.headers
    assert stage.reported(answer)["key"] == "app1"


def test_without_limits_nothing_is_said_of_them(stage: Stage) -> None:
    stage.llm_says = lambda heard: Say(200, dict.fromkeys(LIMITS, "999"))
    assert not [
        name for name in stage.ask("POST", "/api/chat", CHAT).headers if "ratelimit" in name
    ]


def test_the_llm_server_sends_a_request_nowhere(stage: Stage) -> None:
    orders = {"X-Accel-Redirect": "/api/tags", "X-Accel-Limit-Rate": "1", "X-Accel-Charset": "x"}
    stage.llm_says = lambda heard: Say(200, orders, b"fine")
    answer = stage.ask("POST", "/api/chat", CHAT)
    assert (answer.status, answer.body) == (200, b"fine")
    assert len(stage.llm.heard) == len(stage.authorized()) == 1
    assert not [name for name in answer.headers if name.startswith("x-accel")]


def test_a_verdict_sends_a_request_nowhere(stage: Stage) -> None:
    plain = stage.hop.answer
    stage.hop.answer = lambda heard: (
        Say(403, {"X-Accel-Redirect": "@backend"}) if heard.target == "/validate" else plain(heard)
    )
    try:
        assert stage.ask("POST", "/api/chat", CHAT.ljust(LARGE)).status == 403
    finally:
        stage.hop.answer = plain
    assert stage.llm.heard == []


@pytest.mark.parametrize("size", [len(CHAT), LARGE])
@pytest.mark.parametrize("status", [400, 401, 403, 413, 429, 502, 503])
def test_a_refusal_of_the_hop_is_the_clients_answer(stage: Stage, status: int, size: int) -> None:
    named = {"X_Auth_Reason": "model", "X_Key_Id": "app1"}
    stage.hop_says = refuse(status, Retry_After="7", **named, **LIMITS)
    answer = stage.ask("POST", "/api/chat", CHAT.ljust(size))
    assert answer.status == status
    assert json.loads(answer.body) == {"error": {"type": "made_by_the_service"}}
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["retry-after"] == "7"
    assert answer.headers["ratelimit-limit"] == "60"
    assert len(answer.headers["x-request-id"]) == 32
    assert "strict-transport-security" in answer.headers
    assert not {"x-auth-reason", "x-key-id"} & set(answer.headers)
    assert stage.llm.heard == []
    assert stage.reported(answer)["key"] == "app1"
    logged = stage.logged(answer)
    assert (logged["reason"], logged["key_id"]) == ("model", "app1")


def test_what_the_hop_answers_itself(stage: Stage) -> None:
    stage.hop_says = lambda heard: Say(200, {"Content-Type": "application/json"}, b'{"models":[]}')
    assert stage.ask("GET", "/api/tags").body == b'{"models":[]}'
    assert stage.llm.heard == []


def test_an_answer_of_the_hops_is_the_keys_own(stage: Stage) -> None:
    """In both logs; the client does not see the key's id."""
    said = {"Content-Type": "application/json", "X-Key-Id": "app1"}
    stage.hop_says = lambda heard: Say(200, said, b'{"models":[]}')
    answer = stage.ask("GET", "/api/tags")
    assert stage.reported(answer)["key"] == "app1"
    assert stage.logged(answer)["key_id"] == "app1"
    assert "x-key-id" not in answer.headers


def test_slow_bodies_of_an_address_are_few(tmp_path: Path, running: Stage) -> None:
    """A small body is read before its key is looked at: as slowly as the client likes."""
    stage = Stage(tmp_path / "stage", gateway_connections_per_address=2)
    head = f"POST /api/chat HTTP/1.1\r\nHost: {NAME}\r\nContent-Length: 99\r\n\r\n{{"
    try:
        with ExitStack() as slow:
            for _unused in range(2):
                slow.enter_context(stage.connect()).sendall(head.encode())
            assert wait_until(lambda: stage.ask("POST", "/api/chat", CHAT).status == 429)
            assert stage.hop.heard == []
        assert wait_until(lambda: stage.ask("POST", "/api/chat", CHAT).status == 200)
    finally:
        stage.close()


@pytest.mark.parametrize("size", [len(CHAT), LARGE])
def test_who_is_not_known_gets_no_further(stage: Stage, size: int) -> None:
    answer = stage.ask("POST", "/api/chat", CHAT.ljust(size), key="wrong")
    assert (answer.status, stage.llm.heard) == (401, [])
    report = stage.reported(answer)
    assert (report["status"], report["key"]) == ("401", "")
    assert stage.logged(answer)["reason"] == "unknown"


def test_a_hop_that_names_no_key_lets_nothing_through(stage: Stage) -> None:
    stage.hop_says = lambda heard: Say(200, {"X-Accel-Redirect": "@backend"})
    for size in (len(CHAT), LARGE):
        assert stage.ask("POST", "/api/chat", CHAT.ljust(size)).status == 503
    assert stage.llm.heard == []


def test_what_is_not_a_route_gets_no_further(stage: Stage) -> None:
    for method, target in (("GET", "/api/chat"), ("POST", "/x"), ("POST", "/@backend")):
        answer = stage.ask(method, target)
        assert answer.status == 404
        report = stage.reported(answer)
        assert (report["method"], report["path"], report["status"]) == (method, target, "404")
    assert stage.hop.heard == []


def test_a_body_too_large_for_nginx_is_reported(stage: Stage) -> None:
    answer = stage.ask("POST", "/api/chat", b"x" * (11 << 20))
    assert answer.status == 413
    assert stage.reported(answer)["status"] == "413"
    assert stage.authorized() == []


def test_each_end_is_reported_once(stage: Stage) -> None:
    answer = stage.ask("POST", "/api/chat?q=1", CHAT)
    report = stage.reported(answer)
    assert 0 <= float(report["seconds"]) < 5
    assert report == {
        "seconds": report["seconds"],
        "id": answer.headers["x-request-id"],
        "key": "app1",
        "forwarded": "1",
        "client": "127.0.0.1",
        "method": "POST",
        "path": "/api/chat?q=1",
        "status": "200",
        "bytes": "4",
    }
    assert [one["id"] for one in stage.audit.reports].count(answer.headers["x-request-id"]) == 1


def test_connections_to_both_are_kept(stage: Stage) -> None:
    for _unused in range(20):
        assert stage.ask("POST", "/api/chat", CHAT.ljust(LARGE)).status == 200
    assert len({heard.peer for heard in stage.llm.heard}) == 1
    verdicts = {heard.peer for heard in stage.hop.heard if heard.target == "/validate"}
    hops = {heard.peer for heard in stage.authorized()}
    assert len(verdicts) == len(hops) == 1
    assert verdicts != hops, "what a body leaves behind could be taken for a verdict"


def test_a_hop_that_hangs_up_is_a_refusal_and_asked_once(stage: Stage) -> None:
    """Even a GET, which nginx would otherwise try again on a new connection."""
    assert stage.ask("GET", "/api/version").status == 200
    stage.reset()

    def hang_up(heard: Heard) -> Say:
        raise ConnectionError

    stage.hop_says = hang_up
    answer = stage.ask("GET", "/api/version")
    assert answer.status == 503
    assert json.loads(answer.body)["error"]["type"] == "unavailable"
    assert len(stage.authorized()) == 1
    assert stage.llm.heard == []


def test_an_llm_server_that_hangs_up_is_told_apart(stage: Stage) -> None:
    def hang_up(heard: Heard) -> Say:
        raise ConnectionError

    stage.llm_says = hang_up
    answer = stage.ask("POST", "/api/chat", CHAT)
    assert answer.status == 502
    assert json.loads(answer.body)["error"]["type"] == "upstream_error"
    assert stage.reported(answer)["status"] == "502"


def test_nobody_gets_to_the_backend_around_the_hop(stage: Stage) -> None:
    """A location added by hand that leads there without a key ends in a refusal."""
    other = stage.folder / "llm-gateway" / "routes.conf"
    kept = other.read_text()
    extra = "\nlocation /hole { auth_request off; error_page 404 = @backend; return 404; }\n"
    other.write_text(kept + extra)
    try:
        stage.reload()
        answer = stage.ask("GET", "/hole", key=None)
    finally:
        other.write_text(kept)
        stage.reload()
    assert answer.status == 500
    assert stage.llm.heard == []


def test_limits_are_counted_once_and_reported(tmp_path: Path, running: Stage) -> None:
    stage = Stage(
        tmp_path / "stage",
        gateway_limit_per_key={"rate": "1r/m", "burst": 1},
        gateway_limit_per_address={"rate": "30r/m", "burst": 10},
    )
    try:
        answers = [stage.ask("POST", "/api/chat", CHAT) for _unused in range(3)]
        assert [answer.status for answer in answers] == [200, 200, 429]
        assert answers[2].headers["retry-after"] == "60"
        assert stage.reported(answers[2])["status"] == "429"
        assert len(stage.llm.heard) == len(stage.authorized()) == 2
    finally:
        stage.close()


def test_reports_can_be_switched_off() -> None:
    text = rendered(gateway_audit_socket=None)["/etc/nginx/conf.d/llm-gateway.conf"]
    assert "syslog" not in text
    assert "llm_gateway_audit" not in text


def test_the_server_gets_its_own_key_and_whose_money_it_is(tmp_path: Path) -> None:
    key = {"content": base64.b64encode(b"sk-theirs\n").decode()}
    with closing(Stage(tmp_path, gateway_llm_server="litellm", __gateway_key_text=key)) as stage:
        answer = stage.ask(
            "POST", "/v1/chat/completions", CHAT, Content_Type="application/json",
            X_Litellm_End_User_Id="boss", X_Litellm_Customer_Id="boss",
        )  # fmt: skip
        assert (answer.status, answer.body) == (200, b"fine")
        (heard,) = stage.llm.heard
        assert heard.headers["authorization"] == ["Bearer sk-theirs"]
        assert heard.headers["x-litellm-end-user-id"] == ["app1"]
        assert "x-litellm-customer-id" not in heard.headers
        (hop,) = stage.authorized()
        assert hop.headers["authorization"] == ["Bearer k1"]
        assert "sk-theirs" not in stage.errors()
