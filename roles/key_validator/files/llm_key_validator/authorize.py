# SPDX-License-Identifier: GPL-3.0-or-later
"""The policy hop: may this key do this, with this body? And its record, before anything happens.

The order: who and where, how often, what. Who is judged here whatever /validate has said: nginx
asks it only to keep a stranger's large body from being read, and this is the word that counts.
Every request of a key that is good counts against its quotas, whatever its body turns out to be.
The last step before a request goes on to the LLM server is its record; without one it is refused.
"""

from __future__ import annotations

import asyncio
import typing as t
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from . import answers
from .answers import Answer
from .audit.log import RefusalLimiter
from .audit.records import PromptDigest, PromptDigester, refusal_fields, request_fields
from .bodies import BodyError, Reading, read_body
from .bodies.names import canonical_name
from .config import LlmServer
from .decision import (
    Context,
    Decision,
    Reason,
    RefusalError,
    RequestHeaders,
    identify,
    messages,
    only,
    parse_context,
)
from .in_flight import Admitted, InFlight
from .journal import Journal, Level, RefusalLog
from .keys import KeyRecord
from .metrics import Metrics
from .model_list import UpstreamError, fetch, only_allowed
from .policy import Refusal, judge_model, judge_reading, judge_size, matcher
from .quotas import Admission, Quotas, QuotaStoreError
from .routes import Route, RouteTable
from .service import RegistrySource, Reply, Request
from .tiers import Tier


class Recorder(t.Protocol):
    """The audit log, as far as requests go."""

    @property
    def writable(self) -> bool:
        """Whether a record has a chance now."""

    @property
    def refusals(self) -> RefusalLimiter:
        """How many refusals of strangers are recorded."""

    @property
    def key_refusals(self) -> RefusalLimiter:
        """How many refusals of known keys are: no stranger can use these up."""

    def append(self, fields: bytes, done: Callable[[bool], None] | None = None) -> None:
        """Add a record; ``done`` learns whether it was written."""


class Unrecorded:
    """What stands in the audit log's place when it is switched off."""

    writable = True

    def __init__(self) -> None:
        self.refusals = self.key_refusals = RefusalLimiter(0)

    def append(self, fields: bytes, done: Callable[[bool], None] | None = None) -> None:
        """Write nothing."""
        if done is not None:
            done(True)


@dataclass(frozen=True, slots=True)
class Rules:
    """What the settings say about requests."""

    llm_server: LlmServer
    routes: RouteTable
    tiers: Mapping[str, Tier]
    default_tier: str
    auth: str = "api_key"


@dataclass(slots=True)
class _Call:
    """One request on its way through the judgement."""

    context: Context
    record: KeyRecord
    route: Route
    tier: Tier
    reply: Reply
    headers: RequestHeaders
    # Empty once it is read and recorded; its size stays
    body: bytes
    body_bytes: int
    reading: Reading | None = None
    # Its canonical name; None: the request names none
    model: str | None = None
    quota: bytes = b""


_QUOTAS = {
    "rate": "Too many requests: the key's tier allows fewer a minute.",
    "day": "Too many requests: the key's tier allows no more today.",
    "parallel": "Too many requests at a time for the key's tier.",
}
_UNRECORDED = Refusal(
    "audit", 503, "The gateway cannot record this request now.", (("Retry-After", "5"),)
)
_UNCOUNTED = Refusal(
    "counters", 503, "The gateway cannot count this request now.", (("Retry-After", "5"),)
)
_NO_ROUTE = Refusal("route", 404, "No such endpoint here.")
_ENCODED = Refusal("body", 400, "The request may have no Content-Encoding: send the body as it is.")
_NO_SERVER = Refusal("model_unknown", 404, "No LLM server of this gateway has this model.")
_NO_TIER = Refusal("tier", 403, "The API key's tier does not exist on this gateway.")
_LIST_ANSWER = b"application/json; charset=utf-8"


