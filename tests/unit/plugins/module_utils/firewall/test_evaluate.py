# SPDX-License-Identifier: GPL-3.0-or-later
"""How hooks, priorities, chains and doubts make a verdict."""

from __future__ import annotations

import itertools
import time

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import (
    judge,
    judge_path,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import Ruleset
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.plugins.module_utils.firewall.build import (
    ACCEPT,
    ALLOW,
    DENY,
    DPORT,
    DROP,
    LIMIT,
    MAYBE,
    SADDR,
    ct,
    jump,
    match,
    meta,
    payload,
    port,
    rules,
    table,
    tcp,
    udp,
)

RETURN = {"return": None}
NOTRACK = {"notrack": None}
SENT = tcp(in_interface=None, out_interface="eth0", user_id=0, group_id=0)


def verdict(*tables, packet=None, hook="input"):
    return judge(rules(*tables), packet or tcp(), hook).verdict


def one(rule_list, policy="drop", **chains):
    return table(chains={"c": ("input", 0, policy, rule_list), **chains})


# -- Base chains -----------------------------------------------------------------------------------


def test_accept_ends_one_base_chain_drop_ends_all():
    first = table("a", {"c": ("input", 0, "accept", [[port(80), ALLOW]])})
    second = table("b", {"c": ("input", 10, "accept", [[DENY]])})
    assert verdict(first, second) is DROP
    assert verdict(second, first) is DROP
    judgement = judge(rules(first, second), tcp())
    assert judgement.deciding == ("table inet b, chain c, rule handle 1: drop",)


def test_every_base_chain_must_accept():
    first = table("a", {"c": ("input", 0, "drop", [[port(80), ALLOW]])})
    second = table("b", {"c": ("input", 10, "drop", [[port(80), ALLOW], [port(81), ALLOW]])})
    assert verdict(first, second) is ACCEPT
    assert verdict(first, second, packet=tcp(81)) is DROP
    assert judge(rules(first, second), tcp()).deciding == (
        "table inet a, chain c, rule handle 1: tcp dport 80 accept",
        "table inet b, chain c, rule handle 1: tcp dport 80 accept",
    )


def test_an_ipv4_table_leaves_ipv6_open():
    closed = table(chains={"c": ("input", 0, "drop", [])}, family="ip")
    assert verdict(closed) is DROP
    assert verdict(closed, packet=tcp(11434, source="fd00::5")) is ACCEPT


def test_the_policy_decides_what_no_rule_does():
    judgement = judge(rules(one([])), tcp())
    assert judgement.verdict is DROP
    assert judgement.deciding == ("policy drop of table inet t, chain c",)


@pytest.mark.parametrize(
    ("hook", "judged_at", "seen"),
    [
        ("prerouting", "input", True),
        ("prerouting", "forward", True),
        ("prerouting", "output", False),
        ("input", "input", True),
        ("input", "forward", False),
        ("forward", "forward", True),
        ("forward", "input", False),
        ("output", "output", True),
        ("output", "input", False),
        ("postrouting", "output", True),
        ("postrouting", "forward", True),
        ("postrouting", "input", False),
    ],
)
def test_a_packet_passes_the_hooks_of_its_way(hook, judged_at, seen):
    closed = table(chains={"c": (hook, 0, "drop", [])})
    assert verdict(closed, packet=tcp(out_interface="eth1"), hook=judged_at) is (
        DROP if seen else ACCEPT
    )


def test_a_path_may_be_judged_in_part():
    closed = rules(table(chains={"c": ("prerouting", 0, "drop", [])}))
    assert judge_path(closed, tcp(), ["input"]).verdict is ACCEPT
    assert judge_path(closed, tcp(), ["prerouting", "input"]).verdict is DROP


def test_an_unknown_hook_is_an_error_of_the_caller():
    with pytest.raises(ValueError, match="hook"):
        judge(Ruleset(), tcp(), "ingress")


# -- Chains ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule_list", "chain", "found"),
    [
        ([[jump("d")], [ALLOW]], [[RETURN], [DENY]], ACCEPT),
        ([[jump("d")], [ALLOW]], [[DENY]], DROP),
        ([[jump("d")], [ALLOW]], [], ACCEPT),
        ([[jump("d", "goto")], [ALLOW]], [], DROP),  # back to the policy, not to the next rule
        ([[jump("d", "goto")], [ALLOW]], [[ALLOW]], ACCEPT),
        ([[RETURN], [ALLOW]], [], DROP),
        ([[{"continue": None}], [ALLOW]], [], ACCEPT),
        ([[port(81), jump("d")], [ALLOW]], [[DENY]], ACCEPT),
        ([[jump("nowhere")], [ALLOW]], [], MAYBE),
    ],
)
def test_jumps_and_returns(rule_list, chain, found):
    assert verdict(one(rule_list, d=chain)) is found


