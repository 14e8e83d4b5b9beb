# SPDX-License-Identifier: GPL-3.0-or-later
"""The one answer that this service composes itself: the models that a key may use.

The LLM server's own list is fetched and everything else is taken out of it.
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import httptools

from .bodies import BodyError
from .bodies.names import canonical_name
from .config import BackendTls, LlmServer

Matcher = Callable[[str], bool]

_MAX_BYTES = 4 * 1024 * 1024
_SECONDS = 5.0
# Where the lists stand, and which members name a model: Ollama's /api/tags and /api/ps, and
# OpenAI's /v1/models
_LISTS = {"models": ("name", "model"), "data": ("id",)}


class UpstreamError(Exception):
    """The LLM server gave no list that can be filtered."""


class _Response:
    """Collects one response for httptools."""

    def __init__(self) -> None:
        self.body: list[bytes] = []
        self.complete = False

    def on_body(self, body: bytes) -> None:
        self.body.append(body)

    def on_message_complete(self) -> None:
        self.complete = True


async def fetch(server: LlmServer, path: str) -> bytes:
    """GET ``path`` from the first LLM server that answers. Raises UpstreamError."""
    backends = (server.backend, *server.more_backends)
    for backend in backends:
        try:
            async with asyncio.timeout(_SECONDS / len(backends)):
                return await _fetch(server, backend, path)
        except (OSError, TimeoutError, httptools.HttpParserError, UpstreamError):
            continue
    raise UpstreamError


@lru_cache(maxsize=1)
def _trust(tls: BackendTls) -> ssl.SSLContext:
    """Return what the connection is made with. Files that change are read after a restart."""
    context = ssl.create_default_context(cafile=tls.ca)
    # What nginx takes on the same way is good enough here; Python 3.13 would want more of a CA.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    if tls.certificate:
        context.load_cert_chain(tls.certificate, tls.key)
    return context


def _authorization(server: LlmServer) -> str:
    """Return the header line with the LLM server's own key. Raises OSError."""
    if not server.key_file:
        return ""
    return f"Authorization: Bearer {Path(server.key_file).read_text(encoding='ascii').strip()}\r\n"


async def _fetch(server: LlmServer, backend: str, path: str) -> bytes:
    host, _unused, port = backend.rpartition(":")
    tls = server.tls
    reader, writer = await asyncio.open_connection(
        host.strip("[]"),
        int(port),
        ssl=_trust(tls) if tls else None,
        server_hostname=tls.name if tls else None,
    )
    try:
        head = f"GET {path} HTTP/1.1\r\nHost: {server.host_header}\r\nAccept: application/json\r\n"
        head += _authorization(server)
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        content = await reader.read(1)
        while len(content) <= _MAX_BYTES and (more := await reader.read(65536)):
            content += more
    finally:
        writer.close()
    response = _Response()
    parser = httptools.HttpResponseParser(response)
    parser.feed_data(content)
    if parser.get_status_code() != 200 or not response.complete:
        raise UpstreamError
    return b"".join(response.body)


def only_allowed(text: bytes, allowed: Matcher) -> bytes:
    """Return the list in ``text`` with only the models that ``allowed`` lets pass.

    llama.cpp's answer has both lists. One of another form than the two is no list: UpstreamError.
    """
    try:
        document = json.loads(text)
        found = [item for item in _LISTS.items() if item[0] in document]
        if not found:
            raise ValueError("no list of models")
        for name, members in found:
            models = document[name] or []
            document[name] = [one for one in models if _is_allowed(one, members, allowed)]
    except (KeyError, RecursionError, TypeError, ValueError):
        raise UpstreamError from None
    return json.dumps(document).encode()


def _is_allowed(entry: object, members: tuple[str, ...], allowed: Matcher) -> bool:
    if not isinstance(entry, dict):
        raise TypeError("a model is an object")
    names = [entry[member] for member in members if member in entry]
    try:
        return bool(names) and all(allowed(canonical_name(name)) for name in names)
    except BodyError:
        return False
