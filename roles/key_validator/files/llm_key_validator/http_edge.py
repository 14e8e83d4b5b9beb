# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP/1.1, as little of it as nginx needs: an asyncio Protocol on httptools.

nginx is the only real client, so strictness costs nothing: no bodies, no upgrades, bounded
headers, time and number of connections. A request that breaks a limit or HTTP itself is
answered 403 `context` and the connection closed: other statuses, or a silent close, would
turn into a 500 at the gateway, and what breaks the limit may be the client's own header.

Answers are made at once and in the order of the requests, so pipelining is safe. Works with
httptools from 0.1.1 (Debian 12, on http-parser) to today's (on llhttp).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import httptools

from .config import Config
from .decision import RequestHeaders
from .service import Answer, Request, Service

# More requests than this in one read are no nginx; it bounds the time one read can take.
MAX_PIPELINED = 16

_SLOTS = {
    b"authorization": "authorization",
    b"x-api-key": "x_api_key",
    b"x-request-id": "request_id",
    b"x-client-address": "client_address",
    b"x-endpoint-class": "endpoint_class",
    b"x-original-method": "original_method",
    b"x-original-path": "original_path",
    b"x-limit-key": "limit_key",
}

_BODY_HEADERS = (b"transfer-encoding", b"content-length")
_NO_BODY = (b"content-length", b"0")

_VERSIONS = ("1.1", "1.0")

TrustCheck = Callable[[asyncio.Transport], bool]


class _StopError(Exception):
    """Ends the parser's run from within a callback."""


class Listener:
    """One listening socket's connections, their number and their time."""

    def __init__(self, service: Service, config: Config, is_trusted: TrustCheck) -> None:
        self.service = service
        self.config = config
        self.is_trusted = is_trusted
        self.connections: set[Connection] = set()
        self.draining = False

    def make_connection(self) -> Connection:
        """The protocol factory for the event loop."""
        return Connection(self)

    def expire(self, now: float) -> None:
        """Drop every connection whose time is over at ``now`` (the loop's clock)."""
        for connection in [one for one in self.connections if one.deadline <= now]:
            connection.abort()

    def drain(self) -> None:
        """Finish: close idle connections now, the others after their next answer."""
        self.draining = True
        for connection in list(self.connections):
            connection.close_if_idle()


class Connection(asyncio.Protocol):
    """One client. The parser calls ``on_*`` while it is fed."""

    __slots__ = (
        "_closing",
        "_config",
        "_header_bytes",
        "_header_count",
        "_headers",
        "_idle",
        "_listener",
        "_now",
        "_out",
        "_parser",
        "_pipelined",
        "_received",
        "_target",
        "_transport",
        "_verdict",
        "deadline",
    )

    _transport: asyncio.Transport

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._config = listener.config
        self._now = asyncio.get_running_loop().time
        self._parser = httptools.HttpRequestParser(self)
        self._out: list[bytes] = []
        self._closing = False
        # True between an answer and the next request's first byte
        self._idle = False
        # Bytes since the last complete request; bounds what the parser may keep
        self._received = 0
        self._pipelined = 0
        self._verdict: bool | None = None
        # When this connection is dropped unless a request is complete by then
        self.deadline = self._now() + self._config.request_timeout_seconds
        self.on_message_begin()

    # What the event loop calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the connection, or drop it when there are too many."""
        self._transport = transport  # type: ignore[assignment]
        if len(self._listener.connections) >= self._config.max_connections:
            self._listener.service.metrics.connections_refused += 1
            self.abort()
            return
        self._listener.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._closing = True
        self._listener.connections.discard(self)

    def pause_writing(self) -> None:
        """A client that asks and does not read its answers gets no memory for them."""
        self.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; write all answers of this read at once."""
        if self._closing:
            return
        self._received += len(data)
        self._pipelined = 0
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._stop_unreadable(error.__context__)
        if self._received > self._config.max_header_bytes:
            self._stop_unreadable()
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()
        if self._closing:
            self._transport.close()

    # What the parser calls

    def on_message_begin(self) -> None:
        """Start a request with nothing known about it."""
        if self._idle:
            self._idle = False
            self.deadline = self._now() + self._config.request_timeout_seconds
        self._target = b""
        self._headers = RequestHeaders()
        self._header_count = 0
        self._header_bytes = 0

    def on_url(self, url: bytes) -> None:
        """Collect the request target, which may come in parts."""
        self._target += url
        self._count_bytes(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep the few headers that matter; refuse a body as soon as it is announced."""
        self._header_count += 1
        if self._header_count > self._config.max_headers:
            raise _StopError
        self._count_bytes(len(name) + len(value))
        lowered = name.lower()
        slot = _SLOTS.get(lowered)
        if slot is not None:
            setattr(self._headers, slot, (*getattr(self._headers, slot), value))
        elif lowered in _BODY_HEADERS and (lowered, value.strip()) != _NO_BODY:
            raise _StopError

    def on_message_complete(self) -> None:
        """Answer. Raises to stop the parser when this was the connection's last request."""
        self._received = 0
        self._pipelined += 1
        if self._pipelined > MAX_PIPELINED or self._parser.should_upgrade():
            raise _StopError
        if self._parser.get_http_version() not in _VERSIONS:
            raise _StopError  # http-parser, unlike llhttp, lets any number pass
        method = self._parser.get_method()
        request = Request(method, self._target, self._headers, self._trusted)
        last = self._listener.draining or not self._parser.should_keep_alive()
        self._finish(self._listener.service.answer(request), last)

    # Steps

    def close_if_idle(self) -> None:
        """Close at once if no request is under way."""
        if self._idle:
            self._closing = True
            self._transport.close()

    def abort(self) -> None:
        """Drop the connection without another word."""
        self._closing = True
        self._transport.abort()

    def _trusted(self) -> bool:
        # Once for each connection: the other end cannot change hands without us seeing it
        # close, and the answer costs a walk through the kernel's socket table.
        if self._verdict is None:
            self._verdict = self._listener.is_trusted(self._transport)
        return self._verdict

    def _finish(self, answer: Answer, last: bool) -> None:
        self._idle = True
        self.deadline = self._now() + self._config.idle_timeout_seconds
        if last or answer.close:
            self._out += (answer.head, b"Connection: close\r\n\r\n", answer.body)
            self._closing = True
            raise _StopError
        self._out += (answer.head, b"\r\n", answer.body)

    def _count_bytes(self, number: int) -> None:
        self._header_bytes += number
        if self._header_bytes > self._config.max_header_bytes:
            raise _StopError

    def _stop_unreadable(self, cause: BaseException | None = None) -> None:
        # Also reached when _finish stopped the parser: then everything is said already.
        if self._closing:
            return
        if cause is not None and not isinstance(cause, _StopError):
            # Not the request's fault but ours. The answer is a refusal all the same.
            self._listener.service.note_failure(type(cause).__name__)
        answer = self._listener.service.refuse_unreadable()
        self._out += (answer.head, b"Connection: close\r\n\r\n")
        self._closing = True
