# SPDX-License-Identifier: GPL-3.0-or-later
"""The registry's file changes, breaks and vanishes; the last good one stays."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import threading
import typing as t
from collections import Counter
from pathlib import Path

import pytest
from llm_key_validator import store
from llm_key_validator.journal import Journal
from llm_key_validator.keys import generate_key
from llm_key_validator.metrics import Metrics
from llm_key_validator.registry import SLICE
from llm_key_validator.store import RegistryStore

from .conftest import NOW, record, registry_text


class Watched:
    """A store on a scratch file, with what it says and counts."""

    def __init__(self, path: Path, max_bytes: int = 10_000_000) -> None:
        self.path = path
        self.log: list[dict[str, t.Any]] = []
        self.metrics = Metrics()
        journal = Journal(lambda line: self.log.append(json.loads(line)), with_levels=False)
        self.store = RegistryStore(
            str(path), max_bytes, journal=journal, metrics=self.metrics, clock=lambda: NOW
        )

    def keys(self) -> int | None:
        return len(self.store.registry) if self.store.registry is not None else None

    def write(self, text: str) -> None:
        """Replace the file in one step, as the role does."""
        fresh = self.path.with_suffix(".new")
        fresh.write_text(text)
        os.replace(fresh, self.path)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    return Watched(tmp_path / "keys.json")


def entries(number: int) -> str:
    return registry_text(
        *({"id": f"k{one}", "sha256": f"{one:064x}", "owner": "x"} for one in range(number))
    )


def test_a_new_file_takes_effect_once(watched: Watched) -> None:
    async def run() -> None:
        watched.write(entries(1))
        await watched.store.refresh()
        assert (watched.keys(), watched.store.current) == (1, True)
        await watched.store.refresh()
        assert watched.metrics.reloads_ok == 1
        watched.write(entries(2))
        await watched.store.refresh()
        assert watched.keys() == 2
        await watched.store.refresh(force=True)
        assert watched.metrics.reloads_ok == 3
        assert watched.metrics.keys == 2
        assert watched.metrics.loaded_at == NOW

    asyncio.run(run())


@pytest.mark.parametrize("damage", ["broken", "missing", "binary", "folder", "fifo", "large"])
def test_a_file_that_cannot_be_used_changes_nothing(tmp_path: Path, damage: str) -> None:
    watched = Watched(tmp_path / "keys.json", max_bytes=1000)

    def spoil() -> None:
        watched.path.unlink()
        if damage == "broken":
            watched.path.write_text(registry_text(record(generate_key(), expires="soon")))
        elif damage == "binary":
            watched.path.write_bytes(b"\xff\xfe")
        elif damage == "folder":
            watched.path.mkdir()
        elif damage == "fifo":
            os.mkfifo(watched.path)
        elif damage == "large":
            watched.path.write_text(entries(100))

    async def run() -> None:
        watched.write(entries(2))
        await watched.store.refresh()
        before = watched.store.registry
        spoil()
        for _unused in range(3):
            await asyncio.wait_for(watched.store.refresh(), 5)
        assert watched.store.registry is before
        assert not watched.store.current
        assert watched.metrics.reloads_failed == 1
        assert watched.log[-1]["event"] == "registry_refused"
        assert watched.log[-1]["keys_in_use"] == 2
        if damage == "broken":
            assert watched.log[-1]["problem"].startswith("keys[0].expires: ")
        if damage == "folder":
            watched.path.rmdir()
        watched.write(entries(3))
        await watched.store.refresh()
        assert (watched.keys(), watched.store.current) == (3, True)

    asyncio.run(run())


def test_a_file_made_readable_is_tried_again(watched: Watched) -> None:
    """chmod changes no content and no mtime."""

    async def run() -> None:
        watched.path.write_text(entries(1))
        await watched.store.refresh()
        watched.path.chmod(0o640)
        await watched.store.refresh()
        assert watched.metrics.reloads_ok == 2

    asyncio.run(run())


def test_at_the_start_without_a_file(watched: Watched) -> None:
    async def run() -> None:
        await watched.store.refresh()
        assert watched.keys() is None
        assert watched.log[-1]["problem"] == "cannot be read: No such file or directory"
        watched.write(entries(1))
        await watched.store.refresh()
        assert watched.keys() == 1

    asyncio.run(run())


def test_a_reload_lets_others_run_in_between(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All that takes as long as there are keys: reading, parsing, forgetting the old ones."""
    readers: list[threading.Thread] = []

    def noted(path: str, max_bytes: int) -> store.RegistryText:
        readers.append(threading.current_thread())
        return store_read(path, max_bytes)

    store_read = store.read_registry
    monkeypatch.setattr(store, "read_registry", noted)

    async def run() -> None:
        watched.write(entries(4 * SLICE))
        await watched.store.refresh()
        watched.write(entries(5 * SLICE))
        turns: Counter[tuple[int | None, bool]] = Counter()

        async def count() -> None:
            while True:
                turns[watched.keys(), gc.isenabled()] += 1
                await asyncio.sleep(0)

        counter = asyncio.create_task(count())
        await watched.store.refresh()
        counter.cancel()
        assert watched.keys() == 5 * SLICE
        assert turns[4 * SLICE, False] >= 5, "parsed in too large slices, or with garbage collected"
        # Two tables: by digest and by id
        assert turns[5 * SLICE, True] >= 2 * 4, "the old keys were forgotten in too large slices"

    asyncio.run(run())
    assert len(readers) == 2
    assert threading.main_thread() not in readers


def test_two_reloads_at_once_end_with_the_newest(watched: Watched) -> None:
    async def run() -> None:
        watched.write(entries(3 * SLICE))
        first = asyncio.create_task(watched.store.refresh())
        await asyncio.sleep(0)
        watched.write(entries(7))
        await asyncio.gather(first, watched.store.refresh(force=True))
        assert watched.keys() == 7

    asyncio.run(run())
