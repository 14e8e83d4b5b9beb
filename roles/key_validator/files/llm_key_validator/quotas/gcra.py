# SPDX-License-Identifier: GPL-3.0-or-later
"""The generic cell rate algorithm (ITU-T I.371): a rate limit that stores one instant per key.

The instant is the theoretical arrival time: when the next request would come if all had kept
the steady pace. How far it lies ahead of the clock is what the key has used up; each request
moves it on by one interval, and it may lie ahead by the capacity at most. So over any stretch
of time no more than capacity / interval + time / interval requests are admitted.

Everything is in whole microseconds. Interval and capacity are exact then, here and in the
doubles of a Lua script.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

_MINUTE = 60_000_000


@dataclass(frozen=True, slots=True)
class Rate:
    """Microseconds from one request to the next, and how many of them may be used up at once."""

    interval: int
    capacity: int


@lru_cache(maxsize=256)
def rate_of(per_minute: int, burst: int) -> Rate:
    """Return the rate: ``per_minute`` steadily, and ``burst`` more at once."""
    # Rounded up: never more than was allowed
    interval = -(-_MINUTE // per_minute)
    return Rate(interval, (burst + 1) * interval)


def used(rate: Rate, arrival: int, now: int) -> int:
    """Return how much of the capacity is used up at ``now``, given the stored ``arrival``.

    Never more than all of it: a clock that was set back, or a tier that became smaller, must not
    lock a key out for longer. So whoever finds all of it used up stores now + capacity.
    """
    ahead = arrival - now
    if ahead <= 0:
        return 0
    return ahead if ahead < rate.capacity else rate.capacity


def fits(rate: Rate, used_up: int) -> bool:
    """Tell whether one more request may come now, which then uses up one interval more."""
    return used_up + rate.interval <= rate.capacity


def wait(rate: Rate, used_up: int) -> int:
    """Return how long until a request fits that does not fit now."""
    return used_up + rate.interval - rate.capacity


def remaining(rate: Rate, used_up: int) -> int:
    """Return how many more requests fit now."""
    return (rate.capacity - used_up) // rate.interval
