# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is done to a log, verify says that it was done, and where."""

from __future__ import annotations

import json
import re
import typing as t
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from llm_key_validator.audit import seal_check
from llm_key_validator.audit.chain import Position
from llm_key_validator.audit.findings import Finding, Level, Result
from llm_key_validator.audit.seals import next_key
from llm_key_validator.audit.verify import Wanted, verify

from .reference_log import FIRST_KEY, KEY_ID, ReferenceLog, example

KEYS = {KEY_ID: FIRST_KEY}
EXAMPLE = example()
LINES = [line for lines in EXAMPLE.files for line in lines]
SIZE = sum(map(len, LINES))


def checked(paths: Path | list[Path], **wanted: t.Any) -> tuple[Result, list[Finding]]:
    found: list[Finding] = []
    paths = paths if isinstance(paths, list) else [paths]
    result = verify(paths, Wanted(**wanted), found.append)
    assert result.breaks == len(breaks(found))
    return result, found


def breaks(found: list[Finding]) -> list[Finding]:
    return [one for one in found if one.level is Level.BREAK]


def one_break(path: Path, **wanted: t.Any) -> Finding:
    result, found = checked(path, **wanted)
    assert result.verdict == "broken"
    assert len(breaks(found)) == 1, found
    return breaks(found)[0]


def as_anchor(head: dict[str, t.Any]) -> Position:
    return Position(head["sequence"], bytes.fromhex(head["hash"]))


def write_files(folder: Path, files: list[list[bytes]]) -> Path:
    """Write files under the names that EXAMPLE's have."""
    EXAMPLE.write(folder)
    for path, lines in zip(sorted(folder.iterdir()), files, strict=True):
        path.write_bytes(b"".join(lines))
    return folder


def files_without(index: int) -> list[list[bytes]]:
    """The example's files as lists, without one line."""
    return [[line for line in lines if line is not LINES[index]] for lines in EXAMPLE.files]


def place_of(index: int) -> tuple[int, int]:
    """Which file a line is in, and its number there."""
    for number, lines in enumerate(EXAMPLE.files):
        if index < len(lines):
            return number, index + 1
        index -= len(lines)
    raise IndexError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_whole_log(tmp_path: Path) -> None:
    result, found = checked(EXAMPLE.write(tmp_path), keys=KEYS, from_start=True)
    assert result.verdict == "whole"
    assert (result.records, result.files, result.seals) == (len(LINES), 3, 6)
    assert result.head == as_anchor(EXAMPLE.head())
    assert [one.text for one in found] == ["records after the last seal, not sealed yet: 1"]


def test_an_unsealed_log_is_whole_until_somebody_has_a_key_for_it(tmp_path: Path) -> None:
    log = ReferenceLog(sealed=False)
    log.request("1")
    assert checked(log.write(tmp_path))[0].verdict == "whole"
    assert "not sealed" in one_break(tmp_path, keys=KEYS).text


@settings(max_examples=400, deadline=None)
@given(at=st.integers(0, SIZE - 1), bit=st.integers(0, 7))
def test_a_flipped_bit_shows_in_its_line(at: int, bit: int) -> None:
    content = b"".join(LINES)
    changed = bytearray(content)
    changed[at] ^= 1 << bit
    index = content[:at].count(b"\n")
    files, start = [], 0
    for lines in EXAMPLE.files:
        end = start + len(b"".join(lines))
        files.append([bytes(changed[start:end])])
        start = end
    file, line = place_of(index)
    with TemporaryDirectory() as name:
        folder = write_files(Path(name), files)
        result, found = checked(folder, keys=KEYS)
        assert result.verdict == "broken"
        first = breaks(found)[0]
        assert (first.file, first.line) == (names(folder)[file], line)
        # What else is reported is its consequence: the line behind it, or the seals. The number of
        # a seal is both.
        assert len(breaks(found)) <= 3 + numbers_a_seal(content, at)


def numbers_a_seal(content: bytes, at: int) -> bool:
    """Tell whether this byte is of a seal's own sequence number."""
    numbers = re.finditer(rb'"event\.sequence":(\d+),"event\.action":"seal"', content)
    return any(found.start(1) <= at < found.end(1) for found in numbers)


