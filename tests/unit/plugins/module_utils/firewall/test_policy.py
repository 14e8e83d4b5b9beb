# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.policy import (
    PolicyError,
    parse_policy,
)

USERS = {"root": 0, "www-data": 33, "ollama": 997}


def guard(**changed):
    return {"guards": [{"port": 443, "title": "gateway", "sources": ["192.0.2.0/24"], **changed}]}


def test_what_overlaps_is_put_together():
    policy = parse_policy(
        guard(sources=["192.0.2.0/24", "192.0.2.7", "2001:db8::1", "192.0.3.0/24"]), USERS.get
    )
    assert [str(item) for item in policy.guards[0].sources] == [
        "192.0.2.0/23",
        "2001:db8::1/128",
    ]
    assert policy.egress is None


def test_users_by_number_and_those_that_are_not_there_left_out():
    entry = {"port": 11434, "title": "x", "users": ["www-data", "root", "ghost"]}
    policy = parse_policy({"loopback": [entry], "egress": {"user": "ollama"}}, USERS.get)
    assert policy.loopback[0].users == (0, 33)
    assert policy.egress.user == 997
    assert policy.egress.restrict
    assert policy.egress.metadata


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (guard(sources=["10.0.0.300"]), "10.0.0.300 is no address or network"),
        (guard(sources=["10.0.0.1/8"]), "bits set beyond its prefix"),
        (guard(sources=["fe80::1%eth0"]), "zone|no address"),
        (guard(sources=["llm.example.com"]), "llm.example.com is no address"),
        (guard(port=0), "between 1 and 65535, not 0"),
        (guard(port=65536), "not 65536"),
        (guard(title='x" accept'), "cannot stand in a rule's comment"),
        (guard(title="x\naccept"), "cannot stand in a rule's comment"),
        ({"guards": guard()["guards"] * 2}, "guards: port 443 is named twice"),
        ({"egress": {"user": "ghost"}}, "no user ghost"),
        ({"egress": {"user": "root"}}, "runs as root"),
        (
            {
                "egress": {
                    "user": "ollama",
                    "allow": [{"destination": "::1", "port": 1, "protocol": "sctp"}],
                }
            },
            "sctp is not one of",
        ),
    ],
)
def test_refused(data, message):
    with pytest.raises(PolicyError, match=message):
        parse_policy(data, USERS.get)


def test_a_partial_policy_does_without_a_user_that_is_yet_to_come():
    assert parse_policy({"egress": {"user": "ghost"}}, USERS.get, partial=True).egress is None
