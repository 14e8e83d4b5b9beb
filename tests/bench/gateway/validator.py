# SPDX-License-Identifier: GPL-3.0-or-later
"""The key validator as systemd runs it: sockets handed over, credentials, a registry, its log."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import sys
from pathlib import Path

from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import (
    generate_key,
    key_digest,
)

from tests.bench.gateway.machine import SYSTEM_PYTHON
from tests.bench.gateway.processes import Program
from tests.lab.steps import ROOT, put, run

ROLE = ROOT / "roles" / "key_validator"
FILES = ROLE / "files"
_QUEUE = Path("/proc/sys/net/unix/max_dgram_qlen")
_QUEUE_LENGTH = 512
_TAIL_BYTES = 65536
# What systemd does: sockets at 3 and following, then the service in this process's place.
_LAUNCHER = """
import os, sys
held = [os.dup2(os.dup(int(one)), 100 + index) for index, one in enumerate(sys.argv[1:4])]
for index, one in enumerate(held):
    os.dup2(one, 3 + index)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(held)))
os.execv(sys.argv[4], sys.argv[4:])
"""
_MAKE_SEAL_KEY = """
import secrets, sys
sys.path.insert(0, sys.argv[1])
from llm_key_validator.audit.seals import first_key
sys.stdout.write(first_key(secrets.token_hex(32)).render().decode())
"""


def default_settings(folder: Path, backend: int) -> dict[str, object]:
    """config.json as the role writes it when no variable is set, but for the LLM server's port."""
    out = folder / "config.json"
    words = json.dumps({"content": "{{ __key_validator_config | to_json }}", "dest": str(out)})
    variables = {
        "key_validator_backend": f"127.0.0.1:{backend}",
        "ansible_python_interpreter": sys.executable,
    }
    run(
        ["ansible", "localhost", "-i", "localhost,", "-c", "local",
         "-e", f"@{ROLE}/defaults/main.yml", "-e", f"@{ROLE}/vars/main.yml",
         "-e", json.dumps(variables), "-m", "ansible.builtin.copy", "-a", words]
    )  # fmt: skip
    return json.loads(out.read_text())


class Validator:
    """One running service. ``key`` is the only one of its keys that anybody knows."""

    def __init__(
        self, folder: Path, sockets: Path, settings: dict[str, object], *, keys: int
    ) -> None:
        folder.mkdir()
        self.key = generate_key()
        self.hop, self.log = sockets / "hop", sockets / "log"
        self._folder = folder
        self._audit = folder / "audit"
        self._records = [_record(number) for number in range(keys - 1)]
        self._records.append(_record(keys, key_digest(self.key)))
        self.write_keys()
        self._make_audit_folders()
        # In the clear here, as the unit would leave it
        put(folder / "credentials" / "prompt-pepper", secrets.token_hex(32))
        overridden = {
            "registry_path": str(folder / "keys.json"),
            "trusted_users": [],
            "audit_directory": str(self._audit),
            "audit_state_directory": str(folder / "state"),
        }
        put(folder / "config.json", json.dumps({**settings, **overridden}))
        self.program = self._start(sockets)

    @property
    def keys(self) -> int:
        """How many keys the registry's file has."""
        return len(self._records)

    def prepare_key(self) -> None:
        """Write a registry with one more key beside the one in use."""
        self._records.insert(0, _record(self.keys + 1))
        put(self._folder / "keys.json.new", self._text())

    def publish_keys(self) -> None:
        """Put the prepared registry in its place, where the service will find it changed."""
        (self._folder / "keys.json.new").rename(self._folder / "keys.json")

    def write_keys(self) -> None:
        """Write the registry's file as the role does."""
        put(self._folder / "keys.json", self._text())

    def _text(self) -> str:
        return json.dumps({"version": 1, "keys": self._records}, indent=1) + "\n"

    def loaded_keys(self) -> int:
        """How many keys the service says that it has."""
        with socket.socket(socket.AF_UNIX) as asking:
            asking.settimeout(5)
            asking.connect(str(self.hop))
            asking.sendall(b"GET /healthz HTTP/1.1\r\n\r\n")
            answer = b"".join(iter(lambda: asking.recv(4096), b""))
        return int(json.loads(answer.partition(b"\r\n\r\n")[2])["keys"])

    def records(self) -> int:
        """How many records there are in the audit log: the last one's number."""
        with (self._audit / "audit.jsonl").open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - _TAIL_BYTES))
            last = file.read().splitlines()[-1]
        return int(json.loads(last)["event.sequence"])

    def _make_audit_folders(self) -> None:
        self._audit.mkdir(mode=0o750)
        state = self._folder / "state"
        state.mkdir(mode=0o700)
        made = run([SYSTEM_PYTHON, "-I", "-B", "-c", _MAKE_SEAL_KEY, FILES])
        put(state / "seal.json", made.stdout)

    def _start(self, sockets: Path) -> Program:
        sockets.mkdir()
        with contextlib.ExitStack() as stack:
            streams = [stack.enter_context(socket.socket(socket.AF_UNIX)), socket.socket()]
            stack.enter_context(streams[1])
            streams[0].bind(str(self.hop))
            streams[1].bind(("127.0.0.1", 0))
            for stream in streams:
                stream.listen(4096)
            notify = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            notify.bind(str(sockets / "notify"))
            notify.setblocking(False)
            reports = stack.enter_context(_datagram_socket(self.log))
            given = [one.fileno() for one in (*streams, reports)]
            program = Program(
                [sys.executable, "-c", _LAUNCHER, *map(str, given), SYSTEM_PYTHON, "-I", "-B",
                 FILES, "--config", self._folder / "config.json"],
                self._folder / "journal",
                env={
                    "NOTIFY_SOCKET": str(sockets / "notify"),
                    "RUNTIME_DIRECTORY": str(self._folder / "credentials"),
                },
                pass_fds=given,
            )  # fmt: skip
            program.wait_for(lambda: _is_ready(notify))
        return program


def _record(number: int, digest: str | None = None) -> dict[str, object]:
    """A key's record as playbooks/issue_key.yml writes them, of a key that nobody has."""
    return {
        "id": f"application-{number:06d}",
        "sha256": digest or secrets.token_hex(32),
        "owner": f"Team {number % 500}",
        "expires": "2099-12-31T00:00:00Z",
        "endpoint_classes": ["inference", "read"],
        "models": ["tiny", "llama3*"],
    }


def _datagram_socket(path: Path) -> socket.socket:
    """The socket for nginx's reports, with a queue as the role's socket unit asks for it."""
    before = int(_QUEUE.read_text())
    # A socket keeps the limit of the moment it was made in (unix(7)).
    _QUEUE.write_text(str(max(before, _QUEUE_LENGTH)))
    try:
        made = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    finally:
        _QUEUE.write_text(str(before))
    made.bind(str(path))
    return made


def _is_ready(notify: socket.socket) -> bool:
    try:
        return notify.recv(100) == b"READY=1"
    except BlockingIOError:
        return False
