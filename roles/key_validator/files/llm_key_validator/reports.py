# SPDX-License-Identifier: GPL-3.0-or-later
"""How requests ended: nginx's reports, and the response records made of them.

nginx tells how each request ended in a datagram (``access_log syslog:``): a line of words after a
syslog header (RFC 3164), ``REQUEST_ID STATUS BYTES SECONDS FORWARDED KEY_ID CLIENT METHOD PATH``,
where FORWARDED, KEY_ID and METHOD may be empty and PATH is escaped as in JSON. FORWARDED is ``1``,
or what was wrong with a client's certificate (``certificate_revoked``). A datagram
can be lost, so nothing that must not be lost depends on one: the request's record is in the audit
log before the LLM server sees the request.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
from collections.abc import Callable
from typing import NamedTuple

from .audit.records import refusal_fields, response_fields
from .authorize import Recorder
from .decision import read_client
from .in_flight import InFlight
from .keys import is_key_id
from .metrics import Metrics
from .quotas import Quotas

# Datagrams taken in one go before other work has its turn: what the socket holds (its unit)
_AT_A_TIME = 512
_MOST_READS = 4
_MAX_DATAGRAM = 65536
_TAG = b" llm: "
_WORDS = 9
_REQUEST_ID = re.compile(rb"[0-9a-f]{32}")
_METHOD = re.compile(rb"[A-Z]{1,20}")
# What nginx says of certificates that it refuses: roles/gateway, $llm_certificate_reason
_CERTIFICATE = re.compile(rb"(?:certificate|crl)_[a-z_]{1,32}")
_SHOWN_PATH = 256


class Report(NamedTuple):
    """How a request ended, as nginx tells it. A plain tuple: one is made for each."""

    request_id: str
    status: int
    body_bytes: int
    duration_ns: int
    # Whether the LLM server was asked
    forwarded: bool
    # What is wrong with the client's certificate; empty: nothing, or there is none
    certificate: str
    # Whose key it is; empty: nobody's, or nginx was not told
    key_id: str
    client: str
    # As they came: seldom needed
    raw_method: bytes
    raw_path: bytes

    @property
    def method(self) -> str | None:
        """Return the method; None when nginx could not read the request."""
        return self.raw_method.decode() if _METHOD.fullmatch(self.raw_method) else None

    @property
    def path(self) -> str | None:
        """Return at most 256 characters, without the query, which may hold anything."""
        text = self.raw_path.partition(b"?")[0].decode("utf-8", "replace")
        try:
            return str(json.loads(f'"{text}"'))[:_SHOWN_PATH] or None
        except ValueError:
            return None


class Reports:
    """Reads nginx's datagrams; each ends a request, or records what nginx refused itself."""

    def __init__(
        self, audit: Recorder, in_flight: InFlight, quotas: Quotas, metrics: Metrics
    ) -> None:
        self._audit = audit
        self._in_flight = in_flight
        self._quotas = quotas
        self._metrics = metrics

    def read(self, source: socket.socket) -> bool:
        """Take what has arrived; say whether that was all.

        The socket is nginx's alone: its mode decides who may send.
        """
        for _unused in range(_AT_A_TIME):
            try:
                datagram = source.recv(_MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return True
            report = parse_report(datagram)
            if report is None:
                self._metrics.reports_unreadable += 1
            else:
                self.take(report)
        return False

    def take(self, report: Report) -> None:
        """Record how one request ended."""
        admitted = self._in_flight.end(report.request_id)
        if admitted is not None:
            report = report._replace(key_id=admitted.key_id)
        if report.key_id:
            # Also of a request that was let through before this service started.
            self._quotas.release(report.key_id, report.request_id)
        if admitted is None and self._in_flight.was_refused(report.request_id):
            return
        if admitted is None and not report.forwarded and not 200 <= report.status < 400:
            self._in_flight.give_up(report.request_id)
            self._record_refusal(report)
            return
        self._audit.append(
            response_fields(
                request_id=report.request_id,
                key_id=report.key_id or None,
                model=admitted and admitted.model,
                status=report.status,
                duration_ns=report.duration_ns,
                body_bytes=report.body_bytes,
            )
        )

    def _record_refusal(self, report: Report) -> None:
        """Record what nginx refused itself, or could not ask about; or whose client went away."""
        reason = report.certificate if report.status == 403 else ""
        reason = reason or f"http_{report.status}"
        if not self._audit.refusals.admit(reason):
            return
        fields = refusal_fields(
            key_id=report.key_id or None,
            reason=reason,
            status=report.status,
            request_id=report.request_id,
            client_ip=report.client,
            method=report.method,
            path=report.path,
        )
        self._audit.append(fields)


class ReportSource:
    """Reads a socket's reports as they come, then lets others gather for ``pause`` (seconds).

    Nobody waits for a report, and many at once cost half as much as one by one. They wait in the
    socket, which outlives this service. Who has to know of them at once calls ``catch_up``.
    """

    def __init__(
        self,
        source: socket.socket,
        read: Callable[[socket.socket], bool],
        loop: asyncio.AbstractEventLoop,
        pause: float,
    ) -> None:
        self._source = source
        self._read = read
        self._loop = loop
        self._pause = pause
        self._listen()

    def catch_up(self) -> None:
        """Read what has arrived by now, and not for ever what goes on arriving."""
        for _unused in range(_MOST_READS):
            if self._read(self._source):
                return

    def _listen(self) -> None:
        self._loop.add_reader(self._source, self._arrived)

    def _arrived(self) -> None:
        if self._read(self._source) and self._pause:
            self._loop.remove_reader(self._source)
            self._loop.call_later(self._pause, self._listen)


def parse_report(datagram: bytes) -> Report | None:
    """Return what nginx's datagram says; None if it is none of ours."""
    words = datagram.partition(_TAG)[2].split(b" ", _WORDS - 1)
    if len(words) != _WORDS or _REQUEST_ID.fullmatch(words[0]) is None:
        return None
    request_id, status, size, seconds, forwarded, key_id, client, method, path = words
    address = read_client(client)
    key = key_id.decode("ascii", "replace")
    if address is None:
        return None
    try:
        return Report(
            request_id.decode(),
            int(status),
            int(size),
            int(float(seconds) * 1e9),
            forwarded == b"1",
            forwarded.decode() if _CERTIFICATE.fullmatch(forwarded) else "",
            key if is_key_id(key) else "",
            address[1],
            method,
            path,
        )
    except (OverflowError, ValueError):
        return None
