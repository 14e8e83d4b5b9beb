# SPDX-License-Identifier: GPL-3.0-or-later
"""The chain gateway, LiteLLM, Ollama as its users, its money and its failures see it."""

from __future__ import annotations


def test_it_answers(gateway, keys):
    assert gateway.ask("/v1/models", key=keys["app"]).status == 200
