#!/usr/bin/python3
# SPDX-License-Identifier: GPL-3.0-or-later
"""A recorder in place of Langfuse: takes what its SDK sends, as the server would, and keeps it.

Langfuse's SDK from version 3 on sends OpenTelemetry's OTLP over HTTP to /api/public/otel/v1/traces,
older ones JSON to /api/public/ingestion (langfuse.com/docs/api). Each body becomes a line of JSON
with path, authorization and content in the file that is named as the argument. While there is a
file with that name and `.hang` behind it, no request is answered.
"""

from __future__ import annotations

import base64
import gzip
import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 3000
FILE = sys.argv[1]
INGESTED = b'{"successes":[],"errors":[]}'


class Recorder(BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        while os.path.exists(FILE + ".hang"):
            time.sleep(0.2)
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        line = {
            "path": self.path,
            "authorization": self.headers.get("Authorization", ""),
            "body": base64.b64encode(body).decode(),
        }
        with open(FILE, "a") as out:
            out.write(json.dumps(line) + "\n")
        old = self.path == "/api/public/ingestion"
        self._answer(207 if old else 200, INGESTED if old else b"")

    def do_GET(self) -> None:
        self._answer(200, b'{"data":[{"id":"p","name":"lab"}],"status":"OK"}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_words: object) -> None:
        """Say nothing."""


if __name__ == "__main__":
    ThreadingHTTPServer(("127.0.0.1", PORT), Recorder).serve_forever()
