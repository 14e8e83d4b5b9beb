# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read what a server answers to a hello, as far as it is in the clear.

That is all of the handshake up to ServerHelloDone in TLS 1.2 and before, and the ServerHello or
HelloRetryRequest of TLS 1.3 (RFC 5246 7.4, RFC 8446 4, RFC 8422 5.4). Takes bytes, also when not
all have come yet, and never raises anything but ReplyError.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.client_hello import (
    TLS12,
    TLS13,
)

__all__ = (
    "ALERTS",
    "SSL2",
    "Reader",
    "Reply",
    "ReplyError",
    "parse_reply",
    "tls13_certificates",
    "tls13_early_data",
)

SSL2 = 0x0002

_ALERT, _HANDSHAKE, _KNOWN_RECORDS = 21, 22, (20, 21, 22, 23)
_MOST_BYTES_OF_RECORD = 2**14 + 2048  # RFC 5246 6.2.3
_SERVER_HELLO, _CERTIFICATE, _KEY_EXCHANGE, _REQUEST, _DONE = 2, 11, 12, 13, 14
_VERSIONS, _EARLY_DATA, _KEY_SHARE = 43, 42, 51
_NAMED_CURVE = 3
# RFC 8446 4.1.3: by this random value a ServerHello is a HelloRetryRequest.
_RETRY = hashlib.sha256(b"HelloRetryRequest").digest()
_FATAL = 2

# IANA, TLS Alerts
ALERTS = {
    0: "close_notify", 10: "unexpected_message", 20: "bad_record_mac", 22: "record_overflow",
    40: "handshake_failure", 42: "bad_certificate", 47: "illegal_parameter", 50: "decode_error",
    51: "decrypt_error", 70: "protocol_version", 71: "insufficient_security",
    80: "internal_error", 86: "inappropriate_fallback", 109: "missing_extension",
    110: "unsupported_extension", 112: "unrecognized_name", 116: "certificate_required",
    120: "no_application_protocol",
}  # fmt: skip
# What a server says of itself, and not of what it was offered: neither yes nor no.
_NO_VERDICT = (0, 10, 20, 22, 50, 51, 80)


class ReplyError(ValueError):
    """An answer that is not TLS, or not in a form that we know."""


class Reader:
    """Bytes that are read from front to back. Raises ReplyError where they end too early."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        """Return the next bytes."""
        if len(self._data) - self._at < size:
            raise ReplyError("a part of the answer is shorter than it says")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        """Return the number in the next bytes."""
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Return what is behind a length of so many bytes."""
        return self.take(self.number(size))


@dataclass
class Reply:
    """What is known of an answer so far; `version` None: no ServerHello has come."""

    version: int | None = None
    suite: int = 0
    compression: int = 0
    session_id: bytes = b""
    extensions: Mapping[int, bytes] = field(default_factory=dict)
    # Of the key share, of a HelloRetryRequest or of the ServerKeyExchange
    group: int | None = None
    retry: bool = False
    certificates: tuple[bytes, ...] = ()
    asks_certificate: bool = False
    # Number of the fatal alert
    alert: int | None = None
    done: bool = False

    @property
    def accepted(self) -> bool:
        """Whether the server went on with what it was offered."""
        return self.version is not None and self.alert is None

    @property
    def refused(self) -> bool:
        """Whether the server said that it does not take what it was offered."""
        return self.alert is not None and self.alert not in _NO_VERDICT

    @property
    def said(self) -> str:
        """The alert by its name."""
        return ALERTS.get(self.alert, f"alert {self.alert}") if self.alert is not None else ""

    def is_over(self, whole: bool) -> bool:
        """Say whether there is nothing more to wait for: the ServerHello, or whole: all of it."""
        if self.alert is not None or self.version in (SSL2, TLS13):
            return True
        return self.version is not None and (self.done or not whole)


def parse_reply(data: bytes) -> Reply:
    """Return what the bytes that have come so far say. Raises ReplyError."""
    reply = Reply()
    if data[:1] > b"\x7f":
        _read_ssl2(data, reply)
        return reply
    handshake = b""
    for kind, content in _records(data):
        if kind == _ALERT:
            alert = Reader(content)
            level, number = alert.number(1), alert.number(1)
            if level == _FATAL or number == 0:
                reply.alert = number
                break
        elif kind == _HANDSHAKE:
            handshake += content
        else:
            break
    for kind, body in _messages(handshake):
        _read_message(kind, body, reply)
    return reply


