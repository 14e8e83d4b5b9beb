# SPDX-License-Identifier: GPL-3.0-or-later
"""How requests ended: nginx's reports, and the response records made of them.

nginx tells how each request ended in a datagram (``access_log syslog:``): one JSON object after
a syslog header (RFC 3164). A datagram can be lost, so nothing that must not be lost depends on
one: the request's record is in the audit log before the LLM server sees the request.
"""

from __future__ import annotations

import json
import re
import socket
from dataclasses import dataclass

from .audit.records import refusal_fields, response_fields
from .authorize import Recorder
from .decision import read_client
from .in_flight import InFlight
from .keys import is_key_id
from .metrics import Metrics
from .quotas import Quotas

# Datagrams taken in one go before other work has its turn
_AT_A_TIME = 64
_MAX_DATAGRAM = 65536
_REQUEST_ID = re.compile(r"[0-9a-f]{32}")
_METHOD = re.compile(r"[A-Z]{1,20}")
_SHOWN_PATH = 256


@dataclass(frozen=True, slots=True)
class Report:
    """How a request ended, as nginx tells it."""

    request_id: str
    client: str
    # Empty when nginx could not read the request
    method: str
    # Without the query, which may hold anything; at most 256 characters
    path: str
    status: int
    body_bytes: int
    duration_ns: int
    # Whose key /validate had found; empty: nobody's
    key_id: str
    # Whether the LLM server was asked
    forwarded: bool


class Reports:
    """Reads nginx's datagrams; each ends a request, or records what nginx refused itself."""

    def __init__(
        self, audit: Recorder, in_flight: InFlight, quotas: Quotas, metrics: Metrics
    ) -> None:
        self._audit = audit
        self._in_flight = in_flight
        self._quotas = quotas
        self._metrics = metrics

    def read(self, source: socket.socket) -> None:
        """Take what has arrived. The socket is nginx's alone: its mode decides who may send."""
        for _unused in range(_AT_A_TIME):
            try:
                datagram = source.recv(_MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            report = parse_report(datagram)
            if report is None:
                self._metrics.reports_unreadable += 1
            else:
                self.take(report)

    def take(self, report: Report) -> None:
        """Record how one request ended."""
        admitted = self._in_flight.end(report.request_id)
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
        reason = f"http_{report.status}"
        if not self._audit.refusals.admit(reason):
            return
        fields = refusal_fields(
            key_id=report.key_id or None,
            reason=reason,
            status=report.status,
            request_id=report.request_id,
            client_ip=report.client,
            method=report.method or None,
            path=report.path or None,
        )
        self._audit.append(fields)


def parse_report(datagram: bytes) -> Report | None:
    """Return what nginx's datagram says; None if it is none of ours."""
    start = datagram.find(b"{")
    if start < 0:
        return None
    try:
        raw = json.loads(datagram[start:].decode("utf-8", "replace"))
        return Report(
            request_id=_request_id(raw["id"]),
            client=_address(raw["client"]),
            method=raw["method"] if _METHOD.fullmatch(raw["method"]) else "",
            path=raw["path"].partition("?")[0][:_SHOWN_PATH],
            status=int(raw["status"]),
            body_bytes=int(raw["bytes"]),
            duration_ns=int(float(raw["seconds"]) * 1e9),
            key_id=raw["key"] if is_key_id(raw["key"]) else "",
            forwarded=raw["forwarded"] == "1",
        )
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError, ValueError):
        return None


def _request_id(text: str) -> str:
    if _REQUEST_ID.fullmatch(text) is None:
        raise ValueError("no request id")
    return text


def _address(text: str) -> str:
    client = read_client(text.encode())
    if client is None:
        raise ValueError("no address")
    return client[1]
