# SPDX-License-Identifier: GPL-3.0-or-later
"""The official clients beside OpenAI's and Ollama's own, whose details test_streaming looks at."""

from __future__ import annotations

from tests.lab.clients import ask_clients, assert_served


def test_the_official_clients(lab, gateways, keys):
    asked = [
        {"name": one.name, "base_url": one.url("/v1"), "api_key": keys["app"], "chat": "tools",
         "embeddings": "embeddings"}
        for one in gateways
    ]  # fmt: skip
    for answers in ask_clients(lab, gateways[0].ca_file, asked).values():
        assert_served(answers)
