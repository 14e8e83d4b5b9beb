# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Dumps over netlink (netlink(7)): questions to the kernel itself, without another program.

They are answered for one's own network namespace.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

__all__ = ("attributes", "dump")

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # nlattr: length, type
_ERROR, _DONE = 2, 3
_REQUEST, _DUMP, _INTERRUPTED = 0x1, 0x300, 0x10
_FLAGS = 0xC000  # of an attribute's type: nested, byte order
_PATIENCE = 5.0  # seconds


def dump(protocol: int, kind: int, body: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (type, payload) of each message. Raises OSError when the kernel does not say all."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol) as link:
        link.settimeout(_PATIENCE)
        link.bind((0, 0))
        link.send(_HEADER.pack(_HEADER.size + len(body), kind, _REQUEST | _DUMP, 1, 0) + body)
        ended = False
        while not ended:
            for found, payload in _messages(link.recv(1 << 16)):
                if found == _DONE:
                    ended = True
                else:
                    yield found, payload


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield what is in a datagram. Raises OSError for an error, and a list that changed."""
    while len(data) >= _HEADER.size:
        length, kind, flags, _sequence, _port = _HEADER.unpack_from(data)
        if kind in (_ERROR, _DONE):
            (status,) = struct.unpack_from("=i", data, _HEADER.size)
            code = errno.EINTR if flags & _INTERRUPTED else -status
            if code or kind == _ERROR:
                raise OSError(code, os.strerror(code))
        yield kind, data[_HEADER.size : length]
        data = data[max(_HEADER.size, (length + 3) & ~3) :]


def attributes(data: bytes) -> dict[int, bytes]:
    """Return the attributes by type; those of a nested one are taken apart in the same way."""
    found = {}
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        found[kind & ~_FLAGS] = data[_ATTRIBUTE.size : length]
        data = data[max(_ATTRIBUTE.size, (length + 3) & ~3) :]
    return found
