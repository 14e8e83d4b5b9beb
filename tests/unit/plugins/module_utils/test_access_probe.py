# SPDX-License-Identifier: GPL-3.0-or-later
"""How many requests are asked: kept connections, limits, and the end of the time."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import access_probe
from ansible_collections.llmsec.hardening.plugins.module_utils.access_corpus import (
    Case,
    Places,
    Question,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import (
    REFUSED,
    Answer,
    NoConnectionError,
)

REFUSAL = Answer(404, {}, b"<hr><center>nginx</center>")
LIMITED = Answer(429, {"retry-after": "6"}, b"<hr><center>nginx</center>")
CLOSED = Answer(why="closed")
SPOTS = Places(host="x", read="/", post="/", managed="/")


class Fake:
    """An endpoint whose connections give these answers, one list for each."""

    address, port, timeout = "x", 1, 1.0

    def __init__(self, *connections):
        self.connections = [*connections]
        self.sources, self.raws = [], []

    def dial(self, source=None, name=None):
        self.sources.append(source)
        if not self.connections:
            raise NoConnectionError(REFUSED, "nobody")
        return FakeWire(self.connections.pop(0), self.raws)


class FakeWire:
    def __init__(self, answers, raws):
        self.open, self._answers, self._raws = True, [*answers], raws

    def __enter__(self):
        return self

    def __exit__(self, *_unused):
        """Nothing to close."""

    def send(self, raw):
        self._raws.append(raw)

    def answer(self, method, within):
        answer = self._answers.pop(0) if self._answers else CLOSED
        self.open = answer.status != 0
        return answer

    def close(self):
        self.open = False


class Addresses:
    def __init__(self, many):
        self.many, self.taken = many, 0

    def take(self):
        self.taken += 1
        return f"127.64.0.{self.taken}" if self.many else None


class Clock:
    now = 0.0

    def sleep(self, seconds):
        self.now += seconds


def asked(*connections, many=True, until=60.0):
    """A prober, its endpoint and its clock."""
    clock, endpoint = Clock(), Fake(*connections)
    prober = access_probe.Prober(
        endpoint, Addresses(many), until, SPOTS, clock=lambda: clock.now, sleep=clock.sleep
    )
    return prober, endpoint, clock


def question(**more):
    return Question(group="methods", method="GET", path="/x", **more)


def statuses(found):
    return [str(one.answers[0]) for _question, one in found]


def test_a_connection_is_kept_and_made_again_when_it_was_closed():
    prober, endpoint, _clock = asked([REFUSAL, REFUSAL], [REFUSAL])
    assert statuses(prober.path([question()] * 3)) == ["404", "404", "404"]
    assert endpoint.sources == ["127.64.0.1", "127.64.0.2"]


def test_a_server_that_always_hangs_up_is_not_asked_for_ever():
    prober, endpoint, _clock = asked([], [], [])
    assert statuses(prober.path([question()])) == ["closed"]
    assert len(endpoint.sources) == 1


def test_a_limit_is_met_from_another_address():
    prober, endpoint, clock = asked([REFUSAL, LIMITED], [LIMITED], [REFUSAL])
    assert statuses(prober.path([question()] * 2)) == ["404", "404"]
    assert endpoint.sources == ["127.64.0.1", "127.64.0.2", "127.64.0.3"]
    assert clock.now == 0


def test_from_one_address_it_is_waited_for():
    prober, _endpoint, clock = asked([LIMITED], [REFUSAL], many=False)
    assert statuses(prober.path([question()])) == ["404"]
    assert clock.now == 6


@pytest.mark.parametrize("many", [True, False])
def test_a_limit_that_stays_is_the_answer(many):
    prober, endpoint, clock = asked(*[[LIMITED]] * 9, many=many, until=15.0)
    assert statuses(prober.path([question()])) == ["429"]
    assert len(endpoint.sources) <= 4
    assert clock.now < 15


def test_after_the_time_nothing_is_asked():
    prober, endpoint, _clock = asked([REFUSAL], until=0.0)
    assert statuses(prober.path([question()])) == ["not asked"]
    (one,) = prober.case(Case(id="x", title="x", requests=(b"GET / HTTP/1.1\r\n\r\n",)))
    assert str(one.answers[0]) == "not asked"
    assert endpoint.sources == []


def test_what_is_unsafe_is_asked_of_who_refused_all_the_rest():
    asks = [question(), question(unsafe=True)]
    prober, _endpoint, _clock = asked([REFUSAL, REFUSAL])
    assert statuses(prober.path(asks)) == ["404", "404"]
    for first in (Answer(405, {}, b"405 method not allowed"), Answer(503), LIMITED, CLOSED):
        prober, endpoint, _clock = asked(*[[first]] * 9)
        assert len(prober.path(asks)) == 1
        assert not [raw for raw in endpoint.raws if b"Expect:" in raw]


def test_all_answers_on_a_connection_are_seen():
    inside = Answer(200, {}, b"Ollama is running")
    prober, _endpoint, _clock = asked([REFUSAL, inside])
    (one,) = prober.case(Case(id="x", title="x", requests=(b"GET / HTTP/1.1\r\n\r\n",)))
    assert one.answers == (REFUSAL, inside)


def test_a_limited_case_is_asked_again_with_other_words():
    prober, endpoint, _clock = asked([LIMITED], [REFUSAL])
    template = b"GET / HTTP/1.1\r\nAuthorization: <Bearer>\r\nX-API-Key: <key>\r\n\r\n"
    (one,) = prober.case(Case(id="x", title="x", requests=(template,)))
    assert one.answers == (REFUSAL,)
    first, second = endpoint.raws
    assert b"Authorization: Bearer\r\n" in first
    assert first != second
