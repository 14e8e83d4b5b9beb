# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP/1.1, as little of it as nginx needs: an asyncio Protocol on httptools.

nginx is the only real client, so strictness costs nothing: no upgrades, no chunks, bounded
headers, bodies, time and number of connections. A request that breaks a limit or HTTP itself is
answered 403 `context` and the connection closed: other statuses, or a silent close, would
turn into a 500 at the gateway, and what breaks the limit may be the client's own header.

A body is taken where the service wants one, and nowhere else. Most answers are made at once. One
that has to wait, for the disk or for another server, holds its connection: whoever sends the next
request before it has the answer is no nginx, and is dropped. Works with httptools from 0.1.1
(Debian 12, on http-parser) to today's (on llhttp).
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Callable
from dataclasses import fields

import httptools

from .config import Config
from .decision import RequestHeaders, request_id_of
from .service import Answer, Request, Service

# More requests than this in one read are no nginx; it bounds the time one read can take.
MAX_PIPELINED = 16

_SLOTS = {
    b"Authorization": "authorization",
    b"X-Api-Key": "x_api_key",
    b"X-Gateway-Request": "gateway_request",
    b"X-Limit-Key": "limit_key",
    b"X-Client-Certificate": "client_certificate",
    b"Content-Type": "content_type",
    b"Content-Encoding": "content_encoding",
    b"Content-Length": "content_length",
    b"Transfer-Encoding": "transfer_encoding",
    # Of no interest, and in every request
    b"Host": "",
}
_KEPT = frozenset(field.name for field in fields(RequestHeaders))

# Answers that a client has not read yet (bytes): the largest list of models, and some
_MAX_UNREAD = 8 * 1024 * 1024
_LENGTH = re.compile(rb"[0-9]{1,12}")

_VERSIONS = ("1.1", "1.0")

TrustCheck = Callable[[asyncio.Transport], bool]


class _StopError(Exception):
    """Ends the parser's run from within a callback."""


class _FullError(_StopError):
    """There is no room for another body."""


