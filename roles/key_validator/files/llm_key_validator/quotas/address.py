# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the shared counters are. No password: settings are read by more people than secrets."""

from __future__ import annotations

import re
from dataclasses import dataclass

_URL = re.compile(
    r"unix://(?P<path>/[^?#@]+)(?:\?db=(?P<unix_database>[0-9]{1,4}))?"
    r"|redis(?P<tls>s?)://(?:(?P<user>[A-Za-z0-9._-]+)@)?"
    r"(?P<host>[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?"
    r"(?:/(?P<database>[0-9]{1,4})?)?",
    re.ASCII,
)
_PORT = 6379


@dataclass(frozen=True, slots=True)
class StoreAddress:
    """A Valkey or Redis: a unix socket's path, or host and port."""

    path: str | None = None
    host: str = ""
    port: int = _PORT
    tls: bool = False
    user: str | None = None
    database: int = 0


def parse_address(url: str) -> StoreAddress:
    """Return what unix:///PATH[?db=N] or redis[s]://[USER@]HOST[:PORT][/N] names.

    Raises ValueError, which does not repeat ``url``.
    """
    match = _URL.fullmatch(url)
    if match is None:
        raise ValueError(
            "must be unix:///PATH[?db=N] or redis[s]://[USER@]HOST[:PORT][/N], without a password"
        )
    if match["path"] is not None:
        return StoreAddress(path=match["path"], database=int(match["unix_database"] or 0))
    return StoreAddress(
        host=match["host"].strip("[]"),
        port=int(match["port"] or _PORT),
        tls=match["tls"] == "s",
        user=match["user"],
        database=int(match["database"] or 0),
    )
