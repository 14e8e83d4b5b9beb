# SPDX-License-Identifier: GPL-3.0-or-later
"""The writer: every record is taken and said so, or refused and said so."""

from __future__ import annotations

import errno
import json
import os
import stat
import typing as t
from pathlib import Path

import pytest
from llm_key_validator.audit.files import OsFiles
from llm_key_validator.audit.log import AuditSettings, RefusalLimiter
from llm_key_validator.audit.seals import parse_key

from .twin import ACTIVE, FIRST, LOGS, STATE, Desk, ListSink, MemoryFiles, judged

FSYNC = pytest.mark.parametrize("fsync", [False, True])


def opened(files: MemoryFiles | None = None, **settings: t.Any) -> Desk:
    desk = Desk(files, **settings)
    desk.log.open()
    return desk


def reopened(desk: Desk, **settings: t.Any) -> Desk:
    """What a new process makes of the same disk."""
    desk.memory.restart()
    return opened(desk.memory, **settings)


def failing(desk: Desk, *calls: str, number: int = errno.ENOSPC, torn: int = 0) -> None:
    desk.memory.torn = torn
    desk.memory.fault = lambda _number, name: OSError(number, "") if name in calls else None


def healed(desk: Desk) -> None:
    desk.memory.fault = lambda _number, _name: None


def whole(desk: Desk, folder: Path) -> bool:
    result, wrong = judged(desk.memory, folder)
    assert wrong == []
    return result.verdict == "whole"


# -- The usual ---------------------------------------------------------------------------------


@FSYNC
def test_records_are_chained_sealed_and_whole(tmp_path: Path, fsync: bool) -> None:
    desk = opened(fsync=fsync, seal_records=5)
    for turn in range(4):
        desk.append(*(f"r{turn}.{one}" for one in range(3)))
    assert all(desk.answers.values())
    assert len(desk.answers) == 12
    assert desk.actions().count("seal") == 2
    assert whole(desk, tmp_path)
    assert desk.log.head.sequence == 15 == desk.metrics.sequence
    assert desk.log.head.hash.hex() == desk.records()[-1]["event.hash"]
    assert desk.log.head.epoch == 2 == desk.metrics.epoch
    assert desk.metrics.records["request"] == 12
    assert desk.metrics.bytes == len(desk.memory.logs()["audit.jsonl"])
    assert (desk.metrics.writable, desk.metrics.sealed, desk.metrics.seals) == (True, True, 2)


def test_records_of_one_turn_share_a_write() -> None:
    desk = opened()
    desk.memory.calls.clear()
    desk.append("a", "b", "c")
    assert desk.memory.calls == ["write"]
    assert desk.names() == ["a", "b", "c"]


def test_done_is_called_when_it_is_written_not_before() -> None:
    desk = opened()
    desk.log.append(b'"event.action":"request"', lambda taken: desk.answers.update(x=taken))
    assert desk.answers == {}
    desk.turn()
    assert desk.answers == {"x": True}


def test_group_commit() -> None:
    """What arrives during an fsync waits for the next one, which it shares."""
    desk = opened(fsync=True, at_once=False)
    desk.append("a", "b")
    desk.append("c")
    desk.append("d")
    assert desk.answers == {}
    assert len(desk.jobs) == 1
    assert desk.names() == ["a", "b"]
    desk.run_job()
    assert desk.answers == {"a": True, "b": True}
    assert desk.names() == ["a", "b", "c", "d"]
    assert len(desk.jobs) == 1
    desk.run_job()
    assert desk.answers == dict.fromkeys("abcd", True)
    assert desk.jobs == []
    assert desk.metrics.fsyncs == 2


def test_what_done_appends_is_written_too() -> None:
    desk = opened()
    desk.log.append(b'"event.action":"request"', lambda _taken: desk.append("second"))
    desk.turn()
    assert desk.answers == {"second": True}


def test_a_hanging_disk_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("llm_key_validator.audit.log._MAX_WAITING", 3)
    desk = opened(fsync=True, at_once=False)
    desk.append("a")
    desk.append(*"bcde")
    assert desk.answers == {"e": False}
    desk.run_jobs()
    assert desk.answers == {**dict.fromkeys("abcd", True), "e": False}


