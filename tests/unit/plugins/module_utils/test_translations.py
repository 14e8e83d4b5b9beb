# SPDX-License-Identifier: GPL-3.0-or-later
"""Rules that translate ports, as nft and iptables really list them."""

from __future__ import annotations

import contextlib
import json

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import all_saved
from ansible_collections.llmsec.hardening.plugins.module_utils.translations import (
    TranslationError,
    iptables_translations,
    ipvs_translations,
    nft_translations,
)
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.plugins.namespace import namespace

DPORT = {"payload": {"protocol": "tcp", "field": "dport"}}


def match(right, left=None, op="=="):
    return {"match": {"op": op, "left": left or DPORT, "right": right}}


def nft(*expressions, hook="prerouting", family="ip", others=()):
    chain = {"family": family, "table": "n", "name": "c", "type": "nat", "hook": hook}
    rule = {"family": family, "table": "n", "chain": "c", "expr": [*expressions]}
    objects = [{"metainfo": {}}, {"chain": chain}, *others, {"rule": rule}]
    return json.dumps({"nftables": objects})


def one(found):
    (translation,) = found
    return translation


NAMED = {
    "map": {
        "family": "ip", "table": "n", "name": "m",
        "elem": [[8437, {"concat": ["127.0.0.1", 11434]}]],
    }
}  # fmt: skip


@pytest.mark.parametrize(
    ("expressions", "others", "outside", "inside"),
    [
        ([match(8434), {"dnat": {"addr": "127.0.0.1", "port": 11434}}], [],
         ((8434, 8434),), ((11434, 11434),)),
        ([match(8435), {"redirect": {"port": 11434}}], [], ((8435, 8435),), ((11434, 11434),)),
        ([match(8435), {"redirect": None}], [], ((8435, 8435),), None),
        ([match(8440), {"tproxy": {"family": "ip", "addr": "127.0.0.1", "port": 11434}}], [],
         ((8440, 8440),), ((11434, 11434),)),
        ([match({"set": [8436, {"range": [9000, 9010]}]}), {"dnat": {"addr": "172.17.0.2"}}], [],
         ((8436, 8436), (9000, 9010)), None),
        ([{"dnat": {"addr": {"map": {"key": DPORT, "data": "@m"}}}}], [NAMED],
         ((8437, 8437),), ((11434, 11434),)),
        ([{"dnat": {"addr": {"map": {"key": DPORT, "data":
                                     {"set": [[8438, {"concat": ["172.17.0.2", 80]}]]}}}}}], [],
         ((8438, 8438),), ((80, 80),)),
        # what cannot be told counts as every port
        ([{"dnat": {"addr": "10.0.0.1", "port": {"numgen": {"mode": "inc"}}}}], [],
         None, ((0, 65535),)),
        ([match(22, op="!="), {"dnat": {"addr": "10.0.0.1"}}], [], None, None),
        ([match(8439), {"xt": {"type": "target", "name": "DNAT"}}], [],
         ((8439, 8439),), ((0, 65535),)),
    ],
)  # fmt: skip
def test_what_a_rule_of_nftables_translates(expressions, others, outside, inside):
    found = one(nft_translations(nft(*expressions, others=others)))
    assert (found.outside, found.inside) == (outside, inside)
    assert found.text.startswith("nft table ip n, chain c: ")


@pytest.mark.parametrize(
    "text",
    [
        nft(match(8434), {"dnat": {"addr": "127.0.0.1", "port": 11434}}, hook="output"),
        nft(match(53, {"payload": {"protocol": "udp", "field": "dport"}}), {"redirect": None}),
        nft(match("udp", {"meta": {"key": "l4proto"}}), match(53), {"redirect": None}),
        nft(match(8434), {"accept": None}),
        nft({"xt": {"type": "target", "name": "MASQUERADE"}}),
    ],
)
def test_what_is_no_way_in_is_left_out(text):
    assert nft_translations(text) == []


