# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's file: watch it, load it, keep the last good one.

A new file takes effect whole or not at all. One that is broken, missing or unreadable is
refused, logged with the reason and counted once; the registry in use stays.
"""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass

from .journal import Journal, Level
from .metrics import Metrics
from .registry import Registry, RegistryError, load_in_slices

# What a change of the file shows in. ctime too: a chmod can make a file readable again.
Signature = tuple[int, int, int, int] | str


@dataclass(frozen=True, slots=True)
class RegistryText:
    """The file's content as it was read."""

    text: str
    sha256: str


def signature_of(path: str) -> Signature:
    """Return what identifies the file's present content, or why it cannot be seen."""
    try:
        status = os.stat(path)
    except OSError as error:
        return os.strerror(error.errno or 0)
    return (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_size)


def read_registry(path: str, max_bytes: int) -> RegistryText:
    """Read the file. Raises RegistryError when that is not possible."""
    try:
        # Without O_NONBLOCK, a FIFO in the file's place would hang the service.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise RegistryError("is not a regular file")
            content = file.read(max_bytes + 1)
    except OSError as error:
        raise RegistryError(f"cannot be read: {os.strerror(error.errno or 0)}") from None
    if len(content) > max_bytes:
        raise RegistryError(f"is larger than {max_bytes} bytes")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise RegistryError("is not UTF-8 text") from None
    return RegistryText(text, hashlib.sha256(content).hexdigest())


class RegistryStore:
    """Holds the registry in use. ``registry`` is None until a good one was loaded."""

    def __init__(
        self,
        path: str,
        max_bytes: int,
        *,
        journal: Journal,
        metrics: Metrics,
        clock: Callable[[], float],
    ) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._journal = journal
        self._metrics = metrics
        self._clock = clock
        self._tried: Signature | None = None
        self._loading = asyncio.Lock()
        self.registry: Registry | None = None
        # False while the file on disk is not the registry in use
        self.current = False

    async def refresh(self, *, force: bool = False) -> None:
        """Load the file if it changed since the last try, or in any case with ``force``.

        Loads in slices and in a thread: requests are answered meanwhile, by the old registry.
        """
        async with self._loading:
            # Taken before reading: a change during the load shows up at the next look.
            signature = signature_of(self._path)
            if signature == self._tried and not force:
                return
            self._tried = signature
            try:
                content = await asyncio.to_thread(read_registry, self._path, self._max_bytes)
                registry = await self._parse(content.text)
            except RegistryError as error:
                self._refuse(str(error))
                return
            old = self.registry
            self._accept(registry, content.sha256)
            for _unused in old.dismantle() if old is not None else ():
                await asyncio.sleep(0)

    async def _parse(self, text: str) -> Registry:
        loader = load_in_slices(text)
        # The records live long and form no cycles: looking through them for garbage, again and
        # again while their number grows, would be the longest pauses of all.
        gc.disable()
        try:
            while True:
                try:
                    next(loader)
                except StopIteration as end:
                    return end.value
                await asyncio.sleep(0)
        finally:
            gc.freeze()
            gc.enable()

    def _accept(self, registry: Registry, sha256: str) -> None:
        self.registry, self.current = registry, True
        self._metrics.reloads_ok += 1
        self._metrics.keys = len(registry)
        self._metrics.loaded_at = self._clock()
        self._metrics.registry_sha256 = sha256
        self._journal.say(Level.INFO, "registry_loaded", keys=len(registry))

    def _refuse(self, problem: str) -> None:
        self.current = False
        self._metrics.reloads_failed += 1
        in_use = len(self.registry) if self.registry is not None else 0
        self._journal.say(
            Level.ERROR,
            "registry_refused",
            path=self._path,
            problem=problem,
            keys_in_use=in_use,
        )
