# SPDX-License-Identifier: GPL-3.0-or-later
"""Records as datagrams, to receivers that listen, do not, or are gone."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from llm_key_validator.audit.sinks import JournaldSink, SyslogSink, make_sinks

LINE = b'{"@timestamp":"2026-11-23T00:00:00.000000Z","event.sequence":1,"event.hash":"00"}\n'


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "socket"))
        bound.settimeout(5)
        yield bound


def test_journald_gets_fields(receiver: socket.socket) -> None:
    sink = JournaldSink(receiver.getsockname())
    assert sink.take(LINE)
    fields = dict(line.split(b"=", 1) for line in receiver.recv(9999).splitlines())
    assert fields == {
        b"PRIORITY": b"6",
        b"SYSLOG_IDENTIFIER": b"llm-audit",
        b"MESSAGE": LINE[:-1],
    }
    sink.close()


def test_syslog_gets_priority_time_and_tag(receiver: socket.socket) -> None:
    sink = SyslogSink(receiver.getsockname())
    assert sink.take(LINE)
    message = receiver.recv(9999)
    header = rb"<86>(Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec) [ 123]\d \d\d:\d\d:\d\d "
    assert re.fullmatch(header + rb"llm-audit\[\d+\]: (.*)", message)
    assert message.endswith(LINE[:-1])
    sink.close()


@pytest.mark.parametrize("kind", [JournaldSink, SyslogSink])
def test_a_receiver_that_is_gone_takes_nothing_until_it_is_back(
    tmp_path: Path, kind: type[JournaldSink | SyslogSink]
) -> None:
    sink = kind(str(tmp_path / "socket"))
    assert not sink.take(LINE)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as bound:
        bound.bind(str(tmp_path / "socket"))
        assert sink.take(LINE)
    sink.close()


@pytest.mark.parametrize("kind", [JournaldSink, SyslogSink])
def test_a_full_receiver_is_not_waited_for(
    receiver: socket.socket, kind: type[JournaldSink | SyslogSink]
) -> None:
    sink = kind(receiver.getsockname())
    taken = [sink.take(LINE) for _unused in range(2000)]
    assert taken[0]
    assert not taken[-1]
    receiver.recv(9999)
    assert sink.take(LINE)
    sink.close()


@pytest.mark.parametrize(("kind", "limit"), [(JournaldSink, 131072), (SyslogSink, 8192)])
def test_a_record_is_handed_over_whole_or_not(
    receiver: socket.socket, kind: type[JournaldSink | SyslogSink], limit: int
) -> None:
    sink = kind(receiver.getsockname())
    assert not sink.take(b"x" * limit + b"\n")
    assert sink.take(b"x" * (limit - 100) + b"\n")
    assert receiver.recv(limit).rstrip(b"\n").endswith(b"x" * (limit - 100))
    sink.close()


def test_sinks_by_name() -> None:
    sinks = make_sinks(("file", "syslog", "journald"))
    assert [sink.name for sink in sinks] == ["syslog", "journald"]
    for sink in sinks:
        sink.close()