def test_every_byte_of_one_record() -> None:
    """No byte is left out by chance."""
    log = ReferenceLog(sealed=False)
    log.request("1")
    log.response("1")
    content = b"".join(log.files[0])
    with TemporaryDirectory() as name:
        path = Path(name, "audit.jsonl")
        for at in range(len(content)):
            path.write_bytes(content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :])
            first = breaks(checked(path)[1])[0]
            assert first.line == content[:at].count(b"\n") + 1


@settings(max_examples=60, deadline=None)
@given(index=st.integers(0, len(LINES) - 2))
def test_a_dropped_line_shows_where_it_was(index: int) -> None:
    file, line = place_of(index)
    with TemporaryDirectory() as name:
        folder = write_files(Path(name), files_without(index))
        result, found = checked(folder, keys=KEYS)
        first = breaks(found)[0]
        assert result.verdict == "broken"
        last_of_file = line == len(EXAMPLE.files[file])
        expected = (file + 1, 1) if last_of_file else (file, line)
        assert (first.file, first.line) == (names(folder)[expected[0]], expected[1])


@settings(max_examples=60, deadline=None)
@given(index=st.integers(0, len(LINES) - 1), target=st.integers(0, len(LINES) - 1))
def test_a_line_that_is_put_in_again_shows(index: int, target: int) -> None:
    file, line = place_of(target)
    files = [list(lines) for lines in EXAMPLE.files]
    files[file].insert(line - 1, LINES[index])
    with TemporaryDirectory() as name:
        folder = write_files(Path(name), files)
        first = breaks(checked(folder, keys=KEYS)[1])[0]
        same = index == target  # then the copy is the second of the two
        assert first.file == names(folder)[file]
        assert first.line in ((line + 1, line + 2) if same else (line,))


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_swapped_lines_show(data: st.DataObject) -> None:
    file = data.draw(st.integers(0, 2))
    lines = list(EXAMPLE.files[file])
    one = data.draw(st.integers(0, len(lines) - 2))
    other = data.draw(st.integers(one + 1, len(lines) - 1))
    lines[one], lines[other] = lines[other], lines[one]
    files = [lines if number == file else list(EXAMPLE.files[number]) for number in range(3)]
    with TemporaryDirectory() as name:
        folder = write_files(Path(name), files)
        first = breaks(checked(folder, keys=KEYS)[1])[0]
        assert (first.file, first.line) == (names(folder)[file], one + 1)


@settings(max_examples=100, deadline=None)
@given(cut=st.integers(1, len(b"".join(EXAMPLE.files[-1])) - 1))
def test_a_cut_tail_shows_with_an_anchor(cut: int) -> None:
    with TemporaryDirectory() as name:
        folder = EXAMPLE.write(Path(name))
        active = folder / "audit.jsonl"
        active.write_bytes(active.read_bytes()[:-cut])
        assert not breaks(checked(folder, keys=KEYS)[1]), "nothing in the log itself tells"
        problem = one_break(folder, keys=KEYS, anchor=as_anchor(EXAMPLE.head()))
        assert "before the anchor" in problem.text


def test_several_breaks_are_all_reported(tmp_path: Path) -> None:
    files = [list(lines) for lines in EXAMPLE.files]
    for file in files:
        file[3] = file[3].replace(b"app1", b"app9")
    folder = write_files(tmp_path, files)
    found = breaks(checked(folder, keys=KEYS)[1])
    assert [(one.file, one.line) for one in found] == [(name, 4) for name in names(folder)]
    assert [one.sequence for one in found] == [4, 16, 28]
    assert all("does not fit" in one.text for one in found)


def test_a_rewritten_end_is_whole_in_itself_and_shows_by_seal_and_anchor(tmp_path: Path) -> None:
    """The chain has no secret: who has the host can compute it anew, but not the old seals."""
    head = EXAMPLE.head()
    forged = example_with_another_key()
    forged.write(tmp_path)
    assert checked(tmp_path)[0].verdict == "whole"
    assert "rewritten" in one_break(tmp_path, anchor=as_anchor(head)).text
    found = breaks(checked(tmp_path, keys=KEYS)[1])
    assert len(found) == 6
    assert all("forged" in one.text for one in found)


