# SPDX-License-Identifier: GPL-3.0-or-later
"""Lines, their links, and what the end of a file tells."""

from __future__ import annotations

import hashlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.audit.chain import (
    START,
    Position,
    Stamp,
    fields_of,
    follows,
    judge_tail,
    link,
    named_before,
    position_of,
)

from ..conftest import NOW


def lines(count: int, after: Position = START) -> list[bytes]:
    """Lines without their newlines."""
    stamp = Stamp().render(NOW)
    return [one[:-1] for one in link([(stamp, b'"event.action":"open"', None)] * count, after)[0]]


def test_a_line_as_the_format_says() -> None:
    (line,), end = link([(Stamp().render(NOW + 0.123456), b'"a":"b"', None)], START)
    body = b'{"@timestamp":"2026-11-23T00:00:00.123456Z","event.sequence":1,"a":"b"'
    digest = hashlib.sha256(bytes(32) + body)
    assert line == body + b',"event.hash":"' + digest.hexdigest().encode() + b'"}\n'
    assert end == Position(1, digest.digest())
    assert json.loads(line)["event.sequence"] == 1


@given(st.floats(0, 4e9))
def test_a_timestamp_always_has_its_27_characters(now: float) -> None:
    stamp = Stamp()
    for moment in (now, now + 0.0001, now + 1, now):
        (line,), _end = link([(stamp.render(moment), b'"a":1', None)], START)
        assert position_of(line[:-1]) is not None
        assert json.loads(line)["@timestamp"].endswith("Z")


def test_a_record_follows_only_the_one_before_it() -> None:
    first, second, third = lines(3)
    one = position_of(first)
    assert one is not None
    assert follows(first, START)
    assert follows(second, one)
    assert not follows(third, one)
    assert not follows(second.replace(b'"open"', b'"seal"'), one)
    assert not follows(second, Position(1, bytes(32)))


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{}",
        b'{"@timestamp":"2026-11-23T00:00:00.123456Z","event.sequence":01,"a":1,"event.hash":"%b"}'
        % (b"a" * 64),
        b'{"@timestamp":"2026-11-23T00:00:00.123456Z","event.sequence":1,"a":1,"event.hash":"AB"}',
    ],
)
def test_what_is_no_record_has_no_position(line: bytes) -> None:
    assert position_of(line) is None


@pytest.mark.parametrize("line", [b"", b"[" * 100_000, b"[1]", b"\xff"])
def test_fields_of_anything(line: bytes) -> None:
    assert fields_of(line) == {}


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({"event.action": "open"}, START),
        ({"event.action": "request"}, None),
        (
            {
                "event.action": "open",
                "llm.audit.previous.sequence": 7,
                "llm.audit.previous.hash": "ab" * 32,
            },
            Position(7, b"\xab" * 32),
        ),
        ({"event.action": "open", "llm.audit.previous.sequence": True}, None),
        ({"event.action": "open", "llm.audit.previous.hash": "zz"}, None),
        ({"event.action": "open", "llm.audit.previous.hash": 1}, None),
    ],
)
def test_an_open_record_names_its_predecessor(
    fields: dict[str, object], wanted: Position | None
) -> None:
    assert named_before(json.dumps(fields).encode()) == wanted


def test_a_whole_tail_is_trusted() -> None:
    content = b"\n".join([*lines(3), b""])
    tail = judge_tail(content, from_start=True)
    assert (tail.trusted, tail.torn) == (True, b"")
    assert tail.last == position_of(lines(3)[-1])
    # A window may begin anywhere in the first line.
    assert judge_tail(content[50:], from_start=False) == tail


def test_nothing_in_a_file() -> None:
    assert judge_tail(b"", from_start=True).trusted
    assert judge_tail(b"", from_start=True).last is None
    assert not judge_tail(b"x" * 100, from_start=False).trusted


def test_one_torn_line_is_cut_two_are_not() -> None:
    first, second, third = lines(3)
    assert not second.endswith(b'0"}')
    spoilt = third.replace(b'"open"', b'"seal"')
    tail = judge_tail(b"\n".join([first, second, spoilt, b""]), from_start=True)
    assert (tail.trusted, tail.torn) == (True, spoilt + b"\n")
    assert tail.last == position_of(second)
    for more in (b"", b'{"@time', b"\0\0\0"):
        spoilt_two = b"\n".join([first, second[:-3] + b'0"}', third, more])
        tail = judge_tail(spoilt_two, from_start=True)
        assert (tail.trusted, tail.torn) == (False, b"")
        # What it claims is what the next file goes on from.
        assert tail.last == position_of(third)


def test_a_torn_end_behind_a_spoilt_line_is_more_than_a_crash() -> None:
    first, second, third = lines(3)
    content = b"\n".join([first, second, third.replace(b'"open"', b'"seal"'), b'{"@t'])
    assert not judge_tail(content, from_start=True).trusted


def test_zeros_after_power_loss_are_torn() -> None:
    content = b"\n".join([*lines(2), b"\0" * 4096])
    tail = judge_tail(content, from_start=True)
    assert (tail.trusted, tail.torn) == (True, b"\0" * 4096)


def test_a_files_only_line() -> None:
    """Cut when it is no record; else it is one whose place cannot be checked, and stays."""
    stamp = Stamp().render(NOW)
    (request,), end = link([(stamp, b'"event.action":"request"', None)], START)
    tail = judge_tail(request, from_start=True)
    assert (tail.last, tail.torn, tail.trusted) == (end, b"", False)
    tail = judge_tail(b'{"@timestamp":"2026\n', from_start=True)
    assert (tail.last, tail.torn, tail.trusted) == (None, b'{"@timestamp":"2026\n', True)
