# SPDX-License-Identifier: GPL-3.0-or-later
"""How long a request waits while a large registry is loaded."""

from __future__ import annotations

import signal
import statistics
import subprocess
import threading
import time
from pathlib import Path

from tests.bench.gateway import load
from tests.bench.gateway.rows import Row
from tests.lab.steps import LabError

# wrk's, beside the client that is timed
CONNECTIONS = 4
# nginx ends a connection after 1,000 requests; a handshake is not what is timed.
_REQUESTS = 500
_PATIENCE = 60.0
_LONG = 3600


class Probe(threading.Thread):
    """A client that asks one request after the other and takes the time (seconds)."""

    def __init__(self, row: Row) -> None:
        super().__init__(daemon=True)
        self._row = row
        self._over = threading.Event()
        self.times: list[float] = []
        self.failures = 0

    def run(self) -> None:
        """Ask until told to end."""
        while not self._over.is_set():
            connection = self._row.connect()
            connection.connect()
            for _unused in range(_REQUESTS):
                start = time.monotonic()
                status, _body = self._row.ask(connection)
                self.times.append(time.monotonic() - start)
                self.failures += status != 200
                if self._over.is_set():
                    break
            connection.close()

    def end(self) -> dict[str, float]:
        """Stop; return what was seen, in milliseconds. Raises LabError for a failed request."""
        self._over.set()
        self.join(_PATIENCE)
        if self.failures or not self.times:
            raise LabError(f"{self.failures} of {len(self.times)} requests failed")
        return {
            "requests": len(self.times),
            "p50_ms": round(statistics.median(self.times) * 1000, 3),
            "max_ms": round(max(self.times) * 1000, 3),
        }


def measure(row: Row, folder: Path, *, reloads: int, seconds: float) -> dict[str, object]:
    """Ask under load: without, and with a new registry being loaded each time."""
    words = load.command(row, folder, connections=CONNECTIONS, seconds=_LONG)
    wrk = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        time.sleep(1)
        quiet = [_quietly(row, seconds) for _unused in range(reloads)]
        busy = [_reloading(row) for _unused in range(reloads)]
    finally:
        wrk.send_signal(signal.SIGINT)
        output, _unused = wrk.communicate(timeout=_PATIENCE)
    load.read(output, row)
    return {
        "connections": CONNECTIONS,
        "keys": row.validator and row.validator.keys,
        "without": quiet,
        "with": busy,
        "longest_without_ms": max(one["max_ms"] for one in quiet),
        "longest_with_ms": max(one["max_ms"] for one in busy),
    }


def _quietly(row: Row, seconds: float) -> dict[str, float]:
    probe = Probe(row)
    probe.start()
    time.sleep(seconds)
    return probe.end()


def _reloading(row: Row) -> dict[str, float]:
    """Change the registry's file and ask until the service has loaded it."""
    validator = row.validator
    assert validator is not None
    # Beforehand: while this process writes so much, its own probe would wait for it.
    validator.prepare_key()
    probe = Probe(row)
    probe.start()
    start = time.monotonic()
    validator.publish_keys()
    while validator.loaded_keys() != validator.keys:
        if time.monotonic() > start + _PATIENCE:
            probe.end()
            raise LabError(f"the registry was not loaded in {_PATIENCE:.0f} s\n{row.said()}")
        time.sleep(0.1)
    seen = probe.end()
    return {**seen, "load_seconds": round(time.monotonic() - start, 2)}
