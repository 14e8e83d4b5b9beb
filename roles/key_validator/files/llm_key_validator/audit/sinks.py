# SPDX-License-Identifier: GPL-3.0-or-later
"""Sinks beside the file: journald and syslog, one datagram a record.

Neither ever waits: a socket that is full or gone did not take the record, and the caller is told.
Unconnected sockets, addressed by path each time, survive a restart of the receiver.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from typing import Protocol

IDENTIFIER = "llm-audit"
_JOURNALD = "/run/systemd/journal/socket"
_SYSLOG = "/dev/log"
# rsyslog's default for one message (bytes); it would cut a longer one, and no JSON would be left.
_MAX_SYSLOG = 8192
# A socket's default buffer takes a datagram of about 200 KiB (net.core.wmem_default)
_MAX_JOURNALD = 128 * 1024
# Facility authpriv (10), severity informational (6): RFC 3164, section 4.1.1
_PRIORITY = 10 * 8 + 6
# RFC 3164 wants English months, strftime's are the locale's.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Sink(Protocol):
    """Takes records."""

    name: str

    def take(self, line: bytes) -> bool:
        """Hand over one line (with its newline); say whether it was taken."""

    def close(self) -> None:
        """Give the socket back."""


class _Datagrams:
    def __init__(self, path: str, limit: int) -> None:
        self._path = path
        self._limit = limit
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)

    def _send(self, message: bytes) -> bool:
        if len(message) > self._limit:
            return False
        try:
            self._socket.sendto(message, self._path)
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._socket.close()


class JournaldSink(_Datagrams):
    """The journal's native protocol (systemd, "Journal Export Formats" and "Native Journal
    Protocol"): fields as NAME=value lines. A record has no newline inside."""

    name = "journald"

    def __init__(self, path: str = _JOURNALD) -> None:
        super().__init__(path, _MAX_JOURNALD)

    def take(self, line: bytes) -> bool:
        """Hand over one record."""
        return self._send(b"PRIORITY=6\nSYSLOG_IDENTIFIER=llm-audit\nMESSAGE=" + line)


class SyslogSink(_Datagrams):
    """RFC 3164 as local daemons read it: priority, local time, tag; no host name."""

    name = "syslog"

    def __init__(self, path: str = _SYSLOG) -> None:
        super().__init__(path, _MAX_SYSLOG)
        self._tag = f"{IDENTIFIER}[{os.getpid()}]: "

    def take(self, line: bytes) -> bool:
        """Hand over one record."""
        now = time.localtime()
        header = (
            f"<{_PRIORITY}>{_MONTHS[now.tm_mon - 1]} {now.tm_mday:2d} "
            f"{now.tm_hour:02d}:{now.tm_min:02d}:{now.tm_sec:02d} {self._tag}"
        )
        return self._send(header.encode("ascii") + line[:-1])


def make_sinks(names: Sequence[str]) -> list[Sink]:
    """Return the sinks beside the file."""
    kinds: dict[str, type[JournaldSink | SyslogSink]] = {
        "journald": JournaldSink,
        "syslog": SyslogSink,
    }
    return [kinds[name]() for name in names if name != "file"]
