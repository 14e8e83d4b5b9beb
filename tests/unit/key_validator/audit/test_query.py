# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests and responses joined, filtered, rendered and summed up."""

from __future__ import annotations

import ipaddress
import json
import math
import os
import typing as t
from contextlib import closing
from datetime import UTC, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.audit import query, stats
from llm_key_validator.audit.query import Event, Filter, Reader, render
from llm_key_validator.audit.reading import Log
from llm_key_validator.audit.stats import OTHERS, Durations, Stats

from .reference_log import START, ReferenceLog


def traffic() -> ReferenceLog:
    """Overlapping requests of two keys over two files."""
    log = ReferenceLog()
    log.request("a")
    log.request("b", key="app2", model="llama3:8b", client="10.9.0.1")
    log.response("b", key="app2", model=None, status=500, outcome="failure", duration=9_000_000)
    log.refusal(id="c")
    log.seal()
    log.open()
    log.response("a")
    log.request("d", path="/api/embed", model=None)
    return log


def events(folder: Path, **wanted: t.Any) -> list[Event]:
    with closing(Log([folder])) as log:
        return list(Reader(log).events(Filter(**wanted)))


def ids(found: list[Event]) -> list[object]:
    return [one.get("http.request.id") for one in found if one.get("http.request.id")]


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({}, ["b", "c", "a", "d"]),
        ({"key": "app1"}, ["a", "d"]),
        ({"key": "app2"}, ["b", "c"]),
        ({"model": "llama3:8b".__eq__}, ["b"]),
        ({"client": ipaddress.ip_network("10.9.0.0/16")}, ["b"]),
        ({"client": ipaddress.ip_network("fd00::/8")}, []),
        ({"status": range(400, 600)}, ["b", "c"]),
        ({"status": range(200, 201)}, ["a"]),
        ({"reason": "model"}, ["c"]),
        ({"request": "d"}, ["d"]),
        ({"key": "app2", "status": range(500, 600)}, ["b"]),
        ({"since": START + timedelta(seconds=2)}, ["b", "c", "a", "d"]),
        ({"since": START + timedelta(seconds=3)}, ["b", "c", "a", "d"]),
        ({"since": START + timedelta(seconds=4)}, ["c", "a", "d"]),
        ({"until": START + timedelta(seconds=1)}, ["a"]),
    ],
)
def test_filters(tmp_path: Path, wanted: dict[str, t.Any], found: list[str]) -> None:
    assert ids(events(traffic().write(tmp_path), **wanted)) == found


def test_a_response_is_joined_across_files(tmp_path: Path) -> None:
    (found,) = events(traffic().write(tmp_path), request="a")
    assert found.status == 200
    assert found.get("client.ip") == "10.0.1.5"
    assert [json.loads(line)["event.action"] for line in found.lines()] == ["request", "response"]


def test_old_files_are_passed_over_by_their_time(tmp_path: Path) -> None:
    traffic().write(tmp_path)
    old, active = sorted(tmp_path.iterdir())
    assert old.name < active.name
    os.utime(old, (START.timestamp(),) * 2)
    assert ids(events(tmp_path, since=START + timedelta(minutes=30))) == []
    old.write_bytes(b"no records\n")
    os.utime(old, (START.timestamp(),) * 2)
    with closing(Log([tmp_path])) as log:
        reader = Reader(log)
        assert not list(reader.events(Filter(since=START + timedelta(hours=2))))
        assert reader.unreadable == 0


def test_reading_ends_an_hour_behind_the_period(tmp_path: Path) -> None:
    log = ReferenceLog()
    log.request("a")
    log.now += timedelta(minutes=50)
    log.response("a")
    log.open()
    log.now += timedelta(minutes=50)
    log.files.append([b"no record\n" for _number in range(3)])
    log.files[-1].insert(0, log.append({"event.action": "open"}))
    folder = log.write(tmp_path)
    with closing(Log([folder])) as opened:
        reader = Reader(opened)
        (found,) = list(reader.events(Filter(until=START + timedelta(seconds=2))))[1:]
        assert found.status == 200
        assert reader.unreadable == 0


def test_a_clock_that_was_ahead_hides_nothing(tmp_path: Path) -> None:
    log = ReferenceLog()
    log.now += timedelta(hours=2)
    log.request("a")
    log.open()
    log.now = START
    log.request("b")
    assert ids(events(log.write(tmp_path), until=START + timedelta(minutes=1))) == ["b"]


def test_lost_responses_do_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query, "MOST_PENDING", 2)
    log = ReferenceLog()
    for name in "abc":
        log.request(name)
    log.response("a")
    log.response("c")
    found = events(log.write(tmp_path))
    assert [(one.get("http.request.id"), one.action, one.status) for one in found[1:]] == [
        ("a", "request", None),  # given up when c came
        ("a", "response", 200),
        ("c", "request", 200),
        ("b", "request", None),
    ]


def last(folder: Path, count: int) -> list[Event]:
    with closing(Log([folder])) as log:
        return Reader(log).last_events(count)


def test_the_last_events(tmp_path: Path) -> None:
    traffic().write(tmp_path)
    assert ids(last(tmp_path, 1)) == ["d"]
    (joined, _pending) = last(tmp_path, 2)
    assert (joined.get("client.ip"), joined.status) == ("10.0.1.5", 200)
    assert [one.action for one in last(tmp_path, 100)] == [
        "open",
        "request",
        "refusal",
        "seal",
        "open",
        "request",
        "request",
    ]
    assert last(tmp_path, 0) == []


