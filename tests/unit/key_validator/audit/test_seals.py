# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys that step forward, are erased, and survive a crash at any call."""

from __future__ import annotations

import hashlib
import hmac
import json
import typing as t
from contextlib import suppress

import pytest
from llm_key_validator.audit.seals import (
    Expected,
    KeyFile,
    LastSeal,
    SealError,
    SealKey,
    catch_up,
    expected_by,
    first_key,
    key_id_of,
    next_key,
    parse_key,
    seal_mac,
)

from .twin import FIRST, STATE, Crash, MemoryFiles

PATH = f"{STATE}/seal.json"


def key_at(epoch: int) -> SealKey:
    key = FIRST
    for _unused in range(epoch):
        key = key.next()
    return key


def test_the_formulas() -> None:
    key = bytes(range(32))
    assert next_key(key) == hmac.new(key, b"llm-audit-seal-key-v1", "sha256").digest()
    assert key_id_of(key) == hashlib.sha256(b"llm-audit-key-id-v1" + key).hexdigest()[:16]
    message = b"llm-audit-seal-v1" + bytes(7) + b"\x03" + bytes(7) + b"\x09" + b"h" * 32
    assert seal_mac(key, 3, 9, b"h" * 32) == hmac.new(key, message, "sha256").digest()


def test_the_control_nodes_first_key() -> None:
    assert first_key("ab" * 32 + "\n") == SealKey(key_id_of(b"\xab" * 32), 0, b"\xab" * 32)
    for text in ("", "ab", "AB" * 32, "ab" * 33, "ab" * 32 + "\n\n"):
        with pytest.raises(SealError):
            first_key(text)


