# SPDX-License-Identifier: GPL-3.0-or-later
"""Programs that run for the benchmark, and what the kernel says that they used."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.lab.steps import LabError

_TICKS = os.sysconf("SC_CLK_TCK")
_START_SECONDS = 90.0
# Programs are idle when they use no more CPU time than this in one look
_LOOK_SECONDS = 0.25
_IDLE_SECONDS = 0.02


class Program:
    """One program with its children. Ends with ``close``."""

    def __init__(
        self,
        command: Sequence[str | Path],
        log: Path,
        *,
        env: dict[str, str] | None = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name = Path(command[0]).name
        self.log = log
        with log.open("ab") as out:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                env=env,
                pass_fds=tuple(pass_fds),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def wait_for(self, ready: Callable[[], bool]) -> None:
        """Wait until it is ready. Raises LabError with its log's end when it never is."""
        end = time.monotonic() + _START_SECONDS
        while not ready():
            if self._process.poll() is not None or time.monotonic() > end:
                self.close()
                tail = self.log.read_text(errors="replace")[-2000:]
                raise LabError(f"{self.name} did not start:\n{tail}")
            time.sleep(0.05)

    def pids(self) -> list[int]:
        """The program's processes, the first one and all below it."""
        found = [self._process.pid]
        for pid in found:
            try:
                children = Path(f"/proc/{pid}/task/{pid}/children").read_text()
            except OSError:
                continue
            found += [int(child) for child in children.split()]
        return found

    def cpu_seconds(self) -> float:
        """CPU time of all its processes so far (user and system, proc(5), /proc/PID/stat)."""
        ticks = 0
        for pid in self.pids():
            # The second field is the program's name, which may hold anything.
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICKS

    def memory(self) -> tuple[int, int]:
        """Resident bytes of all its processes: now, and at their highest."""
        now = peak = 0
        for pid in self.pids():
            status = Path(f"/proc/{pid}/status").read_text()
            now += _kibibytes("VmRSS", status) * 1024
            peak += _kibibytes("VmHWM", status) * 1024
        return now, peak

    def send(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def close(self) -> None:
        """End it, and it ends its children."""
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10)


def _kibibytes(name: str, status: str) -> int:
    found = re.search(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found[1]) if found else 0


def listens(port: int) -> bool:
    """Tell whether somebody takes connections on a loopback port."""
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


def cpu_seconds(programs: Sequence[Program]) -> float:
    """CPU time of several programs so far."""
    return sum(program.cpu_seconds() for program in programs)


def settle(programs: Sequence[Program], *, seconds: float = 20.0) -> float:
    """Wait until the programs have finished what a client that left has asked them for.

    Return how many cores somebody else keeps busy while they are idle.
    """
    end = time.monotonic() + seconds
    while True:
        ours, everybody, start = cpu_seconds(programs), _busy_seconds(), time.monotonic()
        time.sleep(_LOOK_SECONDS)
        ours = cpu_seconds(programs) - ours
        now = time.monotonic()
        if ours <= _IDLE_SECONDS or now > end:
            return max(0.0, _busy_seconds() - everybody - ours) / (now - start)


def _busy_seconds() -> float:
    """CPU time of the whole machine so far (proc(5), /proc/stat; without idle and steal)."""
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum((*ticks[:3], *ticks[5:7])) / _TICKS
