# SPDX-License-Identifier: GPL-3.0-or-later
"""The list of models that a key may use, made of a real server's list."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import pytest

pytest.importorskip("httptools")

from cryptography.x509.oid import ExtendedKeyUsageOID
from llm_key_validator.config import BackendTls, LlmServer
from llm_key_validator.model_list import UpstreamError, fetch, only_allowed

from tests.lab.certificates import Authority

SERVER = ExtendedKeyUsageOID.SERVER_AUTH
TAGS = {
    "models": [
        {"name": "tiny:latest", "model": "tiny:latest", "size": 1},
        {"name": "secret:latest", "model": "secret:latest", "size": 2},
        {"name": "tiny:latest", "model": "secret:latest"},
        {"name": "tiny", "model": "tiny"},
        {"name": "../odd", "model": "../odd"},
        {"size": 3},
    ]
}
OPENAI = {"object": "list", "data": [{"id": "tiny:latest"}, {"id": "secret:latest"}]}


def is_tiny(name: str) -> bool:
    return name == "tiny:latest"


def test_only_allowed_models_stay_and_the_rest_of_the_answer_too() -> None:
    tags = json.loads(only_allowed(json.dumps(TAGS).encode(), is_tiny))
    assert tags == {"models": [TAGS["models"][0], TAGS["models"][3]]}
    listed = json.loads(only_allowed(json.dumps(OPENAI).encode(), is_tiny))
    assert listed == {"object": "list", "data": [{"id": "tiny:latest"}]}
    # llama.cpp
    both = json.loads(only_allowed(json.dumps({**TAGS, **OPENAI}).encode(), is_tiny))
    assert both["data"] == listed["data"]
    assert both["models"] == tags["models"]
    assert json.loads(only_allowed(b'{"models":null}', is_tiny)) == {"models": []}


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b"7", b'{"models": 7}', b'{"models": [7]}', b'{"data": ["tiny"]}', b"\xff"],
)
def test_what_is_no_known_list_is_an_error(text: bytes) -> None:
    with pytest.raises(UpstreamError):
        only_allowed(text, is_tiny)


def ask(answer: bytes, key_file: str = "") -> tuple[bytes, bytes]:
    """Fetch from a server that gives this answer; return what it was asked and the body."""
    asked = b""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked = await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        writer.close()

    async def run() -> bytes:
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        async with server:
            llm = LlmServer(backend=f"127.0.0.1:{port}", key_file=key_file)
            return await fetch(llm, "/api/tags")

    body = asyncio.run(run())
    return asked, body


def test_a_server_that_wants_a_key_is_shown_it(tmp_path: Path) -> None:
    file = tmp_path / "key"
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
    with pytest.raises(UpstreamError):
        ask(answer, str(file))
    file.write_text("sk-theirs\n")
    asked, body = ask(answer, str(file))
    assert body == b"{}"
    assert b"\r\nAuthorization: Bearer sk-theirs\r\n" in asked
    assert b"Authorization" not in ask(answer)[0]


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    ],
)
def test_fetches_a_body_however_it_is_framed(answer: bytes) -> None:
    asked, body = ask(answer)
    assert body == b"{}"
    assert asked.startswith(b"GET /api/tags HTTP/1.1\r\nHost: localhost:11434\r\n")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{}",
        b"\x16\x03\x01",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n" + b"a" * 9_000_000,
    ],
)
def test_anything_else_is_an_error(answer: bytes) -> None:
    with pytest.raises(UpstreamError):
        ask(answer)


def test_nobody_there_is_an_error() -> None:
    with pytest.raises(UpstreamError):
        asyncio.run(fetch(LlmServer(backend="127.0.0.1:1"), "/api/tags"))


def files(folder: Path, **texts: str) -> dict[str, str]:
    for name, text in texts.items():
        (folder / f"{name}.pem").write_text(text)
    return {name: str(folder / f"{name}.pem") for name in texts}


@pytest.mark.parametrize(
    ("name", "trusted", "shown", "good"),
    [
        ("llm.example.com", True, True, True),
        ("other.example.com", True, True, False),
        ("llm.example.com", False, True, False),
        ("llm.example.com", True, False, False),
    ],
)
def test_tls_in_which_both_prove_who_they_are(
    tmp_path: Path, name: str, trusted: bool, shown: bool, good: bool
) -> None:
    authority = Authority()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.verify_flags &= ~ssl.VERIFY_X509_STRICT
    authority.issue(host="llm.example.com", usage=SERVER).load(server_side, tmp_path)
    server_side.load_verify_locations(cadata=authority.pem)
    server_side.verify_mode = ssl.CERT_REQUIRED
    client = authority.issue("gateway")
    ca = authority.pem if trusted else Authority().pem
    paths = files(tmp_path, ca=ca, certificate=client.pem(), key=client.key_pem())
    tls = BackendTls(name, **(paths if shown else {"ca": paths["ca"]}))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async def run() -> bytes:
        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=server_side)
        port = server.sockets[0].getsockname()[1]
        async with server:
            return await fetch(LlmServer(backend=f"127.0.0.1:{port}", tls=tls), "/api/tags")

    if good:
        assert asyncio.run(run()) == b"{}"
    else:
        with pytest.raises(UpstreamError):
            asyncio.run(run())


def test_another_server_is_asked_while_the_first_does_not_answer() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        writer.close()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 Loading\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    async def run() -> bytes:
        first = await asyncio.start_server(refuse, "127.0.0.1", 0)
        last = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with first, last:
            ports = [one.sockets[0].getsockname()[1] for one in (first, last)]
            more = tuple(f"127.0.0.1:{port}" for port in ports)
            server = LlmServer(backend="127.0.0.1:1", more_backends=more)
            return await fetch(server, "/api/tags")

    assert asyncio.run(run()) == b"{}"
