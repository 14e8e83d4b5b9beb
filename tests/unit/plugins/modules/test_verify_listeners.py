# SPDX-License-Identifier: GPL-3.0-or-later
"""The module on this very host, with sockets of the test's own."""

from __future__ import annotations

import os
import socket
from contextlib import ExitStack

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.sockets import ProcReader
from ansible_collections.llmsec.hardening.plugins.modules import verify_listeners

from tests.unit.plugins.guarded import by_id

ANY = "0.0.0.0"  # noqa: S104 - a test needs a public socket


@pytest.fixture
def verify(run_module):
    def run(**params):
        result = run_module(verify_listeners.main, check=True, **params)
        assert result["changed"] is False
        return by_id(result["findings"])

    return run


@pytest.fixture
def listen():
    with ExitStack() as stack:

        def start(address, **options):
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            server = socket.create_server((address, 0), family=family, **options)
            stack.enter_context(server)
            return server.getsockname()[1]

        yield start


def port_results(found, port):
    return [found[f"listeners.port.{port}.ipv{version}"]["result"] for version in (4, 6)]


@pytest.mark.parametrize(
    ("address", "options", "results"),
    [
        ("127.0.0.1", {}, ["pass", "pass"]),
        ("::1", {}, ["pass", "pass"]),
        (ANY, {}, ["fail", "pass"]),
        ("::", {"dualstack_ipv6": True}, ["fail", "fail"]),
    ],
)
def test_where_the_server_is_bound(verify, listen, address, options, results):
    port = listen(address, **options)
    found = verify(server_port=port)
    assert port_results(found, port) == results


def test_a_port_where_nobody_listens_is_not_measured(verify, listen):
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    assert port_results(verify(server_port=port), port) == ["error", "error"]


@pytest.mark.skipif(os.geteuid() != 0, reason="owners are seen as root")
def test_the_test_is_a_squatter_and_an_unexpected_listener(verify, listen):
    port, public = listen("127.0.0.1"), listen(ANY)
    found = verify(server_port=port)
    assert found[f"listeners.owner.{port}"]["result"] == "fail"
    one = found["listeners.unexpected"]
    assert (one["result"], one["severity"]) == ("fail", "high")
    assert f"{ANY}:{public}" in "\n".join([one["actual"], *one["evidence"]])


def test_private_ports_and_those_of_the_gateway_are_options(verify, listen):
    port = listen(ANY)
    found = verify(
        private_ports=[{"port": port, "title": "metrics"}], gateway_port=port, gateway_units=[]
    )
    assert found[f"listeners.port.{port}.ipv4"]["severity"] == "high"
    assert "metrics" in found[f"listeners.port.{port}.ipv4"]["title"]
    assert not [name for name in found if name == f"listeners.owner.{port}"]
    assert "listeners.port.8081.ipv4" not in found


def test_a_broken_table_is_not_measured(verify, monkeypatch):
    def broken(_self, _protocols):
        raise OSError("no table")

    monkeypatch.setattr(ProcReader, "sockets", broken)
    found = verify()
    assert port_results(found, 11434) == ["error", "error"]
    assert found["listeners.namespaces"]["result"] == "error"


def test_a_program_that_fails_is_not_measured(verify, monkeypatch):
    monkeypatch.setattr(AnsibleModule, "run_command", lambda *_a, **_k: (1, "", "broken"))
    found = verify()
    assert found["listeners.redirected"]["result"] == "error"


def test_an_unknown_server_is_the_callers_mistake(run_module):
    failed = run_module(verify_listeners.main, server="clippy")
    assert failed["failed"] is True
    assert "unknown LLM server 'clippy'" in failed["msg"]
