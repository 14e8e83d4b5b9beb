# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy hop: the order of the judgement, and the record that comes before everything."""

from __future__ import annotations

import asyncio
import gzip
import hashlib
import json
import re
import typing as t
from collections.abc import Callable

import jinja2
import pytest

pytest.importorskip("httptools")

from llm_key_validator import authorize as authorize_module
from llm_key_validator.answers import Answer
from llm_key_validator.audit.log import RefusalLimiter
from llm_key_validator.audit.records import PromptDigester
from llm_key_validator.authorize import Authorizer, Rules
from llm_key_validator.config import AUTH_MODES, LlmServer
from llm_key_validator.decision import Decision, Reason, messages
from llm_key_validator.in_flight import InFlight
from llm_key_validator.journal import Journal, RefusalLog
from llm_key_validator.keys import generate_key
from llm_key_validator.metrics import Metrics
from llm_key_validator.model_list import UpstreamError
from llm_key_validator.quotas import Admission, QuotaStoreError
from llm_key_validator.quotas.memory import MemoryQuotas
from llm_key_validator.registry import Registry, load_registry
from llm_key_validator.routes import parse_routes
from llm_key_validator.service import Request
from llm_key_validator.tiers import parse_tiers

from .conftest import FILES, NOW, gateway_request, headers, record, registry_text

REQUEST_ID = "0123456789abcdef" * 2
OTHER_KEY = generate_key().encode()
CHAT = b'{"model":"tiny","messages":[{"role":"user","content":"a secret thought"}]}'
ROUTES = parse_routes(
    [
        {"methods": ["POST"], "path": "/api/chat", "class": "inference", "body": "ollama_chat"},
        {
            "methods": ["GET", "HEAD"],
            "path": "/api/tags",
            "class": "read",
            "body": "none",
            "models": "list",
        },
        {
            "methods": ["GET"],
            "pattern": "^/v1/models/[A-Za-z0-9._:-]+$",
            "class": "read",
            "body": "none",
            "models": "path",
        },
    ]
)
TIERS = parse_tiers(
    {
        "standard": {},
        "small": {
            "requests_per_minute": 1,
            "burst": 1,
            "parallel_requests": 1,
            "max_body_bytes": 100,
            "max_output_tokens": 10,
        },
    }
)


class Recorder:
    """An audit log that writes into memory, when it writes at all."""

    def __init__(self) -> None:
        self.writable = True
        self.fails = False
        self.records: list[dict[str, t.Any]] = []
        self.waiting: list[Callable[[bool], None]] = []
        self.at_once = True
        self.refusals = RefusalLimiter(100)
        self.key_refusals = RefusalLimiter(100)

    def append(self, fields: bytes, done: Callable[[bool], None] | None = None) -> None:
        self.records.append(json.loads(b"{%b}" % fields))
        if done is not None and self.at_once:
            done(not self.fails)
        elif done is not None:
            self.waiting.append(done)

    @property
    def actions(self) -> list[str]:
        return [one["event.action"] for one in self.records]


class Source:
    def __init__(self, registry: Registry | None) -> None:
        self.registry = registry
        self.current = True


class Hop:
    """An authorizer with one key, and everything that it touches."""

    def __init__(
        self, quotas: t.Any = None, auth: str = "api_key", *,
        server: LlmServer | None = None, **fields: t.Any,
    ) -> None:  # fmt: skip
        self.key = generate_key()
        self.audit = Recorder()
        self.log: list[str] = []
        self.now = NOW
        self.in_flight = InFlight(3600)
        self.quotas = quotas or MemoryQuotas(3600)
        self.metrics = Metrics()
        self.source = Source(load_registry(registry_text(record(self.key, **fields))))
        journal = Journal(self.log.append, with_levels=False)
        self.authorizer = Authorizer(
            self.source,
            Rules(server or LlmServer(), ROUTES, TIERS, "standard", auth),
            quotas=self.quotas,
            audit=self.audit,
            digester=PromptDigester(b"pepper"),
            in_flight=self.in_flight,
            metrics=self.metrics,
            refusals=RefusalLog(journal, 1000),
            journal=journal,
            clock=lambda: self.now,
            catch_up=self.catch_up,
        )
        # Requests of the key that are over, which nobody has read yet
        self.unread: list[str] = []
        self.answers: list[Answer] = []
        self.listening = True

    def catch_up(self) -> None:
        for request_id in self.unread:
            self.quotas.release("app1", request_id)

    def answered(self, answer: Answer) -> bool:
        self.answers.append(answer)
        return self.listening

    def ask(self, body: bytes = CHAT, method: bytes = b"POST", **changes: t.Any) -> Answer | None:
        credential = b"Bearer " + self.key.encode()
        values = {"authorization": credential, "content_type": b"application/json", **changes}
        values.setdefault("method", method)
        request = Request(method, b"/authorize", headers(**values), lambda: True, body, True)
        before = len(self.answers)
        self.authorizer.authorize(request, self.answered)
        return self.answers[-1] if len(self.answers) > before else None

    def list_models(self, method: bytes = b"GET") -> Answer | None:
        return self.ask(b"", method, path=b"/api/tags", endpoint_class=b"read", content_type=())


