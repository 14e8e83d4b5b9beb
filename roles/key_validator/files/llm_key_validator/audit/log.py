# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log's writer: every record is taken and said so, or refused and said so.

The rule is Vault's: a record counts when at least one sink took it, and what is not recorded is
not answered. Records of one turn of the event loop share one write and, if wanted, one fsync
(group commit). The writer never trusts a file that failed: it closes it, and ``tick`` takes it
up again, cut back to its last whole record, once a real write succeeds.

Everything runs on the event loop's thread, but fsync and the seal key's step: those are handed
to ``sync_in_thread`` and touch nothing of the writer's state.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import NamedTuple

from ..journal import Journal, Level
from .chain import START, Position, Stamp, Tail, link
from .files import Files, OsFiles
from .logfile import LogFile, LogFolder
from .metrics import ACTIONS, SINKS, AuditMetrics
from .records import render, suppressed_fields
from .sealer import Sealer, Step
from .seals import KeyFile
from .sinks import Sink, make_sinks

VERSION = 1
Done = Callable[[bool], None]
Finished = Callable[[BaseException | None], None]
# Start of the line, fields, and whom to tell
Record = tuple[bytes, bytes, Done | None]

# Records that may wait for a disk that hangs. Each has a client who waits, so nobody gets here.
_MAX_WAITING = 16384
# Records that share a write at least, when so many come in one turn: the first ones' clients need
# not wait for the whole turn. With fsync they gain by waiting for each other, and records that
# nobody waits for by waiting for those.
_TOGETHER = 4
# Rotated files that one ``open`` record may remove
_MAX_REMOVED = 16
# Fields begin with "event.action":"<action>": four letters tell the actions apart.
_ACTION = slice(16, 20)
_ACTIONS = {action[:4].encode(): action for action in ACTIONS}


class Head(NamedTuple):
    """Where the log ends; ``epoch`` of the next seal, None when unsealed."""

    sequence: int
    hash: bytes
    epoch: int | None


@dataclass(frozen=True, slots=True)
class AuditSettings:
    """How the log is kept. Raises ValueError for sinks that are not possible."""

    directory: str
    state_directory: str
    # Whether a record counts only when it is on the disk
    fsync: bool = False
    max_file_bytes: int = 256 * 1024 * 1024
    # Rotated files that are kept, 0: all
    keep_files: int = 0
    # The file must be one of them: the chain goes on from it after a start.
    sinks: tuple[str, ...] = ("file",)
    seal_records: int = 1000
    seal_seconds: float = 60.0
    # Refusals recorded each second; the rest is counted by reason
    refusals_per_second: int = 100
    file_mode: int = 0o640

    def __post_init__(self) -> None:
        """Check the sinks."""
        if "file" not in self.sinks:
            raise ValueError("sinks: the file must be one of them")
        if not set(self.sinks) <= set(SINKS):
            raise ValueError(f"sinks: must be among {', '.join(SINKS)}")


class RefusalLimiter:
    """Bounds recorded refusals: whoever reaches the gateway could fill the disk with them."""

    def __init__(self, per_second: int) -> None:
        self._per_second = per_second
        self._left = per_second
        self._suppressed: Counter[str] = Counter()

    def admit(self, reason: str) -> bool:
        """Say whether a refusal is recorded; if not, it is counted."""
        if self._left > 0:
            self._left -= 1
            return True
        self._suppressed[reason] += 1
        return False

    def next_second(self) -> None:
        """Start a new second."""
        self._left = self._per_second

    def take(self) -> Counter[str]:
        """Return what was only counted, by reason, and start counting anew."""
        counted, self._suppressed = self._suppressed, Counter()
        return counted


class _Batch(NamedTuple):
    """Records that were written together."""

    lines: list[bytes]
    records: Sequence[Record]
    after: Position
    # The last line is a seal, which is not among the records
    sealed: bool
    # What stands first when a file is taken up
    preamble: bool


