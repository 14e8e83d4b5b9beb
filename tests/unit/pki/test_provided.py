# SPDX-License-Identifier: GPL-3.0-or-later
"""Files of another CA: judged before anything goes to a host, and what then goes there."""

from __future__ import annotations

import typing as t
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.lab.certificates import DAY, Authority, Pair, now

from .control import Control

ROOT = Authority("Corporate root")
ISSUING = Authority("Corporate issuing", ROOT)
STRANGER = Authority("Stranger")
OLD = Authority("Corporate issuing", ROOT, end=now() - DAY / 2)
SERVER: dict[str, t.Any] = {"usage": ExtendedKeyUsageOID.SERVER_AUTH, "host": "llm.test"}
LEAF, OTHER = ISSUING.issue("s", **SERVER), ISSUING.issue("s", **SERVER)
BY_ROOT = ROOT.issue("s", **SERVER)


@dataclass(frozen=True)
class Case:
    """What is provided, and what is said of it; files without text are not there."""

    server: Pair = field(default_factory=lambda: LEAF)
    chain: str = ""
    root: str = ""
    clients: tuple[str, str] | None = None  # CAs and lists
    message: str = " failed=0 "
    sent: list[Authority] = field(default_factory=list)
    end: Authority | None = None  # where the files are put, too

    def variables(self, folder: Path) -> dict[str, object]:
        """Write the files into a folder of this case, and name them."""
        (folder / "host").mkdir(parents=True)
        ca, crl = self.clients or ("", "")
        texts = {
            # With clients, the chain comes in one file with the certificate.
            "pki_certificate_file": self.server.pem(chain=self.clients is not None),
            "pki_private_key_file": self.server.key_pem(),
            "pki_chain_file": self.chain,
            "pki_root_file": self.root,
            "pki_client_ca_file": ca,
            "pki_client_crl_file": crl,
        }
        for name, text in texts.items():
            if text:
                (folder / name).write_text(text)
        optional = [name for name in ("pki_chain_file", "pki_root_file") if not texts[name]]
        return {
            "pki_source": "provided",
            "pki_directory": str(folder / "host"),
            "pki_for_clients": self.clients is not None,
            "put_files": self.end is not None,
            **{name: str(folder / name) for name in texts},
            **dict.fromkeys(optional, ""),
        }


CAS, LISTS = ROOT.pem + ISSUING.pem, ROOT.crl() + ISSUING.crl()
WITHOUT_ISSUER = "comes without the certificate of its issuer"
UNKNOWN_END = "does not hold: Cannot complete chain"
BROKEN = "does not hold: Cannot verify input chain"
OF_B = ISSUING.issue("s", **{**SERVER, "host": "b.test"})
EXPIRED = ISSUING.issue("s", end=now() - DAY / 2, **SERVER)
CASES = {
    "issuing": Case(chain=ISSUING.pem, sent=[ISSUING], end=ISSUING),
    "to-the-root": Case(chain=ISSUING.pem + ROOT.pem, sent=[ISSUING, ROOT], end=ROOT),
    "roots-apart": Case(chain=ISSUING.pem, root=STRANGER.pem + ROOT.pem, sent=[ISSUING], end=ROOT),
    "by-the-root": Case(BY_ROOT, root=ROOT.pem),
    "alone": Case(message=WITHOUT_ISSUER),
    "alone-by-the-root": Case(BY_ROOT, message=WITHOUT_ISSUER),
    "gap": Case(root=ROOT.pem, message=UNKNOWN_END),
    "other-root": Case(chain=ISSUING.pem, root=STRANGER.pem, message=UNKNOWN_END),
    "other-chain": Case(chain=STRANGER.pem, message=BROKEN),
    "wrong-order": Case(chain=ROOT.pem + ISSUING.pem, message=BROKEN),
    "old-issuer": Case(
        OLD.issue("s", **SERVER), OLD.pem, ROOT.pem, message="would not believe: it expired on"
    ),
    "other-name": Case(OF_B, ISSUING.pem, message="does not name"),
    "no-server": Case(
        ISSUING.issue("s", host="llm.test"), ISSUING.pem, message="it is not for TLS servers"
    ),
    "expired": Case(EXPIRED, ISSUING.pem, message="it expired on"),
    "other-key": Case(
        Pair(LEAF.certificate, OTHER.key), ISSUING.pem, message="belong to the private key"
    ),
    "clients": Case(clients=(CAS, LISTS)),
    "clients-old-list": Case(
        clients=(CAS, ROOT.crl() + ISSUING.crl(end=now() - DAY)),
        message="would refuse all clients",
    ),
    "clients-no-ca": Case(
        clients=(ROOT.pem + ROOT.issue("a").pem(), LISTS),
        message="holds a certificate that is no CA's",
    ),
    "clients-no-list": Case(
        clients=(CAS, ""), message="pki_client_crl_file is not a file on the control node"
    ),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("provided")


@pytest.fixture(scope="module")
def said(folder: Path) -> dict[str, str]:
    return Control(folder).run_all(
        {name: case.variables(folder / name) for name, case in CASES.items()},
        steps=("preflight_provided", "provided"),
    )


@pytest.mark.parametrize("name", CASES)
def test_files_are_judged(said: dict[str, str], name: str) -> None:
    assert CASES[name].message in said[name], said[name]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.end])
def test_the_server_sends_its_chain_in_order(said: dict[str, str], folder: Path, name: str) -> None:
    case, host = CASES[name], folder / name / "host"
    expected = case.server.pem(chain=False) + "".join(each.pem for each in case.sent)
    assert (host / "server.crt").read_text() == expected
    assert case.end is not None
    assert (host / "ca.crt").read_text() == case.end.pem