def status(answer: Answer | None) -> int:
    assert answer is not None
    return int(answer.head.split()[1])


def message(answer: Answer | None) -> str:
    assert answer is not None
    return str(json.loads(answer.body)["error"]["message"])


def test_a_server_that_takes_orders_gets_none() -> None:
    body = CHAT[:-1] + b',"fallbacks":["secret"],"mock_testing_fallbacks":true}'
    assert status(Hop().ask(body)) == 200
    hop = Hop(server=LlmServer(name="litellm", only_standard=True))
    answer = hop.ask(body)
    assert status(answer) == 400
    assert "not let through to this LLM server: fallbacks" in message(answer)
    assert hop.audit.actions == ["refusal"]


def test_a_good_request_is_recorded_and_goes_on() -> None:
    hop = Hop()
    answer = hop.ask()
    assert answer == Answer(
        b"HTTP/1.1 200 OK\r\nX-Accel-Redirect: @backend\r\nX-Key-Id: app1\r\nContent-Length: 0\r\n"
    )
    (kept,) = hop.audit.records
    assert kept["event.action"] == "request"
    assert kept["http.request.id"] == REQUEST_ID
    assert kept["client.ip"] == "10.0.1.5"
    assert kept["user.id"] == "app1"
    assert kept["gen_ai.request.model"] == "tiny:latest"
    assert kept["llm.prompt.hash"] == PromptDigester(b"pepper").digest("a secret thought")
    assert kept["llm.prompt.length"] == 16
    assert "secret thought" not in json.dumps(kept)
    assert len(hop.in_flight) == 1


def test_nothing_goes_on_before_its_record_is_written() -> None:
    hop = Hop()
    hop.audit.at_once = False
    assert hop.ask() is None
    hop.audit.waiting[0](True)
    assert b"X-Accel-Redirect" in hop.answers[0].head


def test_without_a_record_it_is_refused_and_frees_its_place() -> None:
    hop = Hop(tier="small")
    hop.audit.fails = True
    answer = hop.ask()
    assert status(answer) == 503
    assert b"Retry-After: 5" in answer.head  # type: ignore[union-attr]
    assert b"X-Accel-Redirect" not in answer.head  # type: ignore[union-attr]
    assert len(hop.in_flight) == 0
    hop.audit.fails = False
    assert status(hop.ask()) == 200  # the parallel slot is free again


def test_a_log_that_is_known_to_fail_is_not_tried() -> None:
    hop = Hop()
    hop.audit.writable = False
    assert not hop.authorizer.recording
    assert status(hop.ask()) == 503
    assert hop.metrics.authorizations["audit"] == 1
    assert "request" not in hop.audit.actions


@pytest.mark.parametrize(
    ("changes", "expected", "reason"),
    [
        ({"authorization": ()}, 401, "missing"),
        ({"authorization": b"Bearer x"}, 401, "malformed"),
        ({"authorization": b"Bearer " + OTHER_KEY}, 401, "unknown"),
        ({"x_api_key": OTHER_KEY}, 401, "conflict"),
        ({"limit_key": b"<Bearer x>"}, 401, "malformed"),
        ({"gateway_request": ()}, 403, "context"),
        ({"gateway_request": gateway_request(method=b"GET")}, 403, "context"),
        ({"request_id": b"short"}, 403, "context"),
        ({"path": b"/api/pull"}, 404, "route"),
        ({"path": b"/api/tags"}, 404, "route"),
        ({"content_type": b"text/plain"}, 400, "body"),
        ({"content_type": (b"application/json", b"application/json")}, 400, "body"),
        ({"body": b"{"}, 400, "body"),
        ({"body": b""}, 400, "body"),
        ({"body": b'{"model":"tiny","MODEL":"secret","messages":[]}'}, 400, "body"),
    ],
)
def test_what_is_refused_and_why(changes: dict[str, t.Any], expected: int, reason: str) -> None:
    hop = Hop()
    assert status(hop.ask(**changes)) == expected
    assert hop.metrics.authorizations[reason] == 1
    assert "request" not in hop.audit.actions
    assert len(hop.in_flight) == 0


