# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests that nobody tidies up: hand-written bytes over TCP or TLS, and what comes back.

HTTP libraries normalise paths, drop odd headers and refuse to send what an attacker sends. This
writes a request as it is and reads the answers by RFC 9112, section 6.3. An answer that does not
come is told apart by why: whoever judges a refusal must know a closed door from an empty house.
Whose certificate it is does not matter here, unless a secret is to be sent.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import re
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

__all__ = (
    "CLOSED", "GARBAGE", "LATE", "NO_TLS", "REFUSED", "SILENT", "UNREACHABLE", "Answer",
    "Endpoint", "NoConnectionError", "Sources", "Wire", "is_here", "no_answer", "read_answer",
    "request_line", "tls_context",
)  # fmt: skip

# Why there is no answer
CLOSED = "closed"  # the connection was closed or reset without one
SILENT = "silent"  # nothing came in time
REFUSED = "refused"  # nobody listens, or a filter says so
UNREACHABLE = "unreachable"  # no way to the address
NO_TLS = "no TLS"  # the handshake failed, as when the server refuses the name
GARBAGE = "no HTTP"  # something came that is no HTTP/1 answer
LATE = "not asked"  # the time for all requests was up

# More than this of an answer's head or body is not read.
_MOST_BYTES = 65536
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: |\Z)")
# RFC 9110, 15.2: interim answers precede the real one; 101 is no HTTP any more.
_SWITCHING = 101
_UNREACHABLE = {errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL, errno.EACCES}
_KEY = re.compile(r"llmk_[0-9A-Za-z]{4,}")
_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: names of headers in lower case, the body's first 64 KiB.

    Without a status line `status` is 0 and `why` says what happened; for GARBAGE the body is what
    came.
    """

    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    why: str = ""

    def __str__(self) -> str:
        return str(self.status) if self.status else self.why


def no_answer(why: str) -> Answer:
    """Return the answer that did not come."""
    return Answer(why=why)


class NoConnectionError(OSError):
    """Nobody to talk to; `why` is one of the words above."""

    def __init__(self, why: str, text: object) -> None:
        super().__init__(f"{why}: {text}")
        self.why = why


class _EndedError(Exception):
    """The answer ended before it was whole."""


def request_line(raw: bytes, hidden: Iterable[str] = ()) -> str:
    """Return a request's first line for people: escaped, cut, without keys and `hidden` words."""
    line = raw.partition(b"\n")[0].rstrip(b"\r").decode("ascii", "backslashreplace")
    line = "".join(char if char.isprintable() else f"\\x{ord(char):02x}" for char in line)
    for secret in filter(None, hidden):
        line = line.replace(secret, "(redacted)")
    line = _KEY.sub("llmk_(redacted)", line)
    return line if len(line) <= _SHOWN else f"{line[:_SHOWN]}... ({len(line)} characters)"


Receive = Callable[[], bytes]


def _fill(buffer: bytearray, receive: Receive) -> None:
    piece = receive()
    if not piece:
        raise _EndedError
    buffer += piece


def _take(buffer: bytearray, count: int) -> bytes:
    taken = bytes(buffer[:count])
    del buffer[:count]
    return taken


def _head(buffer: bytearray, receive: Receive) -> bytes | None:
    """Return the next head without its blank line, None when it is no HTTP/1 answer."""
    while True:
        if buffer and b"HTTP/1."[: len(buffer)] != bytes(buffer[:7]):
            return None
        if found := _HEAD_END.search(buffer):
            return _HEAD_END.split(_take(buffer, found.end()))[0]
        if len(buffer) > _MOST_BYTES:
            return None
        _fill(buffer, receive)


def _until_end(buffer: bytearray, receive: Receive) -> bytes:
    with contextlib.suppress(_EndedError, OSError):
        while len(buffer) < _MOST_BYTES:
            _fill(buffer, receive)
    return _take(buffer, len(buffer))


