# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters in a Valkey or Redis that several gateways share. Whatever goes wrong, nobody passes.

The store's clock counts, not the gateways'. One script judges and counts in one step, with the
same arithmetic as `memory`. A user of the store needs the keys `llm-gateway:*` and the commands
EVAL, EVALSHA, TIME, HMGET, HSET, PEXPIRE, ZADD, ZCOUNT, ZREM, ZREMRANGEBYSCORE and ZSCORE.
"""

from __future__ import annotations

import asyncio
import hashlib
from contextlib import suppress
from itertools import islice
from typing import Any

# python3-redis: 4.3 on Debian 12, 6.1 on Debian 13
from redis.asyncio import BlockingConnectionPool, Redis, SSLConnection, UnixDomainSocketConnection
from redis.exceptions import NoScriptError

from ..tiers import Tier
from . import QuotaStoreError, gcra
from .address import StoreAddress, parse_address
from .admission import DAY, MICROSECONDS, Admission, describe

PREFIX = "llm-gateway:"
_CONNECTIONS = 64
# For one request, from waiting for a connection to the answer
_SECONDS = 1.0
# Places that wait for a store that does not answer, and how many of them one try gives back
_MOST_OWED = 10_000
_AT_A_TIME = 500
# An entry outlives what it says by this (ms), which forgives the clocks their differences.
_GRACE = 60_000

# Microseconds since the epoch, by the store's own clock
_CLOCK = """
local clock = redis.call('TIME')
local now = clock[1] * 1000000 + clock[2]
"""
# KEYS: the counts of one API key, and its requests under way with the ends of their leases.
# Numbers are formatted by hand: beyond 14 digits Lua would round them.
_JUDGE = """
local id, interval, capacity = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local per_day, parallel, lease = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local day_length, grace = tonumber(ARGV[7]), tonumber(ARGV[8])
local function whole(number) return string.format('%.0f', number) end

local stored = redis.call('HMGET', KEYS[1], 'arrival', 'day', 'count')
local reason, used, count = '', 0, 0

if parallel > 0 then
  local holds = tonumber(redis.call('ZSCORE', KEYS[2], id) or 0) > now
  local busy = redis.call('ZCOUNT', KEYS[2], '(' .. whole(now), '+inf')
  if busy >= parallel and not holds then reason = 'parallel' end
end

if interval > 0 then
  local ahead = tonumber(stored[1] or 0) - now
  used = math.min(math.max(ahead, 0), capacity)
  if ahead > capacity then redis.call('HSET', KEYS[1], 'arrival', whole(now + used)) end
  if used + interval > capacity then reason = 'rate' end
end

local day = math.floor(now / day_length)
if per_day > 0 then
  -- A clock that is set back over midnight goes on with the day that had begun.
  if tonumber(stored[2] or 0) == day + 1 then day = day + 1 end
  if tonumber(stored[2] or 0) == day then count = tonumber(stored[3]) end
  if count >= per_day then reason = 'day' end
end

if reason ~= '' then return {id, reason, whole(now), whole(used), whole(count)} end

if parallel > 0 then
  redis.call('ZADD', KEYS[2], whole(now + lease), id)
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', whole(now))
  redis.call('PEXPIRE', KEYS[2], whole(lease / 1000 + grace))
end
local ends = now
if interval > 0 then
  used = used + interval
  ends = now + used
  redis.call('HSET', KEYS[1], 'arrival', whole(ends))
end
if per_day > 0 then
  count = count + 1
  ends = math.max(ends, (day + 1) * day_length)
  redis.call('HSET', KEYS[1], 'day', whole(day), 'count', whole(count))
