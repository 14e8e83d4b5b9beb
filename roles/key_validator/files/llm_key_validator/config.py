# SPDX-License-Identifier: GPL-3.0-or-later
"""The service's settings: one strict JSON object, /etc/llm-key-validator/config.json."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from .bodies.names import canonical_name
from .quotas.address import parse_address
from .routes import RouteError, RouteTable, parse_routes
from .tiers import Tier, TierError, parse_tiers


class ConfigError(ValueError):
    """The settings are not acceptable; the text names the setting."""


@dataclass(frozen=True, slots=True)
class BackendTls:
    """How the LLM server is spoken to over TLS, with paths of PEM files."""

    # What its certificate must say, and the CAs that may have issued it
    name: str
    ca: str
    # The certificate to show it, with its key; empty: none
    certificate: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class LlmServer:
    """The server behind the gateway."""

    # As the collection's catalogue calls it
    name: str = "ollama"
    # What the audit log calls it: OpenTelemetry's gen_ai.provider.name
    provider: str = "ollama"
    # Where it is asked for its list of models (host:port), and by which name
    backend: str = "127.0.0.1:11434"
    host_header: str = "localhost:11434"
    # Whether bodies may have the API's own fields only: it takes orders from others
    only_standard: bool = False
    # None: it is spoken to in the clear
    tls: BackendTls | None = None
    # The file with the key that it wants, one line; empty: it wants none
    key_file: str = ""
    # Who else is asked for the list, in turn, while the ones before do not answer
    more_backends: tuple[str, ...] = ()
    # Whether nginx chooses among several servers by the model, and must be told its name
    names_models: bool = False
    # The models there are, by their canonical names; empty: any
    models: tuple[str, ...] = ()


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
    # Largest body of one request, and of all that are held at a time (bytes)
    max_body_bytes: int = 10 * 1024 * 1024
    max_buffered_bytes: int = 128 * 1024 * 1024
    # How long an answer may wait for the disk, the counters or the LLM server's list (seconds)
    answer_timeout_seconds: float = 12.0
    llm_server: LlmServer = field(default_factory=LlmServer)
    # The server's routes with the shape of their bodies. What is not here is refused.
    routes: RouteTable = field(default_factory=RouteTable)
    # What a key may ask for, by the tier's name
    tiers: Mapping[str, Tier] = field(default_factory=lambda: parse_tiers({"standard": {}}))
    # What clients must show: api_key, mtls, both or either
    auth: str = "api_key"
    # The tier of keys that name none
    default_tier: str = "standard"
    # How long a request without an end counts as under way (seconds)
    lease_seconds: float = 3600.0
    # Off only on purpose: nothing is recorded then, and nothing refused for want of a record
    audit_enabled: bool = True
    audit_directory: str = "/var/log/llm-gateway"
    audit_state_directory: str = "/var/lib/llm-key-validator/audit"
    # hmac-sha256 (with the pepper), or sha256, which makes short prompts guessable
    audit_prompt_digest: str = "hmac-sha256"
    # Whether a record must be on the disk, not just with the kernel, before a request goes on
    audit_fsync: bool = False
    # A file is put aside at this size (bytes); so many of them are kept, 0: all
    audit_max_file_bytes: int = 100 * 1024 * 1024
    audit_keep_files: int = 0
    # file, and journald or syslog beside it: a record counts when one of them took it
    audit_sinks: tuple[str, ...] = ("file",)
    # A seal is set after so many records, or seconds
    audit_seal_records: int = 10_000
    audit_seal_seconds: float = 300.0
    # Records of refusals each second; the rest is counted in one record for each reason
    audit_refusals_per_second: int = 100
    # Counters shared with other gateways (unix://, redis://, rediss://); empty: this one's own
    counters_url: str = ""


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
    "max_body_bytes": (1024, 1024**3),
    "max_buffered_bytes": (1024, 16 * 1024**3),
    "answer_timeout_seconds": (0.1, 300),
    "lease_seconds": (1, 7 * 86400),
    "audit_max_file_bytes": (4096, 1024**4),
    "audit_keep_files": (0, 1_000_000),
    "audit_seal_records": (1, 10_000_000),
    "audit_seal_seconds": (1, 86400),
    "audit_refusals_per_second": (0, 100_000),
}
_SINKS = ("file", "journald", "syslog")
_DIGESTS = ("hmac-sha256", "sha256")
AUTH_MODES = ("api_key", "mtls", "both", "either")
_HOST_PORT = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")
_HOST_NAME = re.compile(r"[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*")
_WORD = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")


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
    config = Config(**{name: _checked(name, value) for name, value in raw.items()})
    if config.default_tier not in config.tiers:
        raise ConfigError("default_tier: is not among the tiers")
    return config


def _unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names: dict[str, Any] = {}
    for name, value in pairs:
        if name in names:
            raise ConfigError(f"setting {name!r} is given twice")
        names[name] = value
    return names


def _checked(name: str, value: object) -> object:
    """Return ``value`` as the setting's type, or raise ConfigError that names the setting."""
    if name in _BOUNDS:
        return _checked_number(name, value)
    try:
        return _CHECKS[name](value)
    except (RouteError, TierError, ValueError) as error:
        raise ConfigError(f"{name}: {error}") from None