@FSYNC
def test_a_restart_goes_on_in_the_same_file(tmp_path: Path, fsync: bool) -> None:
    desk = opened(fsync=fsync)
    desk.append("a")
    last = desk.records()[-1]
    desk = reopened(desk, fsync=fsync)
    desk.append("b")
    again = desk.records()[2]
    assert again["event.action"] == "open"
    assert again["llm.audit.previous.sequence"] == last["event.sequence"]
    assert again["llm.audit.previous.hash"] == last["event.hash"]
    assert "llm.audit.previous.file" not in again
    assert whole(desk, tmp_path)


@FSYNC
def test_close_leaves_a_sealed_log(tmp_path: Path, fsync: bool) -> None:
    desk = opened(fsync=fsync)
    desk.log.append(b'"event.action":"request","http.request.id":"a"')
    desk.log.close()
    desk.log.close()
    assert desk.actions() == ["open", "request", "close", "seal"]
    assert desk.memory.calls[-1] == "close"
    desk.append("late")
    assert desk.answers == {"late": False}
    desk.second()
    assert desk.actions()[-1] == "seal"
    assert whole(reopened(desk), tmp_path)


def test_close_during_an_fsync(tmp_path: Path) -> None:
    desk = opened(fsync=True, at_once=False)
    desk.append("a")
    desk.log.append(b'"event.action":"request","http.request.id":"b"')
    desk.log.close()
    desk.run_jobs()
    assert desk.answers == {"a": True}
    assert desk.actions() == ["open", "request", "request", "close"]
    assert whole(reopened(desk), tmp_path)


def test_close_on_a_broken_disk() -> None:
    desk = opened()
    failing(desk, "write")
    desk.log.append(b'"event.action":"request"', lambda taken: desk.answers.update(a=taken))
    desk.log.close()
    assert desk.answers == {"a": False}
    assert not desk.log.writable
    desk = opened()
    failing(desk, "write")
    desk.append("a")
    desk.log.close()
    assert desk.actions() == ["open"]


# -- Seals -------------------------------------------------------------------------------------


def test_seals_by_time_only_when_something_was_recorded(tmp_path: Path) -> None:
    desk = opened(seal_seconds=10)
    for _unused in range(9):
        desk.second()
    assert "seal" not in desk.actions()
    desk.second()
    assert desk.actions() == ["open", "seal"]
    for _unused in range(30):
        desk.second()
    assert desk.actions() == ["open", "seal"]
    desk.append("a")
    desk.second()
    assert desk.actions() == ["open", "seal", "request", "seal"]
    assert whole(desk, tmp_path)


@FSYNC
def test_one_seal_at_a_time(tmp_path: Path, fsync: bool) -> None:
    """While the key steps in a thread, records go on, and the next seal waits."""
    desk = opened(fsync=fsync, at_once=False, seal_records=2)
    desk.append("a", "b")
    desk.append("c", "d")
    while desk.jobs and desk.actions().count("seal") < 2:
        desk.run_job()
        desk.append("e")
    desk.run_jobs()
    assert desk.actions().count("seal") >= 2
    assert whole(desk, tmp_path)


def test_a_key_step_that_fails_is_made_later(tmp_path: Path) -> None:
    desk = opened(seal_records=2)
    failing(desk, "create_secret", number=errno.EROFS)
    desk.append("a", "b")
    desk.second()
    desk.append("c", "d", "e")
    assert desk.actions().count("seal") == 1
    assert not desk.metrics.sealed
    assert len(desk.said("audit_key_step_failed")) == 1
    assert desk.log.writable
    healed(desk)
    desk.second()
    assert desk.metrics.sealed
    desk.append("f")
    assert desk.actions().count("seal") == 2
    assert whole(desk, tmp_path)


