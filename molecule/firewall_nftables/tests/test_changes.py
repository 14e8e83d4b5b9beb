# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes that go wrong, and what flushes the rules: the host stays reachable and guarded."""

from __future__ import annotations

import time

import pytest

from tests.lab import firewall, playbook
from tests.lab.playbook import Counts

RULES = ["nft", "list", "table", "inet", "llm_hardening"]
ELSEWHERE = "192.0.2.0/24"  # where the controller is not


def rules(gateway):
    return gateway.host.check_output(" ".join(RULES))


def harden(scenario, *words, **variables):
    return playbook.harden(scenario, *words, harden_roles=["firewall"], **variables)


def assert_guarded(gateway, lab):
    targets = [(gateway.address, 443), (gateway.address6, 443)]
    assert firewall.reach(lab, "stranger", targets) == ["silent", "silent"]
    assert firewall.reach(lab, "app-server", targets) == ["open", "open"]


def test_rules_that_lock_the_controller_out_are_refused(scenario, gateways):
    before = [rules(gateway) for gateway in gateways]
    run = harden(scenario, firewall_admin_networks=[ELSEWHERE])
    assert set(run.hosts.values()) == {Counts(changed=0, failed=1)}, run.ending
    assert "would shut out" in run.text
    assert "tcp dport 22 drop" in run.text
    assert [rules(gateway) for gateway in gateways] == before


# In the place of a wrapper that hides from where a session comes, so that nobody can judge it.
WRAPPER = """\
ForceCommand env SSH_CONNECTION="192.0.2.9 40000 192.0.2.1 22" sh -c "$SSH_ORIGINAL_COMMAND"
"""


def test_when_the_judgement_was_wrong_the_timer_brings_the_old_rules_back(scenario, gateways, lab):
    before = [rules(gateway) for gateway in gateways]
    path = "/etc/ssh/sshd_config.d/zz-wrapper.conf"
    for gateway in gateways:
        lab.run(gateway.name, "sh", "-c", f"cat >{path}; systemctl reload ssh", stdin=WRAPPER)
    try:
        run = harden(
            scenario,
            firewall_admin_networks=[ELSEWHERE],
            firewall_confirm_within=25,
            ansible_ssh_args="-o ControlMaster=no -o ControlPath=none",
        )
    finally:
        for gateway in gateways:
            lab.run(gateway.name, "sh", "-c", f"rm {path}; systemctl reload ssh")
    assert {counts.failed for counts in run.hosts.values()} == {1}, run.ending
    assert "the timer has brought the old ones back" in run.text, run.ending
    assert [rules(gateway) for gateway in gateways] == before


@pytest.fixture(scope="module")
def unconfirmed(gateways):
    """Rules that a control node put in force before it died."""
    before = {gateway.name: rules(gateway) for gateway in gateways}
    armed = {
        gateway.name: firewall.module(
            gateway.name,
            "firewall_ruleset",
            policy={"guards": [{"port": 9999, "title": "never confirmed"}]},
            confirm_within=20,
        )
        for gateway in gateways
    }
    during = {gateway.name: rules(gateway) for gateway in gateways}
    time.sleep(25)
    return before, armed, during


def test_a_control_node_that_dies_leaves_the_old_rules(gateway, unconfirmed, lab):
    before, armed, during = unconfirmed
    assert armed[gateway.name]["armed"] is True
    assert "never confirmed" in during[gateway.name]
    assert rules(gateway) == before[gateway.name]
    assert_guarded(gateway, lab)


@pytest.mark.parametrize("verb", ["start", "reload", "restart", "stop"])
def test_the_distributions_service_flushes_and_we_load_again(gateway, lab, verb):
    before = rules(gateway)
    lab.run(gateway.name, "nft", "add", "table", "ip", "somebody", check=True)
    gateway.host.run_expect([0], f"systemctl {verb} nftables.service")
    assert "somebody" not in gateway.host.check_output("nft list tables"), "it did flush"
    assert rules(gateway) == before
    assert_guarded(gateway, lab)


def test_rules_outlive_a_reboot(gateway, lab):
    before = rules(gateway)
    firewall.module(
        gateway.name,
        "firewall_ruleset",
        policy={"guards": [{"port": 9999, "title": "never confirmed"}]},
    )
    assert rules(gateway) != before
    lab.reboot(gateway.name)
    assert rules(gateway) == before
    assert firewall.reach(lab, "stranger", [(gateway.address, 443)]) == ["silent"]


