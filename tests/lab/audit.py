# SPDX-License-Identifier: GPL-3.0-or-later
"""A gateway's audit log: on the host, and a copy of it where the first key is."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.lab import podman, scenarios
from tests.lab.curl import Answer
from tests.lab.hosts import Lab
from tests.lab.steps import ROOT, wait_until

FOLDER = "/var/log/llm-gateway"
STATE_FILE = "/var/lib/llm-key-validator/audit/seal.json"
PROGRAM = ROOT / "roles/key_validator/files/llm-audit"
SEALED_WITHIN = 20  # seconds; the scenario sets key_validator_audit_seal_seconds to 5


@dataclass(frozen=True)
class Audit:
    """One gateway's audit log."""

    lab: Lab
    name: str

    def run(self, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """llm-audit on the host."""
        return self.lab.run(self.name, "llm-audit", *words, stdin=stdin)

    def shell(self, script: str) -> str:
        """What a script says that root runs on the host."""
        return self.lab.run(self.name, "sh", "-euc", script, check=True).stdout

    def lines(self, *words: str) -> list[dict[str, Any]]:
        """What `llm-audit query` finds, one dict a record."""
        done = self.run("query", "--json", *words)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    def of(self, answer: Answer, count: int = 1) -> list[dict[str, Any]]:
        """The records of one request, when there are as many: nginx's report takes a moment."""

        def look() -> list[dict[str, Any]]:
            records = self.lines("--request", answer.headers["x-request-id"])
            return records if len(records) >= count else []

        return wait_until(look, seconds=5)

    def since(self, sequence: int) -> list[dict[str, Any]]:
        """The records behind this one, of the file in use."""
        lines = self.shell(f"cat {FOLDER}/audit.jsonl").splitlines()
        return [one for one in map(json.loads, lines) if one["event.sequence"] > sequence]

    @property
    def sequence(self) -> int:
        """The last record's."""
        return json.loads(self.run("head", "--json").stdout)["sequence"]

    def rotate(self) -> None:
        """Let the service go on in a new file."""
        count = len(self.rotated())
        self.shell("systemctl kill --kill-whom=main --signal=USR1 llm-key-validator.service")
        assert wait_until(lambda: len(self.rotated()) > count, seconds=5)

    def rotated(self) -> list[str]:
        """The names of the files that were put aside, oldest first."""
        return [name for name in self.shell(f"ls {FOLDER}").split() if name.startswith("audit-")]

    def verify(self, *words: str) -> dict[str, Any]:
        """The verdict on the host, which has no first key."""
        return json.loads(self.run("verify", "--json", *words).stdout)

    @property
    def state(self) -> dict[str, Any]:
        """What the service remembers of its seals."""
        return json.loads(self.shell(f"cat {STATE_FILE}"))

    def wait_for_seal(self) -> None:
        """Wait until all that stands in the log is sealed."""

        def is_sealed() -> bool:
            last = json.loads(self.shell(f"tail -n 1 {FOLDER}/audit.jsonl"))
            return last["event.action"] == "seal"

        assert wait_until(is_sealed, SEALED_WITHIN)

    @property
    def key_files(self) -> list[Path]:
        """The first keys on the control node."""
        return sorted((scenarios.AUDIT / self.name).glob("*.key"))

    @property
    def anchor(self) -> Path:
        """The head that the last run of harden.yml noted there."""
        return scenarios.AUDIT / self.name / "head.json"

    def copy(self, to: Path) -> Path:
        """Fetch the whole log, as an auditor would."""
        podman.podman("cp", f"{self.lab.container(self.name)}:{FOLDER}", to)
        return to / Path(FOLDER).name

    def judge(self, folder: Path, *words: str | Path, with_key: bool = True) -> dict[str, Any]:
        """The verdict of llm-audit on the control node."""
        keys = [word for file in self.key_files if with_key for word in ("--first-key", str(file))]
        command = [PROGRAM, "verify", "--json", *keys, *words, folder]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        result = json.loads(done.stdout)
        assert done.returncode == {"whole": 0, "broken": 1}.get(result["verdict"], 2)
        return result


def requests(lines: list[bytes]) -> list[int]:
    """The places of request records that a seal follows: what came later nobody has sealed yet."""
    sealed = max(place for place, line in enumerate(lines) if b'"event.action":"seal"' in line)
    return [
        place for place, line in enumerate(lines[:sealed]) if b'"event.action":"request"' in line
    ]


def chained(before: bytes, body: bytes) -> tuple[bytes, bytes]:
    """Return a record with its hash at the end, and that hash. `body` lacks its closing brace."""
    digest = hashlib.sha256(before + body).digest()
    return b'%b,"event.hash":"%b"}' % (body, digest.hex().encode()), digest


def chain_anew(lines: list[bytes]) -> None:
    """What somebody does who knows how the chain is made: the seals cannot be."""
    place = requests(lines)[-1]
    changed = lines[place].replace(b'"user.id":"app"', b'"user.id":"bpp"')
    assert changed != lines[place]
    lines[place] = changed
    before = bytes.fromhex(json.loads(lines[place - 1])["event.hash"])
    for number in range(place, len(lines)):
        body = lines[number].rpartition(b',"event.hash":"')[0]
        head = b'"llm.audit.seal.head":"%b"' % before.hex().encode()
        body = re.sub(rb'"llm\.audit\.seal\.head":"[0-9a-f]{64}"', head, body)
        lines[number], before = chained(before, body)