@pytest.mark.parametrize("body", [CHAT, gzip.compress(CHAT)], ids=["plain", "gzip"])
@pytest.mark.parametrize(
    "encoding", [b"zstd", b"gzip", b"x", b"identity, br", (b"identity", b"br")]
)
def test_an_encoded_body_is_refused_whatever_it_is(encoding: t.Any, body: bytes) -> None:
    """Who unpacks it reads another body than the one that was judged."""
    hop = Hop()
    answer = hop.ask(body, content_encoding=encoding)
    assert status(answer) == 400
    assert "Content-Encoding" in message(answer)
    assert hop.audit.actions == ["refusal"]
    assert hop.audit.records[0]["event.reason"] == "body"


@pytest.mark.parametrize("encoding", [(), b"", b"identity", b" Identity\t", (b"identity", b"")])
def test_the_encoding_that_is_none(encoding: t.Any) -> None:
    assert status(Hop().ask(content_encoding=encoding)) == 200
    assert status(Hop().ask(gzip.compress(CHAT), content_encoding=encoding)) == 400


@pytest.mark.parametrize(
    ("fields", "expected", "reason"),
    [
        ({"revoked": True}, 401, "revoked"),
        ({"expires": "2020-01-01"}, 401, "expired"),
        ({"networks": ["192.0.2.0/24"]}, 403, "network"),
        ({"endpoint_classes": ["read"]}, 403, "endpoint_class"),
        ({"certificate_sha256": "ab" * 32}, 403, "certificate"),
        ({"models": ["other"]}, 403, "model"),
        ({"tier": "gold"}, 403, "tier"),
    ],
)
def test_the_key_is_judged(fields: dict[str, t.Any], expected: int, reason: str) -> None:
    hop = Hop(**fields)
    answer = hop.ask()
    assert status(answer) == expected
    assert hop.metrics.authorizations[reason] == 1
    assert hop.audit.actions == ["refusal"]
    assert hop.audit.records[0]["event.reason"] == reason
    assert json.loads(answer.body)["error"]["request_id"] == REQUEST_ID  # type: ignore[union-attr]
    assert b"X-Key-Id: app1\r\n" in answer.head  # type: ignore[union-attr]


def test_a_stranger_is_refused_as_nginx_does_it() -> None:
    """The words, the challenge, and not a byte of the body looked at."""
    hop = Hop()
    answer = hop.ask(b"{", authorization=b"Bearer " + OTHER_KEY)
    assert message(answer) == "A valid API key is required."
    assert b'WWW-Authenticate: Bearer realm="llm-gateway"\r\n' in answer.head  # type: ignore[union-attr]
    assert b"X-Key-Id" not in answer.head  # type: ignore[union-attr]
    (kept,) = hop.audit.records
    assert (kept["event.action"], kept["event.reason"]) == ("refusal", "unknown")
    assert "user.id" not in kept


@pytest.mark.parametrize("auth", AUTH_MODES)
def test_nginx_and_the_service_refuse_in_the_same_words(auth: str) -> None:
    template = FILES.parents[1] / "gateway/templates/llm-gateway.conf.j2"
    start = template.read_text().index("{% set holder =")
    block = template.read_text()[start:].partition("}\n\n")[0]
    shown = jinja2.Template(block).render(
        gateway_auth=auth, __gateway_wants_certificates=auth != "api_key"
    )
    said = dict(re.findall(r'^    (\w+) +"(.*)";$', shown, re.MULTILINE))
    words = messages(auth)
    assert said.pop("default") == words[Reason.UNKNOWN]
    ours = {reason.word: text for reason, text in words.items()}
    del ours["unknown"]
    assert said == ours


SUBJECT = r"CN=batch\, \"one\",O=\C3\9Cber"
CERTIFICATE = f"-----BEGIN%20CERTIFICATE-----%0AYWJj%0A-----END%20CERTIFICATE-----%0A {SUBJECT}"


