# SPDX-License-Identifier: GPL-3.0-or-later
"""Several LLM servers: what is refused before anything changes, and who has which model."""

from __future__ import annotations

import typing as t

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_backends import (
    backend_groups,
    backend_problems,
)

A, B, C = ({"address": f"127.0.0.1:{port}"} for port in (8080, 8081, 8082))
GONE = {"drain": True}


@pytest.mark.parametrize(
    ("backends", "problem"),
    [
        ([A, {"address": "127.0.0.1:8080"}], "127.0.0.1:8080 is there twice"),
        ([{"address": "Gpu1:80"}, {"address": "gpu1:80"}], "gpu1:80 is there twice"),
        ([{**A, **GONE}, {**B, **GONE}], "all of them are drained, so that nobody would answer"),
        (
            [A, {**B, "models": ["Tiny"], **GONE}],
            "every server of the model tiny:latest is drained",
        ),
        (
            [{**A, **GONE}, {**B, "models": ["tiny"]}],
            "every server of the models that nobody names is drained",
        ),
        ([{"address": "127.0.0.1"}], "'127.0.0.1' is not address:port"),
        ([{"address": "127.0.0.1:0"}], "'127.0.0.1:0' is not address:port"),
        ([{"address": "127.0.0.1:80; return 1"}], "'127.0.0.1:80; return 1' is not address:port"),
        ([{"address": "127.0.0.1:80\n"}], r"'127.0.0.1:80\n' is not address:port"),
        ([{"address": 8080}], "8080 is not address:port"),
        ([{"models": ["tiny"]}], "{'models': ['tiny']} has no address"),
        (["127.0.0.1:8080"], "'127.0.0.1:8080' has no address"),
        ("127.0.0.1:8080", "it is not a list"),
        (
            [{**A, "weight": 2}],
            "127.0.0.1:8080 has 'weight', and only address, models, drain are known",
        ),
        ([{**A, "drain": "yes"}], "drain of 127.0.0.1:8080 is neither true nor false"),
        (
            [{**A, "models": []}],
            "models of 127.0.0.1:8080 is not a list of names (leave it out for all other models)",
        ),
        (
            [{**A, "models": ['x" evil']}],
            "127.0.0.1:8080 has 'x\" evil', which is no model's name",
        ),
        (
            [{**A, "models": ["tiny:local"]}],
            "127.0.0.1:8080 has 'tiny:local', which is no model's name",
        ),
    ],
)
def test_what_cannot_be(backends: t.Any, problem: str) -> None:
    assert backend_problems(backends) == [problem]


def test_what_can_be() -> None:
    assert backend_problems([]) == []
    assert backend_problems([{"address": "[::1]:8080", "models": None, "drain": False}, A]) == []
    assert backend_problems([A, {**B, **GONE}, {**C, "models": ["tiny"]}]) == []


def test_models_with_the_same_servers_share_a_group() -> None:
    found = backend_groups(
        [
            {**A, "models": ["tiny", "big"]},
            {**B, "models": ["registry.ollama.ai/library/BIG:latest", "tiny"], **GONE},
            {**C, "models": ["other:7b"]},
        ]
    )
    both = [{**A, "drain": False}, {**B, "drain": True}]
    assert found == {
        "groups": [
            {"name": "llm_server_1", "servers": both},
            {"name": "llm_server_2", "servers": [{**C, "drain": False}]},
        ],
        "models": [
            {"name": "big:latest", "group": "llm_server_1"},
            {"name": "other:7b", "group": "llm_server_2"},
            {"name": "tiny:latest", "group": "llm_server_1"},
        ],
        "others": "",
        "without": "llm_server_1",
    }


def test_servers_without_models_have_all_others() -> None:
    found = backend_groups([{**A, "models": ["tiny"]}, B, C])
    assert [one["name"] for one in found["groups"]] == ["llm_server", "llm_server_1"]
    assert found["others"] == found["without"] == "llm_server"
    assert backend_groups([])["groups"] == []
