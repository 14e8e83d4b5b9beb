# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers as they come off the wire, whole, in pieces, or broken."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import subprocess
import threading

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import http_probe
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import (
    Endpoint,
    NoConnectionError,
    Sources,
    read_answer,
    request_line,
    tls_context,
)
from hypothesis import given
from hypothesis import strategies as st


def answers(data, methods=("GET",), size=7):
    """Read all answers out of bytes that come `size` at a time and then end."""
    pieces = iter([data[at : at + size] for at in range(0, len(data), size)])
    buffer = bytearray()
    return [read_answer(buffer, lambda: next(pieces, b""), method) for method in methods]


@pytest.mark.parametrize(
    ("data", "status", "body", "again"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", True),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: close\r\n\r\nhi", 200, b"hi", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nhi", 200, b"hi", False),
        (b"HTTP/1.1 404\nContent-Length: 0\n\n", 404, b"", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
        (b"HTTP/1.1 401 No\r\n\r\nuntil the end", 401, b"until the end", False),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nX: y\r\n\r\n",
            200,
            b"abcde",
            True,
        ),
        (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 No\r\nContent-Length: 1\r\n\r\nx",
            403,
            b"x",
            True,
        ),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n", 101, b"", False),
        # What breaks off has a status all the same.
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhi", 200, b"hi", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 200, b"", False),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\n", 200, b"", False),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_an_answer_is_read_as_the_rfc_says(data, status, body, again, size):
    ((answer, more),) = answers(data, size=size)
    assert (answer.status, answer.body, more, answer.why) == (status, body, again, "")


def test_answers_follow_each_other():
    one = b"HTTP/1.1 404 No\r\nContent-Length: 3\r\nX: 1\r\nX: 2\r\n\r\n"
    (head, _more), (got, _again), (ended, _end) = answers(
        one + one + b"abc", ("HEAD", "GET", "GET")
    )
    assert (head.status, head.body, head.headers["x"]) == (404, b"", "1, 2")
    assert (got.status, got.body) == (404, b"abc")
    assert (ended.status, ended.why) == (0, http_probe.CLOSED)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"HTTP",
    ],
)
def test_nothing_whole_is_a_connection_that_closed(data):
    ((answer, more),) = answers(data)
    assert (answer.status, answer.why, more) == (0, http_probe.CLOSED, False)


@pytest.mark.parametrize(
    "data", [b'{"models":[]}', b"HTTP/2 200\r\n\r\n", b"\x15\x03\x01\0\2", b"HTTP/1.1 abc\r\n\r\n"]
)
def test_what_is_no_http_is_kept_to_be_looked_at(data):
    ((answer, more),) = answers(data)
    assert (answer.status, answer.why, more) == (0, http_probe.GARBAGE, False)
    assert answer.body[:4] == data[:4]


def test_silence_and_a_reset_are_told_apart():
    def silent():
        raise TimeoutError

    def reset():
        raise ConnectionResetError

    assert read_answer(bytearray(), silent, "GET")[0].why == http_probe.SILENT
    assert read_answer(bytearray(), reset, "GET")[0].why == http_probe.CLOSED


def test_an_endless_answer_is_cut():
    head = b"HTTP/1.1 200 OK\r\n"
    for start in (head + b"\r\n", head + b"Content-Length: 99999999\r\n\r\n", head + b"X: "):
        buffer = bytearray(start)
        answer, more = read_answer(buffer, lambda: b"a" * 10000, "GET")
        assert not more
        assert len(answer.body) <= 65536


@given(st.binary(max_size=200), st.integers(1, 50), st.booleans())
def test_nothing_that_comes_raises(data, size, named):
    data = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + data if named else data
    ((answer, _more),) = answers(data, size=size)
    assert answer.status or answer.why


@given(st.binary(max_size=60), st.integers(1, 20))
def test_how_it_is_cut_into_pieces_changes_nothing(body, size):
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    chunked += b"".join(b"%x\r\n%b\r\n" % (1, body[at : at + 1]) for at in range(len(body)))
    ((answer, more),) = answers(chunked + b"0\r\n\r\n", size=size)
    assert (answer.body, more) == (body, True)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "GET / HTTP/1.1"),
        (b"GET /llmk_abcd1234?x=s3cret HTTP/1.1\n", "GET /llmk_(redacted)?x=(redacted) HTTP/1.1"),
        (b"GET\t/\x00\xff\x1b HTTP/1.1\r\n", r"GET\x09/\x00\xff\x1b HTTP/1.1"),
    ],
)  # fmt: skip
def test_a_request_line_is_fit_to_be_read(raw, shown):
    assert request_line(raw, ["s3cret", ""]) == shown
    assert len(request_line(b"GET /" + b"a" * 40000)) < 300


