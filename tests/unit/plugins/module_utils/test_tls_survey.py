# SPDX-License-Identifier: GPL-3.0-or-later
"""Servers that hang, close, talk nonsense or lie: each is an answer with a reason, in time."""

from __future__ import annotations

import contextlib
import socket
import threading
import time

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe import survey as surveying
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.client_hello import (
    TLS12,
    Hello,
    vector,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.connection import (
    ProbeError,
    Target,
    http_status,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.numbers import PROFILE_12
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.survey import (
    Answers,
    NotMeasuredError,
    Scope,
    survey,
)

HELLO = Hello((TLS12,), PROFILE_12, "llm.test").packed()
REFUSAL = b"\x15\x03\x03\x00\x02\x02\x28"


class Fake:
    """A server that does with each connection what it is told to; `count` of them came."""

    def __init__(self, serve):
        self._serve = serve
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = self._listening.getsockname()[1]
        self.count = 0
        self.over = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                link, _address = self._listening.accept()
                self.count += 1
                threading.Thread(target=self._meet, args=(link,), daemon=True).start()

    def _meet(self, link):
        with link, contextlib.suppress(OSError):
            self._serve(self, link)

    def close(self):
        self.over.set()
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def target(self, timeout=5.0, whole=30.0):
        return Target("127.0.0.1", self.port, timeout, time.monotonic() + whole)


@pytest.fixture
def fake():
    made = []

    def make(serve):
        made.append(Fake(serve))
        return made[-1]

    yield make
    for one in made:
        one.close()


def says(*answers):
    """Return what says one of the answers to each hello, the last one for ever."""

    def serve(server, link):
        link.recv(65536)
        link.sendall(answers[min(server.count, len(answers)) - 1])

    return serve


def hangs(server, link):
    link.recv(65536)
    server.over.wait(20)


def drips(server, link):
    link.recv(65536)
    for byte in b"\x16\x03\x03\x3f\xff" + bytes(1000):
        link.sendall(bytes([byte]))
        if server.over.wait(0.05):
            return


def answer(suite, version=TLS12):
    body = version.to_bytes(2, "big") + bytes(32) + b"\x00" + suite.to_bytes(2, "big") + b"\x00"
    return b"\x16\x03\x03" + vector(b"\x02" + vector(body, 3), 2)


@pytest.mark.parametrize(
    ("serve", "why"),
    [
        (hangs, "no answer within 0.3 seconds"),
        (drips, "no answer within 0.3 seconds"),
        (says(b""), "the server closed the connection without a word"),
        (says(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "the answer is not TLS"),
        (says(b"\x16\x03\x03\x00\x04\x02\x00\x00\x00"), "shorter than it says"),
        (says(answer(0xC02B)), "the server closed the connection without a word"),
    ],
)
def test_no_answer_of_tls_is_an_error_with_its_reason(fake, serve, why):
    start = time.monotonic()
    with pytest.raises(ProbeError, match=why):
        fake(serve).target(timeout=0.3).ask(HELLO, whole=True)
    assert time.monotonic() - start < 3


def test_whoever_closes_once_is_asked_again(fake):
    server = fake(says(b"", REFUSAL))
    assert server.target().ask(HELLO).said == "handshake_failure"
    assert server.count == 2


def test_an_answer_without_an_end_is_cut_off(fake):
    def floods(_server, link):
        link.recv(65536)
        while True:
            link.sendall((b"\x16\x03\x03\x40\x00" + b"\x02\xff\xff\xff" + bytes(16380)) * 4)

    with pytest.raises(ProbeError, match="an answer without an end"):
        fake(floods).target().ask(HELLO)


def test_nobody_there(fake):
    server = fake(hangs)
    server.close()
    with pytest.raises(ProbeError, match="refused"):
        server.target().ask(HELLO)


def test_no_time_left():
    late = Target("127.0.0.1", 1, 5, time.monotonic() - 1)
    with pytest.raises(ProbeError, match="no time left"):
        late.ask(HELLO)


def test_a_name_that_nobody_has_is_an_error():
    with pytest.raises(ProbeError):
        Target("no-such-name.invalid", 443, 1, time.monotonic() + 5).ask(HELLO)


def test_a_server_that_speaks_no_tls_is_asked_once(fake):
    server = fake(says(b"SSH-2.0-OpenSSH_9.2\r\n"))
    answers = survey(server.target(), Scope("llm.test", "/ca.crt", 80))
    assert server.count == 1
    for name in answers:
        with pytest.raises(NotMeasuredError, match="not TLS"):
            answers[name]
    assert {"handshake", "verified", "http_port", "suites.null"} <= {*answers}


def test_one_that_hangs_after_the_first_hello_costs_its_time_and_no_more(fake):
    def serve(server, link):
        (says(REFUSAL) if server.count == 1 else hangs)(server, link)

    start = time.monotonic()
    answers = survey(fake(serve).target(timeout=0.3, whole=1.0), Scope("llm.test"))
    assert time.monotonic() - start < 5
    assert answers["handshake"].refused
    for name in set(answers) - {"handshake"}:
        with pytest.raises(NotMeasuredError, match=r"no answer|no time left"):
            answers[name]


def test_one_that_refuses_everything_has_said_so(fake):
    answers = survey(fake(says(REFUSAL)).target(), Scope("llm.test"))
    assert [answers[f"version.{name}"] for name in surveying.VERSIONS] == [False] * 6
    assert answers["suites.null"] == answers["groups.weak12"] == answers["order"] == []
    assert answers["unknown_name"].visit is None


def test_no_more_connections_at_a_time_than_wanted(fake):
    here, most, lock = 0, 0, threading.Lock()

    def serve(_server, link):
        nonlocal here, most
        with lock:
            here += 1
            most = max(most, here)
        link.recv(65536)
        time.sleep(0.01)
        with lock:
            here -= 1
        link.sendall(REFUSAL)

    server = fake(serve)
    survey(server.target(), Scope("llm.test", connections=3))
    assert most <= 3
    assert 30 < server.count < 100


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (answer(0x1234), "picks 0x1234, which was not offered"),
        (b"\x15\x03\x03\x00\x02\x02\x50", "broke off with internal_error"),
    ],
)
def test_a_server_that_lies_or_breaks_off_is_no_refusal(fake, said, why):
    answers = survey(fake(says(said)).target(), Scope("llm.test"))
    for name in ("suites.null", "suites.cbc"):
        with pytest.raises(NotMeasuredError, match=why):
            answers[name]


def test_a_newer_version_than_was_offered_is_an_error(fake):
    answers = survey(fake(says(answer(0x002F))).target(), Scope("llm.test"))
    assert answers["version.tls12"] is True
    for name in ("version.ssl3", "version.tls10", "version.tls11"):
        with pytest.raises(NotMeasuredError, match="not offered"):
            answers[name]


@pytest.mark.parametrize("version", ["ssl3", "tls10", "tls11", "tls12"])
def test_each_version_is_found_by_its_own_hello(fake, version):
    number = surveying.VERSIONS[version]

    def serve(_server, link):
        # The hello's own version: behind record header, type and length
        offered = int.from_bytes(link.recv(65536)[9:11], "big")
        link.sendall(answer(0x002F, number) if offered == number else REFUSAL)

    answers = survey(fake(serve).target(), Scope("llm.test"))
    spoken = [name for name in surveying.VERSIONS if answers[f"version.{name}"]]
    assert spoken == [version]


def test_ssl2_is_found(fake):
    def serve(_server, link):
        hello = link.recv(65536)
        link.sendall(b"\x80\x0b\x04\x00\x01\x00\x02" if hello[0] & 0x80 else REFUSAL)

    answers = survey(fake(serve).target(), Scope("llm.test"))
    assert [name for name in surveying.VERSIONS if answers[f"version.{name}"]] == ["ssl2"]


def test_not_asked_is_not_there():
    answers = Answers({"a": 1, "b": NotMeasuredError("gone")})
    assert ("a" in answers, "c" in answers, len(answers), [*answers]) == (
        True,
        False,
        2,
        ["a", "b"],
    )
    with pytest.raises(NotMeasuredError, match="gone"):
        answers.get("b")


@pytest.mark.parametrize(
    ("said", "status"),
    [
        (b"HTTP/1.1 301 Moved\r\n", 301),
        (b"HTTP/1.0 200\r\n", 200),
        (b"HTTP/2 200\r\n", None),
        (b"HTTP/1.1\r\n", None),
        (b"\x15\x03", None),
        (b"", None),
    ],
)
def test_status_of_http(said, status):
    assert http_status(said) == status
