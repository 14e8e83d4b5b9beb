# SPDX-License-Identifier: GPL-3.0-or-later
"""What the service answers: routes, statuses and headers, without a socket in sight.

The seam for more (issue 4: /authorize) is ``Service.routes``. Answers here are made at once;
one that has to wait needs the edge to hold back later answers of the same connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple
from typing import Protocol as Interface

from .decision import Decision, Reason, RequestHeaders, decide
from .journal import Journal, Level, RefusalLog
from .metrics import Metrics
from .registry import Registry

_STATUS_LINES = {
    200: b"HTTP/1.1 200 OK\r\n",
    204: b"HTTP/1.1 204 No Content\r\n",
    401: b"HTTP/1.1 401 Unauthorized\r\n",
    403: b"HTTP/1.1 403 Forbidden\r\n",
    404: b"HTTP/1.1 404 Not Found\r\n",
    405: b"HTTP/1.1 405 Method Not Allowed\r\nAllow: GET\r\n",
    503: b"HTTP/1.1 503 Service Unavailable\r\n",
}


class Answer(NamedTuple):
    """Status line and headers (no blank line yet), body, and whether the connection ends."""

    head: bytes
    body: bytes = b""
    close: bool = False


class RegistrySource(Interface):
    """Where the registry in use is found, and whether it is the file's present content."""

    registry: Registry | None
    current: bool


class Request(NamedTuple):
    """One complete request. ``trusted`` asks, at first use, whose process sent it."""

    method: bytes
    target: bytes
    headers: RequestHeaders
    trusted: Callable[[], bool]


# Content-Length even with 204: nginx must never have to guess where an answer ends.
_REFUSALS = {
    reason: Answer(
        _STATUS_LINES[reason.status]
        + f"X-Auth-Reason: {reason.word}\r\nContent-Length: 0\r\n".encode()
    )
    for reason in Reason
    if reason is not Reason.OK
}
_ALLOWED = _STATUS_LINES[204] + b"Content-Length: 0\r\nX-Key-Id: "


class Service:
    """Answers requests; shared by all connections."""

    def __init__(
        self,
        source: RegistrySource,
        *,
        metrics: Metrics,
        refusals: RefusalLog,
        journal: Journal,
        clock: Callable[[], float],
    ) -> None:
        self.metrics = metrics
        self._source = source
        self._refusals = refusals
        self._journal = journal
        self._clock = clock
        self.routes: dict[bytes, Callable[[Request], Answer]] = {
            b"/validate": self._validate,
            b"/healthz": self._healthz,
            b"/metrics": self._render_metrics,
        }

    def answer(self, request: Request) -> Answer:
        """Return the answer to one complete request."""
        handler = self.routes.get(request.target)
        if handler is None:
            return _empty(404)
        if request.method != b"GET" and request.target != b"/validate":
            return _empty(405)
        return handler(request)

    def refuse_unreadable(self) -> Answer:
        """Answer what broke a limit or HTTP itself, wherever it was meant for."""
        self.metrics.requests_unreadable += 1
        return self._decided(Decision(Reason.CONTEXT))._replace(close=True)

    def note_failure(self, kind: str) -> None:
        """Log a defect of this service by its exception's type; messages may hold input."""
        self._journal.say(Level.ERROR, "internal_error", kind=kind)

    def _validate(self, request: Request) -> Answer:
        # First of all: a caller that may not ask learns nothing, whatever else it sent.
        if not request.trusted():
            return self._decided(Decision(Reason.PEER))._replace(close=True)
        if request.method != b"GET":
            return self._decided(Decision(Reason.CONTEXT))._replace(close=True)
        return self._decided(decide(request.headers, self._source.registry, self._clock()))

    def _decided(self, decision: Decision) -> Answer:
        self.metrics.decisions[decision.reason] += 1
        record = decision.record
        if decision.allowed and record is not None:
            return Answer(_ALLOWED + record.id.encode() + b"\r\n")
        self._refusals.refused(decision.reason.word, record.id if record is not None else None)
        return _REFUSALS[decision.reason]

    def _healthz(self, request: Request) -> Answer:
        registry = self._source.registry
        state = "ok" if self._source.current else "stale"
        body = {
            "status": "ok" if registry is not None else "unavailable",
            "keys": len(registry) if registry is not None else 0,
            "registry": state if registry is not None else "none",
        }
        status = 200 if registry is not None else 503
        answer = _with_body(status, b"application/json", json.dumps(body).encode() + b"\n")
        # Anybody on the host may ask, so it is one answer a connection, and nobody looks up whose.
        return answer._replace(close=True)

    def _render_metrics(self, request: Request) -> Answer:
        if not request.trusted():
            return _REFUSALS[Reason.PEER]._replace(close=True)
        text = self.metrics.render().encode()
        return _with_body(200, b"text/plain; version=0.0.4; charset=utf-8", text)


def _empty(status: int) -> Answer:
    return Answer(_STATUS_LINES[status] + b"Content-Length: 0\r\n", close=True)


def _with_body(status: int, content_type: bytes, body: bytes) -> Answer:
    head = b"Content-Type: %b\r\nContent-Length: %d\r\n" % (content_type, len(body))
    return Answer(_STATUS_LINES[status] + head, body)
