# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Whether a program with a known hole serves requests: LLM servers by number, packages by apt."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.llmsec.hardening.plugins.module_utils.servers import (
    MALICIOUS_RELEASES,
    VERSION_FLOORS,
    VersionError,
    missed_floors,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.subjects import Finding, Subject
from ansible_collections.llmsec.hardening.plugins.module_utils.unread import Unread

__all__ = (
    "QUESTIONS", "Package", "Packages", "malicious_files", "packages_finding", "parse_answer",
    "parse_output", "parse_policy", "version_finding",
)  # fmt: skip

# Where each server listens by default, and where and under which name it says its version without
# a key. Ollama: server/routes.go; LocalAI: core/http/routes; LiteLLM: proxy/health_endpoints.
QUESTIONS: Mapping[str, tuple[str, str, str]] = {
    "ollama": ("127.0.0.1:11434", "/api/version", "version"),
    "localai": ("127.0.0.1:8080", "/version", "version"),
    "litellm": ("127.0.0.1:4000", "/health/readiness", "litellm_version"),
}
# What `ollama --version` and `litellm --version` print, with or without a running server.
_PRINTED = re.compile(r"version(?: is| =)?:? ?v?([0-9]+\.[0-9]+[0-9A-Za-z.+-]*)", re.IGNORECASE)
# What the malicious releases leave behind, which Python runs at every start.
_LEFT_BEHIND = "litellm_init.pth"

_MOST_DAYS = 7
_DAY = 86400


def parse_answer(server: str, body: bytes) -> str:
    """Return the version in a server's answer. Raises ValueError."""
    try:
        found = json.loads(body)[QUESTIONS[server][2]]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("its answer holds no version") from None
    # LocalAI puts the commit behind it in brackets.
    words = str(found).split()
    if not words:
        raise ValueError("its answer holds no version")
    return words[0]


def parse_output(output: str) -> str:
    """Return the version that a program printed. Raises ValueError."""
    found = _PRINTED.search(output)
    if found is None:
        raise ValueError("it prints no version")
    return found[1]


def malicious_files(paths: Sequence[str]) -> list[str]:
    """Return those of the paths that the malicious releases of LiteLLM leave behind."""
    return [path for path in paths if path.rpartition("/")[2] == _LEFT_BEHIND]


def version_finding(
    finding_id: str, server: str, version: str | Unread, left_behind: Sequence[str] = ()
) -> Finding:
    """Return whether a server has a version with known holes. `left_behind` are files found."""
    subject = Subject(
        finding_id, "versions", f"{server} has no known hole", "high",
        f"Install a newer release ({server}_version of the role {server}), or update the package.",
    )  # fmt: skip
    problems = [f"{path} is there" for path in malicious_files(left_behind)]
    if isinstance(version, Unread):
        if problems:
            return subject.judged(problems, expected="no trace of a malicious release", found="")
        return subject.not_measured(f"the version is not known: {version.why}")
    floors = VERSION_FLOORS.get(server, ())
    newest = floors[0].version if floors else "any"
    if version.removeprefix("v") in MALICIOUS_RELEASES.get(server, ()):
        problems.append(f"{version} is a malicious release")
    try:
        missed = missed_floors(floors, version)
    except VersionError as exc:
        return subject.not_measured(exc)
    problems += [f"{version} is below {each.version}: {', '.join(each.cves)}" for each in missed]
    return subject.judged(problems, expected=f"{newest} or newer", found=version)


# -- Packages --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Package:
    """A package as apt knows it. `installed` is "" when it is not.

    `newer` are the versions above the installed one, each with whether security support has it.
    """

    name: str
    installed: str
    candidate: str
    newer: tuple[tuple[str, bool], ...] = ()

    @property
    def pending(self) -> bool:
        return bool(self.installed) and self.candidate in dict(self.newer)

    @property
    def is_security(self) -> bool:
        return self.pending and any(secure for _version, secure in self.newer)


@dataclass(frozen=True, slots=True)
class Packages:
    """What apt says. `age` is that of its lists in seconds, None when there are no lists."""

    known: Mapping[str, Package] = field(default_factory=dict)
    age: float | None = None


def parse_policy(text: str) -> dict[str, Package]:
    """Return the packages in the output of `apt-cache policy NAME...` in the C locale."""
    found = {}
    # A block begins with its name at the edge.
    for block in re.split(r"^(?=\S)", text, flags=re.MULTILINE):
        name, colon, body = block.partition(":\n")
        facts = dict(re.findall(r"^  (Installed|Candidate): (.*)$", body, re.MULTILINE))
        if colon and len(facts) == 2:
            installed = facts["Installed"].replace("(none)", "")
            found[name] = Package(name, installed, facts["Candidate"], tuple(_newer(body)))
    return found


def _newer(body: str) -> list[tuple[str, bool]]:
    """Return the versions that the table lists before the installed one, which is marked ***."""
    newer: list[tuple[str, bool]] = []
    for line in body.partition("Version table:\n")[2].splitlines():
        if line.startswith(" *** "):
            return newer
        if re.match(r" {5}\S", line):
            newer.append((line.split()[0], False))
        elif newer and re.search(r"[-/]security[ /]", line):
            newer[-1] = (newer[-1][0], True)
    return []


def packages_finding(
    finding_id: str, title: str, names: Sequence[str], packages: Packages | Unread
) -> Finding:
    """Return whether apt has newer versions of packages, by its lists on the host.

    Lists that are old or not there are a skip: a host that never asked has nothing to judge by,
    and that it does not ask is no finding about these packages.
    """
    subject = Subject(
        finding_id, "versions", f"{title} has no update pending", "medium",
        "Install the distribution's updates: apt-get update && apt-get upgrade.",
    )  # fmt: skip
    if isinstance(packages, Unread):
        return subject.not_measured(packages.why)
    if packages.age is None:
        return subject.skipped("apt has no package lists on this host; run apt-get update")
    if packages.age > _MOST_DAYS * _DAY:
        days = int(packages.age / _DAY)
        return subject.skipped(f"apt's package lists are {days} days old; run apt-get update")
    known = [packages.known[name] for name in names if name in packages.known]
    installed = [each for each in known if each.installed]
    if not installed:
        return subject.skipped(f"{' and '.join(names)} did not come from a package")
    pending = sorted(
        (each for each in installed if each.pending), key=lambda each: not each.is_security
    )
    return subject.judged(
        [_pending(each) for each in pending], expected="the newest version in apt's lists",
        found=", ".join(f"{each.name} {each.installed}" for each in installed),
        severity="medium" if any(each.is_security for each in pending) else "low",
    )  # fmt: skip


def _pending(package: Package) -> str:
    kind = "security update" if package.is_security else "update"
    return f"{package.name} {package.installed}: {kind} to {package.candidate} is pending"
