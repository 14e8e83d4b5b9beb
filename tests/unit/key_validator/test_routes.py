# SPDX-License-Identifier: GPL-3.0-or-later
"""The routes as the policy hop knows them."""

from __future__ import annotations

import typing as t

import pytest
from llm_key_validator.routes import RouteError, parse_routes

CHAT = {"methods": ["POST"], "path": "/api/chat", "class": "inference", "body": "ollama_chat"}
TAGS = {
    "methods": ["GET", "HEAD"],
    "path": "/api/tags",
    "class": "read",
    "body": "none",
    "models": "list",
}
ONE_MODEL = {
    "methods": ["GET"],
    "pattern": "^/v1/models/[a-z:]+$",
    "class": "read",
    "body": "none",
    "models": "path",
}


def test_finds_by_method_and_whole_path() -> None:
    table = parse_routes([CHAT, TAGS, ONE_MODEL])
    chat = table.find("POST", "/api/chat")
    assert chat is not None
    assert (chat.body, chat.endpoint_class, chat.models) == ("ollama_chat", "inference", "")
    assert table.find("HEAD", "/api/tags") is table.find("GET", "/api/tags")
    found = table.find("GET", "/v1/models/tiny:latest")
    assert found is not None
    assert found.models == "path"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/chat"),
        ("POST", "/api/chat/"),
        ("POST", "/api/Chat"),
        ("GET", "/v1/models/tiny\n"),
        ("GET", "/v1/models/a/b"),
        ("POST", "/v1/models/tiny"),
    ],
)
def test_finds_nothing_else(method: str, path: str) -> None:
    assert parse_routes([CHAT, TAGS, ONE_MODEL]).find(method, path) is None


@pytest.mark.parametrize(
    "change",
    [
        {"class": "account"},
        {"class": None},
        {"body": "json"},
        {"models": "all"},
        {"methods": []},
        {"methods": "POST"},
        {"methods": ["post"]},
        {"path": None},
        {"path": 7},
        {"pattern": "^/x$"},
        {"path": None, "pattern": "("},
        {"extra": 1},
    ],
)
def test_a_bad_route_is_named_by_its_place(change: dict[str, t.Any]) -> None:
    with pytest.raises(RouteError, match=r"\[1\]"):
        parse_routes([TAGS, {**CHAT, **change}])


def test_only_a_list_of_objects() -> None:
    for raw in ({}, "x", None, ["x"]):
        with pytest.raises(RouteError):
            parse_routes(raw)


def test_equal_tables_are_equal() -> None:
    assert parse_routes([CHAT]) == parse_routes([CHAT])
    assert parse_routes([CHAT]) != parse_routes([TAGS])
