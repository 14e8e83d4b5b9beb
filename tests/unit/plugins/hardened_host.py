# SPDX-License-Identifier: GPL-3.0-or-later
"""A hardened host below a folder: its files, the key validator's sockets, a gateway on TLS."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import socket
import ssl
import subprocess
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

from ansible_collections.llmsec.hardening.plugins.lookup.source_tree import read_sources
from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import (
    generate_key,
    key_digest,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.host_view import (
    FILE,
    HostView,
    OpenFile,
    Process,
)

from tests.lab.certificates import Authority
from tests.unit.key_validator.audit.reference_log import ReferenceLog

FILES = Path(__file__).parents[3] / "roles" / "key_validator" / "files"
CODE = "/usr/local/lib/llm-key-validator"
CONFIG = "/etc/llm-key-validator/config.json"
REGISTRY = "/etc/llm-key-validator/keys.json"
LOG = "/var/log/llm-gateway/audit.jsonl"
SOCKET = "/run/llm-key-validator.sock"
REPORTS = "/run/llm-key-validator-log.sock"
OWNERS = {
    "/etc/llm-key-validator/credentials": "root:root",
    "/etc/llm-key-validator": "root:llm-validator",
    "/var/log/llm-gateway": "llm-validator:adm",
    "/var/lib/llm-key-validator/audit": "llm-validator:llm-validator",
    "/run/llm-validator/prompt-pepper": "llm-validator:root",
    "/run/llm-validator": "llm-validator:llm-validator",
}


class Host(HostView):
    """The host's files below a root, with owners and processes that a test decides."""

    def __init__(self, root):
        super().__init__(str(root))
        self.owners = dict(OWNERS)
        self.running = []

    def owner_of(self, path, uid, gid):
        for place, owner in self.owners.items():
            if path == place or path.startswith(f"{place}/"):
                return tuple(owner.split(":"))
        return ("root", "root")

    def processes(self):
        return iter(self.running)

    def process(self, pid):
        return next(one for one in self.running if one.pid == pid)

    def open_files(self, pid):
        facts = self.facts(LOG)
        return [OpenFile(LOG, facts.identity, True)] if facts and facts.kind == FILE else []