def example_with_another_key() -> ReferenceLog:
    """A forger knows everything but the first key: its id is no secret."""
    log = ReferenceLog(first_key=bytes(32), key_id=KEY_ID)
    for _seal in range(6):
        for number in range(6):
            log.request(str(number), key="somebody")
        log.seal()
    return log


def test_a_missing_file(tmp_path: Path) -> None:
    EXAMPLE.write(tmp_path)
    first, second, *_rest = names(tmp_path)
    (tmp_path / second).unlink()
    found = breaks(checked(tmp_path, keys=KEYS)[1])
    assert (
        found[0].text == f"records 13 to 24 are missing: a file behind {first} is gone, or its end"
    )
    assert (found[0].file, found[0].line) == ("audit.jsonl", 1)
    assert "seals are missing: epoch 4 follows where 2" in found[1].text


def test_older_files_removed(tmp_path: Path) -> None:
    EXAMPLE.write(tmp_path)
    (tmp_path / names(tmp_path)[0]).unlink()
    result, found = checked(tmp_path, keys=KEYS)
    assert result.verdict == "whole"
    assert "begins at sequence 13" in found[0].text
    assert {one.text for one in breaks(checked(tmp_path, keys=KEYS, from_start=True)[1])} == {
        "the log begins at sequence 13: older files were removed",
        "seals are missing: epoch 2 follows where 0 was expected",
    }


def test_a_log_made_up_from_the_noted_head_on(tmp_path: Path) -> None:
    """Whoever takes the host removes all files, and writes one that claims to go on from there."""
    log = ReferenceLog()
    log.request("1")
    log.seal()
    noted = as_anchor(log.head())
    log.open()
    log.request("made up")
    log.files = log.files[-1:]
    log.write(tmp_path)
    result, found = checked(tmp_path, keys=KEYS, anchor=noted)
    assert result.verdict == "unchecked"
    (unchecked,) = [one for one in found if one.level is Level.UNCHECKED]
    assert "no seal to check" in unchecked.text
    result, _found = checked(tmp_path, keys=KEYS, anchor=noted, from_start=True)
    assert result.verdict == "broken"


def test_a_young_log_has_no_seal_yet(tmp_path: Path) -> None:
    log = ReferenceLog()
    log.request("1")
    result, found = checked(log.write(tmp_path), keys=KEYS)
    assert result.verdict == "whole"
    assert ["no seal to check" in one.text for one in found] == [True]


def test_a_missing_or_empty_active_file(tmp_path: Path) -> None:
    EXAMPLE.write(tmp_path)
    active = tmp_path / "audit.jsonl"
    active.write_bytes(b"")
    assert one_break(tmp_path).text == "holds no record"
    active.unlink()
    assert "audit.jsonl is missing" in one_break(tmp_path).text


def test_a_file_under_a_wrong_name(tmp_path: Path) -> None:
    EXAMPLE.write(tmp_path)
    middle = tmp_path / names(tmp_path)[1]
    middle.rename(tmp_path / "audit-00000000000000000014.jsonl")
    problem = one_break(tmp_path)
    assert (problem.file, problem.line) == ("audit-00000000000000000014.jsonl", 1)
    assert "name does not fit" in problem.text


def test_a_file_without_an_open_record(tmp_path: Path) -> None:
    log = ReferenceLog(sealed=False)
    log.request("1")
    log.files.append([])
    log.request("2")
    assert "begin with an open" in one_break(log.write(tmp_path)).text


def test_a_cut_beginning(tmp_path: Path) -> None:
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(EXAMPLE.files[0][2:]))
    first = breaks(checked(path)[1])[0]
    assert (first.line, first.sequence) == (1, 3)
    assert "beginning is cut off" in first.text


