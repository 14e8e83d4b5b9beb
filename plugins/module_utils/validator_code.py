# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Is the key validator that answers the one that was installed? Its code, interpreter and process.

A validator that says yes to everybody passes every other check, so its files are held against the
digests that the control node knows.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils.host_view import (
    FILE,
    FOLDER,
    Facts,
    HostView,
    differences,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.subjects import Finding, Subject
from ansible_collections.llmsec.hardening.plugins.module_utils.validator_service import Service

__all__ = (
    "code_finding", "force_finding", "interpreter_finding", "process_finding", "verifier_finding",
)  # fmt: skip

_HARDEN = "Find out who changed it, then run llmsec.hardening.harden and issue new keys."
_CODE = Subject(
    "audit_log.code", "authentication", "the key validator's code is the collection's", "critical",
    _HARDEN,
)  # fmt: skip
_PROCESS = Subject(
    "audit_log.process", "authentication", "what runs as the key validator is its code", "critical",
    _HARDEN,
)  # fmt: skip
_INTERPRETER = Subject(
    "audit_log.interpreter", "authentication", "nothing else runs in the service's Python", "high",
    "Remove what is named; it runs inside the key validator, past its code.",
)  # fmt: skip
_FORCE = Subject(
    "audit_log.in_force", "authentication", "the service runs with its present code and settings",
    "high", "systemctl restart llm-key-validator, and find out what it ran with until then.",
)  # fmt: skip
_VERIFIER = Subject(
    "audit_log.verifier", "audit_log", "llm-audit is the collection's", "high", _HARDEN
)
_MOST_CODE = 1 << 22
_MOST_FILES = 2000
# A file may be as old as the process to within this (seconds): both times are rounded.
_ROUNDING = 2.0
# Python reads these at its start (the site module), -I or not; the rest would come before the
# distribution's packages.
_SITES = (
    "/usr/lib/python3", "/usr/lib/python3/dist-packages", "/usr/local/lib/python3/dist-packages",
)  # fmt: skip
_SHADOWS = ("uvloop", "httptools", "redis")
# Also as packages, or as bytecode alone
_CUSTOM = ("sitecustomize", "usercustomize")
_VERSION = re.compile(r"python3\.[0-9]+")
_RUNS = re.compile(rb"^import[ \t]", re.MULTILINE)
_PRELOAD = "/etc/ld.so.preload"
_FORBIDDEN = ("LD_", "PYTHON", "GLIBC_TUNABLES=", "GCONV_PATH=")


def code_finding(host: HostView, folder: str, expected: Mapping[str, str] | None) -> Finding:
    """Return whether the folder holds exactly these files, by path and SHA-256."""
    try:
        found = dict(_tree(host, folder))
        loose = list(_loose(host, folder, found))
    except OSError as error:
        return _CODE.not_measured(error)
    if not expected:
        return _CODE.skipped("what the code should be (code) was not given")
    problems = [f"{folder}/{name}: is missing" for name in expected if name not in found]
    for name, digest in found.items():
        if name not in expected:
            problems.append(f"{folder}/{name}: does not belong there")
        elif digest != expected[name]:
            problems.append(f"{folder}/{name}: was changed")
    return _CODE.judged(
        problems + loose, expected=f"{len(expected)} files, unchanged", found=f"{len(found)} files"
    )


def _tree(host: HostView, folder: str) -> Iterator[tuple[str, str]]:
    """Yield relative path and SHA-256 of each file, or what else stands there."""
    waiting = [""]
    for _count in range(_MOST_FILES):
        if not waiting:
            return
        name = waiting.pop()
        path = f"{folder}/{name}".rstrip("/")
        facts = host.facts(path)
        if facts is None:
            return
        if facts.kind == FOLDER:
            # Bytecode is read in place of the text beside it.
            waiting += [f"{name}/{one}".lstrip("/") for one in host.names(path) or ()]
        elif facts.kind == FILE:
            content = host.read(path, _MOST_CODE) or b""
            yield name, hashlib.sha256(content).hexdigest()
        else:
            yield name, facts.kind


def _loose(host: HostView, folder: str, names: Iterable[str]) -> Iterator[str]:
    """Yield what somebody else than root could change."""
    folders = {folder, *(f"{folder}/{name}".rpartition("/")[0] for name in names)}
    for path, kind in (*((one, FOLDER) for one in sorted(folders)), *_files(folder, names)):
        facts = host.facts(path)
        if facts is not None and facts.kind == kind:
            yield from differences(facts, path, kind, "root:root", 0o755)


def _files(folder: str, names: Iterable[str]) -> Iterator[tuple[str, str]]:
    return ((f"{folder}/{name}", FILE) for name in sorted(names))


def verifier_finding(host: HostView, path: str, sha256: str) -> Finding:
    """Return whether the command is what it should be, and finds the right package."""
    beside = f"{path.rpartition('/')[0]}/llm_key_validator"
    try:
        facts = host.facts(path)
        problems = differences(facts, path, FILE, "root:root", 0o755)
        if host.facts(beside) is not None:
            problems.append(f"{beside}: llm-audit would use this in place of the installed code")
        content = host.read(path, _MOST_CODE) if facts and facts.kind == FILE else None
    except OSError as error:
        return _VERIFIER.not_measured(error)
    if sha256 and content is not None and hashlib.sha256(content).hexdigest() != sha256:
        problems.append(f"{path}: was changed")
    if not problems and not sha256:
        return _VERIFIER.skipped("what it should be (verifier_sha256) was not given")
    return _VERIFIER.judged(problems, expected="root's, unchanged", found="unchanged")


def interpreter_finding(host: HostView) -> Finding:
    """Return whether something runs at the start of every Python, or is preloaded."""
    try:
        problems = [path for path in _hooks(host) if not _is_packaged(host, path)]
        problems += list(_shadows(host))
        if host.facts(_PRELOAD) is not None and (host.read(_PRELOAD, _MOST_CODE) or b"").strip():
            problems.append(f"{_PRELOAD}: is loaded into every program")
    except OSError as error:
        return _INTERPRETER.not_measured(error)
    return _INTERPRETER.judged(
        [one if ": " in one else f"{one}: runs in every Python" for one in problems],
        expected="what the distribution's packages bring only", found="nothing else",
    )  # fmt: skip


def _sites(host: HostView) -> list[str]:
    sites = set(_SITES)
    for above in ("/usr/lib", "/usr/local/lib"):
        for name in host.names(above) or ():
            if _VERSION.fullmatch(name):
                sites |= {f"{above}/{name}", f"{above}/{name}/dist-packages"}
                sites.add(f"{above}/{name}/site-packages")
    return sorted(sites)


def _hooks(host: HostView) -> Iterator[str]:
    for site in _sites(host):
        for name in host.names(site) or ():
            path = f"{site}/{name}"
            # Lines of other kinds only add folders, behind all others.
            runs = path.endswith(".pth") and _RUNS.search(_content(host, path) or b"")
            if name.partition(".")[0] in _CUSTOM or runs:
                yield path


def _shadows(host: HostView) -> Iterator[str]:
    for site in _sites(host):
        if site.startswith("/usr/local/"):
            for name in host.names(site) or ():
                if name.partition(".")[0] in _SHADOWS:
                    yield f"{site}/{name}: is used in place of the distribution's package"


def _content(host: HostView, path: str) -> bytes | None:
    """Return what Python reads there: it follows links."""
    for _step in range(8):
        facts = host.facts(path)
        if facts is None or facts.kind == FOLDER:
            return None
        if not facts.target:
            return host.read(path, _MOST_CODE)
        above = path.rpartition("/")[0]
        path = facts.target if facts.target[0] == "/" else f"{above}/{facts.target}"
    return None


def _is_packaged(host: HostView, path: str) -> bool:
    """Tell whether a file is as its Debian package brought it: dpkg's lists of MD5 sums."""
    content = _content(host, path)
    if content is None:
        return False
    md5 = hashlib.md5(content, usedforsecurity=False).hexdigest().encode()
    facts = host.facts(path)
    target = facts.target if facts is not None else ""
    # Conffiles stand in the status file.
    if target.startswith("/etc/") or path.startswith("/etc/"):
        status = host.read("/var/lib/dpkg/status", 1 << 28) or b""
        return b" %b %b\n" % ((target or path).encode(), md5) in status
    line = b"%b  %b\n" % (md5, path[1:].encode())
    lists = (one for one in host.names("/var/lib/dpkg/info") or () if one.endswith(".md5sums"))
    return any(line in (host.read(f"/var/lib/dpkg/info/{one}", 1 << 26) or b"") for one in lists)


def process_finding(service: Service | Exception | None, folder: str, config: str) -> Finding:
    """Return whether the unit's process was started as the role's unit starts it."""
    if isinstance(service, Exception):
        return _PROCESS.not_measured(service)
    if service is None:
        return _PROCESS.not_measured("the service does not run")
    process = service.process
    wanted = ("-I", "-B", folder, "--config", config)
    problems = []
    if process.command[1:] != wanted:
        problems.append(f"its command is {' '.join(process.command)}")
    program = process.program.removesuffix(" (deleted)")
    if re.fullmatch(r"/usr/bin/python3(\.[0-9]+)?", program) is None:
        problems.append(f"its program is {program}")
    for variable in process.environment.decode("utf-8", "replace").split("\0"):
        if variable.startswith(_FORBIDDEN):
            problems.append(f"the variable {variable.partition('=')[0]} is set")
    expected = f"/usr/bin/python3 {' '.join(wanted)}"
    return _PROCESS.judged(problems, expected=expected, found="this command")


def force_finding(
    service: Service | Exception | None, host: HostView, places: Sequence[str]
) -> Finding:
    """Return whether code and settings (paths) are older than the process."""
    if not isinstance(service, Service):
        return _FORCE.not_measured(service or "the service does not run")
    started = service.process.started
    late = []
    try:
        for path, facts in _all_below(host, places):
            if facts.changed > started + _ROUNDING:
                late.append(f"{path}: was changed after the service started")
    except OSError as error:
        return _FORCE.not_measured(error)
    return _FORCE.judged(late, expected="older than the process", found="older")


def _all_below(host: HostView, places: Sequence[str]) -> Iterator[tuple[str, Facts]]:
    waiting = list(places)
    for _count in range(_MOST_FILES):
        if not waiting:
            return
        path = waiting.pop()
        facts = host.facts(path)
        if facts is not None:
            yield path, facts
            if facts.kind == FOLDER:
                waiting += [f"{path}/{name}" for name in host.names(path) or ()]