@pytest.mark.parametrize("behind", [1, 3])
def test_a_disk_that_is_full_at_the_start_does_not_end_the_seals(
    tmp_path: Path, behind: int
) -> None:
    desk = opened(seal_records=1)
    for number in range(3):
        desk.append(str(number))
    key = FIRST
    for _unused in range(3 - behind):
        key = key.next()
    desk.memory.put(f"{STATE}/seal.json", key.render())
    desk.memory.restart()
    desk = Desk(desk.memory, seal_records=1)
    failing(desk, "create_secret", "write")
    desk.log.open()
    assert not desk.metrics.sealed
    assert desk.said("audit_key_step_failed")
    healed(desk)
    desk.second()  # the file
    desk.second()  # the key
    assert desk.metrics.sealed
    assert desk.log.head.epoch == 3
    desk.append("x")
    assert desk.actions()[-1] == "seal"
    assert whole(desk, tmp_path)


def test_a_clock_that_is_set_back_puts_no_seal_off(tmp_path: Path) -> None:
    desk = opened(seal_seconds=10)
    desk.append("a")
    desk.now -= 3600
    desk.second()
    assert desk.actions()[-1] == "seal"
    desk.append("b")
    desk.second()
    assert desk.actions()[-1] == "request"
    assert whole(desk, tmp_path)


def test_without_a_key_the_log_goes_on_unsealed(tmp_path: Path) -> None:
    desk = opened(MemoryFiles(), sealed=False, seal_records=2)
    desk.append("a", "b", "c")
    assert desk.actions() == ["open", "request", "request", "request"]
    assert desk.said("audit_unsealed")[0]["problem"] == "there is no key file"
    assert (desk.metrics.sealed, desk.log.writable, desk.log.head.epoch) == (False, True, None)
    result, wrong = judged(desk.memory, tmp_path, keyed=False)
    assert (result.verdict, wrong) == ("whole", [])
    # A key that comes later seals from there on.
    desk.memory.put(f"{STATE}/seal.json", FIRST.render())
    desk = reopened(desk, seal_records=2)
    desk.append("d")
    assert desk.actions()[-1] == "seal"
    assert whole(desk, tmp_path)


@pytest.mark.parametrize("problem", ["foreign", "broken", "missing"])
def test_a_sealed_log_takes_no_other_key(tmp_path: Path, problem: str) -> None:
    desk = opened(seal_records=2)
    desk.append("a", "b")
    content = desk.memory.paths.pop(f"{STATE}/seal.json").data
    epoch = desk.log.head.epoch
    if problem == "foreign":
        other = parse_key(bytes(content).replace(FIRST.key_id.encode(), b"0" * 16))
        desk.memory.put(f"{STATE}/seal.json", other.render())
    elif problem == "broken":
        desk.memory.put(f"{STATE}/seal.json", b"{}")
    for _unused in range(2):  # the second start has only the first one's open record to go by
        desk = reopened(desk, seal_records=2)
        desk.append("c", "d", "e")
        assert desk.said("audit_unsealed")
        assert "llm.audit.key.id" not in desk.records()[-4]
        assert desk.records()[-4]["llm.audit.expected.key.id"] == FIRST.key_id
        assert desk.records()[-4]["llm.audit.expected.key.epoch"] == epoch
        assert desk.log.head.epoch is None
    _result, wrong = judged(desk.memory, tmp_path)
    assert len(wrong) == 1
    assert "seal" in wrong[0]
    # The right key goes on where it was.
    desk.memory.put(f"{STATE}/seal.json", bytes(content))
    desk = reopened(desk, seal_records=2)
    assert desk.log.head.epoch == epoch


def test_a_restored_key_file_catches_up(tmp_path: Path) -> None:
    desk = opened(seal_records=2)
    for turn in range(5):
        desk.append(f"{turn}a", f"{turn}b")
    desk.memory.put(f"{STATE}/seal.json", FIRST.render())
    desk = reopened(desk, seal_records=2)
    assert desk.said("audit_seal_key_restored")[0]["epochs"] == 5
    assert desk.records()[-1]["llm.audit.key.stepped"] == 5
    desk.append("x", "y")
    assert whole(desk, tmp_path)
    assert "llm.audit.key.stepped" not in reopened(desk).records()[-1]


