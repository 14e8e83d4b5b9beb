# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads what a unit is: its files, systemd's word, its process, its version, its packages."""

from __future__ import annotations

import contextlib
import glob
import grp
import http.client
import os
import pwd
import re
import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from ansible_collections.llmsec.hardening.plugins.module_utils.servers import SERVERS
from ansible_collections.llmsec.hardening.plugins.module_utils.service_checks import (
    Expected,
    Facts,
    Files,
    Process,
    parse_show,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.service_versions import (
    QUESTIONS,
    Packages,
    parse_answer,
    parse_output,
    parse_policy,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.sockets import parse_unit
from ansible_collections.llmsec.hardening.plugins.module_utils.systemd_units import (
    UNIT_PATHS,
    UnitError,
    in_force,
    parse_fragments,
    split_words,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.unit_files import UnitFiles
from ansible_collections.llmsec.hardening.plugins.module_utils.unread import Unread

__all__ = ("Run", "ServiceHost")

# Executes a command: (return code, output, error output)
Run = Callable[[list[str]], tuple[int, str, str]]

_NOBODY = 65534
_LISTS = "/var/lib/apt/lists"
# apt gives the lists the time of the mirror's files; these get the time of the download.
_DOWNLOADED = (_LISTS, f"{_LISTS}/partial", "/var/lib/apt/periodic/update-success-stamp")
# Where people put drop-ins; what set-property leaves elsewhere is in force at once.
_ADMIN_PLACES = ("/etc/systemd/system", "/run/systemd/system")
# Those that print their version when asked to.
_PRINT_VERSION = ("ollama", "litellm")
_MOST_ANSWER = 1 << 16


class ServiceHost:
    """The host below `root`; `is_root` says whether this process may change its user."""

    def __init__(
        self, run: Run, *, is_root: bool, root: str = "", proc: str = "/proc", timeout: float = 3.0
    ) -> None:
        self._run = run
        self._is_root = is_root
        self._root = root
        self._proc = Path(proc)
        self._timeout = timeout

    def facts(self, expected: Expected, address: str, packages: Packages | Unread) -> Facts:
        """Return all about one unit; `address` is where its server listens, "" by default."""
        server, why = expected.server, "there is no such unit"
        show = self._show(expected.unit)
        files: Files | Unread = Unread(why)
        process: Process | Unread | None = None
        if not isinstance(show, Unread) and show.get("LoadState", "not-found") != "not-found":
            files = self._files(expected.unit)
            process = self._process(show.get("MainPID", ""))
        program = "" if isinstance(files, Unread) else _program(files)
        # A server that runs in a container, say, has a version all the same.
        version = self._version(server, address, program) if server else Unread(why)
        left_behind = self._left_behind(server, program)
        return Facts(show, files, process, version, left_behind, packages)

    def _show(self, unit: str) -> dict[str, str] | Unread:
        command = ["systemctl", "show", "--no-pager", "--timestamp=unix", "--", unit]
        status, output, errors = self._run(command)
        if status != 0:
            return Unread(f"systemctl failed: {errors.strip() or status}")
        return parse_show(output)

    # files

    def _files(self, unit: str) -> Files | Unread:
        units = UnitFiles(unit, self._root)
        try:
            fragments = units.fragments("", None)
            environment = units.environment_files(parse_fragments(fragments))
            paths = [each.path for each in (*fragments, *environment)]
            return Files(
                tuple(fragments), tuple(environment), self._written(unit, paths),
                {path: os.readlink(self._place(path)) for path in paths
                 if path.endswith(".conf") and os.path.islink(self._place(path))},
                tuple(self._hidden(unit, units.unit_file())),
                tuple(text for path in paths for text in self._loose(path)),
            )  # fmt: skip
        except (UnitError, OSError) as exc:
            return Unread(f"the unit's files cannot be read: {exc}")

    def _place(self, path: str) -> str:
        return self._root + path

    def _written(self, unit: str, paths: Sequence[str]) -> dict[str, float]:
        found = {path: os.stat(self._place(path)) for path in paths}
        # A link to /dev/null has no time to speak of.
        times = {path: _changed(path, one) for path, one in found.items() if _is_file(one)}
        # A drop-in that was taken away since leaves no other trace.
        for place in _ADMIN_PLACES:
            folder = f"{place}/{unit}.d"
            with contextlib.suppress(FileNotFoundError):
                times[folder] = os.stat(self._place(folder)).st_mtime
        return times

    def _hidden(self, unit: str, used: str | None) -> list[str]:
        """Return the other unit files of that name; /lib and /usr/lib are one directory."""
        if used is None:
            return []
        found: dict[str, str] = {}
        for place in UNIT_PATHS:
            path = f"{place}/{unit}"
            if os.path.lexists(self._place(path)):
                found.setdefault(os.path.realpath(self._place(path)), path)
        found.pop(os.path.realpath(self._place(used)), None)
        return list(found.values())

    def _loose(self, path: str) -> list[str]:
        one = os.stat(self._place(path))
        if one.st_uid == 0 and not one.st_mode & 0o022:
            return []
        if not _is_file(one):
            return []
        mode = stat.S_IMODE(one.st_mode)
        return [f"{path} belongs to {_user(one.st_uid)} and has mode {mode:04o}"]

    # process

    def _process(self, pid: str) -> Process | Unread | None:
        if pid in ("", "0"):
            return None
        try:
            folder = self._proc / str(int(pid))
            status = dict(
                line.split(":", 1) for line in _text(folder / "status").splitlines() if ":" in line
            )
            return Process(
                tuple(_user(int(number)) for number in status["Uid"].split()),
                {key: value.strip() for key, value in status.items()},
                _variables((folder / "environ").read_bytes()),
                _core_limits(_text(folder / "limits")),
                parse_unit(_text(folder / "cgroup"), _text(self._proc / "1/cgroup")) or "",
                tuple(dict.fromkeys(_group(int(number)) for number in _group_numbers(status))),
                tuple(_text(folder / "cmdline").rstrip("\0").split("\0")),
            )
        except (OSError, ValueError, KeyError) as exc:
            return Unread(f"the service's process cannot be read: {exc}")

    # versions

    def _version(self, server: str, address: str, program: str) -> str | Unread:
        """Ask the running server, else its program."""
        try:
            return parse_answer(server, self._ask(server, address))
        except (OSError, ValueError, http.client.HTTPException) as exc:
            why = f"{address or QUESTIONS[server][0]}: {exc}"
        if server not in _PRINT_VERSION or not program.startswith("/"):
            return Unread(why)
        # What may be another user's program is never run as root.
        drop = [
            "setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups",
            "--no-new-privs",
        ]  # fmt: skip
        clean = ["env", "-i", "HOME=/nonexistent", "PATH=/usr/bin:/bin"]
        command = ["timeout", "5", *(drop if self._is_root else []), *clean, program, "--version"]
        _status, output, errors = self._run(command)
        try:
            return parse_output(f"{output}\n{errors}")
        except ValueError as exc:
            return Unread(f"{why}; {program}: {exc}")

    def _ask(self, server: str, address: str) -> bytes:
        default, path, _name = QUESTIONS[server]
        place = address or default
        host, _colon, port = place.rpartition(":")
        header = SERVERS[server].host_header if server in SERVERS else place
        connection = http.client.HTTPConnection(host.strip("[]"), int(port), timeout=self._timeout)
        with contextlib.closing(connection):
            connection.request("GET", path, headers={"Host": header})
            answer = connection.getresponse()
            if answer.status != 200:
                raise OSError(f"it answers {answer.status}")
            return answer.read(_MOST_ANSWER)

    def _left_behind(self, server: str, program: str) -> tuple[str, ...]:
        """Return the files beside LiteLLM that Python runs at every start."""
        if server != "litellm":
            return ()
        prefixes = {"/usr", "/usr/local", os.path.dirname(os.path.dirname(program))} - {""}
        return tuple(
            path.removeprefix(self._root)
            for prefix in sorted(prefixes)
            for path in glob.glob(
                f"{glob.escape(self._place(prefix))}/lib/python3*/*-packages/*.pth"
            )
        )

    def packages(self, names: Sequence[str], now: float) -> Packages | Unread:
        """Ask apt about packages, by the lists that are on the host."""
        if not names:
            return Packages()
        status, output, errors = self._run(["apt-cache", "policy", *names])
        if status != 0:
            return Unread(f"apt-cache failed: {errors.strip() or status}")
        if not glob.glob(f"{glob.escape(self._place(_LISTS))}/*_Packages*"):
            return Packages(parse_policy(output), None)
        times = []
        for path in _DOWNLOADED:
            with contextlib.suppress(OSError):
                times.append(os.stat(self._place(path)).st_mtime)
        return Packages(parse_policy(output), now - max(times))


def _program(files: Files) -> str:
    """Return the program of the last ExecStart=, "" when there is none."""
    found = in_force(files.assignments, "Service", "ExecStart")
    words: list[str] = []
    with contextlib.suppress(UnitError):
        words = split_words(found[-1].value) if found else []
    return words[0].lstrip("@-:+!|") if words else ""


def _variables(environ: bytes) -> dict[str, str]:
    pairs = (entry.partition(b"=") for entry in environ.split(b"\0") if entry)
    return {
        name.decode("utf-8", "replace"): value.decode("utf-8", "replace")
        for name, _equals, value in pairs
    }


def _core_limits(limits: str) -> tuple[str, ...]:
    """Return soft and hard limit in a /proc/PID/limits text, in bytes or `unlimited`."""
    found = re.search(r"^Max core file size +(\S+) +(\S+)", limits, re.MULTILINE)
    return found.groups() if found else ()


def _user(number: int) -> str:
    with contextlib.suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return str(number)


def _group_numbers(status: dict[str, str]) -> list[str]:
    return [*status.get("Gid", "").split(), *status.get("Groups", "").split()]


def _group(number: int) -> str:
    with contextlib.suppress(KeyError):
        return grp.getgrgid(number).gr_name
    return str(number)


def _is_file(one: os.stat_result) -> bool:
    return stat.S_ISREG(one.st_mode)


def _changed(path: str, one: os.stat_result) -> float:
    """Return when a file became what it is.

    One that was moved back to its place keeps the time of its text, so its inode's counts too,
    except of the files of packages: those come to be while the service goes on.
    """
    packaged = not path.startswith(("/etc/", "/run/"))
    return one.st_mtime if packaged else max(one.st_mtime, one.st_ctime)


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
