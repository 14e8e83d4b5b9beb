# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import (
    Verdict,
    judge,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.nft_json import parse_nft
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.packets import Packet
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.policy import (
    Egress,
    Policy,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.render_nft import (
    render_nft,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.plugins.module_utils.firewall.policies import expected, packets, policies


def in_scratch(script, stdin):
    return subprocess.run(
        ["unshare", "--net", "sh", "-c", script],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
    )


def loaded(policy, more=""):
    """Return the policy's rules as the kernel took them."""
    done = in_scratch(f"nft -f - && {more} nft -j list ruleset", render_nft(policy))
    assert done.returncode == 0, done.stderr
    return parse_nft(done.stdout)


@settings(max_examples=60, deadline=None)
@given(policies, st.lists(packets(), min_size=15, max_size=15))
def test_the_rules_do_what_the_policy_says(policy, cases):
    ruleset = loaded(policy)
    for hook, packet in cases:
        judgement = judge(ruleset, packet, hook)
        assert judgement.verdict is expected(policy, hook, packet), judgement.deciding


@settings(max_examples=10, deadline=None)
@given(policies)
def test_loading_twice_changes_nothing_and_others_stay(policy):
    script = (
        'nft add table ip others; cat >/dev/null; f=$(mktemp); printf %s "$RULES" >$f;'
        "nft -f $f && nft list ruleset >$f.1; nft -f $f && nft list ruleset >$f.2;"
        "cat $f.1; cmp $f.1 $f.2; code=$?; rm $f $f.1 $f.2; exit $code"
    )
    done = subprocess.run(
        ["unshare", "--net", "sh", "-c", script], input="", capture_output=True, text=True,
        check=False, env={"RULES": render_nft(policy), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "table ip others" in done.stdout


def test_a_window_opens_the_network_and_not_the_metadata():
    policy = Policy((), (), Egress(997, restrict=True, metadata=True, allow=()))
    window = "nft add element inet llm_hardening pull_window '{ 997 timeout 60s }' &&"

    def verdict(ruleset, target):
        source = "2001:db8::1" if ":" in target else "192.0.2.1"
        packet = Packet.tcp(source, target, 443, out_interface="eth0", user_id=997)
        return judge(ruleset, packet, "output").verdict

    closed, opened = loaded(policy), loaded(policy, window)
    assert verdict(closed, "198.51.100.1") is Verdict.DROP
    assert verdict(opened, "198.51.100.1") is Verdict.ACCEPT
    for clouds in ("169.254.169.254", "100.100.100.200", "fd00:ec2::254", "fd20:ce::254"):
        assert verdict(opened, clouds) is Verdict.DROP


def test_replies_of_the_llm_server_pass():
    ruleset = loaded(Policy((), (), Egress(997, restrict=True, metadata=True, allow=())))
    reply = Packet.tcp(
        "192.0.2.1", "198.51.100.1", 50000, source_port=11434, out_interface="eth0", user_id=997,
        ct_state="established",
    )  # fmt: skip
    # Of an established connection nobody knows who began it: both may be.
    assert judge(ruleset, reply, "output").verdict is Verdict.MAYBE


def test_a_host_without_names_of_protocols_takes_them():
    """Debian without netbase has no /etc/protocols."""
    script = "mount --bind /dev/null /etc/protocols; nft -f - && nft list ruleset"
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-euc", script],
        input=render_nft(Policy((), (), None, drops_rest=True)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "l4proto { 1, 58 }" in done.stdout