def test_a_restored_log_shows_that_seals_are_missing(tmp_path: Path) -> None:
    desk = opened(seal_records=2)
    desk.append("a", "b")
    backup = bytes(desk.memory.paths[ACTIVE].data)
    for turn in range(3):
        desk.append(f"{turn}a", f"{turn}b")
    desk.memory.paths[ACTIVE].data[:] = backup
    desk = reopened(desk, seal_records=2)
    assert desk.said("audit_seals_missing") == [
        {"event": "audit_seals_missing", "level": "warning", "first": 1, "last": 3}
    ]
    desk.append("x", "y")
    _result, wrong = judged(desk.memory, tmp_path)
    assert len(wrong) == 1
    assert "seals are missing" in wrong[0]


def test_a_log_that_was_deleted_shows_that_seals_are_missing(tmp_path: Path) -> None:
    desk = opened(seal_records=2)
    desk.append("a", "b")
    del desk.memory.paths[ACTIVE]
    desk = reopened(desk)
    assert desk.said("audit_seals_missing")
    _result, wrong = judged(desk.memory, tmp_path)
    assert len(wrong) == 1
    assert "seals are missing" in wrong[0]


# -- A disk that fails -------------------------------------------------------------------------


@FSYNC
@pytest.mark.parametrize("torn", [0, 1, 300, 100_000])
@pytest.mark.parametrize(
    "number", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES]
)
def test_a_failing_write_refuses_and_comes_back_by_itself(
    tmp_path: Path, number: int, torn: int, fsync: bool
) -> None:
    desk = opened(fsync=fsync)
    desk.append("a")
    failing(desk, "write", number=number, torn=torn)
    desk.append("b", "c")
    assert desk.answers == {"a": True, "b": False, "c": False}
    assert (desk.log.writable, desk.metrics.writable) == (False, False)
    assert desk.names() == ["a"]
    # Nothing touches the disk until the next tick.
    desk.memory.calls.clear()
    desk.append("d")
    assert desk.memory.calls == []
    desk.second()
    desk.second()
    assert not desk.log.writable
    assert "write" in desk.memory.calls
    assert desk.names() == ["a"]
    healed(desk)
    desk.second()
    desk.append("e")
    assert (desk.log.writable, desk.answers["e"]) == (True, True)
    assert desk.names() == ["a", "e"]
    resume = desk.records()[2]
    assert resume["event.action"] == "resume"
    assert (resume["llm.audit.refused"], resume["llm.audit.seconds"]) == (3, 3)
    assert desk.metrics.refused == 3
    assert desk.metrics.failures["file"] == 1
    assert len(desk.said("audit_file_failed")) == 1
    assert desk.said("audit_file_failed")[0]["problem"] == os.strerror(number)
    assert len(desk.said("audit_file_resumed")) == 1
    assert whole(desk, tmp_path)


@pytest.mark.parametrize("torn", [0, 300, 1000])
def test_a_write_that_cannot_even_be_cut_back(tmp_path: Path, torn: int) -> None:
    desk = opened()
    desk.append("a")
    failing(desk, "write", "truncate", torn=torn)
    desk.append("b", "c")
    desk.second()
    healed(desk)
    desk.second()
    desk.append("d")
    assert desk.names() == ["a", "d"]
    assert whole(desk, tmp_path)


def test_a_write_that_is_short_is_gone_on_with(tmp_path: Path) -> None:
    class Short(MemoryFiles):
        def write(self, descriptor: int, data: bytes) -> int:
            return super().write(descriptor, data[:7])

    files = Short()
    files.put(f"{STATE}/seal.json", FIRST.render())
    desk = opened(files)
    desk.append("a", "b")
    assert desk.names() == ["a", "b"]
    assert whole(desk, tmp_path)


def test_a_write_of_nothing_is_a_failure() -> None:
    desk = opened()
    desk.memory.write = lambda _descriptor, _data: 0  # type: ignore[method-assign]
    desk.append("a")
    assert desk.answers == {"a": False}


