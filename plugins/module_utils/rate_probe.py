# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Uses up a gateway's limits, with a bounded number of requests in a bounded time.

The network's side of `rate_checks`. A burst is written at once on one connection (pipelined, RFC
9112, 9.3.2), so that a slow machine is as quick as the limit needs it to be.
"""

from __future__ import annotations

import time
import typing as t
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import generate_key
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import (
    LATE,
    Answer,
    Endpoint,
    NoConnectionError,
    Sources,
    no_answer,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.rate_checks import (
    DODGES,
    Finding,
    Limit,
    Seen,
    Tried,
    answer_finding,
    dodge_finding,
    enough,
    limit_finding,
    off_finding,
    recovery_finding,
    skip_finding,
)

__all__ = ("MOST_REQUESTS", "Flood", "Wanted", "rate_findings")

MOST_REQUESTS = 200
# Beyond those that the limit lets through at once
_MORE = 5
_MOST_TRIES = 5
_NO_MODEL = b'{"model":"llmsec-probe/none"}'


@dataclass
class Flood:
    """Sends requests, and counts them. `most` is how many there may be, `until` the last moment."""

    endpoint: Endpoint
    host: str
    path: str
    other_path: str
    most: int
    until: float
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep
    sent: int = 0

    def plain(self, *headers: str) -> bytes:
        """Return the request that is asked over and over; `<key>` is a new key each time."""
        lines = [f"GET {self.path} HTTP/1.1", f"Host: {self.host}", *headers]
        text = "\r\n".join(lines).replace("<key>", generate_key())
        return text.encode("latin-1") + b"\r\n\r\n"

    def other(self) -> bytes:
        """Return a request for another route, which an open server refuses at once."""
        head = f"POST {self.other_path} HTTP/1.1\r\nHost: {self.host}\r\n"
        kind = f"Content-Type: application/json\r\nContent-Length: {len(_NO_MODEL)}\r\n\r\n"
        return (head + kind).encode("latin-1") + _NO_MODEL

    def send(self, raws: Sequence[bytes], source: str | None) -> Seen:
        """Send all at once, and return the answers; those not sent any more are missing."""
        started = self.clock()
        raws = raws[: self.most - self.sent]
        self.sent += len(raws)
        answers: list[Answer] = []
        while len(answers) < len(raws) and self.clock() < self.until:
            got = self._answers(raws[len(answers) :], source)
            answers += got
            if not got[-1].status:
                break
        return Seen(tuple(answers), self.clock() - started)

    def _answers(self, raws: Sequence[bytes], source: str | None) -> list[Answer]:
        """Return the answers of one connection, one at least: a server may close it early."""
        answers: list[Answer] = []
        try:
            with self.endpoint.dial(source) as wire:
                wire.send(b"".join(raws))
                while wire.open and len(answers) < len(raws):
                    answers.append(wire.answer("GET", self.endpoint.timeout))
        except NoConnectionError as exc:
            return [*answers, no_answer(exc.why)]
        # A connection that ends between two answers has lost none.
        return answers[:-1] if len(answers) > 1 and not answers[-1].status else answers


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What the gateway says of its limits, and how long to wait for a client to be let in again."""

    per_address: Limit | None
    per_key: Limit | None
    key: str = ""
    recover_within: float = 10.0


def rate_findings(flood: Flood, wanted: Wanted, sources: Sources) -> Iterator[Finding]:
    """Yield what there is to say of both limits."""
    if wanted.per_key is None:
        yield off_finding("per_key")
    else:
        yield _per_key(flood, wanted.per_key, wanted.key or generate_key(), sources)
    if wanted.per_address is None:
        yield off_finding("per_address")
    else:
        yield from _per_address(flood, wanted.per_address, sources.take(), wanted.recover_within)


def _per_key(flood: Flood, limit: Limit, key: str, sources: Sources) -> Finding:
    """One key from many addresses: what limits it is not the limit per address."""
    if not sources.many:
        why = "from one address the limit per address may come first: ask on the gateway's host"
        return skip_finding("per_key", why)
    raw = flood.plain(f"Authorization: Bearer {key}")
    started = flood.clock()
    answers: list[Answer] = []
    while len(answers) < limit.at_once + _MORE:
        got = flood.send([raw], sources.take()).answers
        answers += got
        if not got or not got[-1].status or got[-1].status == 429:
            break
    return limit_finding("per_key", limit, Seen(tuple(answers), flood.clock() - started))


def _per_address(
    flood: Flood, limit: Limit, source: str | None, recover_within: float
) -> Iterator[Finding]:
    seen = _use_up(flood, limit, source)
    yield limit_finding("per_address", limit, seen)
    if seen.passed is None:
        return
    told = answer_finding(seen)
    if told is not None:
        yield told
    for name, (_title, headers) in DODGES.items():
        raws = [flood.other() if name == "other_route" else flood.plain(*headers)]
        yield dodge_finding(name, _tries(flood, raws[0], source))
    if limit.period > recover_within:
        yield recovery_finding(limit, None, None)
        return
    started = flood.clock()
    # nginx counts in thousandths of requests, and the last plain one was counted as well.
    flood.sleep(limit.period + 0.2)
    answers = flood.send([flood.plain()], source).answers
    yield recovery_finding(
        limit, flood.clock() - started, answers[0] if answers else no_answer(LATE)
    )


def _use_up(flood: Flood, limit: Limit, source: str | None) -> Seen:
    """Ask until there is a 429, or so often that there must have been one."""
    started = flood.clock()
    answers: list[Answer] = []
    while True:
        missing = limit.most(flood.clock() - started) + _MORE - len(answers)
        got = flood.send([flood.plain()] * missing, source).answers if missing > 0 else ()
        answers += got
        seen = Seen(tuple(answers), flood.clock() - started)
        if not got or seen.passed is not None or not got[-1].status:
            return seen


def _tries(flood: Flood, raw: bytes, source: str | None) -> list[Tried]:
    tries: list[Tried] = []
    while len(tries) < _MOST_TRIES and not enough(tries):
        answers: t.Any = flood.send([flood.plain(), raw, flood.plain()], source).answers
        if len(answers) < 3:
            break
        tries.append(Tried(*answers))
    return tries
