# SPDX-License-Identifier: GPL-3.0-or-later
"""What a verification finds, where, and the verdict that follows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from .chain import Position


class Level(StrEnum):
    """What a finding means for the verdict."""

    BREAK = "break"
    UNCHECKED = "unchecked"
    INFO = "info"


@dataclass(frozen=True, slots=True)
class Finding:
    """One observation, and where."""

    level: Level
    text: str
    file: str | None = None
    line: int | None = None
    sequence: int | None = None


@dataclass(slots=True)
class Result:
    """What was read."""

    records: int = 0
    files: int = 0
    seals: int = 0
    breaks: int = 0
    unchecked: int = 0
    head: Position | None = None
    last_seal: str | None = None

    @property
    def verdict(self) -> str:
        """Return whole, broken or unchecked."""
        if self.breaks:
            return "broken"
        return "unchecked" if self.unchecked else "whole"


@dataclass(slots=True)
class Place:
    """Where the check is, and to whom it reports."""

    report: Callable[[Finding], None]
    result: Result
    file: str | None = None
    line: int = 0

    def say(self, level: Level, text: str, sequence: int | None = None) -> None:
        """Report what was found at this line."""
        self.result.breaks += level is Level.BREAK
        self.result.unchecked += level is Level.UNCHECKED
        self.report(Finding(level, text, self.file, self.line or None, sequence))