def test_the_last_events_of_a_long_log_are_found_without_reading_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A response whose request is far away is shown without it."""
    monkeypatch.setattr(query, "_LOOK_BACK", 5)
    log = ReferenceLog()
    log.request("a")
    for number in range(20):
        log.refusal(id=str(number))
    log.response("a")
    folder = log.write(tmp_path)
    active = folder / "audit.jsonl"
    active.write_bytes(b"no record\n" + active.read_bytes())
    with closing(Log([folder])) as opened:
        reader = Reader(opened)
        (found,) = reader.last_events(1)
        assert found.action == "response"
        assert reader.unreadable == 0


def texts(folder: Path) -> list[str]:
    return [render(one, UTC) for one in last(folder, 100)]


def test_rendering(tmp_path: Path) -> None:
    lines = texts(traffic().write(tmp_path))
    assert lines[2].startswith("2026-11-23 20:31:24.123  403  refused: model  app2 10.0.1.9 -")
    joined = "20:31:21.123  200      153.0 ms  app1 10.0.1.5 POST /api/chat tiny:latest"
    assert lines[5] == f"2026-11-23 {joined}"
    assert "---   no response  app1 10.0.1.5 POST /api/embed -" in lines[6]
    assert "log          seal  key id" in lines[3]


def test_a_hostile_record_does_nothing_to_the_terminal(tmp_path: Path) -> None:
    log = ReferenceLog()
    log.refusal(path="/\x1b]0;title\x07\u202e", reason="\x9b2J", client=["10.0.0.1"], key={"a": 1})
    log.append({"event.action": "\x1b[31m", "llm.audit.x": "\x1b", "@timestamp": 7})
    log.append({"event.action": ["request"]})
    log.append({"event.action": "response", "event.duration": "1", "http.request.id": [1]})
    log.append({"event.action": "resume", "llm.audit.\x1b]0;title\x07": 1})
    text = "\n".join(texts(log.write(tmp_path)))
    assert text.replace("\n", "").isprintable()
    assert "(no time)" in text
    assert ids(events(tmp_path, client=ipaddress.ip_network("10.0.0.0/8"))) == []


def test_a_hostile_number_ends_nothing(tmp_path: Path) -> None:
    log = ReferenceLog()
    log.request("a", status=10**400)
    log.response("a", duration=10**400)
    folder = log.write(tmp_path)
    assert "no response  app1" in texts(folder)[1]
    assert sums_by(folder, "key")["app1",]["requests"] == 1
    summed = Stats([])
    for event in events(folder):
        summed.add(event)
    assert summed.groups()[0][1].durations.percentile(0.5) is not None


def test_hostile_records_do_not_fill_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query, "_MOST_PENDING_BYTES", 2000)
    log = ReferenceLog()
    for name in "abcde":
        log.request(name)
    log.request("long", key="x" * 70_000)
    log.request("e")
    log.refusal(id="c", key="x" * 5000)
    folder = log.write(tmp_path)
    with closing(Log([folder])) as opened:
        reader = Reader(opened)
        found = ids(list(reader.events(Filter())))
        assert reader.unreadable == 1
    assert sorted(map(str, found)) == ["a", "b", "c", "c", "d", "e", "e"]
    assert found.index("a") < found.index("c"), "given up before the end"
    (group,) = [group for group in sums_by(folder, "key") if group[0] != "app1"]
    assert group == ("x" * 1024,)


def sums_by(folder: Path, *by: str) -> dict[tuple[str | None, ...], dict[str, t.Any]]:
    summed = Stats(by)
    for event in events(folder):
        summed.add(event)
    return {
        group: {
            "requests": sums.requests,
            "refused": sums.refused,
            "failed": sums.failed,
            "unanswered": sums.unanswered,
            "bytes": (sums.bytes_in, sums.bytes_out),
        }
        for group, sums in summed.groups()
    }


def test_sums(tmp_path: Path) -> None:
    log = traffic()
    log.append({"event.action": "suppressed", "event.reason": "rate", "llm.audit.count": 40})
    log.write(tmp_path)
    by_key = sums_by(tmp_path, "key")
    assert by_key["app1",] == {
        "requests": 2,
        "refused": 0,
        "failed": 0,
        "unanswered": 1,
        "bytes": (240, 1000),
    }
    assert by_key["app2",]["failed"] == 1
    assert by_key["app2",]["refused"] == 1
    assert {group: sums["refused"] for group, sums in sums_by(tmp_path, "reason").items()} == {
        (None,): 0,
        ("model",): 1,
        ("rate",): 40,
    }
    assert set(sums_by(tmp_path, "key", "model")) == {
        ("app1", "tiny:latest"),
        ("app1", None),
        ("app2", "llama3:8b"),
        ("app2", None),
        (None, None),
    }


def test_many_groups_are_summed_up_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stats, "MOST_GROUPS", 2)
    log = ReferenceLog()
    for number in range(5):
        log.refusal(client=f"10.0.0.{number}")
    assert sums_by(log.write(tmp_path), "client")[OTHERS,]["refused"] == 3


@given(st.lists(st.integers(1, 10**13), min_size=1, max_size=200), st.sampled_from([0.5, 0.95, 1]))
def test_percentiles_are_close(values: list[int], share: float) -> None:
    durations = Durations()
    for value in values:
        durations.add(value)
    exact = sorted(values)[math.ceil(len(values) * share) - 1] / 1e6
    found = durations.percentile(share)
    assert found is not None
    assert found == pytest.approx(exact, rel=0.0221)
    assert Durations().percentile(share) is None