@pytest.mark.parametrize(
    "call", ["check_directory", "open_log", "status", "read", "truncate", "write", "sync"]
)
def test_starting_on_a_disk_that_fails(tmp_path: Path, call: str) -> None:
    desk = opened()
    desk.append("a")
    desk.memory.paths[ACTIVE].data += b'{"@time'
    desk.memory.restart()
    desk = Desk(desk.memory)
    failing(desk, call)
    desk.log.open()
    desk.append("b")
    desk.second()
    assert (desk.log.writable, desk.answers) == (False, {"b": False})
    healed(desk)
    desk.second()
    desk.append("c")
    assert desk.answers["c"]
    assert desk.names() == ["a", "c"]
    assert desk.actions().count("repair") == 1
    assert whole(desk, tmp_path)


def test_starting_with_a_state_directory_that_fails() -> None:
    desk = Desk()
    failing(desk, "read_file", number=errno.EIO)
    desk.log.open()
    desk.append("a")
    assert (desk.answers, desk.metrics.sealed) == ({"a": True}, False)
    assert desk.said("audit_unsealed")[0]["problem"] == "OSError"


def test_a_missing_directory(tmp_path: Path) -> None:
    desk = Desk()
    desk.memory.directories.remove(LOGS)
    desk.log.open()
    desk.append("a")
    desk.second()
    assert desk.answers == {"a": False}
    desk.memory.directories.add(LOGS)
    desk.second()
    desk.append("b")
    assert desk.answers["b"]
    assert desk.actions() == ["open", "resume", "request"]
    assert whole(desk, tmp_path)


def test_after_a_failed_fsync_the_file_is_left(tmp_path: Path) -> None:
    desk = opened(fsync=True)
    desk.append("a")
    failing(desk, "sync", number=errno.EIO)
    desk.append("b")
    assert desk.answers == {"a": True, "b": False}
    assert not desk.log.writable
    desk.second()
    assert not desk.log.writable
    healed(desk)
    desk.second()
    desk.append("c")
    assert desk.answers["c"]
    logs = desk.memory.logs()
    assert list(logs) == [f"audit-{1:020d}.jsonl", "audit.jsonl"]
    assert desk.names() == ["a", "c"]
    again = json.loads(logs["audit.jsonl"].splitlines()[0])
    assert again["llm.audit.previous.file"] == f"audit-{1:020d}.jsonl"
    assert whole(desk, tmp_path)


def test_a_disk_whose_fsync_always_fails_is_not_filled_with_files() -> None:
    desk = opened(fsync=True)
    failing(desk, "sync", number=errno.EIO)
    desk.append("a")
    for _unused in range(50):
        desk.second()
    assert len(desk.memory.logs()) <= 2
    assert len(desk.memory.descriptors) <= 1


def test_a_failed_fsync_without_fsync_mode_takes_nothing_back(tmp_path: Path) -> None:
    """The records were acknowledged; their seal's fsync fails."""
    desk = opened(seal_records=2)
    failing(desk, "sync", number=errno.EIO)
    desk.append("a", "b")
    assert not desk.log.writable
    healed(desk)
    desk.second()
    desk.second()
    desk.append("c", "d")
    assert desk.names() == ["a", "b", "c", "d"]
    assert desk.actions().count("seal") == 2
    assert len(desk.memory.logs()) == 2
    assert whole(desk, tmp_path)


def test_a_write_that_fails_while_a_thread_syncs(tmp_path: Path) -> None:
    """The thread's descriptor stays open until it is through."""
    desk = opened(at_once=False, seal_records=2)
    desk.append("a")
    failing(desk, "write")
    desk.append("b")
    healed(desk)
    desk.second()
    desk.run_jobs()
    desk.append("c")
    desk.second()
    desk.run_jobs()
    assert desk.names() == ["a", "c"]
    assert whole(desk, tmp_path)
    assert len(desk.memory.descriptors) == 1


# -- Rotation ----------------------------------------------------------------------------------


