# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Build ClientHello messages: RFC 8446 4.1.2, RFC 5246 7.4.1.2, and that of SSL 2.

Nothing is computed: a share of X25519 may be any 32 bytes, and a server names the group that it
would take (HelloRetryRequest) without having got a share of it.
"""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.numbers import (
    POST_QUANTUM,
    PROFILE_12,
    PROFILE_13,
    PROFILE_GROUPS,
)

__all__ = (
    "ALPN",
    "EXTENDED_MASTER_SECRET",
    "FALLBACK_SCSV",
    "HEARTBEAT",
    "RENEGOTIATION_INFO",
    "SESSION_TICKET",
    "SSL3",
    "TLS10",
    "TLS11",
    "TLS12",
    "TLS13",
    "Hello",
    "alpn",
    "is_address",
    "ssl2_hello",
    "vector",
)

SSL3, TLS10, TLS11, TLS12, TLS13 = range(0x0300, 0x0305)

# IANA, TLS ExtensionType Values
_SERVER_NAME, _GROUPS, _POINT_FORMATS, _SIGNATURES = 0, 10, 11, 13
HEARTBEAT, ALPN, EXTENDED_MASTER_SECRET, SESSION_TICKET = 15, 16, 23, 35
_VERSIONS, _KEY_SHARE, RENEGOTIATION_INFO = 43, 51, 0xFF01

FALLBACK_SCSV = 0x5600  # RFC 7507
_RENEGOTIATION_SCSV = 0x00FF  # RFC 5746: some servers refuse whoever does not say it
_X25519 = 0x001D

# Every signature that a server may have a key for, the weak ones too: none is a reason to refuse
_SIGNATURE_SCHEMES = (
    0x0403, 0x0503, 0x0603, 0x0807, 0x0808, 0x0804, 0x0805, 0x0806, 0x0809, 0x080A, 0x080B,
    0x081A, 0x081B, 0x081C, 0x0904, 0x0905, 0x0906, 0x0401, 0x0501, 0x0601, 0x0402, 0x0502,
    0x0602, 0x0303, 0x0301, 0x0302, 0x0203, 0x0201, 0x0202, 0x0101,
)  # fmt: skip


def vector(data: bytes, size: int) -> bytes:
    """Return data behind its length in so many bytes. Raises OverflowError when it is too long."""
    return len(data).to_bytes(size, "big") + data


def _words(numbers: Iterable[int]) -> bytes:
    return b"".join(number.to_bytes(2, "big") for number in numbers)


def is_address(name: str) -> bool:
    """Say whether a name is an IP address, which no hello may carry (RFC 6066 3)."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def alpn(*protocols: str) -> bytes:
    """Return the content of an ALPN extension (RFC 7301)."""
    return vector(b"".join(vector(one.encode("ascii"), 1) for one in protocols), 2)


@dataclass(frozen=True)
class Hello:
    """One ClientHello. `versions` holds each that is offered; `shares` groups with a key share."""

    versions: Sequence[int] = (TLS13, TLS12)
    suites: Sequence[int] = (*PROFILE_13, *PROFILE_12)
    server_name: str = ""
    groups: Sequence[int] = (*PROFILE_GROUPS, POST_QUANTUM)
    # Without any the server must ask for one (HelloRetryRequest), and names the group thereby.
    shares: bool = True
    compression: Sequence[int] = (0,)
    more: Mapping[int, bytes] = field(default_factory=dict)

    def packed(self) -> bytes:
        """Return the hello within its record."""
        newest = max(self.versions)
        suites = [*self.suites, *([_RENEGOTIATION_SCSV] if min(self.versions) <= TLS12 else [])]
        body = (
            min(newest, TLS12).to_bytes(2, "big")
            + os.urandom(32)
            + vector(b"", 1)
            + vector(_words(suites), 2)
            + vector(bytes(self.compression), 1)
        )
        if newest > SSL3:
            extensions = self._extensions(newest).items()
            body += vector(
                b"".join(_words([kind]) + vector(data, 2) for kind, data in extensions), 2
            )
        # RFC 8446 5.1: the record of a first hello may say TLS 1.0, which old servers want.
        return (
            b"\x16" + min(newest, TLS10).to_bytes(2, "big") + vector(b"\x01" + vector(body, 3), 2)
        )

    def _extensions(self, newest: int) -> dict[int, bytes]:
        found: dict[int, bytes] = {}
        if self.server_name and not is_address(self.server_name):
            name = b"\x00" + vector(self.server_name.encode("ascii", "replace"), 2)
            found[_SERVER_NAME] = vector(name, 2)
        found[_GROUPS] = vector(_words(self.groups), 2)
        found[_POINT_FORMATS] = vector(b"\x00", 1)
        if newest >= TLS12:
            found[_SIGNATURES] = vector(_words(_SIGNATURE_SCHEMES), 2)
        if newest >= TLS13:
            found[_VERSIONS] = vector(_words(self.versions), 1)
            share = _words([_X25519]) + vector(os.urandom(32), 2) if self.shares else b""
            found[_KEY_SHARE] = vector(share, 2)
        return found | dict(self.more)


def ssl2_hello() -> bytes:
    """Return a hello of SSL 2 with all its seven ciphers (draft-hickman-netscape-ssl-00)."""
    ciphers = bytes.fromhex("010080 020080 030080 040080 050080 060040 0700c0")
    challenge = os.urandom(16)
    sizes = len(ciphers).to_bytes(2, "big") + b"\x00\x00" + len(challenge).to_bytes(2, "big")
    body = b"\x01\x00\x02" + sizes + ciphers + challenge
    return (0x8000 | len(body)).to_bytes(2, "big") + body
