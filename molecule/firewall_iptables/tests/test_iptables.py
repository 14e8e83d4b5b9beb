# SPDX-License-Identifier: GPL-3.0-or-later
"""The same promises with iptables and ip6tables: who gets in, who gets out, no lock-out."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.lab import firewall, playbook
from tests.lab.firewall import ELSEWHERE, MOST_SECONDS, NEW_CONNECTIONS
from tests.lab.playbook import Counts

TOOLS = ("iptables", "ip6tables")
SAVE = ["sh", "-c", "iptables-save; ip6tables-save"]


def rules(lab, gateway):
    text = lab.run(gateway.name, *SAVE, check=True).stdout
    return sorted(line for line in text.splitlines() if line.startswith(("-A", ":LLM")))


def harden(scenario, *words, **variables):
    return playbook.harden(scenario, *words, harden_roles=["firewall"], **variables)


def both(gateway, *ports):
    return [(address, port) for port in ports for address in (gateway.address, gateway.address6)]


def assert_guarded(gateway, lab):
    assert firewall.reach(lab, "app-server", both(gateway, 443)) == ["open"] * 2
    assert firewall.reach(lab, "stranger", both(gateway, 443)) == ["silent"] * 2
    for by in ("app-server", "stranger"):
        assert firewall.reach(lab, by, both(gateway, 11434, 8081)) == ["silent"] * 4
    assert firewall.reach(lab, "stranger", both(gateway, 22)) == ["open"] * 2


def test_who_gets_in(gateway, lab):
    assert_guarded(gateway, lab)


@pytest.mark.parametrize(
    ("user", "answer"),
    [("root", "open"), ("www-data", "open"), ("nobody", "refused"), ("ollama", "refused")],
)
def test_who_gets_in_from_the_host_itself(gateway, lab, user, answer):
    own = [("127.0.0.1", 11434), ("::1", 11434), *both(gateway, 11434, 8081)]
    assert firewall.reach(lab, gateway.name, own, user) == [answer] * len(own)


def test_the_llm_server_gets_out_in_a_window_only(gateways, lab):
    outside = [(address, 22) for address in lab.addresses()["app-server"]]

    def way_out(gateway):
        return set(firewall.reach(lab, gateway.name, outside, "ollama"))

    def window(gateway, **options):
        return firewall.module(gateway.name, "firewall_window", user="ollama", **options)

    for gateway in gateways:
        assert firewall.reach(lab, gateway.name, outside) == ["open"] * 2
        assert firewall.reach(lab, gateway.name, [("127.0.0.1", 22)], "ollama") == ["open"]
        assert way_out(gateway) == {"refused"}
        window(gateway, state="open", seconds=20)
        assert way_out(gateway) == {"open"}
    time.sleep(21)
    for gateway in gateways:
        assert way_out(gateway) == {"refused"}
        window(gateway, state="open", seconds=2000)
        assert window(gateway, state="closed")["changed"]
        assert way_out(gateway) == {"refused"}


def test_not_to_the_metadata_addresses_either_in_a_window(gateway, lab):
    metadata = [(address, 22) for address in firewall.METADATA]
    outside = (lab.addresses()["stranger"][0], 22)
    # Not the stranger, whom firewall_nftables puts them on, perhaps at the same time
    with firewall.metadata_on(lab, "app-server", gateway.name):
        assert firewall.reach(lab, gateway.name, metadata) == ["open", "open"]
        window = {"user": "ollama"}
        try:
            firewall.module(gateway.name, "firewall_window", state="open", seconds=300, **window)
            answers = firewall.reach(lab, gateway.name, [*metadata, outside], "ollama")
            assert answers == ["refused", "refused", "open"]
        finally:
            firewall.module(gateway.name, "firewall_window", state="closed", **window)


def test_rules_that_lock_the_controller_out_are_refused(scenario, gateways, lab):
    before = [rules(lab, gateway) for gateway in gateways]
    run = harden(scenario, firewall_admin_networks=[ELSEWHERE])
    assert set(run.hosts.values()) == {Counts(changed=0, failed=1)}, run.ending
    assert "would shut out" in run.text
    assert [rules(lab, gateway) for gateway in gateways] == before


def never_confirm(gateway, lab):
    """Have a control node put rules in force that cut off its connections, this one as well."""
    policy = {"guards": [{"port": 22, "title": "never confirmed", "sources": [ELSEWHERE]}]}
    with ThreadPoolExecutor() as pool:
        # Its answer comes through when the old rules are back.
        run = pool.submit(
            firewall.module, gateway.name, "firewall_ruleset", backend="iptables", policy=policy,
            confirm_within=15, ssh_args=NEW_CONNECTIONS,
        )  # fmt: skip
        while "never confirmed" not in "".join(rules(lab, gateway)):
            assert not run.done(), run.result()
            time.sleep(0.5)
        with pytest.raises(TimeoutError):
            socket.create_connection((gateway.address, 22), timeout=2)
        assert run.result()["armed"] is True


def test_when_the_judgement_was_wrong_the_timer_brings_the_old_rules_back(gateways, lab):
    """As it does when the control node dies: neither can confirm."""
    before = [rules(lab, gateway) for gateway in gateways]
    hosts = [gateway.name for gateway in gateways]
    with firewall.hidden_controller(lab, hosts), ThreadPoolExecutor() as pool:
        list(pool.map(lambda gateway: never_confirm(gateway, lab), gateways))
    for gateway in gateways:
        assert firewall.wait_for_the_rollback(lab, gateway.name) <= MOST_SECONDS
        socket.create_connection((gateway.address, 22), timeout=2).close()
    assert [rules(lab, gateway) for gateway in gateways] == before


def test_rules_of_others_stay_and_ours_come_first(scenario, gateways, lab):
    """Somebody lets everybody in before our chain is asked: found, and put right."""
    theirs = "-A INPUT -p tcp -m tcp --dport 11434 -j ACCEPT"
    for gateway in gateways:
        lab.run(gateway.name, "ip6tables", "-I", *theirs.split()[1:], check=True)
        assert firewall.reach(lab, "stranger", both(gateway, 11434)) == ["silent", "open"]
        policy = {"guards": [{"port": 11434, "title": "LLM server, nobody over the network"}]}
        found = firewall.module(gateway.name, "verify_firewall", backend="iptables", policy=policy)[
            "findings"
        ]
        results = {finding["id"]: finding["result"] for finding in found}
        assert results["firewall.port.11434.ipv6.a-stranger.live"] == "fail"
        assert results["firewall.port.11434.ipv4.a-stranger.live"] == "pass"
        assert results["firewall.drift"] == "fail"
    run = harden(scenario)
    assert run.code == 0, run.ending
    for gateway in gateways:
        assert theirs in rules(lab, gateway)
        assert firewall.reach(lab, "stranger", both(gateway, 11434)) == ["silent", "silent"]
        lab.run(gateway.name, "ip6tables", "-D", *theirs.split()[1:], check=True)


def test_what_flushes_them_and_a_reboot(gateway, lab):
    before = rules(lab, gateway)
    for verb in ("restart", "stop"):
        gateway.host.run_expect([0], f"systemctl {verb} nftables.service")
        assert rules(lab, gateway) == before
    lab.reboot(gateway.name)
    assert rules(lab, gateway) == before
    assert firewall.reach(lab, "stranger", both(gateway, 443, 11434)) == ["silent"] * 4


def test_beside_ufw(scenario, gateways, lab):
    """What ufw refuses is found and named; what it flushes is its own."""
    hosts = [gateway.name for gateway in gateways]
    setup = "ufw allow 22/tcp; ufw --force enable"
    with firewall.installed(lab, hosts, "ufw", setup):
        try:
            run = harden(scenario)
            assert set(run.hosts.values()) == {Counts(changed=0, failed=1)}, run.ending
            assert "has rules of ufw as well" in run.text
            assert "an-allowed-source reaches port 443 over IPv4 (gateway" in run.text
            assert "policy drop of table ip filter (iptables), chain INPUT" in run.text
            firewall.shell_everywhere(lab, hosts, "ufw allow 443/tcp")
            run = harden(scenario)
            assert set(run.hosts.values()) == {Counts(changed=0, failed=0)}, run.ending
            before = [rules(lab, gateway) for gateway in gateways]
            for command in ("ufw reload", "systemctl restart ufw.service", "ufw --force enable"):
                firewall.shell_everywhere(lab, hosts, command)
                assert [rules(lab, gateway) for gateway in gateways] == before
            for gateway in gateways:
                assert firewall.reach(lab, "app-server", both(gateway, 443)) == ["open"] * 2
                assert firewall.reach(lab, "stranger", both(gateway, 443)) == ["silent"] * 2
        finally:
            leave = (
                "ufw --force reset; for tool in iptables ip6tables; do $tool-save |"
                " sed '/ufw/d' | $tool-restore; done"
            )
            firewall.shell_everywhere(lab, hosts, leave)


def test_a_default_policy_on_request(scenario, gateways, lab):
    run = harden(
        scenario,
        firewall_default_policy="drop",
        firewall_admin_networks=firewall.controllers(lab),
    )
    assert run.code == 0, run.ending
    for gateway in gateways:
        firewall.assert_default_is_to_drop(lab, gateway.name)
    assert harden(scenario).code == 0
    for gateway in gateways:
        assert firewall.reach(lab, "stranger", both(gateway, 22)) == ["open"] * 2


def test_a_published_port_is_refused(scenario, gateways, lab):
    """Over IPv4 on one host, over IPv6 on the other."""
    docker = ["-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport", "11434", "-j", "DNAT"]
    places = {"iptables": "172.17.0.2:11434", "ip6tables": "[fd00::2]:11434"}
    published = list(zip(gateways, places, strict=True))
    for gateway, family in published:
        to = ["--to-destination", places[family]]
        lab.run(gateway.name, family, *docker, *to, check=True)
    try:
        run = harden(scenario)
        assert set(run.hosts.values()) == {Counts(changed=0, failed=1)}, run.ending
        assert run.text.count("port 11434 is published") >= len(gateways), run.ending
    finally:
        for gateway, family in published:
            lab.run(gateway.name, family, "-t", "nat", "-F", "PREROUTING", check=True)


def test_with_the_legacy_tables(scenario, gateways, lab):
    """The host's iptables is changed, as the role's README says. test_absent has them removed."""
    gateway = gateways[-1]
    if lab.run(gateway.name, "iptables-legacy", "-S").returncode != 0:
        pytest.skip("this kernel has no legacy iptables")
    change = "; ".join(
        f"update-alternatives --set {tool} /usr/sbin/{tool}-legacy" for tool in TOOLS
    )
    firewall.module(gateway.name, "firewall_ruleset", state="absent", backend="iptables")
    lab.run(gateway.name, "sh", "-euc", change, check=True)
    run = harden(scenario, "--limit", f"{gateway.name},localhost")
    assert run.hosts == {gateway.name: Counts(run.changed[gateway.name], failed=0)}, run.ending
    before = rules(lab, gateway)
    assert "LLM-HARDENING" not in gateway.host.check_output("iptables-nft-save; ip6tables-nft-save")
    assert_guarded(gateway, lab)
    outside = [(address, 22) for address in lab.addresses()["app-server"]]
    assert firewall.reach(lab, gateway.name, outside, "ollama") == ["refused"] * 2
    for tool in TOOLS:
        lab.run(gateway.name, f"{tool}-legacy", "-F", "LLM-HARDENING-INPUT", check=True)
    assert firewall.reach(lab, "stranger", both(gateway, 443)) == ["open"] * 2
    gateway.host.run_expect([0], "systemctl restart llm-firewall.service")
    assert rules(lab, gateway) == before


def test_absent_takes_all_of_it_away(scenario, gateways, lab):
    run = playbook.play("rollback", rollback_hosts=scenario, rollback_roles=["firewall"])
    assert run.code == 0, run.ending
    for gateway in gateways:
        # Over IPv4: the lab's bridge loses multicast, so neighbour discovery, over a reboot.
        targets = [(gateway.address, 443), (gateway.address, 11434)]
        assert firewall.reach(lab, "stranger", targets) == ["open"] * 2
        looked = lab.run(gateway.name, "sh", "-c", "ls -d /etc/llm-firewall /usr/sbin/iptables")
        assert looked.stdout == ""
