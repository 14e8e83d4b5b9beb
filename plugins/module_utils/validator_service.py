# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The key validator as it runs: its process, its settings, and what it says of itself."""

from __future__ import annotations

import json
import re
import socket
import typing as t
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ansible_collections.llmsec.hardening.plugins.module_utils.host_view import (
    HostView,
    OpenFile,
    Process,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import Wire

__all__ = (
    "Metrics", "Run", "Service", "ask", "find_service", "parse_config", "parse_metrics",
    "read_metrics",
)  # fmt: skip

# Executes a command with this standard input: (return code, output, error output)
Run = Callable[[list[str], str], tuple[int, str, str]]

_MOST_CONFIG = 1 << 22
_SINGLE = re.compile(r"llm_key_validator_([a-z_]+) ([0-9.]+)")
_REGISTRY = re.compile(r'llm_key_validator_registry_info\{sha256="([0-9a-f]{64})"\} 1')


@dataclass(frozen=True, slots=True)
class Metrics:
    """What GET /metrics says: numbers without labels, and the SHA-256 of the registry in use."""

    numbers: Mapping[str, float] = field(default_factory=dict)
    registry: str = ""


@dataclass(frozen=True, slots=True)
class Service:
    """The running process with its open files."""

    process: Process
    files: tuple[OpenFile, ...]


def find_service(host: HostView, run: Run, unit: str) -> Service | None:
    """Return the unit's main process, None when it does not run. Raises OSError."""
    command = ["systemctl", "show", "--property=MainPID", "--value", "--", unit]
    status, output, errors = run(command, "")
    if status != 0 or not output.strip().isdigit():
        raise OSError(f"systemctl: {errors.strip() or output.strip() or status}")
    pid = int(output)
    if pid == 0:
        return None
    return Service(host.process(pid), tuple(host.open_files(pid)))


def parse_config(content: bytes | None) -> dict[str, t.Any] | None:
    """Return the settings, None when there is no file. Raises ValueError."""
    if content is None:
        return None
    try:
        settings = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError("config.json is not JSON") from None
    if not isinstance(settings, dict):
        raise ValueError("config.json is not one JSON object")
    return settings


def parse_metrics(text: str) -> Metrics:
    """Return what stands in a Prometheus text of the validator's."""
    numbers = {}
    for line in text.splitlines():
        if found := _SINGLE.fullmatch(line):
            numbers[found[1]] = float(found[2])
    registry = _REGISTRY.search(text)
    return Metrics(numbers, registry[1] if registry else "")


def read_metrics(host: HostView, path: str) -> Metrics:
    """Ask the service over its unix socket. Raises OSError."""
    metrics = parse_metrics(ask(host, path, "/metrics"))
    if not metrics.numbers:
        raise OSError("the service's metrics cannot be read")
    return metrics


def ask(host: HostView, path: str, target: str, timeout: float = 5.0) -> str:
    """Return the body of the service's 200 to a GET. Raises OSError."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout)
        connection.connect(host.place(path))
        wire = Wire(connection)
        wire.send(f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = wire.answer("GET", timeout)
    if answer.status != 200:
        raise OSError(f"the service answers {target} with {answer}")
    return answer.body.decode("utf-8", "replace")
