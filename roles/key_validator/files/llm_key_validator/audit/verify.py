# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the log whole? Its chain, its seals, its order across files, and an anchor kept elsewhere.

The first break is no reason to stop: an auditor wants to know what else was touched. So after a
break the check goes on from what the record at hand claims, and where two readings are possible
(was a line changed, or one put in?) it tries both on the next line.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

from .chain import START, Position, fields_of, follows, named_before, position_of
from .findings import Finding, Level, Place, Result
from .reading import Lines, Log, Part, Progress
from .seal_check import SealCheck

# A record's line ends with this, 64 hex digits and "}
_HASH = b',"event.hash":"'
_TAIL = len(_HASH) + 64 + 2
_HEAD = b'{"@timestamp":"'
# Offset behind the timestamp, which has 27 characters
_SEQUENCE_AT = len(_HEAD) + 27
_SEQUENCE = b'","event.sequence":'
# In every record that is about the log itself
_OWN = b'"llm.audit.'

# The hash of a record that cannot be read
_UNKNOWN = b""
# No record has it
_NO_SEQUENCE = -1
# Seconds for the service to write the first record into a file it has just made
_GRACE = 0.2


@dataclass(frozen=True, slots=True)
class Wanted:
    """What an auditor asks for."""

    # First keys by their id
    keys: Mapping[str, bytes] = field(default_factory=dict)
    # A head that was noted earlier and kept off the host
    anchor: Position | None = None
    # Whether the log must reach back to its very first record
    from_start: bool = False


def verify(
    paths: Sequence[Path],
    wanted: Wanted,
    report: Callable[[Finding], None],
    progress: Progress | None = None,
) -> Result:
    """Check one log. Raises ReadingError when it cannot be read."""
    place = Place(report, Result())
    check = _ChainCheck(place, wanted)
    log = Log(paths)
    try:
        for file, stream in log.streams():
            place.result.files += 1
            _check_file(check, place, file, Lines(stream, progress), is_last=log.files[-1] == file)
    finally:
        log.close()
    place.file, place.line = None, 0
    if paths[0].is_dir() and not log.files[-1].active:
        place.say(Level.BREAK, "audit.jsonl is missing: the end of the log is not there")
    check.finish()
    return place.result


def _check_file(
    check: _ChainCheck, place: Place, file: Part, lines: Lines, *, is_last: bool
) -> None:
    place.file, place.line = file.name, 0
    check.start_file(file)
    for block in lines.blocks():
        check.feed(block)
    if place.line == 0 and file.active:
        time.sleep(_GRACE)
        for block in lines.blocks():
            check.feed(block)
    place.result.records += place.line
    if lines.rest:
        place.line += 1
        check.torn(lines.rest, may_grow=is_last and file.first is None)
    elif place.line == 0:
        place.say(Level.BREAK, "holds no record")


def _fits(line: bytes, before: Position) -> bool:
    """Tell whether a line is the record behind ``before``, as far as that can be known."""
    if before.hash != _UNKNOWN:
        return follows(line, before)
    position = position_of(line)
    return position is not None and position.sequence == before.sequence + 1


def _hash_behind(before: Position, line: bytes) -> bytes:
    return sha256(before.hash + line[:-_TAIL]).digest()


