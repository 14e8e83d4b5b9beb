# SPDX-License-Identifier: GPL-3.0-or-later
"""The log's files: the active one, the rotated ones, and what stands at their ends."""

from __future__ import annotations

import re
from contextlib import suppress
from errno import EIO

from .chain import Position, Tail, fields_of, judge_tail, position_of
from .files import Files
from .seals import Expected, expected_by

ACTIVE = "audit.jsonl"
# A number behind it only when the name was taken, which no rotation of ours ever does
ROTATED = re.compile(r"audit-([0-9]{20})(?:-([0-9]{1,6}))?\.jsonl")

# First look at a file's end (bytes): some hundred records, or the few longest
_WINDOW = 64 * 1024
# More than this without a whole line is no torn record
_MAX_WINDOW = 4 * 1024 * 1024
# The longest pieces in which a file is searched from its end
_SEARCH = 1024 * 1024
# Quotes inside of values are escaped: no value can look like this.
_KEY_RECORDS = re.compile(rb'"event\.action":"(?:seal|open)"')


class LogFile:
    """One open file. Every method may raise OSError."""

    def __init__(self, files: Files, descriptor: int) -> None:
        self._files = files
        self._descriptor = descriptor
        self.device, self.inode, self.size = files.status(descriptor)

    @property
    def identity(self) -> tuple[int, int]:
        """Return which file it is, whatever its name."""
        return (self.device, self.inode)

    def write(self, data: bytes) -> None:
        """Append all of ``data``, or nothing as far as the disk still lets us."""
        rest = data
        try:
            while rest:
                written = self._files.write(self._descriptor, rest)
                if written <= 0:
                    raise OSError(EIO, "nothing was written")
                rest = rest[written:]
        except OSError:
            with suppress(OSError):  # else whoever opens the file next cuts it
                self._files.truncate(self._descriptor, self.size)
            raise
        self.size += len(data)

    def cut(self, size: int) -> None:
        """Cut the file to ``size`` bytes."""
        self._files.truncate(self._descriptor, size)
        self.size = size

    def sync(self) -> None:
        """Make what was written durable."""
        self._files.sync(self._descriptor)

    def close(self) -> None:
        """Give the descriptor back, once. Raises nothing: nothing is left to lose."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                self._files.close(descriptor)

    def present_size(self) -> int:
        """Return the size as it is now, which only strangers make different from ours."""
        return self._files.status(self._descriptor).size

    def tail(self) -> Tail:
        """Judge the file's end."""
        window = _WINDOW
        while True:
            start = max(0, self.size - window)
            content = self._read(start, self.size)
            # Three whole lines behind the first newline: the last, and two to hold it against
            if start == 0 or content.count(b"\n") >= 4 or window >= _MAX_WINDOW:
                return judge_tail(content, from_start=start == 0)
            window *= 8

    def first_sequence(self) -> int | None:
        """Return the first line's number, None when there is none to read."""
        first = self._read(0, min(self.size, _WINDOW)).partition(b"\n")[0]
        position = position_of(first)
        return position.sequence if position else None

    def expected_key(self) -> Expected | None:
        """Return what the last record about seals says of the keys.

        It is near the end as long as seals are written; else the whole file may be read.
        """
        end = self.size
        while end > 0:
            start = max(0, end - _SEARCH)
            # A line that crosses the border is found with the piece that holds its start.
            piece = self._read(start, min(self.size, end + _WINDOW))
            for line in reversed(piece.split(b"\n")):
                if _KEY_RECORDS.search(line) and position_of(line) is not None:
                    return expected_by(fields_of(line))
            end = start
        return None

    def _read(self, start: int, end: int) -> bytes:
        parts = []
        while start < end:
            part = self._files.read(self._descriptor, start, end - start)
            if not part:
                break
            parts.append(part)
            start += len(part)
        return b"".join(parts)


class LogFolder:
    """The directory with the log's files. Every method may raise OSError."""

    def __init__(self, files: Files, directory: str, mode: int) -> None:
        self._files = files
        self._directory = directory
        self._mode = mode

    def open_active(self) -> LogFile:
        """Open the file that is written to; make it when it is missing."""
        self._files.check_directory(self._directory)
        return LogFile(self._files, self._files.open_log(self._path(ACTIVE), self._mode))

    def is_active(self, file: LogFile) -> bool:
        """Say whether the path still leads to this file."""
        status = self._files.status_at(self._path(ACTIVE))
        return status is not None and (status.device, status.inode) == file.identity

    def set_aside(self, file: LogFile, fallback: int) -> str:
        """Rename the active file after its first record; return the new name.

        ``fallback``: number for the name of a file whose first line cannot be read.
        """
        first = file.first_sequence()
        number = fallback if first is None else first
        taken = set(self._files.names(self._directory))
        name, copy = f"audit-{number:020d}.jsonl", 0
        while name in taken:
            copy += 1
            name = f"audit-{number:020d}-{copy}.jsonl"
        self._files.rename(self._path(ACTIVE), self._path(name))
        return name

    def remove_active(self) -> None:
        """Delete the active file."""
        self._files.remove(self._path(ACTIVE))

    def remove(self, name: str) -> None:
        """Delete a rotated file."""
        self._files.remove(self._path(name))

    def rotated(self) -> list[str]:
        """Return the rotated files' names, oldest first."""
        names = {name: ROTATED.fullmatch(name) for name in self._files.names(self._directory)}
        ages = {name: (int(m[1]), int(m[2] or 0)) for name, m in names.items() if m}
        return sorted(ages, key=ages.__getitem__)

    def open_rotated(self, name: str) -> LogFile:
        """Open a rotated file for reading."""
        return LogFile(self._files, self._files.open_rotated(self._path(name)))

    def last_position(self) -> tuple[Position, str] | None:
        """Return where the newest rotated file ends, and its name; None when there is none."""
        for name in reversed(self.rotated()):
            file = self.open_rotated(name)
            try:
                last = file.tail().last
            finally:
                file.close()
            if last is not None:
                return last, name
        return None

    def expected_key(self) -> Expected | None:
        """Return what the newest rotated file says of the keys."""
        for name in reversed(self.rotated()):
            file = self.open_rotated(name)
            try:
                expected = file.expected_key()
            finally:
                file.close()
            if expected is not None:
                return expected
        return None

    def sync(self) -> None:
        """Make names durable."""
        self._files.sync_directory(self._directory)

    def _path(self, name: str) -> str:
        return f"{self._directory}/{name}"
