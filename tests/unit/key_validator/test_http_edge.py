# SPDX-License-Identifier: GPL-3.0-or-later
"""The HTTP edge, fed with bytes in any pieces, against a transport that remembers."""

from __future__ import annotations

import asyncio
import itertools
import json
import typing as t

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("httptools")

from llm_key_validator.answers import Answer, empty, refusal
from llm_key_validator.config import Config
from llm_key_validator.decision import Decision, Reason, RequestHeaders
from llm_key_validator.http_edge import MAX_PIPELINED, Connection, Listener
from llm_key_validator.journal import Journal, RefusalLog
from llm_key_validator.keys import generate_key
from llm_key_validator.metrics import Metrics
from llm_key_validator.registry import Registry, load_registry
from llm_key_validator.service import Reply, Request, Service

from .conftest import NOW, gateway_request, record, registry_text

KEY = generate_key()
CONTEXT = f"X-Gateway-Request: {gateway_request().decode()}"
CONFIG = Config(
    max_headers=16,
    max_header_bytes=4096,
    max_connections=2,
    max_body_bytes=50_000,
    max_buffered_bytes=1024,
)


class Source:
    """A registry that is there, or not."""

    def __init__(self, registry: Registry | None, current: bool = True) -> None:
        self.registry = registry
        self.current = current


