# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters in this process's memory. A restart begins anew; gateways do not know each other's."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from ..tiers import Tier
from . import gcra
from .admission import MICROSECONDS, Admission, counting_day, describe

# Keys that one sweep looks at: under a millisecond
_SLICE = 1000
# After every instant
_NEVER = 2**63


class _Counts:
    """What is known of one key: instants in microseconds since the epoch."""

    __slots__ = ("arrival", "count", "day", "first_end", "slots")

    def __init__(self) -> None:
        # See gcra
        self.arrival = 0
        # Days since the epoch, and requests on that one
        self.day = 0
        self.count = 0
        # The requests under way and the ends of their leases, none of which is before first_end
        self.slots: dict[str, int] = {}
        self.first_end = _NEVER

    def is_full(self, limit: int | None, request_id: str, now: int) -> bool:
        """Tell whether ``limit`` leaves no place for this request beside those under way."""
        if limit is None or len(self.slots) < limit:
            return False
        self.drop_overdue(now)
        return len(self.slots) >= limit and request_id not in self.slots

    def hold(self, request_id: str, end: int) -> None:
        """Give the request a place, or its place for longer."""
        self.slots[request_id] = end
        self.first_end = min(self.first_end, end)

    def drop_overdue(self, now: int) -> None:
        """Forget requests whose lease is over."""
        if now < self.first_end:
            return
        self.slots = {request_id: end for request_id, end in self.slots.items() if end > now}
        self.first_end = min(self.slots.values(), default=_NEVER)

    def is_idle(self, now: int) -> bool:
        """Tell whether a key without counts would be judged the same from now on."""
        day_over = self.count == 0 or self.day != counting_day(now, self.day)
        return not self.slots and self.arrival <= now and day_over


class MemoryQuotas:
    """Counts the requests of all keys. ``lease_seconds``: how long a lost request holds a place."""

    def __init__(self, lease_seconds: float = 3600.0) -> None:
        self._lease = int(lease_seconds * MICROSECONDS)
        self._keys: dict[str, _Counts] = {}
        self._round: Iterator[str] = iter(())

    def __len__(self) -> int:
        """Return how many keys there is anything to remember of."""
        return len(self._keys)

    def admit(self, key_id: str, tier: Tier, request_id: str, now: float) -> Admission:
        """Count one request if the tier allows it."""
        instant = int(now * MICROSECONDS)
        counts = self._keys.get(key_id)
        if counts is None:
            counts = self._keys[key_id] = _Counts()
        reason, used_up, count = "", 0, 0
        # The one with the longest wait is said, so it comes last.
        if counts.is_full(tier.parallel_requests, request_id, instant):
            reason = "parallel"
        if tier.requests_per_minute is not None:
            rate = gcra.rate_of(tier.requests_per_minute, tier.burst or 0)
            used_up = gcra.used(rate, counts.arrival, instant)
            if used_up == rate.capacity:
                counts.arrival = instant + used_up
            if not gcra.fits(rate, used_up):
                reason = "rate"
        if tier.requests_per_day is not None:
            day = counting_day(instant, counts.day)
            count = counts.count if day == counts.day else 0
            if count >= tier.requests_per_day:
                reason = "day"
        if reason:
            return describe(tier, reason, used_up, count, instant)
        if tier.parallel_requests is not None:
            counts.hold(request_id, instant + self._lease)
        if tier.requests_per_minute is not None:
            used_up += rate.interval
            counts.arrival = instant + used_up
        if tier.requests_per_day is not None:
            count += 1
            counts.day, counts.count = day, count
        return describe(tier, "", used_up, count, instant)

    def release(self, key_id: str, request_id: str) -> None:
        """Give the request's place back."""
        counts = self._keys.get(key_id)
        if counts is not None:
            counts.slots.pop(request_id, None)

    def sweep(self, now: float) -> None:
        """Forget what no longer matters of some of the keys, in turns."""
        instant = int(now * MICROSECONDS)
        some = list(islice(self._round, _SLICE))
        for key_id in some:
            counts = self._keys[key_id]
            counts.drop_overdue(instant)
            if counts.is_idle(instant):
                del self._keys[key_id]
        if len(some) < _SLICE:
            self._round = iter(list(self._keys))

    async def close(self) -> None:
        """Nothing is under way."""
