# SPDX-License-Identifier: GPL-3.0-or-later
"""Both places where requests are counted, under one clock that the tests move.

The shared one is a real Valkey or Redis, started here on a unix socket of its own; where none is
installed, or its Python library is missing, its tests are skipped.
"""

from __future__ import annotations

import asyncio
import itertools
import shutil
import subprocess
import time
import typing as t
from pathlib import Path

import pytest
import uvloop
from llm_key_validator.quotas.admission import Admission
from llm_key_validator.quotas.memory import MemoryQuotas
from llm_key_validator.tiers import Tier

from ..conftest import NOW

LEASE = 600
PASSWORD = "correct horse battery staple"
# The script's clock, in tests an entry of the store
TEST_CLOCK = "local now = tonumber(redis.call('GET', 'test-clock'))\n"


class Counter(t.Protocol):
    """A place where requests are counted, with its clock (microseconds since the epoch)."""

    now: int

    def admit(self, key_id: str, tier: Tier, request_id: str = "") -> Admission: ...

    def release(self, key_id: str, request_id: str) -> None: ...

    def fresh(self) -> str:
        """A key that was never counted."""


class Clock:
    """What both have in common."""

    def __init__(self) -> None:
        self.now = int(NOW) * 1_000_000
        self._numbers = itertools.count()

    def fresh(self) -> str:
        return f"key{next(self._numbers)}"

    def next_request(self) -> str:
        return f"{next(self._numbers):032x}"


class MemoryCounter(Clock):
    """This process's memory."""

    def __init__(self) -> None:
        super().__init__()
        self.quotas = MemoryQuotas(LEASE)

    def admit(self, key_id: str, tier: Tier, request_id: str = "") -> Admission:
        # Half a microsecond: as a float the instant may fall short of itself.
        now = (self.now + 0.5) / 1_000_000
        return self.quotas.admit(key_id, tier, request_id or self.next_request(), now)

    def release(self, key_id: str, request_id: str) -> None:
        self.quotas.release(key_id, request_id)


class SharedCounter(Clock):
    """A store that listens on ``socket``."""

    def __init__(self, runner: asyncio.Runner, socket: Path) -> None:
        super().__init__()
        from llm_key_validator.quotas.shared import SharedQuotas

        self.run = runner.run
        self.quotas = runner.run(made(lambda: SharedQuotas(f"unix://{socket}", PASSWORD, LEASE)))
        self.store = self.quotas._store
        self.run(self.store.flushall())

    def admit(self, key_id: str, tier: Tier, request_id: str = "") -> Admission:
        async def admit() -> Admission:
            await self.store.set("test-clock", self.now)
            return await self.quotas.admit(key_id, tier, request_id or self.next_request(), 0.0)

        return self.run(admit())

    def release(self, key_id: str, request_id: str) -> None:
        async def release() -> None:
            self.quotas.release(key_id, request_id)
            await asyncio.gather(*asyncio.all_tasks() - {asyncio.current_task()})

        self.run(release())


async def made(make: t.Callable[[], t.Any]) -> t.Any:
    """Call ``make`` inside the event loop."""
    return make()


class Server:
    """A Valkey or Redis of the tests' own."""

    def __init__(self, program: str, folder: Path) -> None:
        self.socket = folder / "store.sock"
        self._command = [
            *(program, "--port", "0", "--unixsocket", str(self.socket), "--dir", str(folder)),
            *(
                "--requirepass",
                PASSWORD,
                "--save",
                "",
                "--appendonly",
                "no",
                "--loglevel",
                "warning",
            ),
        ]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self.socket.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert self.socket.exists(), "the store did not start"

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.socket.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Server]:
    pytest.importorskip("redis", reason="the Python library redis is not installed")
    program = shutil.which("valkey-server") or shutil.which("redis-server")
    if program is None:
        pytest.skip("neither valkey-server nor redis-server is installed")
    running = Server(program, tmp_path_factory.mktemp("store"))
    yield running
    running.stop()


@pytest.fixture
def runner() -> t.Iterator[asyncio.Runner]:
    """The event loop of the service."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as running:
        yield running


@pytest.fixture
def shared(
    server: Server, runner: asyncio.Runner, monkeypatch: pytest.MonkeyPatch
) -> t.Iterator[SharedCounter]:
    from llm_key_validator.quotas import shared as subject

    monkeypatch.setattr(subject, "_CLOCK", TEST_CLOCK)
    counter = SharedCounter(runner, server.socket)
    yield counter
    runner.run(counter.quotas.close())


@pytest.fixture(params=["memory", "shared"])
def counter(request: pytest.FixtureRequest) -> Counter:
    """Each of the two places in turn."""
    if request.param == "memory":
        return MemoryCounter()
    return request.getfixturevalue("shared")
