# SPDX-License-Identifier: GPL-3.0-or-later
"""What is compared: each row's programs, running."""

from __future__ import annotations

import http.client
import json
import ssl
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from tests.bench.gateway import fronts, litellm_proxy, load
from tests.bench.gateway.processes import Program
from tests.bench.gateway.validator import Validator, default_settings
from tests.lab.steps import LabError, step

BARE = "bare proxy_pass"
MANY_KEYS = 100_000
# name in the table -> keys in the registry, whether every record waits for the disk
_FULL: dict[str, tuple[int, bool]] = {
    "full, 10 keys": (10, False),
    "full, 100,000 keys": (MANY_KEYS, False),
    "full, fsync": (10, True),
    "full, 100,000 keys, fsync": (MANY_KEYS, True),
}


@dataclass(frozen=True)
class Row:
    """One way to the LLM server."""

    name: str
    # In names of files
    word: str
    url: str
    key: str
    # Where a client that checks finds the certificate; None: plain HTTP
    trust: Path | None
    nginx: tuple[Program, ...] = ()
    python: tuple[Program, ...] = ()
    # The service whose audit log grows with every request
    validator: Validator | None = None
    # Its turns are no shorter, however quick the others' are
    least_seconds: float = 0

    @property
    def has_own_python(self) -> bool:
        """Whether its Python is no other row's as well."""
        return self.validator is not None or not self.nginx

    def records(self) -> int:
        """How many audit records there are so far; 0 when nothing is recorded."""
        return self.validator.records() if self.validator is not None else 0

    def memory(self) -> dict[str, int]:
        """Resident bytes of its Python."""
        both = [program.memory() for program in self.python]
        return {
            "now": sum(now for now, _unused in both),
            "peak": sum(peak for _unused, peak in both),
        }

    def said(self) -> str:
        """The ends of its programs' logs."""
        logs = [program.log for program in (*self.nginx, *self.python)]
        return "\n".join(f"{log}:\n{log.read_text(errors='replace')[-1500:]}" for log in logs)

    def connect(self) -> http.client.HTTPConnection:
        """A connection as a client makes one."""
        place = urlsplit(self.url)
        assert place.port is not None
        if self.trust is None:
            return http.client.HTTPConnection("127.0.0.1", place.port, timeout=60)
        context = ssl.create_default_context(cafile=str(self.trust))
        return http.client.HTTPSConnection(fronts.NAME, place.port, timeout=60, context=context)

    def ask(self, connection: http.client.HTTPConnection) -> tuple[int, bytes]:
        """Ask once; return status and body."""
        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "application/json"}
        connection.request("POST", load.PATH, load.BODY, headers)
        response = connection.getresponse()
        return response.status, response.read()

    def check(self) -> None:
        """Raise LabError unless it answers with what the LLM server says."""
        connection = self.connect()
        try:
            status, body = self.ask(connection)
        finally:
            connection.close()
        wanted = fronts.ANSWER["choices"][0]["message"]["content"]  # type: ignore[index]
        got = json.loads(body)
        if status != 200 or got["choices"][0]["message"]["content"] != wanted:
            raise LabError(f"{self.name} answers {status}: {got}\n{self.said()}")


@dataclass(frozen=True)
class Built:
    """All rows, and what could not be built, in a sentence each."""

    rows: list[Row]
    missing: list[str]

    @property
    def many_keys(self) -> Row:
        """The row whose registry is large."""
        return next(row for row in self.rows if row.validator and row.validator.keys >= MANY_KEYS)


class _Builder:
    """Starts everything below ``folder``, to be ended by ``stack``."""

    def __init__(self, stack: ExitStack, folder: Path, sockets: Path) -> None:
        self._stack = stack
        self._folder = folder
        self._sockets = sockets
        self._trust = folder / "server.crt"
        fronts.make_certificate(folder)
        llm_server, self._backend = fronts.start_llm_server(folder / "llm-server")
        self._keep(llm_server)
        self._settings = default_settings(folder, self._backend)

    def full(self, name: str, keys: int, *, fsync: bool) -> Row:
        """The gateway, with a validator of its own."""
        word = f"full-{keys}{'-fsync' if fsync else ''}"
        settings = {**self._settings, "audit_fsync": fsync}
        validator = Validator(self._folder / word, self._sockets / word, settings, keys=keys)
        self._keep(validator.program)
        place = self._folder / f"{word}-nginx"
        port = self._write_gateway(place, validator)
        nginx = self._keep(fronts.start(place, port))
        return self._row(name, word, port, validator, nginx, audited=True)

    def plain(self, validator: Validator) -> list[Row]:
        """The bare proxy, and the gateway without its policy hop, in one nginx."""
        place = self._folder / "plain-nginx"
        port = self._write_gateway(place, validator)
        fronts.go_straight_on(place)
        bare = fronts.add_bare(place, self._backend)
        nginx = self._keep(fronts.start(place, port, bare))
        return [
            Row(BARE, "bare", _url(bare), validator.key, self._trust, (nginx,)),
            self._row("nginx + /validate", "validate", port, validator, nginx, audited=False),
        ]

    def litellm(self) -> Row:
        """LiteLLM's proxy. Raises LabError when it cannot be had."""
        program, port = litellm_proxy.start(self._folder, self._backend)
        self._keep(program)
        url, key = f"http://127.0.0.1:{port}", litellm_proxy.MASTER_KEY
        return Row(
            "LiteLLM proxy", "litellm", url, key, None, (), (program,),
            least_seconds=litellm_proxy.LEAST_SECONDS,
        )  # fmt: skip

    def _row(
        self,
        name: str,
        word: str,
        port: int,
        validator: Validator,
        nginx: Program,
        *,
        audited: bool,
    ) -> Row:
        return Row(
            name, word, _url(port), validator.key, self._trust,
            (nginx,), (validator.program,), validator if audited else None,
        )  # fmt: skip

    def _write_gateway(self, place: Path, validator: Validator) -> int:
        return fronts.write_gateway(
            place, self._folder, self._backend, validator.hop, validator.log
        )

    def _keep(self, program: Program) -> Program:
        self._stack.callback(program.close)
        return program


def _url(port: int) -> str:
    return f"https://{fronts.NAME}:{port}"


def build(stack: ExitStack, folder: Path, sockets: Path) -> Built:
    """Start everything, to be ended by ``stack``. Raises LabError when something does not work."""
    missing = []
    with step("Starting the gateways"):
        builder = _Builder(stack, folder, sockets)
        full = [builder.full(name, keys, fsync=fsync) for name, (keys, fsync) in _FULL.items()]
        assert full[0].validator is not None
        rows = [*builder.plain(full[0].validator), *full]
    try:
        rows.append(builder.litellm())
    except LabError as error:
        missing.append(f"LiteLLM is not in the table: {str(error).splitlines()[0]}")
    for row in rows:
        row.check()
    return Built(rows, missing)