def test_after_a_goto_the_way_back_leads_to_the_last_jump():
    chains = {"d": [[jump("e", "goto")], [DENY]], "e": []}
    assert verdict(one([[jump("d")], [ALLOW]], **chains)) is ACCEPT


def test_statements_before_a_match_are_run():
    mark = {"mangle": {"key": meta("mark"), "value": 7}}
    assert verdict(one([[mark, port(81), DENY], [match(meta("mark"), 7), ALLOW]])) is ACCEPT


# -- Doubts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule_list", "policy", "found"),
    [
        ([[LIMIT, ALLOW]], "drop", MAYBE),
        ([[LIMIT, ALLOW]], "accept", ACCEPT),
        ([[LIMIT, DENY]], "drop", DROP),
        ([[LIMIT, DENY], [ALLOW]], "drop", MAYBE),
        ([[LIMIT, RETURN], [ALLOW]], "accept", ACCEPT),
        ([[LIMIT, RETURN], [ALLOW]], "drop", MAYBE),
        ([[LIMIT, jump("d")], [ALLOW]], "drop", MAYBE),
        ([[LIMIT, jump("e")], [ALLOW]], "drop", ACCEPT),
        ([[LIMIT, jump("e", "goto")], [ALLOW]], "drop", MAYBE),
        ([[LIMIT], [ALLOW]], "drop", ACCEPT),
        ([[port(81), LIMIT, DENY], [ALLOW]], "drop", ACCEPT),
        ([[LIMIT, port(81), DENY], [ALLOW]], "drop", ACCEPT),
    ],
)
def test_a_verdict_is_given_where_all_ways_agree(rule_list, policy, found):
    assert verdict(one(rule_list, policy, d=[[DENY]], e=[])) is found


def test_a_doubt_names_its_rule():
    judgement = judge(rules(one([[LIMIT, ALLOW]])), tcp())
    assert judgement.verdict is MAYBE
    assert judgement.deciding == (
        "perhaps table inet t, chain c, rule handle 1: limit rate 5/second accept",
        "policy drop of table inet t, chain c",
    )


def test_a_doubtful_drop_before_a_certain_one_is_a_drop():
    first = table("a", {"c": ("input", 0, "accept", [[LIMIT, DENY]])})
    second = table("b", {"c": ("input", 10, "drop", [])})
    assert verdict(first, second) is DROP
    assert verdict(first) is MAYBE


def test_a_translation_before_a_drop_is_no_drop():
    """The translated packet may go elsewhere, past this drop."""
    nat = table(
        "a", {"c": ("prerouting", -100, "accept", [[{"dnat": {"addr": "10.0.0.9"}}]], "nat")}
    )
    closed = table("b", {"c": ("input", 0, "drop", [])})
    early = table("b", {"c": ("prerouting", -300, "drop", [])})
    assert verdict(nat, closed) is MAYBE
    assert verdict(nat, early) is DROP


def test_what_a_doubtful_rule_writes_is_unknown():
    mark = {"mangle": {"key": meta("mark"), "value": 5}}
    assert verdict(one([[LIMIT, mark], [match(meta("mark"), 5), ALLOW]])) is MAYBE
    assert verdict(one([[LIMIT, mark], [match(meta("mark"), 9), ALLOW]])) is MAYBE
    same = {"mangle": {"key": meta("mark"), "value": 0}}
    assert verdict(one([[LIMIT, same], [match(meta("mark"), 0), ALLOW]])) is ACCEPT