class Hardened:
    """The files of such a host, and how to break them."""

    def __init__(self, root):
        self.root = Path(root)
        self.host = Host(root)
        self.key = generate_key()
        self.journal = ""
        self.main_pid = 4242
        self._install()
        self._configure()
        self.log = ReferenceLog()
        self.log.now = datetime.fromtimestamp(time.time() - 30, UTC)
        self.log.files[-1].clear()
        self.log.sequence, self.log.hash = 0, bytes(32)
        self.log.files.pop()
        self.log.open()
        for number in range(6):
            self.log.request(f"{number:032x}")
            self.log.response(f"{number:032x}")
            if number == 2:
                self.log.seal()
                self.log.open()
        self.log.seal()
        self.write_log()
        command = ("/usr/bin/python3", "-I", "-B", CODE, "--config", CONFIG)
        self.host.running = [
            Process(4242, "python3", "/usr/bin/python3.11", command, b"A=1\0", time.time() + 1)
        ]

    def put(self, path, content, mode=0o640):
        place = self.root / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        place.write_bytes(data)
        place.chmod(mode)
        return place

    def at(self, path):
        return self.root / path[1:]

    def _install(self):
        shutil.copytree(FILES, self.at(CODE), ignore=shutil.ignore_patterns("__pycache__"))
        self.at(f"{CODE}/llm-audit").unlink()
        self.put("/usr/local/bin/llm-audit", (FILES / "llm-audit").read_bytes(), 0o755)
        for place in self.at(CODE).rglob("*"):
            place.chmod(0o755 if place.is_dir() else 0o644)

    def _configure(self):
        self.put(CONFIG, json.dumps({"audit_enabled": True}))
        self.write_registry([self.record()])
        self.at("/etc/llm-key-validator").chmod(0o750)
        pepper = self.put("/etc/llm-key-validator/credentials/prompt-pepper", "ab" * 32, 0o600)
        pepper.parent.chmod(0o700)
        seal = self.put("/var/lib/llm-key-validator/audit/seal.json", "{}", 0o600)
        seal.parent.chmod(0o700)
        key = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"
        self.put("/etc/llm-gateway/pki/server.key", key, 0o600)
        # What the unit's ExecStartPre= makes: the group stays root's.
        copy = self.put("/run/llm-validator/prompt-pepper", "ab" * 32, 0o400)
        copy.parent.chmod(0o700)
        self.put("/etc/llm-gateway/pki/server.crt", "-----BEGIN CERTIFICATE-----\n", 0o644)

    def record(self, key_id="app1", key=None, **fields):
        digest = key_digest(key or self.key)
        return {"id": key_id, "sha256": digest, "owner": "Team", **fields}

    def write_registry(self, records):
        self.put(REGISTRY, json.dumps({"version": 1, "keys": records}, indent=1) + "\n")

    def write_log(self):
        folder = self.at(LOG).parent
        folder.mkdir(parents=True, exist_ok=True)
        self.log.write(folder)
        folder.chmod(0o2750)
        for one in folder.iterdir():
            one.chmod(0o640)

    @property
    def code(self):
        return {
            one["path"]: hashlib.sha256(one["content"].encode()).hexdigest()
            for one in read_sources(str(FILES))
        }

    def run(self, command, stdin):
        """What programs say; those that are Python are really run."""
        if command[0] == "systemctl":
            return 0, f"{self.main_pid}\n", ""
        if command[0] == "journalctl":
            return 0, self.journal, ""
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr

    # What answers

    def metrics(self):
        digest = hashlib.sha256(self.at(REGISTRY).read_bytes()).hexdigest()
        return (
            "llm_key_validator_audit_writable 1\nllm_key_validator_audit_sealed 1\n"
            f'llm_key_validator_registry_info{{sha256="{digest}"}} 1\n'
        )

    @contextlib.contextmanager
    def service(self, metrics=None):
        """The validator's sockets; the one for reports takes what comes."""
        self.at("/run").mkdir(exist_ok=True)
        with contextlib.ExitStack() as stack:
            reports = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM))
            reports.bind(str(self.at(REPORTS)))
            self.at(REPORTS).chmod(0o660)
            text = (self.metrics() if metrics is None else metrics).encode()
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)
            listening = stack.enter_context(socket.socket(socket.AF_UNIX))
            listening.bind(str(self.at(SOCKET)))
            listening.listen()
            stack.enter_context(_serving(listening, lambda _request: answer))
            stack.callback(self.at(REPORTS).unlink)
            stack.callback(self.at(SOCKET).unlink)
            yield

    @contextlib.contextmanager
    def gateway(self, react=None):
        """A gateway on TLS that refuses everything, records it, and gives its port."""
        issued = Authority("CA").issue("localhost")
        folder = self.root / "gateway"
        folder.mkdir(exist_ok=True)
        (folder / "server.pem").write_text(issued.pem())
        (folder / "server.key").write_text(issued.key_pem())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "server.pem", folder / "server.key")

        def answer(request):
            (react or self.refuse)(request)
            return b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nX-Request-Id: 1\r\n\r\n"

        with socket.create_server(("127.0.0.1", 0)) as listening:
            port = listening.getsockname()[1]
            with _serving(context.wrap_socket(listening, server_side=True), answer):
                yield port

    def refuse(self, request, client="127.64.0.9", **changes):
        """Record a refusal as nginx's report makes it: the path without its query."""
        path = request.split(b" ")[1].split(b"?")[0].decode()
        self.log.now = datetime.now(UTC)
        known = {"key": None, "path": path, "status": 404, "reason": "http_404", "client": client}
        self.log.refusal(**known | changes)
        self.write_log()


@contextlib.contextmanager
def _serving(listening, answer):
    """Answer each connection's request by `answer`, until the end."""
    ended = threading.Event()
    listening.settimeout(0.05)

    def serve():
        while not ended.is_set():
            with contextlib.suppress(OSError):
                connection, _peer = listening.accept()
                with connection:
                    connection.settimeout(5)
                    request = connection.recv(65536)
                    # Gone by the time the client reads on
                    connection.sendall(answer(request))

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        listening.close()
