# SPDX-License-Identifier: GPL-3.0-or-later
"""Answers and what they are: a refusal, somebody behind the gateway, or nothing to go by."""

from __future__ import annotations

import json

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import http_probe
from ansible_collections.llmsec.hardening.plugins.module_utils.access_checks import (
    LET_IN,
    LIMITED,
    NOTHING,
    PAGE,
    REFUSED,
    SHUT,
    UNDECIDED,
    Asked,
    Direct,
    Local,
    case_findings,
    direct_findings,
    gateway_finding,
    key_finding,
    kind_of,
    local_findings,
    question_findings,
    refusal_type,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.access_corpus import Case, Question
from ansible_collections.llmsec.hardening.plugins.module_utils.controls import CONTROLS
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import Answer, no_answer
from hypothesis import given
from hypothesis import strategies as st

ID = "0123456789abcdef" * 2


def gateway(status, request_id=ID, **headers):
    error = {"type": "some_error", "message": "No.", "request_id": request_id}
    body = json.dumps({"error": error}).encode() + b"\n"
    return Answer(status, {"x-request-id": ID, "content-type": "application/json", **headers}, body)


def page(status, text="<hr><center>nginx</center>"):
    headers = {"server": "nginx", "content-type": "text/html"}
    return Answer(status, headers, f"<html>{text}</html>".encode())


def other(status, body=b"", **headers):
    return Answer(status, headers, body)


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        *((gateway(status), REFUSED) for status in (400, 401, 403, 404, 413, 414, 431, 501)),
        (gateway(429), LIMITED),
        (gateway(503), UNDECIDED),
        # The gateway's word that the LLM server failed: the request went on to it.
        (gateway(502), LET_IN),
        (gateway(504), LET_IN),
        *((page(status), REFUSED) for status in (400, 401, 403, 404, 405, 414)),
        (page(429), LIMITED),
        (page(500), UNDECIDED),
        (page(503), UNDECIDED),
        (page(502), LET_IN),
        (page(200, "<h1>Welcome to nginx!</h1>"), PAGE),
        (page(301), PAGE),
        (other(200, b"Ollama is running"), LET_IN),
        (other(200, b'{"models":[]}'), LET_IN),
        (other(404, b'{"error":"model \'x\' not found"}'), LET_IN),
        (other(404, b"404 page not found"), LET_IN),
        (other(405, b"405 method not allowed"), LET_IN),
        (other(403), LET_IN),
        (other(307, location="/api/tags"), LET_IN),
        (other(204), LET_IN),
        # An LLM server with keys of its own has been reached.
        (other(401, b'{"error":{"message":"No key","type":"auth_error","code":"401"}}'), LET_IN),
        # An id that is not nginx's is somebody else's
        (gateway(404, request_id="f" * 32), LET_IN),
        (gateway(404, request_id=""), LET_IN),
        (Answer(0, {}, b'{"version":"1"}', http_probe.GARBAGE), LET_IN),
        (Answer(0, {}, gateway(401).body, http_probe.GARBAGE), REFUSED),
        (no_answer(http_probe.CLOSED), SHUT),
        (no_answer(http_probe.NO_TLS), SHUT),
        (no_answer(http_probe.REFUSED), SHUT),
        (no_answer(http_probe.SILENT), NOTHING),
        (no_answer(http_probe.UNREACHABLE), NOTHING),
        (no_answer(http_probe.LATE), NOTHING),
    ],
)
def test_what_an_answer_is(answer, kind):
    assert kind_of(answer) == kind


@pytest.mark.parametrize(
    ("headers", "kind"),
    [
        ({"x-request-id": ID, "content-type": "application/json"}, REFUSED),
        ({"x-request-id": "short", "content-type": "application/json"}, LET_IN),
        ({"content-type": "application/json"}, LET_IN),
        ({"content-type": "text/html", "server": "nginx/1.22.1"}, REFUSED),
        ({"content-type": "text/plain", "x-request-id": ID}, LET_IN),
        ({}, LET_IN),
    ],
)
def test_an_answer_to_head_has_headers_only(headers, kind):
    assert kind_of(Answer(404, headers), "HEAD") == kind
    assert kind_of(Answer(200, headers), "HEAD") == LET_IN


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.sampled_from(["error", "type", "message", "request_id"]), inner),
    max_leaves=8,
))  # fmt: skip
def test_no_json_upsets_it(value):
    body = json.dumps(value).encode()
    if refusal_type(Answer(401, {}, body)):
        assert set(value["error"]) >= {"type", "message", "request_id"}
    assert refusal_type(Answer(401, {}, body[:-1])) == ""
    assert refusal_type(Answer(401, {}, b"[" * 100_000)) == ""


