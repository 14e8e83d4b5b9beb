# SPDX-License-Identifier: GPL-3.0-or-later
"""When the log is sealed, and how far the key's step behind a seal has come.

The log asks; this keeps the key and its state. The old key is erased on the disk; what was in
this process's memory goes when Python reuses it, and with the process at the latest.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum, auto

from ..journal import Journal, Level
from .chain import Position
from .metrics import AuditMetrics
from .records import Value, render
from .seals import Expected, KeyFile, SealError, SealKey, catch_up, seal_mac


class Step(Enum):
    """What stands between one seal and the next."""

    NONE = auto()
    # The seal is in the log, but not known to be on the disk
    WRITTEN = auto()
    # It is on the disk; the next key is being written
    STEPPING = auto()
    # The next key could not be written
    OWED = auto()


class Sealer:
    """The present key, and what was recorded since the last seal."""

    def __init__(
        self,
        key_file: KeyFile,
        records: int,
        seconds: float,
        *,
        journal: Journal,
        metrics: AuditMetrics,
        clock: Callable[[], float],
    ) -> None:
        self._key_file = key_file
        self._records = records
        self._seconds = seconds
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._key: SealKey | None = None
        # What the log says of its keys, for as long as it cannot be sealed
        self._expected: Expected | None = None
        # Steps made at the start, until a record says so
        self._stepped = 0
        self._since = 0
        self._sealed_at = clock()
        self.step = Step.NONE

    def load(self, expected: Expected | None) -> None:
        """Take the key up; ``expected``: what the log says. Without a key, go on unsealed."""
        try:
            found = self._key_file.load()
            key = catch_up(found, expected)
        except (SealError, OSError) as error:
            problem = str(error) if isinstance(error, SealError) else type(error).__name__
            self._journal.say(Level.WARNING, "audit_unsealed", problem=problem)
            self._key, self._expected = None, expected
            self._metrics.sealed, self._metrics.epoch = False, 0
            return
        self._key, self._expected = key, None
        self._stepped = key.epoch - found.epoch
        self._metrics.sealed, self._metrics.epoch = True, key.epoch
        self._report(key, expected or Expected(key.key_id, 0))
        if expected is not None and key != found:
            self._catch_up_on_disk(found, key, expected)

    def _catch_up_on_disk(self, found: SealKey, key: SealKey, expected: Expected) -> None:
        try:
            self._key_file.replace(key)
        except OSError as error:
            # The last step is owed, as behind any seal: a disk that is full now has room again.
            self._key = catch_up(found, expected._replace(epoch=key.epoch - 1, seal=None))
            self._step_failed(error)

    def _report(self, key: SealKey, expected: Expected) -> None:
        if key.key_id != expected.key_id:
            self._journal.say(Level.WARNING, "audit_seal_key_new", key_id=key.key_id)
        elif self._stepped > 1:
            self._journal.say(Level.WARNING, "audit_seal_key_restored", epochs=self._stepped)
        elif key.epoch > expected.epoch:
            gap = {"first": expected.epoch, "last": key.epoch - 1}
            self._journal.say(Level.WARNING, "audit_seals_missing", **gap)

    @property
    def epoch(self) -> int | None:
        """Return the epoch of the next seal, None when there will be none."""
        if self._key is None:
            return None
        return self._key.epoch + (self.step is not Step.NONE)

    def open_values(self) -> dict[str, Value | None]:
        """Return what an ``open`` record says of the keys."""
        if self._key is not None:
            return {
                "llm.audit.key.id": self._key.key_id,
                "llm.audit.key.epoch": self.epoch,
                "llm.audit.key.stepped": self._stepped or None,
            }
        if self._expected is not None:
            return {
                "llm.audit.expected.key.id": self._expected.key_id,
                "llm.audit.expected.key.epoch": self._expected.epoch,
            }
        return {}

    def ready(self) -> bool:
        """Say whether a seal could be written now."""
        return self._key is not None and self.step is Step.NONE

    def due(self, more: int) -> bool:
        """Say whether a seal belongs behind ``more`` further records."""
        return self._since + more >= self._records and self.ready()

    def due_by_time(self) -> bool:
        """Say whether the epoch has lasted long enough. One without records goes on."""
        lasted = self._clock() - self._sealed_at
        # Below 0: a clock that is set back must not put the seal off.
        over = not 0 <= lasted < self._seconds
        return over and self._since > 0 and self.ready()

    def count(self, records: int) -> None:
        """Note records that stand in the log."""
        self._since += records

    def fields(self, before: Position) -> bytes:
        """Return the fields of a seal right behind ``before``."""
        key = self._key
        if key is None:
            raise SealError("there is no key")
        sequence = before.sequence + 1
        mac = seal_mac(key.key, key.epoch, sequence, before.hash)
        return render(
            {
                "event.action": "seal",
                "llm.audit.key.id": key.key_id,
                "llm.audit.seal.epoch": key.epoch,
                "llm.audit.seal.count": sequence,
                "llm.audit.seal.head": before.hash.hex(),
                "llm.audit.seal.mac": mac.hex(),
            }
        )

    def opened(self) -> None:
        """Note that an ``open`` record stands in the log."""
        self._stepped = 0

    def sealed(self) -> None:
        """Note that the seal stands in the log: never another one in this epoch."""
        self.step = Step.WRITTEN
        self._since, self._sealed_at = 0, self._clock()
        self._metrics.seals += 1

    def next_step(self) -> tuple[Callable[[], None], Callable[[BaseException | None], None]]:
        """Return the key step, which writes to the disk, and what to call with its outcome."""
        if self._key is None:
            raise SealError("there is no key")
        key = self._key.next()
        self.step = Step.STEPPING

        def done(error: BaseException | None) -> None:
            if error is None:
                self._key, self.step = key, Step.NONE
                self._metrics.sealed, self._metrics.epoch = True, key.epoch
                return
            self._step_failed(error)

        return lambda: self._key_file.replace(key), done

    def _step_failed(self, error: BaseException) -> None:
        if self._metrics.sealed:  # once, not at each attempt
            problem = type(error).__name__
            self._journal.say(Level.ERROR, "audit_key_step_failed", problem=problem)
        self.step, self._metrics.sealed = Step.OWED, False
