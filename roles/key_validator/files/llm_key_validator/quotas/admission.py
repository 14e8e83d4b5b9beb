# SPDX-License-Identifier: GPL-3.0-or-later
"""What counting a request came to, and what a client is told about it."""

from __future__ import annotations

from typing import NamedTuple

from ..tiers import Tier
from . import gcra

MICROSECONDS = 1_000_000
DAY = 86400 * MICROSECONDS


class Admission(NamedTuple):
    """Whether a request may go on as far as quotas go. A plain tuple: one is made for each."""

    allowed: bool
    # "" | "day" | "rate" | "parallel"
    reason: str = ""
    # Seconds, at least 1 when refused
    retry_after: int = 0
    # How many requests the quota holds, how many are left, and in how many seconds it is whole
    # again: of the quota that refused, or else of the rate (whose `limit` come at once at most),
    # or else of the day. None: the tier has neither.
    limit: int | None = None
    remaining: int | None = None
    reset: int | None = None


def counting_day(now: int, stored: int) -> int:
    """Return the day (since the epoch, UTC) that a request at ``now`` (microseconds) counts for.

    A clock that is set back over midnight goes on with the day that had begun: nobody's count
    starts anew twice.
    """
    today = now // DAY
    return stored if stored == today + 1 else today


def describe(tier: Tier, reason: str, used_up: int, count: int, now: int) -> Admission:
    """Return the admission, or refusal for ``reason``, of a request at ``now`` (microseconds).

    ``used_up`` is of the rate's capacity, ``count`` of the day's requests, both after it.
    """
    retry = 1 if reason else 0
    if tier.requests_per_minute is not None and reason != "day":
        rate = gcra.rate_of(tier.requests_per_minute, tier.burst or 0)
        if reason == "rate":
            retry = _seconds(gcra.wait(rate, used_up))
        limit, left, reset = (tier.burst or 0) + 1, gcra.remaining(rate, used_up), _seconds(used_up)
    elif tier.requests_per_day is not None:
        # The tier may have become smaller than the count.
        limit, left = tier.requests_per_day, max(tier.requests_per_day - count, 0)
        reset = _seconds(DAY - now % DAY)
        if reason == "day":
            retry = reset
    else:
        return Admission(not reason, reason, retry)
    return Admission(not reason, reason, retry, limit, left, reset)


def _seconds(microseconds: int) -> int:
    """Whole seconds, rounded up: who waits so long is not early."""
    return -(-microseconds // MICROSECONDS)