def asked(*answers, method="GET"):
    return Asked(f"{method} /x HTTP/1.1", method, answers)


def test_the_worst_of_many_answers_counts():
    assert asked(gateway(404), other(200, b"Ollama is running")).kind == LET_IN
    assert asked(gateway(404), gateway(401)).kind == REFUSED
    assert asked().kind == NOTHING
    assert "Ollama is running" in str(asked(gateway(404), other(200, b"Ollama\n is running")))


CASE = Case(id="trick", title="no trick works", requests=())


def judge(case, *all_asked):
    (found,) = case_findings([(case, all_asked)], "bypass")
    assert found["control"] in CONTROLS
    assert found["id"] == "access.bypass.trick"
    return found["result"], found["severity"], found


@pytest.mark.parametrize(
    ("answers", "result", "severity"),
    [
        ([gateway(401), gateway(404)], "pass", "critical"),
        ([gateway(401), no_answer(http_probe.CLOSED)], "pass", "critical"),
        ([gateway(401), other(200, b"Ollama is running")], "fail", "critical"),
        ([gateway(429), other(200, b"x")], "fail", "critical"),
        ([gateway(401), page(200)], "fail", "medium"),
        ([gateway(401), gateway(429)], "error", "high"),
        ([gateway(401), gateway(503)], "error", "high"),
        ([gateway(401), no_answer(http_probe.SILENT)], "error", "high"),
        ([gateway(401), no_answer(http_probe.LATE)], "error", "high"),
        ([], "error", "high"),
    ],
)
def test_a_case(answers, result, severity):
    found = judge(CASE, *(asked(answer) for answer in answers))
    assert found[:2] == (result, severity)
    evidence = found[2]["evidence"]
    assert (evidence == []) == (result == "pass" or not answers)
    assert bool(found[2]["remediation"]) == (result != "pass")


def test_hanging_up_is_no_proof_where_an_answer_must_come():
    strict = Case(id="trick", title="t", requests=(), may_close=False)
    assert judge(strict, asked(no_answer(http_probe.CLOSED)))[0] == "error"
    assert judge(CASE, asked(no_answer(http_probe.CLOSED)))[0] == "pass"


def test_waiting_for_a_strangers_body_is_a_failure():
    waits = Case(id="trick", title="t", requests=(), waits=True)
    assert judge(waits, asked(no_answer(http_probe.SILENT)))[:2] == ("fail", "medium")
    assert judge(waits, asked(gateway(413)))[0] == "pass"


def test_cases_of_one_id_are_one_finding():
    found = [*case_findings([(CASE, [asked(gateway(401))]), (CASE, [asked(other(200))])], "bypass")]
    assert [one["result"] for one in found] == ["fail"]
    assert "2 requests" in found[0]["actual"]


def test_evidence_is_short():
    bad = [Asked(f"GET /{'a' * 400}", "GET", (other(200, b"\xff\0" * 500),))] * 50
    evidence = judge(CASE, *bad)[2]["evidence"]
    assert len(evidence) == 20
    assert all(len(line) <= 300 and line.isprintable() for line in evidence)
    assert evidence[-1] == "... and 31 more"


def question(group, answer, **more):
    one = Question(group=group, method="POST", path="/api/pull", **more)
    return one, asked(answer, method="POST")


def judged(*pairs):
    found = [*question_findings(pairs)]
    assert all(one["control"] in CONTROLS for one in found)
    return [(one["id"], one["result"], one["severity"]) for one in found]


def test_groups_are_judged_each_for_itself():
    pairs = [
        question("no_key.read", gateway(401)),
        question("no_key.inference", other(404, b"model not found")),
        question("no_key.read", gateway(403)),
        question("wrong_key.read", gateway(429)),
        question("methods", gateway(404)),
    ]
    assert judged(*pairs) == [
        ("access.no_key.read", "pass", "critical"),
        ("access.no_key.inference", "fail", "critical"),
        ("access.wrong_key.read", "error", "high"),
        ("access.methods", "pass", "critical"),
    ]


