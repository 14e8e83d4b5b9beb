# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking real ports on loopback whether an LLM server answers."""

from __future__ import annotations

import socket
import threading
import time
from types import SimpleNamespace

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import listener_answers
from ansible_collections.llmsec.hardening.plugins.module_utils.listener_answers import (
    answers_as,
    place_of,
    who_answers,
)

from tests.unit.plugins.module_utils.test_service_host import NO_PORT, serving


@pytest.mark.parametrize(
    ("body", "is_server"),
    [
        (b'{"models":[]}', True),
        (b'{"version":"1"}', False),
        (b"<html>", False),
        (b"[]", False),
    ],
)
def test_only_the_server_answers_so(body, is_server):
    with serving(200, body) as (address, asked):
        port = int(address.rpartition(":")[2])
        assert answers_as("ollama", "127.0.0.1", port) is is_server
        assert answers_as("localai", "127.0.0.1", port) is False
    assert asked == [("/api/tags", "localhost:11434")]


def test_a_port_where_nobody_answers():
    assert answers_as("ollama", "127.0.0.1", int(NO_PORT.rpartition(":")[2])) is False
    assert [place_of(one) for one in ("0.0.0.0", "::", "192.0.2.7")] == [  # noqa: S104
        "127.0.0.1", "::1", "192.0.2.7",
    ]  # fmt: skip


def listener(port):
    return SimpleNamespace(address="127.0.0.1", port=port)


def test_one_that_never_ends_keeps_nobody_waiting(monkeypatch):
    monkeypatch.setattr(listener_answers, "_DEADLINE", 1.0)
    with socket.create_server(("127.0.0.1", 0)) as slow, serving(200, b'{"models":[]}') as served:

        def trickle():
            connection, _address = slow.accept()
            with connection:
                for _unused in range(40):
                    connection.send(b"x")
                    time.sleep(0.1)

        threading.Thread(target=trickle, daemon=True).start()
        port = int(served[0].rpartition(":")[2])
        began = time.monotonic()
        found = who_answers("ollama", [listener(slow.getsockname()[1]), listener(port)])
        assert time.monotonic() - began < 3
    assert found == {("127.0.0.1", port)}
