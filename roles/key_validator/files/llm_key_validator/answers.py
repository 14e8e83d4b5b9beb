# SPDX-License-Identifier: GPL-3.0-or-later
"""The service's answers as bytes: status line, headers, body."""

from __future__ import annotations

import json
from typing import NamedTuple

_STATUS_LINES = {
    200: b"HTTP/1.1 200 OK\r\n",
    204: b"HTTP/1.1 204 No Content\r\n",
    400: b"HTTP/1.1 400 Bad Request\r\n",
    401: b"HTTP/1.1 401 Unauthorized\r\n",
    403: b"HTTP/1.1 403 Forbidden\r\n",
    404: b"HTTP/1.1 404 Not Found\r\n",
    405: b"HTTP/1.1 405 Method Not Allowed\r\n",
    413: b"HTTP/1.1 413 Content Too Large\r\n",
    429: b"HTTP/1.1 429 Too Many Requests\r\n",
    502: b"HTTP/1.1 502 Bad Gateway\r\n",
    503: b"HTTP/1.1 503 Service Unavailable\r\n",
}

# `type` of the gateway's JSON errors, by status: the same words as in nginx's own.
_ERROR_TYPES = {
    400: "invalid_request",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found",
    413: "request_too_large",
    429: "rate_limit",
    502: "upstream_error",
    503: "unavailable",
}


class Answer(NamedTuple):
    """Status line and headers (no blank line yet), body, and whether the connection ends."""

    head: bytes
    body: bytes = b""
    close: bool = False


def empty(status: int, headers: bytes = b"", *, close: bool = False) -> Answer:
    """Return an answer without a body."""
    return Answer(_STATUS_LINES[status] + headers + b"Content-Length: 0\r\n", close=close)


def with_body(status: int, content_type: bytes, body: bytes, headers: bytes = b"") -> Answer:
    """Return an answer with a body."""
    head = b"%bContent-Type: %b\r\nContent-Length: %d\r\n" % (headers, content_type, len(body))
    return Answer(_STATUS_LINES[status] + head, body)


def refusal(status: int, message: str, request_id: str, headers: bytes = b"") -> Answer:
    """Return the gateway's JSON error. It goes to the client as it is."""
    kind = _ERROR_TYPES[status]
    error = {"error": {"type": kind, "message": message, "request_id": request_id}}
    body = json.dumps(error, separators=(",", ":")).encode() + b"\n"
    return with_body(status, b"application/json", body, headers)
