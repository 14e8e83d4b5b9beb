# SPDX-License-Identifier: GPL-3.0-or-later
"""Requests through the chain, and LiteLLM's own side of them."""

from __future__ import annotations

import base64
import json
import shlex
from dataclasses import dataclass
from typing import Any

from tests.lab.batch import Question, post

CREDENTIALS = "/etc/litellm/credentials"
RECORDED = "/var/lib/langfuse-recorder/traces"


def chat(text: str = "Hello", *, model: str = "house", **more: Any) -> Question:
    """A chat of a few tokens."""
    message = {"role": "user", "content": text}
    more = {"max_tokens": 8, **more}
    return post("/v1/chat/completions", model=model, messages=[message], **more)


@dataclass(frozen=True)
class Inside:
    """LiteLLM as root on its host sees it."""

    host: Any

    def secret(self, name: str) -> str:
        return self.host.file(f"{CREDENTIALS}/{name}").content_string.strip()

    def sql(self, statement: str, database: str = "litellm") -> list[list[str]]:
        """The rows of a statement, as text."""
        words = "runuser --user postgres -- psql --no-psqlrc --tuples-only --no-align --csv"
        told = f"cd / && {words} --command={shlex.quote(statement)} {database}"
        return [line.split(",") for line in self.host.check_output(told).splitlines()]

    def call(self, path: str, port: int = 4000, key: str | None = None, **body: Any) -> Any:
        """A request to LiteLLM itself with its master key: (status, answer)."""
        given = self.secret("master-key") if key is None else key
        header = f'printf "Authorization: Bearer %s" {shlex.quote(given)}' if given else "true"
        words = ["curl", "--silent", "--max-time", "30", "--write-out", "\\n%{http_code}"]
        if body:
            words += ["--header", "Content-Type: application/json", "--data", json.dumps(body)]
        # Not an argument, which would show in the list of processes
        told = f"{header} | {shlex.join(words)} --header @- http://127.0.0.1:{port}{path}"
        text, _unused, status = self.host.check_output(told).rpartition("\n")
        return int(status), json.loads(text) if text.startswith(("{", "[")) else text

    def _recorded(self) -> list[dict[str, str]]:
        lines = self.host.run(f"cat {RECORDED}").stdout.splitlines()
        return [json.loads(line) for line in lines]

    def traces(self) -> list[bytes]:
        """What the recorder in place of Langfuse was sent."""
        return [base64.b64decode(one["body"]) for one in self._recorded()]

    def langfuse_credentials(self) -> set[str]:
        """What it was shown."""
        return {one["authorization"] for one in self._recorded()}