class Transport(asyncio.Transport):
    """Remembers what is written and how it ended."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = ""
        self.limit = 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.limit = high or 0

    def write(self, data: t.Any) -> None:
        assert not self.ended
        self.written += data

    def close(self) -> None:
        self.ended = self.ended or "closed"

    def abort(self) -> None:
        self.ended = "aborted"


class Hop:
    """Stands for the policy hop: keeps what it is asked, and answers when it is told to."""

    recording = True

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.waiting: list[Reply] = []
        self.refusals: list[Decision] = []
        self.at_once = True

    def authorize(self, request: Request, reply: Reply) -> None:
        self.asked.append(request)
        if self.at_once:
            reply(GO)
        else:
            self.waiting.append(reply)

    def refused(self, decision: Decision, headers: RequestHeaders) -> None:
        self.refusals.append(decision)


GO: Answer = empty(200, b"X-Accel-Redirect: @backend\r\n")


class Edge:
    """A service with one key, and what it logs."""

    def __init__(
        self, trusted: bool = True, source: Source | None = None, local: bool = True
    ) -> None:
        self.log: list[str] = []
        self.hop = Hop()
        self.asked = 0
        self.trusted = trusted
        journal = Journal(self.log.append, with_levels=False)
        self.service = Service(
            source or Source(load_registry(registry_text(record(KEY)))),
            authorizer=self.hop,
            metrics=Metrics(),
            refusals=RefusalLog(journal, 1000),
            journal=journal,
            clock=lambda: NOW,
        )
        self.listener = Listener(self.service, CONFIG, self._check, local=local)

    def _check(self, _transport: asyncio.Transport) -> bool:
        self.asked += 1
        return self.trusted

    def connect(self) -> tuple[Connection, Transport]:
        connection, transport = self.listener.make_connection(), Transport()
        connection.connection_made(transport)
        return connection, transport


def talk(*chunks: bytes, edge: Edge | None = None) -> Transport:
    """Feed the chunks to one new connection."""

    async def run() -> Transport:
        connection, transport = (edge or Edge()).connect()
        for chunk in chunks:
            connection.data_received(chunk)
        return transport

    return asyncio.run(run())


def request(*lines: str, target: str = "/validate", method: str = "GET") -> bytes:
    head = "".join(f"{line}\r\n" for line in lines)
    return f"{method} {target} HTTP/1.1\r\nHost: v\r\n{head}\r\n".encode()


def validate(*lines: str) -> bytes:
    return request(CONTEXT, *lines)


GOOD = validate(f"Authorization: Bearer {KEY}")
MISSING = validate()
ALLOWED = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX-Key-Id: app1\r\n\r\n"
REFUSED = b"HTTP/1.1 401 Unauthorized\r\nX-Auth-Reason: missing\r\nContent-Length: 0\r\n\r\n"
# What /validate says by itself; nginx has the words for it.
NO_CONTEXT = (
    b"HTTP/1.1 403 Forbidden\r\nX-Auth-Reason: context\r\nContent-Length: 0\r\n"
    b"Connection: close\r\n\r\n"
)


def unreadable(request_id: str = "") -> bytes:
    """What a client of the policy hop reads when its request breaks HTTP or a limit."""
    message = "The request's headers cannot be read."
    error = {"type": "permission_error", "message": message, "request_id": request_id}
    body = json.dumps({"error": error}, separators=(",", ":")) + "\n"
    return (
        "HTTP/1.1 403 Forbidden\r\nX-Auth-Reason: context\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n{body}"
    ).encode()


UNREADABLE = unreadable()
# nginx writes the id first of all, so of most requests it is known.
UNREADABLE_HERE = unreadable(CONTEXT.split()[1])


def test_a_good_key_gets_204_and_the_connection_stays() -> None:
    transport = talk(GOOD)
    assert transport.written == ALLOWED
    assert not transport.ended


def test_header_names_in_any_case_and_doubled_headers() -> None:
    assert talk(validate(f"x-API-key: {KEY}")).written == ALLOWED
    doubled = validate(f"X-API-Key: {KEY}", f"X-API-Key: {generate_key()}")
    assert b"X-Auth-Reason: conflict" in talk(doubled).written


@settings(deadline=None)
@given(st.lists(st.sampled_from([GOOD, MISSING]), min_size=1, max_size=4), st.data())
def test_pieces_and_pipelines_answer_the_same(requests: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(requests)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=8)))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    expected = b"".join(ALLOWED if one == GOOD else REFUSED for one in requests)
    assert talk(*(piece for piece in pieces if piece)).written == expected


@settings(deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=300), max_size=6))
def test_noise_is_refused_and_never_allowed(chunks: list[bytes]) -> None:
    edge = Edge()
    transport = talk(*chunks, edge=edge)
    assert b" 204 " not in transport.written
    assert transport.written in (b"", UNREADABLE) or transport.written.startswith(b"HTTP/1.1 40")
    assert not any("internal_error" in line for line in edge.log)


@settings(deadline=None)
@given(st.binary(min_size=1, max_size=60), st.integers(0, len(GOOD)))
def test_bytes_slipped_into_a_request_never_allow_without_the_key(noise: bytes, at: int) -> None:
    transport = talk(MISSING[:at] + noise + MISSING[at:])
    assert b" 204 " not in transport.written


@pytest.mark.parametrize(
    "stream",
    [
        request("User-Agent: a\x01b"),
        b"\x16\x03\x01\x02\x00\x01",
        b"GET /validate HTTP/9.9\r\n\r\n",
        validate("Content-Length: 5") + b"hello",
        validate("Content-Length: 5", "Transfer-Encoding: chunked"),
        validate("Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
        validate("Content-Length: 0", "Content-Length: 7"),
        validate("Connection: upgrade", "Upgrade: h2c"),
        validate(*(f"A{number}: b" for number in range(15))),
        validate("Cookie: " + "a" * 4096),
        request(target="/" + "a" * 4096),
        b"GET /validate HTTP/1.1\r\nA: " + b"a" * 5000,
    ],
)
def test_what_breaks_http_or_a_limit_is_refused_and_closed(stream: bytes) -> None:
    edge = Edge()
    transport = talk(stream, edge=edge)
    known = CONTEXT.encode() in stream
    assert transport.written == (UNREADABLE_HERE if known else UNREADABLE)
    assert transport.ended == "closed"
    assert edge.service.metrics.requests_unreadable == 1
    assert not any("internal_error" in line for line in edge.log)


def test_a_body_of_no_bytes_is_no_body() -> None:
    assert talk(validate("Content-Length: 0", f"X-API-Key: {KEY}")).written == ALLOWED


def test_many_slow_bytes_do_not_pile_up() -> None:
    """The parser keeps an unfinished header: the limit must hold across reads, too."""
    transport = talk(b"GET /validate HTTP/1.1\r\nA: ", *[b"a" * 100] * 60)
    assert transport.written == UNREADABLE


def test_nothing_is_answered_after_the_end() -> None:
    transport = talk(request("Connection: close"), GOOD)
    assert transport.written.count(b"HTTP/1.1") == 1
    assert transport.ended == "closed"
    both = talk(request("Connection: close") + GOOD)
    assert both.written.count(b"HTTP/1.1") == 1


def test_http_1_0_gets_its_answer_and_the_end() -> None:
    transport = talk(b"GET /validate HTTP/1.0\r\n\r\n")
    assert transport.written == NO_CONTEXT
    assert transport.ended == "closed"


def test_more_pipelined_requests_than_any_nginx_sends() -> None:
    transport = talk(MISSING * (MAX_PIPELINED + 5))
    assert transport.written == REFUSED * MAX_PIPELINED + UNREADABLE_HERE
    assert transport.ended == "closed"


@pytest.mark.parametrize("method", ["POST", "HEAD", "DELETE", "OPTIONS"])
def test_validate_knows_no_status_but_its_own(method: str) -> None:
    assert talk(request(method=method)).written == NO_CONTEXT


@pytest.mark.parametrize("target", ["/validate?x", "/validate/", "//validate", "/VALIDATE", "/"])
def test_other_targets_are_not_there(target: str) -> None:
    transport = talk(request(target=target))
    assert transport.written.startswith(b"HTTP/1.1 404 ")
    assert transport.ended == "closed"
    assert b" 405 " in talk(request(target="/healthz", method="POST")).written


def test_a_stranger_on_the_host_is_refused_whatever_the_key() -> None:
    for stream in (GOOD, MISSING, validate(f"X-API-Key: {generate_key()}")):
        edge = Edge(trusted=False)
        transport = talk(stream, edge=edge)
        assert b" 403 " in transport.written
        assert b"X-Auth-Reason: peer\r\n" in transport.written
        assert transport.ended == "closed"
        assert edge.service.metrics.decisions[Reason.PEER] == 1


def test_a_stranger_sees_health_but_not_metrics() -> None:
    health = talk(request(target="/healthz"), edge=Edge(trusted=False))
    assert health.written.startswith(b"HTTP/1.1 200 ")
    assert health.ended == "closed"
    metrics = talk(request(target="/metrics"), edge=Edge(trusted=False))
    assert b"X-Auth-Reason: peer" in metrics.written
    assert b"llm_key_validator" not in metrics.written


def test_the_peer_is_looked_up_once_for_each_connection() -> None:
    edge = Edge()
    talk(MISSING, GOOD, GOOD, edge=edge)
    assert edge.asked == 1
    talk(GOOD, edge=edge)
    assert edge.asked == 2


HEALTHY = {"status": "ok", "keys": 0, "registry": "ok", "audit": "ok"}


@pytest.mark.parametrize(
    ("source", "status", "body"),
    [
        (None, 200, {**HEALTHY, "keys": 1, "registry": "ok"}),
        (Source(None, False), 503, {**HEALTHY, "status": "unavailable", "registry": "none"}),
        (
            Source(load_registry(registry_text()), False),
            200,
            {**HEALTHY, "registry": "stale"},
        ),
    ],
)
def test_health(source: Source | None, status: int, body: dict[str, t.Any]) -> None:
    head, _unused, content = talk(
        request(target="/healthz"), edge=Edge(source=source)
    ).written.partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert f"Content-Length: {len(content)}".encode() in head
    assert json.loads(content) == body


def test_metrics_count_decisions() -> None:
    edge = Edge()
    talk(GOOD, GOOD, MISSING, edge=edge)
    text = talk(request(target="/metrics"), edge=edge).written.decode()
    assert 'llm_key_validator_decisions_total{reason="ok"} 2\n' in text
    assert 'llm_key_validator_decisions_total{reason="missing"} 1\n' in text
    assert 'llm_key_validator_decisions_total{reason="revoked"} 0\n' in text


def test_the_log_tells_reasons_and_no_secrets() -> None:
    stranger = generate_key()
    edge = Edge(source=Source(load_registry(registry_text(record(KEY, revoked=True)))))
    talk(GOOD, validate(f"X-API-Key: {stranger}", "Cookie: session=1"), edge=edge)
    assert [json.loads(line) for line in edge.log] == [
        {"event": "refused", "level": "info", "reason": "revoked", "key_id": "app1"},
        {"event": "refused", "level": "info", "reason": "unknown"},
    ]


def test_our_own_defect_is_a_refusal_and_is_logged() -> None:
    edge = Edge()
    edge.service.routes[b"/validate"] = lambda request: 1 // 0  # type: ignore[assignment,return-value]
    transport = talk(GOOD, edge=edge)
    assert transport.written == UNREADABLE_HERE
    assert json.loads(edge.log[0]) == {
        "event": "internal_error",
        "level": "error",
        "kind": "ZeroDivisionError",
    }


def test_connections_over_the_limit_are_dropped() -> None:
    async def run() -> None:
        edge = Edge()
        kept = [edge.connect() for _unused in range(2)]
        _unused, third = edge.connect()
        assert third.ended == "aborted"
        assert edge.service.metrics.connections_refused == 1
        kept[0][0].connection_lost(None)
        assert not edge.connect()[1].ended

    asyncio.run(run())


def test_time_runs_out_for_slow_and_for_idle_connections() -> None:
    async def run() -> None:
        edge = Edge()
        slow, slow_transport = edge.connect()
        idle, idle_transport = edge.connect()
        begun = slow.deadline
        slow.data_received(b"GET /val")
        await asyncio.sleep(0.01)
        slow.data_received(b"idate")
        assert slow.deadline == begun  # a byte now and then buys no time
        idle.data_received(MISSING)
        assert idle.deadline > begun
        edge.listener.expire(begun)
        assert slow_transport.ended == "aborted"
        assert not idle_transport.ended
        idle.data_received(b"G")
        assert idle.deadline < begun + CONFIG.idle_timeout_seconds
        edge.listener.expire(idle.deadline)
        assert idle_transport.ended == "aborted"

    asyncio.run(run())


def test_the_way_out_lets_a_begun_request_finish() -> None:
    async def run() -> None:
        edge = Edge()
        idle, idle_transport = edge.connect()
        idle.data_received(MISSING)
        busy, busy_transport = edge.connect()
        busy.data_received(GOOD[:20])
        edge.listener.drain()
        assert idle_transport.ended == "closed"
        assert not busy_transport.ended
        busy.data_received(GOOD[20:])
        assert busy_transport.written.startswith(b"HTTP/1.1 204 ")
        assert b"Connection: close" in busy_transport.written
        assert busy_transport.ended == "closed"

    asyncio.run(run())


def test_a_client_that_reads_no_answers_is_dropped() -> None:
    async def run() -> None:
        connection, transport = Edge().connect()
        connection.pause_writing()
        assert transport.ended == "aborted"

    asyncio.run(run())


def authorize(body: bytes, *lines: str, method: str = "POST") -> bytes:
    length = f"Content-Length: {len(body)}"
    head = (CONTEXT, length, "Content-Type: application/json", *lines)
    return request(*head, target="/authorize", method=method) + body


GONE_ON = b"HTTP/1.1 200 OK\r\nX-Accel-Redirect: @backend\r\nContent-Length: 0\r\n\r\n"


@settings(deadline=None)
@given(st.binary(max_size=20_000), st.lists(st.integers(0, 21_000), max_size=6))
def test_a_body_arrives_whole_in_any_pieces(body: bytes, cuts: list[int]) -> None:
    edge = Edge()
    stream = authorize(body)
    places = sorted({min(cut, len(stream)) for cut in (0, *cuts, len(stream))})
    pieces = [stream[a:b] for a, b in itertools.pairwise(places)]
    transport = talk(*pieces, GOOD, edge=edge)
    assert transport.written == GONE_ON + ALLOWED
    (asked,) = edge.hop.asked
    assert (asked.body, asked.method, asked.local) == (body, b"POST", True)
    assert asked.headers.content_type == (b"application/json",)
    assert edge.listener.buffered == 0


def test_every_encoding_of_a_body_is_kept() -> None:
    edge = Edge()
    stream = authorize(b"{}", "Content-Encoding: zstd", "content-encoding: identity")
    assert talk(stream, edge=edge).written == GONE_ON
    (asked,) = edge.hop.asked
    assert asked.headers.content_encoding == (b"zstd", b"identity")


@pytest.mark.parametrize("length", ["50001", "-1", "5x", "5, 5", "0x5", "99999999999999"])
def test_a_body_too_large_or_of_odd_length_is_refused_before_it_comes(length: str) -> None:
    edge = Edge()
    head = request(f"Content-Length: {length}", target="/authorize", method="POST")
    transport = talk(head, edge=edge)
    assert transport.written == UNREADABLE
    assert not edge.hop.asked
    assert edge.listener.buffered == 0


def test_bodies_together_have_a_limit_and_free_their_room() -> None:
    async def run() -> None:
        edge = Edge()
        edge.listener.buffered = 120_000
        first, first_transport = edge.connect()
        first.data_received(authorize(b"a" * 50_000)[:-1])
        second, second_transport = edge.connect()
        second.data_received(authorize(b"b" * 40_000))
        assert second_transport.written.startswith(b"HTTP/1.1 503 ")
        assert b"Retry-After: 1" in second_transport.written
        assert b'"type":"unavailable"' in second_transport.written
        first.connection_lost(None)
        assert edge.listener.buffered == 120_000
        second.connection_lost(None)
        third, third_transport = edge.connect()
        third.data_received(authorize(b"c" * 40_000))
        assert third_transport.written == GONE_ON
        assert not first_transport.written

    asyncio.run(run())


def test_the_hop_is_for_the_unix_socket_alone() -> None:
    edge = Edge(local=False)
    assert b"X-Auth-Reason: peer" in talk(authorize(b""), edge=edge).written
    assert talk(authorize(b"{}"), edge=edge).written == UNREADABLE_HERE
    assert not edge.hop.asked


def test_an_answer_that_comes_later() -> None:
    async def run() -> None:
        edge = Edge()
        edge.hop.at_once = False
        connection, transport = edge.connect()
        connection.data_received(authorize(b"{}"))
        assert not transport.written
        edge.hop.waiting[0](GO)
        assert transport.written == GONE_ON
        edge.hop.waiting[0](GO)
        assert transport.written == GONE_ON  # once is enough
        connection.data_received(GOOD)
        assert transport.written == GONE_ON + ALLOWED

    asyncio.run(run())


@pytest.mark.parametrize("more", [[authorize(b"{}"), GOOD], [authorize(b"{}") + GOOD]])
def test_who_does_not_wait_for_an_answer_is_dropped(more: list[bytes]) -> None:
    edge = Edge()
    edge.hop.at_once = False
    transport = talk(*more, edge=edge)
    assert transport.ended == "aborted"
    assert not transport.written
    assert len(edge.hop.asked) == 1
    edge.hop.waiting[0](GO)
    assert not transport.written


def test_a_body_takes_its_room_until_it_is_answered() -> None:
    async def run() -> None:
        edge = Edge()
        edge.hop.at_once = False
        connection, _unused = edge.connect()
        connection.data_received(authorize(b"a" * 40_000))
        assert edge.listener.buffered == 40_000
        assert edge.hop.waiting[0](GO)
        assert edge.listener.buffered == 0
        assert not edge.hop.waiting[0](GO)

    asyncio.run(run())


def test_an_answer_that_never_comes_ends_the_connection() -> None:
    async def run() -> None:
        edge = Edge()
        edge.hop.at_once = False
        connection, transport = edge.connect()
        connection.data_received(authorize(b"{}"))
        edge.listener.expire(connection.deadline)
        assert transport.ended == "aborted"

    asyncio.run(run())


def test_the_way_out_waits_for_a_late_answer() -> None:
    async def run() -> None:
        edge = Edge()
        edge.hop.at_once = False
        connection, transport = edge.connect()
        connection.data_received(authorize(b"{}"))
        edge.listener.drain()
        assert not transport.ended
        edge.hop.waiting[0](GO)
        assert b"Connection: close" in transport.written
        assert transport.ended == "closed"

    asyncio.run(run())


def test_refusals_of_validate_are_handed_on_for_the_record() -> None:
    edge = Edge()
    talk(MISSING, GOOD, edge=edge)
    assert [one.reason for one in edge.hop.refusals] == [Reason.MISSING]


def test_health_turns_bad_when_nothing_can_be_recorded() -> None:
    edge = Edge()
    edge.hop.recording = False
    written = talk(request(target="/healthz"), edge=edge).written
    assert written.startswith(b"HTTP/1.1 503 ")
    assert b'"audit": "failing"' in written


def test_an_answer_to_head_has_no_body() -> None:
    edge = Edge()
    edge.hop.at_once = False

    async def run() -> bytes:
        connection, transport = edge.connect()
        connection.data_received(request(target="/authorize", method="HEAD"))
        edge.hop.waiting[0](refusal(403, "No.", "0" * 32))
        return transport.written

    written = asyncio.run(run())
    assert written.startswith(b"HTTP/1.1 403 ")
    assert written.endswith(b"\r\n\r\n")