@FSYNC
def test_rotation_by_size_without_a_gap(tmp_path: Path, fsync: bool) -> None:
    desk = opened(fsync=fsync, max_file_bytes=2000, seal_records=7)
    for turn in range(40):
        desk.append(f"r{turn}")
        if turn % 3 == 0:
            desk.second()
    logs = desk.memory.logs()
    assert len(logs) > 3
    assert desk.metrics.rotations == len(logs) - 1
    assert desk.names() == [f"r{turn}" for turn in range(40)]
    for name, content in list(logs.items())[:-1]:
        first = json.loads(content.splitlines()[0])
        assert name == f"audit-{first['event.sequence']:020d}.jsonl"
        assert first["event.action"] == "open"
    assert whole(desk, tmp_path)
    assert len(desk.memory.descriptors) == 1
    assert whole(reopened(desk), tmp_path)


def test_a_rotation_during_an_fsync_waits_for_it(tmp_path: Path) -> None:
    desk = opened(fsync=True, at_once=False)
    desk.append("a")
    desk.log.rotate()
    desk.second()
    assert len(desk.memory.logs()) == 1
    desk.append("b")
    desk.run_jobs()
    assert len(desk.memory.logs()) == 2
    assert desk.answers == {"a": True, "b": True}
    assert whole(desk, tmp_path)


def test_a_rotation_that_fails_leaves_the_log_in_its_file(tmp_path: Path) -> None:
    desk = opened()
    failing(desk, "rename")
    desk.log.rotate()
    desk.second()
    desk.append("a")
    assert desk.answers == {"a": True}
    assert len(desk.said("audit_rotation_failed")) == 1
    healed(desk)
    desk.second()
    assert len(desk.memory.logs()) == 2
    assert whole(desk, tmp_path)


def test_a_rotation_without_room_for_a_new_file(tmp_path: Path) -> None:
    desk = opened()
    desk.append("a")
    failing(desk, "open_log")
    desk.log.rotate()
    desk.append("b")
    assert desk.answers == {"a": True, "b": False}
    healed(desk)
    desk.second()
    desk.append("c")
    assert desk.names() == ["a", "c"]
    assert whole(desk, tmp_path)
    assert len(desk.memory.descriptors) == 1


def test_old_files_are_removed_and_that_is_noted() -> None:
    desk = opened(keep_files=2)
    for turn in range(5):
        desk.append(f"r{turn}")
        desk.log.rotate()
    logs = desk.memory.logs()
    assert len(logs) == 3
    removed = [name for one in desk.records() for name in one.get("llm.audit.removed", [])]
    assert set(removed).isdisjoint(logs)
    assert removed
    assert desk.names() == ["r3", "r4"]


def test_a_file_that_others_renamed_or_deleted(tmp_path: Path) -> None:
    """As logrotate does without copytruncate; with its `create`, an empty file is there."""
    desk = opened()
    desk.append("a")
    desk.memory.paths["/elsewhere"] = desk.memory.paths.pop(ACTIVE)
    desk.append("b")
    desk.second()
    desk.append("c")
    assert desk.said("audit_file_moved")
    assert b'"b"' in desk.memory.paths["/elsewhere"].data
    assert [one["event.action"] for one in desk.records()] == ["open", "request"]
    desk.memory.put(f"{LOGS}/audit-{1:020d}.jsonl", bytes(desk.memory.paths["/elsewhere"].data))
    desk.memory.paths[f"{LOGS}/audit-{4:020d}.jsonl"] = desk.memory.paths.pop(ACTIVE)
    desk.memory.put(ACTIVE, b"")
    desk.second()
    desk.append("d")
    assert desk.names() == ["a", "b", "c", "d"]
    assert whole(desk, tmp_path)


def test_a_strangers_file_in_its_place_is_put_aside(tmp_path: Path) -> None:
    desk = opened()
    desk.append("a")
    ours = desk.memory.paths[ACTIVE]
    desk.memory.put(ACTIVE, bytes(ours.data))
    desk.second()
    desk.append("b")
    assert list(desk.memory.logs()) == [f"audit-{1:020d}.jsonl", "audit.jsonl"]
    assert whole(desk, tmp_path)
    desk.memory.put(ACTIVE, b"junk")
    desk.second()
    desk.append("c")
    assert desk.answers["c"]
    assert b"junk" in desk.memory.logs().values()