def test_a_pull_that_fails_leaves_the_window_closed(scenario, gateways):
    missing = "127.0.0.1:9/nobody/nothing"
    run = playbook.harden(
        scenario, "-v", harden_roles=["ollama"], ollama_models=[missing], ollama_pull_timeout=20
    )
    assert {counts.failed for counts in run.hosts.values()} == {1}, run.ending
    assert "could not pull" in run.text
    for gateway in gateways:
        window = gateway.host.check_output("nft list set inet llm_hardening pull_window")
        assert "elements" not in window


FIREWALLD = """
firewall-offline-cmd --quiet --zone=public --add-service=ssh
systemctl restart firewalld.service
"""


def test_beside_firewalld(scenario, gateways, lab):
    """What firewalld refuses is found and named; its reloads leave us alone."""
    hosts = [gateway.name for gateway in gateways]
    with firewall.installed(lab, hosts, "firewalld", FIREWALLD):
        run = harden(scenario)
        assert set(run.hosts.values()) == {Counts(changed=0, failed=1)}, run.ending
        assert "has rules of firewalld as well" in run.text
        assert "an-allowed-source reaches port 443 over IPv4 (gateway" in run.text
        open_it = "firewall-cmd --quiet --add-port=443/tcp --add-port=9100/tcp"
        firewall.shell_everywhere(lab, hosts, f"{open_it}; {open_it} --permanent")
        run = harden(scenario)
        assert set(run.hosts.values()) == {Counts(changed=0, failed=0)}, run.ending
        before = [rules(gateway) for gateway in gateways]
        for command in ("firewall-cmd --reload", "systemctl restart firewalld.service"):
            firewall.shell_everywhere(lab, hosts, command)
            assert [rules(gateway) for gateway in gateways] == before
        for gateway in gateways:
            # firewalld refuses everybody until it has loaded all of its own.
            firewall.wait_until_open(lab, "app-server", (gateway.address, 443))
            assert_guarded(gateway, lab)


def test_a_default_policy_on_request(scenario, gateways, lab):
    run = harden(
        scenario,
        firewall_default_policy="drop",
        firewall_admin_networks=firewall.controllers(lab),
    )
    assert run.code == 0, run.ending
    for gateway in gateways:
        assert "policy drop" in rules(gateway)
        firewall.assert_default_is_to_drop(lab, gateway.name)
        assert_guarded(gateway, lab)
    assert harden(scenario).code == 0
    for gateway in gateways:
        assert "policy drop" not in rules(gateway)
        assert firewall.reach(lab, "stranger", [(gateway.address, 22)]) == ["open"]


def test_drift_is_found_and_repaired(scenario, gateways, lab):
    for gateway in gateways:
        lab.run(gateway.name, "nft", "flush", "chain", "inet", "llm_hardening", "input")
    policy = {"guards": [{"port": 11434, "title": "LLM server, nobody over the network"}]}
    for gateway in gateways:
        found = firewall.module(gateway.name, "verify_firewall", policy=policy)["findings"]
        results = {finding["id"]: finding["result"] for finding in found}
        assert results["firewall.port.11434.ipv4.a-stranger.live"] == "fail"
        assert results["firewall.port.11434.ipv6.a-stranger.live"] == "fail"
        assert results["firewall.port.11434.ipv4.a-stranger.kept"] == "pass"
        assert results["firewall.drift"] == "fail"
        assert results["firewall.unit"] == "pass"
    foretold = harden(scenario, "--check", "--diff")
    assert "+ tcp dport 11434 drop" in foretold.text, foretold.ending
    assert "tcp dport 11434 drop" not in rules(gateways[0])
    repaired = harden(scenario)
    assert repaired.code == 0, repaired.ending
    assert harden(scenario).changed == dict.fromkeys((g.name for g in gateways), 0)


def test_absent_takes_all_of_it_away(scenario, gateways, lab):
    run = playbook.play("rollback", rollback_hosts=scenario, rollback_roles=["firewall"])
    assert run.code == 0, run.ending
    for gateway in gateways:
        looked = lab.run(
            gateway.name, "sh", "-c",
            "ls -d /etc/llm-firewall /run/llm-firewall /var/lib/llm-firewall"
            " /etc/systemd/system/llm-firewall.service /etc/systemd/system/nftables.service.d"
            " /usr/sbin/nft; systemctl is-enabled llm-firewall.service",
        )  # fmt: skip
        assert looked.stdout.strip() in ("", "not-found")
        # Over IPv4: the lab's bridge loses multicast, so neighbour discovery, over a reboot.
        assert firewall.reach(lab, "stranger", [(gateway.address, 443)]) == ["open"]
    assert playbook.play(
        "rollback", rollback_hosts=scenario, rollback_roles=["firewall"]
    ).changed == dict.fromkeys((g.name for g in gateways), 0)
