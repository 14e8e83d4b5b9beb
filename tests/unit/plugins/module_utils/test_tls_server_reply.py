# SPDX-License-Identifier: GPL-3.0-or-later
"""Hellos that Python's ssl understands, its answers as we read them, and answers made by hand."""

from __future__ import annotations

import contextlib
import hashlib
import ssl

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.client_hello import (
    ALPN,
    EXTENDED_MASTER_SECRET,
    SSL3,
    TLS10,
    TLS11,
    TLS12,
    TLS13,
    Hello,
    alpn,
    ssl2_hello,
    vector,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.numbers import (
    PROFILE_12,
    PROFILE_13,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.server_reply import (
    SSL2,
    ReplyError,
    parse_reply,
    tls13_certificates,
    tls13_early_data,
)
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from tests.lab.certificates import Authority

RETRY = hashlib.sha256(b"HelloRetryRequest").digest()


class Server:
    """A server of Python's ssl without a socket."""

    def __init__(self, folder):
        self.pair = Authority("Issuing", Authority("Root")).issue("llm.test", host="llm.test")
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.names = []
        self.pair.load(self.context, folder)
        self.context.sni_callback = lambda _link, name, _context: self.names.append(name)

    def answer(self, hello):
        came, goes = ssl.MemoryBIO(), ssl.MemoryBIO()
        link = self.context.wrap_bio(came, goes, server_side=True)
        came.write(hello)
        with contextlib.suppress(ssl.SSLError):
            link.do_handshake()
        return goes.read()


@pytest.fixture
def server(tmp_path):
    return Server(tmp_path)


def der(pair):
    return pair.certificate.public_bytes(Encoding.DER)


# --- what Python's ssl understands and says


def test_tls_1_2_in_whole(server):
    server.context.set_alpn_protocols(["h2"])
    more = {EXTENDED_MASTER_SECRET: b"", ALPN: alpn("h2", "http/1.1")}
    hello = Hello((TLS12,), PROFILE_12, "llm.test", more=more)
    reply = parse_reply(server.answer(hello.packed()))
    assert (reply.version, reply.accepted, reply.done) == (TLS12, True, True)
    assert reply.suite in PROFILE_12
    assert (reply.group, reply.compression, reply.asks_certificate) == (0x001D, 0, False)
    assert reply.certificates[0] == der(server.pair)
    assert len(reply.certificates) == 2
    assert EXTENDED_MASTER_SECRET in reply.extensions
    assert reply.extensions[ALPN][3:] == b"h2"
    assert server.names == ["llm.test"]


def test_tls_1_3_as_far_as_it_is_in_the_clear(server):
    reply = parse_reply(server.answer(Hello(server_name="llm.test").packed()))
    assert (reply.version, reply.group, reply.retry) == (TLS13, 0x001D, False)
    assert reply.suite in PROFILE_13
    assert reply.is_over(whole=True)
    assert reply.certificates == ()


@pytest.mark.parametrize("group", [0x0017, 0x0018, 0x0019])
def test_a_group_is_named_by_whoever_would_take_it(server, group):
    hello = Hello((TLS13,), PROFILE_13, groups=(group,), shares=False)
    reply = parse_reply(server.answer(hello.packed()))
    assert (reply.version, reply.group, reply.retry) == (TLS13, group, True)


def test_a_certificate_is_asked_for(server, tmp_path):
    (tmp_path / "ca.pem").write_text(server.pair.pem())
    server.context.load_verify_locations(tmp_path / "ca.pem")
    server.context.verify_mode = ssl.CERT_REQUIRED
    assert parse_reply(server.answer(Hello((TLS12,), PROFILE_12).packed())).asks_certificate


@pytest.mark.parametrize(
    ("version", "suites", "groups", "said"),
    [
        (SSL3, (0x002F,), (), "handshake_failure"),
        (TLS10, (0x002F, 0xC009), (0x0017,), "protocol_version"),
        (TLS11, (0x002F, 0xC009), (0x0017,), "protocol_version"),
        (TLS12, (0x0001,), (0x0017,), "handshake_failure"),
        (TLS13, (0x1304,), (0x001D,), "handshake_failure"),
        (TLS13, PROFILE_13, (0x0016,), "handshake_failure"),
    ],
)
def test_what_is_not_taken_is_refused_by_an_alert(server, version, suites, groups, said):
    server.context.minimum_version = ssl.TLSVersion.TLSv1_2
    hello = Hello((version,), suites, groups=groups, shares=False)
    reply = parse_reply(server.answer(hello.packed()))
    assert (reply.said, reply.refused, reply.accepted) == (said, True, False)
    assert reply.is_over(whole=False)


def test_ssl2_is_refused_by_an_alert(server):
    assert parse_reply(server.answer(ssl2_hello())).refused


@pytest.mark.parametrize("name", ["192.0.2.1", "2001:db8::1", ""])
def test_an_address_is_no_server_name(server, name):
    assert parse_reply(server.answer(Hello(server_name=name).packed())).accepted
    assert server.names == [None]


def test_a_name_with_odd_letters_makes_a_hello_all_the_same(server):
    assert parse_reply(server.answer(Hello(server_name="büro.test").packed())) is not None


def test_each_beginning_of_an_answer_waits_for_more(server):
    whole = server.answer(Hello((TLS12,), PROFILE_12).packed())
    over = [parse_reply(whole[:size]).is_over(whole=True) for size in range(len(whole))]
    assert not any(over)
    assert parse_reply(whole).is_over(whole=True)


# --- made by hand


def record(kind, content):
    return bytes([kind]) + b"\x03\x03" + vector(content, 2)


def message(kind, body):
    return bytes([kind]) + vector(body, 3)


def server_hello(version=TLS12, random=bytes(32), extensions=b"", session=b"", suite=0xC02B):
    body = version.to_bytes(2, "big") + random + vector(session, 1) + suite.to_bytes(2, "big")
    return message(2, body + b"\x00" + (vector(extensions, 2) if extensions else b""))


def extension(kind, data):
    return kind.to_bytes(2, "big") + vector(data, 2)


def test_messages_over_several_records_are_one():
    sent = server_hello(session=b"abc") + message(13, b"\x01\x01\x00\x00") + message(14, b"")
    reply = parse_reply(b"".join(record(22, sent[at : at + 7]) for at in range(0, len(sent), 7)))
    assert (reply.version, reply.session_id) == (TLS12, b"abc")
    assert (reply.asks_certificate, reply.done) == (True, True)


@pytest.mark.parametrize("version", [SSL3, TLS10, TLS11, TLS12])
def test_old_versions_are_told_by_the_hello(version):
    assert parse_reply(record(22, server_hello(version))).version == version


def test_a_retry_names_its_group():
    extensions = extension(43, b"\x03\x04") + extension(51, b"\x11\xec")
    reply = parse_reply(record(22, server_hello(random=RETRY, extensions=extensions)))
    assert (reply.version, reply.retry, reply.group) == (TLS13, True, 0x11EC)


def test_warnings_are_passed_over_and_the_answer_is_read_on():
    reply = parse_reply(record(21, b"\x01\x70") + record(22, server_hello()))
    assert (reply.alert, reply.version) == (None, TLS12)


@pytest.mark.parametrize("number", [0, 10, 50, 80])
def test_a_server_that_is_in_trouble_says_neither_yes_nor_no(number):
    reply = parse_reply(record(21, bytes([2, number])))
    assert (reply.accepted, reply.refused) == (False, False)
    assert reply.is_over(whole=False)


def test_an_alert_after_the_hello_is_no_acceptance():
    reply = parse_reply(record(22, server_hello()) + record(21, b"\x02\x28"))
    assert (reply.accepted, reply.refused) == (False, True)


def test_an_alert_without_a_name_is_shown_by_its_number():
    assert parse_reply(record(21, b"\x02\xc8")).said == "alert 200"


def test_ssl2():
    assert parse_reply(b"\x80\x20\x04\x00\x01\x00\x02").version == SSL2
    assert parse_reply(b"\x80\x03\x00\x00\x01").refused
    assert parse_reply(b"\x80\x03").version is None


@pytest.mark.parametrize("explicit", [b"\x01", b"\x02"])
def test_parameters_that_are_no_named_curve_have_no_group(explicit):
    sent = server_hello() + message(12, explicit + bytes(20))
    assert parse_reply(record(22, sent)).group is None


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n",
        b"\x16\x05\x00\x00\x05hello",
        b"\x16\x03\x03\xff\xff",
        b"\x80\x03\x09",
        record(22, message(11, b"\x00\x00\x00")),
        record(22, server_hello() + server_hello()),
        record(22, server_hello(0x0305)),
        record(22, server_hello(0x0002)),
        record(22, message(2, b"\x03\x03")),
        record(22, server_hello(extensions=b"\x00\x17\x00\x09")),
        record(22, server_hello() + message(11, b"\x00\x00\x09\x00")),
        record(21, b"\x02"),
    ],
)
def test_what_is_no_answer_of_tls_is_an_error(answer):
    with pytest.raises(ReplyError):
        parse_reply(answer)


