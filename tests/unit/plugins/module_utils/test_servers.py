# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue is consistent, strict about its own entries, and knows old from new."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path

import pytest
import yaml
from ansible_collections.llmsec.hardening.plugins.module_utils import servers
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import (
    ENDPOINT_CLASSES,
    SERVERS,
    Route,
    UnknownServerError,
    VersionError,
    VersionFloor,
    compare,
    get_server,
    missed_floors,
)
from hypothesis import given
from hypothesis import strategies as st

OLLAMA = get_server("ollama")
# .../plugins/module_utils/servers.py
ROLES = Path(servers.__file__).parents[2] / "roles"


def allowed(method: str, path: str) -> list[str]:
    return [route.endpoint_class for route in OLLAMA.routes if route.matches(method, path)]


@pytest.mark.parametrize("server", SERVERS.values(), ids=lambda s: s.name)
def test_every_entry_is_plain_consistent_data(server):
    entry = json.loads(json.dumps(server.as_dict()))
    assert entry["name"] == server.name
    assert entry["unit"].endswith(".service")
    assert not set(entry["environment"]) & set(entry["forbidden_environment"])
    assert {route["class"] for route in entry["routes"]} <= set(ENDPOINT_CLASSES)
    assert all(len({"path", "pattern"} & route.keys()) == 1 for route in entry["routes"])
    for floor in entry["version_floors"]:
        assert all(re.fullmatch(r"CVE-\d{4}-\d{4,}", cve) for cve in floor["cves"])
    assert missed_floors(server.version_floors, server.install_version) == []


def test_every_endpoint_that_takes_a_body_says_which():
    # Those without one: accounts, which nothing may route.
    with_body = {"POST", "DELETE"}
    silent = {
        r.endpoint_class for r in OLLAMA.routes if r.body == "none" and with_body & {*r.methods}
    }
    assert silent == {"account"}
    shapes = {
        route["path"]: route["body"] for route in OLLAMA.as_dict()["routes"] if "path" in route
    }
    assert shapes["/api/chat"] == "ollama_chat"
    assert shapes["/v1/audio/transcriptions"] == "openai_audio"
    assert shapes["/api/tags"] == "none"


@pytest.mark.parametrize("server", SERVERS.values(), ids=lambda s: s.name)
def test_no_request_belongs_to_two_routes(server):
    exact = [route for route in server.routes if route.path]
    for one, other in itertools.combinations(exact, 2):
        assert one.path != other.path or not set(one.methods) & set(other.methods)
    for route in exact:
        for method in route.methods:
            assert [r for r in server.routes if r.matches(method, route.path)] == [route]


@pytest.mark.parametrize(
    ("method", "path", "classes"),
    [
        ("POST", "/v1/chat/completions", ["inference"]),
        ("GET", "/v1/chat/completions", []),
        ("GET", "/v1/models/tiny:latest", ["read"]),
        ("GET", "/v1/models/a/b", []),
        ("GET", "/v1/models/tiny\n", []),
        ("GET", "/v1/models/../api/pull", []),
        ("HEAD", "/api/tags", ["read"]),
        ("POST", "/api/show", ["inspect"]),
        ("POST", "/api/pull", ["management"]),
        ("POST", "/api/blobs/sha256:00ff", ["management"]),
        ("POST", "/api/me", ["account"]),
        ("POST", "/api/chat/", []),
    ],
)
def test_ollama_routes(method, path, classes):
    assert allowed(method, path) == classes


@pytest.mark.parametrize(
    ("server", "method", "path", "classes"),
    [
        ("localai", "POST", "/v1/chat/completions", ["inference"]),
        ("localai", "GET", "/api/tags", ["read"]),
        ("localai", "POST", "/models/apply", ["account"]),
        ("localai", "GET", "/swagger/index.html", ["account"]),
        ("localai", "GET", "/", []),
        ("litellm", "POST", "/v1/embeddings", ["inference"]),
        ("litellm", "POST", "/key/generate", ["account"]),
        ("litellm", "GET", "/health", ["account"]),
        ("litellm", "GET", "/health/liveliness", ["read"]),
        ("llama_cpp", "GET", "/slots/0", ["account"]),
        ("llama_cpp", "POST", "/completion", ["account"]),
        ("vllm", "POST", "/collective_rpc", ["account"]),
        ("vllm", "POST", "/v1/load_lora_adapter", ["account"]),
    ],
)
def test_what_administers_a_server_is_never_for_a_client(server, method, path, classes):
    found = [each for each in get_server(server).routes if each.matches(method, path)]
    assert [each.endpoint_class for each in found] == classes