class AuditLog:
    """The log. ``defer`` runs something at the end of the event loop's present turn."""

    def __init__(
        self,
        settings: AuditSettings,
        *,
        journal: Journal,
        metrics: AuditMetrics,
        clock: Callable[[], float],
        defer: Callable[[Callable[[], None]], None],
        sync_in_thread: Callable[[Callable[[], None], Finished], None],
        files: Files | None = None,
        sinks: Sequence[Sink] | None = None,
    ) -> None:
        files = OsFiles() if files is None else files
        self._settings = settings
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._defer = defer
        self._sync_in_thread = sync_in_thread
        self._sinks = make_sinks(settings.sinks) if sinks is None else list(sinks)
        self._folder = LogFolder(files, settings.directory, settings.file_mode)
        self._sealer = Sealer(
            KeyFile(files, settings.state_directory),
            settings.seal_records,
            settings.seal_seconds,
            journal=journal,
            metrics=metrics,
            clock=clock,
        )
        self._stamp = Stamp()
        # Of strangers, and of known keys: whoever floods the one does not hide the other.
        self.refusals = RefusalLimiter(settings.refusals_per_second)
        self.key_refusals = RefusalLimiter(settings.refusals_per_second)
        # Whether a record has a chance now. While False, nothing touches the disk but tick.
        self.writable = False

        # Waiting for the end of the turn, or for the fsync that is under way
        self._queue: list[Record] = []
        self._scheduled = False
        self._syncing = False
        # Written, but not yet on the disk
        self._flight: _Batch | None = None
        self._closed = False

        # The file in use, None while there is none
        self._file: LogFile | None = None
        # Of the file in use, or the last one: which it is, how far it is whole, where it ends
        self._identity: tuple[int, int] | None = None
        self._whole = 0
        self._file_end = START
        # It failed in a way that no record behind the last good one may be put there
        self._abandoned = False
        # Nothing stands in it yet
        self._fresh = False

        # Where the chain ends, known once a file was read
        self._started = False
        self._head = START

        # What the next records in a file have to say
        self._open_owed = True
        self._previous_file: str | None = None
        self._repair_owed: bytes | None = None
        # Since when the file cannot be written (seconds since the epoch), and what that cost
        self._failed_at: float | None = None
        self._refused = 0

        # For the next fsync: files to close, names to make durable, old files to delete
        self._retired: list[LogFile] = []
        self._folder_changed = False
        self._removable: list[str] = []
        # For when the fsync is over
        self._care_due = False
        self._rotation_wanted = False
        self._rotation_failed = False

    @property
    def head(self) -> Head:
        """Return where the log ends."""
        return Head(self._head.sequence, self._head.hash, self._sealer.epoch)

    def open(self) -> None:
        """Take the log up where it ends. A disk problem leaves ``writable`` False."""
        try:
            batch = self._attach()
        except OSError as error:
            self._lose_file(error)
            return
        try:
            self._sync_job()()
        except OSError as error:
            self._abandoned = True
            self._lose_file(error)
            return
        self._settle(batch)

    def append(self, fields: bytes, done: Done | None = None) -> None:
        """Queue a record; ``done`` hears whether it was taken.

        ``fields`` come from ``records``: they begin with ``"event.action":``.
        """
        if not self.writable or len(self._queue) >= _MAX_WAITING:
            self._refuse(1)
            if done is not None:
                done(False)
            return
        self._queue.append((self._stamp.render(self._clock()), fields, done))
        if done is not None and len(self._queue) >= _TOGETHER and not self._settings.fsync:
            self._flush()
        elif not self._scheduled:
            self._scheduled = True
            self._defer(self._flush)

    def tick(self) -> None:
        """Do what is due; call it once a second."""
        self.refusals.next_second()
        self.key_refusals.next_second()
        if self._closed:
            return
        if self.writable:
            self._record_suppressed()
        if self._file is None:
            self._retry()
        elif self._syncing:
            self._care_due = True
        else:
            self._take_care()

    def _record_suppressed(self) -> None:
        for reason, count in (self.refusals.take() + self.key_refusals.take()).items():
            self._metrics.suppressed += count
            self.append(suppressed_fields(reason, count))

    def rotate(self) -> None:
        """Go on in a new file, as soon as no fsync is under way."""
        self._rotation_wanted = True
        if self._file is not None and not self._syncing and not self._closed:
            self._take_care()

    def close(self) -> None:
        """Write what waits, a ``close`` record and a seal over it all. Blocks for the disk."""
        if self._closed:
            return
        self._closed = True
        self._set_writable(False)
        records, self._queue = self._queue, []
        records.append(self._record(render({"event.action": "close"})))
        if self._file is None:
            self._send_elsewhere(records)
        else:
            self._write_last(self._file, records)
        for sink in self._sinks:
            sink.close()

    def _write_last(self, file: LogFile, records: list[Record]) -> None:
        # With a seal or its fsync still under way, the next start does the rest.
        seal = self._sealer.ready() and not self._syncing
        batch = self._batch(records, seal=seal)
        try:
            file.write(b"".join(batch.lines))
            file.sync()
            self._folder.sync()  # the thread that shall do it may be at it still
        except OSError as error:
            self._lose_file(error)
            self._send_elsewhere(records)
            return
        self._settle(batch)
        if seal:
            step, done = self._sealer.next_step()
            try:
                step()
            except OSError as error:
                done(error)
            else:
                done(None)
        if not self._syncing:
            file.close()

    # -- Records -----------------------------------------------------------------------------

    def _record(self, fields: bytes) -> Record:
        return (self._stamp.render(self._clock()), fields, None)

    def _batch(
        self, records: Sequence[Record], *, seal: bool = False, preamble: bool = False
    ) -> _Batch:
        """Chain records behind the last one written."""
        lines, after = link(records, self._flight.after if self._flight else self._head)
        if seal:
            last, after = link([self._record(self._sealer.fields(after))], after)
            lines += last
        return _Batch(lines, records, after, seal, preamble)

    def _flush(self) -> None:
        """Write what waits, with one write."""
        self._scheduled = False
        if self._syncing and self._settings.fsync:
            return  # what arrives meanwhile shares the next fsync
        records, self._queue = self._queue, []
        if self._file is None:
            self._send_elsewhere(records)
            return
        if records:
            self._write(self._file, records, seal=self._sealer.due(len(records)))

    def _write(self, file: LogFile, records: list[Record], *, seal: bool) -> None:
        batch = self._batch(records, seal=seal)
        try:
            file.write(b"".join(batch.lines))
        except OSError as error:
            self._lose_file(error)
            self._send_elsewhere(records)
            return
        self._commit(batch)

    def _commit(self, batch: _Batch) -> None:
        """Count records that were written, now or when they are on the disk."""
        if self._settings.fsync:
            self._begin_sync(batch)
            return
        self._settle(batch)
        if not self._syncing and (batch.sealed or self._retired or self._folder_changed):
            self._begin_sync(None)

    def _settle(self, batch: _Batch) -> None:
        """Records stand in the file: from here on they are the log's."""
        self._head = self._file_end = batch.after
        size = sum(map(len, batch.lines))
        self._whole += size
        self._metrics.bytes += size
        self._count(batch.records)
        if batch.sealed:
            self._metrics.records["seal"] += 1
            self._sealer.sealed()
        if batch.preamble:
            self._taken_up()
        if self._sinks:
            for line in batch.lines:
                self._offer(line)
        for _start, _fields, done in batch.records:
            if done is not None:
                done(True)

    def _count(self, records: Sequence[Record]) -> None:
        counters = self._metrics.records
        for _start, fields, _done in records:
            counters[_ACTIONS.get(fields[_ACTION], "other")] += 1
        self._metrics.sequence = self._head.sequence
        self._sealer.count(len(records))

    def _offer(self, line: bytes) -> bool:
        """Hand a line to the sinks beside the file; say whether one took it."""
        taken = False
        for sink in self._sinks:
            if sink.take(line):
                taken = True
            else:
                self._metrics.failures[sink.name] += 1
        return taken

    def _send_elsewhere(self, records: Sequence[Record]) -> None:
        """Without the file: a record counts if another sink takes it.

        The first one that none takes ends it: its number goes to the next that is taken.
        """
        taken = 0
        if self._sinks and self._started:
            for record in records:
                (line,), after = link([record], self._head)
                if not self._offer(line):
                    break
                self._head = after
                taken += 1
        self._count(records[:taken])
        if records:
            self._set_writable(taken == len(records) and not self._closed)
        self._refuse(len(records) - taken)
        for index, (_start, _fields, done) in enumerate(records):
            if done is not None:
                done(index < taken)

    def _refuse(self, records: int) -> None:
        self._refused += records
        self._metrics.refused += records

    def _set_writable(self, writable: bool) -> None:
        self.writable = self._metrics.writable = writable

    # -- fsync and key steps -----------------------------------------------------------------

    def _begin_sync(self, batch: _Batch | None) -> None:
        """Let a thread fsync the file; ``batch`` counts when that is done."""
        file = self._file
        self._flight, self._syncing = batch, True
        seal = self._sealer.step is Step.WRITTEN or (batch is not None and batch.sealed)
        self._sync_in_thread(
            self._sync_job(), lambda error: self._synced(error, file, batch, seal=seal)
        )

    def _sync_job(self) -> Callable[[], None]:
        """Return what has to happen on the disk, without a look at the writer's state."""
        file, folder, folder_changed = self._file, self._folder, self._folder_changed
        retired, removable = self._retired, self._removable
        self._retired, self._removable, self._folder_changed = [], [], False

        def run() -> None:
            for old in retired:
                with suppress(OSError):  # with fsync, all of it is on the disk already
                    old.sync()
                old.close()
            if file is not None:
                file.sync()
            if folder_changed:
                folder.sync()
            for name in removable:
                with suppress(OSError):  # the next rotation tries again
                    folder.remove(name)

        return run

    def _synced(
        self, error: BaseException | None, file: LogFile | None, batch: _Batch | None, *, seal: bool
    ) -> None:
        """The fsync is over."""
        self._flight, self._syncing = None, False
        if self._closed:
            self._answer(batch, error is None)
            return
        if error is not None:
            self._sync_failed(error, file, batch)
            return
        self._metrics.fsyncs += 1
        if batch is not None:
            self._settle(batch)
        if seal:
            self._begin_step()
        if self._care_due and self._file is not None:
            self._take_care()
        if not self._scheduled:
            self._flush()

    @staticmethod
    def _answer(batch: _Batch | None, taken: bool) -> None:
        for _start, _fields, done in batch.records if batch else ():
            if done is not None:
                done(taken)

    def _sync_failed(
        self, error: BaseException, file: LogFile | None, batch: _Batch | None
    ) -> None:
        """After a failed fsync the kernel may have dropped pages: never go on in that file."""
        if file is not None and file is self._file:
            self._abandoned = True
            if batch is not None:
                with suppress(OSError):
                    file.cut(self._whole)
            self._lose_file(error)
        self._folder_changed = True
        if batch is not None:
            self._send_elsewhere(() if batch.preamble else batch.records)
        self._flush()

    def _begin_step(self) -> None:
        self._sync_in_thread(*self._sealer.next_step())

    # -- Files -------------------------------------------------------------------------------

    def _take_care(self) -> None:
        """Look after the file and the seals, with no fsync under way."""
        self._care_due = False
        try:
            self._look_after_file()
        except OSError as error:
            self._lose_file(error)
        if self._sealer.step is Step.OWED:
            self._begin_step()
        if self._file is None or self._syncing:
            return
        if self._sealer.step is Step.WRITTEN:
            self._begin_sync(None)
        elif self._sealer.due_by_time():
            records, self._queue = self._queue, []
            self._write(self._file, records, seal=True)

    def _look_after_file(self) -> None:
        file = self._file
        if file is None:
            return
        if not self._folder.is_active(file):
            self._journal.say(Level.WARNING, "audit_file_moved")
            self._change_file(file, None)
        elif file.present_size() != file.size:
            self._journal.say(Level.ERROR, "audit_file_changed_by_others")
            self._rotate(file)
        elif self._rotation_wanted or file.size >= self._settings.max_file_bytes:
            self._rotate(file)

    def _rotate(self, file: LogFile) -> None:
        try:
            name = self._folder.set_aside(file, self._head.sequence)
        except OSError as error:  # a large file is better than none
            if not self._rotation_failed:
                problem = os.strerror(error.errno or 0)
                self._journal.say(Level.WARNING, "audit_rotation_failed", problem=problem)
            self._rotation_failed = True
            return
        self._rotation_wanted = self._rotation_failed = False
        self._change_file(file, name)
        self._metrics.rotations += 1

    def _change_file(self, old: LogFile, name: str | None) -> None:
        """Go on in a new file; ``name``: the old one's by now. Raises OSError."""
        self._file, self._identity, self._previous_file = None, None, name
        self._retired.append(old)
        self._folder_changed = True
        self._commit(self._attach())

    def _lose_file(self, error: BaseException) -> None:
        """Give the file up until ``tick`` succeeds with it."""
        file, self._file = self._file, None
        if file is not None and self._syncing:
            self._retired.append(file)  # a thread is at it: its number must not be reused
        elif file is not None:
            file.close()
        if self._failed_at is not None:
            return
        self._failed_at = self._clock()
        self._metrics.failures["file"] += 1
        number = error.errno if isinstance(error, OSError) else None
        problem = os.strerror(number) if number else type(error).__name__
        self._journal.say(Level.ERROR, "audit_file_failed", problem=problem)
        self._set_writable(bool(self._sinks) and self._started and not self._closed)

    def _retry(self) -> None:
        try:
            batch = self._attach()
        except OSError as error:
            self._lose_file(error)
            if self._started and not self.writable:
                self._resume_elsewhere()
            return
        self._commit(batch)

    def _resume_elsewhere(self) -> None:
        """Without the file, see whether another sink takes records again."""
        record = self._record(self._resume_fields())
        (line,), after = link([record], self._head)
        if self._offer(line):
            self._head = after
            self._count([record])
            self._refused = 0
            self._set_writable(True)

    def _attach(self) -> _Batch:
        """Take the active file up, or begin one, and write what stands first. Raises OSError."""
        file = self._folder.open_active()
        try:
            file = self._go_on_with(file) if self._started else self._start_with(file)
            batch = self._batch(self._preamble(), preamble=True)
            file.write(b"".join(batch.lines))
        except OSError:
            if file not in self._retired:
                file.close()
            raise
        self._file = file
        return batch

    def _start_with(self, file: LogFile) -> LogFile:
        """Find the chain's end and the state of its seals; repair what a crash left."""
        tail = file.tail()
        last = tail.last
        if last is None:
            last, self._previous_file = self._folder.last_position() or (START, None)
        expected = file.expected_key() or self._folder.expected_key()
        self._head = last
        if not tail.trusted:
            self._journal.say(Level.ERROR, "audit_tail_untrusted", sequence=last.sequence)
            file = self._replace(file, ours=True)
        else:
            self._repair(file, tail)
            self._begin(file)
        self._sealer.load(expected)
        # The names as well: whoever made them may have been killed before they were durable.
        self._started = self._folder_changed = True
        return file

    def _repair(self, file: LogFile, tail: Tail) -> None:
        if not tail.torn:
            return
        self._journal.say(Level.WARNING, "audit_tail_repaired", bytes=len(tail.torn))
        file.cut(file.size - len(tail.torn))
        self._metrics.repairs += 1
        self._repair_owed = render(
            {
                "event.action": "repair",
                "llm.audit.torn.bytes": len(tail.torn),
                "llm.audit.torn.sha256": hashlib.sha256(tail.torn).hexdigest(),
            }
        )

    def _go_on_with(self, file: LogFile) -> LogFile:
        """Take our file up again, whole; leave any other where it is found, under its name."""
        ours = file.identity == self._identity
        if ours and file.size > self._whole:
            file.cut(self._whole)
        whole = file.size == (self._whole if ours else 0)
        # Other sinks may have taken records since: those are missing in this file.
        complete = self._file_end == self._head or file.size == 0
        if whole and complete and not (ours and self._abandoned):
            self._begin(file)
            return file
        return self._replace(file, ours=ours)

    def _begin(self, file: LogFile) -> None:
        """Note that ``file`` is in use, whole as it is."""
        self._identity, self._whole, self._file_end = file.identity, file.size, self._head
        self._fresh, self._abandoned = file.size == 0, False
        self._folder_changed = self._folder_changed or self._fresh

    def _replace(self, file: LogFile, *, ours: bool) -> LogFile:
        """Put the active file out of the way and make a new one."""
        if file.size == 0:
            self._folder.remove_active()
        else:
            name = self._folder.set_aside(file, self._head.sequence)
            self._previous_file = name if ours else self._previous_file
        # What was cut off must not be there again after a power failure.
        self._retired.append(file)
        self._identity = None
        fresh = self._folder.open_active()
        self._begin(fresh)
        return fresh

    def _preamble(self) -> list[Record]:
        """Return what stands first in a file that is taken up."""
        fields = []
        if self._fresh or self._open_owed:
            fields.append(self._open_fields())
        if self._repair_owed is not None:
            fields.append(self._repair_owed)
        if self._failed_at is not None:
            fields.append(self._resume_fields())
        return [self._record(one) for one in fields]

    def _open_fields(self) -> bytes:
        keep = self._settings.keep_files
        if self._fresh and keep:
            self._removable = self._folder.rotated()[:-keep][:_MAX_REMOVED]
        began = self._head == START
        return render(
            {
                "event.action": "open",
                "llm.audit.version": VERSION,
                "llm.audit.previous.file": self._previous_file if self._fresh else None,
                "llm.audit.previous.sequence": None if began else self._head.sequence,
                "llm.audit.previous.hash": None if began else self._head.hash.hex(),
                **self._sealer.open_values(),
                "llm.audit.removed": self._removable or None,
            }
        )

    def _resume_fields(self) -> bytes:
        now = self._clock()
        return render(
            {
                "event.action": "resume",
                "llm.audit.refused": self._refused,
                "llm.audit.seconds": max(0, round(now - (self._failed_at or now))),
            }
        )

    def _taken_up(self) -> None:
        """Note that what had to stand first does."""
        if self._failed_at is not None:
            self._journal.say(Level.WARNING, "audit_file_resumed", refused=self._refused)
        self._failed_at, self._refused = None, 0
        self._open_owed, self._repair_owed, self._previous_file = False, None, None
        self._sealer.opened()
        self._set_writable(True)