def parsed(data):
    """Read it, where the only error that may come is the parser's own."""
    with contextlib.suppress(ReplyError):
        return parse_reply(data)
    return None


@given(st.binary(max_size=200))
def test_anything_is_an_answer_or_an_error(data):
    for start in (b"", b"\x16\x03\x03", b"\x15\x03\x03\x00\x02", b"\x80"):
        parsed(start + data)


@given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=6))
def test_any_messages_are_an_answer_or_an_error(messages):
    for first in (b"", server_hello()):
        parsed(record(22, first + b"".join(message(kind, body) for kind, body in messages)))


@given(st.integers(0, 250), st.integers(0, 255))
def test_one_wrong_byte_is_an_answer_or_an_error(place, byte):
    extensions = extension(43, b"\x03\x03") + extension(16, b"\x00\x03\x02h2")
    sent = server_hello(extensions=extensions) + message(11, vector(vector(b"der", 3), 3))
    whole = bytearray(record(22, sent + message(12, b"\x03\x00\x1d") + message(14, b"")))
    whole[place % len(whole)] = byte
    parsed(bytes(whole))


# --- messages of TLS 1.3, which are seen behind encryption


def test_the_chain_of_tls_1_3():
    entries = b"".join(vector(one, 3) + vector(b"", 2) for one in (b"leaf", b"issuer"))
    assert tls13_certificates(message(11, b"\x00" + vector(entries, 3))) == (b"leaf", b"issuer")


def ticket(extensions):
    return message(4, bytes(8) + vector(b"n", 1) + vector(bytes(32), 2) + vector(extensions, 2))


def test_tickets_with_and_without_early_data():
    assert tls13_early_data(ticket(b"")) == (32, 0)
    assert tls13_early_data(ticket(extension(42, b"\x00\x00\x40\x00"))) == (32, 16384)


@given(st.binary(max_size=80))
def test_any_message_of_tls_1_3_is_read_or_an_error(data):
    for read in (tls13_certificates, tls13_early_data):
        with contextlib.suppress(ReplyError):
            read(data)
