# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the kernel whether it holds any nf_tables table, on a host without the program nft.

A table dump over netlink; names and layout are those of linux/netlink.h, and of nfnetlink.h and
nf_tables.h in linux/netfilter. Needs CAP_NET_ADMIN, and answers for its own network namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct

__all__ = ("holds_tables",)

_NETLINK_NETFILTER = 12
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _INTERRUPTED = 0x1, 0x300, 0x10
_NEW_TABLE, _GET_TABLE = 10 << 8, 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES
_ALL_FAMILIES = bytes(4)  # nfgenmsg: family, version, resource
_PATIENCE = 5.0  # seconds


def holds_tables() -> bool:
    """Say whether there is a table of any family. Raises OSError when the kernel does not say."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as link:
        link.settimeout(_PATIENCE)
        link.bind((0, 0))
        length = _HEADER.size + len(_ALL_FAMILIES)
        link.send(_HEADER.pack(length, _GET_TABLE, _REQUEST | _DUMP, 1, 0) + _ALL_FAMILIES)
        while True:
            answer = _table_in(link.recv(1 << 16))
            if answer is not None:
                return answer


def _table_in(data: bytes) -> bool | None:
    """Return what these messages say, None when more are to come. Raises OSError."""
    while len(data) >= _HEADER.size:
        length, kind, flags, _sequence, _port = _HEADER.unpack_from(data)
        if kind == _NEW_TABLE:
            return True
        if kind in (_ERROR, _DONE):
            (status,) = struct.unpack_from("=i", data, _HEADER.size)
            code = errno.EINTR if flags & _INTERRUPTED else -status
            if code or kind == _ERROR:
                raise OSError(code, os.strerror(code))
            return False
        data = data[max(_HEADER.size, (length + 3) & ~3) :]
    return None