class _ChainCheck:
    """Follows the chain line by line."""

    def __init__(self, place: Place, wanted: Wanted) -> None:
        self._place = place
        self._from_start = wanted.from_start
        self._seals = SealCheck(place, wanted.keys, from_start=wanted.from_start)
        self._anchor = _AnchorCheck(place, wanted.anchor)
        # The record before; None until the log's first one
        self._before: Position | None = None
        # The record before in the other reading of the last break
        self._other: Position | None = None
        self._file: Part | None = None
        self._file_before: str | None = None
        self._first_line = True

    def start_file(self, file: Part) -> None:
        """The lines that follow are this file's."""
        self._file_before = self._file.name if self._file else None
        self._file, self._first_line = file, True

    def feed(self, lines: list[bytes]) -> None:
        """Check whole lines."""
        start = 0
        while start < len(lines) and (self._first_line or self._before is None):
            self._place.line += 1
            self._look_closely(lines[start])
            self._first_line = False
            start += 1
        if self._before is not None:
            self._run(lines[start:], self._before)

    def _run(self, lines: list[bytes], before: Position) -> None:
        """Check ordinary records at full speed: the loop that reads millions of lines."""
        (sequence, previous), number, watched = before, self._place.line, self._anchor.watched
        for line in lines:
            number += 1
            sequence += 1
            body = line[:-_TAIL]
            digest = sha256(previous + body)
            if (
                line[-_TAIL:] == b'%b%b"}' % (_HASH, digest.hexdigest().encode())
                and line.startswith(b"%b%d," % (_SEQUENCE, sequence), _SEQUENCE_AT)
                and _OWN not in body
                and sequence != watched
            ):
                previous = digest.digest()
            else:
                self._place.line, self._before = number, Position(sequence - 1, previous)
                self._look_closely(line)
                sequence, previous = self._before
        self._place.line, self._before = number, Position(sequence, previous)

    def _look_closely(self, line: bytes) -> None:
        """Check one line with every means, and say what is wrong with it."""
        position = position_of(line)
        if self._before is None:
            self._begin(position, line)
        elif position is None:
            self._not_a_record(self._before, line)
        elif _fits(line, self._before):
            self._accept(position, line, self._before)
        elif self._other is not None and _fits(line, self._other):
            self._accept(position, line, self._other)
        elif position.sequence == self._before.sequence + 1:
            self._changed(position, line, self._before)
        elif position.sequence <= self._before.sequence:
            expected = self._before.sequence + 1
            self._break(f"comes again or too late: {expected} was expected", position)
            self._other = position
        else:
            self._break(self._missing(self._before, position, line), position)
            other = self._before
            self._accept(position, line, Position(position.sequence - 1, _UNKNOWN))
            self._other = other

    def _begin(self, position: Position | None, line: bytes) -> None:
        """The log's first record says what it continues."""
        if position is None:
            self._break("is not a record")
            return
        before = named_before(line)
        if before is None:
            self._break("the log begins without an open record: its beginning is cut off", position)
            before = Position(position.sequence - 1, _UNKNOWN)
        self._seals.begin(older_removed=before != START)
        self._anchor.begin(before)
        if not _fits(line, before):
            self._changed(position, line, before)
            return
        if before.sequence > START.sequence:
            level = Level.BREAK if self._from_start else Level.INFO
            text = f"the log begins at sequence {position.sequence}: older files were removed"
            self._place.say(level, text, position.sequence)
        self._accept(position, line, before)

    def _accept(self, position: Position, line: bytes, before: Position) -> None:
        """Go on behind this record; look into it when it is about the log itself."""
        self._continue_behind(position, None)
        if self._first_line:
            self._check_file_start(position, line)
        if _OWN in line:
            fields = fields_of(line)
            if fields.get("event.action") == "open":
                self._seals.opened(fields, position.sequence)
            elif fields.get("event.action") == "seal":
                self._seals.sealed(fields, position.sequence, before.hash)

    def _check_file_start(self, position: Position, line: bytes) -> None:
        if self._file_before is not None and fields_of(line).get("event.action") != "open":
            self._break("the file does not begin with an open record", position)
        if self._file is not None and self._file.first not in (None, position.sequence):
            self._break("the file's name does not fit its first sequence", position)

    def _continue_behind(self, position: Position, other: Position | None) -> None:
        self._before, self._other = position, other
        self._anchor.passed(position)

    def _not_a_record(self, before: Position, line: bytes) -> None:
        """Either a record was damaged, or a line was put in."""
        self._break("is not a record, though it is JSON" if fields_of(line) else "is not JSON")
        self._other = Position(before.sequence + 1, _stored_hash(line))

    def _changed(self, position: Position, line: bytes, before: Position) -> None:
        """Either the record was changed, or the hash that it ends with."""
        self._break("the hash does not fit: the record, or its hash, was changed", position)
        computed = Position(position.sequence, _hash_behind(before, line))
        self._continue_behind(position, computed)
        self._seals.skipped(fields_of(line))

    def _missing(self, before: Position, position: Position, line: bytes) -> str:
        first, last = before.sequence + 1, position.sequence - 1
        if _hash_behind(before, line) == position.hash:
            return f"the sequence jumps here from {before.sequence}, though the hash fits"
        what = f"record {first} is" if first == last else f"records {first} to {last} are"
        if self._first_line and self._file_before is not None:
            return f"{what} missing: a file behind {self._file_before} is gone, or its end"
        return f"{what} missing before it"

    def torn(self, rest: bytes, *, may_grow: bool) -> None:
        """The file ends without a newline."""
        if not may_grow:
            self._break("the file ends in the middle of a line")
        elif self._may_become_a_record(rest):
            text = "the last line is not complete: the service is writing it, or a crash tore it"
            self._place.say(Level.INFO, text)
        else:
            self._break("the last line is not the beginning of the next record")

    def _may_become_a_record(self, rest: bytes) -> bool:
        if position_of(rest) is not None:
            return self._before is None or _fits(rest, self._before)
        if rest.startswith(_HASH, -_TAIL - 1):  # a whole record, and more
            return False
        start = rest[_SEQUENCE_AT:] if rest.startswith(_HEAD) else rest
        if start is rest:
            return _HEAD.startswith(rest)
        expected = b"%b%d," % (_SEQUENCE, self._before.sequence + 1) if self._before else _SEQUENCE
        return start.startswith(expected) or expected.startswith(start)

    def finish(self) -> None:
        """All files were read."""
        last = self._before.sequence if self._before else 0
        self._place.result.head = self._before
        self._seals.finish(last)
        self._anchor.finish(last)

    def _break(self, text: str, position: Position | None = None) -> None:
        self._place.say(Level.BREAK, text, position.sequence if position else None)


