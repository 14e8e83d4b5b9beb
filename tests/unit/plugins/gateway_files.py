# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's files in all variants, and Debian's nginx.conf."""

from __future__ import annotations

import base64
import functools
import typing as t

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.checks import (
    configuration_findings,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.expected import expected_from
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_syntax import assemble
from ansible_collections.llmsec.hardening.plugins.modules.verify_gateway import ARGUMENTS

from tests.unit.gateway import rendering
from tests.unit.gateway.rendering import FACTS, NAME, Files

MAIN = "/etc/nginx/nginx.conf"
SITE = "/etc/nginx/conf.d/llm-gateway.conf"
FOLDER = "/etc/nginx/llm-gateway"
# What Debian 12 installs, without its comments
DEBIAN = {
    MAIN: """user www-data;
worker_processes auto;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log;
include /etc/nginx/modules-enabled/*.conf;

events {
    worker_connections 768;
    # multi_accept on;
}

http {
    sendfile on;
    tcp_nopush on;
    types_hash_max_size 2048;
    # server_tokens off;

    include /etc/nginx/mime.types;
    default_type application/octet-stream;

    ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3; # Dropping SSLv3, ref: POODLE
    ssl_prefer_server_ciphers on;

    access_log /var/log/nginx/access.log;

    gzip on;

    include /etc/nginx/conf.d/*.conf;
    include /etc/nginx/sites-enabled/*;
}
""",
    "/etc/nginx/mime.types": "types {\n    text/html html htm shtml;\n    text/css css;\n}\n",
    "/etc/nginx/modules-enabled/50-mod-stream.conf": "load_module modules/ngx_stream_module.so;\n",
}
WELCOME = """server {
    listen 80 default_server;
    listen [::]:80 default_server;
    root /var/www/html;
    index index.html index.htm index.nginx-debian.html;
    server_name _;
    location / {
        # First attempt to serve request as file, then as directory
        try_files $uri $uri/ =404;
    }
}
"""

IPV6 = {"__gateway_if_inet6": {"stat": {"exists": True}}}
OCSP = {"__gateway_ocsp": {"stdout": "http://ocsp.example.com"}}
TRIXIE = {"ansible_facts": {**FACTS, "distribution_major_version": "13"}}
MODERN = {"gateway_tls_profile": "modern"}
BEHIND_TLS = {
    "gateway_backend": "192.0.2.20:443",
    "gateway_backend_tls": True,
    "gateway_backend_name": "gpu1.example.com",
    "gateway_backend_ca": "/etc/llm-gateway/backend/ca.crt",
}
SHOWN = {
    "gateway_backend_certificate": "/etc/llm-gateway/backend/client.crt",
    "gateway_backend_certificate_key": "/etc/llm-gateway/backend/client.key",
}
POOL = {"gateway_backends": [{"address": "127.0.0.1:8080"}, {"address": "127.0.0.1:8081"}]}
BY_MODEL = {
    "gateway_backends": [
        {"address": "127.0.0.1:8080"},
        {"address": "127.0.0.1:8081", "models": ["tiny", "hf.co/team/big.v1:q4"]},
        {"address": "127.0.0.1:8082", "models": ["TINY:latest"], "drain": True},
    ]
}
NAMES = {"gateway_server_names": [NAME, "Llm.Internal.Example.Com", "192.0.2.1", "2001:db8::1"]}
ALL_CLASSES = {"gateway_route_classes": ["inference", "read", "inspect", "management"]}
OFF = {
    "gateway_limit_per_key": None,
    "gateway_limit_per_address": None,
    "gateway_connections_per_address": None,
    "gateway_audit_socket": None,
    "gateway_access_log": False,
    "gateway_hsts": False,
    "gateway_client_crl": "",
    "gateway_auth": "mtls",
}
VARIANTS: dict[str, dict[str, t.Any]] = {
    **{
        f"{auth}_{profile}": {"gateway_auth": auth, "gateway_tls_profile": profile}
        for auth in ("api_key", "mtls", "both", "either")
        for profile in ("intermediate", "modern")
    },
    "ipv6": IPV6,
    "stapling": {**OCSP, **TRIXIE, "gateway_auth": "both"},
    "upstream_tls": {**BEHIND_TLS},
    "upstream_mtls": {**BEHIND_TLS, **SHOWN, **MODERN, **IPV6, "gateway_auth": "either"},
    "names": {**NAMES, **IPV6},
    "routes": {"gateway_extra_routes": ["POST /api/show"], "gateway_port": 8443},
    "limits": {
        "gateway_limit_per_key": {"rate": "5r/s"},
        "gateway_limit_per_address": {"rate": "60r/m", "burst": 20},
        "gateway_connections_per_address": 7,
        "gateway_max_body_size": "1m",
        "gateway_max_header_size": "16k",
        "gateway_client_timeout": 5,
        "gateway_access_log": False,
    },
    "pool": POOL,
    "pool_drained": {
        "gateway_backends": [*POOL["gateway_backends"], {"address": "[::1]:8082", "drain": True}]
    },
    "by_model": BY_MODEL,
    "by_model_only": {
        **BEHIND_TLS,
        "gateway_backends": [
            {"address": "192.0.2.20:443", "models": ["tiny"]},
            {"address": "192.0.2.21:443", "models": ["big"]},
        ],
    },
    "management": ALL_CLASSES,
    "off": OFF,
    "litellm": {
        "gateway_llm_server": "litellm",
        "__gateway_key_text": {"content": base64.b64encode(b"sk-theirs\n").decode()},
    },
}
# What the module calls otherwise than the role does
_OPTIONS = {"endpoint_classes": "gateway_route_classes", "server": "gateway_llm_server"}


@functools.cache
def rendered() -> dict[str, Files]:
    """Return {variant: {path: text}}, Debian's own files included."""
    return {
        name: {**DEBIAN, **rendering.rendered(**variables)} for name, variables in VARIANTS.items()
    }


def options(**settings: t.Any) -> dict[str, t.Any]:
    """Return the module's options as they are by default, but for these."""
    defaults = {name: spec.get("default") for name, spec in ARGUMENTS.items()}
    return {**defaults, "server_names": [NAME], **settings}


def options_of(variant: str) -> dict[str, t.Any]:
    """Return the options that fit what a variant was rendered from."""
    variables = VARIANTS[variant]
    found = {name: f"gateway_{name}" for name in ARGUMENTS} | _OPTIONS
    chosen = {name: variables[key] for name, key in found.items() if key in variables}
    if variables.get("gateway_backend_tls"):
        chosen["backend"] = f"https://{variables['gateway_backend']}"
    return options(**chosen)


def judge(configuration: Files, **settings: t.Any) -> dict[str, dict[str, t.Any]]:
    """Return the findings about a configuration by their ids."""
    expected = expected_from(options(**settings), ["192.0.2.1", "2001:db8::1"])
    found = configuration_findings(assemble(configuration, MAIN), expected)
    by_id = {one["id"]: one for one in found}
    assert len(by_id) == len(found)
    return by_id


def red(findings: dict[str, dict[str, t.Any]]) -> set[str]:
    """Return the ids that are neither a pass nor skipped."""
    return {name for name, one in findings.items() if one["result"] not in ("pass", "skip")}


def changed(files: Files, path: str, old: str, new: str) -> Files:
    """Return the files with the first such place in one of them changed."""
    assert old in files[path], old
    return {**files, path: files[path].replace(old, new, 1)}