def test_a_client_with_a_certificate_and_no_key() -> None:
    sha256 = hashlib.sha256(b"abc").hexdigest()
    hop = Hop(auth="mtls", certificate_sha256=sha256)
    assert status(hop.ask(authorization=(), client_certificate=CERTIFICATE.encode())) == 200
    refused = hop.ask(authorization=(), client_certificate=b"")
    assert (status(refused), message(refused)) == (403, "A client certificate is required.")
    request, refusal = hop.audit.records
    assert (request["user.id"], request["tls.client.hash.sha256"]) == ("app1", sha256.upper())
    assert request["tls.client.subject"] == SUBJECT
    assert refusal["event.reason"] == "certificate_missing"
    hop = Hop(auth="mtls", certificate_sha256=sha256, expires="2020-01-01")
    expired = hop.ask(client_certificate=CERTIFICATE.encode())
    assert hop.audit.records[0]["tls.client.subject"] == SUBJECT
    assert (status(expired), message(expired)) == (401, "The client's record has expired.")


def test_a_limit_is_named_with_its_figure() -> None:
    hop = Hop(tier="small")
    body = b'{"model":"tiny","messages":[],"options":{"num_predict":11}}'
    answer = hop.ask(body)
    assert status(answer) == 400
    assert "10" in message(answer)
    assert status(Hop(tier="small").ask(b" " * 101)) == 413


def test_quotas_answer_with_what_is_left_and_when() -> None:
    hop = Hop(tier="small")
    first = hop.ask()
    assert status(first) == 200
    assert b"RateLimit-Remaining: 1\r\n" in first.head  # type: ignore[union-attr]
    busy = hop.ask(request_id=b"1" * 32)
    assert status(busy) == 429
    assert hop.audit.records[-1]["event.reason"] == "parallel"
    hop.quotas.release("app1", REQUEST_ID)
    assert status(hop.ask(request_id=b"2" * 32)) == 200
    hop.quotas.release("app1", "2" * 32)
    late = hop.ask(request_id=b"3" * 32)
    assert status(late) == 429
    assert b"Retry-After: " in late.head  # type: ignore[union-attr]
    assert b"RateLimit-Remaining: 0\r\n" in late.head  # type: ignore[union-attr]
    assert hop.audit.records[-1]["event.reason"] == "rate"


def test_a_place_whose_end_is_not_read_yet_is_free() -> None:
    """nginx's reports gather for a moment; a key at its limit does not wait for them."""
    hop = Hop(tier="small")
    assert status(hop.ask()) == 200
    hop.unread = [REQUEST_ID]
    assert status(hop.ask(request_id=b"1" * 32)) == 200
    assert "refusal" not in hop.audit.actions


def test_a_refused_body_frees_its_place() -> None:
    hop = Hop(tier="small")
    assert status(hop.ask(b"{", request_id=b"1" * 32)) == 400
    assert status(hop.ask()) == 200


def test_a_client_that_went_away_holds_no_place() -> None:
    hop = Hop(tier="small")
    hop.in_flight.give_up(REQUEST_ID)  # nginx's report came first
    assert status(hop.ask()) == 503
    assert "request" not in hop.audit.actions
    hop.listening = False  # its connection ended while the record was written
    hop.ask(request_id=b"1" * 32)
    assert len(hop.in_flight) == 0
    hop.listening = True
    assert status(hop.ask(request_id=b"2" * 32)) == 429  # of the rate, not of the places
    assert hop.audit.records[-1]["event.reason"] == "rate"


def test_strangers_cannot_hide_what_a_key_is_refused() -> None:
    hop = Hop(models=["other"])
    for _unused in range(150):
        hop.authorizer.refused(Decision(Reason.MISSING), headers())
    hop.ask()
    assert hop.audit.records[-1]["event.reason"] == "model"
    assert hop.audit.records[-1]["gen_ai.request.model"] == "tiny:latest"


def test_a_refusal_says_of_the_body_what_a_request_does() -> None:
    hop = Hop()
    hop.ask()
    refused = Hop(models=["other"])
    refused.ask()
    (request,), (refusal,) = hop.audit.records, refused.audit.records
    of_the_body = {
        name: value
        for name, value in request.items()
        if name.startswith(("llm.prompt.", "gen_ai.", "http.request.body"))
    }
    assert len(of_the_body) == 8
    assert of_the_body.items() <= refusal.items()


class Shared:
    """Counters that answer later, or fail."""

    def __init__(self, fails: bool) -> None:
        self.fails = fails
        self.released: list[str] = []

    async def admit(self, *_unused: object) -> Admission:
        await asyncio.sleep(0)
        if self.fails:
            raise QuotaStoreError("gone")
        return Admission(True, "", 0, None, None, None)

    def release(self, _key_id: str, request_id: str) -> None:
        self.released.append(request_id)

    def sweep(self, now: float) -> None:
        """Nothing to do."""


