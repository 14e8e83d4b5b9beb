# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where a TLS server is, and how to get an answer out of it within a time."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.server_reply import (
    Reply,
    ReplyError,
    parse_reply,
)

__all__ = ("ProbeError", "Target", "http_status")

# The hello, a chain of certificates and a key exchange take a few thousand.
_MOST_BYTES = 256 * 1024


class ProbeError(Exception):
    """There is no answer from which anything can be concluded; the message says why."""


class SilentError(ProbeError):
    """The server closed the connection without a word."""


@dataclass(frozen=True)
class Target:
    """One server. `timeout` in seconds for one exchange, `deadline` (time.monotonic) for all."""

    address: str
    port: int
    timeout: float
    deadline: float

    def end(self) -> float:
        """Return when an exchange that begins now must be over. Raises ProbeError: too late."""
        now = time.monotonic()
        if now >= self.deadline:
            raise ProbeError("there was no time left for it: the server is too slow")
        return min(now + self.timeout, self.deadline)

    @contextlib.contextmanager
    def connected(self, end: float) -> Iterator[socket.socket]:
        """Give a connection, and close it. Raises ProbeError for what the system says."""
        try:
            with socket.create_connection((self.address, self.port), _left(end)) as link:
                yield link
        except TimeoutError:
            raise ProbeError(f"no answer within {self.timeout:g} seconds") from None
        except OSError as exc:
            raise ProbeError(exc.strerror or str(exc)) from exc

    def ask(self, hello: bytes, *, whole: bool = False) -> Reply:
        """Send a hello and return the answer: up to the ServerHello, or all that is in the clear.

        Raises ProbeError when there is none, or one that is not TLS.
        """
        try:
            return self._ask(hello, whole)
        except SilentError:
            # A server that is overrun closes, too. One that means it does it again.
            return self._ask(hello, whole)

    def _ask(self, hello: bytes, whole: bool) -> Reply:
        end, data = self.end(), b""
        with self.connected(end) as link:
            link.sendall(hello)
            while True:
                piece = self._receive(link, end)
                data += piece
                try:
                    reply = parse_reply(data)
                except ReplyError as exc:
                    raise ProbeError(str(exc)) from exc
                if reply.is_over(whole):
                    return reply
                if not piece:
                    raise SilentError("the server closed the connection without a word")
                if len(data) > _MOST_BYTES:
                    raise ProbeError("an answer without an end")

    def _receive(self, link: socket.socket, end: float) -> bytes:
        link.settimeout(_left(end))
        try:
            return link.recv(65536)
        except ConnectionResetError:
            return b""

    def say_plainly(self, request: bytes) -> bytes:
        """Send a request without TLS; return the first bytes of the answer, none if it was closed.

        Raises ProbeError when the server neither answers nor closes.
        """
        end = self.end()
        with self.connected(end) as link:
            link.sendall(request)
            return self._receive(link, end)


def _left(end: float) -> float:
    """Return the seconds until then. Raises TimeoutError when there are none."""
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def http_status(answer: bytes) -> int | None:
    """Return the status of an answer of HTTP/1, None when it is none."""
    words = answer[:64].split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        return None
    return int(words[1])
