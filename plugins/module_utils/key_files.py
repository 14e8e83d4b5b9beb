# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files with secrets on a hardened host: whose they are, and who may read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from ansible_collections.llmsec.hardening.plugins.module_utils.host_view import (
    FILE,
    FOLDER,
    Facts,
    HostView,
    differences,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.key_checks import Use, last_uses
from ansible_collections.llmsec.hardening.plugins.module_utils.subjects import Finding, Subject

__all__ = ("file_findings", "first_time", "last_use", "unix_time")

_HARDEN = "Run llmsec.hardening.harden."
_PERMISSIONS = Subject(
    "keys.permissions", "secrets_at_rest",
    "only root writes the registry, only the service reads it", "high", _HARDEN,
)  # fmt: skip
_CREDENTIALS = Subject(
    "keys.credentials", "secrets_at_rest",
    "peppers, passwords and seal keys are root's or the service's", "high",
    "Run llmsec.hardening.harden; a secret that others could read needs a new one.",
)  # fmt: skip
_PRIVATE = Subject(
    "keys.private_keys", "secrets_at_rest", "private keys can be read by root only", "high",
    "Run llmsec.hardening.harden, and issue the certificate anew (role pki).",
)  # fmt: skip
# More of a file need not be read to see whether it holds a private key.
_HEAD = 1 << 18
_MOST_FILES = 1000
# Lines of the audit log are shorter.
_LINE = 1 << 16
_STAMP = b'{"@timestamp":"'


def file_findings(
    host: HostView, registry: str, group: str, private: Sequence[str]
) -> list[Finding]:
    """Return who may read and write the registry, the credentials and the private keys."""
    folder = registry.rpartition("/")[0]
    return [
        _guarded(
            _PERMISSIONS, lambda: _registry_problems(host, registry, group), "root's, and tight"
        ),
        _guarded(_CREDENTIALS, lambda: _secret_problems(host, folder, group), "root's, and tight"),
        _guarded(_PRIVATE, lambda: _private_problems(host, private), "root's alone"),
    ]


def _guarded(subject: Subject, look: Callable[[], list[str]], found: str) -> Finding:
    try:
        problems = look()
    except OSError as error:
        return subject.not_measured(error)
    return subject.judged(problems, expected="root's, and nobody else's to read", found=found)


def _registry_problems(host: HostView, registry: str, group: str) -> list[str]:
    folder = registry.rpartition("/")[0]
    owner = f"root:{group}"
    problems = differences(host.facts(folder), folder, FOLDER, owner, 0o750)
    problems += differences(host.facts(registry), registry, FILE, owner, 0o640)
    config = f"{folder}/config.json"
    if host.facts(config) is not None:
        problems += differences(host.facts(config), config, FILE, owner, 0o640)
    return problems + list(_open_above(host, folder))


def _open_above(host: HostView, path: str) -> Iterator[str]:
    """Yield the folders above in which somebody else could put another one in its place."""
    while path := path.rpartition("/")[0]:
        facts = host.facts(path)
        if facts is not None and (facts.owner != "root" or facts.mode & 0o002):
            yield f"{path} can be written by others than root"


def _secret_problems(host: HostView, folder: str, user: str) -> list[str]:
    users = {
        f"{folder}/credentials": "root",
        # The service's own copies, and the key that it seals the audit log with
        f"/run/{user}": user,
        "/var/lib/llm-key-validator/audit": user,
    }
    problems: list[str] = []
    for place, owner in users.items():
        names = host.names(place) or ()
        for path in (place, *(f"{place}/{name}" for name in names)):
            facts = host.facts(path)
            if facts is not None:
                problems += _closed_problems(facts, path, FOLDER if path == place else FILE, owner)
    return problems


def _closed_problems(facts: Facts, path: str, kind: str, user: str) -> list[str]:
    """Return what is wrong with a secret; its group does not matter, for it has no rights."""
    mode = 0o700 if kind == FOLDER else 0o600
    allowed = facts.owner if facts.owner in (user, "root") else user
    return differences(facts, path, kind, f"{allowed}:{facts.group}", mode)


def _private_problems(host: HostView, places: Sequence[str]) -> list[str]:
    problems = []
    for path in _files_in(host, places):
        facts = host.facts(path)
        if facts is None or facts.kind != FILE:
            continue
        if b"PRIVATE KEY-----" not in (host.read(path, _HEAD) or b""):
            continue
        problems += _closed_problems(facts, path, FILE, "root")
    return problems


def _files_in(host: HostView, places: Sequence[str]) -> Iterator[str]:
    """Yield the files, and those in the folders, links followed once: nginx follows them too."""
    waiting, count = list(places), 0
    while waiting and count < _MOST_FILES:
        path = waiting.pop(0)
        count += 1
        facts = host.facts(path)
        if facts is None:
            continue
        if facts.target:
            target = facts.target
            waiting.append(target if target[0] == "/" else f"{path.rpartition('/')[0]}/{target}")
        elif facts.kind == FOLDER:
            waiting += [f"{path}/{name}" for name in host.names(path) or ()]
        else:
            yield path


def last_use(host: HostView, folder: str, most_bytes: int) -> Use | None:
    """Return whose records stand in the end of the audit log; None: there is no log.

    Raises OSError, and ValueError when it cannot be read.
    """
    names = [name for name in host.names(folder) or () if name.startswith("audit")]
    files = sorted((name for name in names if name.endswith(".jsonl")), key=_age)
    seen: frozenset[str] = frozenset()
    since = None
    for name in reversed(files):
        if most_bytes <= 0:
            break
        path = f"{folder}/{name}"
        facts = host.facts(path)
        size = facts.size if facts is not None else 0
        data = host.read(path, most_bytes, max(0, size - most_bytes)) or b""
        most_bytes -= len(data)
        since = first_time(data) or since
        seen |= last_uses(data)
    return None if since is None else Use(seen, since)


def _age(name: str) -> tuple[bool, str]:
    return (name == "audit.jsonl", name)


def first_time(data: bytes) -> float | None:
    """Return the Unix time of the first whole record in a piece of the log, None without one."""
    at = data.find(_STAMP, 0, _LINE)
    text = data[at + len(_STAMP) : at + len(_STAMP) + 26] if at >= 0 else b""
    return unix_time(text.decode("ascii", "replace") + "Z")


def unix_time(text: object) -> float | None:
    """Return a record's @timestamp as Unix time, None when it is none."""
    try:
        return datetime.fromisoformat(str(text)).timestamp()
    except ValueError:
        return None
