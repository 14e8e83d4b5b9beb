# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where API keys lie in plain text: in files, and in the words and variables of processes.

Only what has a key's shape and its checksum counts (`api_keys`), so that there are no false alarms.
A key is never repeated: it is shown by its id, or by the beginning of its digest.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import NamedTuple

from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import (
    KEY_LENGTH,
    is_well_formed,
    key_digest,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.host_view import HostView

__all__ = ("SEARCH_PATHS", "Budget", "Hit", "Search", "describe", "keys_in", "search")

# A glob each. A folder is searched with all that is in it, unless a wildcard ends its name. What is
# small and likely comes first: the search ends when its time is up, and a model or a disk image in
# the last ones takes all of it.
SEARCH_PATHS = (
    "/etc/llm-key-validator", "/etc/nginx", "/etc/llm-gateway", "/etc/systemd/system",
    "/etc/default", "/etc/environment", "/etc/profile", "/etc/profile.d", "/etc/cron.d",
    "/etc/crontab", "/var/spool/cron", "/usr/local/lib/systemd", "/usr/lib/systemd/system",
    "/root/.*", "/root/*", "/root/.config", "/home/*/.*", "/home/*/*", "/home/*/.config",
    "/opt/*.env", "/opt/.env", "/opt/*/.env", "/opt/*/*.env", "/opt/*/*.y*ml", "/opt/*/*.json",
    "/srv/*.env", "/srv/*/.env", "/srv/*/*.env", "/usr/local/etc", "/etc",
    "/var/lib/docker/containers/*/*.json",
    "/tmp", "/var/tmp", "/run", "/var/log",  # noqa: S108 - they are read, not written
    "/opt/*", "/opt/*/*", "/srv/*", "/srv/*/*", "/var/www/*", "/var/www/*/*", "/usr/local/bin/*",
    "/root/*/*", "/home/*/*/*", "/opt/*/*/*", "/srv/*/*/*",
)  # fmt: skip

_DIGEST = re.compile(rb"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")
_BLOCK = 1 << 20
# So much of one block is seen again with the next: no key and no digest is cut in two.
_OVERLAP = 128
_MOST_HITS = 200


class Hit(NamedTuple):
    """A key in plain text. `line` is 0 where there are none; `digest` is its SHA-256."""

    place: str
    line: int
    digest: str


@dataclass
class Budget:
    """How much may be read (bytes), and until when (`clock`, seconds)."""

    bytes_left: int
    deadline: float
    clock: Callable[[], float] = time.monotonic

    def spent(self) -> str:
        """Return why nothing more may be read, empty while it may."""
        if self.bytes_left <= 0:
            return "max_bytes were read"
        return "max_seconds were over" if self.clock() >= self.deadline else ""


@dataclass
class Search:
    """What was found, and how far the search came."""

    hits: list[Hit] = field(default_factory=list)
    # World-readable files that hold digests of registered keys
    copies: list[str] = field(default_factory=list)
    # Why it ended early; empty: it did not
    ended: str = ""
    files: int = 0
    unreadable: list[str] = field(default_factory=list)


def keys_in(data: bytes) -> Iterator[tuple[int, str]]:
    """Yield (offset, key) of each key in plain text."""
    at = data.find(b"llmk_")
    while at >= 0:
        text = data[at : at + KEY_LENGTH]
        if is_well_formed(text):
            yield at, text.decode("ascii")
        at = data.find(b"llmk_", at + 1)


def search(
    host: HostView, patterns: Iterable[str], digests: Iterable[str], budget: Budget
) -> Search:
    """Look for keys in files and processes, and for copies of the registry with these digests."""
    return _Searcher(host, frozenset(digests), budget).run(patterns)


class _Searcher:
    def __init__(self, host: HostView, digests: frozenset[str], budget: Budget) -> None:
        self._host = host
        self._digests = digests
        self._budget = budget
        self._seen: set[tuple[int, int]] = set()
        self._found: dict[Hit, None] = {}
        self._result = Search()

    def run(self, patterns: Iterable[str]) -> Search:
        # First the processes: a few kilobytes each.
        steps: list[Iterator[None]] = [self._processes(), self._all_files(patterns)]
        for _unused in (one for step in steps for one in step):
            if self._budget.spent() or len(self._found) >= _MOST_HITS:
                break
        self._result.ended = self._budget.spent()
        self._result.hits = list(self._found)
        return self._result

    def _processes(self) -> Iterator[None]:
        for process in self._host.processes():
            words = "\0".join(process.command).encode("utf-8", "replace")
            for what, data in (("command", words), ("environment", process.environment)):
                self._budget.bytes_left -= len(data)
                for _offset, key in keys_in(data):
                    place = f"{what} of process {process.name} ({process.pid})"
                    self._found[Hit(place, 0, key_digest(key))] = None
            yield

    def _all_files(self, patterns: Iterable[str]) -> Iterator[None]:
        root = glob.escape(self._host.root)
        for pattern in patterns:
            for place in sorted(glob.glob(root + pattern, include_hidden=True)):
                yield from self._entry(place, deep=not glob.has_magic(os.path.basename(pattern)))

    def _entry(self, place: str, *, deep: bool) -> Iterator[None]:
        with suppress(OSError):
            status = os.lstat(place)
            if stat.S_ISREG(status.st_mode):
                yield from self._file(place, status)
            elif stat.S_ISDIR(status.st_mode) and deep:
                yield from self._tree(place)

    def _tree(self, top: str) -> Iterator[None]:
        for folder, folders, names in os.walk(top, onerror=self._closed):
            folders.sort()
            files = []
            for name in names:
                with suppress(OSError):
                    place = os.path.join(folder, name)
                    status = os.lstat(place)
                    if stat.S_ISREG(status.st_mode):
                        files.append((-status.st_mtime, place, status))
            for _age, place, status in sorted(files, key=lambda one: one[:2]):
                yield from self._file(place, status)

    def _closed(self, error: OSError) -> None:
        # Not even root may look into other users' FUSE mounts, which lie below /run/user.
        if isinstance(error, PermissionError) and os.geteuid() != 0:
            self._result.unreadable.append(self._shown(str(error.filename)))

    def _shown(self, place: str) -> str:
        return place.removeprefix(self._host.root)

    def _file(self, place: str, status: os.stat_result) -> Iterator[None]:
        identity = (status.st_dev, status.st_ino)
        if identity in self._seen:
            return
        self._seen.add(identity)
        self._result.files += 1
        try:
            yield from self._contents(place, status)
        except PermissionError:
            if os.geteuid() != 0:
                self._result.unreadable.append(self._shown(place))
        except (OSError, zlib.error):
            # Gone, or torn: what could be read of it was.
            return

    def _contents(self, place: str, status: os.stat_result) -> Iterator[None]:
        public = bool(status.st_mode & stat.S_IROTH) and self._digests
        line, kept = 1, b""
        for block in _blocks(place):
            self._budget.bytes_left -= len(block)
            data = kept + block
            for offset, key in keys_in(data):
                number = line + data.count(b"\n", 0, offset)
                self._found[Hit(self._shown(place), number, key_digest(key))] = None
            if public and self._holds_digest(data) and _is_reachable(place):
                self._result.copies.append(self._shown(place))
                public = False
            kept = data[-_OVERLAP:]
            line += data.count(b"\n", 0, len(data) - len(kept))
            yield

    def _holds_digest(self, data: bytes) -> bool:
        if b"sha256" not in data:
            return False
        return any(one[0].decode() in self._digests for one in _DIGEST.finditer(data))


def _is_reachable(place: str) -> bool:
    """Tell whether every folder above lets other users through."""
    above = os.path.dirname(place)
    while above not in ("/", ""):
        if not os.stat(above).st_mode & stat.S_IXOTH:
            return False
        above = os.path.dirname(above)
    return True


def _blocks(place: str) -> Iterator[bytes]:
    """Yield a file's content block by block; of gzip, which logrotate uses, what is inside."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(place, flags), "rb") as file:
        if not place.endswith(".gz"):
            while block := file.read(_BLOCK):
                yield block
            return
        unpack = zlib.decompressobj(wbits=31)
        while (block := unpack.unconsumed_tail or file.read(_BLOCK)) and not unpack.eof:
            yield unpack.decompress(block, _BLOCK)
        yield unpack.flush()


def describe(hits: Sequence[Hit], ids: Mapping[str, str]) -> list[str]:
    """Return one line for each hit; `ids` are the registered keys' by their digest."""
    lines = []
    for hit in hits:
        place = f"{hit.place}:{hit.line}" if hit.line else hit.place
        known = ids.get(hit.digest)
        lines.append(f"{place}: key {known}" if known else f"{place}: SHA-256 {hit.digest[:8]}...")
    return lines
