# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.combine import combine
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import judge
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.iptables_save import (
    parse_iptables,
)

from tests.unit.plugins.module_utils.firewall.build import (
    ACCEPT,
    ALLOW,
    DENY,
    DROP,
    MAYBE,
    port,
    rules,
    table,
    tcp,
)

XT = {"xt": {"type": "match", "name": "conntrack"}}
NATIVE = table("filter", {"INPUT": ("input", 0, "accept", [[XT, DENY]])}, family="ip")
SAVED = """*filter
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT DROP [0:0]
-A INPUT -p tcp -m tcp --dport 80 -m conntrack --ctstate NEW -j DROP
COMMIT
"""
WARNING = "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n"
LEGACY = "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n"


def test_opaque_rules_are_taken_from_iptables_save():
    nft = rules(NATIVE)
    assert judge(nft, tcp(80)).verdict is MAYBE
    both = combine(nft, [parse_iptables(SAVED, "ip")])
    assert judge(both, tcp(80)).verdict is DROP
    assert judge(both, tcp(81)).verdict is ACCEPT
    assert len(both.tables) == 1


def test_hook_priority_and_policy_are_those_of_nft():
    moved = table(
        "filter",
        {"INPUT": ("input", 20, "accept", [[XT, DENY]]), "OUTPUT": ("output", 0, "drop", [])},
        family="ip",
    )
    both = combine(rules(moved), [parse_iptables(SAVED, "ip")])
    (found,) = both.tables
    assert found.chains["INPUT"].priority == 20
    # A built-in chain that iptables-save shows without nft having it is in no hook.
    assert found.chains["FORWARD"].hook is None
    assert judge(both, tcp(), "output").verdict is DROP


def test_chains_that_iptables_does_not_show_still_count():
    strange = [[port(81), DENY]]
    nft = rules(
        table(
            "filter",
            {"INPUT": ("input", 0, "accept", []), "other": ("input", 5, "accept", strange)},
            family="ip",
        )
    )
    both = combine(nft, [parse_iptables(SAVED, "ip")])
    assert judge(both, tcp(81)).verdict is DROP


def test_native_tables_stay_as_they_are():
    nft = rules(NATIVE, table("mine", {"c": ("input", 10, "drop", [[port(443), ALLOW]])}))
    both = combine(nft, [parse_iptables(SAVED, "ip")])
    assert judge(both, tcp(443)).verdict is ACCEPT
    assert judge(both, tcp(444)).verdict is DROP
    assert judge(both, tcp(443, source="fd00::5")).verdict is ACCEPT


def test_legacy_tables_stand_beside():
    legacy = parse_iptables(SAVED, "ip", legacy=True)
    open_nft = rules(table("filter", {"INPUT": ("input", 0, "accept", [])}, family="ip"))
    both = combine(open_nft, [legacy])
    assert len(both.tables) == 2
    assert judge(both, tcp(80)).verdict is DROP
    assert judge(both, tcp(81)).verdict is ACCEPT


def test_a_table_that_nft_did_not_list_is_not_lost():
    assert judge(combine(rules(), [parse_iptables(SAVED, "ip")]), tcp(80)).verdict is DROP


def test_the_gap_of_legacy_tables_closes_when_they_are_given():
    warned = parse_iptables(WARNING + SAVED, "ip")
    assert judge(combine(rules(NATIVE), [warned]), tcp(81)).verdict is MAYBE
    legacy = parse_iptables(LEGACY, "ip", legacy=True)
    assert judge(combine(rules(NATIVE), [warned, legacy]), tcp(81)).verdict is ACCEPT
    other = parse_iptables(LEGACY, "ip6", legacy=True)
    assert judge(combine(rules(NATIVE), [warned, other]), tcp(81)).verdict is MAYBE


def test_nothing_to_combine():
    assert judge(combine(rules(NATIVE), []), tcp(80)).verdict is MAYBE
