# SPDX-License-Identifier: GPL-3.0-or-later
"""The module with real ports on loopback."""

from __future__ import annotations

import socket

import pytest
from ansible_collections.llmsec.hardening.plugins.modules import verify_reachability

from tests.unit.plugins.guarded import by_id


@pytest.fixture
def verify(run_module):
    def run(*targets, **params):
        result = run_module(
            verify_reachability.main, check=True, targets=[*targets],
            **{"timeout": 2, "witness_port": 0, **params},
        )  # fmt: skip
        assert result["changed"] is False
        return by_id(result["findings"])

    return run


@pytest.fixture
def port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.fixture
def closed():
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = server.getsockname()
    return found[1]


def test_open_and_closed_as_expected_and_not(verify, port, closed):
    here = {"address": "127.0.0.1"}
    found = verify(
        {**here, "port": port, "id": "gateway", "expected": "open"},
        {**here, "port": port, "id": "exposed", "severity": "medium"},
        {**here, "port": port, "id": "ollama", "private": True},
        {**here, "port": closed, "id": "validator"},
        {**here, "port": closed, "id": "down", "expected": "open"},
        vantage="app-server",
    )
    results = {name: (one["result"], one["severity"]) for name, one in found.items()}
    assert results == {
        "reachability.app-server.gateway.ipv4": ("pass", "high"),
        "reachability.app-server.exposed.ipv4": ("fail", "medium"),
        "reachability.app-server.ollama.ipv4": ("fail", "critical"),
        "reachability.app-server.validator.ipv4": ("pass", "high"),
        "reachability.app-server.down.ipv4": ("fail", "high"),
    }


def test_the_catalogues_ports_are_private(verify):
    found = verify({"address": "127.0.0.1", "port": 11434})
    assert found["reachability.neighbour.port-11434.ipv4"]["control"] == "loopback"


def test_a_name_that_is_none_is_not_measured(verify):
    (one,) = verify({"address": "a..b", "port": 443}).values()
    assert (one["id"], one["result"]) == ("reachability.neighbour.port-443.name", "error")


@pytest.mark.parametrize(
    ("params", "why"),
    [
        ({"targets": [{"address": "x", "port": 1}, {"address": "y", "port": 1}]}, "two targets"),
        ({"targets": [{"address": "x", "port": 70000}]}, "70000 is no port"),
        ({"targets": [], "timeout": 0}, "timeout is not above 0"),
        ({"targets": [], "witness": [{"address": "x", "port": 0}]}, "0 is no port"),
    ],
)
def test_a_wrong_call_fails(run_module, params, why):
    failed = run_module(verify_reachability.main, **params)
    assert failed["failed"] is True
    assert why in failed["msg"]
