# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx's reports: what they end, and what they add to the log."""

from __future__ import annotations

import json
import socket
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("httptools")

from llm_key_validator.in_flight import Admitted, InFlight
from llm_key_validator.metrics import Metrics
from llm_key_validator.quotas.memory import MemoryQuotas
from llm_key_validator.reports import Reports, ReportSource, parse_report
from llm_key_validator.tiers import parse_tiers

from .test_authorize import Recorder

ID = "0123456789abcdef" * 2


def datagram(**changes: t.Any) -> bytes:
    words = {
        "id": ID,
        "status": "200",
        "bytes": "321",
        "seconds": "0.045",
        "forwarded": "",
        "key": "",
        "client": "10.0.1.5",
        "method": "POST",
        "path": "/api/chat?token=x",
        **changes,
    }
    return f"<190>Nov 23 20:31:20 llm: {' '.join(map(str, words.values()))}".encode()


class Desk:
    def __init__(self) -> None:
        self.audit = Recorder()
        self.in_flight = InFlight(3600)
        self.quotas = MemoryQuotas(3600)
        self.metrics = Metrics()
        self.reports = Reports(self.audit, self.in_flight, self.quotas, self.metrics)

    def take(self, **changes: t.Any) -> None:
        report = parse_report(datagram(**changes))
        assert report is not None
        self.reports.take(report)


def test_the_end_of_a_request() -> None:
    desk = Desk()
    desk.in_flight.admit(ID, Admitted("app1", "tiny:latest", 0))
    desk.take(key="app1", forwarded="1")
    (kept,) = desk.audit.records
    assert kept == {
        "event.action": "response",
        "event.outcome": "success",
        "http.request.id": ID,
        "user.id": "app1",
        "gen_ai.request.model": "tiny:latest",
        "http.response.status_code": 200,
        "event.duration": 45_000_000,
        "http.response.body.bytes": 321,
    }
    assert len(desk.in_flight) == 0


def test_a_place_is_free_at_the_end_whatever_nginx_knows_of_the_key() -> None:
    """nginx knows no key of a request whose client hung up, or that the hop answered itself."""
    desk = Desk()
    tier = parse_tiers({"one": {"parallel_requests": 1}})["one"]
    assert desk.quotas.admit("app1", tier, ID, 0).allowed
    desk.in_flight.admit(ID, Admitted("app1", None, 0))
    assert not desk.quotas.admit("app1", tier, "1" * 32, 0).allowed
    desk.take(status=499, key="")
    assert desk.quotas.admit("app1", tier, "1" * 32, 0).allowed
    assert desk.audit.records[-1]["user.id"] == "app1"


def test_a_refusal_that_is_recorded_gets_no_second_record() -> None:
    desk = Desk()
    desk.in_flight.refuse(ID)
    desk.take(status=401)
    assert desk.audit.records == []


@pytest.mark.parametrize("status", [400, 404, 413, 429])
def test_what_nginx_refused_itself_is_recorded(status: int) -> None:
    desk = Desk()
    desk.take(status=status)
    (kept,) = desk.audit.records
    assert kept["event.action"] == "refusal"
    assert kept["event.reason"] == f"http_{status}"
    assert kept["url.path"] == "/api/chat"
    assert kept["client.ip"] == "10.0.1.5"


SMALL = parse_tiers({"small": {"parallel_requests": 1}})["small"]


@pytest.mark.parametrize("status", [200, 404, 502])
def test_an_end_whose_beginning_is_not_known_is_recorded_and_frees_its_place(status: int) -> None:
    """The service was started anew meanwhile, and the counters are elsewhere."""
    desk = Desk()
    assert desk.quotas.admit("app1", SMALL, ID, 0).allowed
    desk.take(status=status, key="app1", forwarded="1")
    assert desk.audit.actions == ["response"]
    assert desk.audit.records[0]["user.id"] == "app1"
    assert desk.quotas.admit("app1", SMALL, "1" * 32, 0).allowed


@pytest.mark.parametrize("status", ["499", "503", "000"])
def test_what_was_never_forwarded_is_a_refusal_and_given_up(status: str) -> None:
    desk = Desk()
    desk.take(status=status, key="app1")
    assert desk.audit.actions == ["refusal"]
    assert desk.audit.records[0]["user.id"] == "app1"
    assert desk.in_flight.was_given_up(ID)


