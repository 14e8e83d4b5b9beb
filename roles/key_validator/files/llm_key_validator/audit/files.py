# SPDX-License-Identifier: GPL-3.0-or-later
"""The file system as the audit log uses it: one thin layer, so that tests can make it fail."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple, Protocol


class Status(NamedTuple):
    """Which file it is, and how long (bytes)."""

    device: int
    inode: int
    size: int


class Files(Protocol):
    """Every call may raise OSError."""

    def check_directory(self, path: str) -> None:
        """Raise unless ``path`` is a directory that nobody else can turn against us."""

    def open_log(self, path: str, mode: int) -> int:
        """Open a log file for reading and appending; make it when it is missing."""

    def open_rotated(self, path: str) -> int:
        """Open an old log file for reading."""

    def open_secret(self, path: str) -> int:
        """Open an existing file for writing from its start, as it is."""

    def create_secret(self, path: str) -> int:
        """Make or empty a file that only its owner may read."""

    def read_file(self, path: str, limit: int) -> bytes:
        """Return a small file's content, ``limit`` bytes at most."""

    def read(self, descriptor: int, offset: int, count: int) -> bytes:
        """Return up to ``count`` bytes from ``offset``."""

    def write(self, descriptor: int, data: bytes) -> int:
        """Write; return how many bytes were."""

    def truncate(self, descriptor: int, size: int) -> None:
        """Cut the file to ``size`` bytes."""

    def sync(self, descriptor: int) -> None:
        """fsync(2)."""

    def close(self, descriptor: int) -> None:
        """close(2)."""

    def status(self, descriptor: int) -> Status:
        """fstat(2)."""

    def status_at(self, path: str) -> Status | None:
        """lstat(2); None when nothing is there."""

    def rename(self, old: str, new: str) -> None:
        """rename(2)."""

    def remove(self, path: str) -> None:
        """unlink(2)."""

    def names(self, directory: str) -> list[str]:
        """Return the names in a directory."""

    def sync_directory(self, path: str) -> None:
        """fsync(2) of the directory: names made and changed in it last."""


# O_NONBLOCK: a FIFO in the file's place must not hang the service. It changes nothing for files.
_COMMON = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class OsFiles:
    """The host's file system."""

    # These add nothing to the system calls.
    write = staticmethod(os.write)
    truncate = staticmethod(os.ftruncate)
    sync = staticmethod(os.fsync)
    close = staticmethod(os.close)
    rename = staticmethod(os.rename)
    remove = staticmethod(os.unlink)
    names = staticmethod(os.listdir)

    def check_directory(self, path: str) -> None:
        """Refuse another user's symbolic links on the way, and another user's directory."""
        trusted = (0, os.geteuid())
        for place in (*reversed(Path(path).parents), Path(path)):
            status = place.lstat()
            if stat.S_ISLNK(status.st_mode) and status.st_uid not in trusted:
                raise PermissionError(errno.EPERM, "a symbolic link of another user's")
        status = Path(path).stat()
        if not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR))
        if status.st_uid not in trusted or status.st_mode & stat.S_IWOTH:
            raise PermissionError(errno.EPERM, "a directory that others control")

    def open_log(self, path: str, mode: int) -> int:
        """Open or make the file with exactly this mode, whatever the umask."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | _COMMON
        return _regular(os.open(path, flags, mode), mode)

    def open_rotated(self, path: str) -> int:
        """Open for reading."""
        return _regular(os.open(path, os.O_RDONLY | _COMMON))

    def open_secret(self, path: str) -> int:
        """Open for writing in place."""
        return _regular(os.open(path, os.O_WRONLY | _COMMON))

    def create_secret(self, path: str) -> int:
        """Make or empty."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _COMMON
        return _regular(os.open(path, flags, 0o600), 0o600)

    def read_file(self, path: str, limit: int) -> bytes:
        """Read at one go."""
        descriptor = _regular(os.open(path, os.O_RDONLY | _COMMON))
        try:
            return os.read(descriptor, limit)
        finally:
            os.close(descriptor)

    def read(self, descriptor: int, offset: int, count: int) -> bytes:
        """pread(2)."""
        return os.pread(descriptor, count, offset)

    def status(self, descriptor: int) -> Status:
        """fstat(2)."""
        status = os.fstat(descriptor)
        return Status(status.st_dev, status.st_ino, status.st_size)

    def status_at(self, path: str) -> Status | None:
        """lstat(2)."""
        try:
            status = os.lstat(path)
        except FileNotFoundError:
            return None
        return Status(status.st_dev, status.st_ino, status.st_size)

    def sync_directory(self, path: str) -> None:
        """Open, fsync, close."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _regular(descriptor: int, mode: int | None = None) -> int:
    """Return ``descriptor`` of a regular file, with ``mode`` set; close it otherwise."""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
        if mode is not None and stat.S_IMODE(status.st_mode) != mode:
            os.fchmod(descriptor, mode)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
