# SPDX-License-Identifier: GPL-3.0-or-later
"""Sums over events, in constant memory: so many groups, and durations in buckets."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from .chain import is_count
from .query import Event

# More groups than a person reads; further ones are summed up together.
MOST_GROUPS = 10_000
OTHERS = "(others)"
# Names that are longer are cut: a record's own texts are not
_LONGEST_NAME = 1024

# Buckets for each doubling of the duration: a percentile is at most 2.2 % off
_PER_DOUBLING = 16

FIELDS = {
    "key": "user.id",
    "model": "gen_ai.request.model",
    "client": "client.ip",
    "reason": "event.reason",
}

Group = tuple[str | None, ...]


class Durations:
    """A histogram of durations on a logarithmic scale."""

    def __init__(self) -> None:
        self._buckets: Counter[int] = Counter()

    def add(self, nanoseconds: int) -> None:
        """Count one duration."""
        self._buckets[round(math.log2(max(1, nanoseconds)) * _PER_DOUBLING)] += 1

    def percentile(self, share: float) -> float | None:
        """Return the duration in milliseconds that this share of all stays within."""
        left = math.ceil(self._buckets.total() * share)
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return 2 ** (bucket / _PER_DOUBLING) / 1e6
        return None


@dataclass(slots=True)
class Sums:
    """What one group did."""

    requests: int = 0
    refused: int = 0
    failed: int = 0
    unanswered: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    durations: Durations = field(default_factory=Durations)


class Stats:
    """Sums by some of FIELDS."""

    def __init__(self, by: Iterable[str]) -> None:
        self._names = [FIELDS[name] for name in by]
        self._groups: dict[Group, Sums] = {}

    def add(self, event: Event) -> None:
        """Count one event; records about the log itself do not count."""
        if event.action == "suppressed":
            self._sums(event).refused += _number(event.record, "llm.audit.count")
        elif event.action == "refusal":
            self._sums(event).refused += 1
        elif event.action in ("request", "response"):
            self._add_request(event, self._sums(event))

    def _add_request(self, event: Event, sums: Sums) -> None:
        sums.requests += 1
        sums.bytes_in += _number(event.record, "http.request.body.bytes")
        answer = event.answer
        if not answer:
            sums.unanswered += 1
            return
        sums.failed += answer.get("event.outcome") == "failure"
        sums.bytes_out += _number(answer, "http.response.body.bytes")
        sums.durations.add(_number(answer, "event.duration"))

    def _sums(self, event: Event) -> Sums:
        values = [event.get(name) for name in self._names]
        group: Group = tuple(
            None if value is None else str(value)[:_LONGEST_NAME] for value in values
        )
        if group not in self._groups and len(self._groups) >= MOST_GROUPS:
            group = (OTHERS,) * len(values)
        return self._groups.setdefault(group, Sums())

    def groups(self) -> list[tuple[Group, Sums]]:
        """Return all groups, the busiest first."""
        return sorted(self._groups.items(), key=_busy, reverse=True)


def _busy(item: tuple[Group, Sums]) -> tuple[int, int]:
    return (item[1].requests, item[1].refused)


def _number(record: dict[str, object], name: str) -> int:
    value = record.get(name)
    return value if is_count(value) else 0
