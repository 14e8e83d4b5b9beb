# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway's nginx, with the key validator's own judgement, in front of a pretended Ollama."""

from __future__ import annotations

import json
import time
import typing as t
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.unit.gateway.stage import GO_ON, NAME, Heard, Say, Stage
from tests.unit.key_validator.conftest import FILES, registry_text
from tests.unit.key_validator.conftest import record as key_record

# Importing the line above has put FILES on the path.
assert (FILES / "llm_key_validator").is_dir()

from llm_key_validator.answers import refusal  # noqa: E402
from llm_key_validator.decision import RequestHeaders, decide, messages  # noqa: E402
from llm_key_validator.keys import generate_key  # noqa: E402
from llm_key_validator.registry import load_registry  # noqa: E402

# As gateway_limit_per_key and gateway_limit_per_address are by default
PER_KEY = {"rate": "10r/m", "burst": 5}
PER_ADDRESS = {"rate": "30r/m", "burst": 10}
LIMITS = {"gateway_limit_per_key": PER_KEY, "gateway_limit_per_address": PER_ADDRESS}

_SLOTS = {
    "authorization": "authorization",
    "x-api-key": "x_api_key",
    "x-gateway-request": "gateway_request",
    "x-limit-key": "limit_key",
    "x-client-certificate": "client_certificate",
}


def as_ollama(heard: Heard) -> Say:
    """Answer as an Ollama without models does."""
    if (heard.method, heard.target) in {("GET", "/"), ("HEAD", "/")}:
        return Say(200, {"Content-Type": "text/plain; charset=utf-8"}, b"Ollama is running")
    if heard.target == "/api/version":
        return Say(200, {"Content-Type": "application/json"}, b'{"version":"0.35.0"}')
    if heard.method == "POST" and heard.body:
        body = b'{"error":"model \'llmsec-probe/none\' not found"}'
        return Say(404, {"Content-Type": "application/json; charset=utf-8"}, body)
    return Say(404, {"Content-Type": "text/plain"}, b"404 page not found")


class Guarded(Stage):
    """The stage, with one good key and one that was revoked."""

    def __init__(self, folder: Path, **variables: t.Any) -> None:
        self.auth = str(variables.get("gateway_auth", "api_key"))
        self.good, self.revoked = generate_key(), generate_key()
        # A validator that says yes to everybody
        self.careless = False
        records = [key_record(self.good), key_record(self.revoked, "old", revoked=True)]
        self._registry = load_registry(registry_text(*records))
        super().__init__(folder, **{**LIMITS, **variables})

    def reset(self) -> None:
        super().reset()
        self.careless = False
        self.llm_says = as_ollama

    def _as_hop(self, heard: Heard) -> Say:
        values = {
            slot: tuple(value.encode("latin-1") for value in heard.headers.get(name, []))
            for name, slot in _SLOTS.items()
        }
        reason, record = decide(RequestHeaders(**values), self._registry, time.time(), self.auth)
        if self.careless or (reason.word == "ok" and record is not None):
            return Say(200 if heard.target == "/authorize" else 204, GO_ON)
        request_id = values["gateway_request"][0].split()[0].decode()
        answer = refusal(reason.status, messages(self.auth)[reason], request_id)
        named = {"X-Auth-Reason": reason.word, "Content-Type": "application/json"}
        return Say(reason.status, named, answer.body)

    @contextmanager
    def changed(
        self, name: str, change: Callable[[str], str], *more: tuple[str, Callable[[str], str]]
    ) -> Iterator[None]:
        """Serve with files of nginx's changed by hand, below its folder."""
        kept: dict[Path, str] = {}
        try:
            for file, changing in ((name, change), *more):
                path = self.folder / file
                text = kept[path] = path.read_text()
                path.write_text(changing(text))
                assert path.read_text() != text, "the change has missed its place"
            self.reload()
            yield
        finally:
            for path, text in kept.items():
                path.write_text(text)
            self.reload()


def by_id(findings: list[dict[str, t.Any]]) -> dict[str, dict[str, t.Any]]:
    """Return the findings by their ids, each of which there is once, in one piece of JSON."""
    found = {one["id"]: one for one in findings}
    assert len(found) == len(findings)
    assert json.loads(json.dumps(findings)) == findings
    return found


def red(findings: list[dict[str, t.Any]]) -> dict[str, str]:
    """Return {id: result} of what is neither a pass nor a skip."""
    return {one["id"]: one["result"] for one in findings if one["result"] not in ("pass", "skip")}


__all__ = ("LIMITS", "NAME", "PER_ADDRESS", "PER_KEY", "Guarded", "as_ollama", "by_id", "red")
