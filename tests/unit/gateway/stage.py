# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's templates in a real nginx, between a pretended policy service and LLM server."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import signal
import socket
import socketserver
import ssl
import subprocess
import threading
import time
import typing as t
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.lab.steps import wait_until

from .rendering import NAME, rendered

# As root nginx gives its workers to somebody else, who cannot look into a test's folder.
_MAIN = """{user}
daemon off;
worker_processes 1;
pid nginx.pid;
error_log error.log notice;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    access_log access.log;
    include conf.d/*.conf;
}}
"""


def render(folder: Path, **variables: t.Any) -> Path:
    """Write the role's files below ``folder``, and return it."""
    for file, content in rendered(**variables).items():
        path = folder / Path(file).relative_to("/etc/nginx")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return folder


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


@dataclass
class Heard:
    """A request as one of the two servers got it; ``peer`` tells connections apart."""

    method: str
    target: str
    headers: dict[str, list[str]]
    body: bytes
    peer: int


@dataclass
class Say:
    """An answer; pieces are sent one after the other, as chunks, with a pause between them."""

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    pieces: t.Iterable[bytes] = ()


Answerer = t.Callable[[Heard], Say]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except ConnectionError:
            self.close_connection = True

    def log_message(self, *_unused: t.Any) -> None:
        """Say nothing."""

    def address_string(self) -> str:
        return "nginx"

    def answer(self) -> None:
        upstream = t.cast("Upstream", self.server.upstream)  # type: ignore[attr-defined]
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        headers: dict[str, list[str]] = {}
        for name, value in self.headers.items():
            headers.setdefault(name.lower(), []).append(value)
        heard = Heard(self.command, self.path, headers, body, id(self.connection))
        upstream.heard.append(heard)
        self.say(upstream.answer(heard))

    do_GET = do_HEAD = do_POST = do_DELETE = answer  # noqa: N815

    def say(self, say: Say) -> None:
        self.send_response(say.status)
        if self.close_connection:
            # Not said, nginx would keep the connection, and lose the next request on it.
            self.send_header("Connection", "close")
        for name, value in say.headers.items():
            self.send_header(name, value)
        if say.pieces:
            self.send_header("Transfer-Encoding", "chunked")
        elif say.status != 204:
            self.send_header("Content-Length", str(len(say.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(say.body)
            for piece in say.pieces:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                time.sleep(0.15)
            self.wfile.write(b"0\r\n\r\n" if say.pieces else b"")


class _UnixServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    block_on_close = False


class Upstream:
    """One of the two servers: what it heard, and what it says."""

    def __init__(
        self,
        address: str | tuple[str, int],
        answer: Answerer,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.heard: list[Heard] = []
        self.answer = answer
        if isinstance(address, str):
            self._server: t.Any = _UnixServer(address, _Handler)
        else:
            self._server = ThreadingHTTPServer(address, _Handler)
            self._server.block_on_close = False
        if tls is not None:
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True)
        self._server.upstream = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


REPORT = ("id", "status", "bytes", "seconds", "forwarded", "key", "client", "method", "path")


class Audit:
    """The datagram socket that nginx reports to. It is read at once, for the kernel keeps few."""

    def __init__(self, path: str) -> None:
        self.reports: list[dict[str, str]] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(path)
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def wait_for(self, request_id: str) -> dict[str, str]:
        """Return the report of this request, word by word."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for report in self.reports:
                if report["id"] == request_id:
                    return report
            time.sleep(0.02)
        raise AssertionError(f"nothing was reported of {request_id}")

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ending:
            ending.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _read(self) -> None:
        while text := self._socket.recv(65536).decode(errors="replace"):
            assert text.startswith("<190>"), text
            words = text.partition(" llm: ")[2].split(" ", len(REPORT) - 1)
            self.reports.append(dict(zip(REPORT, words, strict=True)))


@dataclass
class Answer:
    """What the client got."""

    status: int
    headers: dict[str, str]
    body: bytes
    # When each piece of the body came, in seconds since the first
    times: list[float] = field(default_factory=list)


GO_ON = {"X-Accel-Redirect": "@backend", "X-Key-Id": "app1"}


class Stage:
    """nginx, the two servers and the audit socket. ``key`` is the one that the hop takes."""

    key = "k1"

    def __init__(
        self,
        folder: Path,
        *,
        after: t.Callable[[str], str] = str,
        llm_tls: ssl.SSLContext | None = None,
        **variables: t.Any,
    ) -> None:
        """``after`` changes what was rendered for the site, as somebody might by hand.

        With ``llm_tls`` the LLM server speaks TLS.
        """
        self.folder = folder
        self.port, llm_port = free_port(), free_port()
        sockets = {
            "gateway_validator_socket": f"{folder}/hop",
            "gateway_audit_socket": f"{folder}/log",
        }
        settings = {
            "gateway_port": self.port,
            "gateway_backend": f"127.0.0.1:{llm_port}",
            "gateway_certificate": f"{folder}/server.crt",
            "gateway_certificate_key": f"{folder}/server.key",
            "gateway_limit_per_key": None,
            "gateway_limit_per_address": None,
            "__gateway_access_log": f"{folder}/access.log",
            **sockets,
            **variables,
        }
        self._settings = settings
        site = render(folder, **settings) / "conf.d/llm-gateway.conf"
        site.write_text(after(site.read_text()))
        if not (folder / "server.crt").exists():
            self._make_certificate()
        user = "user root;" if os.geteuid() == 0 else ""
        (folder / "nginx.conf").write_text(_MAIN.format(user=user))
        self.reset()
        self.hop = Upstream(f"{folder}/hop", self._as_hop)
        self.llm = Upstream(("127.0.0.1", llm_port), self._as_llm, llm_tls)
        self.audit = Audit(f"{folder}/log")
        self._nginx = self._start()

    def reset(self) -> None:
        """Answer as a service that allows everything, and an LLM server that is content."""
        self.hop_says: Answerer = lambda heard: Say(200, GO_ON)
        self.llm_says: Answerer = lambda heard: Say(200, {"Content-Type": "text/plain"}, b"fine")
        for upstream in (getattr(self, "hop", None), getattr(self, "llm", None)):
            if upstream is not None:
                upstream.heard.clear()

    def close(self) -> None:
        self._nginx.terminate()
        self._nginx.wait(10)
        self.hop.close()
        self.llm.close()
        self.audit.close()

    def test_configuration(self) -> str:
        """Everything that `nginx -t` says."""
        words = [*self._words(), "-t"]
        return subprocess.run(words, capture_output=True, text=True, check=False).stderr

    def apply(self, **variables: t.Any) -> None:
        """Render the files with other variables, as another run of the role does, and reload."""
        render(self.folder, **{**self._settings, **variables})
        self.reload()

    def reload(self) -> None:
        """Have nginx read its files anew, and wait for the worker that did."""
        generation = self.errors().count("start worker process ")
        self._nginx.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 10
        while self.errors().count("start worker process ") == generation:
            assert time.monotonic() < deadline, self.errors()
            time.sleep(0.05)
        time.sleep(0.2)

    def validated(self) -> list[Heard]:
        return [heard for heard in self.hop.heard if heard.target == "/validate"]

    def authorized(self) -> list[Heard]:
        return [heard for heard in self.hop.heard if heard.target == "/authorize"]

    def ask(
        self,
        method: str,
        target: str,
        body: bytes | t.Iterable[bytes] | None = None,
        *,
        key: str | None = key,
        trust: ssl.SSLContext | None = None,
        **headers: str,
    ) -> Answer:
        """One request over a connection of its own. Header names: X_Y for X-Y."""
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=10)
        connection.sock = self.connect(trust)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        sent |= {"Host": NAME} | ({"Authorization": f"Bearer {key}"} if key else {})
        try:
            connection.request(method, target, body, sent)
            response = connection.getresponse()
            pieces, times = [], []
            while piece := response.read1(65536):
                pieces.append(piece)
                times.append(time.monotonic())
        finally:
            connection.close()
        got = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, got, b"".join(pieces), [at - times[0] for at in times])

    def trust(self) -> ssl.SSLContext:
        """A client's settings, for it to change."""
        return ssl.create_default_context(cafile=f"{self.folder}/server.crt")

    def connect(
        self, trust: ssl.SSLContext | None = None, session: ssl.SSLSession | None = None
    ) -> ssl.SSLSocket:
        """A TLS connection as a client makes one, resumed from a session if there is one."""
        trust = trust or self.trust()
        plain = socket.create_connection(("127.0.0.1", self.port), 10)
        return trust.wrap_socket(plain, server_hostname=NAME, session=session)

    def reported(self, answer: Answer) -> dict[str, str]:
        """The audit report of an answered request."""
        return self.audit.wait_for(answer.headers["x-request-id"])

    def logged(self, answer: Answer) -> dict[str, t.Any]:
        """The line of an answered request in the access log."""
        self.reported(answer)
        request_id, log = answer.headers["x-request-id"], self.folder / "access.log"
        assert wait_until(lambda: request_id in log.read_text())  # nginx writes it once a second
        lines = map(json.loads, log.read_text().splitlines())
        return next(one for one in lines if one["request_id"] == request_id)

    def errors(self) -> str:
        return (self.folder / "error.log").read_text()

    def _as_hop(self, heard: Heard) -> Say:
        if heard.headers.get("authorization") != [f"Bearer {self.key}"]:
            return Say(401, {"X-Auth-Reason": "unknown"})
        if heard.target == "/authorize":
            return self.hop_says(heard)
        assert heard.target == "/validate"
        return Say(204, {"X-Key-Id": "app1"})

    def _as_llm(self, heard: Heard) -> Say:
        return self.llm_says(heard)

    def _make_certificate(self) -> None:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "2", "-subj", f"/CN={NAME}",
             "-addext", f"subjectAltName=DNS:{NAME}",
             "-keyout", f"{self.folder}/server.key", "-out", f"{self.folder}/server.crt"],
            check=True, capture_output=True,
        )  # fmt: skip

    def _words(self) -> list[str]:
        nginx = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        assert nginx is not None
        return [nginx, "-p", str(self.folder), "-c", f"{self.folder}/nginx.conf"]

    def _start(self) -> subprocess.Popen[bytes]:
        started = subprocess.Popen(self._words(), stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
            except OSError:
                assert started.poll() is None, self.errors() or self.test_configuration()
                assert time.monotonic() < deadline, self.errors()
                time.sleep(0.05)
            else:
                return started
