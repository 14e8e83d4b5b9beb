# SPDX-License-Identifier: GPL-3.0-or-later
"""Real connections on loopback: open, refused, silent, and where there is no way."""

from __future__ import annotations

import errno
import socket
import threading
import time
from contextlib import ExitStack

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import connect_probe
from ansible_collections.llmsec.hardening.plugins.module_utils.connect_probe import (
    NO_ROUTE,
    OPEN,
    OTHER,
    REFUSED,
    SILENT,
    UNREACHABLE,
    Endpoint,
    Outcome,
    connect_all,
    local_families,
    resolve_all,
)


@pytest.fixture
def sockets():
    with ExitStack() as stack:
        yield stack.enter_context


def listening(sockets, address="127.0.0.1"):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = sockets(socket.create_server((address, 0), family=family))
    return Endpoint(address, server.getsockname()[1])


def closed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return Endpoint("127.0.0.1", server.getsockname()[1])


def silent(sockets):
    """A server whose queue is full drops further SYNs, as a packet filter would."""
    server = sockets(socket.socket())
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    for _attempt in range(3):
        client = sockets(socket.socket())
        client.setblocking(False)
        client.connect_ex(server.getsockname())
    time.sleep(0.05)
    return Endpoint(*server.getsockname())


def test_each_kind_of_answer(sockets):
    opened, opened6 = listening(sockets), listening(sockets, "::1")
    refusing, dropping = closed(), silent(sockets)
    found = connect_all([opened, opened6, refusing, dropping], 0.5)
    assert {place: outcome.kind for place, outcome in found.items()} == {
        opened: OPEN, opened6: OPEN, refusing: REFUSED, dropping: SILENT,
    }  # fmt: skip


def test_many_silent_ones_cost_one_timeout(sockets):
    places = [silent(sockets) for _number in range(20)]
    began = time.monotonic()
    found = connect_all(places, 0.5)
    # one after the other they would take ten seconds
    assert time.monotonic() - began < 5
    assert {place: outcome.kind for place, outcome in found.items()} == dict.fromkeys(
        places, SILENT
    )


def test_more_than_fit_at_once_come_in_waves(sockets, monkeypatch):
    monkeypatch.setattr(connect_probe, "_AT_ONCE", 2)
    places = [listening(sockets) for _number in range(5)]
    found = connect_all([*places, *places], 2)
    assert list(found) == places
    assert {outcome.kind for outcome in found.values()} == {OPEN}


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENETUNREACH, NO_ROUTE),
        (errno.EADDRNOTAVAIL, NO_ROUTE),
        (errno.EHOSTUNREACH, UNREACHABLE),
        (errno.EPERM, OTHER),
        (errno.EMFILE, OTHER),
    ],
)
def test_what_the_system_says_at_once(monkeypatch, number, kind):
    monkeypatch.setattr(socket.socket, "connect_ex", lambda _self, _where: number)
    place = Endpoint("192.0.2.1", 443)
    outcome = connect_all([place], 1)[place]
    assert outcome.kind == kind
    assert outcome.why


def test_a_family_that_the_kernel_does_not_have(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise OSError(errno.EAFNOSUPPORT, "no such family")

    place = Endpoint("::1", 443)
    monkeypatch.setattr(connect_probe.socket, "socket", refuse)
    assert connect_all([place], 1)[place].kind == NO_ROUTE


def test_names_and_addresses():
    found = resolve_all(["127.0.0.1", "[::1]", "localhost", "a..b", "fe80::1%eth0"], 10)
    assert found["127.0.0.1"] == ["127.0.0.1"]
    assert found["[::1]"] == ["::1"]
    assert found["fe80::1%eth0"] == ["fe80::1%eth0"]
    assert set(found["localhost"]) & {"127.0.0.1", "::1"}
    assert isinstance(found["a..b"], OSError)


def test_a_resolver_that_hangs_does_not_hold_up(monkeypatch):
    over = threading.Event()

    def hang(*_args, **_kwargs):
        over.wait(60)
        return []

    monkeypatch.setattr(connect_probe.socket, "getaddrinfo", hang)
    began = time.monotonic()
    found = resolve_all(["one.example", "two.example"], 0.1)
    over.set()
    assert time.monotonic() - began < 5
    assert all("was not looked up within 0.1 s" in str(found[name]) for name in found)


FIB = """\
Main:
  +-- 0.0.0.0/0 3 0 5
     |-- 0.0.0.0
        /0 universe UNICAST
           |-- {address}
              /32 host LOCAL
        |-- 127.0.0.1
           /32 host LOCAL
"""
SCOPED = "fe800000000000005040d9fffe1b3f11 02 40 20 80 eth0\n" + "0" * 31 + "1 01 80 10 80 lo\n"
GLOBAL = "20010db8000000000000000000000001 02 40 00 80 eth0\n"


@pytest.mark.parametrize(
    ("address", "inet6", "families"),
    [
        ("127.0.0.2", SCOPED, set()),
        ("10.0.0.1", SCOPED, {4}),
        ("127.0.0.2", SCOPED + GLOBAL, {6}),
        ("10.0.0.1", GLOBAL, {4, 6}),
        ("10.0.0.1", "", {4}),
    ],
)
def test_the_versions_of_this_host(address, inet6, families):
    assert local_families({"fib_trie": FIB.format(address=address), "if_inet6": inet6}) == families


def test_this_very_host_says_something():
    assert local_families() <= {4, 6}


def test_how_places_and_outcomes_read():
    assert str(Endpoint("::1", 443)) == "[::1]:443"
    assert str(Endpoint("10.0.0.1", 443)) == "10.0.0.1:443"
    assert str(Outcome(UNREACHABLE, "No route to host")) == "unreachable (No route to host)"
