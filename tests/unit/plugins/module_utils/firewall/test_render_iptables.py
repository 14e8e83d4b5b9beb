# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import subprocess

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import judge
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.iptables_save import (
    parse_iptables,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.render_iptables import (
    own_part,
    render_iptables,
    with_candidate,
)
from hypothesis import given, settings

from tests.unit.plugins.module_utils.firewall.policies import expected, packets, policies

OTHERS = """\
*nat
:PREROUTING ACCEPT [0:0]
-A PREROUTING -p tcp -m tcp --dport 1 -j REDIRECT --to-ports 2
COMMIT
*filter
:INPUT DROP [3:4]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:theirs - [0:0]
-A INPUT -j theirs
-A theirs -s 192.0.2.0/24 -j ACCEPT
COMMIT
"""


@settings(max_examples=400, deadline=None)
@given(policies, packets())
def test_the_rules_do_what_the_policy_says(policy, case):
    hook, packet = case
    version = packet.source.version
    text = with_candidate("", render_iptables(policy, version))
    judgement = judge(parse_iptables(text, packet.family), packet, hook)
    assert judgement.verdict is expected(policy, hook, packet), judgement.deciding


@settings(max_examples=15, deadline=None)
@given(policies)
def test_the_tools_take_them_and_say_the_same(policy):
    for version, tool in ((4, "iptables"), (6, "ip6tables")):
        text = with_candidate("", render_iptables(policy, version))
        script = f"{tool}-restore && {tool}-save -t filter"
        done = subprocess.run(
            ["unshare", "--net", "sh", "-c", script],
            input=text,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert own_part(done.stdout) == own_part(text)


def test_the_rules_of_others_stay():
    candidate = "*filter\n:LLM-HARDENING-INPUT - [0:0]\n-A LLM-HARDENING-INPUT -j RETURN\nCOMMIT\n"
    merged = with_candidate(OTHERS, candidate)
    assert [line for line in merged.splitlines() if "LLM" not in line] == OTHERS.splitlines()
    lines = merged.splitlines()
    assert lines.index("-A INPUT -j LLM-HARDENING-INPUT") < lines.index("-A INPUT -j theirs")
    assert with_candidate(merged, candidate) == merged
    assert with_candidate(merged, None) == OTHERS


def test_a_jump_that_comes_too_late_is_not_the_same():
    candidate = "*filter\n:LLM-HARDENING-INPUT - [0:0]\n-A LLM-HARDENING-INPUT -j RETURN\nCOMMIT\n"
    good = with_candidate(OTHERS, candidate)
    jump = "-A INPUT -j LLM-HARDENING-INPUT\n"
    late = good.replace(jump, "").replace("-A INPUT -j theirs\n", f"-A INPUT -j theirs\n{jump}")
    assert own_part(late) != own_part(good)


def test_a_window_that_is_open_is_no_difference():
    closed = "*filter\n:LLM-HARDENING-WINDOW - [0:0]\nCOMMIT\n"
    opened = closed.replace(
        "COMMIT", "-A LLM-HARDENING-WINDOW -m time --datestop 2026-11-25T08:00:00 -j ACCEPT\nCOMMIT"
    )
    assert own_part(opened) == own_part(closed) == [":LLM-HARDENING-WINDOW -"]