def test_a_key_is_written_as_it_is_read_and_never_shown() -> None:
    assert parse_key(key_at(3).render()) == key_at(3)
    assert json.loads(key_at(3).render()).keys() == {"version", "key_id", "epoch", "key"}
    assert key_at(3).key.hex() not in repr(key_at(3))


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"key_id": "x" * 16},
        {"key_id": None},
        {"epoch": -1},
        {"epoch": True},
        {"epoch": 2**63},
        {"key": "ab"},
        {"key": "AB" * 32},
        {"more": 1},
    ],
)
def test_a_key_file_is_read_strictly(change: dict[str, t.Any]) -> None:
    values = json.loads(FIRST.render()) | change
    with pytest.raises(SealError) as caught:
        parse_key(json.dumps(values).encode())
    assert "07" * 32 not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\0" * 150, b"[]", b"[" * 99999, b"\xff"])
def test_what_is_no_key_file(content: bytes) -> None:
    with pytest.raises(SealError):
        parse_key(content)


def last_seal(epoch: int) -> LastSeal:
    return LastSeal(9, b"h" * 32, seal_mac(key_at(epoch).key, epoch, 9, b"h" * 32))


@pytest.mark.parametrize(
    ("found", "expected", "wanted"),
    [
        (0, None, 0),
        (5, None, 5),  # the log is gone
        (3, Expected(FIRST.key_id, 3), 3),
        (3, Expected(FIRST.key_id, 3, last_seal(2)), 3),
        (2, Expected(FIRST.key_id, 3, last_seal(2)), 3),  # crash before the step
        (0, Expected(FIRST.key_id, 3, last_seal(2)), 3),  # restored backup
        (0, Expected(FIRST.key_id, 3), 3),
        (7, Expected(FIRST.key_id, 3, last_seal(2)), 7),  # seals are lost
    ],
)
def test_which_key_goes_on(found: int, expected: Expected | None, wanted: int) -> None:
    assert catch_up(key_at(found), expected) == key_at(wanted)


@pytest.mark.parametrize(
    "expected",
    [
        Expected("0" * 16, 3),
        Expected(FIRST.key_id, 2**62),
        Expected(FIRST.key_id, 3, last_seal(1)),
    ],
)
def test_a_key_that_cannot_go_on(expected: Expected) -> None:
    with pytest.raises(SealError):
        catch_up(key_at(1), expected)


def test_what_records_say_of_the_keys() -> None:
    opened = {"event.action": "open", "llm.audit.key.id": "a", "llm.audit.key.epoch": 4}
    assert expected_by(opened) == Expected("a", 4)
    unsealed = {
        "event.action": "open",
        "llm.audit.expected.key.id": "a",
        "llm.audit.expected.key.epoch": 4,
    }
    assert expected_by(unsealed) == Expected("a", 4)
    assert expected_by({"event.action": "open"}) is None
    seal = {
        "event.action": "seal",
        "llm.audit.key.id": "a",
        "llm.audit.seal.epoch": 4,
        "llm.audit.seal.count": 12,
        "llm.audit.seal.head": "ab" * 32,
        "llm.audit.seal.mac": "cd" * 32,
    }
    assert expected_by(seal) == Expected("a", 5, LastSeal(12, b"\xab" * 32, b"\xcd" * 32))
    for name in seal.keys() - {"event.action"}:
        assert expected_by(seal | {name: None}) is None


def started(epoch: int = 4) -> tuple[MemoryFiles, KeyFile]:
    files = MemoryFiles()
    files.put(PATH, key_at(epoch).render())
    return files, KeyFile(files, STATE)


def on_disk(files: MemoryFiles) -> bytes:
    """All that the disk's blocks hold now, of deleted files, too."""
    return b"".join(bytes(inode.data) + inode.durable for inode in files.inodes)


def test_a_step_leaves_nothing_of_the_old_key() -> None:
    files, key_file = started()
    key_file.replace(key_at(5))
    assert parse_key(bytes(files.paths[PATH].data)) == key_at(5)
    assert key_at(4).key.hex().encode() not in on_disk(files)
    assert list(files.paths) == [PATH]
    files.restart(power_lost=True)
    assert list(files.paths) == [PATH]
    assert key_file.load() == key_at(5)


@pytest.mark.parametrize("power_lost", [False, True])
@pytest.mark.parametrize("torn", [0, 40, 1000])
def test_a_crash_at_any_call_leaves_the_old_key_or_the_new(power_lost: bool, torn: int) -> None:
    files, key_file = started()
    key_file.replace(key_at(5))
    calls = len(files.calls)
    assert calls > 10
    for crash_at in range(calls):
        files, key_file = started()
        files.torn = torn
        files.fault = lambda number, _name, at=crash_at: Crash() if number == at else None
        with pytest.raises(Crash):
            key_file.replace(key_at(5))
        files.restart(power_lost=power_lost)
        found = key_file.load()
        assert found in (key_at(4), key_at(5))
        key_file.replace(key_at(5))
        assert key_file.load() == key_at(5)
        assert key_at(4).key.hex().encode() not in on_disk(files)


@pytest.mark.parametrize("torn", [0, 40, 1000])
def test_a_step_that_fails_anywhere_can_be_tried_again(torn: int) -> None:
    files, key_file = started()
    key_file.replace(key_at(5))
    for fail_at in range(len(files.calls)):
        for crash_at in (None, *range(30)):
            files, key_file = started()
            files.torn = torn
            files.fault = lambda number, _name, at=fail_at: OSError(5) if number == at else None
            with pytest.raises(OSError):
                key_file.replace(key_at(5))
            assert not files.descriptors
            files.calls.clear()
            files.fault = lambda number, _name, at=crash_at: Crash() if number == at else None
            try:
                key_file.replace(key_at(5))
            except Crash:
                files.restart()
                assert key_file.load() in (key_at(4), key_at(5))
                key_file.replace(key_at(5))
            files.restart()
            assert key_file.load() == key_at(5)


@pytest.mark.parametrize("fault", [Crash, lambda: OSError(5)])
@pytest.mark.parametrize("torn", [0, 40, 1000])
def test_power_lost_after_a_step_that_was_cut_short(
    torn: int, fault: t.Callable[[], BaseException]
) -> None:
    """What the first attempt left may be read back, and yet not be on the disk."""
    files, key_file = started()
    key_file.replace(key_at(5))
    for fail_at in range(len(files.calls)):
        for crash_at in range(40):
            files, key_file = started()
            files.torn = torn
            files.fault = lambda number, _name, at=fail_at: fault() if number == at else None
            with pytest.raises((Crash, OSError)):
                key_file.replace(key_at(5))
            files.restart()
            files.fault = lambda number, _name, at=crash_at: Crash() if number == at else None
            with suppress(Crash):
                key_file.load()
                key_file.replace(key_at(5))
            files.restart(power_lost=True)
            assert key_file.load() in (key_at(4), key_at(5))


def test_loading_ends_a_step_only_if_it_is_this_keys() -> None:
    files, key_file = started()
    files.put(f"{PATH}.next", key_at(9).render())
    assert key_file.load() == key_at(4)
    files.put(f"{PATH}.next", b"torn")
    assert key_file.load() == key_at(4)
    files.put(f"{PATH}.next", key_at(5).render())
    assert key_file.load() == key_at(5)
    assert list(files.paths) == [PATH]


def test_no_key_file_and_a_broken_one() -> None:
    files = MemoryFiles()
    with pytest.raises(SealError, match="there is no key file"):
        KeyFile(files, STATE).load()
    files.put(PATH, b"broken")
    with pytest.raises(SealError, match="not JSON"):
        KeyFile(files, STATE).load()
    files.put(f"{PATH}.next", key_at(2).render())
    assert KeyFile(files, STATE).load() == key_at(2)
