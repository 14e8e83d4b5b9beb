# SPDX-License-Identifier: GPL-3.0-or-later
"""HTTP requests from the lab's hosts: curl runs where the attacker or the application is."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from tests.lab.hosts import Lab

# curl's exit codes for "nobody there" and "no TLS with you"
_NO_ANSWER = {
    6: "no such name",
    7: "refused",
    28: "no answer",
    35: "TLS refused",
    52: "no answer",
    56: "cut off",
    60: "certificate refused",
}


# A random model may end its answer at any token; with this seed it talks for more than 100.
SEED = 3


@dataclass(frozen=True)
class Answer:
    """An HTTP answer; without one, `status` is 0 and `why` says why."""

    status: int
    why: str
    body: str
    headers: dict[str, str] = field(default_factory=dict)  # names in lower case

    def __str__(self) -> str:
        return str(self.status) if self.status else self.why

    def json(self) -> Any:
        return json.loads(self.body)


def _parse(text: str, why: str) -> Answer:
    """Split what `curl --include` printed; interim answers (100 Continue) are passed over."""
    head, _unused, body = text.replace("\r\n", "\n").partition("\n\n")
    while head.startswith("HTTP/1.1 1"):
        head, _unused, body = body.partition("\n\n")
    if not head.startswith("HTTP/"):
        return Answer(0, why, text)
    first, *lines = head.split("\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _unused, value in pairs}
    return Answer(int(first.split()[1]), why, body, headers)


def request(
    lab: Lab,
    host: str,
    *words: str,
    key: str = "",
    ca_file: str = "",
    timeout: int = 20,
) -> Answer:
    """One request with curl's own words; the key goes in on standard input, not as an argument."""
    config = f'header = "Authorization: Bearer {key}"\n' if key else ""
    trust = ["--cacert", ca_file] if ca_file else []
    done = lab.run(
        host, "curl", "--config", "-", "--silent", "--include", "--http1.1",
        "--max-time", str(timeout), "--connect-timeout", "3", *trust, *words, stdin=config,
    )  # fmt: skip
    return _parse(done.stdout, _NO_ANSWER.get(done.returncode, f"curl: {done.returncode}"))


def generate(model: str, *, tokens: int = 16, **more: Any) -> list[str]:
    """curl's words for a body of Ollama's /api/generate; the tiny model says the same each time."""
    options = {"num_predict": tokens, "seed": SEED}
    body = {"model": model, "prompt": "Hello", "options": options, **more}
    return ["--header", "Content-Type: application/json", "--data", json.dumps(body)]