def test_what_is_written_on_a_doubtful_way_is_unknown_on_the_other():
    mark = {"mangle": {"key": meta("mark"), "value": 5}}
    inner = [[LIMIT, RETURN], [mark]]
    assert verdict(one([[jump("d")], [match(meta("mark"), 5), ALLOW]], d=inner)) is MAYBE
    sure = [[LIMIT], [mark]]
    assert verdict(one([[jump("d")], [match(meta("mark"), 5), ALLOW]], d=sure)) is ACCEPT


def test_gaps_are_doubts():
    whole = rules(one([[ALLOW]]))
    gap = Ruleset(whole.tables, ("legacy tables",))
    judgement = judge(gap, tcp())
    assert judgement.verdict is MAYBE
    assert "legacy tables" in judgement.deciding
    # Even a drop is doubtful: what we were not shown may translate the packet before.
    assert judge(Ruleset(rules(one([])).tables, ("legacy tables",)), tcp()).verdict is MAYBE


# -- Bounds ----------------------------------------------------------------------------------------


def doubling(depth, statement=None):
    """Chains of which each jumps twice to the next: 2**depth ways."""
    chains = {f"d{n}": [[jump(f"d{n + 1}")], [jump(f"d{n + 1}")]] for n in range(depth)}
    chains[f"d{depth}"] = [[statement] if statement else []]
    return one([[jump("d0")], [ALLOW]], **chains)


def test_many_ways_are_followed_once():
    start = time.monotonic()
    assert verdict(doubling(100)) is ACCEPT
    assert time.monotonic() - start < 5


def test_doubtful_ways_do_not_multiply():
    chains = {f"d{n}": [[LIMIT, jump(f"d{n + 1}")], [LIMIT, jump(f"d{n + 1}")]] for n in range(60)}
    assert verdict(one([[jump("d0")], [ALLOW]], **chains, d60=[[LIMIT, RETURN]])) is ACCEPT


def test_ways_without_end_are_maybe():
    """Each way leaves another mark behind: nothing can be remembered, and 2**60 is too much."""
    step = {"mangle": {"key": meta("mark"), "value": {"^": [meta("mark"), 1]}}}
    chains = {f"d{n}": [[step, jump(f"d{n + 1}")], [step, jump(f"d{n + 1}")]] for n in range(60)}
    start = time.monotonic()
    found = judge(rules(one([[jump("d0")], [ALLOW]], **chains, d60=[])), tcp())
    assert found.verdict in (ACCEPT, MAYBE)
    assert time.monotonic() - start < 60


def test_a_circle_of_jumps_is_maybe():
    assert verdict(one([[jump("d")], [ALLOW]], d=[[jump("e")]], e=[[jump("d")]])) is MAYBE


def test_too_deep_jumps_are_maybe():
    chains = {f"d{n}": [[jump(f"d{n + 1}")]] for n in range(300)}
    assert verdict(one([[jump("d0")], [ALLOW]], **chains, d300=[])) is MAYBE


# -- Connection tracking ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("priority", "state", "found"),
    [
        (-300, "invalid", DROP),  # conntrack has not seen it yet
        (-300, "new", ACCEPT),
        (-150, "invalid", ACCEPT),
        (-150, "new", DROP),
        (-200, "new", MAYBE),
    ],
)
def test_before_conntrack_every_packet_is_invalid(priority, state, found):
    early = {"c": ("prerouting", priority, "accept", [[match(ct("state"), state, "in"), DENY]])}
    assert verdict(table(chains=early)) is found
    assert verdict(table(chains=early), packet=tcp(in_interface="lo"), hook="input") is (
        MAYBE if priority <= -200 else found
    )


