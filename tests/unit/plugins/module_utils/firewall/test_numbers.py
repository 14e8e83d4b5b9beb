# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import ipaddress

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.numbers import (
    Names,
    UnknownValueError,
    interface,
    interface_range,
    number,
    region,
    region_reader,
)
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("value", "kind", "found"),
    [
        (443, "port", 443),
        ("0x15", "mark", 0x15),
        ("10.0.0.1", "ipv4", 0x0A000001),
        ("::1", "ipv6", 1),
        ("::ffff:0.0.0.0", "ipv6", 0xFFFF00000000),
        ("tcp", "proto", 6),
        ("ipv6-icmp", "proto", 58),
        ("established", "ctstate", 2),
        ("echo-request", "icmptype", 8),
        ("nd-neighbor-solicit", "icmp6type", 135),
        ("local", "fibtype", 2),
        ("root", "uid", 0),
        (True, "bool", 1),
        (33, "uid", 33),
    ],
)
def test_constants_are_numbers(value, kind, found):
    assert number(value, kind) == found


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (65536, "port"),
        (-1, "port"),
        ("http", "port"),
        ("10.0.0", "ipv4"),
        ("fd00::1", "ipv4"),
        (True, "port"),
        ("www-data", "uid"),
        ("a-name-of-sixteen", "ifname"),
        (5, "ifname"),
        (None, "port"),
        ([], "mark"),
    ],
)
def test_what_is_no_constant_of_its_kind_is_refused(value, kind):
    with pytest.raises(UnknownValueError):
        number(value, kind)


def test_names_are_resolved_where_they_are_given():
    names = Names(users={"ollama": 998}, groups={"adm": 4})
    assert number("ollama", "uid", names) == 998
    assert number("adm", "gid", names) == 4
    with pytest.raises(UnknownValueError):
        number("root", "uid", names)


@pytest.mark.parametrize(
    ("value", "kind", "low", "high"),
    [
        ({"prefix": {"addr": "10.1.0.0", "len": 16}}, "ipv4", 0x0A010000, 0x0A01FFFF),
        ({"prefix": {"addr": 16, "len": 28}}, "mark", 16, 31),
        ({"range": [80, 90]}, "port", 80, 90),
        ({"|": ["syn", "ack"]}, "tcpflags", 0x12, 0x12),
        ({"prefix": {"addr": "::", "len": 0}}, "ipv6", 0, (1 << 128) - 1),
    ],
)
def test_elements_are_ranges(value, kind, low, high):
    assert region(value, kind) == (low, high)


@pytest.mark.parametrize(
    "value", [{"prefix": {"addr": "10.0.0.0", "len": 33}}, {"range": ["10.0.0.1", "x"]}]
)
def test_broken_elements_are_refused(value):
    with pytest.raises(UnknownValueError):
        region(value, "ipv4")


def test_a_wildcard_holds_the_names_that_begin_with_it():
    low, high = region("eth*", "ifname")
    assert low <= interface("eth0") <= high
    assert low <= interface("eth") <= high
    assert not low <= interface("et") <= high
    assert not low <= interface("veth0") <= high
    assert not low <= interface("") <= high
    assert region("*", "ifname") == (0, (1 << 128) - 1)


def test_an_escaped_star_is_a_star():
    assert region("eth\\*", "ifname") == (interface("eth*"),) * 2


@given(
    st.text(min_size=0, max_size=15, alphabet="abcth0123.-"), st.text(max_size=4, alphabet="eth")
)
def test_a_wildcard_is_a_test_of_the_beginning(name, prefix):
    low, high = interface_range(prefix)
    assert (low <= interface(name) <= high) == name.startswith(prefix)


ELEMENTS = st.one_of(
    st.integers(-5, 70000),
    st.booleans(),
    st.none(),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(str),
    st.sampled_from(["tcp", "lo", "eth*", "10.0.0", "established"]),
    st.builds(
        lambda address, length: {"prefix": {"addr": str(address), "len": length}},
        st.ip_addresses(v=4),
        st.integers(-1, 33),
    ),
)


@given(ELEMENTS, st.sampled_from(["ipv4", "ipv6", "port", "ifname", "proto", "ctstate"]))
def test_the_fast_reader_reads_what_the_other_reads(value, kind):
    names = Names()
    try:
        expected = region(value, kind, names)
    except UnknownValueError:
        with pytest.raises((UnknownValueError, OSError)):
            region_reader(kind, names)(value)
    else:
        assert region_reader(kind, names)(value) == expected


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_a_prefix_is_its_network(address, length):
    network = ipaddress.ip_network((address, length), strict=False)
    element = {"prefix": {"addr": str(network.network_address), "len": length}}
    assert region(element, "ipv4") == (int(network[0]), int(network.broadcast_address))
