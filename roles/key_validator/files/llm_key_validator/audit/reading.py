# SPDX-License-Identifier: GPL-3.0-or-later
"""The log's files in their order, their lines from the front and from the end, and following.

Everything here takes bytes and works in constant memory, whatever the files hold: the one who
reads may be root, and the one who wrote may be an intruder.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .logfile import ACTIVE, ROTATED

# Bytes a read(2): large enough that the calls do not count, small enough for a CPU's cache
BLOCK = 1 << 18
# Bytes of one line. No record comes near; without a bound a file without newlines fills memory.
LONGEST_LINE = 1 << 20
# Seconds between two looks at a file that is followed
POLL = 0.25

Progress = Callable[[int], None]


class ReadingError(Exception):
    """The log cannot be read. The text is one sentence for the person at the terminal."""


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a log."""

    path: Path
    # The sequence in a rotated file's name, and the number that tells equal ones apart
    first: int | None = None
    copy: int = 0
    active: bool = False

    @property
    def name(self) -> str:
        """The name without its folder, fit for a terminal."""
        return printable(self.path.name)


def find_files(paths: Sequence[Path]) -> list[Part]:
    """Return the files of one log, oldest first: one folder, or files in any order.

    Raises ReadingError when there is none, or when the paths are not one log's.
    """
    if len(paths) == 1 and paths[0].is_dir():
        files = _in_folder(paths[0])
        if not files:
            raise ReadingError(f"{printable(str(paths[0]))} holds no audit log")
        return files
    for path in paths:
        if path.is_dir():
            raise ReadingError("give one folder, or files of one log")
        try:
            path.stat()
        except OSError as error:
            raise ReadingError(explain(error, path)) from None
    return sorted(map(_part, paths), key=_age)


def _in_folder(folder: Path) -> list[Part]:
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise ReadingError(explain(error, folder)) from None
    files = [_part(folder / name) for name in names if _is_ours(name)]
    return sorted(files, key=_age)


def _is_ours(name: str) -> bool:
    return name == ACTIVE or ROTATED.fullmatch(name) is not None


def _part(path: Path) -> Part:
    rotated = ROTATED.fullmatch(path.name)
    if rotated is None:
        return Part(path, active=path.name == ACTIVE)
    return Part(path, int(rotated[1]), int(rotated[2] or 0))


def _age(file: Part) -> tuple[int, int, int]:
    """Rotated files by their sequence; then files with other names as given; then the active."""
    if file.first is not None:
        return (0, file.first, file.copy)
    return (2 if file.active else 1, 0, 0)


def explain(error: OSError, path: Path) -> str:
    """Say in one sentence why a path cannot be read, and what helps."""
    shown = printable(str(path))
    if isinstance(error, PermissionError):
        return f"{shown} may not be read: use sudo, or join the group adm"
    if isinstance(error, FileNotFoundError):
        return f"{shown} is not there: give the log's folder or its files"
    return f"{shown} cannot be read: {error.strerror or type(error).__name__}"


def open_file(path: Path) -> BinaryIO:
    """Open a log file. Raises FileNotFoundError, and ReadingError for anything else."""
    try:
        # Unbuffered: blocks are read whole. Non-blocking: a pipe put there must not hold us.
        number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ReadingError(explain(error, path)) from None
    if not stat.S_ISREG(os.fstat(number).st_mode):
        os.close(number)
        raise ReadingError(f"{printable(str(path))} is not a file")
    return os.fdopen(number, "rb", buffering=0)


class Log:
    """One log's files at one moment. The active one is held open: it may rotate meanwhile."""

    def __init__(self, paths: Sequence[Path]) -> None:
        """Raises ReadingError."""
        self._paths = paths
        self._active: BinaryIO | None = None
        self.files = find_files(paths)
        # A rotation between listing and opening would hide a whole file: list again.
        for _attempt in range(10):
            self._open_active()
            before, self.files = self.files, find_files(paths)
            if before == self.files:
                break

    def _open_active(self) -> None:
        self.close()
        self._active = None
        if self.files[-1].active:
            with suppress(FileNotFoundError):  # between a rotation's two steps
                self._active = open_file(self.files[-1].path)

    def streams(self) -> Iterator[tuple[Part, BinaryIO]]:
        """Yield each file, oldest first, with a stream at its beginning. Raises ReadingError."""
        for file in self.files:
            yield from self._stream(file)

    def streams_backwards(self) -> Iterator[tuple[Part, BinaryIO]]:
        """Yield each file, newest first. Raises ReadingError."""
        for file in reversed(self.files):
            yield from self._stream(file)

    def _stream(self, file: Part) -> Iterator[tuple[Part, BinaryIO]]:
        if file.active:
            if self._active is not None:
                self._active.seek(0)
                yield file, self._active
            return
        # Gone since we looked: the service keeps only so many. A gap shows by the sequence.
        with suppress(FileNotFoundError), open_file(file.path) as stream:
            yield file, stream

    def size(self) -> int:
        """Return the bytes of all files that are there now."""
        total = 0
        for file in self.files:
            with suppress(OSError):
                total += file.path.stat().st_size
        return total

    def close(self) -> None:
        """Close the file that is held open."""
        if self._active is not None:
            self._active.close()


