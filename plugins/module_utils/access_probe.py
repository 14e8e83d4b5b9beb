# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a gateway what somebody without a good key would ask: many requests, few at a time.

The network's side of `access_checks`. Everything is bounded: requests at a time, seconds for each,
seconds for all of them. What there was no time for is not asked, and nobody takes that for a pass.
"""

from __future__ import annotations

import ipaddress
import json
import os
import pwd
import socket
import stat
import time
import typing as t
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from itertools import chain

from ansible_collections.llmsec.hardening.plugins.module_utils import http_probe
from ansible_collections.llmsec.hardening.plugins.module_utils.access_checks import (
    REFUSED,
    Asked,
    Direct,
    Finding,
    Local,
    case_findings,
    gateway_finding,
    is_limited,
    key_finding,
    question_findings,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.access_corpus import (
    BASELINE,
    BYPASSES,
    CREDENTIALS,
    Case,
    Places,
    Question,
    few_cases,
    few_questions,
    fill,
    host_cases,
    questions,
    refused_key_case,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import generate_key
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import (
    Answer,
    Endpoint,
    NoConnectionError,
    Sources,
    Wire,
    no_answer,
    request_line,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import Route, Server
from ansible_collections.llmsec.hardening.plugins.module_utils.sockets import (
    ProcReader,
    SocketTableError,
)

__all__ = (
    "Plan", "Prober", "ask_directly", "gateway_findings", "is_loopback", "plan", "try_as_users",
)  # fmt: skip

# Two cores do the work, and the gateway allows an address so many connections.
_AT_A_TIME = 6
# A second answer on a connection comes at once, or not at all.
_SETTLE = 0.15
# Nobody needs longer to refuse what he will not wait for.
_WAITS = 1.5
_MOST_ANSWERS = 4
_TRIES = 4

In = t.TypeVar("In")
Out = t.TypeVar("Out")


@dataclass
class Prober:
    """Asks one gateway. `until` is the time (of `clock`) after which nothing more is asked."""

    endpoint: Endpoint
    sources: Sources
    until: float
    spots: Places
    keyed: Endpoint | None = None  # over which the good key may be sent
    key: str = ""
    hidden: tuple[str, ...] = ()  # what evidence must not show
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    at_a_time: int = _AT_A_TIME
    _plain: Endpoint = field(init=False)

    def __post_init__(self) -> None:
        self._plain = Endpoint(
            address=self.endpoint.address, port=self.endpoint.port, timeout=self.endpoint.timeout
        )

    def each(self, ask: Callable[[In], Out], items: Iterable[In]) -> list[Out]:
        """Ask about all items, some at a time, and return the answers in their order."""
        with ThreadPoolExecutor(self.at_a_time) as pool:
            return [*pool.map(ask, items)]

    def with_key(self) -> Asked:
        """Ask for what is read without harm, with the key."""
        question = Question(group="key", method="GET", path=self.spots.read, credential="key")
        ((_question, asked),) = self.path([question])
        return asked

    def case(self, case: Case) -> list[Asked]:
        """Ask what a case asks, each request on a connection of its own."""
        return [self._asked(case, template) for template in case.requests]

    def path(self, asked: Sequence[Question]) -> list[tuple[Question, Asked]]:
        """Ask about one path, on one connection for as long as it is kept.

        What is not safe to ask is asked last, and only of somebody who refused all the rest.
        """
        found: list[tuple[Question, Asked]] = []
        with ExitStack() as stack:
            line = _Line(self, stack)
            for question in asked:
                if question.unsafe and any(one.kind != REFUSED for _question, one in found):
                    continue
                found.append((question, self._question(question, line)))
        return found

    def _question(self, question: Question, line: _Line) -> Asked:
        good = question.credential == "key"
        key = self.key if good else generate_key() if question.credential else ""
        raw = question.raw(self.spots.host, key)
        within = min(_WAITS, self.endpoint.timeout) if question.unsafe else self.endpoint.timeout
        endpoint = self.keyed if good and self.keyed is not None else self.endpoint
        answer = self._patiently(
            lambda: line.ask(endpoint, raw, question.method, within), line.drop
        )
        if question.unsafe:
            line.drop()
        return Asked(request_line(raw, self.hidden), question.method, (answer,))

    def _asked(self, case: Case, template: bytes) -> Asked:
        raw = fill(template, self.spots, generate_key)
        method = raw.partition(b" ")[0].decode("ascii", "replace")
        answers: list[Answer] = []

        def ask() -> Answer:
            sent = fill(template, self.spots, generate_key, again=bool(answers))
            answers[:] = self._all_answers(case, sent, method)
            return next((one for one in answers if is_limited(one)), answers[0])

        final = self._patiently(ask, lambda: None)
        return Asked(request_line(raw, self.hidden), method, tuple(answers) or (final,))

    def _patiently(self, ask: Callable[[], Answer], again: Callable[[], None]) -> Answer:
        """Ask again when there were too many, from another address where that is possible."""
        answer = no_answer(http_probe.LATE)
        for _unused in range(_TRIES):
            if self.clock() >= self.until:
                return answer
            answer = ask()
            if not is_limited(answer):
                return answer
            again()
            if not self.sources.many and not self._wait(answer):
                return answer
        return answer

    def _wait(self, answer: Answer) -> bool:
        """Wait as long as the gateway says, if there is so much time."""
        after = answer.headers.get("retry-after", "")
        seconds = float(after) if after.isdecimal() else 1.0
        if self.clock() + seconds >= self.until:
            return False
        self.sleep(seconds)
        return True

    def _all_answers(self, case: Case, raw: bytes, method: str) -> list[Answer]:
        """Return every answer on a connection of its own: a hidden request has one, too."""
        endpoint = self.endpoint if case.tls else self._plain
        within = min(_WAITS, endpoint.timeout) if case.waits else endpoint.timeout
        try:
            with endpoint.dial(self.sources.take(), case.server_name) as wire:
                wire.send(raw)
                answers = [wire.answer(method, within)]
                while wire.open and not case.waits and len(answers) < _MOST_ANSWERS:
                    answers.append(wire.answer("GET", _SETTLE))
        except NoConnectionError as exc:
            return [no_answer(exc.why)]
        # Silence or the end after an answer is no answer of its own.
        return answers[:1] + [one for one in answers[1:] if one.status or one.body]


class _Line:
    """A connection that is kept, and made anew when it was closed."""

    def __init__(self, prober: Prober, stack: ExitStack) -> None:
        self._prober = prober
        self._stack = stack
        self._wire: Wire | None = None
        self._endpoint: Endpoint | None = None

    def ask(self, endpoint: Endpoint, raw: bytes, method: str, within: float) -> Answer:
        """Return the answer; a connection that was closed meanwhile is made again once."""
        kept = self._wire is not None and self._wire.open and self._endpoint is endpoint
        answer = self._once(endpoint, raw, method, within)
        if kept and answer.why == http_probe.CLOSED:
            answer = self._once(endpoint, raw, method, within)
        return answer

    def drop(self) -> None:
        """Forget the connection, and with it the address that it came from."""
        if self._wire is not None:
            self._wire.close()
        self._wire = None

    def _once(self, endpoint: Endpoint, raw: bytes, method: str, within: float) -> Answer:
        try:
            if self._wire is None or not self._wire.open or self._endpoint is not endpoint:
                self.drop()
                self._wire = endpoint.dial(self._prober.sources.take())
                self._endpoint = endpoint
                self._stack.callback(self._wire.close)
        except NoConnectionError as exc:
            return no_answer(exc.why)
        self._wire.send(raw)
        return self._wire.answer(method, within)


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to ask: paths of the catalogue, cases by their area, and whether there is a key."""

    paths: list[list[Question]]
    credentials: list[Case]
    bypasses: list[Case]
    with_key: bool


