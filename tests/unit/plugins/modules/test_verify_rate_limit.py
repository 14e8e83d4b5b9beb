# SPDX-License-Identifier: GPL-3.0-or-later
"""A real nginx with the role's limits, with others, and with limits that can be dodged."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
from ansible_collections.llmsec.hardening.plugins.modules import verify_rate_limit

from tests.unit.gateway.conftest import NGINX
from tests.unit.gateway.stage import Upstream, free_port
from tests.unit.plugins.guarded import (
    NAME,
    PER_ADDRESS,
    PER_KEY,
    Guarded,
    as_ollama,
    by_id,
    red,
)

BOTH = {"per_address": PER_ADDRESS, "per_key": PER_KEY}
SITE = "conf.d/llm-gateway.conf"
ZONE = "$binary_remote_addr zone=llm_per_address_10m"


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    if NGINX is None:
        pytest.skip("nginx is not installed here")
    with contextlib.closing(Guarded(tmp_path_factory.mktemp("guarded") / "stage")) as stage:
        yield stage


@pytest.fixture
def gate(running):
    running.reset()
    return running


@pytest.fixture
def verify(run_module):
    def run(gate, check=False, **params):
        port = gate if isinstance(gate, int) else gate.port
        common = {"address": "127.0.0.1", "port": port, "server_name": NAME, "recover_within": 1}
        result = run_module(verify_rate_limit.main, check=check, **{**common, **params})
        assert result["changed"] is False
        return by_id(result["findings"])

    return run


def test_the_roles_limits_are_green(verify, gate):
    findings = verify(gate, **BOTH, recover_within=10)
    assert red(findings.values()) == {}
    assert {one["result"] for one in findings.values()} == {"pass"}
    assert findings["rate_limit.per_address"]["actual"].startswith("429 after 11; ")
    assert findings["rate_limit.per_key"]["actual"].startswith("429 after 6; ")
    assert {"rate_limit.answer", "rate_limit.recovery", "rate_limit.dodge.bearer"} <= set(findings)
    assert gate.llm.heard == []


def test_a_real_key_is_counted_and_not_shown(verify, gate):
    findings = verify(gate, **BOTH, key=gate.good)
    assert findings["rate_limit.per_key"]["result"] == "pass"
    assert "200 (6)" in findings["rate_limit.per_key"]["actual"]
    assert gate.good not in str(findings)


def test_a_wait_that_is_too_long_is_not_waited(verify, gate):
    findings = verify(gate, **BOTH, recover_within=1)
    assert findings["rate_limit.recovery"]["result"] == "skip"


@pytest.mark.parametrize("check", [True, False])
def test_check_mode_asks_nothing(verify, gate, check):
    findings = verify(gate, check, **BOTH)
    assert (gate.hop.heard == []) == check
    if check:
        assert {name: one["result"] for name, one in findings.items()} == {
            "rate_limit.per_address": "skip", "rate_limit.per_key": "skip",
        }  # fmt: skip


def test_no_limit_is_a_finding_without_a_request(verify, gate):
    findings = verify(gate)
    assert red(findings.values()) == {
        "rate_limit.per_address": "fail",
        "rate_limit.per_key": "fail",
    }
    assert gate.hop.heard == []


def test_limits_that_are_gone(verify, gate):
    def change(text):
        lines = text.splitlines()
        return "\n".join(line for line in lines if not line.startswith("limit_req zone"))

    with gate.changed("llm-gateway/authorize.conf", change):
        findings = verify(gate, **BOTH)
    assert red(findings.values()) == {
        "rate_limit.per_address": "fail",
        "rate_limit.per_key": "fail",
    }
    assert findings["rate_limit.per_key"]["severity"] == "high"


def test_a_limit_wider_than_it_is_said(verify, gate):
    said = {"per_address": {"rate": "30r/m", "burst": 2}, "per_key": {"rate": "10r/m"}}
    found = red(verify(gate, **said).values())
    assert found == {"rate_limit.per_address": "fail", "rate_limit.per_key": "fail"}


@pytest.mark.parametrize(
    ("key", "wanted"),
    [
        ("$binary_remote_addr$http_x_forwarded_for", {"rate_limit.dodge.x_forwarded_for"}),
        ("$binary_remote_addr$http_x_real_ip", {"rate_limit.dodge.x_real_ip"}),
        ("$binary_remote_addr$http_user_agent", {"rate_limit.dodge.client"}),
        ("$binary_remote_addr$http_x_api_key", {"rate_limit.dodge.x_api_key"}),
        (
            "$binary_remote_addr$http_authorization",
            {"rate_limit.dodge.bearer", "rate_limit.dodge.bearer_spelling"},
        ),
        ("$binary_remote_addr$uri", {"rate_limit.dodge.other_route"}),
        # Who sends no such header is not counted at all.
        ("$http_x_forwarded_for", {"rate_limit.per_address"}),
    ],
)
def test_a_zone_keyed_on_what_a_client_says(verify, gate, key, wanted):
    # Another name, since nginx does not change the key of a zone in use.
    name = "".join(char for char in key if char.isalpha() or char == "_")
    zone = (SITE, lambda text: text.replace(ZONE, f"{key} zone={name}"))
    used = (
        "llm-gateway/authorize.conf",
        lambda text: text.replace("zone=llm_per_address_10m", f"zone={name}"),
    )
    with gate.changed(*zone, used):
        found = red(verify(gate, **BOTH).values())
    assert found == dict.fromkeys(wanted, "fail")


def test_another_answer_than_ours(verify, gate):
    with gate.changed(
        SITE, lambda text: text.replace("limit_req_status 429", "limit_req_status 503")
    ):
        found = red(verify(gate, **BOTH).values())
    assert found == {"rate_limit.per_address": "fail", "rate_limit.per_key": "fail"}
    with gate.changed(
        "llm-gateway/errors.conf", lambda text: text.replace("add_header Retry-After", "#")
    ):
        found = red(verify(gate, **BOTH).values())
    assert found == {"rate_limit.answer": "fail"}


class One:
    """One address, which others use too."""

    many = False

    def __init__(self, _address):
        """Nothing to know of it."""

    def take(self):
        return "127.5.5.5"


def test_a_burst_that_is_used_up_proves_nothing(verify, gate, monkeypatch):
    monkeypatch.setattr(verify_rate_limit, "Sources", One)
    first, second = verify(gate, **BOTH), verify(gate, **BOTH)
    assert red(first.values()) == {}
    assert first["rate_limit.per_key"]["result"] == "skip"
    assert red(second.values()) == {"rate_limit.per_address": "error"}
    assert "somebody else" in second["rate_limit.per_address"]["actual"]


def test_a_bound_that_is_too_low_proves_nothing(verify, gate):
    found = red(verify(gate, **BOTH, requests=9).values())
    assert found == {"rate_limit.per_address": "error"}
    assert len(gate.hop.heard) <= 9


def test_a_path_that_is_no_route_proves_nothing(verify, gate):
    found = red(verify(gate, **BOTH, path="/none").values())
    assert found == {"rate_limit.per_address": "error", "rate_limit.per_key": "error"}


def test_nobody_there(verify):
    found = red(verify(free_port(), **BOTH).values())
    assert found == {"rate_limit.per_address": "error", "rate_limit.per_key": "error"}


def test_an_open_ollama_has_no_limit(verify):
    port = free_port()
    with contextlib.closing(Upstream(("127.0.0.1", port), as_ollama)) as ollama:
        found = red(verify(port, **BOTH, tls=False).values())
        assert len(ollama.heard) <= 200
    assert found == {"rate_limit.per_address": "fail", "rate_limit.per_key": "fail"}


def test_silence_is_bounded(verify):
    with socket.create_server(("127.0.0.1", 0)) as server:
        started = time.monotonic()
        found = red(verify(server.getsockname()[1], **BOTH, tls=False, timeout=0.3).values())
    assert time.monotonic() - started < 10
    assert found == {"rate_limit.per_address": "error", "rate_limit.per_key": "error"}


@pytest.mark.parametrize(
    "params",
    [
        {"per_address": {"rate": "often"}},
        {"per_key": {"rate": "1r/s", "burst": -1}},
        {"requests": 201},
        {"requests": 0},
        {"ca_file": "/nonexistent"},
    ],
)
def test_called_wrongly_it_fails(run_module, params):
    common = {"address": "127.0.0.1", "server_name": NAME}
    assert run_module(verify_rate_limit.main, **common, **params)["failed"] is True
