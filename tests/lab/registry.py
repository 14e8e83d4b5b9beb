# SPDX-License-Identifier: GPL-3.0-or-later
"""A registry of models on a neighbour, over TLS: files, where Ollama asks for them.

Like Ollama's own it sends whoever wants a blob to another host: here its IPv6 address.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.lab import artifacts, firewall
from tests.lab.certificates import Authority
from tests.lab.hosts import Lab

PORT = 5443
MODEL = "lab/pulled"
_PLACE = "/srv/lab-registry"
_CERTIFICATE = "/srv/lab-registry.pem"

_WRITE = """
import base64, json, pathlib, sys
for name, text in json.load(sys.stdin).items():
    path = pathlib.Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(base64.b64decode(text))
"""
_SERVE = """
import http.server, socket, ssl, sys
place, certificate, blobs, port = sys.argv[1:]
class Handler(http.server.SimpleHTTPRequestHandler):
    def __init__(self, *words):
        super().__init__(*words, directory=place)
    def do_GET(self):
        if "/blobs/" not in self.path or self.headers["Host"] == blobs:
            return super().do_GET()
        self.send_response(307)
        self.send_header("Location", f"https://{blobs}{self.path}")
        self.end_headers()
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
server = Server(("::", int(port)), Handler)
trust = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
trust.load_cert_chain(certificate)
server.socket = trust.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""


def _layer(kind: str, content: bytes) -> dict[str, str | int]:
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    return {"mediaType": kind, "digest": digest, "size": len(content)}


def _files() -> dict[str, bytes]:
    """Return the manifest and the blobs of MODEL by their paths."""
    # Not the blob that the hosts have: they would not ask for that again.
    model = artifacts.model().read_bytes() + bytes(32)
    layer = _layer("application/vnd.ollama.image.model", model)
    about = {
        "model_format": "gguf", "model_family": "llama", "model_families": ["llama"],
        "architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [layer["digest"]]},
    }  # fmt: skip
    config = json.dumps(about).encode()
    config_layer = _layer("application/vnd.docker.container.image.v1+json", config)
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
        "config": config_layer,
        "layers": [layer],
    }
    place = f"{_PLACE}/v2/{MODEL}"
    return {
        f"{place}/manifests/latest": json.dumps(manifest).encode(),
        f"{place}/blobs/{layer['digest']}": model,
        f"{place}/blobs/{config_layer['digest']}": config,
    }


@contextmanager
def serving(lab: Lab, neighbour: str, hosts: Sequence[str]) -> Iterator[list[tuple[str, int]]]:
    """Have a neighbour serve MODEL, and the hosts trust it; gives its places."""
    address, address6 = lab.addresses()[neighbour]
    authority = Authority("Registry")
    pair = authority.issue(
        "registry", usage=ExtendedKeyUsageOID.SERVER_AUTH, addresses=(address, address6)
    )
    files = {**_files(), _CERTIFICATE: (pair.pem() + pair.key_pem()).encode()}
    encoded = {name: base64.b64encode(content).decode() for name, content in files.items()}
    lab.run(neighbour, "python3", "-c", _WRITE, stdin=json.dumps(encoded), check=True)
    for host in hosts:
        # Ollama reads once whom it trusts.
        trust = "mkdir -p /etc/ssl/certs; cat >/etc/ssl/certs/lab-registry.pem"
        again = "systemctl restart ollama.service"
        lab.run(host, "sh", "-euc", f"{trust}; {again}", stdin=authority.pem, check=True)
    unit = "lab-registry.service"
    serve = ["python3", "-c", _SERVE, _PLACE, _CERTIFICATE, f"[{address6}]:{PORT}", str(PORT)]
    run = ["systemd-run", "--quiet", "--collect", f"--unit={unit}", *serve]
    lab.run(neighbour, *run, check=True)
    try:
        firewall.wait_until_open(lab, neighbour, (address, PORT))
        for host in hosts:
            firewall.wait_until_open(lab, host, ("127.0.0.1", 11434))
        yield [(address, PORT), (address6, PORT)]
    finally:
        lab.run(neighbour, "systemctl", "stop", unit)
