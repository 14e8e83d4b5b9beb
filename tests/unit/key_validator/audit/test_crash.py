# SPDX-License-Identifier: GPL-3.0-or-later
"""Killed at any call, cut at any byte, without power, on a disk that fails anywhere: what was
acknowledged is there, and the log verifies."""

from __future__ import annotations

import errno
import json
import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from llm_key_validator.audit.seals import parse_key

from .twin import ACTIVE, LOGS, STATE, Crash, Desk, judged


def life(desk: Desk) -> None:
    """A bit of everything: batches, seals by number and time, rotations, removals, an end."""
    desk.log.open()
    for turn in range(4):
        desk.append(f"{turn}a", f"{turn}b")
        desk.second()
        if turn in (1, 2):
            desk.log.rotate()
    desk.log.close()


SETTINGS: dict[str, t.Any] = {"seal_records": 5, "seal_seconds": 3}


def lived(*, fsync: bool) -> Desk:
    desk = Desk(fsync=fsync, **SETTINGS)
    life(desk)
    return desk


def acknowledged(desk: Desk) -> set[str]:
    return {name for name, taken in desk.answers.items() if taken}


def epochs(desk: Desk) -> list[int]:
    return [one["llm.audit.seal.epoch"] for one in desk.records() if "llm.audit.seal.mac" in one]


def check_after(desk: Desk, folder: Path, *, fsync: bool) -> None:
    """A new process takes the disk up: nothing acknowledged is lost, all is whole and sealed."""
    before = acknowledged(desk)
    desk = Desk(desk.memory, fsync=fsync, **SETTINGS)
    desk.log.open()
    desk.append("after")
    desk.log.close()
    assert desk.answers == {"after": True}
    assert before | {"after"} <= set(desk.names())
    assert len(set(desk.names())) == len(desk.names())
    result, wrong = judged(desk.memory, folder)
    assert wrong == []
    assert result.verdict == "whole"
    assert epochs(desk) == list(range(len(epochs(desk))))
    key = parse_key(bytes(desk.memory.paths[f"{STATE}/seal.json"].data))
    assert key.epoch == len(epochs(desk))


def at_each_call(
    fsync: bool, torn: int, fault: Callable[[], BaseException]
) -> t.Iterator[tuple[Desk, Callable[[], None]]]:
    """Yield a log on a disk with a fault at each call in turn, and its life."""
    calls = len(lived(fsync=fsync).memory.calls)
    assert calls > 80
    for at in range(calls):
        desk = Desk(fsync=fsync, **SETTINGS)
        desk.memory.torn = torn
        desk.memory.fault = lambda number, _name, at=at: fault() if number == at else None
        yield desk, lambda desk=desk: life(desk)


@pytest.mark.parametrize("torn", [0, 1, 250, 400, 10_000])
@pytest.mark.parametrize("fsync", [False, True])
def test_killed_at_any_call(tmp_path: Path, fsync: bool, torn: int) -> None:
    """`torn`: so many bytes of a write were written when it came; 10,000: all of them."""
    for desk, live in at_each_call(fsync, torn, Crash):
        with pytest.raises(Crash):
            live()
        desk.memory.restart()
        check_after(desk, tmp_path, fsync=fsync)


@pytest.mark.parametrize("calls_later", range(0, 16, 3))
def test_killed_again_while_repairing(tmp_path: Path, calls_later: int) -> None:
    crashes = 0
    for desk, live in at_each_call(False, 250, Crash):
        with pytest.raises(Crash):
            live()
        desk.memory.restart()
        desk.memory.fault = lambda number, _name: Crash() if number == calls_later else None
        try:
            Desk(desk.memory, **SETTINGS).log.open()
        except Crash:
            crashes += 1
        desk.memory.restart()
        check_after(desk, tmp_path, fsync=False)
    assert crashes > 5


@pytest.mark.parametrize("torn", [0, 250, 10_000])
def test_power_lost_at_any_call(tmp_path: Path, torn: int) -> None:
    """With fsync, what was acknowledged is on the disk, though nothing else may be."""
    for desk, live in at_each_call(True, torn, Crash):
        with pytest.raises(Crash):
            live()
        desk.memory.restart(power_lost=True)
        check_after(desk, tmp_path, fsync=True)