def plan(
    server: Server, routed: Callable[[str, Route], bool], spots: Places, *, names: Iterable[str],
    refused_keys: Sequence[str], with_key: bool, quick: bool, tls: bool,
) -> Plan:  # fmt: skip
    """Return what to ask of a gateway in front of `server`."""
    paths = questions(server, routed, with_key and not quick)
    bypasses = [*BYPASSES, *host_cases(spots.host, names)]
    if not tls:
        bypasses = [case for case in bypasses if case.tls and case.server_name is None]
    if quick:
        few = [*few_questions(paths)], [], [*few_cases(bypasses)]
        return Plan(paths=few[0], credentials=few[1], bypasses=few[2], with_key=False)
    credentials = [*CREDENTIALS, *([refused_key_case(refused_keys)] if refused_keys else [])]
    return Plan(
        paths=[*paths], credentials=credentials, bypasses=bypasses, with_key=with_key
    )  # fmt: skip


def gateway_findings(prober: Prober, asked_for: Plan) -> Iterator[Finding]:
    """Yield the findings of a plan; one alone when the gateway does not answer."""
    (first,) = prober.case(BASELINE)
    answers = gateway_finding(first)
    yield answers
    if answers["result"] != "pass":
        return
    paths = asked_for.paths
    if asked_for.with_key:
        known = key_finding(prober.with_key())
        yield known
        if known["result"] != "pass":
            paths = [[one for one in path if one.credential != "key"] for path in paths]
    cases = [*asked_for.credentials, *asked_for.bypasses]
    tasks: list[Callable[[], t.Any]] = [partial(prober.path, path) for path in paths]
    tasks += [partial(prober.case, case) for case in cases]
    found = prober.each(lambda task: task(), tasks)
    yield from question_findings(chain.from_iterable(found[: len(paths)]))
    tried = [*zip(cases, found[len(paths) :], strict=True)]
    yield from case_findings(tried[: len(asked_for.credentials)], "credentials")
    yield from case_findings(tried[len(asked_for.credentials) :], "bypass")


