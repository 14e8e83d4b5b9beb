# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests between the policy hop's word and nginx's report that they are over."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

# Requests that one side has told of and the other has not yet. What is over this number is
# forgotten, oldest first: a refusal would get a second record then, at worst.
_MAX_ENDED = 10_000


class Admitted(NamedTuple):
    """What is known of a request that was let through.

    Whose it is as well: nginx does not know the key of a request that it gave up, or that the hop
    answered itself.
    """

    key_id: str
    model: str | None
    # Seconds of the service's clock
    since: float


class InFlight:
    """Knows which requests are under way, and which were refused a moment ago."""

    def __init__(self, lease_seconds: float) -> None:
        self._lease = lease_seconds
        self._admitted: dict[str, Admitted] = {}
        self._refused: OrderedDict[str, None] = OrderedDict()
        self._over: OrderedDict[str, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._admitted)

    def admit(self, request_id: str, admitted: Admitted) -> None:
        """Remember a request that was let through."""
        self._admitted[request_id] = admitted

    def refuse(self, request_id: str) -> None:
        """Remember a request whose refusal is recorded already."""
        _remember(self._refused, request_id)

    def end(self, request_id: str) -> Admitted | None:
        """Forget a request that is over; return what was known if it had been let through."""
        return self._admitted.pop(request_id, None)

    def was_refused(self, request_id: str) -> bool:
        """Tell, once, whether the request's refusal is recorded already."""
        return self._refused.pop(request_id, self) is None

    def give_up(self, request_id: str) -> None:
        """Remember a request that ended before it was let through: its client went away."""
        _remember(self._over, request_id)

    def was_given_up(self, request_id: str) -> bool:
        """Tell, once, whether the request ended already."""
        return self._over.pop(request_id, self) is None

    def sweep(self, now: float) -> None:
        """Forget what was let through so long ago that its report must be lost."""
        while self._admitted:
            oldest = next(iter(self._admitted))
            if now - self._admitted[oldest].since < self._lease:
                return
            del self._admitted[oldest]


def _remember(ids: OrderedDict[str, None], request_id: str) -> None:
    ids[request_id] = None
    if len(ids) > _MAX_ENDED:
        ids.popitem(last=False)