def _checked_number(name: str, value: object) -> object:
    whole = isinstance(getattr(_DEFAULTS, name), int)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise ConfigError(f"{name}: must be a {'whole ' if whole else ''}number")
    low, high = _BOUNDS[name]
    if not low <= value <= high:
        raise ConfigError(f"{name}: must be between {low:g} and {high:g}")
    return value


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError("must be an absolute path")
    return value


def _switch(value: object) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _users(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(user, str) and user for user in value):
        raise ValueError("must be a list of user names")
    return tuple(value)


def _sinks(value: object) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(item in _SINKS for item in value):
        raise ValueError(f"must be a list of {', '.join(_SINKS)}")
    if "file" not in value:
        raise ValueError("the file must be one of them")
    return tuple(dict.fromkeys(value))


def _digest(value: object) -> str:
    if value not in _DIGESTS:
        raise ValueError(f"must be one of {', '.join(_DIGESTS)}")
    return str(value)


def _auth(value: object) -> str:
    if value not in AUTH_MODES:
        raise ValueError(f"must be one of {', '.join(AUTH_MODES)}")
    return str(value)


def _matching(pattern: re.Pattern[str], problem: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise ValueError(problem)
        return value

    return check


_name = _matching(_WORD, "must be 1 to 63 of a-z 0-9 . _ -")
_host_port = _matching(_HOST_PORT, "must be host:port")
_SERVER_CHECKS: dict[str, Callable[[object], str]] = {
    "name": _name,
    "provider": _name,
    "backend": _host_port,
    "host_header": _host_port,
}


def _counters(value: object) -> str:
    if not isinstance(value, str):
        raise ValueError("must be text")
    if value:
        parse_address(value)
    return value


_SERVER_OPTIONS = {"tls", "key_file", "only_standard", "more_backends", "names_models", "models"}


def _llm_server(value: object) -> LlmServer:
    if not isinstance(value, dict) or value.keys() - _SERVER_OPTIONS != _SERVER_CHECKS.keys():
        raise ValueError(f"must be an object with {', '.join(_SERVER_CHECKS)}, and tls or null")
    checked = {name: check(value[name]) for name, check in _SERVER_CHECKS.items()}
    tls = value.get("tls")
    key_file = _path(value["key_file"]) if value.get("key_file") else ""
    return LlmServer(
        **checked,
        tls=None if tls is None else _backend_tls(tls),
        key_file=key_file,
        only_standard=_switch(value.get("only_standard", False)),
        more_backends=_several(_host_port, value.get("more_backends", [])),
        names_models=_switch(value.get("names_models", False)),
        models=_several(_canonical, value.get("models", [])),
    )


def _several(check: Callable[[object], str], value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError("more_backends and models must be lists")
    return tuple(check(item) for item in value)


def _canonical(value: object) -> str:
    if not isinstance(value, str) or canonical_name(value) != value:
        raise ValueError("models must be canonical names")
    return value


def _backend_tls(value: object) -> BackendTls:
    if not isinstance(value, dict) or value.keys() - {"certificate", "key"} != {"name", "ca"}:
        raise ValueError("tls must be an object with name and ca, and certificate and key or none")
    tls = BackendTls(
        **{name: _path(text) if name != "name" else text for name, text in value.items()}
    )
    if not isinstance(tls.name, str) or not _HOST_NAME.fullmatch(tls.name):
        raise ValueError("tls.name must be a host name")
    if bool(tls.certificate) != bool(tls.key):
        raise ValueError("tls.certificate and tls.key go together")
    return tls


_CHECKS: dict[str, Callable[[object], object]] = {
    "registry_path": _path,
    "trusted_users": _users,
    "llm_server": _llm_server,
    "routes": parse_routes,
    "tiers": parse_tiers,
    "auth": _auth,
    "default_tier": _name,
    "audit_enabled": _switch,
    "audit_directory": _path,
    "audit_state_directory": _path,
    "audit_prompt_digest": _digest,
    "audit_fsync": _switch,
    "audit_sinks": _sinks,
    "counters_url": _counters,
}
_DEFAULTS = Config()