class Lines:
    """The whole lines of one file, block by block, without their newline."""

    def __init__(self, stream: BinaryIO, progress: Progress | None = None) -> None:
        self._stream = stream
        self._progress = progress
        # What follows the last newline
        self.rest = b""

    def blocks(self) -> Iterator[list[bytes]]:
        """Yield the lines until the file's present end; another call goes on from there."""
        while block := self._stream.read(BLOCK):
            lines = (self.rest + block).split(b"\n")
            # A line that is cut here fits no hash: it is reported, not believed.
            self.rest = lines.pop()[:LONGEST_LINE]
            if self._progress is not None:
                self._progress(len(block))
            if lines:
                yield lines


def end_of_lines(stream: BinaryIO) -> int:
    """Return the offset behind the last newline, 0 when there is none."""
    position = stream.seek(0, os.SEEK_END)
    while position > 0:
        size = min(BLOCK, position)
        position = stream.seek(position - size)
        newline = _read_exactly(stream, size).rfind(b"\n")
        if newline >= 0:
            return position + newline + 1
    return 0


def lines_backwards(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the whole lines of one file, the last one first."""
    position = end_of_lines(stream) - 1  # the last newline ends the last line: no line after it
    tail = b""
    while position > 0:
        size = min(BLOCK, position)
        position = stream.seek(position - size)
        lines = (_read_exactly(stream, size) + tail).split(b"\n")
        tail = lines.pop(0)[-LONGEST_LINE:]
        yield from reversed(lines)
    if position == 0:
        yield tail


def _read_exactly(stream: BinaryIO, size: int) -> bytes:
    """read(2) may return less than it was asked for."""
    parts: list[bytes] = []
    while size > 0 and (part := stream.read(size)):
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def follow(file: Part, position: int) -> Iterator[list[bytes]]:
    """Yield the lines after ``position`` as they come, across rotations; [] when none came.

    Never ends. Raises ReadingError when a file may not be read.
    """
    waiting = [file]
    while True:
        current = waiting.pop(0)
        try:
            stream = open_file(current.path)
        except FileNotFoundError:  # between a rotation's two steps
            yield from _idle()
            waiting = waiting or [file]
            continue
        with stream:
            stream.seek(position)
            position = 0
            yield from _until_rotated(current, stream)
            waiting = waiting or _newer(file, stream)


def _idle() -> Iterator[list[bytes]]:
    yield []
    time.sleep(POLL)


def _until_rotated(file: Part, stream: BinaryIO) -> Iterator[list[bytes]]:
    lines = Lines(stream)
    while True:
        gone = _is_another(file.path, stream) or not file.active
        yield from lines.blocks()  # after the look: what was written before the renaming
        if gone:
            return
        if stream.tell() > os.fstat(stream.fileno()).st_size:
            # The service cuts a half-written record back.
            stream.seek(-len(lines.rest), os.SEEK_CUR)
            lines.rest = b""
        yield from _idle()


def _is_another(path: Path, stream: BinaryIO) -> bool:
    """Tell whether the path is another file by now."""
    try:
        return not os.path.samestat(path.stat(), os.fstat(stream.fileno()))
    except OSError:
        return False  # its follower is not there yet


def _newer(file: Part, stream: BinaryIO) -> list[Part]:
    """Return the files after this one, which several rotations may have made."""
    files = find_files([file.path.parent])
    for index, candidate in enumerate(files):
        if not _is_another(candidate.path, stream) and candidate.path.exists():
            return files[index + 1 :]
    return [file]


def printable(value: object) -> str:
    """Return text that does nothing to a terminal: no control or direction characters."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}"
        for character in str(value)[:300]
    )
