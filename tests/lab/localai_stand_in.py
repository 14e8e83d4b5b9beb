#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A stand-in for LocalAI, which the lab cannot fetch: llama.cpp's server under its name.

It reads LocalAI's environment (LOCALAI_ADDRESS, LOCALAI_API_KEY), answers its health and version
without a key and everything else with one only, and hands /v1 on to two real llama-servers, one for
chats and one for embeddings. No other route of LocalAI is in it: that the gateway keeps them shut
is tested by their names. LOCALAI_BINARY names a real LocalAI to test instead.
"""

from __future__ import annotations

import hmac
import http.client
import os
import subprocess
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROGRAM = "/usr/local/lib/ollama/llama-server"
MODEL = "/usr/local/share/tiny.gguf"
TEMPLATE = "/usr/local/share/tools.jinja"
CHATS, EMBEDDINGS = 18081, 18082  # ports on loopback
OPEN = {"/readyz": b"OK", "/healthz": b"OK", "/version": b'{"version":"v4.9.0 (stand-in)"}'}
DROPPED = {"connection", "keep-alive", "transfer-encoding", "content-length", "server", "date"}


def llama_server(port: int, *words: str) -> subprocess.Popen[bytes]:
    """Start a llama-server; it ends with this program's unit."""
    usual = ["--model", MODEL, "--alias", "tiny", "--host", "127.0.0.1", "--port", str(port)]
    chats = ["--ctx-size", "4096", "--jinja", "--chat-template-file", TEMPLATE]
    return subprocess.Popen([PROGRAM, *usual, *chats, *words])


def is_ready(port: int) -> bool:
    """Tell whether a llama-server has its model."""
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        link.request("GET", "/health")
        return link.getresponse().status == 200
    except OSError:
        return False
    finally:
        link.close()


class LocalAI(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.path == "/readyz" and not (is_ready(CHATS) and is_ready(EMBEDDINGS)):
            self._answer(503, b"loading")
        elif self.path in OPEN:
            self._answer(200, OPEN[self.path])
        elif not self._has_key():
            self._answer(401, b'{"error":{"code":401,"message":"Authentication key is missing"}}')
        elif self.path.startswith("/v1/"):
            self._hand_on(body)
        else:
            self._answer(404, b"{}")

    def do_POST(self) -> None:
        self.do_GET()

    def _has_key(self) -> bool:
        given = self.headers.get("Authorization", "").removeprefix("Bearer ").encode()
        wanted = os.environ.get("LOCALAI_API_KEY", "").encode()
        return not wanted or hmac.compare_digest(given, wanted)

    def _hand_on(self, body: bytes) -> None:
        port = EMBEDDINGS if self.path == "/v1/embeddings" else CHATS
        link = http.client.HTTPConnection("127.0.0.1", port)
        link.request(self.command, self.path, body or None, {"Content-Type": "application/json"})
        answer = link.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in DROPPED:
                self.send_header(name, value)
        # Pieces leave as they come; the end of the connection ends the answer.
        self.send_header("Connection", "close")
        self.end_headers()
        while piece := answer.read1(65536):
            self.wfile.write(piece)
            self.wfile.flush()
        self.close_connection = True

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


def main() -> None:
    """Serve until the unit stops."""
    llama_server(CHATS)
    llama_server(EMBEDDINGS, "--embeddings", "--pooling", "mean")
    # Without an address LocalAI listens on every interface.
    address, _unused, port = os.environ.get("LOCALAI_ADDRESS", ":8080").rpartition(":")
    ThreadingHTTPServer((address, int(port)), LocalAI).serve_forever()


if __name__ == "__main__":
    main()
