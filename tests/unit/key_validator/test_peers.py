# SPDX-License-Identifier: GPL-3.0-or-later
"""Who is at the other end: the kernel's table, and every way to misread it."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.peers import owner_in_tables, owner_of, proc_endpoint
from llm_key_validator.server import read_tables

HEAD = (
    b"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt"
    b"   uid  timeout inode\n"
)
CLIENT = (ip_address("127.0.0.1"), 50000)
SERVICE = (ip_address("127.0.0.1"), 8081)
MAPPED = (ip_address("::ffff:127.0.0.1"), 50000)
MAPPED_SERVICE = (ip_address("::ffff:127.0.0.1"), 8081)


def line(
    uid: int = 33,
    *,
    state: bytes = b"01",
    inode: int = 4711,
    local: tuple = CLIENT,
    remote: tuple = SERVICE,
) -> bytes:
    """One line as the kernel prints it (net/ipv4/tcp_ipv4.c, get_tcp4_sock)."""
    return b"   1: %b %b %b 00000000:00000000 02:000A8B7F 00000000 %5d        0 %d 2 0 20 4\n" % (
        proc_endpoint(*local),
        proc_endpoint(*remote),
        state,
        uid,
        inode,
    )


def test_addresses_as_the_kernel_prints_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.byteorder", "little")
    assert proc_endpoint(*SERVICE) == b"0100007F:1F91"
    assert proc_endpoint(*MAPPED) == b"0000000000000000FFFF00000100007F:C350"


@pytest.mark.parametrize("uid", [0, 33, 65534, 4294967294])
def test_reads_the_owner(uid: int) -> None:
    assert owner_of(HEAD + line(uid), CLIENT, SERVICE) == uid


@pytest.mark.parametrize(
    "table",
    [
        b"",
        HEAD,
        # The service's own end of the same connection
        HEAD + line(0, local=SERVICE, remote=CLIENT),
        HEAD + line(0, local=(CLIENT[0], 50001)),
        HEAD + line(0, remote=(SERVICE[0], 8082)),
        # Nobody's sockets: uid 0 here means "none"
        HEAD + line(0, state=b"06", inode=0),
        HEAD + line(0, state=b"01", inode=0),
        *(HEAD + line(0, state=b"%02X" % state) for state in range(2, 13)),
        # Two answers are none
        HEAD + line(33) + line(1000),
        # Cut in the middle, or not what the kernel prints
        HEAD + line(33)[:60],
        HEAD + line(33)[:95],
        HEAD + line(33).replace(b" 01 ", b" 1 "),
    ],
)
def test_never_guesses(table: bytes) -> None:
    assert owner_of(table, CLIENT, SERVICE) is None


def test_a_client_with_an_ipv6_socket_is_found() -> None:
    ipv6 = HEAD + line(1000, local=MAPPED, remote=MAPPED_SERVICE)
    assert owner_in_tables(HEAD, ipv6, CLIENT, SERVICE) == 1000
    assert owner_in_tables(HEAD + line(33), HEAD, CLIENT, SERVICE) == 33
    assert owner_in_tables(HEAD, HEAD, CLIENT, SERVICE) is None


@given(st.binary(max_size=400))
def test_noise_makes_nobody_trusted(noise: bytes) -> None:
    assert owner_of(noise, CLIENT, SERVICE) is None
    assert owner_of(noise + b": ", CLIENT, SERVICE) is None


@given(cut=st.integers(1, 130), uid=st.integers(10, 99999))
def test_a_cut_line_never_gives_another_uid(cut: int, uid: int) -> None:
    assert owner_of(HEAD + line(uid)[:-cut], CLIENT, SERVICE) in (None, uid)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_the_real_kernel_names_our_own_uid(family: socket.AddressFamily) -> None:
    address = "127.0.0.1" if family == socket.AF_INET else "::ffff:127.0.0.1"
    with socket.create_server(("127.0.0.1", 0)) as server, socket.socket(family) as client:
        try:
            client.connect((address, server.getsockname()[1]))
        except OSError as error:
            pytest.skip(f"no such address family here: {error}")
        accepted, peer = server.accept()
        here = accepted.getsockname()
        ends = ((ip_address(peer[0]), peer[1]), (ip_address(here[0]), here[1]))
        assert owner_in_tables(*read_tables(), *ends) == os.getuid()
        client.close()
        # Our end is still open, the client's has lost its owner.
        assert owner_in_tables(*read_tables(), *ends) is None
        accepted.close()
