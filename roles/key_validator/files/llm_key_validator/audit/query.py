# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests as people ask for them: joined with their responses, filtered, as one readable line."""

from __future__ import annotations

import ipaddress
import os
from collections import OrderedDict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from .chain import fields_of, is_count
from .reading import Lines, Log, lines_backwards, printable

Record = dict[str, object]

# Requests that wait for their response, at most: memory stays bounded when responses are lost
MOST_PENDING = 10_000
# And bytes of them, some times what so many real ones have
_MOST_PENDING_BYTES = 1 << 25
# No record of ours comes near (records: texts of 1024 characters, twelve bytes for each at most)
_LONGEST_RECORD = 1 << 16
# How much longer than a period a response may come; the service gives up its slots by then
SLACK = timedelta(hours=1)
# Records that are read beyond what was asked for, to find the requests of responses
_LOOK_BACK = 20_000

_TIME = "%Y-%m-%dT%H:%M:%S.%fZ"
# Where a line's timestamp stands, {"@timestamp":" being before it
_TIME_AT = slice(15, 42)


@dataclass(slots=True)
class Event:
    """A request's record and its response's; or a refusal, or a record about the log itself."""

    record: Record
    line: bytes
    response: Record | None = None
    response_line: bytes | None = None

    @property
    def action(self) -> object:
        """Return request, response (its request is not at hand), refusal, open, seal, …"""
        return self.record.get("event.action")

    @property
    def answer(self) -> Record:
        """Return the record that has status and duration; empty while there is none."""
        if self.action == "request":
            return self.response or {}
        return self.record

    @property
    def status(self) -> int | None:
        """Return the HTTP status."""
        status = self.answer.get("http.response.status_code")
        return status if isinstance(status, int) else None

    def get(self, name: str) -> object:
        """Return a field of the request, or of the response where the request has none."""
        value = self.record.get(name)
        if value is None and self.response is not None:
            value = self.response.get(name)
        return value

    @property
    def request_id(self) -> str | None:
        """Return the request's id, if the record has one that is a text."""
        request_id = self.record.get("http.request.id")
        return request_id if isinstance(request_id, str) else None

    def answered_by(self, response: Event) -> Event:
        """Return this request joined with its response."""
        return Event(self.record, self.line, response.record, response.line)

    def lines(self) -> list[bytes]:
        """Return the raw lines."""
        return [self.line] if self.response_line is None else [self.line, self.response_line]


class Joiner:
    """Joins responses to requests by their id."""

    def __init__(self) -> None:
        self._pending: OrderedDict[str, Event] = OrderedDict()
        self._pending_bytes = 0
        self._shown: set[str] = set()

    def take(self, event: Event) -> Iterator[Event]:
        """Yield the events that are complete with this record."""
        request_id = event.request_id
        if request_id is None:
            yield event
        elif event.action == "request":
            if request_id in self._pending:  # no two of ours have one id; none hides the other
                yield self._forget(request_id)
            self._wait_for(request_id, event)
            while len(self._pending) > MOST_PENDING or self._pending_bytes > _MOST_PENDING_BYTES:
                yield self._forget(next(iter(self._pending), ""))
        elif event.action == "response" and request_id in self._pending:
            yield self._forget(request_id).answered_by(event)
        else:
            yield event

    def expect(self, event: Event) -> None:
        """Wait for the response to a request that was shown already."""
        if event.request_id is not None:
            self._wait_for(event.request_id, event)
            self._shown.add(event.request_id)

    def _wait_for(self, request_id: str, event: Event) -> None:
        self._pending[request_id] = event
        self._pending_bytes += len(event.line)

    def _forget(self, request_id: str) -> Event:
        event = self._pending.pop(request_id)
        self._pending_bytes -= len(event.line)
        return event

    def waiting(self) -> Iterator[Event]:
        """Yield the requests that have no response yet, each of them once."""
        for request_id, event in self._pending.items():
            if request_id not in self._shown:
                yield event
        self._shown = set(self._pending)


@dataclass(slots=True)
class Filter:
    """Which events are asked for. Everything that is None lets every event through."""

    key: str | None = None
    model: Callable[[str], bool] | None = None
    client: ipaddress.IPv4Network | ipaddress.IPv6Network | None = None
    status: range | None = None
    reason: str | None = None
    request: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def wants(self, event: Event) -> bool:
        """Tell whether this event is asked for."""
        return (
            self.in_time(event.line)
            and self.key in (None, event.get("user.id"))
            and self.request in (None, event.get("http.request.id"))
            and self.reason in (None, event.get("event.reason"))
            and (self.status is None or event.status in self.status)
            and (self.model is None or self._has_model(event.get("gen_ai.request.model")))
            and (self.client is None or self._is_client(event.get("client.ip")))
        )

    def in_time(self, line: bytes) -> bool:
        """Tell whether a record was written in the period: timestamps sort as text."""
        moment = line[_TIME_AT]
        return (self.since is None or moment >= as_stamp(self.since)) and (
            self.until is None or moment <= as_stamp(self.until)
        )

    def _has_model(self, model: object) -> bool:
        return isinstance(model, str) and self.model is not None and self.model(model)

    def _is_client(self, address: object) -> bool:
        try:
            return ipaddress.ip_address(str(address)) in (self.client or ())
        except ValueError:
            return False