@pytest.mark.parametrize("junk", [b"\n", b"{}\n", b"null\n", b"x" * 2_000_000 + b"\n", b"[" * 9000])
def test_lines_that_are_no_records(tmp_path: Path, junk: bytes) -> None:
    lines = EXAMPLE.files[0]
    path = tmp_path / "audit.jsonl"
    path.write_bytes(b"".join(lines[:4]) + junk.rstrip(b"\n") + b"\n" + b"".join(lines[4:]))
    problem = one_break(path)
    assert (problem.line, problem.sequence) == (5, None)
    assert problem.text.startswith("is not")


def test_torn_lines(tmp_path: Path) -> None:
    """An info where the service may be writing; a break in a file that it has left."""
    EXAMPLE.write(tmp_path)
    for path, verdict in zip(
        sorted(tmp_path.iterdir()), ["broken", "broken", "whole"], strict=True
    ):
        content = path.read_bytes()
        path.write_bytes(content[:-40])
        assert checked(tmp_path)[0].verdict == verdict
        path.write_bytes(content)
    active = tmp_path / "audit.jsonl"
    active.write_bytes(
        active.read_bytes() + b'{"@timestamp":"2026-11-23T20:32:01.123456Z","event.seq'
    )
    result, found = checked(tmp_path)
    assert result.verdict == "whole"
    assert any("not complete" in one.text for one in found)


@pytest.mark.parametrize(
    "rest",
    [b"junk", b'{"@timestamp":"2026-11-23T20:32:01.123456Z","event.sequence":99,"a', LINES[5]],
)
def test_a_last_line_that_no_crash_makes(tmp_path: Path, rest: bytes) -> None:
    EXAMPLE.write(tmp_path)
    active = tmp_path / "audit.jsonl"
    active.write_bytes(active.read_bytes() + rest.rstrip(b"\n"))
    assert "not the beginning of the next record" in one_break(tmp_path).text


def test_an_anchor_within_the_log_and_one_before_it(tmp_path: Path) -> None:
    EXAMPLE.write(tmp_path)
    for line in LINES:
        record = json.loads(line)
        anchor = Position(record["event.sequence"], bytes.fromhex(record["event.hash"]))
        assert checked(tmp_path, anchor=anchor)[0].verdict == "whole"
    (tmp_path / names(tmp_path)[0]).unlink()
    at_edge = json.loads(EXAMPLE.files[0][-1])["event.hash"]
    assert checked(tmp_path, anchor=Position(12, bytes.fromhex(at_edge)))[0].verdict == "whole"
    assert "rewritten" in one_break(tmp_path, anchor=Position(12, bytes(32))).text
    assert checked(tmp_path, anchor=Position(11, bytes(32)))[0].verdict == "unchecked"


def sealed_log(*steps: str) -> ReferenceLog:
    """A log by what happened: s(eal), o(pen), r(equest), b(ackup of the key restored), …"""
    log = ReferenceLog()
    backup = (log.epoch, log.key)
    for step in steps:
        if step == "s":
            log.seal()
        elif step == "o":
            log.open()
        elif step == "r":
            log.request("1")
        elif step == "backup":
            backup = (log.epoch, log.key)
        elif step == "restore":
            log.epoch, log.key = backup
        elif step == "skip":
            log.epoch += 1
    return log


@pytest.mark.parametrize(
    ("steps", "problem"),
    [
        (["r", "s", "backup", "r", "s", "restore", "o"], "epoch 1 comes again (2 was expected)"),
        (["r", "s", "backup", "r", "s", "restore", "r", "s"], "epoch 1 comes again"),
        (["r", "s", "skip", "o", "r"], "seals are missing: epoch 2 follows where 1"),
        (["skip", "o"], "seals are missing: epoch 1 follows where 0"),
    ],
)
def test_epochs_out_of_order(tmp_path: Path, steps: list[str], problem: str) -> None:
    folder = sealed_log(*steps).write(tmp_path)
    assert problem in one_break(folder).text, "without the first key, too"
    assert problem in breaks(checked(folder, keys=KEYS)[1])[0].text


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"llm.audit.seal.mac": "00" * 32}, "forged"),
        ({"llm.audit.seal.mac": "00"}, "malformed"),
        ({"llm.audit.seal.epoch": -1}, "malformed"),
        ({"llm.audit.seal.epoch": True}, "malformed"),
        ({"llm.audit.seal.head": "00" * 32}, "another chain"),
        ({"llm.audit.seal.count": 1}, "another sequence"),
        ({"llm.audit.seal.epoch": 2**63}, "seals are missing"),
    ],
)
def test_wrong_seals(tmp_path: Path, changes: dict[str, t.Any], problem: str) -> None:
    log = ReferenceLog()
    log.request("1")
    log.seal(**changes)
    result, found = checked(log.write(tmp_path), keys=KEYS)
    assert result.verdict == "broken"
    assert problem in breaks(found)[0].text


