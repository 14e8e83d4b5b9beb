# SPDX-License-Identifier: GPL-3.0-or-later
"""What the official clients (openai, litellm, langchain-openai) see through a gateway."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.lab.hosts import Lab
from tests.lab.scenarios import CLIENTS

_PROGRAM = Path(__file__).with_name("ask_clients.py")
# No client asks anybody but the gateway for anything.
_ENVIRONMENT = (
    f"PYTHONPATH={CLIENTS}", "PYTHONPYCACHEPREFIX=/var/tmp/llm-clients", "LANGSMITH_TRACING=false",
    "LITELLM_LOCAL_MODEL_COST_MAP=True", "OPENAI_API_KEY=unset",
)  # fmt: skip


def ask_clients(lab: Lab, ca_file: str, gateways: Iterable[dict[str, str]]) -> dict[str, Any]:
    """Ask from the application server: {gateway: {client: {what: answer}}}.

    Each of ``gateways`` has `name`, `base_url`, `api_key`, `chat` and `embeddings`.
    """
    words = ["env", *_ENVIRONMENT, f"SSL_CERT_FILE={ca_file}", "python3", "-c"]
    asked = json.dumps(list(gateways))
    done = lab.run("app-server", *words, _PROGRAM.read_text(), stdin=asked, check=True)
    answers: dict[str, Any] = json.loads(done.stdout)
    return answers


def assert_served(answers: dict[str, Any]) -> None:
    """Hold what a gateway's clients saw against what they want.

    A random model calls no tool, but the tools reach it: the prompt is longer by them.
    """
    for client, seen in answers.items():
        assert isinstance(seen["chat"], str) and "Error" not in seen["chat"], (client, seen)
        for what, least in (("stream", 3), ("plain_tokens", 1), ("embeddings", 8)):
            if what in seen:
                assert isinstance(seen[what], int) and seen[what] >= least, (client, what, seen)
        assert isinstance(seen["tools_tokens"], int), (client, seen)
        assert seen["tools_tokens"] > seen["plain_tokens"] + 50, (client, seen)
