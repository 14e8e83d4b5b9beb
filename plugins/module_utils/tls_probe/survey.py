# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""All that is asked of a server, side by side, a few connections at a time.

The answers are facts without a judgement, each by a name, each with the reason when there is none.
"""

from __future__ import annotations

import ssl
import typing as t
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.client_hello import (
    ALPN,
    EXTENDED_MASTER_SECRET,
    FALLBACK_SCSV,
    HEARTBEAT,
    RENEGOTIATION_INFO,
    SESSION_TICKET,
    SSL3,
    TLS10,
    TLS11,
    TLS12,
    TLS13,
    Hello,
    alpn,
    ssl2_hello,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.connection import (
    ProbeError,
    Target,
    http_status,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.numbers import (
    GROUPS,
    OTHER_GROUPS,
    POST_QUANTUM,
    PROFILE_12,
    PROFILE_13,
    PROFILE_GROUPS,
    SUITE_CLASSES,
    TLS13_OTHERS,
    WEAK_GROUPS,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.server_reply import (
    SSL2,
    Reply,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.visit import (
    Visit,
    Visitor,
    verified,
)

__all__ = ("FOREIGN_NAME", "VERSIONS", "Answers", "NotMeasuredError", "Scope", "Stranger", "survey")

# RFC 6761: nobody has a name below .invalid, so no server can have it for its own.
FOREIGN_NAME = "no-such-name.invalid"
VERSIONS = {
    "ssl2": SSL2, "ssl3": SSL3, "tls10": TLS10, "tls11": TLS11, "tls12": TLS12, "tls13": TLS13,
}  # fmt: skip

_OLD_SUITES = tuple(number for numbers in SUITE_CLASSES.values() for number in numbers)
_ECDHE_SUITES = (*PROFILE_12, *SUITE_CLASSES["cbc"])
_Answer = t.TypeVar("_Answer")
# Of a class so many are named; the first is enough to be red.
_MOST_NAMED = 6


class NotMeasuredError(Exception):
    """There is no answer; the message says why."""


class Answers(Mapping[str, t.Any]):
    """What the server said, by the name of the question.

    What it did not say raises NotMeasuredError.
    """

    def __init__(self, found: Mapping[str, t.Any]) -> None:
        self._found = found

    def __getitem__(self, name: str) -> t.Any:  # noqa: ANN401 - as many kinds as questions
        answer = self._found[name]
        if isinstance(answer, NotMeasuredError):
            raise answer
        return answer

    def __iter__(self) -> t.Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


@dataclass(frozen=True)
class Scope:
    """What is asked for. `http_port` 0 and `ca_file` empty: not asked."""

    server_name: str
    ca_file: str = ""
    http_port: int = 0
    connections: int = 8


@dataclass(frozen=True)
class Stranger:
    """How the server met a name that is not its own; `visit` when it did not refuse at once."""

    reply: Reply
    visit: Visit | None = None


def _verdict(reply: Reply) -> bool:
    """Say whether a hello was taken. Raises ProbeError when the server said neither yes nor no."""
    if not reply.accepted and not reply.refused:
        raise ProbeError(f"the server broke off with {reply.said}")
    return reply.accepted


@dataclass(frozen=True)
class _Questions:
    """The questions that more than one hello is needed for."""

    target: Target
    name: str

    def version(self, number: int) -> bool:
        """Say whether the server speaks this version."""
        if number == SSL2:
            hello = ssl2_hello()
        else:
            suites = PROFILE_13 if number == TLS13 else (*PROFILE_12, *_OLD_SUITES)
            groups = tuple(GROUPS) if number < TLS13 else Hello.groups
            hello = Hello(
                server_name=self.name, versions=(number,), suites=suites, groups=groups
            ).packed()
        reply = self.target.ask(hello)
        if reply.accepted and (reply.version or 0) > number:
            raise ProbeError(f"the server answers with version 0x{reply.version:04X}, not offered")
        return _verdict(reply) and reply.version == number

    def suites(self, version: int, offered: Sequence[int]) -> list[int]:
        """Return which of these suites the server takes, the first few at least."""
        groups = tuple(GROUPS) if version < TLS13 else Hello.groups

        def ask(left: Sequence[int]) -> int | None:
            hello = Hello(server_name=self.name, versions=(version,), suites=left, groups=groups)
            reply = self.target.ask(hello.packed())
            return reply.suite if _verdict(reply) else None

        return _all_taken(ask, offered)

    def groups13(self, offered: Sequence[int]) -> list[int]:
        """Return which of these groups the server takes in TLS 1.3."""

        def ask(left: Sequence[int]) -> int | None:
            hello = Hello(
                server_name=self.name,
                versions=(TLS13,),
                suites=PROFILE_13,
                groups=left,
                shares=False,
            )
            reply = self.target.ask(hello.packed())
            return reply.group if _verdict(reply) else None

        return _all_taken(ask, offered)

    def groups12(self, offered: Sequence[int]) -> list[int]:
        """Return which of these groups the server takes in TLS 1.2.

        The curve of an ECDSA certificate must be among the groups of the hello, too (RFC 8422
        5.1.1): it stands last, and when it is taken the others are not.
        """
        found: list[int] = []
        for curves in ((), (0x0017, 0x0018)):

            def ask(left: Sequence[int], curves: Sequence[int] = curves) -> int | None:
                groups = (*left, *curves)
                hello = Hello(
                    server_name=self.name, versions=(TLS12,), suites=_ECDHE_SUITES, groups=groups
                )
                reply = self.target.ask(hello.packed(), whole=True)
                return reply.group if _verdict(reply) and reply.group not in curves else None

            found += _all_taken(ask, [one for one in offered if one not in found])
        return found

    def suite12(self, number: int) -> Reply:
        """Return the whole answer to a hello with one suite of TLS 1.2."""
        hello = Hello(server_name=self.name, versions=(TLS12,), suites=(number,))
        reply = self.target.ask(hello.packed(), whole=True)
        _verdict(reply)
        return reply

    def order(self) -> list[int]:
        """Return what the server picks of two suites that are offered in either order."""
        picked = []
        for suites in ((0x1301, 0x1302), (0x1302, 0x1301)):
            reply = self.target.ask(
                Hello(server_name=self.name, versions=(TLS13,), suites=suites).packed()
            )
            if _verdict(reply):
                picked.append(reply.suite)
        return picked

    def features(self) -> Reply:
        """Return the answer of TLS 1.2 to a hello that asks for everything at once."""
        more = {
            RENEGOTIATION_INFO: b"\x00", EXTENDED_MASTER_SECRET: b"", SESSION_TICKET: b"",
            HEARTBEAT: b"\x01", ALPN: alpn("h2", "http/1.1"),
        }  # fmt: skip
        hello = Hello(server_name=self.name, versions=(TLS12,), suites=_ECDHE_SUITES, more=more)
        reply = self.target.ask(hello.packed(), whole=True)
        _verdict(reply)
        return reply

    def fallback(self) -> Reply:
        """Return the answer to a client that says it came back with TLS 1.2 after a failure."""
        return self._tls12((*_ECDHE_SUITES, FALLBACK_SCSV))

    def compression(self) -> Reply:
        """Return the answer to a client that would like DEFLATE, but need not have it."""
        return self._tls12(_ECDHE_SUITES, compression=(1, 0))

    def _tls12(self, suites: Sequence[int], compression: Sequence[int] = (0,)) -> Reply:
        hello = Hello((TLS12,), suites, self.name, compression=compression)
        reply = self.target.ask(hello.packed())
        _verdict(reply)
        return reply

    def stranger(self, name: str) -> Stranger:
        """Return how the server meets somebody who calls it by this name, "": by none."""
        reply = self.target.ask(replace(Hello(), server_name=name).packed())
        if not _verdict(reply):
            return Stranger(reply)
        visitor = Visitor(self.target, name, FOREIGN_NAME)
        return Stranger(reply, visitor.visit(request=visitor.request()))

    def plain_http(self) -> int | None:
        """Return the status of a request without TLS, None when the server just closes."""
        answer = self.target.say_plainly(Visitor(self.target, self.name).request())
        status = http_status(answer)
        # An alert (21), as OpenSSL sends it to whoever does not speak TLS, is a refusal as well.
        if answer and status is None and answer[:1] != b"\x15":
            raise ProbeError(f"the answer is no HTTP: it begins with {answer[:16]!r}")
        return status

    def http_port(self, port: int) -> tuple[int | None, str]:
        """Return status and Location of a port for plain HTTP, (None, reason) without an answer."""
        try:
            request = Visitor(self.target, self.name).request()
            answer = replace(self.target, port=port).say_plainly(request)
        except ProbeError as exc:
            return None, str(exc)
        head = answer.partition(b"\r\n\r\n")[0].decode("latin-1")
        fields = (line.partition(":") for line in head.split("\r\n"))
        found = (value.strip() for name, _colon, value in fields if name.lower() == "location")
        status = http_status(answer)
        if answer and status is None:
            return 0, "something that is no HTTP"
        return status, next(found, "") if answer else "closed without an answer"


def _all_taken(ask: Callable[[Sequence[int]], int | None], offered: Sequence[int]) -> list[int]:
    """Return what is taken of the offered: each time one, which is not offered again."""
    left, found = list(offered), list[int]()
    while left and len(found) < _MOST_NAMED:
        taken = ask(left)
        if taken is None:
            break
        if taken not in left:
            raise ProbeError(f"the server picks 0x{taken:04X}, which was not offered")
        left.remove(taken)
        found.append(taken)
    return found


def _plan(target: Target, scope: Scope) -> dict[str, Callable[[], t.Any]]:
    """Return what to ask, by the name of the answer. The longest come first."""
    ask = _Questions(target, scope.server_name)
    visitor = Visitor(target, scope.server_name)
    plan: dict[str, Callable[[], t.Any]] = {
        "visit.tls13": lambda: visitor.twice(ssl.TLSVersion.TLSv1_3),
        "visit.tls12": lambda: visitor.twice(ssl.TLSVersion.TLSv1_2),
        "groups.weak12": lambda: ask.groups12(WEAK_GROUPS),
        "groups.other12": lambda: ask.groups12(OTHER_GROUPS),
        "groups.profile": lambda: ask.groups13(PROFILE_GROUPS),
        "groups.weak13": lambda: ask.groups13(WEAK_GROUPS),
        "groups.other13": lambda: ask.groups13(OTHER_GROUPS),
        "groups.post_quantum": lambda: ask.groups13((POST_QUANTUM,)),
        "order": ask.order,
        "suites.tls13_profile": lambda: ask.suites(TLS13, PROFILE_13),
        "suites.tls13_other": lambda: ask.suites(TLS13, TLS13_OTHERS),
        "unknown_name": lambda: ask.stranger(FOREIGN_NAME),
        "no_name": lambda: ask.stranger(""),
        "features": ask.features,
        "fallback": ask.fallback,
        "compression": ask.compression,
        "alpn": lambda: visitor.visit(protocols=("h2", "http/1.1")),
        "plain_http": ask.plain_http,
    }
    plan |= {
        f"version.{name}": lambda n=number: ask.version(n) for name, number in VERSIONS.items()
    }
    plan |= {
        f"suites.{name}": lambda n=numbers: ask.suites(TLS12, n)
        for name, numbers in SUITE_CLASSES.items()
    }
    plan |= {f"suite12.{number:04X}": lambda n=number: ask.suite12(n) for number in PROFILE_12}
    if scope.ca_file:
        plan["verified"] = lambda: verified(target, scope.server_name, scope.ca_file)
    if scope.http_port:
        plan["http_port"] = lambda: ask.http_port(scope.http_port)
    return plan


def _measured(question: Callable[[], _Answer]) -> _Answer | NotMeasuredError:
    try:
        return question()
    except ProbeError as exc:
        return NotMeasuredError(str(exc))


def survey(target: Target, scope: Scope) -> Answers:
    """Ask everything and return the answers. Never raises for what a server does.

    Whether there is somebody who speaks TLS is asked first: if not, nothing else is.
    """
    plan = _plan(target, scope)
    hello = Hello(server_name=scope.server_name, suites=(*PROFILE_13, *PROFILE_12, *_OLD_SUITES))
    first = _measured(lambda: target.ask(hello.packed()))
    if isinstance(first, NotMeasuredError):
        return Answers(dict.fromkeys(("handshake", *plan), first))
    with ThreadPoolExecutor(max_workers=scope.connections) as pool:
        asked = {name: pool.submit(_measured, question) for name, question in plan.items()}
        return Answers({"handshake": first} | {name: one.result() for name, one in asked.items()})
