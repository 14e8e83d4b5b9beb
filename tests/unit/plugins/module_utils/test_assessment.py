# SPDX-License-Identifier: GPL-3.0-or-later
"""Results of modules become findings of a host; a module that failed is one of them."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.assessment import (
    AssessmentError,
    host_findings,
    hosts_found,
    reached,
    targets,
)

GOOD = {"id": "listeners.llm_server", "control": "loopback", "result": "pass"}


def results(**results_by_subject):
    return {
        subject: {"control": "loopback", "result": result}
        for subject, result in results_by_subject.items()
    }


def test_findings_stay_in_the_order_of_the_subjects():
    second = {**GOOD, "id": "tls.version"}
    found = host_findings(results(listeners={"findings": [GOOD]}, tls={"findings": [second]}))
    assert [one["id"] for one in found] == ["listeners.llm_server", "tls.version"]


@pytest.mark.parametrize(
    ("result", "why"),
    [
        ({"failed": True, "msg": "no such option\nand more"}, "no such option"),
        ({"msg": "MODULE FAILURE", "rc": 1}, "MODULE FAILURE"),
        ({}, "it gave no findings"),
        ({"findings": "none"}, "it gave no findings"),
        ({"findings": None, "msg": ""}, "it gave no findings"),
        ({"msg": " \n"}, "it gave no findings"),
    ],
)
def test_a_module_without_findings_is_not_measured(result, why):
    (found,) = host_findings(results(listeners=result))
    assert (found["id"], found["result"], found["control"]) == (
        "listeners.module",
        "error",
        "loopback",
    )
    assert found["actual"] == f"not measured: {why}"


def test_a_task_that_was_left_out_has_no_findings():
    assert host_findings(results(firewall={"skipped": True, "changed": False})) == []


def test_what_is_no_result_is_refused():
    with pytest.raises(AssessmentError, match="listeners: no result of a module, but str"):
        host_findings(results(listeners="ok"))


def test_choices_are_told():
    skip = {"id": "mtls.wanted", "control": "mtls", "reason": "gateway_auth is api_key"}
    worse = {"id": "firewall.wanted", "control": "network_isolation", "reason": "no firewall"}
    found = host_findings(
        {},
        [
            skip,
            {**worse, "severity": "medium"},
            {**worse, "severity": "high", "result": "error"},
        ],
    )
    assert [(one["result"], one["severity"]) for one in found] == [
        ("skip", "high"),
        ("fail", "medium"),
        ("error", "high"),
    ]
    assert found[0]["actual"] == "gateway_auth is api_key"
    assert "firewall_app_servers" in found[1]["remediation"]


ASKED = {
    "findings": [
        {"id": "reachability.app1.port", "result": "pass", "host": "llm1"},
        {"id": "reachability.app1.port", "result": "fail", "host": "llm2"},
    ]
}


def test_neighbours_speak_of_the_host_that_they_asked():
    assert [one["result"] for one in reached({"app1": ASKED}, "llm2")] == ["fail"]
    assert all("host" not in one for one in reached({"app1": ASKED}, "llm2"))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ({"unreachable": True, "msg": "ssh: no route"}, "app1 cannot be reached"),
        ({"failed": True, "msg": "no Python"}, "no Python"),
    ],
)
def test_a_neighbour_that_says_nothing_is_not_measured(answer, why):
    (found,) = reached({"app1": answer}, "llm1")
    assert found["result"] == "error"
    assert found["id"] == "reachability.module.app1"
    assert found["actual"] == f"not measured: {why}"


def asking(*neighbours):
    return [{"neighbour": name, "target": {}} for name in neighbours]


def test_hosts_and_what_is_shown_of_them():
    variables = {
        "llm1": {
            "posture_found": [GOOD],
            "posture_targets": asking("app1", "app1", "app2", "app3"),
            "ansible_host": "192.0.2.1",
            "ansible_facts": {"distribution": "Debian", "env": {"SECRET": "x"}},
        },
        "app1": {"posture_reached": ASKED},
        "app2": {},
        "other": {"posture_reached": ASKED},
    }
    found = hosts_found(["llm1"], variables)["llm1"]
    assert found["address"] == "192.0.2.1"
    assert found["facts"] == {"distribution": "Debian"}
    results = [(one["id"], one["result"]) for one in found["findings"]]
    assert results == [
        ("listeners.llm_server", "pass"),
        ("reachability.app1.port", "pass"),
        ("reachability.module.app2", "error"),
        ("reachability.module.app3", "error"),
    ]


@pytest.mark.parametrize(
    ("known", "host"),
    [
        ({}, {"unreachable": True}),
        ({"posture_found": None, "posture_targets": []}, {"unreachable": True}),
        ({"posture_found": [GOOD], "posture_failed": "no sudo"}, {"failed": "no sudo"}),
    ],
)
def test_a_host_that_was_not_looked_at(known, host):
    assert hosts_found(["llm1"], {"llm1": known}) == {"llm1": host}


PLAN = {
    "host": "llm1",
    "addresses": ["192.0.2.1", "2001:db8::1"],
    "managed_by": "llm1.example.com",
    "gateway_port": 443,
    "private_ports": [11434, 8081],
    "app_servers": ["app1"],
    "strangers": ["other"],
    "control_node": True,
    "isolated": True,
}


def asked(neighbour, **changes):
    planned = targets({**PLAN, **changes})["neighbours"]
    return sorted(
        (one["target"]["port"], one["target"]["address"], one["target"]["expected"])
        for one in planned
        if one["neighbour"] == neighbour
    )


CLOSED = [
    (8081, "192.0.2.1", "closed"),
    (8081, "2001:db8::1", "closed"),
    (11434, "192.0.2.1", "closed"),
    (11434, "2001:db8::1", "closed"),
]


def test_who_asks_what():
    gateway = [(443, "192.0.2.1", "open"), (443, "2001:db8::1", "open")]
    assert asked("app1") == [*gateway, *CLOSED]
    shut = [(443, "192.0.2.1", "closed"), (443, "2001:db8::1", "closed")]
    assert asked("other") == [*shut, *CLOSED]
    assert asked("other", isolated=False) == CLOSED
    near = [(8081, "llm1.example.com", "closed"), (11434, "llm1.example.com", "closed")]
    assert asked("localhost") == near
    assert asked("localhost", control_node=False) == []
    assert asked("localhost", app_servers=["localhost"]) == [*gateway, *CLOSED]


def test_the_host_itself_asks_everywhere():
    direct = targets(PLAN)["direct"]
    assert {(one["address"], one["port"]) for one in direct} == {
        (address, port)
        for address in ("127.0.0.1", "192.0.2.1", "2001:db8::1")
        for port in (11434, 8081)
    }
