# SPDX-License-Identifier: GPL-3.0-or-later
"""Structured messages for the journal: one JSON object a line, never a secret.

What may be said is closed: an event's name and the few fields its caller passes. No header,
key text or digest is among them; a key's id is, for it is no secret.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import IntEnum

Fields = Mapping[str, str | int | float]
Writer = Callable[[str], object]


class Level(IntEnum):
    """The levels of syslog(3) that this service uses."""

    ERROR = 3
    WARNING = 4
    INFO = 6


class Journal:
    """Writes messages; journald reads the level from the ``<N>`` in front (sd-daemon(3))."""

    def __init__(self, write: Writer, *, with_levels: bool) -> None:
        self._write = write
        self._with_levels = with_levels

    def say(self, level: Level, event: str, **values: str | int | float) -> None:
        """Write one message."""
        prefix = f"<{int(level)}>" if self._with_levels else ""
        line = json.dumps({"event": event, "level": level.name.lower(), **values})
        self._write(f"{prefix}{line}\n")


class RefusalLog:
    """Writes refusals, so many a second; says how many it left out when the second is over.

    Without a bound, whoever can reach the gateway could fill the disk.
    """

    def __init__(self, journal: Journal, per_second: int) -> None:
        self._journal = journal
        self._per_second = per_second
        self._left = per_second
        self._suppressed = 0

    def refused(self, reason: str, key_id: str | None) -> None:
        """Note one refusal; ``key_id`` only when the request carried that very key."""
        if self._left <= 0:
            self._suppressed += 1
            return
        self._left -= 1
        known = {"key_id": key_id} if key_id is not None else {}
        self._journal.say(Level.INFO, "refused", reason=reason, **known)

    def next_second(self) -> None:
        """Start a new second."""
        if self._suppressed:
            self._journal.say(Level.WARNING, "refusals_not_logged", count=self._suppressed)
        self._left, self._suppressed = self._per_second, 0
