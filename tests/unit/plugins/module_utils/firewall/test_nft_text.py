# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.nft_text import write_rule
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.plugins.module_utils.firewall.build import (
    ALLOW,
    DENY,
    DPORT,
    LIMIT,
    SADDR,
    ct,
    jump,
    match,
    meta,
)

PREFIX = {"prefix": {"addr": "10.0.0.0", "len": 8}}


@pytest.mark.parametrize(
    ("expr", "line"),
    [
        ([match(DPORT, 443), {"counter": {"packets": 0}}, ALLOW], "tcp dport 443 accept"),
        ([match(SADDR, PREFIX, "!="), DENY], "ip saddr != 10.0.0.0/8 drop"),
        ([match(ct("state"), ["established", "related"], "in")], "ct state established,related"),
        ([match(DPORT, {"set": [1, {"range": [5, 9]}]})], "tcp dport { 1, 5-9 }"),
        ([match(DPORT, {"set": [1, 2, 3, 4, 5, 6]})], "tcp dport { 1, 2, 3, 4, … 2 more }"),
        ([match(SADDR, "@s"), jump("c")], "ip saddr @s jump c"),
        ([match({"&": [meta("mark"), 255]}, 5)], "meta mark & 255 5"),
        ([match({"concat": [SADDR, DPORT]}, "@s")], "ip saddr . tcp dport @s"),
        (
            [{"vmap": {"key": DPORT, "data": {"set": [[80, ALLOW], [81, jump("c")]]}}}],
            "tcp dport vmap { 80 : accept, 81 : jump c }",
        ),
        ([match({"fib": {"result": "type", "flags": ["daddr"]}}, "local")], "fib daddr type local"),
        (
            [match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, False)],
            "fib saddr . iif oif missing",
        ),
        ([LIMIT, ALLOW], "limit rate 5/second accept"),
        ([{"dnat": {"family": "ip", "addr": "10.0.0.9", "port": 80}}],
         "dnat family ip addr 10.0.0.9 port 80"),
        ([{"xt": {"type": "match", "name": "conntrack"}}, DENY], "xt match conntrack drop"),
        ([{"mangle": {"key": meta("mark"), "value": 5}}], "meta mark set 5"),
        ([{"reject": None}], "reject"),
        ([{"tomorrow": {"x": 1}}], "tomorrow"),
        ([5], "5"),
    ],
)  # fmt: skip
def test_rules_read_as_nft_writes_them(expr, line):
    assert write_rule(expr) == line


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(
                ["match", "left", "right", "op", "set", "payload", "concat", "range", "vmap", "key"]
            ),
            inner,
            max_size=3,
        ),
    ),
    max_leaves=8,
)


@given(st.lists(JSON, max_size=3))
def test_any_json_can_be_written(expr):
    assert isinstance(write_rule(expr), str)
