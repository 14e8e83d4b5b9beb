# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a service runs as it should: by its files, by systemd's word, and by its process.

Each of the three may say something else: a file was edited after the start, or systemd has not
read it yet. A finding passes only when all that were asked agree. Pure.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.llmsec.hardening.plugins.module_utils.service_loopholes import (
    PRELOADS,
    changed_lines,
    loopholes,
    powerful,
    preloads,
    program,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.service_versions import (
    Packages,
    packages_finding,
    version_finding,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.subjects import Finding, Subject
from ansible_collections.llmsec.hardening.plugins.module_utils.systemd_units import (
    Assignment,
    Fragment,
    Variable,
    Wish,
    effective_environment,
    holds,
    in_force,
    parse_fragments,
    parse_unit,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.unread import Unread

__all__ = ("Expected", "Facts", "Files", "Process", "judge", "parse_show", "slug")

# Each of these alone lets the service at other files, devices, networks or rights.
_HIGH = frozenset(
    {
        "AmbientCapabilities", "BindPaths", "CapabilityBoundingSet", "DeviceAllow", "DevicePolicy",
        "ExecPaths", "IPAddressAllow", "IPAddressDeny", "NoExecPaths", "NoNewPrivileges",
        "PrivateDevices", "PrivateTmp", "PrivateUsers", "ProtectControlGroups", "ProtectHome",
        "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc", "ProtectSystem",
        "ReadWritePaths", "RestrictAddressFamilies", "RestrictNamespaces", "RestrictSUIDSGID",
        "SocketBindDeny", "SystemCallArchitectures", "SystemCallFilter",
    }
)  # fmt: skip
# What a server's unit starts: program, and what stands behind it.
_PROGRAMS = {"ollama": ("ollama", ("serve",))}
_NOT_ASKED = Unread("it was not asked")
_RESTART = "Run systemctl restart on the unit, and find out what it ran with until then."
_REMEDY = (
    "Run llmsec.hardening.harden, which writes the drop-in anew and restarts the service; first "
    "remove what the finding names."
)


@dataclass(frozen=True, slots=True)
class Expected:
    """What a unit should be like. Empty members are not looked at.

    `wish` has the directives of the unit's own section and the environment. `dropin` is the path
    of the drop-in that must be read, `text` the whole unit file as it was installed.
    """

    unit: str
    wish: Wish = field(default_factory=Wish)
    user: str = ""
    server: str = ""
    dropin: str = ""
    packages: tuple[str, ...] = ()
    enabled: bool = True
    text: str = ""

    @property
    def directives(self) -> Mapping[str, Sequence[str]]:
        return self.wish.sections.get(self.section, {})

    @property
    def promised(self) -> list[Assignment]:
        return parse_unit(self.text, "")

    @property
    def section(self) -> str:
        return self.unit.rpartition(".")[2].capitalize()


@dataclass(frozen=True, slots=True)
class Files:
    """The unit's files: itself first, then its drop-ins in reading order, and its environment's.

    `written` gives when each was last written, as Unix times, and of the folders with its drop-ins
    when something was last put into or taken out of them. `links` are those that are symbolic
    links, with their targets. `hidden` are unit files that the one in force hides, `loose` tells
    of files that others than root may change.
    """

    fragments: tuple[Fragment, ...]
    environment: tuple[Fragment, ...] = ()
    written: Mapping[str, float] = field(default_factory=dict)
    links: Mapping[str, str] = field(default_factory=dict)
    hidden: tuple[str, ...] = ()
    loose: tuple[str, ...] = ()

    @property
    def assignments(self) -> list[Assignment]:
        return parse_fragments(self.fragments)

    @property
    def dropins(self) -> tuple[Fragment, ...]:
        return tuple(each for each in self.fragments if each.path.endswith(".conf"))


@dataclass(frozen=True, slots=True)
class Process:
    """The unit's main process, from /proc/PID. `users` are its four user ids by name.

    `status` has the fields of status, `core_limits` the soft and hard one, `unit` is whose control
    group it is in. `groups` are all its groups by name, `command` is its command line.
    """

    users: tuple[str, ...]
    status: Mapping[str, str]
    environment: Mapping[str, str]
    core_limits: tuple[str, ...]
    unit: str
    groups: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Facts:
    """What was read. `process` is None where the unit has none."""

    show: Mapping[str, str] | Unread
    files: Files | Unread
    process: Process | Unread | None
    version: str | Unread = _NOT_ASKED
    left_behind: tuple[str, ...] = ()
    packages: Packages | Unread = _NOT_ASKED


def parse_show(text: str) -> dict[str, str]:
    """Return the properties in `systemctl show`; of one in several lines all values."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        key, equals, value = line.partition("=")
        if equals:
            found[key] = f"{found[key]} {value}" if key in found else value
    return found


def slug(unit: str) -> str:
    """Return a unit's part of an id: ollama.service is `ollama`, x@1.socket `x-1-socket`."""
    return re.sub(r"[^A-Za-z0-9_-]", "-", unit.removesuffix(".service"))


def judge(expected: Expected, facts: Facts) -> list[Finding]:
    """Return all findings about one unit."""
    return [*_Unit(expected, facts).findings()]


class _Unit:
    """The checks of one unit, in the order of the report."""

    def __init__(self, expected: Expected, facts: Facts) -> None:
        self.expected = expected
        self.facts = facts
        self.show: Mapping[str, str] = {} if isinstance(facts.show, Unread) else facts.show

    def findings(self) -> Iterator[Finding]:
        yield self._running()
        if self.show.get("LoadState", "not-found") != "not-found":
            if self.expected.enabled:
                yield self._enabled()
            yield self._unit_file()
            if self.expected.dropin:
                yield self._dropin()
            yield self._reloaded()
            if self.expected.section == "Service":
                yield self._restarted()
                yield self._preloaded()
            if self.expected.user:
                yield self._user()
            if self.expected.server in _PROGRAMS:
                yield self._program()
            yield from self._environment()
            if self.expected.section == "Service" and self.expected.directives:
                yield self._loopholes()
            for key, values in self.expected.directives.items():
                yield self._directive(key, values)
        yield from self._versions()

    def _subject(
        self, name: str, title: str, severity: str, control: str = "service_sandbox"
    ) -> Subject:
        unit = self.expected.unit
        return Subject(
            f"service.{slug(unit)}.{name}", control, f"{unit} {title}", severity, _REMEDY
        )

    # the unit

    def _running(self) -> Finding:
        subject = self._subject("running", "runs", "high")
        if isinstance(self.facts.show, Unread):
            return subject.not_measured(self.facts.show.why)
        loaded = self.show.get("LoadState", "not-found")
        if loaded == "not-found":
            return subject.not_measured(f"there is no {self.expected.unit}")
        state = self.show.get("ActiveState", "unknown")
        process = self.facts.process
        if state != "active" or (self.expected.section == "Service" and process is None):
            more = "" if loaded == "loaded" else f", {loaded}"
            return subject.not_measured(f"it is {state}{more}")
        if isinstance(process, Unread):
            return subject.not_measured(process.why)
        if process and process.unit != self.expected.unit:
            strange = f"its main process belongs to {process.unit or 'no unit'}"
            return subject.judged([strange], expected="a process of its own", found="")
        return subject.judged([], expected="active", found=state)

    def _enabled(self) -> Finding:
        subject = self._subject("enabled", "is started at boot", "medium")
        state = self.show.get("UnitFileState", "") or "without a file"
        bad = ("disabled", "masked", "masked-runtime", "enabled-runtime", "transient", "bad",
               "without a file")  # fmt: skip
        return subject.judged([state] if state in bad else [], expected="enabled", found=state)

    def _unit_file(self) -> Finding:
        subject = self._subject("unit_file", "has the unit file that it came with", "high")
        files = self.facts.files
        if isinstance(files, Unread):
            return subject.not_measured(files.why)
        used = self.show.get("FragmentPath", "")
        problems = [f"{used} hides {path}" for path in files.hidden]
        if self.show.get("LoadState") == "masked":
            problems.append("it is masked")
        elif not used or used.startswith("/run/systemd/transient/"):
            problems.append("it has no unit file of its own: somebody started it by hand")
        problems += files.loose
        if self.expected.text and files.fragments:
            main = files.fragments[0]
            found = parse_fragments([main])
            problems += filter(None, [changed_lines(main.path, found, self.expected.promised)])
        return subject.judged(
            problems, expected="one file, which root alone may change", found=used
        )

    def _dropin(self) -> Finding:
        subject = self._subject("dropin", "has its hardening drop-in", "high")
        files, path = self.facts.files, self.expected.dropin
        if isinstance(files, Unread):
            return subject.not_measured(files.why)
        name = path.rpartition("/")[2]
        own = next((each for each in files.dropins if each.path == path), None)
        hiding = [each for each in files.dropins if each.path.rpartition("/")[2] == name]
        problems = [f"{each.path} hides {path}" for each in hiding if each is not own]
        if own is None and not problems:
            problems = [f"{path} is not there"]
        if path in files.links:
            problems.append(f"{path} is a symbolic link to {files.links[path]}")
        elif own and not parse_fragments([own]):
            problems.append(f"{path} sets nothing")
        read = self.show.get("DropInPaths", "").split()
        if not problems and path not in read:
            problems.append(f"systemd has not read {path}")
        return subject.judged(problems, expected="read by systemd", found=path)

    def _reloaded(self) -> Finding:
        subject = self._subject("reloaded", "is loaded as its files are", "high")
        files = self.facts.files
        if isinstance(files, Unread):
            return subject.not_measured(files.why)
        problems = []
        if self.show.get("NeedDaemonReload") == "yes":
            problems.append("its files were changed since systemd read them (NeedDaemonReload)")
        read = {path.rpartition("/")[2] for path in self.show.get("DropInPaths", "").split()}
        there = {each.path.rpartition("/")[2]: each for each in files.dropins}
        problems += [f"{name} is gone, and still in force" for name in sorted(read - {*there})]
        problems += [
            f"{each.path} is not read yet"
            for name, each in there.items()
            if name not in read and parse_fragments([each])
        ]
        return subject.judged(problems, expected="as on disk", found="it is")

    def _restarted(self) -> Finding:
        subject = self._subject("restarted", "was started after its files were written", "high")
        subject = subject._replace(remediation=_RESTART)
        files = self.facts.files
        started = self.show.get("ExecMainStartTimestamp", "").removeprefix("@")
        if isinstance(files, Unread):
            return subject.not_measured(files.why)
        if self.facts.process is None:
            return subject.not_measured("it has no process")
        if not started.isdecimal():
            return subject.not_measured("systemd does not say when its process was started")
        # systemd gives whole seconds.
        newer = [path for path, time in files.written.items() if int(time) > int(started)]
        return subject.judged(
            [f"{path} was written after the process was started" for path in newer],
            expected="started later", found="it was",
        )  # fmt: skip

    def _user(self) -> Finding:
        wanted = self.expected.user
        subject = self._subject("user", f"runs as {wanted}", "high")
        problems, unknown = [], []
        files, process = self.facts.files, self.facts.process
        if isinstance(files, Unread):
            unknown.append(files.why)
        else:
            found = in_force(files.assignments, "Service", "User")
            named = found[-1].value if found else "root"
            place = f" from {found[-1].path} (line {found[-1].line})" if found else ""
            if named != wanted:
                problems.append(f"User={named}{place}")
        if not isinstance(process, Process):
            unknown.append(_why(process))
        elif {*process.users} != {wanted}:
            problems.append(f"its process runs as {' '.join(dict.fromkeys(process.users))}")
        return _decided(subject, problems, unknown, wanted, wanted)

    def _preloaded(self) -> Finding:
        subject = self._subject("preload", "runs without code that is loaded into it", "high")
        files, process = self.facts.files, self.facts.process
        if isinstance(files, Unread):
            return subject.not_measured(files.why)
        variables = effective_environment(files.assignments, files.environment)
        environment = process.environment if isinstance(process, Process) else {}
        return subject.judged(
            preloads(variables, environment), expected=f"none of {', '.join(PRELOADS)}",
            found="none of them",
        )  # fmt: skip

    def _program(self) -> Finding:
        name, words = _PROGRAMS[self.expected.server]
        says = " ".join((name, *words))
        subject = self._subject("program", f"runs {says}, and nothing around it", "high")
        files, process = self.facts.files, self.facts.process
        unknown = [] if isinstance(process, Process) else [_why(process)]
        if isinstance(files, Unread):
            return subject.not_measured(files.why)
        command = process.command if isinstance(process, Process) else None
        problems = program(files.assignments, name, words, command)
        return _decided(subject, problems, unknown, says, "it does")

    def _loopholes(self) -> Finding:
        subject = self._subject("loopholes", "has no way around its sandbox", "high")
        files, process = self.facts.files, self.facts.process
        if isinstance(files, Unread):
            return subject.not_measured(files.why)
        problems = loopholes(files.assignments, self.expected.directives, self.expected.promised)
        # Root needs no group, and is another finding.
        if isinstance(process, Process) and "root" not in process.users:
            groups = powerful(process.groups)
            problems += [f"its process is in the group {name}" for name in groups]
        return subject.judged(
            problems, expected="no mounts, groups or commands past the sandbox", found="none"
        )

    # environment

    def _environment(self) -> Iterator[Finding]:
        files = self.facts.files
        variables: Mapping[str, Variable] | Unread
        if isinstance(files, Unread):
            variables = files
        else:
            variables = effective_environment(files.assignments, files.environment)
        for name, value in self.expected.wish.environment.items():
            yield self._variable(name, value, variables)
        if self.expected.wish.forbidden:
            yield self._forbidden(variables)

    def _variable(
        self, name: str, value: str, variables: Mapping[str, Variable] | Unread
    ) -> Finding:  # fmt: skip
        control, severity = _matter(name)
        subject = self._subject(
            f"environment.{name}", f"runs with {name}={value}", severity, control
        )
        problems, unknown = [], []
        if isinstance(variables, Unread):
            unknown.append(variables.why)
        elif name not in variables:
            problems.append(f"no file sets {name}")
        else:
            found = variables[name]
            if found.value != (value if found.from_file else value.replace("%", "%%")):
                place = f"from {found.path} (line {found.line})"
                problems.append(f"{name}={found.value} {place}")
        process = self.facts.process
        if not isinstance(process, Process):
            unknown.append(_why(process))
        elif process.environment.get(name) != value:
            has = process.environment.get(name)
            said = "without it" if has is None else f"with {name}={has}"
            problems.append(f"its process runs {said}")
        return _decided(subject, problems, unknown, f"{name}={value}", "files and process agree")

    def _forbidden(self, variables: Mapping[str, Variable] | Unread) -> Finding:
        names = self.expected.wish.forbidden
        subject = self._subject(
            "forbidden_environment", "runs without variables that open or log what is private",
            "high", "secrets_at_rest",
        )  # fmt: skip
        problems, unknown = [], []
        if isinstance(variables, Unread):
            unknown.append(variables.why)
        else:
            problems += [
                f"{name} from {variables[name].path} (line {variables[name].line})"
                for name in names
                if name in variables
            ]
        process = self.facts.process
        if not isinstance(process, Process):
            unknown.append(_why(process))
        else:
            problems += [
                f"its process runs with {name}" for name in names if name in process.environment
            ]
        return _decided(subject, problems, unknown, f"none of {', '.join(names)}", "none of them")

    # directives

    def _directive(self, key: str, values: Sequence[str]) -> Finding:
        wanted = [value for value in values if value]
        says = f"{key}={' '.join(wanted)}"
        subject = self._subject(
            f"directive.{key}", f"is confined by {says}", "high" if key in _HIGH else "medium"
        )
        problems, unknown = [], []
        files = self.facts.files
        if isinstance(files, Unread):
            unknown.append(files.why)
        else:
            problems += _in_files(files.assignments, self.expected.section, key, wanted)
        if key in self.show:
            problems += _in_show(key, wanted, self.show[key])
        look = _IN_PROCESS.get(key)
        if look and self.expected.section == "Service":
            process = self.facts.process
            if not isinstance(process, Process):
                unknown.append(_why(process))
            else:
                problem = look(wanted, process)
                unknown += [problem.why] if isinstance(problem, Unread) else []
                problems += [problem] if isinstance(problem, str) and problem else []
        return _decided(subject, problems, unknown, says, "in force")

    # versions

    def _versions(self) -> Iterator[Finding]:
        prefix = f"service.{slug(self.expected.unit)}"
        if self.expected.server:
            yield version_finding(
                f"{prefix}.version", self.expected.server, self.facts.version,
                self.facts.left_behind,
            )  # fmt: skip
        if self.expected.packages:
            names = self.expected.packages
            yield packages_finding(
                f"{prefix}.packages", ", ".join(names), names, self.facts.packages
            )


def _decided(
    subject: Subject, problems: Sequence[str], unknown: Sequence[str], expected: str, found: str
) -> Finding:
    """Return a fail for any problem, an error for what was not seen, and else a pass."""
    if not problems and unknown:
        return subject.not_measured(unknown[0])
    return subject.judged(problems, expected=expected, found=found)


def _why(process: Process | Unread | None) -> str:
    return process.why if isinstance(process, Unread) else "the service has no process"


def _matter(name: str) -> tuple[str, str]:
    """Return (control, severity) of a variable, by what it decides in LLM servers."""
    if name.endswith(("_HOST", "_ADDRESS")):
        return "loopback", "high"
    if "DEBUG" in name:
        # writes what the model reads and says to the journal
        return "secrets_at_rest", "high"
    return "service_sandbox", "medium"


# -- Directives, three ways ------------------------------------------------------------------------

# What a directive is when nobody sets it, where that is as good as set. Others are off.
_DEFAULTS = {"ProcSubset": "all"}
# Nothing stands for "none" only where somebody says so: by default it is everything.
_ALL_BY_DEFAULT = ("CapabilityBoundingSet",)


def _in_files(
    assignments: Sequence[Assignment], section: str, key: str, wanted: Sequence[str]
) -> list[str]:
    """Return what is wrong with a directive as the files have it."""
    mine = [each for each in assignments if (each.section, each.key) == (section, key)]
    if not mine and key in _ALL_BY_DEFAULT and not wanted:
        return [f"no file sets {key}="]
    effective = in_force(assignments, section, key)
    default = _DEFAULTS.get(key, "no")
    if holds(assignments, (section, key), wanted) or (not effective and [*wanted] == [default]):
        return []
    if not effective:
        last = f" ({mine[-1].path}, line {mine[-1].line}, takes it back)" if mine else ""
        return [f"no file sets {key}{last}"]
    return [f"{key}={each.value} from {each.path} (line {each.line})" for each in effective[-3:]]


# Directives whose value `systemctl show` gives as it was written, in 252 and 257.
_PLAIN = frozenset(
    {
        "DevicePolicy", "KeyringMode", "LimitCORE", "LockPersonality", "MemoryDenyWriteExecute",
        "NoNewPrivileges", "PrivateDevices", "PrivateIPC", "PrivateTmp", "PrivateUsers",
        "ProcSubset", "ProtectClock", "ProtectControlGroups", "ProtectHome", "ProtectHostname",
        "ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectProc",
        "ProtectSystem", "RemoveIPC", "RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID",
        "UMask",
    }
)  # fmt: skip
_WORD_SETS = frozenset({"AmbientCapabilities", "CapabilityBoundingSet", "RestrictAddressFamilies"})
_ADDRESS_SETS = frozenset({"IPAddressAllow", "IPAddressDeny"})
# systemd.resource-control(5)
_ADDRESS_WORDS = {
    "any": "0.0.0.0/0 ::/0", "localhost": "127.0.0.0/8 ::1/128",
    "link-local": "169.254.0.0/16 fe80::/64", "multicast": "224.0.0.0/4 ff00::/8",
}  # fmt: skip
_YES = ("yes", "true", "on", "1", "y", "t")
_NO = ("no", "false", "off", "0", "n", "f")


def _in_show(key: str, wanted: Sequence[str], shown: str) -> list[str]:
    """Return what is wrong with a directive in `systemctl show`, where its form can be compared."""
    words = " ".join(wanted).split()
    same = True
    if key == "SystemCallFilter":
        # names of groups are shown as all their calls
        denies = bool(words) and words[0].startswith("~")
        same = bool(shown) == bool(words) and shown.startswith("~") == denies
        return [] if same else [f"in force is {key}={shown[:60]}"]
    if any(word.startswith("~") for word in words) or "none" in words:
        return []
    if key == "DeviceAllow":
        more = _more_devices(words, shown.split())
        return [f"in force is {key}={' '.join(more)}"] if more else []
    if key in _ADDRESS_SETS:
        same = _networks(words) == _networks(shown.split())
    elif key in _WORD_SETS:
        same = {word.lower() for word in words} == {word.lower() for word in shown.split()}
    elif key in _PLAIN and len(words) == 1:
        same = _plain(key, words[0]) == _plain(key, shown)
    return [] if same else [f"in force is {key}={shown}"]


# What DevicePolicy=closed leaves a service anyway, and ProtectClock= adds to read
_KNOWN_KINDS = ("char-pts", "char-rtc")
_PSEUDO_DEVICES = frozenset(
    f"/dev/{name}"
    for name in ("null", "zero", "full", "random", "urandom", "tty", "ptmx", "pts/ptmx")
)


def _more_devices(wanted: Iterable[str], shown: Iterable[str]) -> list[str]:
    """Return the devices in force that nobody asked for."""
    known = _PSEUDO_DEVICES.union(wanted)
    devices = [word for word in shown if word.startswith(("/dev/", "block-", "char-"))]
    return [word for word in devices if word not in known and word not in _KNOWN_KINDS]


def _plain(key: str, value: str) -> str:
    """Write values one way that mean the same."""
    lower = value.lower()
    if key == "UMask":
        return lower.lstrip("0") or "0"
    if key.startswith("Limit"):
        return lower
    return "yes" if lower in _YES else "no" if lower in _NO else lower


def _networks(words: Iterable[str]) -> set[str]:
    """Return the networks as few as there can be; a word that is none stands for itself."""
    found: dict[int, list[ipaddress.IPv4Network | ipaddress.IPv6Network]] = {4: [], 6: []}
    others = set()
    for word in words:
        for text in _ADDRESS_WORDS.get(word, word).split():
            try:
                network = ipaddress.ip_network(text, strict=False)
            except ValueError:
                others.add(text)
            else:
                found[network.version].append(network)
    return others | {
        str(network) for each in found.values() for network in ipaddress.collapse_addresses(each)
    }


def _field(process: Process, name: str, good: str, base: int = 10) -> str | Unread:
    """Compare a number in /proc/PID/status; "" when it is the wanted one."""
    text = process.status.get(name, "")
    try:
        same = int(text, base) == int(good, base)
    except ValueError:
        return Unread(f"the kernel does not say {name}")
    return "" if same else f"its process has {name} {text}"


def _no_new_privileges(wanted: Sequence[str], process: Process) -> str | Unread:
    yes = bool(wanted) and wanted[0].lower() in _YES
    return _field(process, "NoNewPrivs", "1") if yes else ""


def _capabilities(wanted: Sequence[str], process: Process) -> str | Unread:
    if wanted:
        return ""
    return _field(process, "CapEff", "0", 16) or _field(process, "CapBnd", "0", 16)


def _ambient(wanted: Sequence[str], process: Process) -> str | Unread:
    return "" if wanted else _field(process, "CapAmb", "0", 16)


def _seccomp(wanted: Sequence[str], process: Process) -> str | Unread:
    # proc_pid_status(5): 2 is a filter
    return _field(process, "Seccomp", "2") if wanted else ""


def _umask(wanted: Sequence[str], process: Process) -> str | Unread:
    return _field(process, "Umask", wanted[0], 8) if wanted else ""


def _core(wanted: Sequence[str], process: Process) -> str | Unread:
    if [*wanted] != ["0"] or set(process.core_limits) == {"0"}:
        return ""
    if not process.core_limits:
        return Unread("the kernel does not say the limit of core dumps")
    return f"its process may leave core dumps of {' to '.join(process.core_limits)} bytes"


_IN_PROCESS: Mapping[str, Callable[[Sequence[str], Process], str | Unread]] = {
    "NoNewPrivileges": _no_new_privileges, "CapabilityBoundingSet": _capabilities,
    "AmbientCapabilities": _ambient, "SystemCallFilter": _seccomp, "UMask": _umask,
    "LimitCORE": _core,
}  # fmt: skip
