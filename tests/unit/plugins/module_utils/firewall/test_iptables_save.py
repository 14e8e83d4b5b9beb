# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.evaluate import judge
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.iptables_save import (
    BUILT_IN,
    parse_iptables,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.packets import Packet
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import (
    RulesetError,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.plugins.module_utils.firewall.build import (
    ACCEPT,
    DROP,
    MAYBE,
    decide_iptables,
    tcp,
    udp,
)

ESTABLISHED = tcp(ct_state="established")

MATCHES = [
    ("-s 10.0.0.0/8", tcp(), True),
    ("! -s 10.0.0.0/8", tcp(), False),
    ("-s 10.0.0.5/32 -d 10.0.0.1/32", tcp(), True),
    ("-s 10.0.0.5/255.0.0.255", tcp(source="10.9.9.5"), True),
    ("-s 10.0.0.5/255.0.0.255", tcp(source="10.9.9.6"), False),
    ("-i eth0", tcp(), True),
    ("-i eth+", tcp(), True),
    ("! -i eth+", tcp(in_interface="wlan0"), True),
    ("-p tcp", udp(), False),
    ("! -p tcp", udp(), True),
    ("-p 17", udp(), True),
    ("-f", tcp(), False),
    ("! -f", tcp(), True),
    ("-p tcp -m tcp --dport 80", tcp(80), True),
    ("-p tcp -m tcp ! --dport 80", tcp(80), False),
    ("-p tcp -m tcp --dport 79:81", tcp(80), True),
    ("-p tcp -m tcp --sport 40000:", tcp(), True),
    ("-p udp -m udp --dport :60", udp(53), True),
    ("-p tcp -m multiport --dports 22,80,8000:9000", tcp(8080), True),
    ("-p tcp -m multiport ! --dports 22,80", tcp(80), False),
    ("-p tcp -m multiport --sports 1:50000", tcp(), True),
    ("-p tcp -m multiport --ports 80,40000", tcp(80), True),
    ("-p tcp -m multiport --ports 81,90", tcp(80), False),
    ("-p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN", tcp(), True),
    ("-p tcp -m tcp ! --tcp-flags FIN,SYN,RST,ACK SYN", tcp(tcp_flags=0x12), True),
    ("-p tcp -m tcp --tcp-flags ALL NONE", tcp(tcp_flags=0), True),
    ("-m conntrack --ctstate NEW,RELATED", tcp(), True),
    ("-m conntrack ! --ctstate RELATED,ESTABLISHED", ESTABLISHED, False),
    ("-m state --state ESTABLISHED", ESTABLISHED, True),
    ("-m conntrack --ctstate DNAT", tcp(), False),
    ("-m conntrack --ctdir ORIGINAL", tcp(), True),
    ("-m conntrack --ctorigdstport 80", tcp(80), True),
    ('-m comment --comment "it\'s a \\"test\\" -j DROP"', tcp(), True),
    ("-m mark --mark 0x5", tcp(mark=5), True),
    ("-m mark --mark 0x5/0xf", tcp(mark=0x15), True),
    ("-m mark ! --mark 0x5/0xf", tcp(mark=0x15), False),
    ("-m connmark --mark 0x0", tcp(), True),
    ("-m addrtype --dst-type LOCAL", tcp(), True),
    ("-m addrtype ! --dst-type LOCAL", tcp(), False),
    ("-m addrtype --dst-type MULTICAST,BROADCAST", tcp(), False),
    ("-m iprange --src-range 10.0.0.1-10.0.0.9", tcp(), True),
    ("-m iprange ! --dst-range 10.0.0.1-10.0.0.9", tcp(), False),
    ("-m recent --set --name DEFAULT --mask 255.255.255.255 --rsource", tcp(), True),
    ("-m rpfilter", tcp(reverse_path=True), True),
    ("-m rpfilter --validmark --invert", tcp(reverse_path=True), False),
    ("-m pkttype --pkt-type multicast", tcp(), False),
    ("-m rt --rt-type 0", tcp(), False),
]


@pytest.mark.parametrize(("words", "packet", "holds"), MATCHES)
def test_a_match_is_judged_exactly(words, packet, holds):
    assert decide_iptables(words, packet) is (ACCEPT if holds else DROP)


@pytest.mark.parametrize(
    "words",
    [
        "-m limit --limit 5/sec",
        "-m hashlimit --hashlimit-upto 5/sec --hashlimit-burst 5 --hashlimit-name x",
        "-m recent --update --seconds 30 --hitcount 6 --name DEFAULT --rsource",
        "-m recent --rcheck --name DEFAULT --rsource",
        "-m set --match-set blocked src",
        "-m mac --mac-source 00:11:22:33:44:55",
        "-m physdev --physdev-in eth1",
        "-m string --string x --algo bm",
        "-m addrtype --src-type LOCAL",
        "-m addrtype --dst-type LOCAL --limit-iface-in",
        "-m conntrack --ctstate NEW,DNAT",
        "-m conntrack --ctexpire 5",
        "-m conntrack --ctstate TOMORROW",
        "-m tcp --tcp-option 5",
        "-m tcp --dport http",
        "-m iprange --src-range 10.0.0.1",
        "-m rpfilter",
        "-m tomorrow --option -5 word",
        "--an-option",
        "-s tomorrow",
    ],
)
def test_what_only_the_kernel_knows_is_maybe(words):
    assert decide_iptables(words, tcp(user_id=0)) is MAYBE


def test_ipv6_rules_match_ipv6_packets():
    packet = tcp(source="fd00::5")
    assert decide_iptables("-s fd00::/64 -p tcp", packet, "ip6") is ACCEPT
    assert decide_iptables("-s fd01::/64 -p tcp", packet, "ip6") is DROP
    assert decide_iptables("-p ipv6-icmp -m icmp6 --icmpv6-type 135", packet, "ip6") is DROP
    solicit = Packet.icmp("fe80::1", "fe80::2", 135, 0, in_interface="eth0")
    assert decide_iptables("-p ipv6-icmp -m icmp6 --icmpv6-type 135", solicit, "ip6") is ACCEPT
    # a packet of the other family does not meet the table at all
    assert decide_iptables("-s fd01::/64", tcp(), "ip6") is ACCEPT


def test_icmp_types_and_codes():
    echo = Packet.icmp("10.0.0.5", "10.0.0.1", 8, 0, in_interface="eth0")
    assert decide_iptables("-p icmp -m icmp --icmp-type 8", echo) is ACCEPT
    assert decide_iptables("-p icmp -m icmp --icmp-type 8/1", echo) is DROP
    assert decide_iptables("-p icmp -m icmp --icmp-type any", echo) is ACCEPT
    assert decide_iptables("-p icmp -m icmp ! --icmp-type 8", echo) is DROP
    assert decide_iptables("-p icmp -m icmp ! --icmp-type 8/0", echo) is MAYBE


@pytest.mark.parametrize(
    ("words", "uid", "verdict"),
    [
        ("--uid-owner 33", 33, ACCEPT),
        ("! --uid-owner 33", 33, DROP),
        ("--uid-owner 1-999", 33, ACCEPT),
        ("--uid-owner www-data", 33, MAYBE),
        ("--uid-owner 33", None, MAYBE),
        ("--gid-owner 33", 33, MAYBE),
    ],
)
def test_owners_are_known_at_output(words, uid, verdict):
    packet = tcp(in_interface=None, out_interface="eth0", user_id=uid)
    assert decide_iptables(f"-m owner {words}", packet, chain="OUTPUT") is verdict


def test_a_forwarded_packet_is_not_of_the_user_that_is_named():
    text = listed("-A POSTROUTING -m owner ! --uid-owner 33 -j DROP", "mangle")
    packet = tcp(destination="172.16.0.9", out_interface="eth1")
    assert judge(parse_iptables(text, "ip"), packet, "forward").verdict is DROP
    text = listed("-A POSTROUTING -m owner --uid-owner 33 -j DROP", "mangle")
    assert judge(parse_iptables(text, "ip"), packet, "forward").verdict is ACCEPT


# -- Tables, chains, targets -----------------------------------------------------------------------


def listed(rules: str, name: str = "filter", heads: str = "", policy: str = "ACCEPT") -> str:
    lines = [f":{chain} {policy} [0:0]" for chain in BUILT_IN[name]]
    return "\n".join([f"*{name}", *lines, heads, rules, "COMMIT", ""])


def verdict(text: str, packet: Packet | None = None, hook: str = "input"):
    return judge(parse_iptables(text, "ip"), packet or tcp(), hook).verdict


@pytest.mark.parametrize(
    ("rules", "found"),
    [
        ("-A INPUT -j DROP", DROP),
        ("-A INPUT -j REJECT --reject-with icmp-port-unreachable", DROP),
        ("-A INPUT -j RETURN\n-A INPUT -j DROP", ACCEPT),
        ("-A INPUT -j LOG --log-prefix \"-j DROP \" --log-level 4\n-A INPUT -j DROP", DROP),
        ("-A INPUT -j one\n-A one -j RETURN\n-A INPUT -j DROP", DROP),
        ("-A INPUT -g one\n-A one -j RETURN\n-A INPUT -j DROP", ACCEPT),
        ("-A INPUT -j NFQUEUE --queue-num 1", MAYBE),
        ("-A INPUT -j TOMORROW", MAYBE),
        ("-A INPUT -m comment --comment nothing", ACCEPT),
        ("[12:3456] -A INPUT -s 10.0.0.5/32 -j DROP", DROP),
    ],
)  # fmt: skip
def test_targets_lead_where_they_say(rules, found):
    assert verdict(listed(rules, heads=":one - [0:0]")) is found


def test_tables_have_their_own_hooks():
    assert verdict(listed("-A PREROUTING -s 10.0.0.5/32 -j DROP", "raw")) is DROP
    assert verdict(listed("-A PREROUTING -j DROP", "raw"), hook="output") is ACCEPT
    assert verdict(listed("-A POSTROUTING -j DROP", "mangle"), hook="output") is DROP
    assert verdict(listed("-A FORWARD -j DROP"), hook="forward") is DROP
    assert verdict(listed("-A FORWARD -j DROP")) is ACCEPT


def test_a_mark_is_seen_by_later_tables():
    marks = listed("-A PREROUTING -p tcp -j MARK --set-xmark 0x5/0xff", "mangle")
    drops = listed("-A INPUT -m mark --mark 0x5/0xff -j DROP")
    assert verdict(drops + marks) is DROP
    assert verdict(drops + marks, udp()) is ACCEPT
    restore = "-j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff"
    saved = listed(f"-A PREROUTING {restore}", "mangle")
    assert verdict(drops + saved, tcp(mark=5)) is ACCEPT


@pytest.mark.parametrize(
    ("option", "mark"),
    [
        ("--set-xmark 0x1/0x3", 5),
        ("--set-mark 0x2/0x2", 6),
        ("--and-mark 0x5", 4),
        ("--or-mark 0x3", 7),
        ("--xor-mark 0x5", 1),
    ],
)
def test_marks_are_computed(option, mark):
    text = listed(f"-A INPUT -j MARK {option}", "mangle")
    text += listed(f"-A INPUT -m mark --mark {mark} -j ACCEPT", policy="DROP")
    assert verdict(text, tcp(mark=4)) is ACCEPT


def test_an_untracked_packet_is_untracked_later():
    text = listed("-A PREROUTING -p tcp -j CT --notrack", "raw")
    text += listed("-A INPUT -m conntrack --ctstate UNTRACKED -j DROP")
    assert verdict(text) is DROP
    assert verdict(text, udp()) is ACCEPT


@pytest.mark.parametrize("target", ["DNAT --to-destination 10.9.9.9:80", "REDIRECT --to-ports 80"])
def test_a_translation_is_named(target):
    text = listed(f"-A PREROUTING -p tcp -m tcp --dport 11434 -j {target}", "nat")
    found = judge(parse_iptables(text, "ip"), tcp(11434))
    assert found.verdict is MAYBE
    assert f"-j {target}" in found.deciding[0]
    assert verdict(text, tcp(80)) is ACCEPT


def test_the_deciding_rule_is_the_line_itself():
    text = listed("-A INPUT -s 10.0.0.5/32 -p tcp -j DROP")
    for legacy, place in ((False, "iptables"), (True, "iptables-legacy")):
        found = judge(parse_iptables(text, "ip", legacy=legacy), tcp())
        assert found.deciding == (
            f"table ip filter ({place}), chain INPUT, -A INPUT -s 10.0.0.5/32 -p tcp -j DROP",
        )


def test_no_text_is_no_table():
    assert parse_iptables("", "ip").tables == ()


def test_the_warning_of_legacy_tables_is_a_gap():
    text = "# Warning: iptables-legacy tables present, use iptables-legacy-save to see them\n"
    found = parse_iptables(text + listed("-A INPUT -j ACCEPT"), "ip")
    assert judge(found, tcp()).verdict is MAYBE
    assert "legacy" in judge(found, tcp()).deciding[0]


@pytest.mark.parametrize(
    "broken",
    [
        "iptables v1.8.9: Permission denied",
        "*filter\n:INPUT ACCEPT [0:0]\n",
        "*filter\n*nat\nCOMMIT\n",
        "*filter\n:INPUT\nCOMMIT\n",
        "*filter\n:INPUT MAYBE [0:0]\nCOMMIT\n",
        "*filter\n:INPUT - [0:0]\nCOMMIT\n",
        "*filter\n:one DROP [0:0]\nCOMMIT\n",
        "*filter\n-A INPUT -j DROP\nCOMMIT\n",
        "*filter\n:INPUT ACCEPT [0:0]\n-I INPUT -j DROP\nCOMMIT\n",
        "*filter\n:INPUT ACCEPT [0:0]\nnonsense\nCOMMIT\n",
        "COMMIT\n",
    ],
)
def test_what_is_no_listing_is_refused(broken):
    with pytest.raises(RulesetError, match=r"\S"):
        parse_iptables(broken, "ip")


def test_an_unknown_family_is_an_error_of_the_caller():
    with pytest.raises(ValueError, match="family"):
        parse_iptables("", "inet")


SAVED = (Path(__file__).with_name("corpus") / "debian12-ufw-docker/iptables-save.txt").read_text()
WORDS = st.sampled_from(
    ["!", "-m", "-j", "-p", "tcp", "--dport", "80", "-s", "10.0.0.0/8", "conntrack", "--ctstate",
     "NEW", '"', "\\", "COMMIT", "-A", "INPUT", ":x - [0:0]", "--mark", "0x5/", "/", "-", "*filter"]
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_broken_text_raises_no_other_error(data):
    lines = SAVED.splitlines()
    for _unused in range(data.draw(st.integers(1, 3))):
        number = data.draw(st.integers(0, len(lines) - 1))
        words = lines[number].split(" ")
        words[data.draw(st.integers(0, len(words) - 1))] = data.draw(WORDS)
        lines[number] = " ".join(words)
    try:
        found = parse_iptables("\n".join(lines), "ip")
    except RulesetError:
        return
    for hook in ("input", "output", "forward"):
        assert judge(found, tcp(), hook).deciding