def as_stamp(moment: datetime) -> bytes:
    """Return a moment as records write it."""
    return moment.strftime(_TIME).encode()


class Reader:
    """Reads a log's events, and counts the lines that are no records."""

    def __init__(self, log: Log) -> None:
        self._log = log
        self.unreadable = 0

    def events(self, wanted: Filter) -> Iterator[Event]:
        """Yield the wanted events, each when its response was read; those without one last."""
        joiner = Joiner()
        for line in self._lines(wanted.since, wanted.until):
            event = read_event(line)
            if not event.record:
                self.unreadable += 1
                continue
            yield from filter(wanted.wants, joiner.take(event))
        yield from filter(wanted.wants, joiner.waiting())

    def _lines(self, since: datetime | None, until: datetime | None) -> Iterator[bytes]:
        """Yield the lines of a period, and of the slack after it for the responses."""
        first = as_stamp(since) if since else b""
        last = as_stamp(until + SLACK) if until else None
        for _file, stream in self._log.streams():
            if since and os.fstat(stream.fileno()).st_mtime < (since - SLACK).timestamp():
                continue  # the file ends before the period
            for block in Lines(stream).blocks():
                if last is not None and min(block[0][_TIME_AT], block[-1][_TIME_AT]) > last:
                    continue  # not the end: a clock that was ahead is set back
                yield from (line for line in block if line[_TIME_AT] >= first)

    def last_events(self, count: int) -> list[Event]:
        """Return the last events, oldest first, without reading what is before them."""
        events: list[Event] = []
        # Responses whose requests are still to come: their places in the list
        waiting: dict[str | None, int] = {}
        beyond = 0
        for line in self._lines_backwards():
            enough = len(events) >= count
            beyond += enough
            if enough and (not waiting or beyond > _LOOK_BACK):
                break
            event = read_event(line)
            if not event.record:
                self.unreadable += not enough
            elif event.action == "request" and event.request_id in waiting:
                place = waiting.pop(event.request_id)
                events[place] = event.answered_by(events[place])
            elif not enough:
                if event.action == "response" and event.request_id is not None:
                    waiting[event.request_id] = len(events)
                events.append(event)
        return events[::-1]

    def _lines_backwards(self) -> Iterator[bytes]:
        for _file, stream in self._log.streams_backwards():
            yield from lines_backwards(stream)


def read_event(line: bytes) -> Event:
    """Return what a line holds; without a record when it holds none."""
    return Event(fields_of(line) if len(line) <= _LONGEST_RECORD else {}, line)


def render(event: Event, zone: tzinfo | None) -> str:
    """Return one readable line. ``zone`` None is the local time."""
    what = _own(event.record) if _is_own(event) else _request(event)
    return f"{_local(event.record.get('@timestamp'), zone)}  {what}"


def _local(stamp: object, zone: tzinfo | None) -> str:
    try:
        moment = datetime.fromisoformat(str(stamp)).astimezone(zone)
    except (ValueError, OverflowError, OSError):
        return "(no time)"
    return moment.isoformat(" ", "milliseconds").partition("+")[0][:23]


def _is_own(event: Event) -> bool:
    return event.action not in ("request", "response", "refusal")


def _request(event: Event) -> str:
    who = [event.get("user.id"), event.get("client.ip"), event.get("http.request.method")]
    what = [event.get("url.path"), event.get("gen_ai.request.model")]
    words = " ".join("-" if word is None else printable(word) for word in who + what)
    return f"{event.status or '---'}  {_how(event):>12}  {words}"


def _how(event: Event) -> str:
    if event.action == "refusal":
        return f"refused: {printable(event.get('event.reason'))}"
    duration = event.answer.get("event.duration")
    return f"{duration / 1e6:,.1f} ms" if is_count(duration) else "no response"


def _own(record: Record) -> str:
    """Render a record about the log itself: its action and the fields that people ask for."""
    shown = [
        f"{printable(name).removeprefix('llm.audit.').replace('.', ' ')} {printable(value)[:16]}"
        for name, value in record.items()
        if name.startswith("llm.audit.") or name == "event.reason"
    ]
    return f"log  {printable(record.get('event.action')):>12}  {', '.join(shown)}".rstrip()
