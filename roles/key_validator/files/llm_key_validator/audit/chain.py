# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain: how a record becomes a line, and how a line is held against the one before.

A line is ``{"@timestamp":"...","event.sequence":N,<fields>,"event.hash":"<64 hex>"}``, without
spaces, ended by a newline. Its hash is SHA-256 over the previous line's hash (32 raw bytes) and
the line's own bytes up to, not including, ``,"event.hash":"``.
"""

from __future__ import annotations

import json
import re
import time
from binascii import hexlify
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from typing import NamedTuple, TypeGuard


class Position(NamedTuple):
    """A record's place in the chain."""

    sequence: int
    hash: bytes  # 32 raw bytes


# Before the very first record, whose number is 1
START = Position(0, bytes(32))

_LINE = re.compile(
    rb'(\{"@timestamp":"[0-9T:.-]{26}Z","event\.sequence":(0|[1-9][0-9]{0,18}),".*)'
    rb',"event\.hash":"([0-9a-f]{64})"\}'
)


class Stamp:
    """Renders the start of a line, up to its sequence number."""

    def __init__(self) -> None:
        self._second = -1
        self._text = b""

    def render(self, now: float) -> bytes:
        """Return the start of a line for ``now`` (seconds since the epoch)."""
        second = int(now)
        if second != self._second:  # the date is made once a second: strftime costs a microsecond
            text = time.strftime('{"@timestamp":"%Y-%m-%dT%H:%M:%S.', time.gmtime(second))
            self._second, self._text = second, text.encode("ascii")
        return b'%b%06dZ","event.sequence":' % (self._text, (now - second) * 1e6)


def link(
    records: Iterable[tuple[bytes, bytes, object]], after: Position
) -> tuple[list[bytes], Position]:
    """Return the lines of (start of line, fields, anything) behind ``after``, and the new end."""
    sequence, previous = after
    lines = []
    for start, fields, _unused in records:
        sequence += 1
        body = b"%b%d,%b" % (start, sequence, fields)
        previous = sha256(previous + body).digest()
        lines.append(b'%b,"event.hash":"%b"}\n' % (body, hexlify(previous)))
    return lines, Position(sequence, previous)


def is_count(value: object) -> TypeGuard[int]:
    """Tell whether a record's value is a number that counts something: 64 bits, no sign."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 64


def is_hex(value: object, digits: int) -> TypeGuard[str]:
    """Tell whether a record's value is so many lower-case hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch(f"[0-9a-f]{{{digits}}}", value) is not None


def position_of(line: bytes) -> Position | None:
    """Return what a line (without its newline) says of its place, None when it is no record."""
    match = _LINE.fullmatch(line)
    return Position(int(match[2]), bytes.fromhex(match[3].decode())) if match else None


def fields_of(line: bytes) -> dict[str, object]:
    """Return a line's fields, {} when it is not a JSON object."""
    try:
        fields = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return fields if isinstance(fields, dict) else {}


def follows(line: bytes, before: Position) -> bool:
    """Say whether ``line`` is the record right behind ``before``, with a hash that fits."""
    match = _LINE.fullmatch(line)
    if match is None or int(match[2]) != before.sequence + 1:
        return False
    return sha256(before.hash + match[1]).hexdigest().encode() == match[3]


def named_before(line: bytes) -> Position | None:
    """Return the place before a file's first line, as that ``open`` record names it."""
    fields = fields_of(line)
    if fields.get("event.action") != "open":
        return None
    sequence = fields.get("llm.audit.previous.sequence", START.sequence)
    digest = fields.get("llm.audit.previous.hash", START.hash.hex())
    if not is_count(sequence) or not is_hex(digest, 64):
        return None
    return Position(sequence, bytes.fromhex(digest))


@dataclass(frozen=True, slots=True)
class Tail:
    """What the end of a file looks like."""

    # The last whole record, None when there is none. Of an untrusted tail: what it claims.
    last: Position | None
    # What has to be cut off behind it
    torn: bytes
    # Whether ``last`` fits the record before it (or nothing whole is there at all)
    trusted: bool


def judge_tail(window: bytes, *, from_start: bool) -> Tail:
    """Judge a file's last bytes; ``from_start``: they are the whole file.

    A crash tears one line: the last one lacks its newline, or is garbled. That one line may be
    cut off. When the line before does not fit either, more than a crash happened, and nothing
    may be cut: the tail is untrusted.
    """
    *lines, torn = window.split(b"\n")
    if not from_start and lines:
        lines.pop(0)  # may have begun before the window
    if not lines:
        return Tail(None, torn, trusted=from_start)
    if _fits(lines, from_start):
        return Tail(position_of(lines[-1]), torn, trusted=True)
    if not torn:
        torn = lines[-1] + b"\n"
        if len(lines) == 1 and from_start and position_of(lines[0]) is None:
            return Tail(None, torn, trusted=True)
        if _fits(lines[:-1], from_start):
            return Tail(position_of(lines[-2]), torn, trusted=True)
    claims = (position_of(line) for line in reversed(lines))
    return Tail(next((claim for claim in claims if claim is not None), None), b"", trusted=False)


def _fits(lines: list[bytes], from_start: bool) -> bool:
    """Say whether the last of ``lines`` follows the one before it."""
    if len(lines) >= 2:
        before = position_of(lines[-2])
    else:
        before = named_before(lines[0]) if lines and from_start else None
    return before is not None and follows(lines[-1], before)
