# SPDX-License-Identifier: GPL-3.0-or-later
"""What the service answers: routes, statuses and headers, without a socket in sight."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import NamedTuple
from typing import Protocol as Interface

from .answers import Answer, empty, refusal, with_body
from .decision import MESSAGES, Decision, Reason, RequestHeaders, decide
from .journal import Journal, Level, RefusalLog
from .metrics import Metrics
from .registry import Registry


class RegistrySource(Interface):
    """Where the registry in use is found, and whether it is the file's present content."""

    registry: Registry | None
    current: bool


class Request(NamedTuple):
    """One complete request. ``trusted`` asks, at first use, whose process sent it.

    ``local``: it came over the unix socket.
    """

    method: bytes
    target: bytes
    headers: RequestHeaders
    trusted: Callable[[], bool]
    body: bytes = b""
    local: bool = False


# Takes the answer; False: nobody waits for it any more
Reply = Callable[[Answer], bool]


class Authorizes(Interface):
    """The policy hop, as the routes see it."""

    # Whether the audit log takes records; nothing is let through without
    recording: bool

    def authorize(self, request: Request, reply: Reply) -> None:
        """Judge a request with its body, and reply now or later."""

    def refused(self, decision: Decision, headers: RequestHeaders) -> None:
        """Record what was refused before its body was read."""


# Content-Length even with 204: nginx must never have to guess where an answer ends.
_REFUSALS = {
    reason: empty(reason.status, f"X-Auth-Reason: {reason.word}\r\n".encode())
    for reason in Reason
    if reason is not Reason.OK
}
_ALLOWED = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nX-Key-Id: "
_AUTHORIZE = b"/authorize"


class Service:
    """Answers requests; shared by all connections."""

    def __init__(
        self,
        source: RegistrySource,
        *,
        authorizer: Authorizes,
        metrics: Metrics,
        refusals: RefusalLog,
        journal: Journal,
        clock: Callable[[], float],
        auth: str = "api_key",
    ) -> None:
        self.metrics = metrics
        self._source = source
        self._authorizer = authorizer
        self._refusals = refusals
        self._journal = journal
        self._clock = clock
        self._auth = auth
        self.routes: dict[bytes, Callable[[Request], Answer]] = {
            b"/validate": self._validate,
            b"/healthz": self._healthz,
            b"/metrics": self._render_metrics,
        }

    def takes_body(self, target: bytes) -> bool:
        """Tell whether a request for ``target`` may bring a body."""
        return target == _AUTHORIZE

    def answer(self, request: Request, reply: Reply) -> None:
        """Call ``reply`` with the answer to one complete request, before returning or later."""
        if request.target == _AUTHORIZE:
            self._authorize(request, reply)
            return
        handler = self.routes.get(request.target)
        if handler is None:
            reply(empty(404, close=True))
        elif request.method != b"GET" and request.target != b"/validate":
            reply(empty(405, b"Allow: GET\r\n", close=True))
        else:
            reply(handler(request))

    def refuse_full(self, request_id: str) -> Answer:
        """Answer whose body has no room now."""
        self.metrics.authorizations["busy"] += 1
        message = "The gateway has too much to read now."
        headers = b"Retry-After: 1\r\n"
        return refusal(503, message, request_id, headers)._replace(close=True)

    def refuse_unreadable(self, request_id: str) -> Answer:
        """Answer what broke a limit or HTTP itself, wherever it was meant for.

        A client of the policy hop reads this; of the first question nginx takes the status.
        """
        self.metrics.requests_unreadable += 1
        self._decided(Decision(Reason.CONTEXT))
        reason = f"X-Auth-Reason: {Reason.CONTEXT.word}\r\n".encode()
        message = MESSAGES[Reason.CONTEXT]
        return refusal(Reason.CONTEXT.status, message, request_id, reason)._replace(close=True)

    def note_failure(self, kind: str) -> None:
        """Log a defect of this service by its exception's type; messages may hold input."""
        self._journal.say(Level.ERROR, "internal_error", kind=kind)

    def _authorize(self, request: Request, reply: Reply) -> None:
        # Over TCP not even root: there is no key in such a request to prove anything with.
        if request.local:
            self._authorizer.authorize(request, reply)
        else:
            reply(self._decided(Decision(Reason.PEER))._replace(close=True))

    def _validate(self, request: Request) -> Answer:
        # First of all: a caller that may not ask learns nothing, whatever else it sent.
        headers = request.headers
        if not request.trusted():
            return self._decided(Decision(Reason.PEER))._replace(close=True)
        if request.method != b"GET":
            return self._decided(Decision(Reason.CONTEXT))._replace(close=True)
        decision = decide(headers, self._source.registry, self._clock(), self._auth)
        if not decision.allowed and request.local:
            self._authorizer.refused(decision, headers)
        return self._decided(decision)

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
        recording = self._authorizer.recording
        healthy = registry is not None and recording
        body = {
            "status": "ok" if healthy else "unavailable",
            "keys": len(registry) if registry is not None else 0,
            "registry": state if registry is not None else "none",
            "audit": "ok" if recording else "failing",
        }
        text = json.dumps(body).encode() + b"\n"
        answer = with_body(200 if healthy else 503, b"application/json", text)
        # Anybody on the host may ask, so it is one answer a connection, and nobody looks up whose.
        return answer._replace(close=True)

    def _render_metrics(self, request: Request) -> Answer:
        if not request.trusted():
            return _REFUSALS[Reason.PEER]._replace(close=True)
        text = self.metrics.render().encode()
        return with_body(200, b"text/plain; version=0.0.4; charset=utf-8", text)
