# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The real host behind nginx_config.converge(): files, /proc, systemctl, nginx."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
import stat
import time
import typing as t
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_config import (
    ABSENT,
    ROOT,
    Entry,
    NginxConfigError,
    Worker,
    temporary_path,
)

__all__ = ("SystemHost", "parse_process")

Run = t.Callable[[t.Sequence[str]], tuple[int, str, str]]

# Enough for the reason of a failed reload, little enough for a message
_LOG_BYTES = 64 * 1024
_JOURNAL_LINES = 15


def parse_process(text: str) -> tuple[int, int]:
    """Return (parent's pid, start in ticks since boot) from a /proc/PID/stat text.

    proc_pid_stat(5): fields 4 and 22; the name in field 2 may itself hold blanks and brackets.
    """
    fields = text.rpartition(")")[2].split()
    return int(fields[1]), int(fields[19])


@dataclass
class SystemHost:
    """One host with systemd. run executes a command: (return code, output, error output)."""

    run: Run
    binary: str | None
    systemctl: str | None = "systemctl"
    service: str = "nginx"
    error_log: str = "/var/log/nginx/error.log"
    root: str = ROOT
    proc: Path = Path("/proc")

    # files

    def _confine(self, path: str) -> None:
        """Refuse a path whose directories lead out of the tree by a link."""
        real = os.path.realpath(os.path.dirname(path))
        if f"{real}/".startswith(f"{os.path.realpath(self.root)}/"):
            return
        raise NginxConfigError(f"{path} leads to {real}, which is not below {self.root}")

    def entry(self, path: str) -> Entry:
        self._confine(path)
        try:
            found = os.lstat(path)
        except (FileNotFoundError, NotADirectoryError):
            return ABSENT
        facts = {"uid": found.st_uid, "gid": found.st_gid, "modified": found.st_mtime_ns}
        if stat.S_ISLNK(found.st_mode):
            # a link's owner decides nothing
            return Entry("link", target=os.readlink(path), modified=found.st_mtime_ns)
        mode = stat.S_IMODE(found.st_mode)
        if stat.S_ISREG(found.st_mode):
            return Entry("file", content=Path(path).read_bytes(), mode=mode, **facts)
        kind = "directory" if stat.S_ISDIR(found.st_mode) else "other"
        return Entry(kind, mode=mode, **facts)

    def inside(self, directory: str) -> list[str]:
        if os.path.islink(directory):
            return []
        found = []
        for folder, folders, files in os.walk(directory):
            found += [os.path.join(folder, name) for name in (*folders, *files)]
        return found

    def put(self, path: str, entry: Entry) -> None:
        """Make the path what the entry says, in one step that a crash cannot leave half done."""
        self._confine(path)
        if entry.kind == "absent":
            self._remove(path)
        elif entry.kind == "directory":
            self._directory(path, entry)
        else:
            self._replace(path, entry)
        if entry.modified is not None:
            os.utime(path, ns=(entry.modified, entry.modified), follow_symlinks=False)

    def _remove(self, path: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary_path(path))
        try:
            os.unlink(path)
        except FileNotFoundError:
            pass
        except IsADirectoryError:
            os.rmdir(path)

    def _directory(self, path: str, entry: Entry) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        os.chown(path, entry.uid, entry.gid)
        os.chmod(path, entry.mode)

    def _replace(self, path: str, entry: Entry) -> None:
        temporary = temporary_path(path)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        if entry.kind == "link":
            os.symlink(entry.target, temporary)
        else:
            self._write(temporary, entry)
        os.replace(temporary, path)
        folder = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _write(self, path: str, entry: Entry) -> None:
        # tight until owner and mode are right: the content may be a secret
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(entry.content)
            os.fchown(descriptor, entry.uid, entry.gid)
            os.fchmod(descriptor, entry.mode)
            file.flush()
            os.fsync(descriptor)

    def keep_times(self, paths: t.Iterable[str]) -> t.Callable[[], None]:
        """Remember the directories' times; the function returned restores them."""
        before = {path: os.stat(path).st_mtime_ns for path in paths if os.path.isdir(path)}

        def restore() -> None:
            for path, when in before.items():
                with contextlib.suppress(FileNotFoundError):
                    os.utime(path, ns=(when, when))

        return restore

    @contextlib.contextmanager
    def lock(self) -> t.Iterator[None]:
        """Keep a second run out; the directory itself is the lock, so nothing is left behind."""
        try:
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except FileNotFoundError:
            yield  # nothing to change there, or the missing nginx is reported later
            return
        try:
            self._acquire(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _acquire(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise NginxConfigError(f"another run is changing {self.root} right now") from exc

    def changed_at(self, path: str, *, inode: bool) -> float | None:
        """Return the last change of the path or of what it links to; inode: of its inode too."""
        times = []
        for ask in (os.lstat, os.stat):
            with contextlib.suppress(OSError):
                found = ask(path)
                times += [found.st_mtime, *([found.st_ctime] if inode else [])]
        return max(times, default=None)

    # nginx

    def installed(self) -> bool:
        return self.binary is not None

    def refusal(self) -> str | None:
        """Return what nginx -t objects to in the tree as it is on disk, None when it is content."""
        if self.binary is None:
            return None
        code, _out, error = self.run([self.binary, "-t"])
        return None if code == 0 else _one_line(error) or f"nginx -t ended with code {code}"

    def _main_pid(self) -> int:
        """Return the master's pid as systemd knows it, 0 when the service does not run."""
        if self.systemctl is None:
            return 0
        command = [self.systemctl, "show", "--property=ActiveState,MainPID", self._unit]
        code, out, error = self.run(command)
        if code != 0:
            raise NginxConfigError(f"the state of {self._unit} is unknown: {_one_line(error)}")
        facts = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        active = facts.get("ActiveState") in ("active", "reloading")
        return int(facts.get("MainPID", "0")) if active else 0

    @property
    def _unit(self) -> str:
        return self.service if "." in self.service else f"{self.service}.service"

    def running(self) -> bool:
        return self._main_pid() > 0

    def workers(self) -> set[Worker]:
        """Return the master's workers in service, and not those of an nginx in a container."""
        master = self._main_pid()
        found = set()
        for directory in self.proc.glob("[0-9]*"):
            try:
                parent, start = parse_process((directory / "stat").read_text(errors="replace"))
                title = (directory / "cmdline").read_bytes() if parent == master > 0 else b""
            except (OSError, IndexError, ValueError):
                continue  # ended while we looked
            if title.rstrip(b"\0 ") == b"nginx: worker process":
                found.add(Worker(int(directory.name), start))
        return found

    def started(self, worker: Worker) -> float:
        """Return the worker's start as Unix time. /proc/stat's btime knows whole seconds only."""
        ticks = os.sysconf("SC_CLK_TCK")
        boot = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME)
        return boot + worker.start / ticks

    def reload(self) -> t.Callable[[], list[str]]:
        """Ask for a reload; the function returned tells the master's [emerg] lines since then."""
        log = _Tail(self.error_log)
        master = self._main_pid()
        self._systemctl("reload")
        mine = re.compile(rf"\[emerg\] {master}#")
        return lambda: [line for line in log.gained() if mine.search(line)]

    def start(self) -> None:
        since = int(time.time())
        try:
            self._systemctl("start")
        except NginxConfigError as exc:
            said = self._journal(since)
            raise NginxConfigError(f"{self._unit} does not start: {said or exc}") from exc

    def _systemctl(self, verb: str) -> None:
        if self.systemctl is None:
            raise NginxConfigError(f"systemd does not run, so nothing can {verb} {self._unit}")
        code, _out, error = self.run([self.systemctl, verb, self._unit])
        if code != 0:
            raise NginxConfigError(f"systemctl {verb} {self._unit} failed: {_one_line(error)}")

    def _journal(self, since: int) -> str:
        """Return what the unit wrote to the journal; the output of a failed start is only there."""
        options = [f"--unit={self._unit}", f"--since=@{since}", f"--lines={_JOURNAL_LINES}"]
        try:
            code, out, _error = self.run(["journalctl", "--no-pager", "--output=cat", *options])
        except OSError as exc:
            if exc.errno != errno.ENOENT:
                raise
            return ""
        said = dict.fromkeys(line for line in out.splitlines() if "nginx:" in line)
        return "; ".join(said) if code == 0 else ""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class _Tail:
    """What a log gained since this object was made; a rotated log is read from its beginning."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._inode, self._size = self._position()

    def _position(self) -> tuple[int, int]:
        try:
            found = os.stat(self._path)
        except OSError:
            return 0, 0
        return found.st_ino, found.st_size

    def gained(self) -> list[str]:
        inode, size = self._position()
        start = self._size if inode == self._inode and size >= self._size else 0
        try:
            with open(self._path, "rb") as file:
                file.seek(start)
                return file.read(_LOG_BYTES).decode(errors="replace").splitlines()
        except OSError:
            return []


def _one_line(text: str) -> str:
    """Return a program's messages as one line, so that they fit into a sentence."""
    return "; ".join(line.strip() for line in text.splitlines() if line.strip())
