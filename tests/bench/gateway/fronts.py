# SPDX-License-Identifier: GPL-3.0-or-later
"""The nginx instances: the LLM server's stand-in, and the gateway's own configuration."""

from __future__ import annotations

import json
from pathlib import Path

from tests.bench.gateway import machine
from tests.bench.gateway.processes import Program, listens
from tests.lab.steps import run
from tests.unit.gateway.stage import free_port, render

# wrk names the server in its handshake as the URL does.
NAME = "localhost"
# The limits are on, so that they are paid for, and out of reach.
_NO_LIMIT = {"rate": "1000000r/s", "burst": 1000000}

# As Debian's nginx.conf, but for where things are. As root nginx would give its workers to
# somebody else, who cannot look into this folder.
_MAIN = """\
user root;
daemon off;
worker_processes {workers};
pid nginx.pid;
error_log error.log notice;
events {{ worker_connections 768; }}
http {{
    sendfile on;
    tcp_nopush on;
    client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include conf.d/*.conf;
}}
"""
_LLM_SERVER = """\
server {{
    listen 127.0.0.1:{port};
    access_log off;
    keepalive_requests 1000000;
    location / {{
        default_type application/json;
        return 200 '{answer}';
    }}
}}
"""
_BARE = """\
upstream bare_llm_server {{
    server 127.0.0.1:{backend};
    keepalive 32;
    keepalive_requests 10000;
}}
server {{
    listen 127.0.0.1:{port} ssl;
    server_name {name};
    include llm-gateway/tls.conf;
    access_log off;
    location / {{
        proxy_pass http://bare_llm_server;
        proxy_http_version 1.1;
        proxy_set_header Connection "";
    }}
}}
"""
# In the place of the policy hop: on to the LLM server, as @backend would.
_STRAIGHT_ON = """\
proxy_pass_request_headers off;
proxy_set_header Host localhost:11434;
proxy_set_header Connection "";
proxy_set_header Accept $http_accept;
proxy_set_header Content-Type $content_type;
proxy_set_header X-Request-Id $request_id;
proxy_http_version 1.1;
proxy_buffering off;
proxy_pass http://llm_server$llm_route;
"""
# Which bodies go to the policy hop without a question before
_GATE = '"~^HTTP/1\\.[01]::[0-9]{0,4}$" open;'
ANSWER = {
    "id": "chatcmpl-0123456789",
    "object": "chat.completion",
    "created": 1795392000,
    "model": "tiny",
    "choices": [
        {
            "index": 0,
            "message": {
                "role": "assistant",
                "content": "Look at the disk first, then at the memory, then at the clock.",
            },
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 41, "completion_tokens": 14, "total_tokens": 55},
}


def start(folder: Path, *ports: int, workers: str = "auto") -> Program:
    """Start nginx with the configuration in ``folder``; it listens when this returns."""
    (folder / "nginx.conf").write_text(_MAIN.format(workers=workers))
    program = Program(
        [machine.nginx(), "-p", folder, "-c", folder / "nginx.conf", "-e", folder / "error.log"],
        folder / "error.log",
    )
    program.wait_for(lambda: all(map(listens, ports)))
    return program


def start_llm_server(folder: Path) -> tuple[Program, int]:
    """Start what answers every request with the same completion; return it and its port."""
    port = free_port()
    (folder / "conf.d").mkdir(parents=True)
    text = _LLM_SERVER.format(port=port, answer=json.dumps(ANSWER))
    (folder / "conf.d/llm-server.conf").write_text(text)
    return start(folder, port, workers="1"), port


def make_certificate(folder: Path) -> None:
    """Make a self-signed certificate of the kind that role pki issues."""
    run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", f"/CN={NAME}", "-addext", f"subjectAltName=DNS:{NAME}",
         "-keyout", folder / "server.key", "-out", folder / "server.crt"],
    )  # fmt: skip


def write_gateway(folder: Path, certificate: Path, backend: int, hop: Path, log: Path) -> int:
    """Render the role's configuration into ``folder``; return the port it listens on.

    ``hop`` and ``log`` are the validator's sockets.
    """
    port = free_port()
    render(
        folder,
        gateway_port=f"127.0.0.1:{port}",
        gateway_backend=f"127.0.0.1:{backend}",
        gateway_server_names=[NAME],
        gateway_certificate=str(certificate / "server.crt"),
        gateway_certificate_key=str(certificate / "server.key"),
        gateway_limit_per_key=_NO_LIMIT,
        gateway_limit_per_address=_NO_LIMIT,
        gateway_validator_socket=str(hop),
        gateway_audit_socket=str(log),
    )
    return port


def add_bare(folder: Path, backend: int) -> int:
    """Add the bare proxy to a gateway's folder; return its port."""
    port = free_port()
    text = _BARE.format(port=port, backend=backend, name=NAME)
    (folder / "conf.d/bare.conf").write_text(text)
    return port


def go_straight_on(folder: Path) -> None:
    """Leave the policy hop and the audit log out of a gateway's configuration."""
    limits = [
        line
        for line in (folder / "llm-gateway/authorize.conf").read_text().splitlines()
        if line.startswith("limit_req ")
    ]
    (folder / "llm-gateway/authorize.conf").write_text("\n".join(limits) + "\n" + _STRAIGHT_ON)
    site = folder / "conf.d/llm-gateway.conf"
    text = site.read_text()
    if _GATE not in text:
        raise RuntimeError(f"the gateway's configuration lacks the line {_GATE}")
    # Without the hop, /validate has to be asked about small bodies, too.
    lines = text.replace(_GATE, "").splitlines(keepends=True)
    site.write_text("".join(line for line in lines if "access_log syslog:" not in line))