def test_a_file_that_others_cut_is_left(tmp_path: Path) -> None:
    """As logrotate's copytruncate does. What is lost shows."""
    desk = opened()
    desk.append("a")
    desk.memory.paths[ACTIVE].data.clear()
    desk.append("b")
    desk.second()
    desk.append("c")
    assert desk.said("audit_file_changed_by_others")
    _result, wrong = judged(desk.memory, tmp_path)
    assert "the log begins without an open record: its beginning is cut off" in wrong
    assert desk.names() == ["b", "c"]


def test_a_name_that_is_taken_is_not_overwritten() -> None:
    desk = opened()
    name = f"{LOGS}/audit-{1:020d}.jsonl"
    desk.memory.put(name, b"somebody's")
    desk.log.rotate()
    assert desk.memory.logs()[name.rpartition("/")[2]] == b"somebody's"
    assert len(desk.memory.logs()) == 3


# -- Other sinks -------------------------------------------------------------------------------


@FSYNC
def test_other_sinks_get_every_line(fsync: bool) -> None:
    sink = ListSink()
    desk = opened(sinks=[sink], fsync=fsync, seal_records=3)
    desk.append("a", "b")
    desk.append("c")
    assert b"".join(sink.lines) == desk.memory.logs()["audit.jsonl"]


def test_the_file_alone_is_enough() -> None:
    sink = ListSink()
    desk = opened(sinks=[sink])
    sink.up = False
    desk.append("a")
    assert desk.answers == {"a": True}
    assert desk.log.writable
    assert desk.metrics.failures["journald"] == 1


@FSYNC
def test_another_sink_alone_is_enough(tmp_path: Path, fsync: bool) -> None:
    sink = ListSink()
    desk = opened(sinks=[sink], fsync=fsync)
    desk.append("a")
    failing(desk, "sync" if fsync else "write")
    desk.append("b", "c")
    desk.append("d")
    assert desk.answers == dict.fromkeys("abcd", True)
    assert desk.log.writable
    healed(desk)
    desk.second()
    desk.append("e")
    taken = [json.loads(line) for line in sink.lines]
    assert [one["event.sequence"] for one in taken] == list(range(1, len(taken) + 1))
    assert desk.names() == ["a", "e"]
    # What only the other sink has is a gap between two files, and no more than that.
    assert len(desk.memory.logs()) == 2
    _result, wrong = judged(desk.memory, tmp_path)
    assert len(wrong) == 1
    assert wrong[0].startswith("records 3 to 5 are missing")


def test_a_start_knows_nothing_of_what_only_another_sink_took(tmp_path: Path) -> None:
    """As docs/audit-log.md says: the disk that could tell is the one that failed."""
    sink = ListSink()
    desk = opened(sinks=[sink])
    failing(desk, "write")
    desk.append("a")
    desk = reopened(desk, sinks=[sink])
    desk.append("b")
    assert desk.names() == ["b"]
    assert whole(desk, tmp_path)
    taken = [json.loads(line)["event.sequence"] for line in sink.lines]
    assert taken == [1, 2, 2, 3]


def test_no_sink_at_all_refuses(tmp_path: Path) -> None:
    sinks = [ListSink(), ListSink("syslog")]
    desk = opened(sinks=sinks)
    failing(desk, "write")
    sinks[0].up = False
    desk.append("a")
    assert desk.answers == {"a": True}
    sinks[1].up = False
    desk.append("b")
    assert desk.answers["b"] is False
    assert not desk.log.writable
    desk.second()
    assert not desk.log.writable
    sinks[0].up = True
    desk.second()
    desk.append("c")
    assert desk.answers["c"] is True
    assert json.loads(sinks[0].lines[-2])["event.action"] == "resume"
    taken = [*(json.loads(line) for line in sinks[1].lines[1:]), json.loads(sinks[0].lines[-1])]
    assert [one["event.sequence"] for one in taken] == [2, 4]
    healed(desk)
    desk.second()
    assert desk.records()[-1]["llm.audit.refused"] == 0


