# SPDX-License-Identifier: GPL-3.0-or-later
"""Who reaches what, over IPv4 and IPv6, from outside, from the host itself, and from its services.

Somebody answers on every port that is probed, so that a silence comes from the firewall.
"""

from __future__ import annotations

import time

import pytest

from tests.lab import firewall

LOOPBACK = [("127.0.0.1", 11434), ("127.0.0.1", 8081)]
FURTHER = 9100  # of firewall_port_sources, for the stranger only


@pytest.fixture(scope="module", autouse=True)
def answering(gateway, lab):
    """The LLM server and the validator as if they listened on every address, and a further one."""
    outside = [target for port in (11434, 8081, FURTHER) for target in both(gateway, port)]
    with firewall.listening(lab, gateway.name, outside):
        yield


def both(gateway, port):
    return [(gateway.address, port), (gateway.address6, port)]


def test_the_application_server_reaches_the_gateway(gateway, lab):
    assert firewall.reach(lab, "app-server", both(gateway, 443)) == ["open", "open"]
    assert gateway.ask("/api/tags").status == 401


def test_the_gateway_reaches_the_llm_server(gateway, keys):
    """nginx with a request, and the key validator for the models that a key may see."""
    answer = gateway.ask("/api/tags", key=keys["tiny_only"])
    assert answer.status == 200
    assert [one["name"] for one in answer.json()["models"]] == ["tiny:latest"]
    assert gateway.ask("/api/version", key=keys["tiny_only"]).status == 200


def test_a_stranger_does_not(gateway, lab):
    assert firewall.reach(lab, "stranger", both(gateway, 443)) == ["silent", "silent"]


@pytest.mark.parametrize("by", ["app-server", "stranger"])
@pytest.mark.parametrize("port", [11434, 8081])
def test_nobody_reaches_what_is_behind_it(gateway, lab, by, port):
    assert firewall.reach(lab, by, both(gateway, port)) == ["silent", "silent"]


def test_other_ports_are_left_alone(gateway, lab):
    assert firewall.reach(lab, "stranger", both(gateway, 22)) == ["open", "open"]


def test_a_further_port_is_for_its_sources_only(gateway, lab):
    assert firewall.reach(lab, "stranger", both(gateway, FURTHER)) == ["open", "open"]
    assert firewall.reach(lab, "app-server", both(gateway, FURTHER)) == ["silent", "silent"]


@pytest.mark.parametrize("user", ["root", "www-data", "llm-validator"])
def test_the_gateway_and_root_reach_the_llm_server(gateway, lab, user):
    assert firewall.reach(lab, gateway.name, LOOPBACK[:1], user) == ["open"]


@pytest.mark.parametrize("user", ["nobody", "ollama", "ansible"])
def test_other_local_users_do_not(gateway, lab, user):
    own = [*LOOPBACK, *both(gateway, 11434), *both(gateway, 8081)]
    assert firewall.reach(lab, gateway.name, own, user) == ["refused"] * len(own)


def test_the_llm_server_has_no_way_out(gateway, lab):
    addresses = [(address, 22) for address in lab.addresses()["app-server"]]
    assert firewall.reach(lab, gateway.name, addresses) == ["open", "open"]
    assert firewall.reach(lab, gateway.name, addresses, "ollama") == ["refused", "refused"]
    assert firewall.reach(lab, gateway.name, [("127.0.0.1", 22), ("::1", 22)], "ollama") == [
        "open",
        "open",
    ]


def test_the_llm_server_reaches_the_port_that_it_was_allowed(gateway, lab):
    """firewall_egress_allow names the stranger's SSH; the application server's is tried above."""
    allowed = [(address, 22) for address in lab.addresses()["stranger"]]
    other = [(address, 9443) for address in lab.addresses()["stranger"]]
    with firewall.listening(lab, "stranger", other):
        assert firewall.reach(lab, gateway.name, [*allowed, *other]) == ["open"] * 4
        answers = firewall.reach(lab, gateway.name, [*allowed, *other], "ollama")
    assert answers == ["open", "open", "refused", "refused"]


def test_not_to_the_metadata_addresses_either_in_a_window(gateway, lab):
    metadata = [(address, 22) for address in firewall.METADATA]
    outside = (lab.addresses()["app-server"][0], 22)
    with firewall.metadata_on(lab, "stranger", gateway.name):
        assert firewall.reach(lab, gateway.name, metadata) == ["open", "open"]
        try:
            opened = firewall.module(
                gateway.name, "firewall_window", state="open", user="ollama", seconds=300
            )
            assert opened["changed"]
            answers = firewall.reach(lab, gateway.name, [*metadata, outside], "ollama")
            assert answers == ["refused", "refused", "open"]
        finally:
            firewall.module(gateway.name, "firewall_window", state="closed", user="ollama")
    assert firewall.reach(lab, gateway.name, [outside], "ollama") == ["refused"]


def test_a_window_closes_by_itself(gateways, lab):
    outside = [(lab.addresses()["app-server"][0], 22)]
    for gateway in gateways:
        window = {"state": "open", "user": "ollama", "seconds": 20}
        firewall.module(gateway.name, "firewall_window", **window)
        assert firewall.reach(lab, gateway.name, outside, "ollama") == ["open"]
    time.sleep(21)
    for gateway in gateways:
        assert firewall.reach(lab, gateway.name, outside, "ollama") == ["refused"]
