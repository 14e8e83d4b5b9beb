# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks a gateway on many connections at a steady pace, partly for what it must refuse.

What waited while the gateway did not answer comes as fast as it answers again.

Runs on the application server; what to do comes on standard input, what happened goes to
standard output, both JSON. Not httpx: it would need more of the processor than the gateway does.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
import sys
import time
from collections import Counter
from typing import Any

MOST_ATTEMPTS = 5
SECONDS = 30  # for one answer


class Load:
    """Numbers the requests; every tenth is one that must be refused."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self._asked = asked
        self._trust = ssl.create_default_context(cafile=asked["ca_file"])
        self._numbers = itertools.count()
        self._start = time.monotonic()
        # "allowed 200" → how often
        self.seen: Counter[str] = Counter()
        # Connections that ended before an answer began, as when nginx reloads
        self.lost = 0

    async def work(self) -> None:
        """One connection's requests, until all are asked."""
        link = None
        while (number := next(self._numbers)) < self._asked["count"]:
            due = self._start + number / self._asked["per_second"]
            await asyncio.sleep(due - time.monotonic())
            kind, request = self._request(number)
            for _unused in range(MOST_ATTEMPTS):
                try:
                    link = link or await self._open()
                    async with asyncio.timeout(SECONDS):
                        status, goes_on = await _ask(link, request)
                except (OSError, EOFError, TimeoutError):
                    self.lost += 1
                    status, goes_on = 0, False
                if link and not goes_on:
                    link[1].close()
                    link = None
                if status:
                    break
            self.seen[f"{kind} {status}"] += 1
        if link:
            link[1].close()

    async def _open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = self._asked["server_name"]
        return await asyncio.open_connection(name, 443, ssl=self._trust)

    def _request(self, number: int) -> tuple[str, bytes]:
        kind = "forbidden" if number % 10 == 0 else "allowed"
        ways = self._asked[kind]
        key, model = ways[number // 10 % len(ways)]
        body = json.dumps({"model": model, "prompt": f"{kind} {number}", "stream": False})
        head = (
            f"POST /api/generate HTTP/1.1\r\nHost: {self._asked['server_name']}\r\n"
            f"Authorization: Bearer {key}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        return kind, (head + body).encode()


async def _ask(
    link: tuple[asyncio.StreamReader, asyncio.StreamWriter], request: bytes
) -> tuple[int, bool]:
    """The status of the answer, and whether the connection goes on."""
    reader, writer = link
    writer.write(request)
    await writer.drain()
    status, *lines = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n")
    pairs = (line.partition(b":") for line in lines)
    headers = {name.lower(): value.strip() for name, _unused, value in pairs}
    await reader.readexactly(int(headers[b"content-length"]))
    return int(status.split()[1]), headers.get(b"connection") != b"close"


async def main() -> None:
    asked = json.load(sys.stdin)
    load = Load(asked)
    start = time.monotonic()
    await asyncio.gather(*(load.work() for _unused in range(asked["connections"])))
    seconds = time.monotonic() - start
    json.dump({"seconds": seconds, "seen": load.seen, "lost": load.lost}, sys.stdout)


if __name__ == "__main__":
    asyncio.run(main())