class Authorizer:
    """Judges requests with their bodies; shared by all connections."""

    def __init__(
        self,
        source: RegistrySource,
        rules: Rules,
        *,
        quotas: Quotas,
        audit: Recorder,
        digester: PromptDigester,
        in_flight: InFlight,
        metrics: Metrics,
        refusals: RefusalLog,
        journal: Journal,
        clock: Callable[[], float],
        catch_up: Callable[[], None],
    ) -> None:
        self._source = source
        self._rules = rules
        self._quotas = quotas
        self._audit = audit
        self._digester = digester
        self._in_flight = in_flight
        self._metrics = metrics
        self._refusals = refusals
        self._journal = journal
        self._clock = clock
        self._catch_up = catch_up
        self._messages = messages(rules.auth)
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def recording(self) -> bool:
        """Whether the audit log takes records."""
        return self._audit.writable

    def authorize(self, request: Request, reply: Reply) -> None:
        """Judge a request with its body, and reply now or later."""
        try:
            context = parse_context(request.headers)
            if request.method.decode() != context.method:
                raise RefusalError(Reason.CONTEXT)
        except RefusalError as error:
            # No record: nothing is known of it that a record could hold.
            reason = error.reason
            self._count(reason.word, None)
            reply(_refusal_answer(Refusal(reason.word, 403, self._messages[reason]), "", None))
            return
        now = self._clock()
        registry, auth = self._source.registry, self._rules.auth
        reason, record = identify(request.headers, context, registry, now, auth)
        if reason is not Reason.OK or record is None:
            refusal = Refusal(reason.word, reason.status, self._messages[reason])
            self._refuse_unjudged(context, refusal, record, reply)
            return
        call = self._call(request, context, record, reply)
        if call is None:
            return
        admission = self._quotas.admit(record.id, call.tier, context.request_id, now)
        if isinstance(admission, Admission) and admission.reason == "parallel":
            # The request before it may be over, and its report still unread.
            self._catch_up()
            admission = self._quotas.admit(record.id, call.tier, context.request_id, now)
        if isinstance(admission, Admission):
            self._judge(call, admission)
        else:
            self._start(self._judge_later(call, admission))

    def refused(self, decision: Decision, headers: RequestHeaders) -> None:
        """Record what was refused before its body was read."""
        try:
            context = parse_context(headers)
        except RefusalError:
            # nginx's own report will say what there is to say.
            return
        reason = decision.reason
        self._record_refusal(context, decision.record, reason.word, reason.status)

    def _call(
        self, request: Request, context: Context, record: KeyRecord, reply: Reply
    ) -> _Call | None:
        """Return what is asked for; None when it was refused."""
        refusal = _NO_ROUTE
        route = self._rules.routes.find(context.method, context.path)
        if route is not None and route.endpoint_class == context.endpoint_class:
            tier = self._rules.tiers.get(record.tier or self._rules.default_tier)
            if tier is not None:
                body, headers = request.body, request.headers
                return _Call(context, record, route, tier, reply, headers, body, len(body))
            refusal = _NO_TIER
        self._refuse_unjudged(context, refusal, record, reply)
        return None

    async def _judge_later(self, call: _Call, waiting: Awaitable[Admission]) -> None:
        try:
            admission = await waiting
        except QuotaStoreError:
            self._refuse(call, _UNCOUNTED)
        else:
            self._judge(call, admission)

    def _judge(self, call: _Call, admission: Admission) -> None:
        call.quota = _quota_headers(admission)
        if not admission.allowed:
            self._refuse(call, _quota_refusal(admission))
            return
        refusal = judge_size(call.tier, call.body_bytes) or self._read(call)
        if refusal is None and not self._audit.writable:
            refusal = _UNRECORDED
        if refusal is not None:
            self._release(call)
            self._refuse(call, refusal)
            return
        if self._in_flight.was_given_up(call.context.request_id):
            # Its client went away, which is on record: nobody is left to tell.
            self._release(call)
            call.reply(answers.empty(503, close=True))
            return
        self._record(call)

    def _read(self, call: _Call) -> Refusal | None:
        """Read the body and judge what it asks for."""
        if _is_encoded(call.headers.content_encoding):
            return _ENCODED
        try:
            content_type = only(call.headers.content_type or (b"",))
            reading = read_body(
                call.route.body, content_type, call.body,
                only_standard=self._rules.llm_server.only_standard,
            )  # fmt: skip
        except RefusalError:
            return Refusal("body", 400, "The request has more than one Content-Type.")
        except BodyError as error:
            return Refusal("body", 400, str(error))
        call.reading = reading
        call.model = reading.models[0] if reading.models else None
        if call.route.models == "path":
            name = call.context.path.rpartition("/")[2]
            refusal = judge_model(call.record.models, name)
            if refusal is not None:
                return refusal
            call.model = _canonical(name)
        return judge_reading(call.record.models, call.tier, reading) or self._unserved(call.model)

    def _unserved(self, model: str | None) -> Refusal | None:
        """Refuse a model that none of several servers has; a key learns only of its own ones."""
        served = self._rules.llm_server.models
        return _NO_SERVER if served and model is not None and model not in served else None

    def _record(self, call: _Call) -> None:
        """Write the request's record; let the request go on only when it is written."""
        reading = call.reading
        assert reading is not None  # noqa: S101 - _judge comes here only after _read
        model = reading.models[0] if reading.models else None
        request_id = call.context.request_id
        self._in_flight.admit(request_id, Admitted(call.record.id, model, self._clock()))

        def recorded(written: bool) -> None:
            if written:
                self._go_on(call)
                return
            self._in_flight.end(request_id)
            self._release(call)
            self._refuse(call, _UNRECORDED)

        fields = request_fields(
            **_identity(call.context, call.record), **self._body(call, reading, model)
        )
        # It may wait for its record: not with a body and a prompt of megabytes in memory.
        call.body, call.reading = b"", None
        self._audit.append(fields, recorded)

    def _body(self, call: _Call, reading: Reading, model: str | None) -> dict[str, t.Any]:
        """Return what a record says of a body that was read."""
        prompt = reading.prompt
        return {
            "body_bytes": call.body_bytes,
            "provider": self._rules.llm_server.provider,
            "operation": reading.operation,
            "model": model,
            "prompt": prompt
            and PromptDigest(
                self._digester.digest(prompt.text),
                self._digester.algorithm,
                prompt.form,
                prompt.length,
            ),
        }

    def _go_on(self, call: _Call) -> None:
        self._metrics.authorizations["ok"] += 1
        if call.route.models == "list" and call.record.models:
            self._start(self._list_models(call))
            return
        headers = b"X-Accel-Redirect: @backend\r\nX-Key-Id: %b\r\n%b%b"
        model = b""
        if self._rules.llm_server.names_models:
            # Said always: without it nginx could not tell that it was forgotten.
            model = b"X-Llm-Model: %b\r\n" % (call.model or "-").encode()
        answer = answers.empty(200, headers % (call.record.id.encode(), call.quota, model))
        if call.reply(answer) is False:
            self._in_flight.end(call.context.request_id)
            self._release(call)

    async def _list_models(self, call: _Call) -> None:
        """Answer with the models that the key may use."""
        server = self._rules.llm_server
        # For nginx's access log, and no further
        headers = b"X-Key-Id: %b\r\n%b" % (call.record.id.encode(), call.quota)
        try:
            text = await fetch(server, call.context.path)
            models = only_allowed(text, matcher(call.record.models))
        except UpstreamError:
            message = "The LLM server does not answer."
            call.reply(answers.refusal(502, message, call.context.request_id, headers))
            return
        call.reply(answers.with_body(200, _LIST_ANSWER, models, headers))

    def _refuse(self, call: _Call, refusal: Refusal) -> None:
        """Refuse a request of a known key."""
        self._count(refusal.reason, call.record.id)
        body: dict[str, t.Any] = {"body_bytes": call.body_bytes}
        if call.reading is not None:
            models = call.reading.models
            body = self._body(call, call.reading, models[0] if models else None)
        self._record_refusal(call.context, call.record, refusal.reason, refusal.status, body)
        call.reply(_refusal_answer(refusal, call.context.request_id, call.record, call.quota))

    def _refuse_unjudged(
        self, context: Context, refusal: Refusal, record: KeyRecord | None, reply: Reply
    ) -> None:
        """Refuse a request that is nobody's, or not for here, before anything is counted."""
        self._count(refusal.reason, record.id if record is not None else None)
        self._record_refusal(context, record, refusal.reason, refusal.status)
        reply(_refusal_answer(refusal, context.request_id, record))

    def _count(self, reason: str, key_id: str | None) -> None:
        self._metrics.authorizations[reason] += 1
        self._refusals.refused(reason, key_id)

    def _record_refusal(
        self,
        context: Context,
        record: KeyRecord | None,
        reason: str,
        status: int,
        body: Mapping[str, t.Any] = MappingProxyType({}),
    ) -> None:
        self._in_flight.refuse(context.request_id)
        limiter = self._audit.refusals if record is None else self._audit.key_refusals
        if not limiter.admit(reason):
            return
        fields = refusal_fields(reason=reason, status=status, **_identity(context, record), **body)
        self._audit.append(fields)

    def _release(self, call: _Call) -> None:
        self._quotas.release(call.record.id, call.context.request_id)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        # Its connection waits until its time is over, and nginx refuses the request then.
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            kind = type(task.exception()).__name__
            self._journal.say(Level.ERROR, "internal_error", kind=kind)