@pytest.mark.parametrize("claims", [[90, 0] * 20, list(range(90, 1800, 90))])
def test_claims_of_far_epochs_take_no_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claims: list[int]
) -> None:
    steps = 0

    def counted(key: bytes) -> bytes:
        nonlocal steps
        steps += 1
        return next_key(key)

    monkeypatch.setattr(seal_check, "_MOST_STEPS", 100)
    monkeypatch.setattr(seal_check, "next_key", counted)
    log = ReferenceLog()
    for epoch in claims:
        log.seal(**{"llm.audit.seal.epoch": epoch})
    result, found = checked(log.write(tmp_path), keys=KEYS)
    assert result.verdict == "broken"
    assert any(one.text.endswith("is too far to check") for one in found)
    assert steps <= 100


def test_a_key_that_was_not_given(tmp_path: Path) -> None:
    result, found = checked(EXAMPLE.write(tmp_path), keys={"0" * 16: bytes(32)})
    assert result.verdict == "unchecked"
    assert KEY_ID in found[0].text


def test_a_second_key(tmp_path: Path) -> None:
    log = ReferenceLog()
    log.seal()
    other = ReferenceLog(first_key=bytes(32))
    log.key_id, log.key, log.epoch = other.key_id, other.key, 0
    log.open()
    log.request("1")
    log.seal()
    keys = KEYS | {other.key_id: bytes(32)}
    result, found = checked(log.write(tmp_path), keys=keys)
    # Whether seals of the first key are missing, nothing in the log can show.
    assert result.verdict == "unchecked"
    assert "a new key" in found[0].text
    assert checked(tmp_path)[0].verdict == "whole"


def test_sealing_that_ends(tmp_path: Path) -> None:
    log = ReferenceLog()
    log.seal()
    log.sealed = False
    log.open()
    log.request("1")
    assert checked(log.write(tmp_path))[0].verdict == "whole"
    assert "no more seals" in one_break(tmp_path, keys=KEYS).text


def test_a_key_that_was_stepped_forward(tmp_path: Path) -> None:
    log = ReferenceLog()
    log.seal()
    fields = {"event.action": "open", "llm.audit.key.id": KEY_ID, "llm.audit.key.epoch": 1}
    log.append(fields | {"llm.audit.key.stepped": 1})
    log.append(fields | {"llm.audit.key.stepped": 2})
    result, found = checked(log.write(tmp_path), keys=KEYS)
    assert result.verdict == "whole"
    assert ["2 epochs" in one.text for one in found] == [True, False]


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["drop", "put in"]),
        st.integers(0, 2),
        st.integers(0, 99),
        st.sampled_from(LINES),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=200, deadline=None)
@given(changes=CHANGES)
def test_lines_dropped_and_put_in_never_pass(changes: list[tuple[str, int, int, bytes]]) -> None:
    files = [list(lines) for lines in EXAMPLE.files]
    for kind, file, at, line in changes:
        if kind == "drop":
            del files[file][at % len(files[file])]
        else:
            files[file].insert(at % len(files[file]), line)
    assume(files != EXAMPLE.files)
    with TemporaryDirectory() as name:
        folder = write_files(Path(name), files)
        anchor = as_anchor(EXAMPLE.head())
        assert checked(folder, keys=KEYS, anchor=anchor)[0].verdict == "broken"