def test_power_lost_after_a_crash_during_a_rotation(tmp_path: Path) -> None:
    """The one who made the names was killed before they were durable: the next one sees to it."""
    desk = Desk(fsync=True, at_once=False)
    desk.log.open()
    desk.append("a")
    desk.run_jobs()
    desk.log.rotate()
    desk.memory.restart()
    desk = Desk(desk.memory, fsync=True)
    desk.log.open()
    desk.append("b")
    desk.memory.restart(power_lost=True)
    assert desk.names() == ["a", "b"]
    assert judged(desk.memory, tmp_path)[1] == []


def test_power_lost_after_an_end_during_a_rotation(tmp_path: Path) -> None:
    desk = Desk(fsync=True, at_once=False)
    desk.log.open()
    desk.append("a")
    desk.run_jobs()
    desk.log.rotate()
    desk.append("b")
    desk.log.close()
    assert desk.answers == {"a": True, "b": True}
    desk.memory.restart(power_lost=True)
    assert desk.names() == ["a", "b"]


@pytest.mark.parametrize("no_new_file", [False, True])
def test_power_lost_after_a_failed_fsync(tmp_path: Path, no_new_file: bool) -> None:
    """The file's own fsync had succeeded: what was cut off it afterwards must stay away."""
    desk = Desk(fsync=True)
    desk.log.open()
    desk.append("a")
    desk.memory.restart()
    desk = Desk(desk.memory, fsync=True)
    desk.memory.fault = lambda _number, name: OSError(5, "") if name == "sync_directory" else None
    desk.log.open()
    calls = desk.memory.calls
    desk.memory.fault = lambda _number, name: (
        OSError(5, "") if no_new_file and name == "open_log" and "rename" in calls else None
    )
    desk.second()
    assert "rename" in calls
    desk.memory.fault = lambda _number, _name: None
    desk.second()
    desk.append("b")
    assert desk.answers == {"b": True}
    desk.memory.restart(power_lost=True)
    assert desk.names() == ["a", "b"]
    assert judged(desk.memory, tmp_path)[1] == []


@pytest.mark.parametrize("torn", [0, 250, 10_000])
@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("fsync", [False, True])
def test_an_error_at_any_call(tmp_path: Path, fsync: bool, number: int, torn: int) -> None:
    """One call fails; the log goes on by itself, and says of each record what became of it."""
    for desk, live in at_each_call(fsync, torn, lambda: OSError(number, "")):
        live()
        assert desk.answers.keys() == {f"{turn}{one}" for turn in range(4) for one in "ab"}
        desk.memory.restart()
        if not desk.metrics.sealed and desk.said("audit_unsealed"):
            continue  # its key could not be read: see test_log
        assert set(desk.names()) >= acknowledged(desk)
        check_after(desk, tmp_path, fsync=fsync)


@pytest.mark.parametrize("fsync", [False, True])
def test_a_disk_that_fails_for_a_while_at_any_call(tmp_path: Path, fsync: bool) -> None:
    """Six calls in a row fail, cutting back and renaming among them."""
    calls = len(lived(fsync=fsync).memory.calls)
    for at in range(10, calls):
        desk = Desk(fsync=fsync, **SETTINGS)
        desk.memory.torn = 250
        desk.memory.fault = lambda number, _name, at=at: (
            OSError(errno.EIO, "") if at <= number < at + 6 else None
        )
        life(desk)
        desk.memory.restart()
        check_after(desk, tmp_path, fsync=fsync)