def ask_directly(endpoint: Endpoint) -> Direct:
    """Ask an address that nobody shall reach, as a browser would."""
    address, port = endpoint.address, endpoint.port
    shown = f"[{address}]" if ":" in address else address
    raw = f"GET / HTTP/1.1\r\nHost: {shown}:{port}\r\nConnection: close\r\n\r\n".encode()
    try:
        with endpoint.dial() as wire:
            wire.send(raw)
            answer = wire.answer("GET", endpoint.timeout)
    except NoConnectionError as exc:
        # Somebody who listens and fails the handshake was reached all the same.
        why = "" if exc.why == http_probe.NO_TLS else exc.why
        return Direct(address=address, port=port, answer=no_answer(exc.why), why=why)
    return Direct(address=address, port=port, answer=answer)


# A port on loopback, or the path of a unix socket
Spot = tuple[str, int]


def try_as_users(
    users: Sequence[str], spots: Sequence[Spot], paths: Sequence[str], timeout: float, guarded: bool
) -> Iterator[Local]:
    """Yield what becomes of each user at each (address, port) and unix socket. Needs root."""
    listening = _listening()
    for user in users:
        outcomes = _outcomes(user, [*spots] if guarded else [], paths, timeout)
        for address, port in spots:
            what = f"{address} port {port}"
            outcome = outcomes.get(what, "skipped: loopback is not guarded (loopback_guarded)")
            if outcome == "refused" and (listening is None or port not in listening):
                outcome = "refused, but nobody listens there"
            yield Local(user=user, place=str(port), what=what, outcome=outcome)
        for path in paths:
            name = os.path.basename(path)
            yield Local(user=user, place=name, what=path, outcome=outcomes[path])


def _listening() -> set[int] | None:
    try:
        return {one.port for one in ProcReader().sockets(["tcp"])}
    except (OSError, SocketTableError):
        return None


def _outcomes(
    user: str, spots: Sequence[Spot], paths: Sequence[str], timeout: float
) -> dict[str, str]:
    """Return {what: outcome} as a child process sees it that has become this user."""
    names = [f"{address} port {port}" for address, port in spots] + [*paths]
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return dict.fromkeys(names, "there is no such user")
    if os.geteuid() != 0:
        return dict.fromkeys(names, "only root can try as somebody else")
    if entry.pw_uid == 0:
        return dict.fromkeys(names, "root may connect")
    groups = os.getgrouplist(user, entry.pw_gid)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        _as_user(entry.pw_uid, entry.pw_gid, groups, (spots, paths, timeout), writer)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    try:
        told = {str(name): str(outcome) for name, outcome in json.loads(text).items()}
    except (ValueError, AttributeError):
        told = {}
    return {name: told.get(name, "it could not be tried") for name in names}


def _as_user(
    uid: int, gid: int, groups: Sequence[int], what: tuple[t.Any, t.Any, float], writer: int
) -> t.NoReturn:
    """Become the user, try, write the outcomes, and end: nothing of the module's may run on."""
    try:
        spots, paths, timeout = what
        os.setgroups(groups)
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
        told = {f"{address} port {port}": _tcp(address, port, timeout) for address, port in spots}
        told |= {path: _unix(path, timeout) for path in paths}
        os.write(writer, json.dumps(told).encode())
    finally:
        os._exit(0)


def _tcp(address: str, port: int, timeout: float) -> str:
    try:
        socket.create_connection((address, port), timeout).close()
    except ConnectionRefusedError:
        return "refused"
    except OSError as exc:
        # A filter that drops what it does not let through is a refusal, if a slow one.
        return "refused" if isinstance(exc, (TimeoutError, PermissionError)) else str(exc)
    return "connected"


def _unix(path: str, timeout: float) -> str:
    """The kernel looks at the file's mode before anything else (unix(7))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as one:
        one.settimeout(timeout)
        try:
            one.connect(path)
        except PermissionError:
            return "refused"
        except FileNotFoundError:
            return "there is no such socket"
        except OSError as exc:
            return "connected" if _is_socket(path) else str(exc)
    return "connected"


def _is_socket(path: str) -> bool:
    try:
        return stat.S_ISSOCK(os.stat(path).st_mode)
    except OSError:
        return False


def is_loopback(address: str) -> bool:
    """Say whether it is an IP address on loopback."""
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
