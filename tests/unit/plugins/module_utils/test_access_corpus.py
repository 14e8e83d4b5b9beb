# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked: everything there is, nothing that does harm."""

from __future__ import annotations

import json
import re

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.access_corpus import (
    BASELINE,
    BYPASSES,
    CREDENTIALS,
    METHODS,
    few_cases,
    few_questions,
    fill,
    host_cases,
    open_routes,
    places,
    questions,
    refused_key_case,
    sample_path,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import (
    generate_key,
    is_well_formed,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_routes import GatewayError
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import (
    SERVERS,
    Route,
    get_server,
)

OLLAMA = get_server("ollama")
CLASSES = ("inference", "read")
IS_OPEN = open_routes(OLLAMA, CLASSES, [])
SPOTS = places(OLLAMA, "llm.test", IS_OPEN)
CASES = [BASELINE, *CREDENTIALS, *BYPASSES, *host_cases("llm.test", ["x.test"])]


def asked(classes=CLASSES, extra=(), with_key=False):
    paths = questions(OLLAMA, open_routes(OLLAMA, classes, extra), with_key)
    return [question for path in paths for question in path]


@pytest.mark.parametrize("server", SERVERS.values())
def test_each_route_of_the_catalogue_has_a_path_to_ask_for(server):
    for route in server.routes:
        path = sample_path(route)
        assert all(route.matches(method, path) for method in route.methods)


def test_a_pattern_without_a_sample_is_said():
    route = Route(methods=("GET",), endpoint_class="read", pattern="^/x/[Z]{9}$")
    with pytest.raises(ValueError, match="no sample"):
        sample_path(route)


def test_every_method_of_every_path_is_asked_for_without_a_key():
    bare = {(one.path, one.method) for one in asked() if not one.credential}
    paths = {sample_path(route) for route in OLLAMA.routes}
    assert bare == {(path, method) for path in paths for method in METHODS}


def test_what_is_open_is_told_from_what_is_not():
    groups = {(one.method, one.path): one.group for one in asked() if not one.credential}
    assert groups["POST", "/api/chat"] == "no_key.inference"
    assert groups["GET", "/api/tags"] == "no_key.read"
    assert groups["POST", "/api/pull"] == "closed.management"
    assert groups["POST", "/api/me"] == "closed.account"
    assert groups["DELETE", "/api/chat"] == "methods"
    more = {
        (one.method, one.path): one.group
        for one in asked([*CLASSES, "management"], ["POST /api/show"])
        if not one.credential
    }
    assert more["POST", "/api/pull"] == "no_key.management"
    assert more["POST", "/api/show"] == "no_key.inspect"
    with pytest.raises(GatewayError):
        open_routes(OLLAMA, ["account"], [])


def test_a_key_is_tried_on_what_is_closed_alone():
    with_key = [one for one in asked(with_key=True) if one.credential == "key"]
    assert {one.group for one in with_key} == {
        "closed_to_keys.inspect", "closed_to_keys.management", "closed_to_keys.account",
    }  # fmt: skip
    assert all(one.absent for one in with_key)
    assert not [one for one in asked() if one.credential == "key"]


def test_no_request_could_change_anything():
    """Names that no model has, or none; what takes no body is announced and not sent."""
    for question in asked(["inference", "read", "inspect", "management"], with_key=True):
        if question.body:
            body = json.loads(question.body)
            assert set(body.values()) <= {"", "llmsec-probe/none"}
            assert body.keys() <= {"model", "source", "destination"}
        own = [
            route.endpoint_class for route in OLLAMA.routes
            if route.matches(question.method, question.path)
        ]  # fmt: skip
        assert question.unsafe == ("account" in own and question.method != "GET")
        raw = question.raw("llm.test", "")
        if question.unsafe:
            head, _blank, rest = raw.partition(b"\r\n\r\n")
            assert rest == b""
            assert b"Content-Length: 2" in head
            assert b"Expect: llmsec-probe" in head
    for case in CASES:
        for template in case.requests:
            for body in re.findall(rb"\{[^}]*\}", template):
                assert json.loads(body)["model"] in ("", "llmsec-probe/none")
            assert not re.search(rb"(signout|user/keys|api/me)", template)


def test_no_digest_is_one_that_ollama_would_keep():
    blobs = [one.path for one in asked() if "/blobs/" in one.path]
    assert blobs
    assert not [path for path in blobs if re.search(r"sha256[:-][0-9a-fA-F]{64}\Z", path)]


def test_unsafe_questions_come_last_on_their_path():
    for path in questions(OLLAMA, IS_OPEN, True):
        order = [one.unsafe for one in path]
        assert order == sorted(order)
        assert not order[0]


def test_every_word_in_a_template_is_filled_in():
    for case in CASES:
        for template in case.requests:
            raw = fill(template, SPOTS, generate_key)
            assert not re.search(rb"<[A-Za-z0-9%]+>", raw), raw
            if case.id not in ("http_0_9", "http_2"):
                assert b"\r\n\r\n" in raw or b"\n\n" in raw


def test_lengths_are_those_of_the_bodies():
    for case in (*CREDENTIALS, *BYPASSES):
        for template in case.requests:
            head, _blank, body = fill(template, SPOTS, generate_key).partition(b"\r\n\r\n")
            found = re.findall(rb"\r\nContent-Length: ([0-9]+)(?=\r\n|\Z)", head)
            if found and not case.waits and not case.id.startswith("smuggling"):
                assert [int(one) for one in found] == [len(body)], case.id


def test_spellings_of_a_path():
    words = [b"<r%65ad>", b"<r%2Fead>", b"<READ>", b"<m%61naged>", b"<post><up><managed>"]
    assert [fill(word, SPOTS, generate_key) for word in words] == [
        b"/%61pi/version",
        b"/api%2Fversion",
        b"/API/VERSION",
        b"/%61pi/pull",
        b"/api/generate/../../api/pull",
    ]


def test_each_key_is_another_one_that_looks_good():
    raw = fill(b"<key> <key>", SPOTS, generate_key)
    first, second = raw.split()
    assert first != second
    assert is_well_formed(first)
    assert is_well_formed(second)


def test_ids_are_stable_and_each_means_one_thing():
    titles = {}
    for case in CASES:
        assert re.fullmatch("[a-z0-9_]+", case.id)
        assert titles.setdefault(case.id, case.title) == case.title
    ids = [case.id for case in (*CREDENTIALS, *BYPASSES)]
    assert len(ids) == len(set(ids))


def test_names_that_are_no_names_are_left_out():
    given = [
        "good.test",
        "_",
        "~^regex",
        "*.wild.test",
        "a b",
        "",
        "llm.test",
        "x\r\ny",
        "good.test",
    ]
    cases = [*host_cases("llm.test", given)]
    names = [case.server_name for case in cases if case.server_name]
    assert "good.test" in names
    assert "ollama.test" in names
    assert "llm.test" not in names
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z.]+", name) for name in names)


def test_keys_that_were_good_once():
    case = refused_key_case(["one", "two"])
    filled = [fill(raw, SPOTS, generate_key) for raw in case.requests]
    assert [b"Authorization: Bearer one\r\n" in raw for raw in filled] == [True, False]
    assert b"Authorization: Bearer two\r\n" in filled[1]


def test_no_two_requests_show_the_same_credential():
    """The gateway counts what was sent as a key, from wherever it comes."""
    shown = []
    for again in (False, True, True, True):
        for case in CREDENTIALS:
            for template in case.requests:
                raw = fill(template, SPOTS, generate_key, again=again)
                found = re.findall(rb"\r\n(?:Authorization|X-API-Key): ?([^\r]+)", raw)
                shown += [tuple(found)] if found and case.id != "empty_key" else []
    fixed = [one for one in shown if b"sk-1234" in one[0]]
    rest = [one for one in shown if one not in fixed]
    assert len(rest) == len(set(rest))
    assert len(set(fixed)) > 2


def test_a_typo_is_one():
    assert not is_well_formed(fill(b"<typo>", SPOTS, generate_key))


def test_a_neighbour_asks_for_little():
    """Within the burst of eleven, the first request for nothing included."""
    chosen = [one for path in few_questions(questions(OLLAMA, IS_OPEN, False)) for one in path]
    cases = [*few_cases(BYPASSES)]
    total = 1 + len(chosen) + sum(len(case.requests) for case in cases)
    assert total <= 8
    assert {one.group for one in chosen} >= {"no_key.inference", "wrong_key.read"}
    assert cases
