# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A whole TLS connection, by Python's ssl: what a server says behind encryption.

Only what it says is evidence. Where Python cannot connect, that may be its own policy: that is
ProbeError, and never a refusal, unless the server itself sent an alert.
"""

from __future__ import annotations

import math
import re
import ssl
import time
import typing as t
from dataclasses import dataclass, field

from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.client_hello import (
    TLS13,
    is_address,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.connection import (
    ProbeError,
    Target,
    http_status,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.server_reply import (
    ReplyError,
    tls13_certificates,
    tls13_early_data,
)

__all__ = ("Visit", "Visitor", "verified")

_MOST_BYTES = 64 * 1024
# No method is in lower case: it is refused before anything is done with it.
_GARBLED = b"verify_tls\r\n\r\n"
# Seconds to wait for that, since some servers wait for more
_PATIENCE = 1.0
_HANDSHAKE = 22
_TICKET, _CERTIFICATE, _REQUEST = 4, 11, 13
# The reasons by which OpenSSL tells an alert that came in (openssl/ssl/ssl_err.c)
_ALERT = re.compile(r"ALERT|^TLSV1_(UNRECOGNIZED_NAME|UNSUPPORTED_EXTENSION|CERTIFICATE)")


@dataclass
class Visit:
    """What was seen of one connection."""

    # The alert that the server sent, by OpenSSL's name of it
    refusal: str = ""
    version: str = ""
    alpn: str = ""
    chain: tuple[bytes, ...] = ()
    # None: not known, this Python does not tell messages
    asks_certificate: bool | None = None
    # Bytes of the longest ticket, and of early data that one of them allows
    ticket: int = 0
    early_data: int = 0
    resumed: bool = False
    # None: no answer of HTTP came
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    session: ssl.SSLSession | None = None


@dataclass(frozen=True)
class Visitor:
    """Connects to the target by a name, without verifying whose certificate is shown.

    `host` is the name in requests, where it is not the same.
    """

    target: Target
    server_name: str
    host: str = ""

    def request(self) -> bytes:
        """Return a request without a key."""
        host = self.host or self.server_name
        host = f"[{host}]" if ":" in host else host
        lines = ("GET / HTTP/1.1", f"Host: {host}", "User-Agent: verify_tls", "Accept: */*")
        return "\r\n".join((*lines, "Connection: close", "", "")).encode("ascii", "replace")

    def visit(
        self,
        version: ssl.TLSVersion | None = None,
        *,
        protocols: t.Sequence[str] = (),
        request: bytes = b"",
        patience: float = math.inf,
        session: ssl.SSLSession | None = None,
        context: ssl.SSLContext | None = None,
    ) -> Visit:
        """Connect, and send a request if there is one, waiting for so many seconds at most.

        Raises ProbeError when the connection does not come about.
        """
        seen, messages = Visit(), list[tuple[int, bytes]]()
        context = context or _context(version, protocols)
        _overhear(context, messages)
        end = self.target.end()
        name = None if is_address(self.server_name) else self.server_name or None
        with self.target.connected(end) as link:
            try:
                with context.wrap_socket(link, server_hostname=name, session=session) as secured:
                    _look(secured, seen)
                    if request:
                        secured.sendall(request)
                        _read_answer(secured, seen, min(end, time.monotonic() + patience))
                    seen.session = secured.session
            except ssl.SSLError as exc:
                if not _ALERT.search(exc.reason or ""):
                    raise ProbeError(f"Python's ssl: {exc.reason or exc}") from exc
                seen.refusal = str(exc.reason)
            except (ConnectionResetError, BrokenPipeError):
                if not seen.version:
                    raise ProbeError("the server closed the connection in the handshake") from None
        _understand(messages, seen)
        return seen

    def twice(self, version: ssl.TLSVersion) -> tuple[Visit, bool]:
        """Make a request; say as well whether a session of this version is ever resumed.

        nginx forgets the session of whoever makes a request without the certificate that it wants,
        so one is tried of a connection without a proper request, too. Its answer comes behind the
        tickets of TLS 1.3, which Python only sees when it reads on.
        """
        context = _context(version, ())
        first = self.visit(context=context, request=self.request())
        if first.refusal or self._holds(context, first.session):
            return first, not first.refusal
        other = self.visit(context=context, request=_GARBLED, patience=_PATIENCE)
        return first, self._holds(context, other.session)

    def _holds(self, context: ssl.SSLContext, session: ssl.SSLSession | None) -> bool:
        return session is not None and self.visit(context=context, session=session).resumed


def _context(version: ssl.TLSVersion | None, protocols: t.Sequence[str]) -> ssl.SSLContext:
    """Return settings that refuse as little as can be, since what we refuse is not measured."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("ALL:@SECLEVEL=0")
    if version is not None:
        context.minimum_version = context.maximum_version = version
    if protocols:
        context.set_alpn_protocols([*protocols])
    return context