class Listener:
    """One listening socket's connections, their number, their time and their bodies.

    ``local``: the unix socket, which nobody but nginx can open.
    """

    def __init__(
        self, service: Service, config: Config, is_trusted: TrustCheck, *, local: bool = True
    ) -> None:
        self.service = service
        self.config = config
        self.is_trusted = is_trusted
        self.local = local
        self.connections: set[Connection] = set()
        # Announced bytes of all bodies that are held now
        self.buffered = 0
        # At least a few bodies of the largest size fit
        self.max_buffered = max(config.max_buffered_bytes, 4 * config.max_body_bytes)
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
        "_body",
        "_body_length",
        "_busy",
        "_closing",
        "_config",
        "_feeding",
        "_head",
        "_headers",
        "_idle",
        "_last",
        "_lines",
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
        # True while an answer is waited for
        self._busy = False
        # True while the parser runs: answers are collected then, and written at the end
        self._feeding = False
        # Whether the request being answered wants no body, and whether it is the last
        self._head = False
        self._last = False
        self._body: list[bytes] = []
        self._body_length = 0
        self._lines: list[tuple[bytes, bytes]] = []
        self._headers = RequestHeaders()
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
        if self._listener.local:
            # nginx takes a list of many models at its own pace.
            self._transport.set_write_buffer_limits(high=_MAX_UNREAD)
        self._listener.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._closing = True
        self._make_room()
        self._listener.connections.discard(self)

    def pause_writing(self) -> None:
        """A client that asks and does not read its answers gets no memory for them."""
        self.abort()

    def data_received(self, data: bytes) -> None:
        """Feed the parser; write all answers of this read at once."""
        if self._closing:
            return
        if self._busy:
            self.abort()
            return
        self._received += len(data)
        self._pipelined = 0
        self._feeding = True
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._stop_unreadable(error.__context__)
        self._feeding = False
        if self._received > self._config.max_header_bytes + self._body_length:
            self._stop_unreadable()
        self._write_out()

    # What the parser calls

    def on_message_begin(self) -> None:
        """Start a request with nothing known about it."""
        if self._busy:
            raise _StopError
        if self._idle:
            self._idle = False
            self.deadline = self._now() + self._config.request_timeout_seconds
        self._target = b""
        self._lines = []

    def on_url(self, url: bytes) -> None:
        """Collect the request target, which may come in parts."""
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a header."""
        self._lines.append((name, value))

    def on_headers_complete(self) -> None:
        """Keep the few headers that matter; refuse an unwanted body before it comes."""
        config, lines = self._config, self._lines
        if len(lines) > config.max_headers:
            raise _StopError
        # One read that is within the limit needs no look at its parts.
        if (self._pipelined or self._received > config.max_header_bytes) and (
            sum(map(len, itertools.chain(*lines)), len(self._target)) > config.max_header_bytes
        ):
            raise _StopError
        found: dict[str, tuple[bytes, ...]] = {}
        for name, value in lines:
            slot = _SLOTS.get(name)
            if slot is None:
                # nginx writes its own as they stand here; a client's may come in any case.
                slot = _SLOTS.get(name.title(), "")
            if slot in _KEPT:
                found[slot] = (*found[slot], value) if slot in found else (value,)
            elif slot == "content_length":
                self._expect_body(value.strip())
            elif slot:
                raise _StopError
        self._headers = RequestHeaders(**found)

    def on_body(self, body: bytes) -> None:
        """Keep a piece of the body. There are no more bytes than were announced."""
        self._body.append(body)

    def on_message_complete(self) -> None:
        """Answer. Raises to stop the parser when this was the connection's last request."""
        self._received = 0
        self._pipelined += 1
        if self._pipelined > MAX_PIPELINED or self._parser.should_upgrade():
            raise _StopError
        if self._parser.get_http_version() not in _VERSIONS:
            raise _StopError  # http-parser, unlike llhttp, lets any number pass
        method = self._parser.get_method()
        body = b"".join(self._body)
        self._body = []
        local = self._listener.local
        request = Request(method, self._target, self._headers, self._trusted, body, local)
        self._last = not self._parser.should_keep_alive()
        # What stays unread of an answer would be taken for the next one.
        self._head = method == b"HEAD"
        self._busy = True
        self.deadline = self._now() + self._config.answer_timeout_seconds
        self._listener.service.answer(request, self._reply)
        if self._closing:
            raise _StopError

    # Steps

    def close_if_idle(self) -> None:
        """Close at once if no request is under way, a new one or one that waits."""
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

    def _reply(self, answer: Answer) -> bool:
        """Take the answer to the request under way, now or later; False: nobody waits for it."""
        if not self._busy or self._closing:
            return False
        self._busy = False
        self._make_room()
        self._idle = True
        self.deadline = self._now() + self._config.idle_timeout_seconds
        self._closing = self._last or answer.close or self._listener.draining
        end = b"Connection: close\r\n\r\n" if self._closing else b"\r\n"
        self._out += (answer.head, end, b"" if self._head else answer.body)
        if not self._feeding:
            self._write_out()
        return True

    def _write_out(self) -> None:
        if self._out:
            self._transport.write(b"".join(self._out))
            self._out.clear()
        if self._closing:
            self._transport.close()

    def _expect_body(self, length: bytes) -> None:
        """Make room for a body, or refuse it before it comes."""
        number = int(length) if _LENGTH.fullmatch(length) else -1
        if number == 0:
            return
        listener = self._listener
        wanted = listener.local and listener.service.takes_body(self._target)
        if not wanted or self._body_length or not 0 < number <= self._config.max_body_bytes:
            raise _StopError
        if listener.buffered + number > listener.max_buffered:
            raise _FullError
        listener.buffered += number
        self._body_length = number

    def _make_room(self) -> None:
        """The body is judged: another one may take its place in memory."""
        self._listener.buffered -= self._body_length
        self._body_length = 0
        self._body = []

    def _request_id(self) -> str:
        """Return the id of a request that was not read to its end; nginx sends it first of all."""
        lines = (value for name, value in self._lines if name == b"X-Gateway-Request")
        return request_id_of(next(lines, b""))

    def _stop_unreadable(self, cause: BaseException | None = None) -> None:
        # Also reached when the last answer stopped the parser: then everything is said already.
        if self._closing:
            return
        if cause is not None and not isinstance(cause, _StopError):
            # Not the request's fault but ours. The answer is a refusal all the same.
            self._listener.service.note_failure(type(cause).__name__)
        elif self._busy:
            self.abort()
            return
        service = self._listener.service
        refuse = service.refuse_full if isinstance(cause, _FullError) else service.refuse_unreadable
        answer = refuse(self._request_id())
        self._out += (answer.head, b"Connection: close\r\n\r\n", answer.body)
        self._closing = True