def test_iptables_nft_tells_more_than_nft():
    text = nft(match(8439), {"xt": {"type": "target", "name": "DNAT"}})
    assert nft_translations(text, known_elsewhere=["ip"]) == []
    assert len(nft_translations(text, known_elsewhere=["ip6"])) == 1


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"nftables": [{"rule": {}}]}', "nonsense"])
def test_another_shape_is_an_error(text):
    with pytest.raises(TranslationError, match="unknown output of nft"):
        nft_translations(text)


def test_a_map_that_is_not_listed_is_an_error():
    unknown = {"dnat": {"addr": {"map": {"key": DPORT, "data": "@m"}}}}
    with pytest.raises(TranslationError):
        nft_translations(nft(unknown))


@pytest.mark.parametrize(
    ("rule", "outside", "inside"),
    [
        ("-p tcp -m tcp --dport 8439 -j DNAT --to-destination 127.0.0.1:11434",
         ((8439, 8439),), ((11434, 11434),)),
        ("-p tcp -m tcp --dport 8439 -j DNAT --to-destination [::1]:11434",
         ((8439, 8439),), ((11434, 11434),)),
        ("-p tcp -m tcp --dport 8439 -j DNAT --to-destination fd00::2", ((8439, 8439),), None),
        ("-p tcp --dport 8439 -j DNAT --to-destination :80-90", ((8439, 8439),), ((80, 90),)),
        ("-p tcp -m tcp --dport 8441 -j REDIRECT --to-ports 11434",
         ((8441, 8441),), ((11434, 11434),)),
        ("-p tcp -m multiport --dports 8450,8460:8470 -j DNAT --to-destination 10.0.0.2:80",
         ((8450, 8450), (8460, 8470)), ((80, 80),)),
        ("-d 192.0.2.1/32 -j DNAT --to-destination 172.17.0.2", None, None),
        ("-p tcp ! --dport 22 -j REDIRECT --to-ports 11434", None, ((11434, 11434),)),
        ("-p tcp --dport 80 -j TPROXY --on-port 3128 --on-ip 127.0.0.1 --tproxy-mark 0x1/0x1",
         ((80, 80),), ((3128, 3128),)),
        ('-p tcp --dport 80 -m comment --comment "a -j b" -j REDIRECT --to-ports 8081',
         ((80, 80),), ((8081, 8081),)),
    ],
)  # fmt: skip
def test_what_a_rule_of_iptables_translates(rule, outside, inside):
    found = one(iptables_translations(f"*nat\n-A PREROUTING {rule}\nCOMMIT\n", "iptables"))
    assert (found.outside, found.inside) == (outside, inside)
    assert found.text == f"iptables: -A PREROUTING {rule}"


@pytest.mark.parametrize(
    "line",
    [
        "-A OUTPUT -p tcp --dport 80 -j REDIRECT --to-ports 11434",
        "-A PREROUTING -p udp --dport 53 -j REDIRECT --to-ports 5353",
        "-A POSTROUTING -j MASQUERADE",
        '-A INPUT -m comment --comment "no DNAT here" -j ACCEPT',
        ":DNAT - [0:0]",
    ],
)
def test_other_lines_of_iptables_are_left_out(line):
    assert iptables_translations(f"*nat\n{line}\nCOMMIT\n", "iptables") == []


def test_a_line_that_cannot_be_split_is_an_error():
    with pytest.raises(TranslationError, match="unknown line of iptables-save"):
        iptables_translations('-A PREROUTING -m comment --comment "x -j DNAT', "iptables")


@given(st.text())
def test_hostile_text_never_gets_past_the_typed_error(text):
    for read in (nft_translations, lambda text: iptables_translations(f"-A {text} DNAT", "x")):
        with contextlib.suppress(TranslationError):
            read(text)