@pytest.mark.parametrize("server", SERVERS.values(), ids=lambda s: s.name)
def test_what_a_client_may_send_is_a_body_that_the_validator_reads(server):
    bodies = {
        route.body for route in server.routes
        if route.endpoint_class == "inference" and "POST" in route.methods
    }  # fmt: skip
    assert bodies
    assert not bodies & {"none", "opaque"}


def test_a_pattern_does_not_match_a_trailing_line_end():
    # `$` in Python also matches before a final line feed; nginx never sees one in a URI.
    route = Route(methods=("GET",), pattern=r"^/x/[a-z]+$", endpoint_class="read")
    assert not route.matches("GET", "/x/a\n")


@pytest.mark.parametrize(
    "wrong",
    [
        {"path": "/a", "pattern": "^/a$"},
        {},
        {"path": "/a", "endpoint_class": "admin"},
        {"path": "/a", "methods": ("get",)},
        {"path": "/a", "methods": ()},
        {"path": "/a b"},
        {"path": "a"},
        {"pattern": "/a"},
        {"pattern": "^/(a)$"},
        {"pattern": "^/(?:a)$"},
        {"path": "/a", "body": "ollama_chat"},
        {"path": "/a", "methods": ("HEAD", "POST"), "body": "ollama_chat"},
    ],
)
def test_a_careless_route_is_refused(wrong):
    with pytest.raises(ValueError, match=r".+"):
        Route(**{"methods": ("GET",), "endpoint_class": "read", **wrong})


@pytest.mark.parametrize("name", ["ollama", "localai"])
def test_the_role_installs_the_version_of_the_catalogue(name):
    defaults = yaml.safe_load((ROLES / name / "defaults/main.yml").read_text())
    assert defaults[f"{name}_version"] == get_server(name).install_version


def test_an_unknown_server_is_told_the_known_ones():
    with pytest.raises(UnknownServerError, match=r"'olama'.*known: .*ollama"):
        get_server("olama")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("0.33.0-rc2", "0.33.0"),
        ("0.33.0-rc2", "0.33.0-rc10"),
        ("0.33.0-rc2", "0.33.1"),
        ("0.9.9", "0.10.0"),
        ("1.0.0-alpha", "1.0.0-alpha.1"),
        ("1.0.0-alpha.1", "1.0.0-alpha.beta"),
        ("1.0.0-9", "1.0.0-alpha"),
        ("0.0.0", "0.1.0-rc0"),
    ],
)
def test_older_is_less(old, new):
    assert (compare(old, new), compare(new, old), compare(old, old)) == (-1, 1, 0)


@pytest.mark.parametrize(
    ("one", "same"), [("v0.33.0", "0.33.0"), ("1.2", "1.2.0"), ("1.2.0+build5", "1.2.0")]
)
def test_spellings_of_one_version(one, same):
    assert compare(one, same) == 0


@pytest.mark.parametrize("text", ["", "latest", "1..2", "1.2-", "1.2.x", "0.33.0 rc2"])
def test_no_version(text):
    with pytest.raises(VersionError, match="not a version"):
        compare(text, "1.0")


VERSIONS = st.from_regex(r"\A[0-9]{1,2}(\.[0-9]{1,2}){0,3}(-[a-z0-9]{1,3}(\.[a-z0-9]{1,3})?)?\Z")


@given(VERSIONS, VERSIONS, VERSIONS)
def test_the_order_is_total(a, b, c):
    assert compare(a, b) == -compare(b, a)
    if compare(a, b) <= 0 and compare(b, c) <= 0:
        assert compare(a, c) <= 0


def test_missed_floors_are_those_above_the_version():
    floors = [VersionFloor(version=v, cves=("CVE-2026-0001",)) for v in ("3.0", "2.0", "1.0")]
    assert [floor.version for floor in missed_floors(floors, "2.0-rc1")] == ["3.0", "2.0"]
    assert missed_floors(floors, "3.0.0") == []