@pytest.mark.parametrize(
    ("status", "said", "reason"),
    [
        ("403", "certificate_revoked", "certificate_revoked"),
        ("403", "crl_expired", "crl_expired"),
        ("400", "certificate_missing", "http_400"),
        ("403", "certificate_Revoked", "http_403"),
        ("403", "", "http_403"),
    ],
)
def test_what_was_wrong_with_a_certificate(status: str, said: str, reason: str) -> None:
    desk = Desk()
    desk.take(status=status, forwarded=said)
    assert desk.audit.records[0]["event.reason"] == reason
    assert desk.audit.actions == ["refusal"]


@pytest.mark.parametrize(
    "noise",
    [
        b"",
        b"<190>Nov 23 20:31:20 llm: ",
        b"<190>Nov 23 20:31:20 llm: " + b" " * 99999,
        datagram().partition(b"llm: ")[2],
        datagram().rpartition(b" ")[0],
        datagram(id="../../etc"),
        datagram(id=7),
        datagram(client="somewhere"),
        datagram(status="many"),
        datagram(seconds="inf"),
        datagram(seconds="nan"),
    ],
)
def test_noise_is_counted_and_nothing_else(noise: bytes) -> None:
    assert parse_report(noise) is None
    desk = Desk()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setblocking(False)
    with ours, theirs:
        theirs.send(noise)
        theirs.send(datagram())
        assert desk.reports.read(ours)
    assert desk.metrics.reports_unreadable == 1
    assert desk.audit.actions == ["response"]


class Loop:
    """An event loop that does what it is told when it is told to."""

    def __init__(self) -> None:
        self.readers: dict[object, t.Callable[[], None]] = {}
        self.later: list[tuple[float, t.Callable[[], None]]] = []

    def add_reader(self, source: object, call: t.Callable[[], None]) -> None:
        self.readers[source] = call

    def remove_reader(self, source: object) -> None:
        del self.readers[source]

    def call_later(self, delay: float, call: t.Callable[[], None]) -> None:
        self.later.append((delay, call))


def test_reports_gather_unless_somebody_asks() -> None:
    loop, reads, all_read = Loop(), [], True

    def read(source: object) -> bool:
        reads.append(source)
        return all_read

    source = ReportSource("socket", read, loop, 0.005)  # type: ignore[arg-type]
    loop.readers["socket"]()
    assert (reads, loop.readers, loop.later[0][0]) == (["socket"], {}, 0.005)
    source.catch_up()
    assert len(reads) == 2
    loop.later.pop()[1]()
    all_read = False
    loop.readers["socket"]()
    assert "socket" in loop.readers, "what is left over is read at once"
    assert loop.later == []


def test_without_a_pause_each_report_is_read_at_once() -> None:
    loop = Loop()
    ReportSource("socket", lambda _source: True, loop, 0)  # type: ignore[arg-type]
    loop.readers["socket"]()
    assert "socket" in loop.readers


@given(st.binary())
def test_no_bytes_are_an_accident(noise: bytes) -> None:
    report = parse_report(b"<190>Nov 23 20:31:20 llm: " + noise)
    assert report is None or report.path != ""


@given(st.text())
def test_a_path_is_read_as_nginx_escapes_it(path: str) -> None:
    """ngx_http_log_module, escape=json: what JSON needs escaped, and no more."""
    escaped = json.dumps("/" + path, ensure_ascii=False)[1:-1]
    report = parse_report(datagram(path=escaped, status=404))
    assert report is not None
    assert report.path == ("/" + path).partition("?")[0].encode("utf-8", "replace").decode()[:256]


def test_bytes_that_are_no_text_do_not_hide_a_request() -> None:
    report = parse_report(datagram(path="/x", status=404).replace(b"/x", b"/\xff"))
    assert report is not None
    assert report.path == "/\ufffd"


def test_a_method_or_path_of_any_kind_is_bounded() -> None:
    report = parse_report(datagram(method="G\x01T", path="/" + "a" * 9000))
    assert report is not None
    assert report.method is None
    assert report.path == "/" + "a" * 255
    unreadable = parse_report(datagram(method="", path="", status="400"))
    assert unreadable is not None
    assert (unreadable.method, unreadable.path) == (None, None)
