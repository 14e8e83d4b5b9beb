# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of the firewall on a kernel of their own (a network namespace)."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.checks import (
    Connection,
    Place,
)
from ansible_collections.llmsec.hardening.plugins.modules import (
    firewall_ruleset,
    firewall_window,
    verify_firewall,
)

from tests.unit.plugins.namespace import namespace

USERS = {"root": 0, "ollama": 997}
POLICY = {
    "guards": [
        {"port": 11434, "title": "nobody"},
        {"port": 22, "title": "administrators", "sources": ["192.0.2.0/24"]},
    ],
    "loopback": [{"port": 11434, "title": "root only", "users": ["root"]}],
    "egress": {"user": "ollama"},
}


@pytest.fixture
def machine(tmp_path, monkeypatch):
    with namespace(tmp_path) as found:
        for module in (firewall_ruleset, verify_firewall, firewall_window):
            monkeypatch.setattr(module, "live_machine", lambda _module: found)
            monkeypatch.setattr(module, "user_number", USERS.get)
        places = [Place("203.0.113.5", "eth0"), Place("2001:db8::5", "eth0")]
        monkeypatch.setattr(verify_firewall, "places", lambda _machine: places)
        yield found


@pytest.fixture(params=["nftables", "iptables"])
def apply(request, machine, run_module):
    def run(state="present", check=False, **params):
        params.setdefault("policy", POLICY)
        return run_module(
            firewall_ruleset.main, check, state=state, backend=request.param, **params
        )

    run.backend = request.param
    return run


def test_present_confirmed_absent(apply):
    foretold = apply(check=True)
    applied = apply()
    assert foretold["changed"] is applied["changed"] is True
    assert foretold["diff"] == applied["diff"]
    assert "11434" in applied["diff"]["prepared"]
    assert (foretold["armed"], applied["armed"]) == (False, True)
    assert apply("confirmed")["changed"] is True
    again = [apply(), apply("confirmed")]
    assert [(result["changed"], result["armed"]) for result in again] == [(False, False)] * 2
    assert apply("absent", check=True)["changed"] is True
    assert apply("absent")["changed"] is True
    assert apply("absent")["changed"] is False


def test_the_controller_is_not_shut_out(apply, monkeypatch):
    def comes_from(client):
        connection = Connection(client, "203.0.113.5", 22, "eth0")
        monkeypatch.setattr(firewall_ruleset, "controller", lambda _machine: connection)

    comes_from("198.51.100.9")
    for check in (True, False):
        refused = apply(check=check)
        assert refused["failed"] is True
        assert "would shut out 198.51.100.9" in refused["msg"]
    comes_from("192.0.2.9")
    assert apply()["armed"] is True


def test_a_published_port_is_refused(apply, machine):
    machine.must(
        "iptables", "-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "11434",
        "-j", "DNAT", "--to-destination", "172.17.0.2:11434",
    )  # fmt: skip
    assert "port 11434 is published" in apply(unpublished_ports=[11434])["msg"]
    assert apply()["changed"] is True


def test_bad_input_is_one_sentence(apply):
    bad = {"guards": [{"port": 70000, "title": "x"}]}
    message = apply(policy=bad)["msg"]
    assert message == (
        "The firewall was left as it was: x must be a port between 1 and 65535, not 70000."
    )


def test_verify(apply, machine, run_module):
    def verify():
        found = run_module(verify_firewall.main, backend=apply.backend, policy=POLICY, unit="")
        assert found["changed"] is False
        return {finding["id"]: finding["result"] for finding in found["findings"]}

    assert verify()["firewall.port.11434.ipv6.a-stranger.live"] == "fail"
    apply()
    apply("confirmed")
    assert set(verify().values()) == {"pass"}
    if apply.backend == "nftables":
        machine.must("nft", "flush", "chain", "inet", "llm_hardening", "output")
    else:
        machine.must("ip6tables", "-F", "LLM-HARDENING-OUTPUT")
    found = verify()
    assert found["firewall.loopback.11434.ipv6.user-65534.live"] == "fail"
    assert found["firewall.loopback.11434.ipv6.user-65534.kept"] == "pass"
    assert found["firewall.drift"] == "fail"


def test_what_cannot_be_read_is_an_error(apply, machine, run_module):
    apply()
    apply("confirmed")
    for name in ("ruleset.nft", "rules.v4", "rules.v6"):
        machine.path(f"/etc/llm-firewall/{name}").write_text("*filter\n-A INPUT -j what\nCOMMIT\n")
    found = run_module(verify_firewall.main, backend=apply.backend, policy=POLICY, unit="")
    results = {finding["id"]: finding["result"] for finding in found["findings"]}
    assert results["firewall.drift"] == "error"
    assert results.get("firewall.port.11434.ipv4.a-stranger.kept") != "pass"


def test_a_window(apply, run_module):
    def window(state, check=False):
        return run_module(firewall_window.main, check, state=state, user="ollama")["changed"]

    assert window("open") is False
    apply()
    assert window("open", check=True) is False
    assert [window("open"), window("closed"), window("closed")] == [True, True, False]
