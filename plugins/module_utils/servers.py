# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The catalogue of LLM servers: what each one listens on, answers to, writes and must not be told.

Roles, nginx templates, the key validator's policy and the verify modules read this one place.
A new server is one more entry in ``SERVERS``. Pure: no input or output, standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = (
    "ENDPOINT_CLASSES",
    "MALICIOUS_RELEASES",
    "SERVERS",
    "VERSION_FLOORS",
    "Route",
    "Server",
    "UnknownServerError",
    "VersionError",
    "VersionFloor",
    "compare",
    "get_server",
    "missed_floors",
)

# `account` routes are listed so that a check can prove them closed; nothing may ever route them.
ENDPOINT_CLASSES = ("inference", "read", "inspect", "management", "account")

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE"})
_EXACT_PATH = re.compile(r"/[A-Za-z0-9._/-]*\Z")
_VERSION = re.compile(
    r"v?(?P<release>\d+(?:\.\d+)*)(?:-(?P<pre>[0-9A-Za-z.-]+))?(?:\+[0-9A-Za-z.-]+)?\Z"
)


class UnknownServerError(ValueError):
    """No such server in the catalogue."""


class VersionError(ValueError):
    """Text that is no version number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One endpoint: either an exact `path` or an anchored `pattern` without captures.

    `body` names the shape in which the key validator reads the request (its package `bodies`):
    `none` is no body, `opaque` one that it never sees. `models` says where else models are named:
    `list`, in the answer; `path`, in the path's last segment.
    """

    methods: tuple[str, ...]
    endpoint_class: str
    path: str | None = None
    pattern: str | None = None
    body: str = "none"
    models: str = ""

    def __post_init__(self) -> None:
        if (self.path is None) == (self.pattern is None):
            raise ValueError(f"a route has either a path or a pattern: {self}")
        if self.endpoint_class not in ENDPOINT_CLASSES:
            raise ValueError(f"unknown endpoint class {self.endpoint_class!r}: {self}")
        if not self.methods or not _METHODS.issuperset(self.methods):
            raise ValueError(f"unknown method in {self.methods}: {self}")
        if self.models not in ("", "list", "path"):
            raise ValueError(f"unknown place of models {self.models!r}: {self}")
        # GET with a body means nothing to HTTP (RFC 9110, 9.3.1): nobody shall rely on one.
        if self.body not in ("none", "opaque") and {"GET", "HEAD"} & set(self.methods):
            raise ValueError(f"GET and HEAD have no body to read: {self}")
        if self.path is not None and not _EXACT_PATH.match(self.path):
            raise ValueError(f"not a plain path: {self.path!r}")
        if self.pattern is not None:
            _check_pattern(self.pattern)

    def matches(self, method: str, path: str) -> bool:
        """Tell whether a request (path without query, already normalised) is this route's."""
        if method not in self.methods:
            return False
        if self.pattern is None:
            return path == self.path
        # fullmatch: `$` alone would also match before a final line feed.
        return re.fullmatch(self.pattern, path) is not None

    def as_dict(self) -> dict[str, Any]:
        """Return `methods`, `class`, `body`, `models` and whichever of `path`, `pattern` is set."""
        place = {"path": self.path} if self.pattern is None else {"pattern": self.pattern}
        kind = {"class": self.endpoint_class, "body": self.body, "models": self.models}
        return {"methods": list(self.methods), **place, **kind}