end
if ends > now then redis.call('PEXPIRE', KEYS[1], whole((ends - now) / 1000 + grace)) end
return {id, reason, whole(now), whole(used), whole(count)}
"""


class SharedQuotas:
    """Counts the requests of all keys in one store. Belongs to one event loop.

    ``url`` is one that address.parse_address takes; ValueError otherwise. With TLS, the store's
    certificate must be one that the host's CAs vouch for.
    """

    def __init__(self, url: str, password: str = "", lease_seconds: float = 3600.0) -> None:
        # One try only: what a second one would say is too late for the request that waits.
        pool = BlockingConnectionPool(
            max_connections=_CONNECTIONS,
            timeout=_SECONDS,
            socket_connect_timeout=_SECONDS,
            password=password or None,
            **_connection(parse_address(url)),
        )
        self._store = Redis(connection_pool=pool)
        self._lease = int(lease_seconds * MICROSECONDS)
        self._script = _CLOCK + _JUDGE
        # A name for the script, no protection
        self._script_name = hashlib.sha1(self._script.encode(), usedforsecurity=False).hexdigest()
        self._releases: set[asyncio.Task[None]] = set()
        # Places (name of the slots, request) that the store may still hold for nobody
        self._owed: dict[tuple[str, str], None] = {}

    async def admit(self, key_id: str, tier: Tier, request_id: str, now: float) -> Admission:
        """Count one request if the tier allows it. The store's clock counts, not ``now``."""
        rate = None
        if tier.requests_per_minute is not None:
            rate = gcra.rate_of(tier.requests_per_minute, tier.burst or 0)
        numbers = (
            *((rate.interval, rate.capacity) if rate is not None else (0, 0)),
            *(tier.requests_per_day or 0, tier.parallel_requests or 0),
            *(self._lease, DAY, _GRACE),
        )
        try:
            async with asyncio.timeout(_SECONDS):
                reply = await self._run(_names(key_id), request_id, numbers)
            return _read(reply, request_id, tier)
        except Exception as error:
            # Whatever the network, the store, the library or its reply have done wrong: it is
            # not counted here. The store may have counted it, or do so when it wakes up.
            if tier.parallel_requests is not None:
                self._owe(_names(key_id)[1], request_id)
            # Their texts can hold what was sent.
            raise QuotaStoreError(type(error).__name__) from None

    def release(self, key_id: str, request_id: str) -> None:
        """Give the request's place back, soon, or as soon as the store answers again."""
        self._give_back([(_names(key_id)[1], request_id)])

    def sweep(self, now: float) -> None:
        """Give back what the store did not answer for. The rest it forgets by itself."""
        places = list(islice(self._owed, _AT_A_TIME))
        for place in places:
            del self._owed[place]
        if places:
            self._give_back(places)

    async def close(self) -> None:
        """Finish what is under way and disconnect."""
        self.sweep(0.0)
        await asyncio.gather(*self._releases)
        await self._store.connection_pool.disconnect()

    async def _run(self, names: tuple[str, str], request_id: str, numbers: tuple[int, ...]) -> Any:  # noqa: ANN401 - whatever the store says
        try:
            return await self._store.evalsha(self._script_name, 2, *names, request_id, *numbers)
        except NoScriptError:
            # A store that was restarted. EVAL teaches it the script.
            return await self._store.eval(self._script, 2, *names, request_id, *numbers)

    def _give_back(self, places: list[tuple[str, str]]) -> None:
        task = asyncio.get_running_loop().create_task(self._remove(places))
        self._releases.add(task)
        task.add_done_callback(self._releases.discard)

    async def _remove(self, places: list[tuple[str, str]]) -> None:
        replies: list[Any] = [None] * len(places)
        with suppress(Exception):  # the next admit is loud
            async with asyncio.timeout(_SECONDS):
                commands = self._store.pipeline(transaction=False)
                for slots, request_id in places:
                    commands.zrem(slots, request_id)
                replies = await commands.execute(raise_on_error=False)
        for place, reply in zip(places, replies, strict=False):
            if not isinstance(reply, int):
                self._owe(*place)

    def _owe(self, slots: str, request_id: str) -> None:
        """Try again later: its lease would keep the place from the key for an hour."""
        self._owed[slots, request_id] = None
        if len(self._owed) > _MOST_OWED:
            del self._owed[next(iter(self._owed))]


def _names(key_id: str) -> tuple[str, str]:
    """The store's names for a key's counts and slots; the braces keep them on one node."""
    return f"{PREFIX}{{{key_id}}}:counts", f"{PREFIX}{{{key_id}}}:slots"


def _connection(address: StoreAddress) -> dict[str, Any]:
    """Return the library's settings for a connection."""
    common = {"username": address.user, "db": address.database}
    if address.path is not None:
        return {**common, "connection_class": UnixDomainSocketConnection, "path": address.path}
    tcp = {**common, "host": address.host, "port": address.port}
    if not address.tls:
        return tcp
    # Older versions of the library do not compare the name by themselves.
    return {**tcp, "connection_class": SSLConnection, "ssl_check_hostname": True}


def _read(reply: Any, request_id: str, tier: Tier) -> Admission:  # noqa: ANN401 - not read yet
    """Return what the script's reply says. Raises ValueError or TypeError for any other.

    The reply names its request: python3-redis has handed out replies to somebody else's
    question before (CVE-2023-28858).
    """
    echo, reason, now, used_up, count = reply
    if echo != request_id.encode() or reason not in _REASONS:
        raise ValueError
    return describe(tier, _REASONS[reason], int(used_up), int(count), int(now))


_REASONS = {word.encode(): word for word in ("", "day", "rate", "parallel")}
