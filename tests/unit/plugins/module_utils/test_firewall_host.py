# SPDX-License-Identifier: GPL-3.0-or-later
"""On a real kernel, in a network namespace for each test; systemd is played by a recorder."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import firewall_host
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import (
    Verdict,
    judge,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.packets import Packet
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.policy import parse_policy
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import (
    FirewallError,
    IptablesBackend,
    NftBackend,
)

from tests.unit.plugins.namespace import namespace

BACKENDS = {"nftables": NftBackend, "iptables": IptablesBackend}
KINDS = (*BACKENDS, "iptables-legacy")


def policy(port=11434, source="192.0.2.1"):
    data = {
        "guards": [{"port": port, "title": "a guard", "sources": [source, "2001:db8::/64"]}],
        "loopback": [{"port": port, "title": "local", "users": ["root"]}],
        "egress": {"user": "ollama"},
    }
    return parse_policy(data, {"root": 0, "ollama": 997}.get)


@pytest.fixture
def kind():
    """What the rules are made with, where a test does not go through all."""
    return "nftables"


@pytest.fixture
def machine(tmp_path, kind):
    with namespace(tmp_path, legacy=kind == "iptables-legacy") as found:
        yield found


@pytest.fixture
def backend(machine, kind):
    return BACKENDS[kind.removesuffix("-legacy")](machine)


each_kind = pytest.mark.parametrize("kind", KINDS)


def verdict(machine, backend, source, hook="input"):
    packet = Packet.tcp(source, "192.0.2.50", 11434, in_interface="eth0")
    return judge(firewall_host.whole_rules(machine, backend), packet, hook).verdict


def everything(machine):
    lines = "".join(
        machine.must(*command)
        for command in (["nft", "list", "ruleset"], ["iptables-save"], ["ip6tables-save"])
    )
    return [line for line in lines.splitlines() if "LLM-H" in line or "llm_" in line]


@each_kind
def test_the_kind_of_iptables(machine, kind):
    assert IptablesBackend(machine).legacy() is (kind == "iptables-legacy")


@each_kind
def test_apply_confirm_absent(machine, backend):
    other = next(BACKENDS[name](machine) for name in BACKENDS if name != backend.name)
    files = backend.render(policy())
    assert backend.live() == ""
    firewall_host.apply(machine, backend, files, 60)
    assert backend.live() == backend.listed(files) != ""
    assert verdict(machine, backend, "192.0.2.1") is Verdict.ACCEPT
    assert verdict(machine, backend, "198.51.100.1") is Verdict.DROP
    assert firewall_host.kept(machine, backend) == {}
    firewall_host.confirm(machine, backend, other, files)
    assert firewall_host.kept(machine, backend) == files
    assert not firewall_host.pending(machine)
    machine.must("sh", "/etc/llm-firewall/load", "/etc/llm-firewall")
    assert backend.live() == backend.listed(files)
    firewall_host.absent(machine, [backend, other])
    assert everything(machine) == []
    assert machine.read("/etc/llm-firewall/load") is None


@each_kind
def test_the_timer_brings_back_what_was_there(machine, backend):
    other = next(BACKENDS[name](machine) for name in BACKENDS if name != backend.name)
    firewall_host.apply(machine, backend, backend.render(policy()), 60)
    firewall_host.confirm(machine, backend, other, backend.render(policy()))
    before = backend.live()
    firewall_host.apply(machine, backend, backend.render(policy(port=22)), 60)
    assert backend.live() != before
    machine.fire()
    assert backend.live() == before


@each_kind
def test_the_timer_brings_back_that_nothing_was_there(machine, backend):
    machine.must("nft", "add", "table", "ip", "others")
    firewall_host.apply(machine, backend, backend.render(policy()), 60)
    machine.fire()
    assert everything(machine) == []
    assert "table ip others" in machine.must("nft", "list", "ruleset")


@each_kind
def test_a_change_nobody_confirmed_is_taken_back_before_the_next(machine, backend):
    firewall_host.apply(machine, backend, backend.render(policy(port=22)), 60)
    firewall_host.apply(machine, backend, backend.render(policy()), 60)
    machine.fire()
    assert backend.live() == ""


@each_kind
def test_confirming_after_the_timer_is_an_error(machine, backend):
    files = backend.render(policy())
    firewall_host.apply(machine, backend, files, 60)
    machine.fire()
    with pytest.raises(FirewallError, match="the timer has brought the old ones back"):
        firewall_host.confirm(machine, backend, backend, files)
    assert firewall_host.kept(machine, backend) == {}


def test_what_the_timer_has_just_started_is_stopped_before_the_rules_are_kept(machine, backend):
    files = backend.render(policy())
    firewall_host.apply(machine, backend, files, 60)
    machine.timer = None
    seen, run = [], machine.run

    def watch(command, stdin):
        seen.append([*command])
        return run(command, stdin)

    machine.run = watch
    firewall_host.confirm(machine, backend, backend, files)
    stopped = next(place for place, words in enumerate(seen) if words[:2] == ["systemctl", "stop"])
    compared = next(place for place, words in enumerate(seen) if words[0] == "nft")
    assert "llm-firewall-rollback.service" in seen[stopped]
    assert stopped < compared


@each_kind
def test_a_syntax_error_changes_nothing(machine, backend):
    firewall_host.apply(machine, backend, backend.render(policy()), 60)
    machine.timer = None
    before = backend.live()
    bad = {
        name: text.replace("tcp dport 11434", "tcp dprot 11434").replace("--dport", "--dprot")
        for name, text in backend.render(policy()).items()
    }
    with pytest.raises(FirewallError):
        backend.listed(bad)
    with pytest.raises(FirewallError):
        firewall_host.apply(machine, backend, bad, 60)
    assert backend.live() == before
    assert machine.timer is None


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_change_of_backend_leaves_one(machine):
    nft, iptables = NftBackend(machine), IptablesBackend(machine)
    for one, other in ((iptables, nft), (nft, iptables)):
        firewall_host.apply(machine, one, one.render(policy()), 60)
        firewall_host.confirm(machine, one, other, one.render(policy()))
        assert one.live()
        assert other.live() == ""
        assert firewall_host.kept(machine, one) == one.render(policy())
        assert firewall_host.kept(machine, other) == {}


@each_kind
def test_rules_of_others_that_decide_are_seen_beforehand(machine, backend):
    machine.must("iptables", "-A", "INPUT", "-s", "198.51.100.1", "-j", "DROP")
    files = backend.render(policy())
    packet = Packet.tcp("198.51.100.1", "192.0.2.50", 22, in_interface="eth0")
    own = firewall_host.own_rules(machine, backend, files)
    whole = firewall_host.whole_rules(machine, backend, files)
    assert judge(own, packet).verdict is Verdict.ACCEPT
    assert judge(whole, packet).verdict is Verdict.DROP


@each_kind
def test_a_window_opens_and_closes(machine, backend):
    assert backend.open_window(997, 60) is False
    firewall_host.apply(machine, backend, backend.render(policy()), 60)
    before = backend.live()
    assert backend.open_window(997, 60) is True
    assert backend.live() == before
    assert backend.close_window() is True
    assert backend.close_window() is False
