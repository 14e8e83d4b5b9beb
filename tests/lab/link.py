# SPDX-License-Identifier: GPL-3.0-or-later
"""TLS connections held by the test itself, for what must go on while a playbook runs."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

TIMEOUT = 60  # seconds
PAUSE = 0.2  # seconds between two questions, and between two lines of a stream
RECEIVE_BUFFER = 4096  # bytes


@dataclass(frozen=True)
class Door:
    """A gateway's HTTPS port, and whose certificates are believed there."""

    address: str
    server_name: str
    trust: ssl.SSLContext
    port: int = 443

    @contextmanager
    def open(self, session: ssl.SSLSession | None = None) -> Iterator[http.client.HTTPConnection]:
        """A new connection; its `sock` is the TLS socket. With a session, one to be resumed."""
        # Little room on our side, so that a stream nobody reads waits at the gateway, not here.
        plain = socket.socket()
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
        plain.settimeout(TIMEOUT)
        link = http.client.HTTPConnection(self.server_name)
        with plain:
            plain.connect((self.address, self.port))
            with self.trust.wrap_socket(
                plain, server_hostname=self.server_name, session=session
            ) as link.sock:
                yield link

    def ask(self, path: str, key: str, body: bytes | None = None) -> int:
        """The status of the answer to one request, on a connection of its own."""
        method = "GET" if body is None else "POST"
        with self.open() as link:
            link.request(method, path, body, {"X-API-Key": key, "Connection": "close"})
            with link.getresponse() as answer:
                answer.read()
                return answer.status

    def certificate(self) -> dict[str, Any]:
        """The certificate that is served now, as ssl.SSLSocket.getpeercert() tells it."""
        with self.open() as link:
            return link.sock.getpeercert()

    @contextmanager
    def stream(self, key: str) -> Iterator[Stream]:
        """An answer of the model that has begun.

        Over 1 MB, which is more than the sockets' buffers hold: a JSON text of 1000 characters,
        and with each of them what else it might have been.
        """
        body = {"model": "tiny", "prompt": "Hello", "format": {"type": "string", "minLength": 1000}}
        body |= {"logprobs": True, "top_logprobs": 20, "options": {"num_predict": 2000}}
        headers = {"X-API-Key": key, "Content-Type": "application/json"}
        with self.open() as link:
            link.request("POST", "/api/generate", json.dumps(body), headers)
            with link.getresponse() as answer:
                assert answer.status == 200, answer.read()
                stream = Stream(answer)
                try:
                    yield stream
                finally:
                    stream.stop()


class Stream:
    """An answer in lines, read so slowly that it is not over for minutes, until rest() is asked."""

    def __init__(self, answer: http.client.HTTPResponse) -> None:
        self.request_id = answer.headers["X-Request-Id"]
        self._answer = answer
        self._enough = threading.Event()
        self._reader = threading.Thread(target=self._trickle)
        self._reader.start()

    def _trickle(self) -> None:
        # A client that reads nothing would be cut off by nginx's send_timeout.
        while not self._enough.wait(PAUSE) and self._answer.readline():
            pass

    def stop(self) -> None:
        self._enough.set()
        self._reader.join()

    def rest(self) -> list[dict[str, Any]]:
        """Read to the end: what the model still had to say, one dict for each token."""
        self.stop()
        return [json.loads(line) for line in self._answer]


@contextmanager
def asking(doors: dict[str, Door], key: str) -> Iterator[Counter[tuple[str, int | str]]]:
    """Ask each gateway over and over while the block runs, on new connections.

    Counts (name, status), or (name, error) where there was no answer.
    """
    seen: Counter[tuple[str, int | str]] = Counter()
    over = threading.Event()

    def ask(name: str, door: Door) -> None:
        while not over.wait(PAUSE):
            try:
                seen[name, door.ask("/api/tags", key)] += 1
            except (OSError, http.client.HTTPException) as error:
                seen[name, repr(error)] += 1

    threads = [threading.Thread(target=ask, args=pair) for pair in doors.items()]
    for thread in threads:
        thread.start()
    try:
        yield seen
    finally:
        over.set()
        for thread in threads:
            thread.join()
