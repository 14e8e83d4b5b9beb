# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""One request that nobody answers for, and its traces: in the audit log, and nowhere else.

The request has a random path, which its refusal's record must show (`url.path`), and a random word
in its query, its key's place and its body, which no log may show. Its path is unknown, so nginx
refuses it before any limit counts and reports it to the key validator; no LLM server hears of it.
"""

from __future__ import annotations

import json
import os
import secrets
import stat
import time
import typing as t
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

from ansible_collections.llmsec.hardening.plugins.module_utils.host_view import HostView
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import (
    Answer,
    Endpoint,
    NoConnectionError,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.subjects import Finding, Subject

__all__ = ("CLIENT", "LEAK", "LIVE", "Growth", "LogTail", "Sent", "live_findings", "probe")

_REPORTS = (
    "See that both services run and that gateway_audit_socket is set, and run "
    "llmsec.hardening.harden."
)
LIVE = Subject(
    "audit_log.live", "audit_log", "a request that is refused now leaves its record", "high",
    _REPORTS,
)  # fmt: skip
CLIENT = Subject(
    "audit_log.client_address", "audit_log", "no client chooses the address in its record", "high",
    "Remove set_real_ip_from and real_ip_header from nginx's configuration.",
)  # fmt: skip
LEAK = Subject(
    "audit_log.leak", "audit_log", "no log repeats a request's query, key or body", "high",
    "Turn debug logging off (error_log, log_format, the services' settings), and remove the logs.",
)  # fmt: skip
# RFC 5737: nobody has this address.
CLAIMED = "192.0.2.77"
_TRIES = 3
_POLL = 0.1
# nginx's buffered access logs are written after a second (flush=1s).
_SETTLE = 1.3
_MOST_NEW = 1 << 24


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent, from where, what came back, and the record that was found."""

    answer: Answer
    source: str
    nonce: str
    secret: str
    at: float
    record: t.Optional[dict[str, t.Any]] = None  # noqa: UP045 - evaluated by dataclasses
    audit_lines: tuple[bytes, ...] = ()


def request(name: str, nonce: str, secret: str) -> bytes:
    """Return the request, whose path nobody serves."""
    name = f"[{name}]" if ":" in name else name
    body = json.dumps({"model": "none", "prompt": secret, "stream": False})
    lines = [
        f"POST /llmsec-probe-{nonce}?probe={secret} HTTP/1.1", f"Host: {name}",
        "User-Agent: llmsec-hardening", f"Authorization: Bearer {secret}",
        f"X-Forwarded-For: {CLAIMED}", f"X-Real-IP: {CLAIMED}", "Content-Type: application/json",
        f"Content-Length: {len(body)}", "Connection: close", "", body,
    ]  # fmt: skip
    return "\r\n".join(lines).encode()


class LogTail:
    """What is written to the audit log from now on, read from the disk each time."""

    def __init__(self, host: HostView, path: str) -> None:
        self._host = host
        self._path = path
        facts = host.facts(path)
        self._identity = facts.identity if facts else None
        self._size = facts.size if facts else 0

    def lines(self) -> list[bytes]:
        """Return the whole lines written since, across one rotation. Raises OSError."""
        facts = self._host.facts(self._path)
        if facts is not None and facts.identity == self._identity:
            data = self._host.read(self._path, _MOST_NEW, self._size) or b""
            return data.split(b"\n")[:-1]
        older = b""
        folder = self._path.rpartition("/")[0]
        for name in self._host.names(folder) or ():
            path = f"{folder}/{name}"
            one = self._host.facts(path)
            if one is not None and one.identity == self._identity:
                older = self._host.read(path, _MOST_NEW, self._size) or b""
        newer = b"" if facts is None else self._host.read(self._path, _MOST_NEW) or b""
        return (older + newer).split(b"\n")[:-1]