def test_a_sink_cannot_stand_in_before_the_chain_is_known() -> None:
    desk = Desk(sinks=[ListSink()])
    failing(desk, "open_log")
    desk.log.open()
    desk.append("a")
    desk.second()
    assert desk.answers == {"a": False}
    assert not desk.log.writable


@pytest.mark.parametrize("sinks", [(), ("journald",), ("file", "x")])
def test_the_file_is_always_a_sink(sinks: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="sinks"):
        AuditSettings("/a", "/b", sinks=sinks)


# -- Refusals ----------------------------------------------------------------------------------


def test_refusals_beyond_the_limit_are_counted_by_reason() -> None:
    desk = opened(refusals_per_second=2)
    admitted = [desk.log.refusals.admit(reason) for reason in ["a", "a", "a", "b", "a"]]
    assert admitted == [True, True, False, False, False]
    desk.second()
    counted = {
        one["event.reason"]: one["llm.audit.count"]
        for one in desk.records()
        if one["event.action"] == "suppressed"
    }
    assert counted == {"a": 2, "b": 1}
    assert desk.metrics.suppressed == 3
    assert desk.log.refusals.admit("a")
    desk.second()
    assert desk.actions().count("suppressed") == 2


def test_counted_refusals_wait_for_the_disk() -> None:
    desk = opened(refusals_per_second=0)
    desk.log.refusals.admit("a")
    failing(desk, "write")
    desk.append("x")
    desk.second()
    healed(desk)
    desk.second()
    desk.second()
    assert desk.records()[-1]["llm.audit.count"] == 1


def test_a_limiter_without_refusals_has_nothing_to_say() -> None:
    limiter = RefusalLimiter(0)
    assert not limiter.admit("a")
    assert limiter.take() == {"a": 1}
    assert limiter.take() == {}


# -- The host's file system --------------------------------------------------------------------


@FSYNC
def test_on_a_real_disk(tmp_path: Path, fsync: bool) -> None:
    logs, state = tmp_path / "logs", tmp_path / "state"
    logs.mkdir()
    state.mkdir()
    (state / "seal.json").write_bytes(FIRST.render())

    def start() -> Desk:
        desk = Desk(
            OsFiles(), directory=str(logs), state_directory=str(state), fsync=fsync, seal_records=4
        )
        desk.log.open()
        return desk

    descriptors = len(os.listdir("/proc/self/fd"))
    desk = start()
    for turn in range(10):
        desk.append(f"{turn}a", f"{turn}b")
        if turn == 5:
            desk.log.rotate()
    desk.log.close()
    with (logs / "audit.jsonl").open("ab") as file:
        file.write(b'{"@timest')
    desk = start()
    desk.append("last")
    desk.log.close()
    assert len(os.listdir("/proc/self/fd")) == descriptors
    assert all(desk.answers.values())
    files = MemoryFiles()
    for path in logs.iterdir():
        assert stat.S_IMODE(path.stat().st_mode) == 0o640
        files.put(f"{LOGS}/{path.name}", path.read_bytes())
    (tmp_path / "copy").mkdir()
    result, wrong = judged(files, tmp_path / "copy")
    assert (result.files, wrong) == (2, [])
    key = parse_key((state / "seal.json").read_bytes())
    assert (key.epoch, result.seals) == (result.seals, key.epoch)
    assert stat.S_IMODE((state / "seal.json").stat().st_mode) == 0o600


def test_a_full_device(tmp_path: Path) -> None:
    """/dev/full is no regular file; a limit on file sizes is as good a full disk."""
    import resource
    import signal

    (tmp_path / "logs").mkdir()
    desk = Desk(OsFiles(), directory=str(tmp_path / "logs"), state_directory=str(tmp_path))
    desk.log.open()
    size = (tmp_path / "logs" / "audit.jsonl").stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
        desk.append("a")
        desk.second()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    assert desk.answers == {"a": False}
    assert (tmp_path / "logs" / "audit.jsonl").stat().st_size == size
    desk.second()
    desk.append("b")
    assert desk.answers["b"]
