# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes that go wrong, and what flushes the rules: the host stays reachable and guarded."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from tests.lab import firewall, playbook, registry
from tests.lab.firewall import ELSEWHERE, MOST_SECONDS, NEW_CONNECTIONS
from tests.lab.playbook import Counts

RULES = ["nft", "list", "table", "inet", "llm_hardening"]
NEVER_CONFIRMED = {"guards": [{"port": 9999, "title": "never confirmed"}]}


def rules(gateway):
    return gateway.host.check_output(" ".join(RULES))


def harden(scenario, *words, **variables):
    return playbook.harden(scenario, *words, harden_roles=["firewall"], **variables)


def assert_guarded(gateway, lab):
    targets = [(gateway.address, 443), (gateway.address6, 443)]
    assert firewall.reach(lab, "stranger", targets) == ["silent", "silent"]
    assert firewall.reach(lab, "app-server", targets) == ["open", "open"]


def assert_outlive_a_reboot(gateway, lab, before):
    """After a change that went wrong the next boot loads the rules that were kept."""
    lab.reboot(gateway.name)
    assert rules(gateway) == before
    unit = "llm-firewall.service"
    assert gateway.host.check_output(f"systemctl is-active {unit}") == "active"
    firewall.wait_until_open(lab, "app-server", (gateway.address, 443))
    assert_guarded(gateway, lab)


def test_rules_that_lock_the_controller_out_are_refused(scenario, gateways):
    before = [rules(gateway) for gateway in gateways]
    run = harden(scenario, firewall_admin_networks=[ELSEWHERE])
    assert set(run.hosts.values()) == {Counts(changed=0, failed=1)}, run.ending
    assert "would shut out" in run.text
    assert "tcp dport 22 drop" in run.text
    assert [rules(gateway) for gateway in gateways] == before


def test_when_the_judgement_was_wrong_the_timer_brings_the_old_rules_back(scenario, gateways, lab):
    before = [rules(gateway) for gateway in gateways]
    with firewall.hidden_controller(lab, [gateway.name for gateway in gateways]):
        run = harden(
            scenario,
            firewall_admin_networks=[ELSEWHERE],
            firewall_confirm_within=20,
            ansible_ssh_args=NEW_CONNECTIONS,
        )
    assert {counts.failed for counts in run.hosts.values()} == {1}, run.ending
    assert "the timer has brought the old ones back" in run.text, run.ending
    assert [rules(gateway) for gateway in gateways] == before
    assert_outlive_a_reboot(gateways[0], lab, before[0])


def never_confirm(gateway, **options):
    """Have a control node put rules in force, and die."""
    done = firewall.module(gateway.name, "firewall_ruleset", policy=NEVER_CONFIRMED, **options)
    assert done["armed"] is True
    assert "never confirmed" in rules(gateway)


def test_a_control_node_that_dies_leaves_the_old_rules(gateways, lab):
    before = [rules(gateway) for gateway in gateways]
    never_confirm(gateways[0])
    assert firewall.armed_for(lab, gateways[0].name) == "1min"  # MOST_SECONDS
    for gateway in gateways:
        never_confirm(gateway, confirm_within=15)
    for gateway in gateways:
        assert firewall.wait_for_the_rollback(lab, gateway.name) <= MOST_SECONDS
        assert_guarded(gateway, lab)
    assert [rules(gateway) for gateway in gateways] == before
    never_confirm(gateways[1])
    assert_outlive_a_reboot(gateways[1], lab, before[1])


# In the place of an nft that does not know a word of what it reads there.
OLD_NFT = """\
#!/bin/sh
case "$*" in
"-f {where}") sed s/dport/dprot/ {where} | exec /usr/sbin/nft.new -f - ;;
*) exec /usr/sbin/nft.new "$@" ;;
esac
"""


@contextmanager
def old_nft(lab, gateway, where):
    put = "mv /usr/sbin/nft /usr/sbin/nft.new; cat >/usr/sbin/nft; chmod 0755 /usr/sbin/nft"
    lab.run(gateway.name, "sh", "-euc", put, stdin=OLD_NFT.format(where=where), check=True)
    try:
        yield
    finally:
        lab.run(gateway.name, "mv", "/usr/sbin/nft.new", "/usr/sbin/nft", check=True)


def test_a_syntax_error_changes_nothing(gateways, lab):
    """Neither in the trial nor, when that went well, in the load with the timer armed."""
    gateway, before = gateways[0], rules(gateways[0])
    for where in ("-", "/run/llm-firewall/candidate/ruleset.nft"):
        with old_nft(lab, gateway, where):
            done = firewall.module(gateway.name, "firewall_ruleset", policy=NEVER_CONFIRMED)
        assert "The firewall was left as it was" in done["msg"]
        assert "syntax error" in done["msg"]
        assert rules(gateway) == before
        assert not firewall.is_armed(lab, gateway.name)
    assert_outlive_a_reboot(gateway, lab, before)


@pytest.mark.parametrize("verb", ["start", "reload", "restart", "stop"])
def test_the_distributions_service_flushes_and_we_load_again(gateway, lab, verb):
    before = rules(gateway)
    lab.run(gateway.name, "nft", "add", "table", "ip", "somebody", check=True)
    gateway.host.run_expect([0], f"systemctl {verb} nftables.service")
    assert "somebody" not in gateway.host.check_output("nft list tables"), "it did flush"
    assert rules(gateway) == before
    assert_guarded(gateway, lab)


def test_pulls_go_through_a_window_that_is_closed_again(scenario, gateways, lab):
    """A second pull fails on one of the hosts: it keeps the model that came, and no window."""
    well, badly = (gateway.name for gateway in gateways)
    missing = "127.0.0.1:9/nobody/nothing"
    with registry.serving(lab, "app-server", [well, badly]) as places:
        model = f"{places[0][0]}:{places[0][1]}/{registry.MODEL}"
        for name in (well, badly):
            assert firewall.reach(lab, name, places) == ["open"] * 2
        fails = f"['{missing}'] if inventory_hostname == '{badly}' else []"
        run = playbook.harden(
            scenario,
            harden_roles=["ollama"],
            ollama_models=f"{{{{ ['{model}'] + ({fails}) }}}}",
            ollama_pull_timeout=20,
        )
        failed = {name: counts.failed for name, counts in run.hosts.items()}
        assert failed == {well: 0, badly: 1}, run.ending
        assert f"{badly} could not pull {missing}" in run.text
        for gateway in gateways:
            models = gateway.host.check_output("env HOME=/root ollama list")
            assert f"{model}:latest" in models
            assert firewall.reach(lab, gateway.name, places, "ollama") == ["refused"] * 2
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
    before = [rules(gateway) for gateway in gateways]
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
    assert [rules(gateway) for gateway in gateways] == before


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
