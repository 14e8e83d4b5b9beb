# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the next boot makes of our firewall: its unit, the program that it starts, its files."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import (
    KEPT,
    Backend,
    FirewallError,
    Machine,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.service_loopholes import (
    changed_lines,
    shown,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.subjects import Finding, Subject
from ansible_collections.llmsec.hardening.plugins.module_utils.systemd_units import (
    UnitError,
    parse_unit,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.unit_files import UnitFiles

__all__ = ("exposed", "files_finding", "policy_finding", "unit_finding")

_HARDEN = "Find out who changed it, then run llmsec.hardening.harden."
_CONTROL = "network_isolation"
_FILES = Subject(
    "firewall.files", _CONTROL, "what the next boot loads is root's, and as it was installed",
    "high", _HARDEN,
)  # fmt: skip
_POLICY = Subject(
    "firewall.policy", _CONTROL, "the rules kept for the next boot are the inventory's", "high",
    _HARDEN,
)  # fmt: skip
# What keeps the unit from loading the rules, or has it load others.
_DECIDES = re.compile(
    r"(?:Exec|Condition|Assert)[A-Z]|(?:BindsTo|Conflicts|Requires|Requisite|RootDirectory|"
    r"RootImage|Type|User|Environment|EnvironmentFile)\Z"
)


def unit_finding(machine: Machine, unit: str, text: str) -> Finding:
    """Return whether the unit loads the rules at boot. `text` is its file as installed, or ""."""
    subject = Subject(
        "firewall.unit", _CONTROL, f"{unit} loads the rules at boot", "high", _HARDEN
    )  # fmt: skip
    _status, output, _errors = machine.run(["systemctl", "is-enabled", "--", unit], "")
    state = output.strip() or "unknown"
    problems = [] if state == "enabled" else [state]
    if text:
        try:
            problems += _unit_problems(machine, unit, text)
        except (OSError, UnitError) as exc:
            return subject.not_measured(exc) if not problems else subject.judged(
                problems, expected="enabled", found=""
            )  # fmt: skip
    return subject.judged(problems, expected="enabled", found=state)


def _unit_problems(machine: Machine, unit: str, text: str) -> Iterator[str]:
    files = UnitFiles(unit, str(machine.path("/")).rstrip("/"))
    main = files.unit_file()
    if main is None:
        yield f"there is no {unit}"
        return
    found, wanted = parse_unit(files.read(main), main), parse_unit(text, "")
    if changed := changed_lines(main, found, wanted):
        yield changed
    for path in files.dropins(""):
        yield from (
            f"{shown(each)} from {path} (line {each.line})"
            for each in parse_unit(files.read(path), path)
            if _DECIDES.match(each.key)
        )


def files_finding(machine: Machine, backend: Backend, kept: Mapping[str, str]) -> Finding:
    """Return whether the program that loads the rules, and they, are root's and unchanged."""
    problems = []
    try:
        if kept and machine.read(f"{KEPT}/load") != backend.load:
            problems.append(f"{KEPT}/load was changed, or is gone")
        problems += exposed(machine, kept)
    except (OSError, UnicodeDecodeError) as exc:
        return _FILES.not_measured(exc)
    return _FILES.judged(problems, expected="root's, unchanged", found="unchanged")


def exposed(machine: Machine, kept: Mapping[str, str]) -> list[str]:
    """Return what others than root may change of what the next boot loads."""
    paths = (KEPT, *(f"{KEPT}/{name}" for name in ("load", *kept)))
    return [text for path in paths for text in _others_may_write(machine, path)]


def _others_may_write(machine: Machine, path: str) -> Iterator[str]:
    try:
        found = machine.path(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return
    if stat.S_ISLNK(found.st_mode):
        yield f"{path} is a symbolic link"
    elif found.st_uid != 0 or found.st_mode & 0o022:
        mode = stat.S_IMODE(found.st_mode)
        yield f"{path} belongs to user {found.st_uid} and has mode {mode:04o}"


def policy_finding(
    backend: Backend, kept: Mapping[str, str], wanted: Mapping[str, str]
) -> Finding:  # fmt: skip
    """Return whether the files kept hold the rules of the policy, `wanted` as files.

    One more allowed network changes nothing for the packets that are judged: these are few.
    """
    if not kept:
        return _POLICY.judged(["none are kept"], expected="the inventory's", found="")
    names = sorted(name for name in {*kept, *wanted} if kept.get(name) != wanted.get(name))
    if names:
        try:
            same = not {*wanted} - {*kept} and backend.listed(kept) == backend.listed(wanted)
        except FirewallError as exc:
            return _POLICY.not_measured(exc)
        names = [] if same else names
    return _POLICY.judged(
        [f"{KEPT}/{name} holds other rules" for name in names], expected="the inventory's",
        found="they are",
    )  # fmt: skip
