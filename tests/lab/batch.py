# SPDX-License-Identifier: GPL-3.0-or-later
"""Many HTTP requests from one of the lab's hosts in one go, with bodies of any bytes.

curl takes a process each, which is too long for what must come within a second.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.lab.curl import Answer
from tests.lab.hosts import Lab

# Runs on the host, whose Python may be Debian 12's.
_PROGRAM = """
import base64, http.client, json, ssl, sys, urllib.parse
asked = json.load(sys.stdin)
place = urllib.parse.urlsplit(asked["base"])
if place.scheme == "https":
    trust = ssl.create_default_context(cafile=asked["ca_file"] or None)
    link = http.client.HTTPSConnection(place.hostname, place.port, context=trust, timeout=60)
else:
    link = http.client.HTTPConnection(place.hostname, place.port, timeout=60)
answers = []
for method, path, body, headers in asked["questions"]:
    try:
        link.request(method, path, None if body is None else base64.b64decode(body), headers)
        answer = link.getresponse()
        text = answer.read().decode("utf-8", "replace")
        names = {name.lower(): value for name, value in answer.getheaders()}
        answers.append((answer.status, "", text, names))
    except (OSError, http.client.HTTPException) as error:
        answers.append((0, repr(error), "", {}))
        link.close()
json.dump(answers, sys.stdout)
"""


@dataclass(frozen=True)
class Question:
    """One request. Without a method it is a POST when it has a body, else a GET."""

    path: str
    body: bytes | None = None
    content_type: str = "application/json"
    method: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


def post(path: str, **body: Any) -> Question:
    """A request with a JSON body."""
    return Question(path, json.dumps(body).encode())


def ask_all(
    lab: Lab,
    host: str,
    base: str,
    questions: Iterable[Question],
    *,
    key: str = "",
    ca_file: str = "",
) -> list[Answer]:
    """Ask one after the other on one connection, from `host`; the answers in that order.

    Keys and bodies go in on standard input, not as arguments.
    """
    asked = {
        "base": base,
        "ca_file": ca_file,
        "questions": [_for_program(question, key) for question in questions],
    }
    done = lab.run(host, "python3", "-c", _PROGRAM, stdin=json.dumps(asked), check=True)
    return [Answer(*answer) for answer in json.loads(done.stdout)]


def _for_program(question: Question, key: str) -> tuple[str, str, str | None, dict[str, str]]:
    body = question.body
    headers = dict(question.headers)
    if body is not None and question.content_type:
        headers["Content-Type"] = question.content_type
    if key:
        headers["Authorization"] = f"Bearer {key}"
    encoded = None if body is None else base64.b64encode(body).decode()
    return question.method or ("GET" if body is None else "POST"), question.path, encoded, headers