@pytest.mark.parametrize(("fails", "expected"), [(False, 200), (True, 503)])
def test_counters_elsewhere_are_waited_for_and_fail_closed(fails: bool, expected: int) -> None:
    async def run() -> Hop:
        hop = Hop(Shared(fails))
        assert hop.ask() is None
        await asyncio.sleep(0.01)
        return hop

    hop = asyncio.run(run())
    assert status(hop.answers[0]) == expected
    assert ("request" in hop.audit.actions) == (not fails)


def list_with(monkeypatch: pytest.MonkeyPatch, upstream: t.Any, method: bytes) -> Hop:
    async def fetch(server: LlmServer, path: str) -> bytes:
        assert (server.backend, path) == ("127.0.0.1:11434", "/api/tags")
        if isinstance(upstream, Exception):
            raise upstream
        return bytes(upstream)

    monkeypatch.setattr(authorize_module, "fetch", fetch)

    async def run() -> Hop:
        hop = Hop(models=["tiny"])
        assert hop.list_models(method) is None
        await asyncio.sleep(0.01)
        return hop

    return asyncio.run(run())


BOTH = b'{"models":[{"name":"tiny:latest"},{"name":"secret:latest"}]}'


def test_a_key_with_some_models_sees_only_those(monkeypatch: pytest.MonkeyPatch) -> None:
    hop = list_with(monkeypatch, BOTH, b"GET")
    assert json.loads(hop.answers[0].body) == {"models": [{"name": "tiny:latest"}]}
    assert hop.audit.actions == ["request"]
    assert b"X-Key-Id: app1\r\n" in hop.answers[0].head
    assert b"Content-Length: 37" in list_with(monkeypatch, BOTH, b"HEAD").answers[0].head


def test_no_list_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert status(list_with(monkeypatch, UpstreamError(), b"GET").answers[0]) == 502


def test_a_key_with_all_models_gets_the_servers_own_list() -> None:
    assert b"X-Accel-Redirect" in Hop().list_models().head  # type: ignore[union-attr]


def test_a_model_in_the_path_is_judged() -> None:
    def ask(path: bytes) -> int:
        changes = {"path": path, "endpoint_class": b"read", "content_type": ()}
        return status(Hop(models=["tiny"]).ask(b"", b"GET", **changes))

    assert ask(b"/v1/models/tiny") == 200
    assert ask(b"/v1/models/tiny:latest") == 200
    assert ask(b"/v1/models/secret") == 403


SEVERAL = LlmServer(names_models=True, models=("tiny:latest", "big:7b"))


def test_nginx_hears_which_model_was_judged() -> None:
    def said(method: bytes, body: bytes, **changes: t.Any) -> bytes:
        answer = Hop(server=SEVERAL).ask(body, method, **changes)
        assert answer is not None
        return next(line for line in answer.head.split(b"\r\n") if line.startswith(b"X-Llm"))

    read = {"endpoint_class": b"read", "content_type": ()}
    assert said(b"POST", CHAT) == b"X-Llm-Model: tiny:latest"
    assert said(b"GET", b"", path=b"/v1/models/BIG:7b", **read) == b"X-Llm-Model: big:7b"
    assert said(b"GET", b"", path=b"/v1/models/..", **read) == b"X-Llm-Model: -"
    assert said(b"GET", b"", path=b"/api/tags", **read) == b"X-Llm-Model: -"


def test_a_model_that_no_server_has_is_refused_and_recorded() -> None:
    hop = Hop(server=SEVERAL)
    answer = hop.ask(CHAT.replace(b"tiny", b"huge"))
    assert status(answer) == 404
    assert message(answer) == "No LLM server of this gateway has this model."
    assert b"X-Accel-Redirect" not in answer.head  # type: ignore[union-attr]
    (kept,) = hop.audit.records
    assert (kept["event.reason"], kept["gen_ai.request.model"]) == ("model_unknown", "huge:latest")
    assert len(hop.in_flight) == 0


def test_a_key_does_not_learn_of_models_that_are_not_its_own() -> None:
    for name in (b"huge", b"big:7b"):
        hop = Hop(server=SEVERAL, models=["tiny"])
        assert status(hop.ask(CHAT.replace(b"tiny", name))) == 403


def test_refusals_before_the_body_are_recorded_with_what_is_known() -> None:
    hop = Hop()
    hop.authorizer.refused(Decision(Reason.MISSING), headers())
    hop.authorizer.refused(Decision(Reason.CONTEXT), headers(request_id=b"odd"))
    (kept,) = hop.audit.records
    assert (kept["event.reason"], kept["http.response.status_code"]) == ("missing", 401)
    assert hop.in_flight.was_refused(REQUEST_ID)
