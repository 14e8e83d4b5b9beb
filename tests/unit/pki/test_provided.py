# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of another CA for clients: judged before anything goes to a host."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.lab.certificates import DAY, Authority, now

from .test_ca import Control

ROOT = Authority("Corporate root")
ISSUING = Authority("Corporate issuing", ROOT)
GOOD = {"clients.crt": ROOT.pem + ISSUING.pem, "clients.crl": ROOT.crl() + ISSUING.crl()}


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({}, " failed=0 "),
        ({"clients.crl": ROOT.crl() + ISSUING.crl(end=now() - DAY)}, "would refuse all clients"),
        ({"clients.crt": ROOT.pem + ROOT.issue("a").pem()}, "holds a certificate that is no CA's"),
        ({"clients.crl": None}, "clients.crl is not a file on the control node"),
    ],
)
def test_files_for_clients(tmp_path: Path, files: dict[str, str | None], message: str) -> None:
    server = ISSUING.issue("s", usage=ExtendedKeyUsageOID.SERVER_AUTH, host="llm.test")
    key = server.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (tmp_path / "server.key").write_bytes(key)
    (tmp_path / "server.crt").write_text(server.pem())
    for name, text in {**GOOD, **files}.items():
        if text is not None:
            (tmp_path / name).write_text(text)
    said = Control(tmp_path).run(
        steps=("preflight_provided",),
        pki_source="provided",
        pki_certificate_file=str(tmp_path / "server.crt"),
        pki_private_key_file=str(tmp_path / "server.key"),
        pki_client_ca_file=str(tmp_path / "clients.crt"),
        pki_client_crl_file=str(tmp_path / "clients.crl"),
    )
    assert message in said, said