@contextlib.contextmanager
def served(talk, wrap=None):
    """Serve one connection after the other with `talk`; give the port."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):
                while True:
                    connection, _peer = server.accept()
                    with (
                        connection,
                        contextlib.suppress(OSError),
                        wrap(connection) if wrap else connection as wrapped,
                    ):
                        talk(wrapped)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_bytes_go_out_as_they_are_and_from_where_they_shall():
    heard = []

    def talk(connection):
        heard.append((connection.getpeername()[0], connection.recv(100)))
        connection.sendall(b"HTTP/1.1 400 Bad\r\nContent-Length: 0\r\n\r\n")

    with served(talk) as port:
        endpoint = Endpoint(address="127.0.0.1", port=port)
        with endpoint.dial("127.77.0.9") as wire:
            wire.send(b"GET //%2e HTTP/1.1\nHost : x\n\n")
            assert wire.answer("GET", 5).status == 400
    assert heard == [("127.77.0.9", b"GET //%2e HTTP/1.1\nHost : x\n\n")]


def test_silence_is_bounded():
    with served(lambda connection: connection.recv(1)) as port:
        endpoint = Endpoint(address="127.0.0.1", port=port)
        with endpoint.dial() as wire:
            answer = wire.answer("GET", 0.05)
        assert answer.why == http_probe.SILENT


def why_not(endpoint, **more):
    with pytest.raises(NoConnectionError) as raised:
        endpoint.dial(**more)
    return raised.value.why


def test_why_there_is_no_connection():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
        assert why_not(Endpoint(address="127.0.0.1", port=port)) == http_probe.REFUSED
    nowhere = Endpoint(address="127.0.0.1", port=port)
    assert why_not(nowhere, source="192.0.2.199") == http_probe.UNREACHABLE
    assert why_not(Endpoint(address="host.invalid", port=1)) == http_probe.UNREACHABLE
    with served(lambda connection: connection.sendall(b"hello")) as port:
        plain = Endpoint(address="127.0.0.1", port=port, context=tls_context())
        assert why_not(plain) == http_probe.NO_TLS
        assert why_not(plain, name=".bad name.") == http_probe.NO_TLS


def make_certificate(folder, bits):
    files = [str(folder / "server.key"), str(folder / "server.crt")]
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", f"rsa:{bits}", "-nodes", "-days", "2",
         "-subj", "/CN=llm.test", "-addext", "subjectAltName=DNS:llm.test",
         "-keyout", files[0], "-out", files[1]],
        check=True, capture_output=True,
    )  # fmt: skip
    return files


@contextlib.contextmanager
def tls_served(folder, bits):
    """Serve 401 over TLS; give the endpoint's words and the certificate's file."""
    key, certificate = make_certificate(folder, bits)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    context.load_cert_chain(certificate, key)

    def talk(connection):
        connection.recv(100)
        connection.sendall(b"HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")

    with served(talk, lambda one: context.wrap_socket(one, server_side=True)) as port:
        yield {"address": "127.0.0.1", "port": port}, certificate


def status(endpoint):
    with endpoint.dial() as wire:
        wire.send(b"GET / HTTP/1.1\r\n\r\n")
        return wire.answer("GET", 5).status


def test_whose_certificate_it_is_does_not_matter(tmp_path):
    with tls_served(tmp_path, 1024) as (place, _certificate):
        assert status(Endpoint(**place, context=tls_context(), server_name="other.test")) == 401


def test_with_a_ca_it_does(tmp_path):
    with tls_served(tmp_path, 2048) as (place, certificate):
        trust = tls_context(certificate)
        assert status(Endpoint(**place, context=trust, server_name="llm.test")) == 401
        stranger = Endpoint(**place, context=trust, server_name="other.test")
        assert why_not(stranger) == http_probe.NO_TLS


def test_files_that_cannot_be_used_are_an_error(tmp_path):
    (tmp_path / "empty").write_text("")
    for files in (
        (str(tmp_path / "none"),),
        (str(tmp_path / "empty"),),
        ("", str(tmp_path / "none")),
    ):
        with pytest.raises(OSError):
            tls_context(*files)


def test_on_the_host_itself_there_is_an_address_for_each_request():
    sources = Sources("127.0.0.1")
    taken = [sources.take() for _number in range(2000)]
    assert len(set(taken)) == len(taken)
    network = ipaddress.ip_network("127.64.0.0/10")
    assert all(ipaddress.ip_address(one) in network for one in taken)
    assert Sources("127.0.0.1").take() not in taken


@pytest.mark.parametrize("address", ["192.0.2.199", "host.invalid", "::1", ""])
def test_elsewhere_there_is_one(address):
    sources = Sources(address)
    assert (sources.many, sources.take()) == (False, None)
