# SPDX-License-Identifier: GPL-3.0-or-later
"""Every form of a match, as nft 1.0.6 and 1.1.3 write it (their output, not ours)."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import judge
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.nft_json import parse_nft
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import (
    RulesetError,
)
from hypothesis import HealthCheck, given, settings
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
    decide,
    jump,
    match,
    meta,
    payload,
    port,
    rules,
    table,
    tcp,
    text,
    udp,
)

ESTABLISHED = tcp(ct_state="established", tcp_flags=0x10)
FLAGS = payload("tcp", "flags")
SYN_ONLY = {"&": [FLAGS, ["fin", "syn", "rst", "ack"]]}
PREFIX = {"prefix": {"addr": "10.0.0.0", "len": 8}}

MATCHES = [
    # addresses and ports
    (match(SADDR, "10.0.0.5"), tcp(), True),
    (match(SADDR, "10.0.0.5", "!="), tcp(), False),
    (match(SADDR, PREFIX), tcp(), True),
    (match(SADDR, PREFIX), tcp(source="11.0.0.1"), False),
    (match(SADDR, {"range": ["10.0.0.4", "10.0.0.6"]}), tcp(), True),
    (match(SADDR, {"set": ["10.0.0.1", PREFIX]}), tcp(), True),
    (match(SADDR, {"set": ["10.0.0.1", {"elem": {"val": "10.0.0.5", "expires": 9}}]}), tcp(), True),
    (match({"&": [SADDR, "255.0.0.255"]}, "10.0.0.5"), tcp(source="10.9.9.5"), True),
    (match(payload("ip6", "saddr"), {"prefix": {"addr": "fe80::", "len": 10}}),
     tcp(source="fe80::5"), True),
    (match(DPORT, 80), tcp(80), True),
    (match(DPORT, {"range": [1, 79]}, "!="), tcp(80), True),
    (match(DPORT, {"set": [22, {"range": [70, 90]}]}), tcp(80), True),
    (match(DPORT, 80, "<"), tcp(80), False),
    (match(DPORT, 80, "<="), tcp(80), True),
    (match(DPORT, 79, ">"), tcp(80), True),
    (match(DPORT, 80, ">"), tcp(80), False),
    (match(DPORT, 80, ">="), tcp(80), True),
    (match(DPORT, 81, ">="), tcp(80), False),
    (match({"&": [DPORT, 1]}, 0), tcp(80), True),
    (match(payload("th", "dport"), 53), udp(53), True),
    (match({"payload": {"base": "th", "offset": 16, "len": 16}}, 53), udp(53), True),
    # a field that the packet does not have: no match, whatever the operator
    (match(DPORT, 80, "!="), udp(53), False),
    (match(SADDR, "10.0.0.9", "!="), tcp(source="fd00::5"), False),
    (match(payload("ip6", "saddr"), "fd00::9", "!="), tcp(), False),
    (match(payload("icmp", "type"), "echo-request", "!="), tcp(), False),
    # protocols
    (match(meta("l4proto"), "tcp"), tcp(), True),
    (match(meta("l4proto"), {"set": ["tcp", "udp"]}), udp(), True),
    (match(meta("nfproto"), "ipv4"), tcp(), True),
    (match(meta("nfproto"), "ipv4"), tcp(source="fd00::5"), False),
    (match(meta("protocol"), "ip6"), tcp(source="fd00::5"), True),
    (match(payload("ip", "protocol"), "tcp"), tcp(), True),
    (match(payload("ip6", "nexthdr"), "tcp"), tcp(), False),
    (match({"exthdr": {"name": "frag"}}, True), tcp(source="fd00::5"), False),
    (match({"exthdr": {"name": "frag"}}, False), tcp(source="fd00::5"), True),
    (match({"exthdr": {"name": "frag"}}, False), tcp(), False),
    (match({"exthdr": {"name": "rt", "field": "type"}}, 0), tcp(source="fd00::5"), False),
    # interfaces
    (match(meta("iifname"), "eth0"), tcp(), True),
    (match(meta("iifname"), "eth*"), tcp(), True),
    (match(meta("iifname"), "eth*"), tcp(in_interface="veth0"), False),
    (match(meta("iifname"), {"set": ["lo", "eth*"]}), tcp(), True),
    (match(meta("iif"), "eth0"), tcp(), True),
    (match(meta("iif"), "lo", "!="), tcp(), True),
    (match(meta("oifname"), "eth0", "!="), tcp(), True),  # none at input: the empty name
    (match(meta("oifname"), "eth0"), tcp(), False),
    # connection state, in all its forms
    (match(ct("state"), ["established", "related"], "in"), ESTABLISHED, True),
    (match(ct("state"), ["established", "related"], "in"), tcp(), False),
    (match(ct("state"), {"set": ["established", "related"]}), ESTABLISHED, True),
    (match(ct("state"), "new", "in"), tcp(), True),
    (match(ct("state"), "new"), tcp(), True),
    (match(ct("state"), "established", "!="), tcp(), True),
    (match(ct("state"), {"set": ["established", "new"]}, "!="), tcp(), False),
    (match(ct("state"), "established", "!"), tcp(), True),
    (match(ct("state"), ["established", "new"], "!"), tcp(), False),
    (match(ct("state"), ["established", "related"]), ESTABLISHED, False),  # both bits at once
    (match(ct("state"), {"|": ["established", "related"]}, "!="), ESTABLISHED, True),
    (match(ct("direction"), "original"), tcp(), True),
    (match(ct("status"), "dnat", "in"), tcp(), False),
    (match({"ct": {"key": "ip saddr", "dir": "original"}}, "10.0.0.5"), tcp(), True),
    (match({"ct": {"key": "proto-dst", "dir": "original"}}, 80), tcp(80), True),
    # TCP flags
    (match(FLAGS, "syn", "in"), tcp(), True),
    (match(FLAGS, ["syn", "ack"], "in"), tcp(tcp_flags=0x10), True),
    (match(SYN_ONLY, "syn"), tcp(), True),
    (match(SYN_ONLY, "syn"), tcp(tcp_flags=0x12), False),
    (match(FLAGS, {"set": ["syn", {"|": ["syn", "ack"]}]}), tcp(tcp_flags=0x12), True),
    (match(FLAGS, "ack", "!"), tcp(), True),
    # marks
    (match(meta("mark"), 5), tcp(mark=5), True),
    (match({"&": [meta("mark"), 0xF]}, 5), tcp(mark=0x15), True),
    (match(meta("mark"), {"prefix": {"addr": 16, "len": 28}}), tcp(mark=17), True),
    (match(meta("mark"), {"range": [5, 16]}), tcp(mark=17), False),
    (match(ct("mark"), 0), tcp(), True),
    (match({"|": [meta("mark"), 1]}, 5), tcp(mark=4), True),
    (match({"^": [meta("mark"), 1]}, 5), tcp(mark=4), True),
    # routes
    (match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), tcp(), True),
    (match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False),
     tcp(reverse_path=True), False),
    (match({"fib": {"result": "oif", "flags": ["saddr", "mark", "iif"]}}, False),
     tcp(reverse_path=False), True),
    # concatenations
    (match({"concat": [SADDR, DPORT]}, {"set": [{"concat": [PREFIX, {"range": [70, 90]}]}]}),
     tcp(80), True),
    (match({"concat": [SADDR, DPORT]}, {"set": [{"concat": ["10.0.0.5", 81]}]}), tcp(80), False),
    (match({"concat": [SADDR, DPORT]}, {"set": [{"concat": ["10.0.0.9", 81]}]}, "!="),
     udp(), False),
    (match({"concat": [meta("l4proto"), payload("th", "dport")]},
           {"set": [{"concat": ["tcp", 53]}, {"concat": ["udp", 53]}]}), udp(53), True),
    (match({"concat": [meta("iifname"), meta("oifname")]}, {"set": [{"concat": ["eth*", "lo"]}]}),
     tcp(), False),
]  # fmt: skip


@pytest.mark.parametrize(("form", "packet", "holds"), MATCHES)
def test_a_match_is_judged_exactly(form, packet, holds):
    assert decide([form], packet) is (ACCEPT if holds else DROP)


@pytest.mark.parametrize(
    "form",
    [
        LIMIT,
        {"quota": {"val": 5, "val_unit": "mbytes", "inv": True}},
        {"quota": "named"},
        {"ct count": {"val": 5}},
        {"meter": {"key": SADDR, "name": "m", "stmt": LIMIT}},
        match({"numgen": {"mode": "inc", "mod": 2}}, 0),
        match({"fib": {"result": "type", "flags": ["saddr"]}}, "local"),
        match({"fib": {"result": "type", "flags": ["daddr", "iif"]}}, "local"),
        match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False),
        match({"tcp option": {"name": "maxseg"}}, True),
        match(payload("ip", "ttl"), 64),
        match({"socket": {"key": "transparent"}}, 1),
        match(meta("time"), "2024-01-01 00:00:00"),
        match(ct("id"), 5),
        match({"payload": {"base": "nh", "offset": 64, "len": 8}}, 64),
        match(SADDR, "@a_set_that_is_not_listed"),
        match(SADDR, {"set": ["no address"]}),
        match(SADDR, {"set": [{"concat": ["10.0.0.9", 5]}]}),
        match(DPORT, 80, "~"),
        {"xt": {"type": "match", "name": "conntrack"}},
        {"xt": None},
        {"a_statement_of_tomorrow": {}},
        {"osf": {"key": "name"}},
    ],
)
def test_what_only_the_kernel_knows_is_maybe(form):
    assert decide([form], tcp()) is MAYBE


@pytest.mark.parametrize(
    ("form", "packet"),
    [
        (match(meta("iifname"), "eth0"), tcp(in_interface=None)),
        (match(ct("state"), "new", "in"), tcp(ct_state=None)),
        (match(payload("tcp", "sport"), 40000), tcp(mark=None, tcp_flags=None, ct_state=None)),
        (match(meta("mark"), 0), tcp(mark=None)),
        (match(DPORT, 80), tcp(None)),
        (match(FLAGS, "syn", "in"), tcp(tcp_flags=None)),
        (match({"concat": [SADDR, DPORT]}, {"set": [{"concat": [PREFIX, 80]}]}), tcp(None)),
    ],
)
def test_an_unknown_field_is_maybe_where_it_is_asked_for(form, packet):
    known = form["match"]["left"] == payload("tcp", "sport")
    assert decide([form], packet) is (ACCEPT if known else MAYBE)


def test_unknown_parts_of_a_concatenation_matter_only_where_the_known_ones_fit():
    pair = {"concat": [SADDR, DPORT]}
    assert decide([match(pair, {"set": [{"concat": ["10.0.0.9", 80]}]})], tcp(None)) is DROP


def test_icmp_types_are_known_where_they_are_given():
    from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.packets import Packet

    echo = Packet.icmp("10.0.0.5", "10.0.0.1", 8, 0, in_interface="eth0")
    unknown = Packet.icmp("10.0.0.5", "10.0.0.1", in_interface="eth0")
    ask = match(payload("icmp", "type"), "echo-request")
    assert decide([ask], echo) is ACCEPT
    assert decide([ask], unknown) is MAYBE
    solicit = Packet.icmp("fe80::1", "fe80::2", 135, 0, in_interface="eth0")
    types = {"set": ["nd-neighbor-solicit", "nd-neighbor-advert"]}
    assert decide([match(payload("icmpv6", "type"), types)], solicit) is ACCEPT
    assert decide([match(payload("icmp", "code"), "net-unreachable")], echo) is ACCEPT


# -- Owners ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("right", "op", "uid", "verdict"),
    [
        (0, "==", 0, ACCEPT),
        ({"set": [0, 33]}, "!=", 1000, ACCEPT),
        ({"set": [0, "www-data"]}, "!=", 33, DROP),
        ({"range": [1, 999]}, "==", 33, ACCEPT),
        ("www-data", "==", 33, ACCEPT),
        ("www-data", "==", None, MAYBE),
        (100, ">", 33, DROP),
    ],
)
def test_owners_are_known_at_output(right, op, uid, verdict):
    packet = tcp(in_interface=None, out_interface="lo", user_id=uid)
    rule = [match(meta("skuid"), right, op)]
    assert decide(rule, packet, hook="output", users={"www-data": 33}) is verdict


def test_a_received_packet_has_no_owner_yet():
    assert decide([match(meta("skuid"), 0, "!=")], tcp()) is DROP
    assert decide([match(meta("skuid"), 0, "!=")], ESTABLISHED) is MAYBE


# -- Sets and maps ---------------------------------------------------------------------------------


def named(name, elements, kind="ipv4_addr", **fields):
    return {"name": name, "type": kind, "elem": elements, **fields}


def test_named_sets_hold_their_elements():
    timed = {"elem": {"val": "10.0.0.5", "expires": 59, "comment": "x", "counter": {"packets": 0}}}
    sets = [named("s", [timed, PREFIX, {"range": ["192.168.0.1", "192.168.0.9"]}])]
    rule = [match(SADDR, "@s")]
    assert decide(rule, tcp(), sets=sets) is ACCEPT
    assert decide(rule, tcp(source="192.168.0.9"), sets=sets) is ACCEPT
    assert decide(rule, tcp(source="192.168.0.10"), sets=sets) is DROP
    assert decide([match(SADDR, "@s", "!=")], tcp(source="192.168.0.10"), sets=sets) is ACCEPT


def test_a_set_without_elements_holds_nothing():
    sets = [{"name": "s", "type": "ipv4_addr"}]
    assert decide([match(SADDR, "@s")], tcp(), sets=sets) is DROP


def test_an_element_we_cannot_read_may_be_the_packet():
    sets = [named("s", ["10.0.0.5", {"tomorrow": 5}])]
    assert decide([match(SADDR, "@s")], tcp(), sets=sets) is ACCEPT
    assert decide([match(SADDR, "@s")], tcp(source="10.0.0.6"), sets=sets) is MAYBE


def test_verdict_maps_lead_where_they_say():
    chains = {"good": [[ALLOW]], "bad": [[DENY]]}
    data = {"set": [[80, jump("good")], [{"range": [81, 90]}, jump("bad", "goto")], [91, ALLOW]]}
    rule = [{"vmap": {"key": DPORT, "data": data}}]
    verdicts = [decide(rule, tcp(number), chains=chains) for number in (80, 85, 91, 92)]
    assert verdicts == [ACCEPT, DROP, ACCEPT, DROP]


def test_a_miss_in_a_verdict_map_ends_the_rule():
    rule = [{"vmap": {"key": DPORT, "data": {"set": [[81, DENY]]}}}]
    assert decide(rule, tcp(80)) is DROP  # the accept behind it is not reached
    assert decide([{"vmap": {"key": DPORT, "data": {"set": [[81, DENY]]}}}], udp()) is DROP


def test_named_verdict_maps_and_the_catch_all():
    maps = [
        named("v", [[{"elem": {"val": 81, "comment": "z"}}, DENY], ["*", ALLOW]], "inet_service")
    ]
    rule = [{"vmap": {"key": DPORT, "data": "@v"}}]
    assert decide(rule, tcp(80), maps=maps) is ACCEPT
    assert decide(rule, tcp(81), maps=maps) is DROP
    assert decide(rule, tcp(None), maps=maps) is MAYBE


def test_an_unknown_key_does_not_matter_where_all_verdicts_agree():
    maps = [named("v", [[81, ALLOW], ["*", ALLOW]], "inet_service")]
    assert decide([{"vmap": {"key": DPORT, "data": "@v"}}], tcp(None), maps=maps) is ACCEPT


def test_concatenated_verdict_maps():
    data = {"set": [[{"concat": ["10.0.0.5", 80]}, ALLOW]]}
    rule = [{"vmap": {"key": {"concat": [SADDR, DPORT]}, "data": data}}]
    assert decide(rule, tcp(80)) is ACCEPT
    assert decide(rule, tcp(81)) is DROP


# -- Statements ------------------------------------------------------------------------------------


def mangle(key, value):
    return {"mangle": {"key": key, "value": value}}


@pytest.mark.parametrize(
    ("value", "mark"),
    [
        (5, 5),
        (ct("mark"), 0),
        ({"|": [meta("mark"), 0x10]}, 0x13),
        ({"^": [{"&": [meta("mark"), 0xFF]}, 7]}, 4),
        ({"map": {"key": DPORT, "data": {"set": [[80, 9]]}}}, 9),
    ],
)
def test_a_mark_that_is_set_is_matched_later(value, mark):
    rule = [mangle(meta("mark"), value), match(meta("mark"), mark)]
    assert decide(rule, tcp(mark=3)) is ACCEPT


def test_a_map_without_the_key_ends_the_rule_and_sets_nothing():
    value = {"map": {"key": DPORT, "data": {"set": [[81, 9]]}}}
    chain = [[mangle(meta("mark"), value), ALLOW], [match(meta("mark"), 3), ALLOW]]
    found = rules(table(chains={"c": ("input", 0, "drop", chain)}))
    judgement = judge(found, tcp(mark=3))
    assert judgement.verdict is ACCEPT
    assert "rule handle 2" in judgement.deciding[0]


def test_an_unknown_value_makes_the_field_unknown():
    rule = [mangle(meta("mark"), {"numgen": {"mode": "inc", "mod": 7}}), match(meta("mark"), 3)]
    assert decide(rule, tcp()) is MAYBE
    assert decide([mangle(payload("ip", "dscp"), "cs1")], tcp()) is ACCEPT


@pytest.mark.parametrize(
    "statement",
    [
        mangle(DPORT, 8080),
        mangle(payload("ip", "daddr"), "10.0.0.9"),
        {"dnat": {"addr": "10.0.0.9"}},
        {"redirect": {"port": 8080}},
        {"masquerade": None},
        {"snat": {"addr": "10.0.0.9"}},
        {"tproxy": {"port": 8080}},
        {"queue": {"num": 1}},
        {"synproxy": {"mss": 1400}},
        {"fwd": {"dev": "eth1"}},
    ],
)
def test_what_takes_the_packet_elsewhere_is_maybe(statement):
    chains = {"c": ("input", 0, "accept", [[port(80), statement]])}
    assert judge(rules(table(chains=chains)), tcp(80)).verdict is MAYBE
    assert judge(rules(table(chains=chains)), tcp(81)).verdict is ACCEPT
    closed = {"c": ("input", 0, "drop", [[port(80), statement]])}
    assert judge(rules(table(chains=closed)), tcp(80)).verdict is MAYBE


@pytest.mark.parametrize(
    "statement",
    [
        {"counter": {"packets": 1, "bytes": 1}},
        {"counter": "named"},
        {"log": {"prefix": "x"}},
        {"log": None},
        {"ct helper": "ftp"},
        {"flow": {"op": "add", "flowtable": "@ft"}},
        {"dup": {"addr": "10.0.0.9"}},
        mangle(meta("nftrace"), 1),
        {"last": {"used": 5}},
    ],
)
def test_what_only_looks_on_decides_nothing(statement):
    assert decide([statement], tcp()) is ACCEPT


@pytest.mark.parametrize("reject", [None, {"type": "tcp reset"}, {"type": "icmpx", "expr": "x"}])
def test_a_reject_is_a_drop(reject):
    chains = {"c": ("input", 0, "accept", [[{"reject": reject}]])}
    assert judge(rules(table(chains=chains)), tcp()).verdict is DROP


IP6 = tcp(source="fd00::5")


@pytest.mark.parametrize(
    ("statement", "packet", "found"),
    [
        (mangle(payload("ip", "ttl"), 5), tcp(), ACCEPT),
        (mangle(payload("ip", "ttl"), 5), IP6, DROP),
        (mangle(payload("ip", "daddr"), "10.0.0.9"), IP6, DROP),
        (mangle(DPORT, 8080), udp(), DROP),
        (mangle({"tcp option": {"name": "maxseg", "field": "size"}}, 1400), udp(), DROP),
        (mangle({"tcp option": {"name": "maxseg", "field": "size"}}, 1400), tcp(), MAYBE),
        ({"dnat": {"family": "ip", "addr": "10.0.0.9"}}, IP6, DROP),
        ({"dnat": {"family": "ip", "addr": "10.0.0.9"}}, tcp(), MAYBE),
        ({"synproxy": {"mss": 1400}}, udp(), DROP),
    ],
)
def test_a_statement_on_a_field_ends_rules_for_packets_without_it(statement, packet, found):
    """nft adds the condition (`meta nfproto`, `meta l4proto`) in silence and does not list it."""
    assert decide([statement], packet) is found


@pytest.mark.parametrize(
    ("kind", "packet", "found"),
    [
        ("icmp", tcp(), DROP),
        ("icmp", IP6, ACCEPT),
        ("icmpv6", tcp(), ACCEPT),
        ("icmpv6", IP6, DROP),
        ("tcp reset", udp(), ACCEPT),
        ("icmpx", IP6, DROP),
    ],
)
def test_a_reject_is_for_packets_that_it_can_answer(kind, packet, found):
    chains = {"c": ("input", 0, "accept", [[{"reject": {"type": kind}}]])}
    assert judge(rules(table(chains=chains)), packet).verdict is found


def test_an_element_that_a_rule_adds_may_be_matched_later():
    sets = [named("seen", [], size=100)]
    add = {"set": {"op": "add", "elem": SADDR, "set": "@seen"}}
    chain = [[add], [match(SADDR, "@seen"), ALLOW]]
    found = rules(table(chains={"c": ("input", 0, "drop", chain)}, sets=sets))
    assert judge(found, tcp()).verdict is MAYBE
    assert judge(found, tcp(source="fd00::5")).verdict is DROP


def test_a_limit_within_a_set_statement_is_a_condition():
    sets = [named("seen", [], size=100)]
    elem = {"elem": {"val": SADDR, "timeout": 60}}
    update = {"set": {"op": "update", "elem": elem, "set": "@seen", "stmt": [LIMIT]}}
    assert decide([update], tcp(), sets=sets) is MAYBE
    plain = {"set": {"op": "update", "elem": elem, "set": "@seen"}}
    assert decide([plain], tcp(), sets=sets) is ACCEPT
    full = [named("seen", ["10.0.0.9"], size=1)]
    assert decide([plain], tcp(), sets=full) is MAYBE


# -- Facts of the listing --------------------------------------------------------------------------

LISTING = """table ip sleeping {
\tflags dormant

\tchain c {
\t\ttype filter hook input priority filter; policy drop;
\t}
}
table ip awake {
\tchain c {
\t\ttype filter hook input priority filter; policy accept;
\t}
}
table netdev n {
\tchain i {
\t\ttype filter hook ingress device "eth0" priority filter; policy drop;
\t}
\tchain j {
\t\ttype filter hook ingress devices = { "eth1", "eth2" } priority filter; policy drop;
\t}
}
"""


def closed(name, **fields):
    return table(name, {"c": ("input", 0, "drop", [])}, family="ip", **fields)


def test_a_dormant_table_does_not_count():
    """nft 1.0.6 writes "flags": "d" or other garbage: the text of the listing decides."""
    both = [
        closed("sleeping", flags="d"),
        table("awake", {"c": ("input", 0, "accept", [])}, family="ip"),
    ]
    assert judge(rules(*both, listing=LISTING), tcp()).verdict is ACCEPT
    assert judge(rules(*both), tcp()).verdict is MAYBE
    assert judge(rules(closed("sleeping", flags=["dormant"])), tcp()).verdict is ACCEPT
    assert judge(rules(closed("t", flags=["owner", "persist"])), tcp()).verdict is DROP
    assert judge(rules(closed("awake"), listing=LISTING), tcp()).verdict is DROP


def test_the_devices_of_ingress_chains_come_from_the_listing():
    ingress = table("n", {"i": ("ingress", 0, "drop", [])}, family="netdev")
    assert judge(rules(ingress, listing=LISTING), tcp()).verdict is DROP
    assert judge(rules(ingress), tcp()).verdict is MAYBE
    # eth1 may carry eth0 as a VLAN does: then its chain sees the packet as well
    others = table("n", {"j": ("ingress", 0, "drop", [])}, family="netdev")
    assert judge(rules(others, listing=LISTING), tcp()).verdict is MAYBE
    assert judge(rules(others, listing=LISTING), tcp(in_interface="lo")).verdict is ACCEPT
    assert judge(rules(others, listing=LISTING), tcp(in_interface="eth2")).verdict is DROP


@pytest.mark.parametrize(
    "broken",
    [
        "",
        "{",
        "[]",
        "{}",
        '{"nftables": 5}',
        '{"nftables": []}',
        '{"nftables": [5]}',
        '{"nftables": [{"metainfo": {}}, {"table": 5}]}',
        '{"nftables": [{"metainfo": {}}, {"table": {"family": "ip"}}]}',
        '{"nftables": [{"metainfo": {}}, {"rule": {"family": "ip", "table": "t", "chain": "c"}}]}',
        '{"nftables": [{"metainfo": {}}, {"chain": {"family": "ip", "table": "t", "name": "c"}}]}',
        text(table(chains={"c": ("input", "filter", "drop", [])})),
        text(table(chains={"c": ("input", 0, "later", [])})),
        "Error: Could not process rule: Operation not permitted",
    ],
)
def test_what_is_no_listing_is_refused(broken):
    with pytest.raises(RulesetError, match=r"\S"):
        parse_nft(broken)


def test_an_empty_rule_set_accepts():
    judgement = judge(rules(), tcp())
    assert judgement.verdict is ACCEPT
    assert judgement.deciding == ("no chain at ingress, prerouting, input for family ip",)


# -- Anything at all -------------------------------------------------------------------------------

CORPUS = Path(__file__).with_name("corpus")
SAMPLES = [
    json.loads((CORPUS / "debian12-firewalld/nft.json").read_text()),
    json.loads(
        text(
            table(chains={"c": ("input", 0, "drop", [[form, ALLOW] for form, *_unused in MATCHES])})
        )
    ),
    json.loads(
        text(
            table(
                chains={
                    "c": ("input", 0, "drop", [[{"vmap": {"key": DPORT, "data": "@v"}}]]),
                    "d": [],
                },
                maps=[named("v", [[80, jump("d")], ["*", DENY]], "inet_service")],
                sets=[named("s", ["10.0.0.1", PREFIX])],
            )
        )
    ),
]
JUNK = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-5, 1 << 40), st.text(max_size=4), st.just("@s")
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["set", "range", "prefix", "concat", "elem", "&", "payload", "map", "val"]
            ),
            inner,
            max_size=2,
        ),
    ),
    max_leaves=6,
)


def places(document, path=()):
    """All paths into a document of dictionaries and lists."""
    yield path
    if isinstance(document, dict | list):
        items = document.items() if isinstance(document, dict) else enumerate(document)
        for key, value in items:
            yield from places(value, (*path, key))


PLACES = [list(places(sample))[1:] for sample in SAMPLES]


@settings(max_examples=150, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.data())
def test_broken_json_raises_no_other_error(data):
    number = data.draw(st.integers(0, len(SAMPLES) - 1))
    document = copy.deepcopy(SAMPLES[number])
    for path in data.draw(st.lists(st.sampled_from(PLACES[number]), min_size=1, max_size=3)):
        junk = data.draw(JUNK)
        target = document
        try:
            for key in path[:-1]:
                target = target[key]
            target[path[-1]] = junk
        except (KeyError, IndexError, TypeError):
            continue
    try:
        found = parse_nft(json.dumps(document))
    except RulesetError:
        return
    for packet in (tcp(), udp(source="fd00::5"), tcp(ct_state="established")):
        for hook in ("input", "output", "forward"):
            assert judge(found, packet, hook).deciding
