# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What opens a sandbox without taking a directive of it back: mounts, groups, full rights.

A unit may hold everything that confines it and still bind the host's root back in, or run a
command past all of it. What is named here has no business in a confined service. Pure.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils.systemd_units import (
    Assignment,
    UnitError,
    Variable,
    in_force,
    split_words,
)

__all__ = (
    "POWERFUL_GROUPS",
    "PRELOADS",
    "changed_lines",
    "loopholes",
    "powerful",
    "preloads",
    "program",
    "shown",
)

# Groups whose members are as good as root, or read what is not theirs: the container engines'
# sockets, raw disks, everybody's logs and password hashes.
POWERFUL_GROUPS = frozenset(
    {
        "root", "0", "adm", "disk", "docker", "incus", "incus-admin", "kmem", "libvirt", "lxd",
        "podman", "shadow", "sudo", "systemd-journal", "wheel",
    }
)  # fmt: skip
# What the loader takes code from, ld.so(8) and iconv_open(3). LD_LIBRARY_PATH is not among them:
# GPU libraries are found by it.
PRELOADS = ("LD_PRELOAD", "LD_AUDIT", "GCONV_PATH")

# systemd.exec(5), systemd.resource-control(5): other files, namespaces, sockets or rights.
_LEADS_OUT = (
    "BindPaths", "BindReadOnlyPaths", "Delegate", "ExtensionDirectories", "ExtensionImages",
    "ImportCredential", "IPCNamespacePath", "LoadCredential", "LoadCredentialEncrypted",
    "MountImages", "NetworkNamespacePath", "OpenFile", "PAMName", "PermissionsStartOnly",
    "RootDirectory", "RootDirectoryStartOnly", "RootImage", "SecureBits", "SocketBindAllow",
)  # fmt: skip
_SINGLE = ("Delegate", "PermissionsStartOnly", "RootDirectoryStartOnly")
_GROUPS = ("Group", "SupplementaryGroups")
_COMMANDS = (
    "ExecCondition", "ExecReload", "ExecStart", "ExecStartPost", "ExecStartPre", "ExecStop",
    "ExecStopPost",
)  # fmt: skip
_NO = ("no", "false", "off", "0", "n", "f")


def loopholes(
    assignments: Sequence[Assignment], compared: Collection[str], promised: Collection[Assignment]
) -> list[str]:
    """Return what leads out of the sandbox of a service, with file and line.

    `compared` are directives that are held against their wanted value elsewhere, `promised` are
    the lines of the unit file as it was installed.
    """
    known = {(each.key, each.value) for each in promised}
    return [
        f"{each.key}={each.value} from {each.path} (line {each.line})"
        for each in _suspects(assignments, compared)
        if (each.key, each.value) not in known
    ]


def _suspects(
    assignments: Sequence[Assignment], compared: Collection[str]
) -> Iterator[Assignment]:  # fmt: skip
    for key in _LEADS_OUT:
        if key not in compared:
            found = in_force(assignments, "Service", key, is_list=key not in _SINGLE)
            yield from (each for each in found if each.value.lower() not in _NO)
    for key in _GROUPS:
        found = in_force(assignments, "Service", key)
        yield from (each for each in found if powerful(each.value.split()))
    for key in _COMMANDS:
        found = in_force(assignments, "Service", key)
        yield from (each for each in found if _full_rights(each.value))
    yield from in_force(assignments, "Unit", "JoinsNamespaceOf", is_list=True)


def _full_rights(command: str) -> bool:
    """Tell whether a command runs with full rights, systemd.service(5) "COMMAND LINES"."""
    prefix = command[: len(command) - len(command.lstrip("@-:+!|"))]
    return "+" in prefix or "!" in prefix


def powerful(groups: Iterable[str]) -> list[str]:
    """Return those of the groups that make their members powerful."""
    return sorted(POWERFUL_GROUPS.intersection(groups))


def shown(assignment: Assignment) -> str:
    """Return a line of a unit file, without the values of variables: they may be secrets."""
    value = assignment.value
    if assignment.key in ("Environment", "SetCredential"):
        value = f"{re.split(r'[=:]', value)[0]}..."
    return f"{assignment.key}={value}"


def changed_lines(path: str, found: Sequence[Assignment], promised: Sequence[Assignment]) -> str:
    """Return how a unit file differs from what was installed, "" when it does not."""
    left = [(each.section, each.key, each.value) for each in found]
    right = [(each.section, each.key, each.value) for each in promised]
    for each in found:
        if (each.section, each.key, each.value) not in right:
            return f"{path} was changed: {shown(each)} (line {each.line})"
    for each in promised:
        if (each.section, each.key, each.value) not in left:
            return f"{path} was changed: {shown(each)} is gone from [{each.section}]"
    return "" if left == right else f"{path} was changed: its lines are in another order"


def program(
    assignments: Sequence[Assignment],
    name: str,
    words: Sequence[str],
    command: Sequence[str] | None,
) -> list[str]:
    """Return what is wrong with what a server's unit starts.

    `name` is its program and `words` are what stands behind that; `command` is the process's
    command line, None where there is no process.
    """
    problems = []
    found = in_force(assignments, "Service", "ExecStart")
    for each in found:
        place = f"from {each.path} (line {each.line})"
        try:
            first, *rest = split_words(each.value)
        except (UnitError, ValueError):
            problems.append(f"ExecStart={each.value} {place}")
            continue
        if posixpath.basename(first.lstrip("@-:+!|")) != name or tuple(rest) != tuple(words):
            problems.append(f"ExecStart={each.value} {place}")
    # Of a script the interpreter comes first.
    if command is not None and name not in map(posixpath.basename, command[:2]):
        # What follows may be secret.
        said = " ".join(command[:2])[:200]
        problems.append(f"its process is {said or 'without a command line'}")
    return problems


def preloads(
    variables: Mapping[str, Variable], environment: Collection[str]
) -> list[str]:  # fmt: skip
    """Return what is loaded into a service before its own code."""
    problems = [
        f"{name} from {variables[name].path} (line {variables[name].line})"
        for name in PRELOADS
        if name in variables
    ]
    return problems + [f"its process runs with {name}" for name in PRELOADS if name in environment]
