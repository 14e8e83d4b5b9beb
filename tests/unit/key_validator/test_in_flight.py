# SPDX-License-Identifier: GPL-3.0-or-later
"""What is remembered of requests, and for how long."""

from __future__ import annotations

from llm_key_validator.in_flight import Admitted, InFlight


def test_a_request_ends_once() -> None:
    table = InFlight(10)
    admitted = Admitted("app1", "tiny:latest", 0)
    table.admit("a", admitted)
    assert len(table) == 1
    assert table.end("a") is admitted
    assert table.end("a") is None
    assert len(table) == 0


def test_a_refusal_is_known_once() -> None:
    table = InFlight(10)
    table.refuse("a")
    assert table.was_refused("a")
    assert not table.was_refused("a")
    assert not table.was_refused("b")


def test_a_request_given_up_is_known_once() -> None:
    table = InFlight(10)
    table.give_up("a")
    assert table.was_given_up("a")
    assert not table.was_given_up("a")


def test_neither_table_grows_for_ever() -> None:
    table = InFlight(10)
    for number in range(10_005):
        table.refuse(str(number))
    assert not table.was_refused("4")
    assert table.was_refused("5")
    for number in range(20):
        table.admit(str(number), Admitted("app1", None, number))
    table.sweep(15)
    assert len(table) == 14
    assert table.end("5") is None
    assert table.end("6") is not None