def _records(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, content) of the records that have come as a whole."""
    at = 0
    while at < len(data):
        header = data[at : at + 5]
        if header[0] not in _KNOWN_RECORDS or header[1:2] not in (b"", b"\x03"):
            raise ReplyError(f"the answer is not TLS: it begins with {data[:16]!r}")
        size = int.from_bytes(header[3:5], "big")
        if len(header) == 5 and size > _MOST_BYTES_OF_RECORD:
            raise ReplyError(f"a record of {size} bytes")
        if len(header) < 5 or len(data) < at + 5 + size:
            return
        yield header[0], data[at + 5 : at + 5 + size]
        at += 5 + size


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, body) of the handshake messages that have come as a whole."""
    at = 0
    while at + 4 <= len(data):
        end = at + 4 + int.from_bytes(data[at + 1 : at + 4], "big")
        if end > len(data):
            return
        yield data[at], data[at + 4 : end]
        at = end


def _read_message(kind: int, body: bytes, reply: Reply) -> None:
    if kind == _SERVER_HELLO:
        if reply.version is not None:
            raise ReplyError("two ServerHellos")
        _read_server_hello(Reader(body), reply)
    elif reply.version is None:
        raise ReplyError(f"the handshake begins with message {kind}")
    elif reply.version == TLS13:
        return
    elif kind == _CERTIFICATE:
        reply.certificates = _certificates(Reader(Reader(body).vector(3)))
    elif kind == _KEY_EXCHANGE:
        reply.group = _curve(body)
    elif kind == _REQUEST:
        reply.asks_certificate = True
    elif kind == _DONE:
        reply.done = True


def _read_server_hello(body: Reader, reply: Reply) -> None:
    version = body.number(2)
    reply.retry = body.take(32) == _RETRY
    reply.session_id = body.vector(1)
    reply.suite, reply.compression = body.number(2), body.number(1)
    reply.extensions = _extensions(Reader(body.vector(2))) if body else {}
    if _VERSIONS in reply.extensions:
        version = Reader(reply.extensions[_VERSIONS]).number(2)
    if not 0x0300 <= version <= TLS13:
        raise ReplyError(f"a ServerHello of version 0x{version:04X}")
    # In both of its forms a key share begins with the group (RFC 8446 4.2.8).
    if version > TLS12 and _KEY_SHARE in reply.extensions:
        reply.group = Reader(reply.extensions[_KEY_SHARE]).number(2)
    reply.version = version


def _extensions(body: Reader) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while body:
        kind = body.number(2)
        found[kind] = body.vector(2)
    return found


def _certificates(body: Reader) -> tuple[bytes, ...]:
    found = []
    while body:
        found.append(body.vector(3))
    return tuple(found)


def _curve(body: bytes) -> int | None:
    """Return the group of a ServerKeyExchange, None for one without (DHE, PSK)."""
    return int.from_bytes(body[1:3], "big") if body[:1] == bytes([_NAMED_CURVE]) else None


def _read_ssl2(data: bytes, reply: Reply) -> None:
    """Read SERVER-HELLO (4) or ERROR (0) of SSL 2, whose records begin with a bit that is set."""
    if len(data) < 3:
        return
    if data[2] == 4:
        reply.version = SSL2
    elif data[2] == 0:
        reply.alert = 40
    else:
        raise ReplyError(f"the answer is not TLS: it begins with {data[:16]!r}")


def tls13_certificates(message: bytes) -> tuple[bytes, ...]:
    """Return the chain in a Certificate message of TLS 1.3 (RFC 8446 4.4.2). Raises ReplyError."""
    body = Reader(message[4:])
    body.vector(1)
    entries, found = Reader(body.vector(3)), []
    while entries:
        found.append(entries.vector(3))
        entries.vector(2)
    return tuple(found)


def tls13_early_data(message: bytes) -> tuple[int, int]:
    """Return (bytes in the ticket, bytes of early data) of a NewSessionTicket (RFC 8446 4.6.1)."""
    body = Reader(message[4:])
    body.take(8)
    body.vector(1)
    ticket = body.vector(2)
    early = _extensions(Reader(body.vector(2))).get(_EARLY_DATA)
    return len(ticket), Reader(early).number(4) if early is not None else 0