@pytest.mark.parametrize(
    ("endpoint_class", "severity"),
    [("management", "high"), ("account", "high"), ("inspect", "medium")],
)
def test_a_route_that_must_not_exist_asks_for_no_key(endpoint_class, severity):
    group = f"closed.{endpoint_class}"
    closed = question(group, gateway(404), absent=True)
    there = question(group, gateway(401), absent=True)
    assert judged(closed)[0][1] == "pass"
    # nginx refuses whoever has no certificate before it looks at the path.
    assert judged(question(group, gateway(403), absent=True))[0][1] == "pass"
    assert judged(closed, there) == [(f"access.{group}", "fail", severity)]
    through = question(group, other(400, b'{"error":"invalid model name"}'), absent=True)
    assert judged(there, through) == [(f"access.{group}", "fail", "critical")]
    (found,) = question_findings([closed, there])
    assert found["control"] == "management_routes"
    assert "gateway_route_classes" in found["remediation"]


def test_with_a_key_it_is_not_anybody():
    through = question("closed_to_keys.management", other(400, b"invalid"), absent=True)
    assert judged(through) == [("access.closed_to_keys.management", "fail", "high")]


def test_a_route_that_waits_for_the_body_is_let_in():
    waiting = question("closed.account", no_answer(http_probe.SILENT), absent=True, unsafe=True)
    assert judged(waiting) == [("access.closed.account", "fail", "medium")]
    safe = question("closed.account", no_answer(http_probe.SILENT), absent=True)
    assert judged(safe) == [("access.closed.account", "error", "high")]


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (gateway(404), "pass"),
        (other(200, b"Ollama is running"), "pass"),
        (no_answer(http_probe.REFUSED), "error"),
        (no_answer(http_probe.NO_TLS), "error"),
        (no_answer(http_probe.SILENT), "error"),
    ],
)
def test_somebody_must_be_there_to_refuse(answer, result):
    assert gateway_finding(asked(answer))["result"] == result


@pytest.mark.parametrize(
    ("answer", "result"),
    [
        (other(200, b"{}"), "pass"),
        (gateway(401), "error"),
        (gateway(502), "error"),
        (other(403), "error"),
        (no_answer(http_probe.SILENT), "error"),
    ],
)
def test_a_key_must_be_good_to_prove_anything(answer, result):
    assert key_finding(asked(answer))["result"] == result


def reached(answer, port=11434, why=""):
    return Direct(address="192.0.2.1", port=port, answer=answer, why=why)


def missed(why, port=11434):
    return reached(no_answer(why), port, why)


@pytest.mark.parametrize(
    ("tried", "answers", "result", "severity"),
    [
        ([reached(other(200, b"Ollama is running"))], True, "fail", "critical"),
        ([reached(other(200, b"Ollama is running"))], False, "fail", "critical"),
        ([reached(other(403))], True, "fail", "high"),
        ([reached(no_answer(http_probe.CLOSED))], True, "fail", "high"),
        ([missed(http_probe.REFUSED), reached(other(404))], True, "fail", "high"),
        ([missed(http_probe.REFUSED)], False, "pass", "critical"),
        ([missed(http_probe.SILENT)], True, "pass", "critical"),
        ([missed(http_probe.SILENT)], False, "error", "high"),
        ([missed(http_probe.UNREACHABLE)], True, "error", "high"),
        ([missed(http_probe.REFUSED), missed(http_probe.UNREACHABLE)], True, "error", "high"),
    ],
)
def test_nobody_is_reached_around_the_gateway(tried, answers, result, severity):
    (found,) = direct_findings(tried, answers)
    assert (found["id"], found["result"], found["severity"]) == (
        "access.direct.11434", result, severity,
    )  # fmt: skip
    assert found["control"] == "loopback"


def test_each_port_is_a_finding():
    tried = [missed(http_probe.REFUSED), missed(http_probe.REFUSED, 8081)]
    found = [one["id"] for one in direct_findings(tried, True)]
    assert found == ["access.direct.11434", "access.direct.8081"]


@pytest.mark.parametrize(
    ("outcomes", "result"),
    [
        (["refused", "refused"], "pass"),
        (["refused", "connected"], "fail"),
        (["skipped: not guarded", "connected"], "fail"),
        (["skipped: not guarded", "refused"], "skip"),
        (["refused", "refused, but nobody listens there"], "error"),
        (["there is no such user"], "error"),
    ],
)
def test_local_users(outcomes, result):
    tried = [Local(user="nobody", place="11434", what="x", outcome=one) for one in outcomes]
    (found,) = local_findings(tried)
    assert (found["id"], found["result"]) == ("access.local.nobody.11434", result)
    assert found["control"] == "loopback"
