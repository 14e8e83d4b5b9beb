# SPDX-License-Identifier: GPL-3.0-or-later
"""A second, plain writer of the log's format: what reads is not tested with what writes only."""

from __future__ import annotations

import hashlib
import hmac
import json
import typing as t
from datetime import UTC, datetime, timedelta
from pathlib import Path

FIRST_KEY = bytes(range(32))


def key_id_of(first_key: bytes) -> str:
    """The first 16 hex digits of a digest."""
    return hashlib.sha256(b"llm-audit-key-id-v1" + first_key).hexdigest()[:16]


KEY_ID = key_id_of(FIRST_KEY)
START = datetime(2026, 11, 23, 20, 31, 20, 123456, tzinfo=UTC)


class ReferenceLog:
    """Makes the lines of a log; ``write`` puts them into files as rotations would."""

    def __init__(
        self, *, sealed: bool = True, first_key: bytes = FIRST_KEY, key_id: str | None = None
    ) -> None:
        self.sequence = 0
        self.hash = bytes(32)
        self.epoch = 0
        self.key = first_key
        self.key_id = key_id or key_id_of(first_key)
        self.sealed = sealed
        self.now = START
        self.files: list[list[bytes]] = []
        self.open()

    def append(self, fields: dict[str, t.Any]) -> bytes:
        """One record; a second passes."""
        self.sequence += 1
        stamp = self.now.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        self.now += timedelta(seconds=1)
        values = {"@timestamp": stamp, "event.sequence": self.sequence, **fields}
        body = json.dumps(values, separators=(",", ":")).encode()[:-1]
        self.hash = hashlib.sha256(self.hash + body).digest()
        line = body + b',"event.hash":"' + self.hash.hex().encode() + b'"}\n'
        self.files[-1].append(line)
        return line

    def open(self) -> None:
        """A new file."""
        fields: dict[str, t.Any] = {"event.action": "open", "llm.audit.version": 1}
        if self.sequence:
            fields["llm.audit.previous.sequence"] = self.sequence
            fields["llm.audit.previous.hash"] = self.hash.hex()
        if self.sealed:
            fields |= {"llm.audit.key.id": self.key_id, "llm.audit.key.epoch": self.epoch}
        self.files.append([])
        self.append(fields)

    def seal(self, **changes: t.Any) -> None:
        """A seal, and the next key."""
        sequence = self.sequence + 1
        message = b"llm-audit-seal-v1" + self.epoch.to_bytes(8, "big")
        message += sequence.to_bytes(8, "big") + self.hash
        fields = {
            "event.action": "seal",
            "llm.audit.key.id": self.key_id,
            "llm.audit.seal.epoch": self.epoch,
            "llm.audit.seal.count": sequence,
            "llm.audit.seal.head": self.hash.hex(),
            "llm.audit.seal.mac": hmac.new(self.key, message, "sha256").hexdigest(),
        }
        self.append(fields | changes)
        self.key = hmac.new(self.key, b"llm-audit-seal-key-v1", "sha256").digest()
        self.epoch += 1

    def request(self, request_id: str, **changes: t.Any) -> None:
        """A request's record."""
        fields = {
            "event.action": "request",
            "event.outcome": "unknown",
            "http.request.id": request_id,
            "client.ip": "10.0.1.5",
            "user.id": "app1",
            "user.hash": "ab" * 32,
            "http.request.method": "POST",
            "url.path": "/api/chat",
            "http.request.body.bytes": 120,
            "gen_ai.provider.name": "ollama",
            "gen_ai.operation.name": "chat",
            "gen_ai.request.model": "tiny:latest",
            "llm.prompt.hash": "cd" * 32,
            "llm.prompt.hash_algorithm": "hmac-sha256",
            "llm.prompt.form": "text",
            "llm.prompt.length": 11,
        }
        self.append(_named(fields, changes))

    def response(self, request_id: str, **changes: t.Any) -> None:
        """A response's record: 153 ms."""
        fields = {
            "event.action": "response",
            "event.outcome": "success",
            "http.request.id": request_id,
            "http.response.status_code": 200,
            "event.duration": 153_000_000,
            "http.response.body.bytes": 1000,
            "user.id": "app1",
            "gen_ai.request.model": "tiny:latest",
        }
        self.append(_named(fields, changes))

    def refusal(self, **changes: t.Any) -> None:
        """A refusal's record."""
        fields = {
            "event.action": "refusal",
            "event.outcome": "failure",
            "event.reason": "model",
            "http.response.status_code": 403,
            "client.ip": "10.0.1.9",
            "user.id": "app2",
        }
        self.append(_named(fields, changes))

    def write(self, folder: Path) -> Path:
        """Write all files, the last one as the active one."""
        for lines in self.files:
            first = json.loads(lines[0])["event.sequence"]
            active = lines is self.files[-1]
            name = "audit.jsonl" if active else f"audit-{first:020d}.jsonl"
            (folder / name).write_bytes(b"".join(lines))
        return folder

    def head(self) -> dict[str, t.Any]:
        """An anchor."""
        return {"sequence": self.sequence, "hash": self.hash.hex()}


def _named(fields: dict[str, t.Any], changes: dict[str, t.Any]) -> dict[str, t.Any]:
    """Put in changes, which have short names here; None leaves a field out."""
    aliases = {
        "key": "user.id",
        "model": "gen_ai.request.model",
        "client": "client.ip",
        "status": "http.response.status_code",
        "duration": "event.duration",
        "path": "url.path",
        "reason": "event.reason",
        "outcome": "event.outcome",
        "id": "http.request.id",
    }
    merged = fields | {aliases[name]: value for name, value in changes.items()}
    return {name: value for name, value in merged.items() if value is not None}


def example() -> ReferenceLog:
    """Three files: each with requests, a refusal and two seals, some records behind the last."""
    log = ReferenceLog()
    for file in range(3):
        if file:
            log.open()
        for number in range(4):
            log.request(f"{file:016x}{number:016x}")
            log.response(f"{file:016x}{number:016x}")
            if number % 2:
                log.seal()
        log.refusal()
    return log
