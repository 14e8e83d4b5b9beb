# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Connect to many TCP ports at once, and say of each whether it opened. Nothing is sent."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import itertools
import os
import selectors
import socket
import threading
import time
import typing as t
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = (
    "NO_ROUTE", "OPEN", "OTHER", "REFUSED", "SILENT", "UNREACHABLE", "Endpoint", "Outcome",
    "connect_all", "local_families", "resolve_all",
)  # fmt: skip

OPEN = "open"
REFUSED = "refused"
SILENT = "no answer"
UNREACHABLE = "unreachable"  # a router or packet filter said so, or nobody has the address
NO_ROUTE = "no route"  # this host has no way there
OTHER = "not tried"

_KINDS = {
    0: OPEN, errno.ECONNREFUSED: REFUSED, errno.ECONNRESET: REFUSED, errno.ETIMEDOUT: SILENT,
    errno.EHOSTUNREACH: UNREACHABLE, errno.EHOSTDOWN: UNREACHABLE, errno.ENETUNREACH: NO_ROUTE,
    errno.EADDRNOTAVAIL: NO_ROUTE, errno.EAFNOSUPPORT: NO_ROUTE,
}  # fmt: skip
# Stays well below the usual limit of 1024 open files.
_AT_ONCE = 256


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A numeric address, perhaps with a zone (fe80::1%eth0), and a port."""

    address: str
    port: int

    @property
    def version(self) -> int:
        return ipaddress.ip_address(self.address).version

    def __str__(self) -> str:
        return (
            f"[{self.address}]:{self.port}" if self.version == 6 else f"{self.address}:{self.port}"
        )


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a connection; `why` is the system's word where there is more to say."""

    kind: str
    why: str = ""

    def __str__(self) -> str:
        return f"{self.kind} ({self.why})" if self.why else self.kind


def _outcome(number: int) -> Outcome:
    kind = _KINDS.get(number, OTHER)
    return Outcome(kind, "" if kind in (OPEN, REFUSED, SILENT) else os.strerror(number))


def connect_all(endpoints: Iterable[Endpoint], timeout: float) -> dict[Endpoint, Outcome]:
    """Try all endpoints side by side; `timeout` in seconds is for each 256 of them."""
    todo = list(dict.fromkeys(endpoints))
    found: dict[Endpoint, Outcome] = {}
    for start in range(0, len(todo), _AT_ONCE):
        found.update(_connect_some(todo[start : start + _AT_ONCE], timeout))
    return found


def _connect_some(endpoints: Sequence[Endpoint], timeout: float) -> dict[Endpoint, Outcome]:
    found: dict[Endpoint, Outcome] = {}
    with contextlib.ExitStack() as stack, selectors.DefaultSelector() as selector:
        for endpoint in endpoints:
            try:
                _begin(endpoint, stack, selector)
            except OSError as exc:
                found[endpoint] = _outcome(exc.errno or errno.EIO)
        deadline = time.monotonic() + timeout
        while selector.get_map() and (left := deadline - time.monotonic()) > 0:
            for key, _events in selector.select(left):
                connection = t.cast(socket.socket, key.fileobj)  # we registered it
                number = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                found[key.data] = _outcome(number)
                selector.unregister(connection)
    return {endpoint: found.get(endpoint, Outcome(SILENT)) for endpoint in endpoints}


def _begin(
    endpoint: Endpoint, stack: contextlib.ExitStack, selector: selectors.BaseSelector
) -> None:
    family = socket.AF_INET if endpoint.version == 4 else socket.AF_INET6
    connection = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    connection.setblocking(False)
    # Numeric, so nothing is looked up; this is what reads the zone.
    where = socket.getaddrinfo(
        endpoint.address, endpoint.port, family, socket.SOCK_STREAM, 0, socket.AI_NUMERICHOST
    )[0][4]
    number = connection.connect_ex(where)
    if number not in (0, errno.EINPROGRESS):
        raise OSError(number, os.strerror(number))
    selector.register(connection, selectors.EVENT_WRITE, endpoint)


def resolve_all(names: Iterable[str], timeout: float) -> dict[str, list[str] | OSError]:
    """Return the addresses of each name, or why there are none; looked up side by side.

    An address stands for itself, in brackets too.
    """
    found: dict[str, list[str] | OSError] = {}
    threads = []
    for name in dict.fromkeys(names):
        bare = name.removeprefix("[").removesuffix("]")
        try:
            ipaddress.ip_address(bare)
        except ValueError:
            found[name] = TimeoutError(f"{name} was not looked up within {timeout:g} s")
            # The resolver knows no timeout of ours: a thread that hangs is left behind.
            thread = threading.Thread(target=_resolve, args=(name, found), daemon=True)
            thread.start()
            threads.append(thread)
        else:
            found[name] = [bare]
    deadline = time.monotonic() + timeout
    for thread in threads:
        thread.join(max(0.0, deadline - time.monotonic()))
    return dict(found)


def _resolve(name: str, found: dict[str, list[str] | OSError]) -> None:
    try:
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as exc:
        found[name] = exc if isinstance(exc, OSError) else OSError(str(exc))
    else:
        found[name] = sorted({str(address[0]) for *_rest, address in answers})


# /proc/net/if_inet6: address, index, prefix, scope, flags, device. 00 is the global scope.
_GLOBAL_SCOPE = "00"


def local_families(read: Mapping[str, str] | None = None) -> set[int]:
    """Return the IP versions in which this host has an address that others can reach.

    `read` gives the texts of /proc/net/fib_trie and /proc/net/if_inet6, for tests.
    """
    texts = read or {name: _text(f"/proc/net/{name}") for name in ("fib_trie", "if_inet6")}
    lines = texts["fib_trie"].splitlines()
    own = {
        before.split()[-1] for before, line in itertools.pairwise(lines) if "/32 host LOCAL" in line
    }
    found = {4} if any(not address.startswith("127.") for address in own) else set()
    rows = [line.split() for line in texts["if_inet6"].splitlines()]
    return found | ({6} if any(len(row) > 3 and row[3] == _GLOBAL_SCOPE for row in rows) else set())


def _text(path: str) -> str:
    with contextlib.suppress(OSError):
        return Path(path).read_text(encoding="ascii", errors="replace")
    return ""