def _check_pattern(pattern: str) -> None:
    """Refuse a pattern that nginx and Python could read differently, or that is not anchored.

    Captures are out because of nginx CVE-2026-42945 and its kin (rewrite and map with captures).
    """
    if not (pattern.startswith("^/") and pattern.endswith("$")):
        raise ValueError(f"pattern is not anchored with ^/ and $: {pattern!r}")
    if "(" in pattern or re.compile(pattern).groups:
        raise ValueError(f"pattern has a group: {pattern!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFloor:
    """Versions below `version` are affected by every one of `cves`."""

    version: str
    cves: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return the floor as plain data."""
        return {"version": self.version, "cves": list(self.cves)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Everything the collection knows about one LLM server; times and sizes are not its business.

    `environment` is what hardening sets, `forbidden_environment` what must not be set by anybody.
    `host_header` is the Host a proxy must send. `health_path` answers 200 without a key.
    `install_version` is the release a role installs unless told otherwise, "" where none does.
    `key_file` is where a role leaves the key that the server wants of a proxy, `user_header` the
    header in which it is told whose request this is. Both are "" for a server without.
    `only_standard` tells that it takes orders from fields of a body that are not its API's (another
    model to fall back to, say), so that the key validator lets no others through.
    """

    name: str
    unit: str
    user: str
    group: str
    home: str
    address: str
    port: int
    host_header: str
    health_path: str
    install_version: str
    environment: Mapping[str, str]
    forbidden_environment: tuple[str, ...]
    writable_paths: tuple[str, ...]
    devices: tuple[str, ...]
    routes: tuple[Route, ...]
    version_floors: tuple[VersionFloor, ...] = field(default=())
    key_file: str = ""
    user_header: str = ""
    only_standard: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for templates: lists and dicts all the way down."""
        return {
            "name": self.name,
            "unit": self.unit,
            "user": self.user,
            "group": self.group,
            "home": self.home,
            "address": self.address,
            "port": self.port,
            "host_header": self.host_header,
            "health_path": self.health_path,
            "install_version": self.install_version,
            "environment": dict(self.environment),
            "forbidden_environment": list(self.forbidden_environment),
            "writable_paths": list(self.writable_paths),
            "devices": list(self.devices),
            "routes": [route.as_dict() for route in self.routes],
            "version_floors": [floor.as_dict() for floor in self.version_floors],
            "key_file": self.key_file,
            "user_header": self.user_header,
            "only_standard": self.only_standard,
        }


def _exact(endpoint_class: str, methods: str, *paths: str, models: str = "") -> tuple[Route, ...]:
    """Return one route per path; `methods` is a space-separated list."""
    verbs = tuple(methods.split())
    return tuple(
        Route(methods=verbs, path=path, endpoint_class=endpoint_class, models=models)
        for path in paths
    )


def _with_body(endpoint_class: str, method: str, shapes: Mapping[str, str]) -> tuple[Route, ...]:
    """Return one route per path of `shapes`, which says how each one's body reads."""
    return tuple(
        Route(methods=(method,), path=path, endpoint_class=endpoint_class, body=body)
        for path, body in shapes.items()
    )


def _pattern(
    endpoint_class: str, methods: str, pattern: str, body: str = "none", models: str = ""
) -> tuple[Route, ...]:
    """Return a parameterised route as a tuple of one, so that tables can be added up."""
    verbs = tuple(methods.split())
    kind = {"endpoint_class": endpoint_class, "body": body, "models": models}
    return (Route(methods=verbs, pattern=pattern, **kind),)


# What systemd lets a confined server open for its GPU, as the NixOS module for Ollama has it.
# A node that a host lacks is ignored by systemd.
GPU_DEVICES = (
    "char-nvidiactl rw",
    "char-nvidia-caps rw",
    "char-nvidia-frontend rw",
    "char-nvidia-uvm rw",
    "char-drm rw",
    "char-fb rw",
    "char-kfd rw",
    "/dev/dxg rw",
)

# Ollama v0.33.0, server/routes.go, GenerateRoutes. A name in a path is one segment there; its
# grammar is types/model/name.go (letters, digits and `_ - .`, a colon before the tag).
_OLLAMA_ROUTES = (
    *_with_body(
        "inference",
        "POST",
        {
            "/api/generate": "ollama_generate",
            "/api/chat": "ollama_chat",
            "/api/embed": "ollama_embed",
            "/api/embeddings": "ollama_embeddings",
            "/v1/chat/completions": "openai_chat",
            "/v1/completions": "openai_completions",
            "/v1/embeddings": "openai_embeddings",
            "/v1/responses": "openai_responses",
            "/v1/audio/transcriptions": "openai_audio",
            "/v1/messages": "anthropic_messages",
        },
    ),
    *_exact("read", "GET HEAD", "/", "/api/version"),
    *_exact("read", "GET HEAD", "/api/tags", models="list"),
    *_exact("read", "GET", "/api/status"),
    *_exact("read", "GET", "/api/ps", "/v1/models", models="list"),
    *_pattern("read", "GET", r"^/v1/models/[A-Za-z0-9._:-]+$", models="path"),
    # Shows templates and system prompts, so it is no mere `read`.
    *_with_body("inspect", "POST", {"/api/show": "ollama_show"}),
    *_with_body(
        "management",
        "POST",
        {
            "/api/pull": "ollama_pull",
            "/api/push": "ollama_push",
            "/api/create": "ollama_create",
            "/api/copy": "ollama_copy",
        },
    ),
    *_with_body("management", "DELETE", {"/api/delete": "ollama_delete"}),
    *_pattern("management", "HEAD POST", r"^/api/blobs/sha256[:-][0-9a-f]+$", "opaque"),
    *_exact("account", "POST", "/api/me", "/api/signout"),
    *_pattern("account", "DELETE", r"^/api/user/keys/[A-Za-z0-9._~%+=-]+$"),
    *_pattern("account", "GET POST", r"^/api/experimental/[A-Za-z0-9._/-]+$"),
    *_pattern("account", "GET POST", r"^/debug/[A-Za-z0-9._/-]*$"),
)

# What OpenAI's clients use, by the shapes that the key validator reads. Whoever else speaks it has
# more routes (images, speech, files, batches): bodies that nobody judges are not let through.
_OPENAI_SHAPES: Mapping[str, str] = MappingProxyType(
    {
        "/v1/chat/completions": "openai_chat",
        "/v1/completions": "openai_completions",
        "/v1/embeddings": "openai_embeddings",
        "/v1/responses": "openai_responses",
        "/v1/audio/transcriptions": "openai_audio",
        "/v1/messages": "anthropic_messages",
    }
)
_OPENAI_MODELS = _exact("read", "GET", "/v1/models", models="list")


def _closed(methods: str, *prefixes: str) -> tuple[Route, ...]:
    """Return routes that nothing may ever route: each prefix by itself and all below it."""
    return tuple(
        route
        for prefix in prefixes
        for route in (
            *_exact("account", methods, prefix),
            *_pattern("account", methods, rf"^{prefix}/[A-Za-z0-9._/-]+$"),
        )
    )


# LocalAI v4.9.0, core/http/routes. Each of its keys is a full administrator's, so that what
# installs, settles or traces something is never for a client, whatever class its key has.
_LOCALAI_ROUTES = (
    *_with_body(
        "inference",
        "POST",
        {
            **_OPENAI_SHAPES,
            "/api/generate": "ollama_generate",
            "/api/chat": "ollama_chat",
            "/api/embed": "ollama_embed",
            "/api/embeddings": "ollama_embeddings",
        },
    ),
    *_OPENAI_MODELS,
    *_exact("read", "GET", "/readyz", "/version"),
    *_exact("read", "GET", "/api/tags", "/api/ps", models="list"),
    *_with_body("inspect", "POST", {"/api/show": "ollama_show"}),
    *_closed("GET POST DELETE", "/models", "/backends", "/backend"),
    *_closed(
        "GET POST PUT PATCH DELETE",
        "/api/agent", "/api/backend-logs", "/api/cors-proxy", "/api/p2p", "/api/settings",
        "/api/traces",
    ),
    *_closed("GET", "/swagger", "/system", "/metrics"),
)  # fmt: skip

# LiteLLM 1.108.7, litellm/proxy. What is under `/` (the admin interface), the keys, the teams and
# the money are for whoever holds its master key, on the host itself.
_LITELLM_ROUTES = (
    *_with_body("inference", "POST", _OPENAI_SHAPES),
    *_OPENAI_MODELS,
    *_exact("read", "GET", "/health/liveliness"),
    # It calls the real models.
    *_exact("account", "GET", "/", "/health", "/health/readiness", "/routes", "/metrics"),
    *_exact("account", "GET", "/docs", "/redoc", "/openapi.json"),
    *_closed(
        "GET POST PUT PATCH DELETE",
        "/budget", "/cache", "/config", "/credentials", "/customer", "/fallback", "/global",
        "/guardrails", "/key", "/login", "/mcp", "/model", "/organization", "/prompts", "/spend",
        "/sso", "/team", "/ui", "/user",
    ),
)  # fmt: skip

# llama.cpp, tools/server/README.md. Its list of models has one name, that of the file or --alias.
_LLAMA_CPP_ROUTES = (
    *_with_body("inference", "POST", _OPENAI_SHAPES),
    *_OPENAI_MODELS,
    *_exact("read", "GET", "/health"),
    *_exact("account", "GET POST", "/props", "/lora-adapters"),
    *_exact("account", "GET", "/", "/metrics"),
    # Bodies without a model, which nobody judges.
    *_exact(
        "account", "POST",
        "/apply-template", "/completion", "/completions", "/detokenize", "/embedding",
        "/embeddings", "/infill", "/rerank", "/tokenize",
    ),
    *_closed("GET POST", "/models", "/slots"),
)  # fmt: skip

# vLLM, vllm/entrypoints. Its key guards only what is below /v1, so all else is never routed.
_VLLM_ROUTES = (
    *_with_body("inference", "POST", _OPENAI_SHAPES),
    *_OPENAI_MODELS,
    *_exact("read", "GET", "/health", "/version"),
    *_exact("account", "GET", "/docs", "/load", "/metrics", "/openapi.json", "/redoc"),
    *_exact(
        "account", "POST",
        "/classify", "/collective_rpc", "/detokenize", "/invocations", "/pooling", "/rerank",
        "/reset_mm_cache", "/reset_prefix_cache", "/scale_elastic_ep", "/score", "/sleep",
        "/start_profile", "/stop_profile", "/tokenize", "/v1/load_lora_adapter",
        "/v1/unload_lora_adapter", "/wake_up",
    ),
)  # fmt: skip

# The NVD entries of the CVEs, newest first. Where a CVE names only the last affected version,
# the floor is the release after it.
_OLLAMA_FLOORS = (
    VersionFloor(version="0.35.0", cves=("CVE-2026-103663",)),
    VersionFloor(version="0.34.2", cves=("CVE-2026-108836", "CVE-2026-85180", "CVE-2026-5530")),
    VersionFloor(version="0.17.1", cves=("CVE-2026-7482",)),
    VersionFloor(version="0.12.4", cves=("CVE-2025-63389",)),
    VersionFloor(version="0.6.8", cves=("CVE-2025-51471",)),
    VersionFloor(version="0.4.0", cves=("CVE-2024-12886", "CVE-2025-0315", "CVE-2024-39719")),
    VersionFloor(version="0.1.47", cves=("CVE-2024-45436",)),
    VersionFloor(version="0.1.46", cves=("CVE-2024-39720", "CVE-2024-39722")),
    VersionFloor(version="0.1.34", cves=("CVE-2024-37032", "CVE-2024-39721")),
    VersionFloor(version="0.1.29", cves=("CVE-2024-28224",)),
)

_OLLAMA = Server(
    name="ollama",
    # Unit, user and home: Ollama v0.33.0, scripts/install.sh, configure_systemd.
    unit="ollama.service",
    user="ollama",
    group="ollama",
    home="/usr/share/ollama",
    address="127.0.0.1",
    port=11434,
    # Bound to loopback it answers 403 to a foreign Host (allowedHostsMiddleware), which is the
    # answer to CVE-2024-28224 (DNS rebinding).
    host_header="localhost:11434",
    health_path="/api/version",
    install_version="0.35.0",
    environment=MappingProxyType(
        {
            "OLLAMA_HOST": "127.0.0.1:11434",
            # No model that runs somewhere else, no web search.
            "OLLAMA_NO_CLOUD": "1",
            # Level 2 (trace) writes what the model reads and says to the journal.
            "OLLAMA_DEBUG": "0",
        }
    ),
    forbidden_environment=(
        # Hosts that may answer in place of the local model.
        "OLLAMA_REMOTES",
        "OLLAMA_CLOUD_BASE_URL",
        # Writes every request body to a file below the temporary directory.
        "OLLAMA_DEBUG_LOG_REQUESTS",
    ),
    writable_paths=("/usr/share/ollama",),
    devices=GPU_DEVICES,
    routes=_OLLAMA_ROUTES,
    version_floors=_OLLAMA_FLOORS,
)

# The advisories of LocalAI and LiteLLM, newest first; of LiteLLM's some spare very old releases.
_LOCALAI_FLOORS = (VersionFloor(version="4.6.0", cves=("CVE-2026-59707",)),)
_LITELLM_FLOORS = (
    VersionFloor(
        version="1.84.0",
        cves=(
            "CVE-2026-49468", "CVE-2026-42203", "CVE-2026-40217", "CVE-2026-47101",
            "CVE-2026-47102", "CVE-2026-35029",
        ),
    ),
    VersionFloor(version="1.83.7", cves=("CVE-2026-42208", "CVE-2026-42271")),
)  # fmt: skip

_LOCALAI = Server(
    name="localai",
    # Unit, user and folder: LocalAI's documentation.
    unit="local-ai.service",
    user="localai",
    group="localai",
    home="/var/lib/local-ai",
    address="127.0.0.1",
    port=8080,
    host_header="127.0.0.1:8080",
    health_path="/readyz",
    install_version="4.9.0",
    environment=MappingProxyType(
        {
            # Ignored under socket activation: the role refuses such a unit.
            "LOCALAI_ADDRESS": "127.0.0.1:8080",
            "LOCALAI_DISABLE_WEBUI": "true",
            "LOCALAI_DISABLE_RUNTIME_SETTINGS": "true",
            "LOCALAI_DISABLE_METRICS_ENDPOINT": "true",
            "LOCALAI_REQUIRE_BACKEND_INTEGRITY": "true",
            # Nothing of the inside in an error's text.
            "LOCALAI_OPAQUE_ERRORS": "true",
            # Keys in constant time.
            "LOCALAI_SUBTLE_KEY_COMPARISON": "true",
        }
    ),
    # Other spellings of what is set above, or of the key.
    forbidden_environment=("ADDRESS", "API_KEY"),
    writable_paths=("/var/lib/local-ai",),
    devices=GPU_DEVICES,
    routes=_LOCALAI_ROUTES,
    version_floors=_LOCALAI_FLOORS,
    key_file="/etc/local-ai/credentials/api-key",
    # `backend` names the program that runs the model.
    only_standard=True,
)

_LITELLM = Server(
    name="litellm",
    unit="litellm.service",
    user="litellm",
    group="litellm",
    home="/var/lib/litellm",
    address="127.0.0.1",
    port=4000,
    host_header="127.0.0.1:4000",
    health_path="/health/liveliness",
    install_version="1.108.7",
    environment=MappingProxyType(
        {
            "LITELLM_MODE": "PRODUCTION",
            # Prices come with the package; nothing is fetched at the start.
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",
            # A lower level writes requests to the journal.
            "LITELLM_LOG": "ERROR",
            "DISABLE_ADMIN_UI": "True",
            "NO_DOCS": "True",
            "NO_REDOC": "True",
            "NO_OPENAPI": "True",
        }
    ),
    # Prompts do not belong into a database, and nobody signs in on a web page.
    forbidden_environment=("STORE_PROMPTS_IN_SPEND_LOGS", "UI_PASSWORD"),
    writable_paths=("/var/lib/litellm",),
    devices=(),
    routes=_LITELLM_ROUTES,
    version_floors=_LITELLM_FLOORS,
    key_file="/etc/litellm/credentials/gateway-key",
    user_header="x-litellm-end-user-id",
    # `fallbacks` with `mock_testing_fallbacks` bring any other model; `metadata` steers it, too.
    only_standard=True,
)

# No role installs these two; service_sandbox confines a unit that somebody made.
_LLAMA_CPP = Server(
    name="llama_cpp",
    unit="llama-server.service",
    user="llama",
    group="llama",
    home="/var/lib/llama",
    address="127.0.0.1",
    port=8080,
    host_header="127.0.0.1:8080",
    health_path="/health",
    install_version="",
    environment=MappingProxyType({"LLAMA_ARG_HOST": "127.0.0.1", "LLAMA_ARG_PORT": "8080"}),
    # `n_predict` goes before `max_tokens`, `n_cmpl` before `n`, and `lora` and `id_slot` choose.
    only_standard=True,
    forbidden_environment=(),
    writable_paths=(),
    devices=GPU_DEVICES,
    routes=_LLAMA_CPP_ROUTES,
)

_VLLM = Server(
    name="vllm",
    unit="vllm.service",
    user="vllm",
    group="vllm",
    home="/var/lib/vllm",
    # There is no variable for it: the unit's ExecStart= needs --host 127.0.0.1.
    address="127.0.0.1",
    port=8000,
    host_header="127.0.0.1:8000",
    health_path="/health",
    install_version="",
    environment=MappingProxyType({"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}),
    # Requests that name a file or an address of their own choice; a debugging interface.
    forbidden_environment=("VLLM_SERVER_DEV_MODE", "VLLM_ALLOW_RUNTIME_LORA_UPDATING"),
    writable_paths=("/var/lib/vllm",),
    devices=GPU_DEVICES,
    routes=_VLLM_ROUTES,
    # Its extra parameters are many, and each release has more.
    only_standard=True,
)

SERVERS: Mapping[str, Server] = MappingProxyType(
    {server.name: server for server in (_OLLAMA, _LOCALAI, _LITELLM, _LLAMA_CPP, _VLLM)}
)

# By name, also where no role of ours is in play: a host may run one that nobody hardened.
VERSION_FLOORS: Mapping[str, tuple[VersionFloor, ...]] = MappingProxyType(
    {"ollama": _OLLAMA_FLOORS, "localai": _LOCALAI_FLOORS, "litellm": _LITELLM_FLOORS}
)

# Releases that somebody else put on the package index (24 March 2026).
MALICIOUS_RELEASES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"litellm": ("1.82.7", "1.82.8")}
)


def get_server(name: str) -> Server:
    """Return the entry called `name`.

    Raises UnknownServerError, which names the servers there are.
    """
    try:
        return SERVERS[name]
    except KeyError:
        known = ", ".join(sorted(SERVERS))
        raise UnknownServerError(f"unknown LLM server {name!r}; known: {known}") from None


def _sort_key(version: str) -> tuple[tuple[int, ...], tuple[Any, ...]]:
    """Return a key that orders versions as Semantic Versioning 2.0.0 section 11 does.

    A pre-release is below its release; its numeric parts are below its words.
    """
    found = _VERSION.match(version.strip())
    if found is None:
        raise VersionError(f"not a version number: {version!r}")
    release = tuple(int(part) for part in found["release"].split("."))
    while release and release[-1] == 0:  # 1.2 and 1.2.0 are one version
        release = release[:-1]
    if found["pre"] is None:
        return release, ((2,),)
    return release, tuple(_pre_release_key(part) for part in re.split(r"[.-]", found["pre"]))


def _pre_release_key(part: str) -> tuple[Any, ...]:
    """Order one part of a pre-release; `rc10` comes after `rc2`, as people mean it."""
    if part.isdecimal():
        return (0, "", int(part))
    word, digits = re.match(r"(.*?)(\d*)\Z", part).groups()  # type: ignore[union-attr]
    return (1, word, int(digits or 0))


def compare(left: str, right: str) -> int:
    """Return -1, 0 or 1: whether version `left` is older than, equal to or newer than `right`.

    `v0.33.0`, `0.33` and `0.33.0-rc2` are understood; raises VersionError for anything else.
    """
    first, second = _sort_key(left), _sort_key(right)
    return (first > second) - (first < second)


def missed_floors(floors: Sequence[VersionFloor], version: str) -> list[VersionFloor]:
    """Return the floors that `version` is below, in the catalogue's order."""
    return [floor for floor in floors if compare(version, floor.version) < 0]
