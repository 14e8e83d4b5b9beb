# SPDX-License-Identifier: GPL-3.0-or-later
"""Asking real ports on loopback whether an LLM server answers."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.listener_answers import (
    answers_as,
    place_of,
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
