# SPDX-License-Identifier: GPL-3.0-or-later
"""Stands in the LLM server's place on a gateway, and writes down what reaches it.

Runs on the host: python3 recorder.py FILE. A line for each request, written before the answer:
when (seconds since the epoch), request id, prompt.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
import time

PORT = 11434
ANSWER = b'{"model":"tiny","response":"","done":true}'
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


class Recorder(asyncio.Protocol):
    """One connection, on which requests come one after the other."""

    def __init__(self, record: int) -> None:
        self._record = record
        self._received = b""

    def connection_made(self, transport: asyncio.Transport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, blank, rest = self._received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: *(\d+)", head)
        if not blank or len(rest) < (size := int(length[1]) if length else 0):
            return
        self._received = rest[size:]
        request_id = re.search(rb"(?i)x-request-id: *([0-9a-f]+)", head)
        prompt = json.loads(rest[:size])["prompt"]
        line = f"{time.time():.6f} {request_id[1].decode()} {prompt}\n"
        os.write(self._record, line.encode())
        self._transport.write(HEAD % len(ANSWER) + ANSWER)


async def main() -> None:
    record = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Recorder(record), "127.0.0.1", PORT)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main())
