# SPDX-License-Identifier: GPL-3.0-or-later
"""The real service as a process: sockets handed over, signals, crash and return."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
import typing as t
from pathlib import Path

import pytest
from llm_key_validator.config import ConfigError
from llm_key_validator.keys import generate_key

pytest.importorskip("uvloop")

from llm_key_validator.server import Notifier, PeerCheck, inherited_sockets, trusted_uids

from .conftest import FILES, gateway_request, record, registry_text

KEY = generate_key()
CONTEXT = {"X-Gateway-Request": gateway_request().decode()}
CHAT_ROUTE = {
    "methods": ["POST"],
    "path": "/api/chat",
    "class": "inference",
    "body": "ollama_chat",
}
# For what takes seconds on an idle machine
_PATIENCE = 60
# What systemd does: sockets at 3 and following, then the service in their place (sd_listen_fds)
_LAUNCHER = """
import os, sys
count = int(sys.argv[1])
held = [os.dup(int(one)) for one in sys.argv[2:2 + count]]
held = [os.dup2(one, 100 + index) for index, one in enumerate(held)]
for index, one in enumerate(held):
    os.dup2(one, 3 + index)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(count))
os.execv(sys.executable, [sys.executable, *sys.argv[2 + count:]])
"""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("validator", timeout=5)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(5)
        self.sock.connect(self._path)


class Host:
    """The part of systemd: holds the sockets, starts the service, reads its messages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.keys = folder / "keys.json"
        self.path = folder / "validator.sock"
        self.unix = socket.socket(socket.AF_UNIX)
        self.unix.bind(str(self.path))
        self.unix.listen(64)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.reports = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.reports.bind(str(folder / "reports.sock"))
        for name in ("log", "state", "credentials"):
            (folder / "audit" / name).mkdir(parents=True)
        (folder / "audit/credentials/prompt-pepper").write_text("ab" * 32 + "\n")
        self.notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notify.bind(str(folder / "notify"))
        self.notify.settimeout(10)
        self.process: subprocess.Popen[bytes] | None = None

    def configure(self, **settings: t.Any) -> None:
        settings = {
            "registry_path": str(self.keys),
            "registry_poll_seconds": 0.05,
            "trusted_users": [],
            "routes": [CHAT_ROUTE],
            "audit_directory": str(self.folder / "audit/log"),
            "audit_state_directory": str(self.folder / "audit/state"),
            **settings,
        }
        (self.folder / "config.json").write_text(json.dumps(settings))

    def start(self) -> None:
        held = [self.unix.fileno(), self.tcp.fileno(), self.reports.fileno()]
        sockets = [str(number) for number in held]
        command = [sys.executable, "-c", _LAUNCHER, "3", *sockets, "-I", "-B", str(FILES)]
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*command, "--config", str(self.folder / "config.json")],
                pass_fds=held,
                env={
                    "PATH": os.environ["PATH"],
                    "NOTIFY_SOCKET": str(self.folder / "notify"),
                    "RUNTIME_DIRECTORY": str(self.folder / "audit/credentials"),
                },
                stderr=log,
            )
        assert self.notify.recv(100) == b"READY=1"

    def ask(self, target: str = "/validate", **more: str) -> tuple[http.client.HTTPResponse, bytes]:
        with contextlib.closing(UnixConnection(self.path)) as connection:
            connection.request("GET", target, headers={**CONTEXT, **more})
            response = connection.getresponse()
            return response, response.read()

    def verdict(self, key: str = KEY) -> tuple[int, str | None]:
        response, _unused = self.ask(Authorization=f"Bearer {key}")
        return response.status, response.getheader("X-Auth-Reason")

    def authorize(self, body: str, **more: str) -> http.client.HTTPResponse:
        """What nginx asks the policy hop."""
        credential = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
        headers = {**CONTEXT, **credential, **more}
        with contextlib.closing(UnixConnection(self.path)) as connection:
            connection.request("POST", "/authorize", body, headers)
            response = connection.getresponse()
            response.read()
            return response

    def records(self) -> list[dict[str, t.Any]]:
        """The audit log."""
        text = (self.folder / "audit/log/audit.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]

    def health(self) -> tuple[int, dict[str, t.Any]]:
        response, body = self.ask("/healthz")
        return response.status, json.loads(body)

    def log(self) -> list[dict[str, t.Any]]:
        return [json.loads(line) for line in (self.folder / "log").read_text().splitlines()]

    def end(self, number: int = signal.SIGTERM) -> int:
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(10)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        for held in (self.unix, self.tcp, self.reports, self.notify):
            held.close()


@pytest.fixture
def host(tmp_path: Path) -> t.Iterator[Host]:
    with contextlib.closing(Host(tmp_path)) as made:
        made.configure()
        made.keys.write_text(registry_text(record(KEY)))
        yield made


def eventually(test: t.Callable[[], bool], seconds: float = 10) -> None:
    """Wait until it is true; the service looks at its file 20 times a second here."""
    end = time.monotonic() + seconds
    while not test():
        assert time.monotonic() < end, f"did not happen in {seconds} seconds"
        time.sleep(0.02)


def test_memory_with_many_keys(host: Host) -> None:
    """The goal is 150 MB with 100,000 keys, and while they are replaced by as many new ones."""
    many = [{"sha256": f"{n:064x}", "owner": f"Team {n % 500}"} for n in range(100_000)]
    old, new = host.keys, host.folder / "new.json"
    for file, more in ((old, {}), (new, {"revoked": True})):
        records = ({**fields, "id": f"{file.stem}-{n}"} for n, fields in enumerate(many))
        file.write_text(registry_text(*records, record(KEY, **more)))
    host.notify.settimeout(_PATIENCE)
    host.start()
    assert host.verdict() == (204, None)
    new.replace(old)
    eventually(lambda: host.verdict() == (401, "revoked"), _PATIENCE)
    assert host.process is not None
    status = Path(f"/proc/{host.process.pid}/status").read_text()
    (peak,) = (int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
    assert peak * 1024 < 150_000_000


def test_decides_and_reloads_and_ends(host: Host) -> None:
    host.start()
    response, _unused = host.ask(Authorization=f"Bearer {KEY}")
    assert (response.status, response.getheader("X-Key-Id")) == (204, "app1")
    assert response.getheader("Content-Length") == "0"
    assert host.verdict(generate_key()) == (401, "unknown")
    assert host.health() == (200, {"status": "ok", "keys": 1, "registry": "ok", "audit": "ok"})

    host.keys.write_text(registry_text(record(KEY, revoked=True)))
    eventually(lambda: host.verdict() == (401, "revoked"))
    host.keys.write_text("{")
    eventually(lambda: host.health()[1]["registry"] == "stale")
    assert host.verdict() == (401, "revoked")
    host.keys.unlink()
    host.keys.write_text(registry_text(record(KEY)))
    eventually(lambda: host.verdict() == (204, None))

    assert host.end() == 0
    events = [entry["event"] for entry in host.log()]
    # There is no seal key here.
    assert events[:3] == ["audit_unsealed", "registry_loaded", "started"]
    assert events[-1] == "stopped"
    assert "registry_refused" in events
    assert KEY not in (host.folder / "log").read_text()
    assert host.path.exists()  # the socket is systemd's, not ours to remove


def test_hangup_loads_at_once(host: Host) -> None:
    host.configure(registry_poll_seconds=60)
    host.start()
    host.keys.write_text(registry_text(record(KEY), record(generate_key(), "app2")))
    assert host.health()[1]["keys"] == 1
    assert host.process is not None
    host.process.send_signal(signal.SIGHUP)
    eventually(lambda: host.health()[1]["keys"] == 2)


def test_without_keys_it_runs_and_refuses(host: Host) -> None:
    host.keys.unlink()
    host.start()
    assert host.verdict() == (401, "unknown")
    assert host.health() == (
        503,
        {"status": "unavailable", "keys": 0, "registry": "none", "audit": "ok"},
    )
    host.keys.write_text(registry_text(record(KEY)))
    eventually(lambda: host.verdict() == (204, None))


def test_killed_and_started_again_the_sockets_have_waited(host: Host) -> None:
    host.start()
    assert host.end(signal.SIGKILL) == -signal.SIGKILL
    with contextlib.closing(UnixConnection(host.path)) as waiting:
        waiting.request("GET", "/validate", headers={**CONTEXT, "X-API-Key": KEY})
        host.start()
        assert waiting.getresponse().status == 204


def test_a_begun_request_is_answered_on_the_way_out(host: Host) -> None:
    host.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(host.path))
        client.sendall(b"GET /healthz HTTP/1.1\r\n")
        time.sleep(0.2)
        assert host.process is not None
        host.process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        client.sendall(b"\r\n")
        answer = client.recv(4096)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b"Connection: close" in answer
    assert host.process.wait(10) == 0


def test_slow_clients_are_dropped(host: Host) -> None:
    host.configure(request_timeout_seconds=0.3)
    host.start()
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(str(host.path))
        client.sendall(b"GET /healthz HTTP/1.1\r\n")
        with contextlib.suppress(ConnectionResetError):
            assert client.recv(100) == b""


def _ask_over_tcp(port: int, uid: int) -> str:
    """Ask from a process of another user; say the reason or the status."""
    # Nothing is imported after setuid: another user may not be able to read this Python.
    code = (
        "import os, socket, sys\n"
        "os.setgid(int(sys.argv[1])); os.setuid(int(sys.argv[1]))\n"
        "s = socket.socket(); s.settimeout(5); s.connect(('127.0.0.1', int(sys.argv[2])))\n"
        "s.sendall(b'GET /validate HTTP/1.0\\r\\nX-API-Key: ' + sys.argv[3].encode()"
        " + b'\\r\\n\\r\\n')\n"
        "os.write(1, s.recv(4096))\n"
    )
    command = [sys.executable, "-c", code, str(uid), str(port), KEY]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    status, reason = answer.splitlines()[:2]
    return f"{status.split()[1]} {reason.removeprefix('X-Auth-Reason: ')}"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can ask as somebody else")
def test_over_tcp_only_root_and_trusted_users_may_ask(host: Host) -> None:
    host.configure(trusted_users=["www-data"])
    host.start()
    port = host.tcp.getsockname()[1]
    assert _ask_over_tcp(port, 65534) == "403 peer"
    assert _ask_over_tcp(port, 12345) == "403 peer"
    assert _ask_over_tcp(port, 33) == "403 context"
    assert _ask_over_tcp(port, 0) == "403 context"


@pytest.mark.parametrize(
    "settings", [{"max_headers": 0}, {"unknown": 1}, {"trusted_users": ["no-such-user-here"]}]
)
def test_bad_settings_end_it_with_a_reason(host: Host, settings: dict[str, t.Any]) -> None:
    host.configure(**settings)
    with pytest.raises(TimeoutError):
        host.notify.settimeout(2)
        host.start()
    assert host.process is not None
    assert host.process.wait(5) == 78
    (entry,) = host.log()
    assert entry["event"] == "config_refused"
    assert next(iter(settings)) in entry["problem"]


def test_without_handed_over_sockets_it_does_not_start() -> None:
    for variables in ({}, {"LISTEN_PID": "1", "LISTEN_FDS": "1"}, {"LISTEN_PID": "7"}):
        with pytest.raises(ConfigError, match=r"llm-key-validator\.socket"):
            inherited_sockets(variables, 7)


def test_root_is_always_trusted_and_unknown_users_are_errors() -> None:
    assert trusted_uids(()) == {0}
    with pytest.raises(ConfigError, match="no-such-user-here"):
        trusted_uids(("no-such-user-here",))


class _Ends:
    """A transport that knows two addresses."""

    def __init__(self, peer: t.Any, here: t.Any) -> None:
        self._info = {"peername": peer, "sockname": here}

    def get_extra_info(self, name: str) -> t.Any:
        return self._info[name]


def test_a_line_the_kernel_left_out_is_looked_for_twice() -> None:
    asked = 0
    local = "   1: 0100007F:C350 0100007F:1F91 01 00000000:00000000 00:00000000 00000000"
    table = f"{local}     0        0 4711 1\n".encode()
    if sys.byteorder != "little":
        pytest.skip("the line above is a little-endian kernel's")

    def read(found: int) -> t.Callable[[], tuple[bytes, bytes]]:
        def reader() -> tuple[bytes, bytes]:
            nonlocal asked
            asked += 1
            return (table if asked == found else b"", b"")

        return reader

    ends = _Ends(("127.0.0.1", 50000), ("127.0.0.1", 8081))
    assert PeerCheck(frozenset({0}), read(2))(ends)  # type: ignore[arg-type]
    asked = 0
    assert not PeerCheck(frozenset({0}), read(3))(ends)  # type: ignore[arg-type]
    assert not PeerCheck(frozenset({0}), read(1))(_Ends(None, None))  # type: ignore[arg-type]


def test_notifications_that_nobody_takes_are_lost_quietly(tmp_path: Path) -> None:
    Notifier({}).tell("READY=1")
    Notifier({"NOTIFY_SOCKET": str(tmp_path / "nobody")}).tell("READY=1")
    assert Notifier({"WATCHDOG_USEC": "15000000"}).watchdog_seconds == 15.0


BODY = '{"model":"tiny","messages":[{"role":"user","content":"a secret thought"}]}'


def test_a_request_is_on_record_before_it_goes_on_and_when_it_is_over(host: Host) -> None:
    host.start()
    response = host.authorize(BODY)
    assert response.getheader("X-Accel-Redirect") == "@backend"
    request = host.records()[-1]
    assert request["event.action"] == "request"
    assert request["gen_ai.request.model"] == "tiny:latest"
    request_id = CONTEXT["X-Gateway-Request"].split()[0]
    report = f"<190>Nov 23 20:31:20 llm: {request_id} 200 7 0.5 1 app1 10.0.1.5 POST /api/chat"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as nginx:
        nginx.sendto(report.encode(), str(host.folder / "reports.sock"))
    eventually(lambda: host.records()[-1]["event.action"] == "response")
    assert host.records()[-1]["event.duration"] == 500_000_000
    assert host.end() == 0
    assert host.records()[-1]["event.action"] == "close"
    assert "secret thought" not in (host.folder / "audit/log/audit.jsonl").read_text()


@pytest.mark.parametrize("fsync", [False, True])
def test_killed_it_goes_on_with_the_chain(host: Host, fsync: bool) -> None:
    host.configure(audit_fsync=fsync)
    host.start()
    assert host.authorize(BODY).status == 200
    host.end(signal.SIGKILL)
    with (host.folder / "audit/log/audit.jsonl").open("a") as log:
        log.write('{"@timestamp":"20')
    host.start()
    assert host.authorize(BODY).status == 200
    command = [sys.executable, "-I", "-B", str(FILES / "llm-audit"), "verify"]
    verified = subprocess.run(
        [*command, str(host.folder / "audit/log")], capture_output=True, text=True, check=False
    )
    assert verified.returncode == 0, verified.stdout + verified.stderr
    actions = [one["event.action"] for one in host.records()]
    assert actions.count("request") == 2
    assert "repair" in actions


def test_a_log_that_cannot_be_written_refuses_and_comes_back(host: Host) -> None:
    log = host.folder / "audit/log"
    log.rmdir()
    log.write_text("in the way")
    host.start()
    assert host.authorize(BODY).status == 503
    assert host.health()[1]["audit"] == "failing"
    log.unlink()
    log.mkdir()
    eventually(lambda: host.authorize(BODY).status == 200)
    assert host.health() == (200, {"status": "ok", "keys": 1, "registry": "ok", "audit": "ok"})


def test_the_audit_log_can_be_switched_off(host: Host) -> None:
    host.configure(audit_enabled=False)
    host.start()
    assert host.authorize(BODY).status == 200
    assert not list((host.folder / "audit/log").iterdir())


def test_without_the_pepper_it_does_not_start(host: Host) -> None:
    (host.folder / "audit/credentials/prompt-pepper").unlink()
    with pytest.raises(TimeoutError):
        host.notify.settimeout(2)
        host.start()
    assert "prompt-pepper" in host.log()[0]["problem"]


def test_a_plain_digest_needs_no_pepper(host: Host) -> None:
    (host.folder / "audit/credentials/prompt-pepper").unlink()
    host.configure(audit_prompt_digest="sha256")
    host.start()
    assert host.authorize(BODY).status == 200
    request = host.records()[-1]
    assert request["llm.prompt.hash"] == hashlib.sha256(b"a secret thought").hexdigest()
    assert request["llm.prompt.hash_algorithm"] == "sha256"


def test_a_user_signal_puts_the_file_aside(host: Host) -> None:
    host.start()
    assert host.process is not None
    host.process.send_signal(signal.SIGUSR1)
    eventually(lambda: len(list((host.folder / "audit/log").glob("audit-*.jsonl"))) == 1)
    assert host.authorize(BODY).status == 200
