# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway on a live host: which nginx runs, from which files, and who may change them."""

from __future__ import annotations

import glob
import hashlib
import os
import posixpath
import re
import stat
import typing as t
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.catalogue import (
    FILE_CONTROLS,
    Check,
    Skip,
    error_of,
    finding_of,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.checks import (
    configuration_findings,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.expected import Expected
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.parts import certificates
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_config import (
    Worker,
    is_stale,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_host import (
    Run,
    SystemHost,
    parse_process,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_syntax import (
    Directive,
    NginxSyntaxError,
    assemble,
    parse,
    split_dump,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.sockets import parse_unit

__all__ = ("GatewayHost", "Launch", "Process", "parse_launch", "verify")

Finding = dict[str, t.Any]
# (user, group, mode) of a path itself, None when there is nothing
Owner = tuple[int, int, int]

_MASTER, _WORKER = "nginx: master process", "nginx: worker process"
_OPTIONS = frozenset({"-c", "-p", "-g", "-e", "-t", "-T", "-q", "-s", "-v", "-V"})
_WILD = re.compile(r"[*?\[]")
# From where nginx's own code and its libraries come
_CODE = ("/usr/", "/lib/", "/lib64/")
_PREFIXES = ("", "/usr/share/nginx", "/etc/nginx")
_UNIT = ("LoadState", "ExecStart", "Environment", "RootDirectory", "RootImage", "BindPaths",
         "BindReadOnlyPaths")  # fmt: skip
# Variables by which a program loads other code, or speaks TLS in another way
_LOADING = re.compile(r"(?:\A|[\s\"])((?:LD|OPENSSL)_\w+)=")
_OWNED = ("conf.d/llm-gateway*", "llm-gateway", "llm-gateway/**")
_FILE = Check(
    "authentication", "high", "The gateway's file is as it was put there", "unchanged",
    "See who changed it, then run llmsec.hardening.harden, which puts it back.",
)  # fmt: skip


class HostError(ValueError):
    """The host cannot be judged; says why."""


@dataclass(frozen=True, slots=True)
class Process:
    """A process of nginx's. `title` is its command line; `network` tells namespaces apart."""

    pid: int
    parent: int
    start: int
    title: str
    program: str
    unit: str | None
    network: str
    uid: int

    @property
    def is_worker(self) -> bool:
        return self.title == _WORKER


@dataclass(frozen=True, slots=True)
class Launch:
    """What nginx was started with: `-c`, `-p` and `-g`, empty where not given."""

    config: str = ""
    prefix: str = ""
    directives: str = ""

    def words(self) -> list[str]:
        """Return the options for another nginx to read the same configuration."""
        pairs = (("-p", self.prefix), ("-c", self.config), ("-g", self.directives))
        return [word for option, value in pairs if value for word in (option, value)]


def parse_launch(title: str) -> Launch:
    """Return the options in a master's title, or raise HostError.

    nginx writes its arguments there with blanks between them (ngx_start_worker_processes() and
    ngx_master_process_cycle()), so that the value of -g ends at the next option.
    """
    words = title.removeprefix(_MASTER).split()[1:]
    found: dict[str, list[str]] = {}
    option = ""
    for word in words:
        if word in _OPTIONS:
            option = word
            found[option] = []
        elif not option:
            raise HostError(f"nginx was started in a way that is not known here: {title}")
        else:
            found[option].append(word)
    values = {name: " ".join(found.get(name, [])) for name in ("-c", "-p", "-g")}
    if values["-p"] and not values["-p"].startswith("/"):
        raise HostError(f"nginx was started with a relative prefix: {values['-p']}")
    return Launch(values["-c"], values["-p"], values["-g"])


@dataclass
class GatewayHost:
    """What is asked of the host; tests replace it, or its `proc`, `root` and `run`."""

    run: Run
    binary: str | None
    service: str = "nginx"
    root: str = "/etc/nginx"
    proc: Path = Path("/proc")
    is_root: bool = True
    systemctl: str | None = None

    def __post_init__(self) -> None:
        self.system = SystemHost(self.run, self.binary, None, self.service, root=self.root)

    def processes(self) -> list[Process]:
        """Return nginx's processes in this network; those of containers of their own are not."""
        init = self._text("1", "cgroup")
        here = self._link("self", "ns/net")
        found = []
        for directory in self.proc.glob("[0-9]*"):
            try:
                one = self._process(directory.name, init)
            except (OSError, IndexError, ValueError):
                continue  # ended while we looked
            if one is not None and one.network == here:
                found.append(one)
        return sorted(found, key=lambda one: one.pid)

    def _process(self, pid: str, init: str) -> Process | None:
        directory = self.proc / pid
        line = (directory / "cmdline").read_bytes().decode(errors="replace")
        name = self._text(pid, "comm").strip()
        if not line.startswith("nginx: ") and name != "nginx":
            return None
        parent, start = parse_process((directory / "stat").read_text(errors="replace"))
        unit = parse_unit(self._text(pid, "cgroup"), init)
        title = line.replace("\0", " ").strip()
        program, network = self._link(pid, "exe"), self._link(pid, "ns/net")
        uid = os.stat(directory).st_uid
        return Process(int(pid), parent, start, title, program, unit, network, uid)

    def _text(self, pid: str, name: str) -> str:
        try:
            return (self.proc / pid / name).read_text(errors="replace")
        except OSError:
            return ""

    def _link(self, pid: str, name: str) -> str:
        try:
            return os.readlink(self.proc / pid / name)
        except OSError:
            return ""

    def read(self, path: str) -> str:
        """Return a file's text byte for byte, as run_command() gives output."""
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()

    def owner(self, path: str) -> Owner | None:
        try:
            found = os.lstat(path)
        except OSError:
            return None
        return found.st_uid, found.st_gid, found.st_mode

    def dump(self, launch: Launch) -> str:
        """Return what `nginx -T` prints, or raise HostError with nginx's own words."""
        code, out, error = self.run([str(self.binary), "-T", *launch.words()])
        if code != 0:
            lines = [line for line in error.splitlines() if "[emerg]" in line]
            said = (lines or error.splitlines() or [f"it ended with code {code}"])[0]
            raise HostError(f"nginx refuses its configuration: {said}")
        return out

    def owned(self) -> list[str]:
        """Return what is in the places that are the gateway's, directories left out."""
        found: list[str] = []
        for pattern in _OWNED:
            places = glob.glob(
                posixpath.join(self.root, pattern), recursive=True, include_hidden=True
            )
            found += [path for path in places if os.path.islink(path) or not os.path.isdir(path)]
        return sorted(set(found))

    def code(self, pid: int) -> list[str]:
        """Return the files whose code a process has loaded, as proc_pid_maps(5) has them."""
        rows = (line.split(maxsplit=5) for line in self._text(str(pid), "maps").splitlines())
        return sorted({row[5] for row in rows if row[5:] and "x" in row[1] and row[5][0] == "/"})

    def sees_another(self, pid: int, path: str) -> bool:
        """Tell whether a process has another file at a path, as by BindPaths= of its unit."""
        real, root = os.path.realpath(path), self.proc / str(pid) / "root"
        try:
            ours = os.stat(real)
            os.stat(root)
        except OSError:
            return False  # gone or ended, or not told
        try:
            theirs = os.stat(f"{root}{real}")
        except OSError:
            return True
        return (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino)

    def unit(self) -> dict[str, str] | None:
        """Return what systemd would start nginx with, None where there is no such unit."""
        if self.systemctl is None:
            return None
        command = [self.systemctl, "show", f"--property={','.join(_UNIT)}", unit_of(self.service)]
        code, out, error = self.run(command)
        if code != 0:
            raise HostError(f"systemctl show failed: {error.strip()}")
        facts = dict(line.split("=", 1) for line in out.splitlines() if "=" in line)
        return facts if facts.get("LoadState") == "loaded" else None

    def stale(self, workers: set[Worker], path: str) -> bool:
        """Tell whether a path is newer than the oldest of the workers."""
        return is_stale(t.cast(t.Any, _Served(self.system, workers)), [], [path])

    def addresses(self) -> list[str]:
        """Return the host's own addresses, from the kernel's tables."""
        table = self._text("net", "fib_trie")
        found = re.findall(r"\|-- ([0-9.]+)\n\s+/32 host LOCAL", table)
        for line in self._text("net", "if_inet6").splitlines():
            digits = line.split()[0]
            found.append(":".join(digits[at : at + 4] for at in range(0, 32, 4)))
        return found


@dataclass
class _Served:
    """What is_stale() asks of a host, with the workers known already."""

    system: SystemHost
    found: set[Worker]

    def workers(self) -> set[Worker]:
        return self.found

    def started(self, worker: Worker) -> float:
        return self.system.started(worker)

    def changed_at(self, path: str, *, inode: bool) -> float | None:
        return self.system.changed_at(path, inode=inode)

    def now(self) -> float:
        return self.system.now()


def masters_of(processes: Sequence[Process]) -> list[Process]:
    """Return the processes that are no nginx's workers: masters, and nginx without one.

    A worker whose master was killed serves on, and nobody can say what.
    """
    pids = {one.pid for one in processes}
    return [one for one in processes if one.title.startswith(_MASTER) or one.parent not in pids]


def unit_of(service: str) -> str:
    return service if "." in service else f"{service}.service"


def main_master(masters: Sequence[Process], service: str) -> Process | None:
    """Return the master of the unit; if none is, root's only one."""
    alone = [
        one
        for one in masters
        if one.title.startswith(_MASTER) or not one.title.startswith("nginx: ")
    ]
    by_unit = [one for one in alone if one.unit == unit_of(service)]
    roots = [one for one in alone if one.uid == 0]
    return next(iter(by_unit or (roots if len(roots) == 1 else [])), None)


def master_finding(host: GatewayHost, masters: Sequence[Process], main: Process | None) -> Finding:
    """Return whether one nginx runs, of the program that is installed."""
    problems = [f"nginx runs twice: {one.title}" for one in masters if one is not main]
    if main is None:
        if not masters:
            return error_of("gateway.master", "nginx does not run")
        return finding_of("gateway.master", [f"not of {host.service}: {one}" for one in problems])
    known = os.path.realpath(str(host.binary))
    if main.program.endswith(" (deleted)"):
        problems.append("its program was replaced after it had been started")
    elif main.program and main.program != known:
        problems.append(f"it runs {main.program}, not {known}")
    if main.unit != unit_of(host.service):
        problems.append(f"it runs in {main.unit or 'no unit'}")
    problems += launch_problems(host, main.title)
    for path in host.code(main.pid):
        if not path.startswith(_CODE):
            problems.append(f"it has loaded {path}")
    return finding_of("gateway.master", problems, good=main.title)


def launch_problems(host: GatewayHost, title: str) -> list[str]:
    """Return the options by which nginx reads other files than the distribution's."""
    try:
        launch = parse_launch(title)
    except HostError as exc:
        return [str(exc)]
    main = posixpath.join(host.root, "nginx.conf")
    problems = []
    if launch.config and posixpath.normpath(posixpath.join(host.root, launch.config)) != main:
        problems.append(f"it is started with -c {launch.config}")
    if launch.prefix.rstrip("/") not in _PREFIXES:
        problems.append(f"it is started with -p {launch.prefix}")
    return problems


def unit_finding(host: GatewayHost) -> Finding:
    """Return whether the next start of nginx is the distribution's, too."""
    try:
        facts = host.unit()
    except HostError as exc:
        return error_of("gateway.unit", exc)
    if facts is None:
        return finding_of("gateway.unit", Skip(f"systemd has no unit {unit_of(host.service)}"))
    problems = []
    for command in re.findall(r"argv\[\]=(.*?) ; ignore_errors=", facts.get("ExecStart", "")):
        program, _blank, words = command.partition(" ")
        if os.path.realpath(program) != os.path.realpath(str(host.binary)):
            problems.append(f"ExecStart={program}")
        else:
            problems += launch_problems(host, f"{_MASTER} {program} {words}")
    problems += [f"{name} is set" for name in _LOADING.findall(facts.get("Environment", ""))]
    for name in ("RootDirectory", "RootImage"):
        problems += [f"{name}={facts[name]}"] if facts.get(name) else []
    for name in ("BindPaths", "BindReadOnlyPaths"):
        problems += [f"{name}={facts[name]}"] if "/etc" in facts.get(name, "") else []
    return finding_of("gateway.unit", problems)


def worker_finding(tree: Iterable[Directive], workers: Iterable[Process]) -> Finding:
    """Return whether whoever breaks into a worker is root."""
    said = [
        f"{one.text} ({one.where})" for one in tree if one.name == "user" and "root" in one.args
    ]
    running = ["a worker runs as root" for one in workers if one.uid == 0]
    return finding_of("gateway.workers", [*said, *running])


def _modules(tree: Iterable[Directive]) -> list[str]:
    names = [one.args[-1] for one in tree if one.name == "load_module" and one.args]
    return [posixpath.join("/usr/share/nginx", name) for name in names]


def _folders(files: Mapping[str, str], base: str) -> list[str]:
    """Return the directories whose files the configuration includes by a pattern."""
    found = []
    for path in files:
        for one in _includes(parse(files[path], path)):
            if _WILD.search(one):
                found.append(posixpath.dirname(posixpath.join(base, one)))
    return sorted(set(found))


def _includes(directives: Iterable[Directive]) -> Iterable[str]:
    for one in directives:
        if one.name == "include" and one.args:
            yield one.args[0]
        yield from _includes(one.block or ())


def permission_problems(
    paths: Iterable[str],
    owner: Callable[[str], Owner | None],
    real: Callable[[str], str] = os.path.realpath,
) -> list[str]:
    """Return the paths, and directories above them, that another than root can change."""
    todo: dict[str, None] = {}
    for path in paths:
        for one in (path, real(path)):
            place = one
            while place not in todo:
                todo[place] = None
                place = posixpath.dirname(place)
    return [
        f"{place}: {_rights(found)}"
        for place in todo
        if (found := owner(place)) is not None and _is_open(found)
    ]


def _is_open(found: Owner) -> bool:
    uid, gid, mode = found
    if stat.S_ISLNK(mode):
        return uid != 0
    others = bool(mode & stat.S_IWOTH) or (bool(mode & stat.S_IWGRP) and gid != 0)
    return uid != 0 or others


def _rights(found: Owner) -> str:
    return f"owner {found[0]}:{found[1]}, mode {stat.S_IMODE(found[2]):04o}"


def file_findings(host: GatewayHost, files: Sequence[Mapping[str, t.Any]] | None) -> list[Finding]:
    """Return a finding for each file that should be there, and one for all others."""
    if files is None:
        why = Skip("the files that should be there were not given")
        return [
            finding_of("gateway.files", why, check=_FILE),
            finding_of("gateway.extra_files", why),
        ]
    found = []
    for wanted in files:
        basename = posixpath.basename(wanted["path"])
        check = Check(
            FILE_CONTROLS.get(basename, _FILE.control), _FILE.severity,
            f"{wanted['path']} is as it was put there", _FILE.expected, _FILE.remediation,
        )  # fmt: skip
        problems = _file_problems(host, wanted)
        found.append(finding_of(f"gateway.files.{basename}", problems, check=check))
    known = {wanted["path"] for wanted in files}
    extra = [path for path in host.owned() if path not in known]
    return [*found, finding_of("gateway.extra_files", extra)]


def _file_problems(host: GatewayHost, wanted: Mapping[str, t.Any]) -> list[str]:
    path = wanted["path"]
    found = host.owner(path)
    if found is None:
        return ["it is missing"]
    if not stat.S_ISREG(found[2]):
        return ["it is no plain file"]
    problems = []
    text = host.read(path)
    if _digest(text) != (wanted.get("sha256") or _digest(wanted.get("content") or "")):
        problems.append(_difference(wanted.get("content"), text))
    mode, uid = wanted.get("mode"), wanted.get("owner")
    if mode is not None and stat.S_IMODE(found[2]) != int(mode, 8):
        problems.append(f"mode {stat.S_IMODE(found[2]):04o}, not {mode}")
    if uid is not None and found[0] != uid:
        problems.append(f"owner {found[0]}, not {uid}")
    return problems


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def _difference(wanted: str | None, text: str) -> str:
    """Return how many lines differ, never which."""
    if wanted is None:
        return f"its content was changed ({len(text.splitlines())} lines now)"
    before, after = wanted.splitlines(), text.splitlines()
    gone = sum(1 for line in before if line not in after)
    new = sum(1 for line in after if line not in before)
    return f"its content was changed ({new} lines are new, {gone} are gone)"


def verify(
    host: GatewayHost,
    expect: Callable[[Iterable[str]], Expected],
    files: Sequence[Mapping[str, t.Any]] | None,
) -> list[Finding]:
    """Return all findings. `expect` makes the expectation from the host's own addresses."""
    processes = host.processes()
    masters = masters_of(processes)
    if host.binary is None:
        running = [one.title for one in masters]
        return [finding_of("gateway.present", ["nginx is not installed", *running])]
    if not host.is_root:
        return [error_of("gateway.configuration", "only root can read it")]
    main = main_master(masters, host.service)
    found = [master_finding(host, masters, main), unit_finding(host), *_files_or_error(host, files)]
    try:
        launch = parse_launch(main.title) if main is not None else Launch()
        dumped = split_dump(host.dump(launch), host.read)
        tree = (*assemble(dumped), *parse(launch.directives, "nginx -g"))
    except (HostError, NginxSyntaxError, OSError) as exc:
        return [error_of("gateway.configuration", exc), *found]
    expected = expect(host.addresses())
    base = posixpath.dirname(next(iter(dumped)))
    watched = [*dumped, *_folders(dumped, base)]
    pairs = [posixpath.join(base, one) for one in certificates(tree, expected)]
    ours = main.pid if main is not None else 0
    workers = [one for one in processes if one.parent == ours and one.is_worker]
    return [
        finding_of("gateway.configuration", [], good=f"{len(dumped)} files"),
        *configuration_findings(tree, expected),
        _loaded(host, workers, main, [*watched, *pairs]),
        worker_finding(tree, workers),
        finding_of(
            "gateway.permissions",
            permission_problems([*watched, *pairs, *_modules(tree)], host.owner),
        ),
        *found,
    ]


def _files_or_error(
    host: GatewayHost, files: Sequence[Mapping[str, t.Any]] | None
) -> list[Finding]:
    try:
        return file_findings(host, files)
    except OSError as exc:
        return [error_of("gateway.extra_files", exc)]


def _loaded(
    host: GatewayHost, found: Sequence[Process], main: Process | None, paths: Sequence[str]
) -> Finding:
    """Return whether the workers have read what is on disk.

    The inode's change counts, not the content's alone: whoever changes a file can set back its
    time. A directory tells of a file that was served and then removed.
    """
    if main is None:
        return error_of("gateway.loaded", "nginx does not run, or more than one does")
    workers = {Worker(one.pid, one.start) for one in found}
    if not workers:
        return error_of("gateway.loaded", "nginx has no worker process")
    problems = [f"{path} was changed later" for path in paths if host.stale(workers, path)]
    for path in paths:
        if host.sees_another(main.pid, path):
            problems.append(f"{path} is another file for the nginx that runs")
    return finding_of("gateway.loaded", problems)