def _canonical(name: str) -> str | None:
    try:
        return canonical_name(name)
    except BodyError:
        return None  # whoever may use any model may write any name


def _is_encoded(values: Sequence[bytes]) -> bool:
    """Tell whether the client says that its body is to be unpacked before it is read.

    Some LLM servers would; what is read here is the body as it came.
    """
    return any(value.strip(b" \t").lower() not in (b"", b"identity") for value in values)


def _identity(context: Context, record: KeyRecord | None) -> dict[str, t.Any]:
    """Return what a record says of who asks for what."""
    return {
        "request_id": context.request_id,
        "client_ip": context.client_ip,
        "key_id": record.id if record is not None else None,
        "key_sha256": record.digest.hex() if record is not None and record.digest else None,
        "certificate": context.certificate,
        "subject": context.subject,
        "method": context.method,
        "path": context.path,
    }


def _refusal_answer(
    refusal: Refusal, request_id: str, record: KeyRecord | None, quota: bytes = b""
) -> Answer:
    """Return the answer that says no; nginx keeps the reason and the key's id to itself."""
    named = [*refusal.headers, ("X-Auth-Reason", refusal.reason)]
    if record is not None:
        named.append(("X-Key-Id", record.id))
    if refusal.status == 401:
        named.append(("WWW-Authenticate", 'Bearer realm="llm-gateway"'))
    headers = "".join(f"{name}: {value}\r\n" for name, value in named).encode()
    return answers.refusal(refusal.status, refusal.message, request_id, quota + headers)


def _quota_refusal(admission: Admission) -> Refusal:
    wait = (("Retry-After", str(admission.retry_after)),)
    return Refusal(admission.reason, 429, _QUOTAS[admission.reason], wait)


def _quota_headers(admission: Admission) -> bytes:
    if admission.limit is None:
        return b""
    return b"RateLimit-Limit: %d\r\nRateLimit-Remaining: %d\r\nRateLimit-Reset: %d\r\n" % (
        admission.limit,
        admission.remaining or 0,
        admission.reset or 0,
    )
