# SPDX-License-Identifier: GPL-3.0-or-later
"""Sign in to PostgreSQL, Redis or Valkey once, and say in one sentence what went wrong.

Usage: sign_in.py, with the address (postgresql://..., redis://...) as its input. Needs no client
program, since a host that has none yet is asked as well. No answer shows the password.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import secrets
import socket
import ssl
import struct
import sys
import typing as t
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

SECONDS = 10
PORTS = {"postgres": 5432, "postgresql": 5432, "redis": 6379, "rediss": 6379}
TLS_REQUEST = struct.pack("!II", 8, 80877103)
PROTOCOL = 196608  # 3.0
SASL, SASL_CONTINUE, SASL_FINAL, SIGNED_IN = 10, 11, 12, 0


class RefusedError(Exception):
    """What the server said in place of a welcome."""


def scram_proof(password: str, first: str, challenge: str) -> str:
    """Return the answer to a server's challenge (RFC 7677); `first` is what the client said."""
    parts = dict(part.split("=", 1) for part in challenge.split(","))
    salted = hashlib.pbkdf2_hmac(
        "sha256", password.encode(), base64.b64decode(parts["s"]), int(parts["i"])
    )
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    answer = f"c=biws,r={parts['r']}"
    signature = hmac.digest(
        hashlib.sha256(client_key).digest(), f"{first},{challenge},{answer}".encode(), "sha256"
    )
    proof = bytes(a ^ b for a, b in zip(client_key, signature, strict=True))
    return f"{answer},p={base64.b64encode(proof).decode()}"


def message(reader: t.BinaryIO) -> tuple[bytes, bytes]:
    """Read one message of PostgreSQL: its kind and its body."""
    head = reader.read(5)
    if len(head) < 5:
        raise RefusedError("it ends the connection")
    return head[:1], reader.read(struct.unpack("!I", head[1:])[0] - 4)


def welcome(reader: t.BinaryIO) -> tuple[int, bytes]:
    """Read the next step of signing in; what is no such step is an error or a notice."""
    while True:
        kind, body = message(reader)
        if kind == b"R":
            return struct.unpack("!I", body[:4])[0], body[4:]
        if kind == b"E":
            fields = {part[:1]: part[1:] for part in body.split(b"\0")}
            raise RefusedError(fields.get(b"M", b"an error").decode(errors="replace"))
        if kind == b"Z":
            return SIGNED_IN, b""


def postgresql(link: socket.socket, url: SplitResult) -> None:
    """Sign in with SCRAM. A server that asks for something weaker is not told the password."""
    if parse_qs(url.query).get("sslmode") != ["disable"]:
        link.sendall(TLS_REQUEST)
        if link.recv(1) == b"S":
            # As Prisma does it: the certificate is looked at where the address says so.
            context = ssl._create_unverified_context()  # noqa: S323
            link = context.wrap_socket(link, server_hostname=url.hostname)
    reader = link.makefile("rb")
    words = ["user", unquote(url.username or ""), "database", unquote(url.path.lstrip("/")), "", ""]
    start = struct.pack("!I", PROTOCOL) + "\0".join(words).encode()
    link.sendall(struct.pack("!I", len(start) + 4) + start)
    step, _mechanisms = welcome(reader)
    if step == SASL:
        first = f"n=,r={secrets.token_urlsafe(18)}"
        begin = b"SCRAM-SHA-256\0" + struct.pack("!I", len(first) + 3) + b"n,," + first.encode()
        link.sendall(b"p" + struct.pack("!I", len(begin) + 4) + begin)
        _step, challenge = welcome(reader)
        proof = scram_proof(unquote(url.password or ""), first, challenge.decode()).encode()
        link.sendall(b"p" + struct.pack("!I", len(proof) + 4) + proof)
        for wanted in (SASL_FINAL, SIGNED_IN):
            if welcome(reader)[0] != wanted:
                raise ValueError(wanted)
    elif step != SIGNED_IN:
        return
    # A database that is not there is said only now.
    welcome(reader)


def redis(link: socket.socket, url: SplitResult) -> None:
    """Sign in and ask for a sign of life."""
    if url.scheme == "rediss":
        link = ssl.create_default_context().wrap_socket(link, server_hostname=url.hostname)
    reader = link.makefile("rb")
    user = [unquote(url.username)] if url.username else []
    sign_in = [["AUTH", *user, unquote(url.password)]] if url.password else []
    for words in [*sign_in, ["PING"]]:
        parts = "".join(f"${len(word.encode())}\r\n{word}\r\n" for word in words)
        link.sendall(f"*{len(words)}\r\n{parts}".encode())
        answer = reader.readline().decode(errors="replace").strip()
        if not answer.startswith("+"):
            raise RefusedError(answer.lstrip("-") or "it ends the connection")


def main() -> None:
    """Raise SystemExit with the sentence when the door stays shut."""
    url = urlsplit(sys.stdin.read().strip())
    place = f"{url.hostname} port {url.port or PORTS[url.scheme]}"
    speak = redis if url.scheme.startswith("redis") else postgresql
    try:
        link = socket.create_connection((url.hostname, url.port or PORTS[url.scheme]), SECONDS)
        with contextlib.closing(link):
            speak(link, url)
    except RefusedError as error:
        raise SystemExit(f"{place} answers, and lets nobody in: {error}") from None
    except OSError as error:
        raise SystemExit(f"nothing answers on {place}: {error}") from None
    except (KeyError, ValueError, struct.error):
        raise SystemExit(f"what answers on {place} is something else") from None


if __name__ == "__main__":
    main()