def probe(
    endpoint: Endpoint, source: str | None, tail: LogTail, wait: float,
    sleep: Callable[[float], None] = time.sleep,
) -> Sent:  # fmt: skip
    """Send the request and wait for its record, and once or twice more: datagrams can be lost.

    Raises NoConnectionError when the gateway does not answer, OSError when the log cannot be read.
    """
    nonce, secret = secrets.token_hex(16), f"probe{secrets.token_hex(16)}"
    started = time.time()
    end = time.monotonic() + wait
    for number in range(_TRIES):
        answer = _send(endpoint, source, request(endpoint.server_name, nonce, secret))
        until = end if number == _TRIES - 1 else min(end, time.monotonic() + wait / _TRIES)
        lines = tail.lines()
        while (record := _find(lines, nonce)) is None and time.monotonic() < until:
            sleep(_POLL)
            lines = tail.lines()
        if record is not None or time.monotonic() >= end:
            break
    sent = Sent(answer, source or "", nonce, secret, started, record, tuple(lines))
    sleep(_SETTLE)
    return sent


def _send(endpoint: Endpoint, source: str | None, raw: bytes) -> Answer:
    with endpoint.dial(source) as wire:
        wire.send(raw)
        answer = wire.answer("POST", endpoint.timeout)
    if not answer.status:
        raise NoConnectionError(answer.why, "the gateway gives no answer to this name")
    return answer


def _find(lines: Iterable[bytes], nonce: str) -> dict[str, t.Any] | None:
    for line in lines:
        if nonce.encode() in line:
            with suppress(ValueError):
                record = json.loads(line)
                if isinstance(record, dict):
                    return record
    return None


@dataclass
class Growth:
    """What logs gained: sizes before, and what to read after."""

    folders: tuple[str, ...] = ("/var/log",)
    _before: dict[str, tuple[int, int]] = field(default_factory=dict)
    _extra: tuple[str, ...] = ()

    def begin(self, extra: Iterable[str] = ()) -> None:
        """Remember the sizes of all files in the folders, and of these."""
        self._extra = tuple(extra)
        self._before = {path: (status.st_ino, status.st_size) for path, status in self._files()}

    def holding(self, word: bytes) -> Iterator[str]:
        """Yield the files whose new bytes hold a word."""
        left = _MOST_NEW
        for path, status in self._files():
            inode, size = self._before.get(path, (0, 0))
            start = size if inode == status.st_ino and size <= status.st_size else 0
            if start == status.st_size or left <= 0:
                continue
            with suppress(OSError), open(path, "rb") as file:
                file.seek(max(start, status.st_size - left))
                data = file.read(left)
                left -= len(data)
                if word in data:
                    yield path

    def _files(self) -> Iterator[tuple[str, os.stat_result]]:
        places = list(self._extra)
        for folder in self.folders:
            for above, _folders, names in os.walk(folder):
                # The journal is asked by its own program.
                if not above.startswith("/var/log/journal"):
                    places += [os.path.join(above, name) for name in names]
        for path in places:
            with suppress(OSError):
                status = os.lstat(path)
                if stat.S_ISREG(status.st_mode):
                    yield path, status


def live_findings(
    sent: Sent, files: Iterable[str], journal: list[str] | Exception
) -> Iterator[Finding]:
    """Yield whether the record is there and right, and where else the request left words."""
    record = sent.record
    answered = f"the gateway answered {sent.answer}"
    problems = [f"{answered}, and no record came"] if record is None else _wrong(record, sent)
    found = f"{answered}, and its record says so"
    yield LIVE.judged(problems, expected="a refusal's record within the time", found=found)
    if record is None:
        yield CLIENT.not_measured("there is no record of the request")
    else:
        yield CLIENT.judged(
            [f"it came from this host, and its record says {CLAIMED}, as a header did"]
            if record.get("client.ip") == CLAIMED
            else [],
            expected="the connection's address", found=f"{record.get('client.ip')}",
        )  # fmt: skip
    leaks = [*files, *([] if isinstance(journal, Exception) else journal)]
    if any(sent.secret.encode() in line for line in sent.audit_lines):
        leaks.append("the audit log itself")
    if isinstance(journal, Exception) and not leaks:
        yield LEAK.not_measured(journal)
        return
    yield LEAK.judged(
        [f"{place}: repeats the request" for place in leaks], expected="in none", found="in none"
    )


def _wrong(record: dict[str, t.Any], sent: Sent) -> list[str]:
    problems = []
    if record.get("event.action") != "refusal":
        problems.append(f"the record is no refusal, but: {record.get('event.action')}")
    status = record.get("http.response.status_code")
    if status != sent.answer.status:
        problems.append(f"the gateway answered {sent.answer}, and its record says {status}")
    return problems