def _overhear(context: ssl.SSLContext, messages: list[tuple[int, bytes]]) -> None:
    """Have the server's handshake messages of TLS 1.3 written down.

    Python keeps the hook for debugging, and therefore private; without it we know less.
    """
    if not hasattr(type(context), "_msg_callback"):
        return

    def hear(
        _link: object, direction: str, version: int, kind: int, message: int, data: bytes
    ) -> None:
        if direction == "read" and (version, kind) == (TLS13, _HANDSHAKE):
            messages.append((int(message), bytes(data)))

    context._msg_callback = hear  # type: ignore[attr-defined]


def _look(secured: ssl.SSLSocket, seen: Visit) -> None:
    seen.version = secured.version() or ""
    seen.alpn = secured.selected_alpn_protocol() or ""
    seen.resumed = bool(secured.session_reused)
    shown = secured.getpeercert(binary_form=True)
    seen.chain = (shown,) if shown else ()


def _read_answer(secured: ssl.SSLSocket, seen: Visit, end: float) -> None:
    """Read the answer until the server closes, its announced end, or the time is over."""
    data = b""
    try:
        while len(data) < _MOST_BYTES and not _is_whole(data):
            left = end - time.monotonic()
            if left <= 0:
                break
            secured.settimeout(left)
            piece = secured.recv(16384)
            if not piece:
                break
            data += piece
    except (TimeoutError, ssl.SSLEOFError, ConnectionResetError):
        # What has come so far is judged; nothing is `status` None.
        pass
    seen.status = http_status(data)
    head, _blank, seen.body = data.partition(b"\r\n\r\n")
    for line in head.decode("latin-1").split("\r\n")[1:]:
        name, _colon, value = line.partition(":")
        seen.headers[name.strip().lower()] = value.strip()


def _is_whole(data: bytes) -> bool:
    head, blank, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"\r\ncontent-length: *(\d{1,9}) *(\r|$)", head, re.IGNORECASE)
    return bool(blank) and found is not None and len(body) >= int(found[1])


def _understand(messages: list[tuple[int, bytes]], seen: Visit) -> None:
    """Add what the messages of TLS 1.3 say; before, the hellos of our own say it."""
    if not messages:
        return
    seen.asks_certificate = any(kind == _REQUEST for kind, _data in messages)
    try:
        for kind, data in messages:
            if kind == _CERTIFICATE:
                seen.chain = tls13_certificates(data)
            elif kind == _TICKET:
                ticket, early = tls13_early_data(data)
                seen.ticket = max(seen.ticket, ticket)
                seen.early_data = max(seen.early_data, early)
    except ReplyError as exc:
        raise ProbeError(str(exc)) from exc


def verified(target: Target, server_name: str, ca_file: str) -> str:
    """Return why the certificate does not hold before these CAs and by this name, "" if it does.

    Raises ProbeError when that cannot be said.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(cafile=ca_file)
    except (OSError, ssl.SSLError) as exc:
        raise ProbeError(f"{ca_file}: {exc.strerror or exc}") from exc
    end = target.end()
    with target.connected(end) as link:
        try:
            with context.wrap_socket(link, server_hostname=server_name):
                return ""
        except ssl.SSLCertVerificationError as exc:
            return exc.verify_message or str(exc)
        except ssl.SSLError as exc:
            raise ProbeError(f"Python's ssl: {exc.reason or exc}") from exc
