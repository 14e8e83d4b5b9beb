# SPDX-License-Identifier: GPL-3.0-or-later
"""Quotas: how many requests a key may make a minute, a day, and at a time.

A request that comes counts, whatever becomes of it later. One that a quota refuses counts for
none of them: whoever keeps knocking is let in again as soon as it is time.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

from ..tiers import Tier
from .admission import Admission

__all__ = ["Admission", "QuotaStoreError", "Quotas"]


class QuotaStoreError(Exception):
    """The shared store did not count the request. It must not go on.

    The text says what kind of failure it was, and repeats nothing that was sent or received.
    """


class Quotas(Protocol):
    """Where requests are counted."""

    def admit(
        self, key_id: str, tier: Tier, request_id: str, now: float
    ) -> Admission | Awaitable[Admission]:
        """Count one request if the tier allows it; ``now`` is in seconds since the epoch.

        A place among the parallel requests is held until `release`, or until its lease is over,
        so that a lost end of a request cannot lock a key out. The same request holds one place
        however often it comes. A store elsewhere raises QuotaStoreError.
        """

    def release(self, key_id: str, request_id: str) -> None:
        """Give the request's place back. Harmless when it has none, or twice."""

    def sweep(self, now: float) -> None:
        """Forget what no longer matters. Short; called again and again."""

    async def close(self) -> None:
        """Finish what is under way. Nothing is asked after it."""
