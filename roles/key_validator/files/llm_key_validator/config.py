# SPDX-License-Identifier: GPL-3.0-or-later
"""The service's settings: one strict JSON object, /etc/llm-key-validator/config.json."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import Any


class ConfigError(ValueError):
    """The settings are not acceptable; the text names the setting."""


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting with its default. Unknown names in the file are errors."""

    # The key registry. Watched, and loaded anew when it changes.
    registry_path: str = "/etc/llm-key-validator/keys.json"
    # Larger registry files are refused unread (bytes). 100,000 keys take about 20 MB.
    registry_max_bytes: int = 64 * 1024 * 1024
    # How often the registry's file is looked at (seconds)
    registry_poll_seconds: float = 1.0
    # Local users, besides root, whose processes may ask over TCP: the web server's
    trusted_users: tuple[str, ...] = ("www-data",)
    # Header lines of one request. nginx forwards the client's and adds five.
    max_headers: int = 128
    # Request line and headers of one request together (bytes). nginx takes 32 KiB by default.
    max_header_bytes: int = 64 * 1024
    # Time from a request's first byte, or from the connection's start, to its last (seconds)
    request_timeout_seconds: float = 10.0
    # How long an idle connection is kept (seconds). Longer than nginx's 60, so that nginx is
    # the one that closes and never writes into a connection we are just closing.
    idle_timeout_seconds: float = 120.0
    # Open connections, for each listening socket on its own
    max_connections: int = 1024
    # Refusals written to the journal each second; the rest is counted only
    log_refusals_per_second: int = 20


# Smallest and largest sensible value. The bounds keep a typing error from turning a limit off.
_BOUNDS: dict[str, tuple[float, float]] = {
    "registry_max_bytes": (1024, 1024**3),
    "registry_poll_seconds": (0.05, 60),
    "max_headers": (16, 1000),
    "max_header_bytes": (4096, 1024**2),
    "request_timeout_seconds": (0.1, 300),
    "idle_timeout_seconds": (0.1, 3600),
    "max_connections": (1, 4096),
    "log_refusals_per_second": (0, 10000),
}


def load_config(text: str) -> Config:
    """Return the settings in the JSON object ``text``. Raises ConfigError."""
    try:
        raw = json.loads(text, object_pairs_hook=_unique_names)
    except ConfigError:
        raise
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"not valid JSON ({type(error).__name__})") from None
    if not isinstance(raw, dict):
        raise ConfigError("must be one JSON object")
    known = {setting.name for setting in fields(Config)}
    unknown = sorted(raw.keys() - known)
    if unknown:
        raise ConfigError(f"unknown setting {unknown[0]!r}")
    return Config(**{name: _checked(name, value) for name, value in raw.items()})


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for name, value in pairs:
        if name in names:
            raise ConfigError(f"setting {name!r} is given twice")
        names[name] = value
    return names


def _checked(name: str, value: object) -> object:
    """Return ``value`` as the setting's type, or raise ConfigError that names the setting."""
    if name == "trusted_users":
        return _checked_users(value)
    if name == "registry_path":
        if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
            raise ConfigError("registry_path: must be an absolute path")
        return value
    whole = name in ("registry_max_bytes", "max_headers", "max_header_bytes")
    whole = whole or name in ("max_connections", "log_refusals_per_second")
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ConfigError(f"{name}: must be a {'whole ' if whole else ''}number")
    low, high = _BOUNDS[name]
    if not low <= value <= high:
        raise ConfigError(f"{name}: must be between {low:g} and {high:g}")
    return value


def _checked_users(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(user, str) and user for user in value):
        raise ConfigError("trusted_users: must be a list of user names")
    return tuple(value)
