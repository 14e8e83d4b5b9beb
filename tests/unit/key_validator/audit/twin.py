# SPDX-License-Identifier: GPL-3.0-or-later
"""A file system in memory that fails, crashes and loses power when told, and a log on it."""

from __future__ import annotations

import errno
import json
import typing as t
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from llm_key_validator.audit.files import Files, Status
from llm_key_validator.audit.findings import Finding, Result
from llm_key_validator.audit.findings import Level as FindingLevel
from llm_key_validator.audit.log import AuditLog, AuditSettings
from llm_key_validator.audit.metrics import AuditMetrics
from llm_key_validator.audit.seals import first_key
from llm_key_validator.audit.sinks import Sink
from llm_key_validator.audit.verify import Wanted, verify
from llm_key_validator.journal import Journal

from ..conftest import NOW

LOGS, STATE = "/log", "/state"
ACTIVE = f"{LOGS}/audit.jsonl"
FIRST = first_key("07" * 32)


class Crash(BaseException):
    """The process is killed here."""


@dataclass(eq=False)
class Inode:
    number: int
    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    # What a disk's blocks once held: every content this inode had when it was synced
    history: list[bytes] = field(default_factory=list)


@dataclass
class Open:
    inode: Inode
    append: bool
    offset: int = 0


class MemoryFiles:
    """``fault`` gets each call's number and name; what it returns is raised before the call
    takes effect, but for ``torn`` bytes of a write, which are written first."""

    def __init__(self) -> None:
        self.paths: dict[str, Inode] = {}
        self.durable_paths: dict[str, Inode] = {}
        self.inodes: list[Inode] = []
        self.descriptors: dict[int, Open] = {}
        self.calls: list[str] = []
        self.fault: Callable[[int, str], BaseException | None] = lambda _number, _name: None
        self.torn = 0
        self.directories = {LOGS, STATE}

    def _call(self, name: str) -> BaseException | None:
        self.calls.append(name)
        fault = self.fault(len(self.calls) - 1, name)
        if fault is not None and name != "write":
            raise fault
        return fault

    def _open(self, path: str, *, append: bool, create: bool) -> int:
        if path.rpartition("/")[0] not in self.directories:
            raise FileNotFoundError(errno.ENOENT, "no directory")
        if path not in self.paths:
            if not create:
                raise FileNotFoundError(errno.ENOENT, "no file")
            self.paths[path] = Inode(len(self.inodes) + 1)
            self.inodes.append(self.paths[path])
        descriptor = min(set(range(3, 1000)) - self.descriptors.keys())
        self.descriptors[descriptor] = Open(self.paths[path], append)
        return descriptor

    def check_directory(self, path: str) -> None:
        self._call("check_directory")
        if path not in self.directories:
            raise FileNotFoundError(errno.ENOENT, "no directory")

    def open_log(self, path: str, mode: int) -> int:
        self._call("open_log")
        return self._open(path, append=True, create=True)

    def open_rotated(self, path: str) -> int:
        self._call("open_rotated")
        return self._open(path, append=False, create=False)

    def open_secret(self, path: str) -> int:
        self._call("open_secret")
        return self._open(path, append=False, create=False)

    def create_secret(self, path: str) -> int:
        self._call("create_secret")
        descriptor = self._open(path, append=False, create=True)
        self.descriptors[descriptor].inode.data.clear()
        return descriptor

    def read_file(self, path: str, limit: int) -> bytes:
        self._call("read_file")
        if path not in self.paths:
            raise FileNotFoundError(errno.ENOENT, "no file")
        return bytes(self.paths[path].data[:limit])

    def read(self, descriptor: int, offset: int, count: int) -> bytes:
        self._call("read")
        # Short reads are allowed
        count = min(count, 100_000)
        return bytes(self.descriptors[descriptor].inode.data[offset : offset + count])

    def write(self, descriptor: int, data: bytes) -> int:
        fault = self._call("write")
        file = self.descriptors[descriptor]
        part = data if fault is None else data[: self.torn]
        offset = len(file.inode.data) if file.append else file.offset
        file.inode.data[offset : offset + len(part)] = part
        file.offset = offset + len(part)
        if fault is not None:
            raise fault
        return len(part)

    def truncate(self, descriptor: int, size: int) -> None:
        self._call("truncate")
        del self.descriptors[descriptor].inode.data[size:]

    def sync(self, descriptor: int) -> None:
        self._call("sync")
        inode = self.descriptors[descriptor].inode
        inode.durable = bytes(inode.data)
        inode.history.append(inode.durable)

    def close(self, descriptor: int) -> None:
        del self.descriptors[descriptor]  # KeyError: closed twice
        self._call("close")

    def status(self, descriptor: int) -> Status:
        self._call("status")
        inode = self.descriptors[descriptor].inode
        return Status(1, inode.number, len(inode.data))

    def status_at(self, path: str) -> Status | None:
        self._call("status_at")
        inode = self.paths.get(path)
        return None if inode is None else Status(1, inode.number, len(inode.data))

    def rename(self, old: str, new: str) -> None:
        self._call("rename")
        self.paths[new] = self.paths.pop(old)

    def remove(self, path: str) -> None:
        self._call("remove")
        del self.paths[path]

    def names(self, directory: str) -> list[str]:
        self._call("names")
        return [path.rpartition("/")[2] for path in self.paths if path.startswith(directory)]

    def sync_directory(self, path: str) -> None:
        self._call("sync_directory")
        inside = {name: inode for name, inode in self.paths.items() if name.startswith(path)}
        others = {
            name: inode for name, inode in self.durable_paths.items() if not name.startswith(path)
        }
        self.durable_paths = inside | others

    # -- What tests do to it -----------------------------------------------------------------

    def restart(self, *, power_lost: bool = False) -> None:
        """The process is gone; with the power, all that was not synced is gone, too."""
        self.descriptors.clear()
        self.calls.clear()
        self.fault = lambda _number, _name: None
        if power_lost:
            self.paths = dict(self.durable_paths)
            for inode in self.inodes:
                inode.data = bytearray(inode.durable)

    def put(self, path: str, content: bytes) -> None:
        """A file that has always been there."""
        self.paths[path] = Inode(len(self.inodes) + 1, bytearray(content), content, [content])
        self.inodes.append(self.paths[path])
        self.durable_paths[path] = self.paths[path]

    def logs(self) -> dict[str, bytes]:
        """The log's files, oldest first."""
        names = sorted(path for path in self.paths if path.startswith(LOGS))
        ordered = [*(name for name in names if name != ACTIVE), *({ACTIVE} & set(names))]
        return {name.rpartition("/")[2]: bytes(self.paths[name].data) for name in ordered}


