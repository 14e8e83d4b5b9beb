# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files and processes of a host, only looked at: whose they are, what is in them, who holds them.

Nothing here follows a symbolic link at the end of a path, waits for a FIFO or reads without a
bound. Everything raises OSError for what may not be looked at; what is not there is None.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_host import parse_process

__all__ = ("FILE", "FOLDER", "Facts", "HostView", "OpenFile", "Process", "differences")

FILE = "a file"
FOLDER = "a folder"
_KINDS = {
    stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFLNK: "a symbolic link",
    stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}  # fmt: skip
_ACL = "system.posix_acl_access"
_GONE = (FileNotFoundError, NotADirectoryError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class Facts:
    """One path. `mode` has the permission bits, times are Unix times, `target` is a link's."""

    path: str
    kind: str
    mode: int
    owner: str
    group: str
    size: int
    changed: float
    identity: tuple[int, int]
    target: str = ""
    acl: bool = False


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file that a process has open. `path` is the kernel's: it may say (deleted)."""

    path: str
    identity: tuple[int, int]
    writable: bool


@dataclass(frozen=True, slots=True)
class Process:
    """A process. `command` are its words, `started` a Unix time, good to a second."""

    pid: int
    name: str
    program: str
    command: tuple[str, ...]
    environment: bytes
    started: float


def differences(facts: Facts | None, path: str, kind: str, owner: str, mode: int) -> list[str]:
    """Return what is wrong with a path; `owner` is user:group, and less than `mode` is fine."""
    if facts is None:
        return [f"{path} is not there"]
    if facts.kind != kind:
        arrow = f" to {facts.target}" if facts.target else ""
        return [f"{path} is {facts.kind}{arrow}"]
    found = []
    if f"{facts.owner}:{facts.group}" != owner:
        found.append(f"{path} belongs to {facts.owner}:{facts.group}, not {owner}")
    if facts.mode & ~mode:
        found.append(f"{path} has mode {facts.mode:04o}, which is more than {mode:04o}")
    if facts.acl:
        found.append(f"{path} has an access control list beside its mode")
    return found


class HostView:
    """The host below `root`, with its processes below `proc`."""

    def __init__(self, root: str = "/", proc: str = "/proc") -> None:
        self.root = root.rstrip("/")
        self.proc = proc

    def place(self, path: str) -> str:
        """Return where a path of the host really lies."""
        return self.root + path

    # files

    def facts(self, path: str) -> Facts | None:
        """Return what is at the path itself, None when nothing is. Raises OSError."""
        place = self.place(path)
        try:
            status = os.lstat(place)
        except _GONE:
            return None
        kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
        owner, group = self.owner_of(path, status.st_uid, status.st_gid)
        return Facts(
            path, kind, stat.S_IMODE(status.st_mode), owner, group, status.st_size,
            status.st_ctime, (status.st_dev, status.st_ino),
            os.readlink(place) if stat.S_ISLNK(status.st_mode) else "", self._has_acl(place),
        )  # fmt: skip

    def owner_of(self, path: str, uid: int, gid: int) -> tuple[str, str]:
        """Return user and group by name, by number where they have none."""
        user, group = str(uid), str(gid)
        with suppress(KeyError):
            user = pwd.getpwuid(uid).pw_name
        with suppress(KeyError):
            group = grp.getgrgid(gid).gr_name
        return user, group

    def _has_acl(self, place: str) -> bool:
        # Most file systems without lists say so by an error.
        with suppress(OSError):
            return _ACL in os.listxattr(place, follow_symlinks=False)
        return False

    def read(self, path: str, limit: int, offset: int = 0) -> bytes | None:
        """Return at most `limit` bytes of a regular file, None when there is none.

        Raises OSError, and for what is no regular file, too.
        """
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(self.place(path), flags)
        except _GONE:
            return None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "is no regular file", path)
            if offset:
                file.seek(offset)
            return file.read(limit)

    def names(self, path: str) -> list[str] | None:
        """Return the names in a folder, sorted; None when there is none. Raises OSError."""
        try:
            return sorted(os.listdir(self.place(path)))
        except _GONE:
            return None

    def space(self, path: str) -> tuple[int, int]:
        """Return (free for users, all) bytes of the path's file system. Raises OSError."""
        status = os.statvfs(self.place(path))
        return status.f_bavail * status.f_frsize, status.f_blocks * status.f_frsize

    # processes

    def processes(self) -> Iterator[Process]:
        """Yield all processes that may be looked at, without the kernel's own."""
        for name in sorted(filter(str.isdigit, os.listdir(self.proc)), key=int):
            with suppress(OSError, ValueError, IndexError):
                process = self.process(int(name))
                if process.command:
                    yield process

    def process(self, pid: int) -> Process:
        """Return one process. Raises OSError, also when it is another user's."""
        folder = f"{self.proc}/{pid}"
        command = self._raw(f"{folder}/cmdline").decode("utf-8", "replace")
        words = tuple(command.rstrip("\0").split("\0")) if command else ()
        _parent, start = parse_process(self._raw(f"{folder}/stat").decode("utf-8", "replace"))
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return Process(
            pid, self._raw(f"{folder}/comm").decode("utf-8", "replace").strip(),
            os.readlink(f"{folder}/exe") if words else "", words,
            self._raw(f"{folder}/environ"), boot + start / os.sysconf("SC_CLK_TCK"),
        )  # fmt: skip

    def open_files(self, pid: int) -> list[OpenFile]:
        """Return the regular files that a process has open. Raises OSError."""
        found = []
        folder = f"{self.proc}/{pid}/fd"
        for number in sorted(os.listdir(folder), key=int):
            with suppress(OSError, ValueError, IndexError):
                status = os.stat(f"{folder}/{number}")
                if stat.S_ISREG(status.st_mode):
                    # proc_pid_fdinfo(5): the flags are octal
                    info = self._raw(f"{self.proc}/{pid}/fdinfo/{number}").split(b"flags:")[1]
                    writable = bool(int(info.split()[0], 8) & (os.O_WRONLY | os.O_RDWR))
                    identity = (status.st_dev, status.st_ino)
                    found.append(OpenFile(os.readlink(f"{folder}/{number}"), identity, writable))
        return found

    def _raw(self, place: str) -> bytes:
        with open(place, "rb") as file:
            return file.read(1 << 22)