def test_notrack_works_before_conntrack_only():
    asks = {"c": ("input", 0, "drop", [[match(ct("state"), "untracked", "in"), ALLOW]])}
    early = {"r": ("prerouting", -300, "accept", [[NOTRACK]])}
    late = {"r": ("prerouting", -150, "accept", [[NOTRACK]])}
    assert verdict(table(chains={**early, **asks})) is ACCEPT
    assert verdict(table(chains={**late, **asks})) is DROP
    perhaps = {"r": ("prerouting", -300, "accept", [[LIMIT, NOTRACK]])}
    assert verdict(table(chains={**perhaps, **asks})) is MAYBE


def test_an_untracked_packet_has_no_connection_to_ask():
    early = {"r": ("prerouting", -300, "accept", [[NOTRACK]])}
    asks = {"c": ("input", 0, "drop", [[match(ct("mark"), 5, "!="), ALLOW]])}
    assert verdict(table(chains={**early, **asks})) is DROP
    assert verdict(table(chains=asks)) is ACCEPT


# -- Address translation ---------------------------------------------------------------------------

DNAT = {"dnat": {"addr": "10.0.0.9"}}


def nat(hook, rule_list, priority=-100, policy="accept"):
    return table("nat", {"c": (hook, priority, policy, rule_list, "nat")})


def test_nat_chains_run_where_nf_nat_does_whatever_their_priority():
    """A nat chain at -150 or at 300 runs at -100: behind a filter chain at -120."""
    closed = table("a", {"c": ("prerouting", -120, "drop", [])})
    assert verdict(nat("prerouting", [[DNAT]], priority=-150), closed) is DROP
    late = table("a", {"c": ("prerouting", 0, "drop", [])})
    assert verdict(nat("prerouting", [[DNAT]], priority=300), late) is MAYBE


@pytest.mark.parametrize("state", ["invalid", "untracked"])
def test_nat_chains_do_not_see_packets_without_a_connection(state):
    assert verdict(nat("prerouting", [[DNAT]]), packet=tcp(ct_state=state)) is ACCEPT


def test_nat_chains_do_not_drop_known_connections():
    known = tcp(ct_state="established")
    assert verdict(nat("prerouting", [], policy="drop"), packet=known) is ACCEPT
    assert verdict(nat("prerouting", [], policy="drop")) is DROP


def test_a_known_connection_may_have_been_translated():
    known = tcp(ct_state="established")
    assert verdict(nat("prerouting", [[port(80), DNAT]]), packet=known) is MAYBE
    assert verdict(nat("prerouting", [[port(81), DNAT]]), packet=known) is ACCEPT
    # an answer to a connection of ours that was translated on its way out
    out = [[match(DPORT, 40000), {"masquerade": None}]]
    assert verdict(nat("postrouting", out, priority=100), packet=known) is MAYBE


def test_packets_of_the_loopback_interface_were_translated_on_their_way_out():
    local = tcp(in_interface="lo", source="127.0.0.1")
    assert verdict(nat("prerouting", [[DNAT]]), packet=local) is ACCEPT
    assert verdict(nat("prerouting", [], policy="drop"), packet=local) is ACCEPT
    assert verdict(nat("prerouting", [[DNAT]]), packet=tcp(in_interface=None)) is MAYBE


# -- Families --------------------------------------------------------------------------------------


def test_bridge_chains_are_doubts_where_there_may_be_a_bridge():
    bridge = table("b", {"c": ("input", 0, "drop", [])}, family="bridge")
    assert verdict(bridge) is MAYBE
    assert verdict(bridge, packet=tcp(in_interface="lo")) is ACCEPT
    harmless = table("b", {"c": ("input", 0, "accept", [])}, family="bridge")
    assert verdict(harmless) is ACCEPT


def test_arp_chains_do_not_see_ip():
    assert verdict(table("a", {"c": ("input", 0, "drop", [])}, family="arp")) is ACCEPT


def test_ingress_comes_first():
    ingress = table("n", family="netdev")
    ingress.append(
        {"chain": {"family": "netdev", "table": "n", "name": "i", "handle": 1, "type": "filter",
                   "hook": "ingress", "prio": 0, "policy": "drop", "dev": "eth0"}}
    )  # fmt: skip
    nat_chain = nat("prerouting", [[DNAT]])
    assert verdict(ingress, nat_chain) is DROP
    assert verdict(ingress, packet=tcp(in_interface="lo")) is ACCEPT