class ListSink:
    """A sink that takes records while ``up``."""

    def __init__(self, name: str = "journald") -> None:
        self.name = name
        self.up = True
        self.lines: list[bytes] = []

    def take(self, line: bytes) -> bool:
        if self.up:
            self.lines.append(line)
        return self.up

    def close(self) -> None:
        self.up = False


class Desk:
    """A log with everything it needs. Turns of the loop and threads run when the test says so,
    or at once with ``at_once``."""

    def __init__(
        self,
        files: Files | None = None,
        *,
        at_once: bool = True,
        sinks: Sequence[Sink] = (),
        sealed: bool = True,
        **settings: t.Any,
    ) -> None:
        self.files = MemoryFiles() if files is None else files
        if sealed and isinstance(self.files, MemoryFiles) and not self.files.paths:
            self.files.put(f"{STATE}/seal.json", FIRST.render())
        self.now = NOW
        self.events: list[dict[str, t.Any]] = []
        self.metrics = AuditMetrics()
        self.deferred: list[Callable[[], None]] = []
        self.jobs: list[tuple[Callable[[], None], Callable[[BaseException | None], None]]] = []
        self.answers: dict[str, bool] = {}
        self.at_once = at_once
        values = {"directory": LOGS, "state_directory": STATE, **settings}
        self.log = AuditLog(
            AuditSettings(**values),
            journal=Journal(lambda line: self.events.append(json.loads(line)), with_levels=False),
            metrics=self.metrics,
            clock=lambda: self.now,
            defer=self._defer,
            sync_in_thread=self._submit,
            files=self.files,
            sinks=sinks,
        )

    def _defer(self, one: Callable[[], None]) -> None:
        self.deferred.append(one)

    def _submit(
        self, job: Callable[[], None], done: Callable[[BaseException | None], None]
    ) -> None:
        self.jobs.append((job, done))
        if self.at_once:
            self.run_jobs()

    def run_jobs(self) -> None:
        while self.jobs:
            self.run_job()

    def run_job(self) -> None:
        job, done = self.jobs.pop(0)
        try:
            job()
        except OSError as error:
            done(error)
        else:
            done(None)

    def turn(self) -> None:
        """End one turn of the event loop."""
        deferred, self.deferred = self.deferred, []
        for one in deferred:
            one()

    def append(self, *names: str, action: str = "request") -> None:
        """Append records of one turn; ``answers`` says what became of each."""
        for name in names:
            self.log.append(
                f'"event.action":"{action}","http.request.id":"{name}"'.encode(),
                lambda taken, name=name: self.answers.__setitem__(name, taken),
            )
        self.turn()

    def second(self) -> None:
        self.now += 1
        self.log.tick()
        self.turn()

    def said(self, event: str) -> list[dict[str, t.Any]]:
        return [entry for entry in self.events if entry["event"] == event]

    @property
    def memory(self) -> MemoryFiles:
        assert isinstance(self.files, MemoryFiles)
        return self.files

    def records(self) -> list[dict[str, t.Any]]:
        """All records in the log's files."""
        content = b"".join(self.memory.logs().values())
        return [json.loads(line) for line in content.splitlines()]

    def actions(self) -> list[str]:
        return [record["event.action"] for record in self.records()]

    def names(self) -> list[str]:
        """The requests in the log."""
        return [one["http.request.id"] for one in self.records() if "http.request.id" in one]


def judged(files: MemoryFiles, folder: Path, *, keyed: bool = True) -> tuple[Result, list[str]]:
    """Return llm-audit's result for the log's files, and what it found wrong."""
    for old in folder.iterdir():
        old.unlink()
    for name, content in files.logs().items():
        (folder / name).write_bytes(content)
    findings: list[Finding] = []
    wanted = Wanted(keys={FIRST.key_id: FIRST.key} if keyed else {}, from_start=True)
    result = verify([folder], wanted, findings.append)
    return result, [one.text for one in findings if one.level is not FindingLevel.INFO]
