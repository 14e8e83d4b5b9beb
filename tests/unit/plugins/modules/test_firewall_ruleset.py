# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules of the firewall on a kernel of their own (a network namespace)."""

from __future__ import annotations

from pathlib import Path

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

CORPUS = Path(__file__).parents[1] / "module_utils/firewall/corpus"
USERS = {"root": 0, "ollama": 997}
POLICY = {
    "guards": [
        {"port": 11434, "title": "nobody"},
        {"port": 22, "title": "administrators", "sources": ["192.0.2.0/24"]},
    ],
    "loopback": [{"port": 11434, "title": "root only", "users": ["root"]}],
    "egress": {"user": "ollama"},
}


@pytest.fixture(params=["nftables", "iptables", "iptables-legacy"])
def kind(request):
    return request.param


@pytest.fixture
def machine(tmp_path, monkeypatch, kind):
    with namespace(tmp_path, legacy=kind == "iptables-legacy") as found:
        for module in (firewall_ruleset, verify_firewall, firewall_window):
            monkeypatch.setattr(module, "live_machine", lambda _module: found)
            monkeypatch.setattr(module, "user_number", USERS.get)
        places = [Place("203.0.113.5", "eth0"), Place("2001:db8::5", "eth0")]
        monkeypatch.setattr(verify_firewall, "places", lambda _machine: places)
        yield found


@pytest.fixture
def apply(machine, run_module, kind):
    backend = kind.removesuffix("-legacy")

    def run(state="present", check=False, **params):
        params.setdefault("policy", POLICY)
        return run_module(firewall_ruleset.main, check, state=state, backend=backend, **params)

    run.backend = backend
    return run


def test_present_confirmed_absent(apply, machine):
    foretold = apply(check=True)
    applied = apply()
    assert foretold["changed"] is applied["changed"] is True
    assert foretold["diff"] == applied["diff"]
    assert "11434" in applied["diff"]["prepared"]
    assert (foretold["armed"], applied["armed"]) == (False, True)
    assert apply("confirmed")["changed"] is True
    again = [apply(), apply("confirmed")]
    assert [(result["changed"], result["armed"]) for result in again] == [(False, False)] * 2
    machine.path("/etc/llm-firewall/load").chmod(0o666)
    assert [apply("confirmed")["changed"] for _unused in range(2)] == [True, False]
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


def test_one_network_more_in_force_and_kept(apply, machine, run_module):
    def verify():
        found = run_module(
            verify_firewall.main, backend=apply.backend, policy=POLICY, unit="x.service"
        )["findings"]
        return {finding["id"]: finding["result"] for finding in found}

    more = {**POLICY, "guards": [POLICY["guards"][0], {**POLICY["guards"][1], "sources": [
        "192.0.2.0/24", "198.18.0.5"]}]}  # fmt: skip
    apply()
    apply("confirmed")
    assert (verify()["firewall.policy"], verify()["firewall.files"]) == ("pass", "pass")
    apply(policy=more)
    apply("confirmed", policy=more)
    found = verify()
    assert (found["firewall.drift"], found["firewall.policy"]) == ("pass", "fail")


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


def load(machine, name):
    """Put what another firewall wrote on a real host in force."""
    for tool in ("iptables", "ip6tables"):
        saved = (CORPUS / name / f"{tool}-save.txt").read_text()
        machine.must(f"{tool}-restore", stdin=saved)
    if "firewalld" in name:
        # An owner's table is gone with its process; older programs know less names of priorities.
        listing = (CORPUS / name / "nft.txt").read_text().replace("flags owner,persist", "")
        listing = listing.replace("hook output priority dstnat + 10", "hook output priority -90")
        machine.must("nft", "-f", "-", stdin=listing)


def rules_of_others(machine):
    lines = [
        line
        for tool in ("iptables-save", "ip6tables-save")
        for line in machine.must(tool).splitlines()
        if line.startswith("-A") and "LLM-HARDENING" not in line
    ]
    _status, firewalld, _errors = machine.run(["nft", "list", "table", "inet", "firewalld"], "")
    # Its counters go on counting.
    return lines + [line.partition(" counter ")[0] for line in firewalld.splitlines()]


FIREWALLS = [
    ("debian12-ufw", "ufw", "198.51.100.9", "fail"),
    ("debian12-ufw", "ufw", "10.0.1.5", "pass"),
    ("debian13-ufw", "ufw", "198.51.100.9", "fail"),
    ("debian12-firewalld", "firewalld", "198.51.100.9", "fail"),
    ("debian13-firewalld", "firewalld", "10.0.1.9", "pass"),
    ("debian12-docker", "Docker", "198.51.100.9", "pass"),
]


@pytest.mark.parametrize("case", FIREWALLS, ids="-".join)
def test_beside_other_firewalls(apply, machine, run_module, case):
    """Their rules stay, what they refuse is found with the rule that does, and ours hold."""
    name, who, source, result = case
    load(machine, name)
    before = rules_of_others(machine)
    guards = [{"port": 443, "title": "gateway", "sources": [source]}, POLICY["guards"][0]]
    policy = {**POLICY, "guards": guards}
    assert who in apply(policy=policy)["others"]
    apply("confirmed", policy=policy)
    assert rules_of_others(machine) == before
    findings = {
        finding["id"]: finding
        for finding in run_module(
            verify_firewall.main, backend=apply.backend, policy=policy, unit=""
        )["findings"]
    }
    allowed = findings["firewall.port.443.ipv4.an-allowed-source.live"]
    assert allowed["result"] == result, allowed
    assert allowed["evidence"] or result == "pass"
    for version in (4, 6):
        stranger = findings[f"firewall.port.11434.ipv{version}.a-stranger.live"]
        # What Docker's translation makes of it, nobody can say.
        assert stranger["result"] == ("error" if (who, version) == ("Docker", 4) else "pass")
    apply("absent")
    assert rules_of_others(machine) == before


@pytest.mark.parametrize("name", ["debian12-docker", "debian13-docker", "debian12-ufw-docker"])
def test_a_port_that_docker_published_is_refused(apply, machine, name):
    load(machine, name)
    message = apply(unpublished_ports=[11434])["msg"]
    assert "port 11434 is published" in message
    assert "172.17.0" in message
    # 9000 is published on 127.0.0.1, as the message advises.
    assert apply(unpublished_ports=[8081, 9000])["armed"] is True