# -- Order -----------------------------------------------------------------------------------------


def test_chains_of_one_priority_do_not_know_what_the_other_wrote():
    mark = {"mangle": {"key": meta("mark"), "value": 5}}
    writes = table("a", {"c": ("input", 0, "accept", [[mark]])})
    reads = table("b", {"c": ("input", 0, "drop", [[match(meta("mark"), 5), ALLOW]])})
    assert verdict(writes, reads) is MAYBE
    assert verdict(reads, writes) is MAYBE
    later = table("b", {"c": ("input", 1, "drop", [[match(meta("mark"), 5), ALLOW]])})
    assert verdict(writes, later) is ACCEPT
    assert verdict(later, writes) is ACCEPT


FORMS = st.sampled_from(
    [
        [port(80)],
        [port(81)],
        [match(SADDR, "10.0.0.5")],
        [match(SADDR, "10.0.0.6", "!=")],
        [match(ct("state"), "new", "in")],
        [match(meta("mark"), 5)],
        [match(payload("udp", "dport"), 53)],
        [LIMIT],
        [],
        [{"mangle": {"key": meta("mark"), "value": 5}}],
        [match(meta("iifname"), "eth*")],
    ]
)
ENDS = st.sampled_from([[ALLOW], [DENY], [RETURN], [jump("d")], [jump("d", "goto")], [], [DNAT]])
RULES = st.builds(lambda a, b, c: [*a, *b, *c], FORMS, FORMS, ENDS)
LEAVES = st.builds(lambda a, b: [*a, *b], FORMS, st.sampled_from([[ALLOW], [DENY], [RETURN], []]))
TABLES = st.lists(
    st.tuples(
        st.sampled_from(["inet", "ip", "ip6"]),
        st.sampled_from(["prerouting", "input"]),
        st.sampled_from([-300, -1, 0, 0, 10]),
        st.sampled_from(["accept", "drop"]),
        st.lists(RULES, max_size=4),
        st.lists(LEAVES, max_size=3),
    ),
    min_size=1,
    max_size=3,
)
PACKETS = st.sampled_from([tcp(80), tcp(81), udp(53), tcp(80, source="fd00::5"), tcp(80, mark=5)])


def build(drawn):
    return [
        table(f"t{n}", {"c": (hook, priority, policy, rule_list), "d": leaves}, family=family)
        for n, (family, hook, priority, policy, rule_list, leaves) in enumerate(drawn)
    ]


@settings(deadline=None)
@given(TABLES, PACKETS)
def test_the_order_of_tables_does_not_matter(drawn, packet):
    tables = build(drawn)
    found = {verdict(*order, packet=packet) for order in itertools.permutations(tables)}
    assert len(found) == 1


@settings(deadline=None)
@given(TABLES, PACKETS)
def test_a_table_more_never_lets_more_pass(drawn, packet):
    tables = build(drawn)
    if verdict(*tables[1:], packet=packet) is DROP:
        assert verdict(*tables, packet=packet) is not ACCEPT
    if verdict(*tables, packet=packet) is ACCEPT:
        assert verdict(*tables[1:], packet=packet) is not DROP


@settings(deadline=None)
@given(TABLES, PACKETS)
def test_forgetting_a_field_never_turns_the_verdict(drawn, packet):
    """What is judged without knowing the mark, the port or the interface holds for each of them."""
    from dataclasses import replace

    known = verdict(*build(drawn), packet=packet)
    for unknown in ({"mark": None}, {"destination_port": None}, {"in_interface": None}):
        vague = verdict(*build(drawn), packet=replace(packet, **unknown))
        assert vague in (known, MAYBE) or known is MAYBE


@settings(deadline=None)
@given(TABLES, PACKETS)
def test_every_verdict_says_why(drawn, packet):
    judgement = judge(rules(*build(drawn)), packet)
    assert judgement.deciding
    assert all(isinstance(reason, str) and reason for reason in judgement.deciding)
