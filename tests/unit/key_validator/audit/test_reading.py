# SPDX-License-Identifier: GPL-3.0-or-later
"""The files of a log: their order, their lines from both ends, and how they are followed."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.audit import reading
from llm_key_validator.audit.reading import (
    Lines,
    Log,
    ReadingError,
    end_of_lines,
    explain,
    find_files,
    follow,
    lines_backwards,
    open_file,
    printable,
)


def rotated(first: int) -> str:
    return f"audit-{first:020d}.jsonl"


def test_files_are_in_the_order_of_their_records(tmp_path: Path) -> None:
    wanted = [rotated(2), rotated(10), f"audit-{10:020d}-1.jsonl", rotated(11), "audit.jsonl"]
    for name in [*wanted, "audit.jsonl.gz", "audit-1.jsonl", "other.jsonl"]:
        (tmp_path / name).touch()
    assert [file.path.name for file in find_files([tmp_path])] == wanted
    paths = [tmp_path / name for name in reversed(wanted)]
    assert [file.path.name for file in find_files(paths)] == wanted


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        ([""], "holds no audit log"),
        (["", ""], "give one folder"),
        (["missing.jsonl"], "is not there"),
        (["missing/audit.jsonl"], "is not there"),
    ],
)
def test_paths_that_are_no_log(tmp_path: Path, names: list[str], problem: str) -> None:
    with pytest.raises(ReadingError, match=problem):
        Log([tmp_path / name for name in names])


def test_a_pipe_in_a_log_s_place_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "audit.jsonl")
    with pytest.raises(ReadingError, match="is not a file"):
        Log([tmp_path])


def test_problems_are_explained_with_what_helps() -> None:
    assert "use sudo, or join the group adm" in explain(PermissionError(), Path("/log"))
    assert explain(OSError(5, "Input/output error"), Path("/a\nb")) == (
        "/a\N{REPLACEMENT CHARACTER}b cannot be read: Input/output error"
    )


CONTENTS = st.lists(st.sampled_from([b"a", b"bb", b"\n", b"ccccccc"]), max_size=40).map(b"".join)


@given(content=CONTENTS, block=st.integers(1, 9))
def test_lines_from_both_ends_are_the_same(content: bytes, block: int) -> None:
    *whole, rest = content.split(b"\n")
    with TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "BLOCK", block)
        path = Path(name, "audit.jsonl")
        path.write_bytes(content)
        with open_file(path) as stream:
            lines = Lines(stream)
            assert [line for lines in lines.blocks() for line in lines] == whole
            assert lines.rest == rest
            assert list(lines_backwards(stream)) == whole[::-1]
            assert end_of_lines(stream) == len(content) - len(rest)


def test_a_line_without_end_does_not_fill_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "LONGEST_LINE", 100)
    monkeypatch.setattr(reading, "BLOCK", 50)
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"x" * 10_000 + b"\nshort\n")
    with open_file(path) as stream:
        lines = [line for block in Lines(stream).blocks() for line in block]
        assert lines[-1] == b"short"
        assert len(lines[0]) <= 150
        backwards = list(lines_backwards(stream))
        assert backwards[0] == b"short"
        assert len(backwards[1]) <= 150


def test_a_rotation_while_the_log_is_read_hides_nothing(tmp_path: Path) -> None:
    """What was active when we looked is read, under whatever name it has by then."""
    (tmp_path / rotated(1)).write_bytes(b"one\n")
    active = tmp_path / "audit.jsonl"
    active.write_bytes(b"two\n")
    log = Log([tmp_path])
    contents = []
    for _file, stream in log.streams():
        contents.append(stream.read())
        if active.stat().st_size:
            active.rename(tmp_path / rotated(2))
            active.touch()
    log.close()
    assert contents == [b"one\n", b"two\n"]


def test_a_rotation_between_listing_and_opening_hides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    active = tmp_path / "audit.jsonl"
    active.write_bytes(b"one\n")

    def rotate_first(path: Path) -> t.BinaryIO:
        monkeypatch.setattr(reading, "open_file", open_file)
        active.rename(tmp_path / rotated(1))
        active.write_bytes(b"two\n")
        return open_file(path)

    monkeypatch.setattr(reading, "open_file", rotate_first)
    log = Log([tmp_path])
    assert [stream.read() for _file, stream in log.streams()] == [b"one\n", b"two\n"]
    log.close()


def test_a_file_that_went_meanwhile_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / rotated(1)).write_bytes(b"one\n")
    (tmp_path / "audit.jsonl").write_bytes(b"two\n")
    log = Log([tmp_path])
    (tmp_path / rotated(1)).unlink()
    assert [file.name for file, _stream in log.streams_backwards()] == ["audit.jsonl"]
    assert log.size() == 4
    log.close()


class Following:
    """Follows a log without waiting for real time."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(reading, "POLL", 0)
        self._blocks = follow(find_files([folder])[-1], 0)

    def new(self) -> list[bytes]:
        """The lines until there are none for two looks: a rotation takes one."""
        lines: list[bytes] = []
        idle = 0
        while idle < 2:
            block = next(self._blocks)
            idle = 0 if block else idle + 1
            lines += block
        return lines


def test_following_across_rotations(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    active = tmp_path / "audit.jsonl"
    active.write_bytes(b"1\n2")
    following = Following(tmp_path, monkeypatch)
    assert following.new() == [b"1"]
    with active.open("ab", buffering=0) as stream:
        stream.write(b"\n3\n")
        active.rename(tmp_path / rotated(1))
        assert following.new() == [b"2", b"3"], "the new file is not there yet"
        stream.write(b"4\n")
    (tmp_path / rotated(5)).write_bytes(b"5\n")
    (tmp_path / rotated(6)).write_bytes(b"6\n")
    active.write_bytes(b"7\n")
    assert following.new() == [b"4", b"5", b"6", b"7"]
    with active.open("ab") as stream:
        stream.write(b"8\n")
    assert following.new() == [b"8"]


def test_following_a_file_that_the_service_cuts_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    active = tmp_path / "audit.jsonl"
    active.write_bytes(b"1\nhalf a rec")
    following = Following(tmp_path, monkeypatch)
    assert following.new() == [b"1"]
    os.truncate(active, 2)
    assert following.new() == []
    active.write_bytes(b"1\n2\n")
    assert following.new() == [b"2"]


def test_nothing_printable_moves_the_cursor() -> None:
    assert printable("a\x1b[2Jb\x9b\u202ec\nd é") == "a�[2Jb��c�d é"
    assert len(printable("x" * 1000)) == 300
