# SPDX-License-Identifier: GPL-3.0-or-later
"""Whose process is at the other end of a loopback TCP connection?

Anybody on the host can connect to 127.0.0.1, and would find an oracle for keys there. The
kernel says who owns the client's socket: proc(5), /proc/net/tcp, one line per socket with
local address, remote address, state, ..., uid, timeout, inode.

A line counts only in state ESTABLISHED and with an inode: sockets without an owner (TIME_WAIT,
orphans after close) are listed with uid 0 and inode 0, which would make a stranger root.
"""

from __future__ import annotations

import ipaddress
import re
import sys

from .keys import Address

# /proc/self/net, not /proc/net: it is there under ProcSubset=pid, too.
PROC_TABLES = ("/proc/self/net/tcp", "/proc/self/net/tcp6")

_ESTABLISHED = b"01"
# After the two addresses: state, queues, timer, retransmits, uid, probes, inode
_REST = re.compile(
    rb" ([0-9A-F]{2}) [0-9A-F]{8}:[0-9A-F]{8} [0-9A-F]{2}:[0-9A-F]{8} [0-9A-F]{8}"
    rb" +([0-9]{1,10}) +[0-9]{1,10} ([0-9]{1,20})(?= |\n)"
)


def owner_of(table: bytes, local: tuple[Address, int], remote: tuple[Address, int]) -> int | None:
    """Return the uid that owns the socket ``local`` -> ``remote`` in a /proc/net/tcp table.

    None when no such socket is listed, it is not established, or nobody owns it any more.
    Also None when a matching line is not understood, or two match: never guess.
    """
    wanted = b": " + proc_endpoint(*local) + b" " + proc_endpoint(*remote)
    start = table.find(wanted)
    if start < 0 or table.find(wanted, start + 1) >= 0:
        return None
    match = _REST.match(table, start + len(wanted))
    if match is None or match[1] != _ESTABLISHED or int(match[3]) == 0:
        return None
    return int(match[2])


def owner_in_tables(
    ipv4: bytes, ipv6: bytes, local: tuple[Address, int], remote: tuple[Address, int]
) -> int | None:
    """Look in both tables: a program may reach 127.0.0.1 through an IPv6 socket, too."""
    owner = owner_of(ipv4, local, remote)
    if owner is not None:
        return owner
    return owner_of(ipv6, (_mapped(local[0]), local[1]), (_mapped(remote[0]), remote[1]))


def proc_endpoint(address: Address, port: int) -> bytes:
    """Return address and port as the kernel prints them: 32-bit words in host order."""
    packed = address.packed
    words = (int.from_bytes(packed[at : at + 4], sys.byteorder) for at in range(0, len(packed), 4))
    return ("".join(f"{word:08X}" for word in words) + f":{port:04X}").encode()


def _mapped(address: Address) -> Address:
    if isinstance(address, ipaddress.IPv6Address):
        return address
    return ipaddress.IPv6Address(b"\0" * 10 + b"\xff\xff" + address.packed)