@given(st.integers(0, 65535), st.integers(0, 65535), st.integers(0, 65535))
def test_a_rule_takes_and_leads_to_what_it_names_and_nothing_else(taken, target, port):
    text = nft(match(taken), {"dnat": {"addr": "10.0.0.1", "port": target}})
    found = one(nft_translations(text))
    assert found.takes(port) == (port == taken)
    assert found.leads_to(port) == (port == target)
    unchanged = one(nft_translations(nft(match(taken), {"redirect": None})))
    assert unchanged.leads_to(port) == (port == taken)


def test_a_rule_without_ports_takes_none_by_name_and_may_lead_anywhere():
    found = one(nft_translations(nft({"dnat": {"addr": "10.0.0.1"}})))
    assert not found.takes(11434)
    assert found.leads_to(11434)
    assert not found.only_takes([80])


RULES = """
table ip n {
    chain p {
        type nat hook prerouting priority -100;
        tcp dport 8434 dnat to 127.0.0.1:11434
        dnat ip to tcp dport map { 8437 : 127.0.0.1 . 11434 }
    }
}
table inet t {
    chain p {
        type filter hook prerouting priority -150;
        tcp dport 8440 tproxy ip to 127.0.0.1:11434
    }
}
"""


def test_real_rules_of_both_programs_are_found(tmp_path):
    with namespace(tmp_path) as machine:
        if machine.run(["nft", "list", "ruleset"], "")[0] != 0:
            pytest.skip("no rules without root")
        machine.must("nft", "-f", "-", stdin=RULES)
        rule = ["-t", "nat", "-A", "PREROUTING", "-p", "tcp", "--dport"]
        machine.must("iptables", *rule, "8439", "-j", "DNAT", "--to", "127.0.0.1:11434")
        machine.must("ip6tables", *rule, "8441", "-j", "REDIRECT", "--to-ports", "11434")
        listing = machine.must("nft", "-j", "list", "ruleset")
        saved = [
            found
            for version, _legacy, output in all_saved(machine)
            for found in iptables_translations(output, f"ip{version}")
        ]
        found = [*saved, *nft_translations(listing, known_elsewhere=["ip", "ip6"])]
        blind = nft_translations(listing)
    taken = {low for each in found for low, _high in each.outside}
    assert taken == {8434, 8437, 8439, 8440, 8441}
    assert {each.inside for each in found} == {((11434, 11434),)}
    # Without iptables-save they are seen as well, only not where they lead.
    assert {low for each in blind for low, _high in each.outside} == taken
    assert all(each.leads_to(11434) for each in blind)


IPVS = """\
IP Virtual Server version 1.2.1 (size=4096)
Prot LocalAddress:Port Scheduler Flags
  -> RemoteAddress:Port           Forward Weight ActiveConn InActConn
TCP  C0A80001:1F90 rr
  -> 7F000001:2CAA      Masq    1      0          0
TCP  [fd00:0000:0000:0000:0000:0000:0000:0001]:0050 wlc persistent 300
  -> [fd00:0000:0000:0000:0000:0000:0000:0002]:0051  Masq    1      0          0
  -> [fd00:0000:0000:0000:0000:0000:0000:0003]:0052  Masq    1      0          0
UDP  C0A80001:0035 rr
  -> C0A80002:2CAA      Route   1      0          0
FWM  00000001 rr
  -> C0A80002:0000      Route   1      0          0
TCP  C0A80001:0051 rr
"""


def test_virtual_services_of_ipvs():
    web, six, mark, empty = ipvs_translations(IPVS)
    assert (web.outside, web.inside) == (((8080, 8080),), ((11434, 11434),))
    assert web.text == "IPVS: TCP  C0A80001:1F90 rr"
    assert (six.outside, six.inside) == (((80, 80),), ((81, 81), (82, 82)))
    assert mark.leads_to(11434)
    assert (empty.takes(81), empty.leads_to(81)) == (True, False)
    assert ipvs_translations("") == []
    with pytest.raises(TranslationError, match="unknown line"):
        ipvs_translations(IPVS + "SOMETHING  C0A80001:0051 rr\n")
