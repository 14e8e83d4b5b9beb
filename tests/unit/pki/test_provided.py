# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of another CA: judged before anything goes to a host."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.lab.certificates import DAY, Authority, Pair, now

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


STRANGER = Authority("Stranger")
OLD = Authority("Corporate issuing", ROOT, end=now() - DAY / 2)
SERVER = {"usage": ExtendedKeyUsageOID.SERVER_AUTH, "host": "llm.test"}
LEAF, OTHER = ISSUING.issue("s", **SERVER), ISSUING.issue("s", **SERVER)
BY_ROOT = ROOT.issue("s", **SERVER)
WITHOUT_ISSUER = "comes without the certificate of its issuer"


@pytest.mark.parametrize(
    ("server", "chain", "root", "message"),
    [
        (LEAF, ISSUING.pem, None, " failed=0 "),
        (LEAF, ISSUING.pem + ROOT.pem, None, " failed=0 "),
        (LEAF, ISSUING.pem, STRANGER.pem + ROOT.pem, " failed=0 "),
        (LEAF, None, None, WITHOUT_ISSUER),
        (LEAF, None, ROOT.pem, "does not hold: Cannot complete chain"),
        (LEAF, ISSUING.pem, STRANGER.pem, "does not hold: Cannot complete chain"),
        (LEAF, STRANGER.pem, None, "does not hold: Cannot verify input chain"),
        (LEAF, ROOT.pem + ISSUING.pem, None, "does not hold: Cannot verify input chain"),
        (BY_ROOT, None, None, WITHOUT_ISSUER),
        (BY_ROOT, None, ROOT.pem, " failed=0 "),
        (OLD.issue("s", **SERVER), OLD.pem, ROOT.pem, "would not believe: it expired on"),
        (ISSUING.issue("s", **{**SERVER, "host": "b.test"}), ISSUING.pem, None, "does not name"),
        (ISSUING.issue("s", host="llm.test"), ISSUING.pem, None, "it is not for TLS servers"),
        (ISSUING.issue("s", end=now() - DAY / 2, **SERVER), ISSUING.pem, None, "it expired on"),
        (Pair(LEAF.certificate, OTHER.key), ISSUING.pem, None, "belong to the private key"),
    ],
)
def test_files_for_the_server(
    tmp_path: Path, server: Pair, chain: str | None, root: str | None, message: str
) -> None:
    texts = {"server.crt": server.pem(chain=False), "server.key": server.key_pem()}
    texts |= {"chain.crt": chain or "", "root.crt": root or ""}
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    said = Control(tmp_path).run(
        steps=("preflight_provided",),
        pki_source="provided",
        pki_for_clients=False,
        pki_certificate_file=str(tmp_path / "server.crt"),
        pki_private_key_file=str(tmp_path / "server.key"),
        pki_chain_file=str(tmp_path / "chain.crt") if chain else "",
        pki_root_file=str(tmp_path / "root.crt") if root else "",
    )
    assert message in said, said


@pytest.mark.parametrize(
    ("chain", "root", "sent", "end"),
    [
        ([ISSUING, ROOT], [], [ISSUING, ROOT], ROOT),
        ([ISSUING], [], [ISSUING], ISSUING),
        ([ISSUING], [STRANGER, ROOT], [ISSUING], ROOT),
    ],
)
def test_the_server_sends_its_chain_in_order(
    tmp_path: Path,
    chain: list[Authority],
    root: list[Authority],
    sent: list[Authority],
    end: Authority,
) -> None:
    (tmp_path / "host").mkdir()
    (tmp_path / "server.crt").write_text(LEAF.pem(chain=False))
    (tmp_path / "server.key").write_text(LEAF.key_pem())
    for name, certificates in (("chain.crt", chain), ("root.crt", root)):
        (tmp_path / name).write_text("".join(each.pem for each in certificates))
    said = Control(tmp_path).run(
        steps=("preflight_provided", "provided"),
        pki_source="provided",
        pki_for_clients=False,
        pki_certificate_file=str(tmp_path / "server.crt"),
        pki_private_key_file=str(tmp_path / "server.key"),
        pki_chain_file=str(tmp_path / "chain.crt"),
        pki_root_file=str(tmp_path / "root.crt") if root else "",
    )
    assert " failed=0 " in said, said
    expected = LEAF.pem(chain=False) + "".join(each.pem for each in sent)
    assert (tmp_path / "host/server.crt").read_text() == expected
    assert (tmp_path / "host/ca.crt").read_text() == end.pem