def test_cut_at_every_byte(tmp_path: Path) -> None:
    """The last file ends anywhere: whole lines are kept, the rest is noted, and a seal that is
    gone is missed."""
    desk = Desk(seal_records=4)
    desk.log.open()
    desk.append("a")
    desk.log.rotate()
    desk.append("b", "c", "d")
    content = bytes(desk.memory.paths[ACTIVE].data)
    key = bytes(desk.memory.paths[f"{STATE}/seal.json"].data)
    mark = b'"event.action":"seal"'
    assert content.count(mark) == 1
    for size in range(len(content) + 1):
        desk.memory.restart()
        desk.memory.put(ACTIVE, content[:size])
        desk.memory.put(f"{STATE}/seal.json", key)
        again = Desk(desk.memory, seal_records=4)
        again.log.open()
        again.append("x", "y")
        kept = content[: content.rfind(b"\n", 0, size) + 1]
        assert desk.memory.logs()["audit.jsonl"].startswith(kept)
        assert again.answers == {"x": True, "y": True}
        torn = [one["llm.audit.torn.bytes"] for one in again.records() if "repair" in one.values()]
        assert torn == [size - len(kept)] * (size > len(kept))
        _result, wrong = judged(again.memory, tmp_path)
        assert len(wrong) == 1 - kept.count(mark)
        assert all("seals are missing" in text for text in wrong)


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_bytes_flipped_in_the_last_line(tmp_path: Path, data: st.DataObject) -> None:
    """Never a crash, never a silent loss: repaired and noted, or left aside and reported."""
    desk = Desk(**SETTINGS)
    desk.log.open()
    desk.append("a", "b")
    desk.append("c")
    content = bytes(desk.memory.paths[ACTIVE].data)
    start = content.rfind(b"\n", 0, -1) + 1
    spoilt = bytearray(content)
    flips = data.draw(
        st.dictionaries(st.integers(start, len(content) - 1), st.integers(1, 255), min_size=1)
    )
    for at, flip in flips.items():
        spoilt[at] ^= flip
    desk.memory.restart()
    desk.memory.paths[ACTIVE].data[:] = spoilt
    again = Desk(desk.memory, **SETTINGS)
    again.log.open()
    again.append("x")
    assert again.answers == {"x": True}
    logs = again.memory.logs()
    _result, wrong = judged(again.memory, tmp_path)
    if len(logs) == 1:
        assert logs["audit.jsonl"].startswith(content[:start])
        assert b'"llm.audit.torn.sha256"' in logs["audit.jsonl"]
        assert wrong == []
    else:
        assert logs[f"audit-{1:020d}.jsonl"] == bytes(spoilt)
        assert again.said("audit_tail_untrusted")
        assert wrong
        first = json.loads(logs["audit.jsonl"].splitlines()[0])
        assert first["llm.audit.previous.file"] == f"audit-{1:020d}.jsonl"


@pytest.mark.parametrize(
    "content", [b"\n" * 10, b"x" * 5_000_000, b'{"a":1}\n' * 10, b"\xff\n\xff\n"]
)
@pytest.mark.parametrize("behind", [False, True])
def test_junk_where_the_log_should_be(tmp_path: Path, content: bytes, behind: bool) -> None:
    """The log goes on from what it can read; nothing is deleted, and the verifier objects."""
    desk = Desk(**SETTINGS)
    desk.log.open()
    desk.append("a")
    desk.log.rotate()
    desk.append("b")
    if not behind:
        desk.memory.paths[ACTIVE].data.clear()
    desk.memory.paths[ACTIVE].data += content
    desk.memory.restart()
    again = Desk(desk.memory, **SETTINGS)
    again.log.open()
    again.append("x")
    assert again.answers == {"x": True}
    assert any(old.endswith(content) for old in again.memory.logs().values())
    assert judged(again.memory, tmp_path)[1]


@pytest.mark.parametrize("behind", [False, True])
def test_zeros_where_the_power_failed(tmp_path: Path, behind: bool) -> None:
    desk = Desk(**SETTINGS)
    desk.log.open()
    desk.append("a")
    if behind:
        desk.memory.paths[ACTIVE].data += bytes(10_000)
    else:
        desk.memory.paths[ACTIVE].data[:] = bytes(10_000)
    desk.memory.restart()
    again = Desk(desk.memory, **SETTINGS)
    again.log.open()
    again.append("x")
    assert again.names() == (["a", "x"] if behind else ["x"])
    assert "repair" in again.actions()
    assert judged(again.memory, tmp_path)[1] == []


@pytest.mark.parametrize("keyed", [True, False])
def test_an_empty_file_after_a_rotation(tmp_path: Path, keyed: bool) -> None:
    """A crash between making the new file and its first record. The old file says which key."""
    desk = Desk(**SETTINGS)
    desk.log.open()
    desk.append("a")
    desk.memory.paths[f"{LOGS}/audit-{1:020d}.jsonl"] = desk.memory.paths.pop(ACTIVE)
    desk.memory.restart()
    desk.memory.put(ACTIVE, b"")
    if not keyed:
        del desk.memory.paths[f"{STATE}/seal.json"]
    again = Desk(desk.memory, **SETTINGS)
    again.log.open()
    again.append("b")
    assert again.names() == ["a", "b"]
    opening = again.records()[-2]
    assert opening["llm.audit.previous.file"] == f"audit-{1:020d}.jsonl"
    assert ("llm.audit.expected.key.id" in opening) != keyed
    assert (judged(again.memory, tmp_path)[1] == []) == keyed