def _exactly(buffer: bytearray, receive: Receive, count: int) -> bytes:
    while len(buffer) < count:
        _fill(buffer, receive)
    return _take(buffer, count)


def _chunks(buffer: bytearray, receive: Receive) -> bytes:
    """Return a chunked body (RFC 9112, 7.1), trailers thrown away."""
    body = b""
    while True:
        line = _line(buffer, receive)
        size = int(line.partition(b";")[0].strip() or b"x", 16)
        if size < 0 or len(body) + size > _MOST_BYTES:
            raise ValueError(f"a chunk of {size} bytes")
        if size == 0:
            while _line(buffer, receive):
                """A trailer."""
            return body
        body += _exactly(buffer, receive, size)
        _line(buffer, receive)


def _line(buffer: bytearray, receive: Receive) -> bytes:
    while (end := buffer.find(b"\n")) < 0:
        if len(buffer) > _MOST_BYTES:
            raise ValueError("an endless line")
        _fill(buffer, receive)
    return _take(buffer, end + 1).rstrip(b"\r\n")


def _headers(lines: Iterable[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, _colon, value = line.decode("latin-1").partition(":")
        known = headers.get(name.strip().lower())
        headers[name.strip().lower()] = f"{known}, {value.strip()}" if known else value.strip()
    return headers


def read_answer(buffer: bytearray, receive: Receive, method: str) -> tuple[Answer, bool]:
    """Return the next answer to a request of `method`, and whether another may follow it.

    `buffer` is what has come already, and keeps what belongs to the next answer; `receive` gives
    the next bytes, none at the end, and raises OSError as a socket does.
    """
    try:
        return _read(buffer, receive, method)
    except ValueError:
        return Answer(0, {}, _take(buffer, len(buffer)), GARBAGE), False
    except TimeoutError:
        return no_answer(SILENT), False
    except (_EndedError, OSError):
        return no_answer(CLOSED), False


def _read(buffer: bytearray, receive: Receive, method: str) -> tuple[Answer, bool]:
    while True:
        head = _head(buffer, receive)
        first, *lines = re.split(rb"\r?\n", head) if head is not None else (b"",)
        found = _STATUS.match(first)
        if found is None:
            rest = (head or b"") + _until_end(buffer, receive)
            return Answer(0, {}, rest[:_MOST_BYTES], GARBAGE), False
        status, headers = int(found[2]), _headers(lines)
        if status >= 200 or status == _SWITCHING:
            break
    body, ended = _body(buffer, receive, method, status, headers)
    again = not ended and found[1] == b"1" and "close" not in headers.get("connection", "").lower()
    return Answer(status, headers, body), again


def _body(
    buffer: bytearray, receive: Receive, method: str, status: int, headers: Mapping[str, str]
) -> tuple[bytes, bool]:
    """Return the body, and whether the connection is of no more use after it."""
    if method == "HEAD" or status in (204, 304):
        return b"", False
    try:
        if "chunked" in headers.get("transfer-encoding", "").lower():
            return _chunks(buffer, receive), False
        length = headers.get("content-length", "")
        if length.isdecimal() and int(length) <= _MOST_BYTES:
            return _exactly(buffer, receive, int(length)), False
    except (ValueError, _EndedError, OSError):
        # The status is what counts: of a body that breaks off, what came of it.
        return _take(buffer, len(buffer))[:_MOST_BYTES], True
    return _until_end(buffer, receive)[:_MOST_BYTES], True


class Wire:
    """An open connection. `open` says whether it may be asked again."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray()
        self.open = True

    def send(self, raw: bytes) -> None:
        """Send bytes as they are. A server that hangs up early may have answered all the same."""
        with contextlib.suppress(OSError):
            self._socket.sendall(raw)

    def answer(self, method: str, within: float) -> Answer:
        """Return the next answer, within so many seconds."""
        deadline = time.monotonic() + within

        def receive() -> bytes:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError
            self._socket.settimeout(left)
            return self._socket.recv(16384)

        answer, self.open = read_answer(self._buffer, receive, method)
        return answer

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_unused: object) -> None:
        self.close()


def tls_context(ca_file: str = "", certificate: str = "", key: str = "") -> ssl.SSLContext:
    """Return a client's TLS settings: with `ca_file` the server must prove its name, else nothing.

    Weak certificates are let pass: they are another check's finding, and must not hide this one.
    Raises OSError (ssl.SSLError too) for files that cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if ca_file:
        context.load_verify_locations(ca_file)
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
    if certificate:
        context.load_cert_chain(certificate, key or None)
    return context


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """Where to connect, and by which name the server is called in the handshake."""

    address: str
    port: int
    context: ssl.SSLContext | None = None
    server_name: str = ""
    timeout: float = 5.0

    def dial(self, source: str | None = None, name: str | None = None) -> Wire:
        """Return a connection, from address `source`, with another server name if given.

        Raises NoConnectionError.
        """
        connection = self._connect(source)
        if self.context is None:
            return Wire(connection)
        try:
            # Before wrap_socket has taken the connection: a name that is none would leave it open.
            wanted = (self.server_name if name is None else name).encode("idna")
            return Wire(self.context.wrap_socket(connection, server_hostname=wanted or None))
        except TimeoutError as exc:
            connection.close()
            raise NoConnectionError(SILENT, exc) from exc
        except (OSError, ValueError) as exc:
            connection.close()
            raise NoConnectionError(NO_TLS, exc) from exc

    def _connect(self, source: str | None) -> socket.socket:
        try:
            if source:
                return _connect_from(source, (self.address, self.port), self.timeout)
            return socket.create_connection((self.address, self.port), self.timeout)
        except ConnectionRefusedError as exc:
            raise NoConnectionError(REFUSED, exc) from exc
        except TimeoutError as exc:
            raise NoConnectionError(SILENT, exc) from exc
        except (OSError, ValueError) as exc:
            gone = isinstance(exc, OSError) and exc.errno == errno.ECONNRESET
            raise NoConnectionError(CLOSED if gone else UNREACHABLE, exc) from exc


def is_here(address: str) -> bool:
    """Say whether an IPv4 or IPv6 address is one of this host's, loopback included."""
    try:
        family = socket.AF_INET6 if ipaddress.ip_address(address).version == 6 else socket.AF_INET
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.bind((address, 0))
    except (OSError, ValueError):
        return False
    return True


# Linux's ip(7), since 4.2; Python 3.12 names it.
_BIND_ADDRESS_NO_PORT = 24


def _connect_from(source: str, place: tuple[str, int], timeout: float) -> socket.socket:
    """Return a connection from an IPv4 address of this host's.

    Its port is that of the connection only, and free for others as soon as it has ended: a program
    that starts meanwhile must find the port that it listens on.
    """
    connection = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        connection.setsockopt(socket.IPPROTO_IP, _BIND_ADDRESS_NO_PORT, 1)
        connection.settimeout(timeout)
        connection.bind((source, 0))
        connection.connect(place)
    except OSError:
        connection.close()
        raise
    return connection


class Sources:
    """Addresses to ask from. On the host itself each request may come from one of its own.

    A gateway counts by address, so that a hundred requests from one of them would prove the limit
    and nothing else. All of 127.0.0.0/8 is the host's own (RFC 1122, 3.2.1.3), and Linux lets any
    of it be a source. A run starts elsewhere than the one before, whose requests still count.
    """

    def __init__(self, address: str) -> None:
        self.many = ":" not in address and is_here(address)
        self._next = secrets.randbelow(1 << 21)
        self._lock = threading.Lock()

    def take(self) -> str | None:
        """Return an address that nobody has asked from yet, None where there is only one."""
        if not self.many:
            return None
        with self._lock:
            self._next += 1
            network, host = divmod(self._next, 254)
        # 127.64.0.1 to 127.127.255.254: no address that anybody uses, no network's first or last.
        return f"127.{64 + (network >> 8) % 64}.{network & 255}.{1 + host}"
