# SPDX-License-Identifier: GPL-3.0-or-later
"""What connections prove: an open door, a closed one, and when silence proves nothing."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.connect_probe import (
    NO_ROUTE,
    OPEN,
    OTHER,
    REFUSED,
    SILENT,
    UNREACHABLE,
    Endpoint,
    Outcome,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.reachability import (
    Probe,
    Target,
    TargetError,
    check_targets,
    endpoints,
    judge,
)

GATEWAY, GATEWAY6, OTHER_HOST = "10.0.0.1", "2001:db8::1", "10.0.0.9"
SSH = 22


def target(expected="closed", port=443, address=GATEWAY, **facts):
    facts = {"id": f"port-{port}", "title": "the gateway", "severity": "high", **facts}
    return Target(address=address, port=port, expected=expected, **facts)


def probe(outcomes, addresses=None, families=(4, 6), witnesses=()):
    found = {Endpoint(*place): Outcome(kind) for place, kind in outcomes.items()}
    every = {GATEWAY: [GATEWAY], GATEWAY6: [GATEWAY6], OTHER_HOST: [OTHER_HOST]}
    return Probe("stranger", {**every, **(addresses or {})}, found, frozenset(families), witnesses)


def results(one, seen):
    return {finding["id"]: finding["result"] for finding in judge([one], seen)}


def result(one, seen):
    ((_name, found),) = results(one, seen).items()
    return found


PLACE, WITNESS = (GATEWAY, 443), (GATEWAY, SSH)


@pytest.mark.parametrize(
    ("expected", "kind", "witness", "verdict"),
    [
        ("open", OPEN, SILENT, "pass"),
        ("open", REFUSED, SILENT, "fail"),
        ("open", SILENT, OPEN, "fail"),
        ("open", SILENT, SILENT, "error"),
        ("open", OTHER, OPEN, "error"),
        ("closed", OPEN, SILENT, "fail"),
        ("closed", REFUSED, SILENT, "pass"),
        ("closed", SILENT, OPEN, "pass"),
        ("closed", SILENT, REFUSED, "pass"),
        ("closed", UNREACHABLE, OPEN, "pass"),
        # nothing answers at all: the network may be down
        ("closed", SILENT, SILENT, "error"),
        ("closed", UNREACHABLE, UNREACHABLE, "error"),
        ("closed", NO_ROUTE, NO_ROUTE, "error"),
        ("closed", OTHER, OPEN, "error"),
    ],
)
def test_verdicts(expected, kind, witness, verdict):
    assert result(target(expected), probe({PLACE: kind, WITNESS: witness})) == verdict


def test_no_address_of_that_version_is_a_reason():
    seen = probe({(GATEWAY6, 443): NO_ROUTE}, families=(4,))
    (finding,) = judge([target(address=GATEWAY6)], seen)
    assert finding["result"] == "skip"
    assert "no address of IPv6" in finding["actual"]
    assert finding["id"] == "reachability.stranger.port-443.ipv6"


def test_another_host_is_a_witness_only_when_it_was_named():
    outcomes = {PLACE: SILENT, WITNESS: SILENT, (OTHER_HOST, SSH): OPEN}
    assert result(target(), probe(outcomes)) == "error"
    assert result(target(), probe(outcomes, witnesses=((OTHER_HOST, SSH),))) == "pass"
    over6 = {(GATEWAY6, 443): SILENT, (OTHER_HOST, SSH): OPEN}
    seen = probe(over6, witnesses=((OTHER_HOST, SSH),))
    assert result(target(address=GATEWAY6), seen) == "error"


def test_every_address_of_a_name_is_judged_and_the_worst_decides():
    names = {"llm": [GATEWAY, "10.0.0.2", GATEWAY6]}
    outcomes = {PLACE: REFUSED, ("10.0.0.2", 443): OPEN, (GATEWAY6, 443): REFUSED}
    one = target(address="llm")
    findings = judge([one], probe(outcomes, names))
    assert {each["id"]: each["result"] for each in findings} == {
        "reachability.stranger.port-443.ipv4": "fail",
        "reachability.stranger.port-443.ipv6": "pass",
    }
    assert findings[0]["actual"] == "10.0.0.2:443: open"


@pytest.mark.parametrize("found", [OSError("unknown name"), []])
def test_a_name_without_an_address_is_not_measured(found):
    (finding,) = judge([target(address="llm")], probe({}, {"llm": found}))
    assert (finding["id"], finding["result"]) == ("reachability.stranger.port-443.name", "error")


@pytest.mark.parametrize(
    ("private", "expected", "severity", "control"),
    [
        (True, "closed", "critical", "loopback"),
        (False, "closed", "high", "network_isolation"),
        (True, "open", "high", "network_isolation"),
    ],
)
def test_an_llm_server_that_is_reached_is_critical(private, expected, severity, control):
    kind = OPEN if expected == "closed" else REFUSED
    (finding,) = judge([target(expected, private=private)], probe({PLACE: kind}))
    assert (finding["result"], finding["severity"]) == ("fail", severity)
    assert finding["control"] == control
    assert finding["remediation"]


def test_what_there_is_to_connect_to():
    names = {"llm": [GATEWAY, GATEWAY6], OTHER_HOST: [OTHER_HOST], "gone": OSError("no")}
    targets = [target(address="llm"), target(address="gone")]
    found = endpoints(targets, names, SSH, [(OTHER_HOST, 80)])
    assert set(found) == {
        Endpoint(GATEWAY, 443), Endpoint(GATEWAY6, 443), Endpoint(GATEWAY, SSH),
        Endpoint(GATEWAY6, SSH), Endpoint(OTHER_HOST, 80),
    }  # fmt: skip
    assert {place.port for place in endpoints(targets, names, 0, [])} == {443}


@pytest.mark.parametrize(
    ("vantage", "targets", "why"),
    [
        ("stranger", [target(), target()], "two targets 'port-443'"),
        ("A stranger", [target()], "'A stranger' does not consist"),
        ("stranger", [target(id="10.0.0.1")], "'10.0.0.1' does not consist"),
    ],
)
def test_ids_must_be_stable_and_unique(vantage, targets, why):
    with pytest.raises(TargetError, match=why):
        check_targets(vantage, targets)