def _stored_hash(line: bytes) -> bytes:
    """Return the hash that a damaged line ends with, as far as that can be read."""
    start, digits, end = line[-_TAIL : -_TAIL + len(_HASH)], line[-66:-2], line[-2:]
    if start != _HASH or end != b'"}':
        return _UNKNOWN
    try:
        return bytes.fromhex(digits.decode("ascii"))
    except ValueError:
        return _UNKNOWN


class _AnchorCheck:
    """Looks for the head that was noted earlier."""

    def __init__(self, place: Place, anchor: Position | None) -> None:
        self._place = place
        self._anchor = anchor
        # The sequence to look at closely
        self.watched = anchor.sequence if anchor else _NO_SEQUENCE
        self._before_first = 0
        self._seen = False

    def begin(self, before: Position) -> None:
        """The log begins behind this record."""
        self._before_first = before.sequence
        if before.hash != _UNKNOWN:
            self.passed(before)

    def passed(self, position: Position) -> None:
        """This record was read."""
        if self._anchor is None or position.sequence != self._anchor.sequence or self._seen:
            return
        self._seen = True
        if position.hash != self._anchor.hash:
            text = "differs from the anchor: what was written before was rewritten"
            self._place.say(Level.BREAK, text, position.sequence)

    def finish(self, last: int) -> None:
        """All was read, up to this sequence."""
        if self._anchor is None or self._seen:
            return
        wanted = self._anchor.sequence
        if wanted > last:
            text = f"the log ends at sequence {last}, before the anchor at {wanted}: it was cut"
            self._place.say(Level.BREAK, text)
        elif wanted <= self._before_first:
            text = f"the anchor at sequence {wanted} went with older files: nothing to compare with"
            self._place.say(Level.UNCHECKED, text)
        else:
            self._place.say(Level.BREAK, f"the anchor's record, sequence {wanted}, is missing")
