# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_routes import (
    GatewayError,
    rate_period,
    select_routes,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import get_server
from hypothesis import given
from hypothesis import strategies as st

ROUTES = [route.as_dict() for route in get_server("ollama").routes]


@pytest.mark.parametrize(
    ("rate", "seconds"), [("10r/m", 6), ("5r/s", 1), ("1r/s", 1), ("7r/m", 9), ("1r/m", 60)]
)
def test_period_of_a_rate(rate: str, seconds: int) -> None:
    assert rate_period(rate) == seconds


@pytest.mark.parametrize(
    "rate", ["", "10", "0r/m", "10r/h", "10 r/m", "10r/m;", "-1r/s", "10r/m\n"]
)
def test_no_rate(rate: str) -> None:
    with pytest.raises(GatewayError, match="not a rate"):
        rate_period(rate)


def test_default_classes_open_no_management_route() -> None:
    chosen = select_routes(ROUTES, ["inference", "read"], [])
    paths = {route.get("path") for route in chosen}
    assert {"/api/chat", "/api/generate", "/v1/chat/completions", "/api/tags"} <= paths
    assert not paths & {"/api/pull", "/api/push", "/api/create", "/api/copy", "/api/delete"}
    assert "/api/show" not in paths


def test_extra_route_keeps_its_class_and_only_its_method() -> None:
    chosen = select_routes(ROUTES, ["read"], ["POST /api/show"])
    show = next(route for route in chosen if route.get("path") == "/api/show")
    assert show["class"] == "inspect"
    assert list(show["methods"]) == ["POST"]


@pytest.mark.parametrize(
    "extra", ["POST /api/signout", "GET /api/pull", "/api/pull", "POST /nope", ""]
)
def test_extra_route_that_cannot_be_opened(extra: str) -> None:
    with pytest.raises(GatewayError, match="can be opened"):
        select_routes(ROUTES, ["read"], [extra])


@pytest.mark.parametrize("name", ["account", "everything", ""])
def test_class_that_cannot_be_opened(name: str) -> None:
    with pytest.raises(GatewayError, match="can be opened"):
        select_routes(ROUTES, [name], [])


@given(st.sets(st.sampled_from(["inference", "read", "inspect", "management"]), min_size=1))
def test_each_path_is_one_location(classes: set[str]) -> None:
    chosen = select_routes(ROUTES, sorted(classes), [])
    places = [route.get("path", route.get("pattern")) for route in chosen]
    assert len(places) == len(set(places))
    assert {route["class"] for route in chosen} == classes


@pytest.mark.parametrize(("name", "value"), [("class", "read"), ("body", "opaque")])
def test_one_path_cannot_be_two_kinds_of_route(name: str, value: str) -> None:
    one = {"methods": ["POST"], "path": "/x", "class": "inference", "body": "none"}
    other = {**one, "methods": ["PUT"], name: value}
    with pytest.raises(GatewayError, match=f"two values of {name}"):
        select_routes([one, other], ["inference", "read"] if name == "class" else ["inference"], [])
    merged = select_routes([one, {**one, "methods": ["PUT"]}], ["inference"], [])
    assert merged == [{**one, "methods": ["POST", "PUT"]}]
