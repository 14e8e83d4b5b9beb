# SPDX-License-Identifier: GPL-3.0-or-later
"""The internal CA on the control node: the role's own tasks, its files judged by OpenSSL."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.lab.certificates import DAY, Authority, now

from .control import PASSPHRASE, PREFLIGHT, Control

ISSUE = ("clients", "crl")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Control:
    control = Control(tmp_path_factory.mktemp("control"))
    said = control.run()
    assert " failed=0 " in said, said
    assert "are not encrypted" not in said
    return control


def test_a_root_an_issuing_ca_and_a_client(made: Control) -> None:
    assert made.verified().endswith(": OK\n")
    for name in ("ca.key", "issuing.key"):
        assert "ENCRYPTED" in (made.pki / name).read_text()
        assert (made.pki / name).stat().st_mode & 0o777 == 0o600
    for name in ("ca.crt", "issuing.crt", "clients/app/client.crt"):
        key = x509.load_pem_x509_certificate((made.pki / name).read_bytes()).public_key()
        assert isinstance(key, ec.EllipticCurvePublicKey), name
    client = x509.load_pem_x509_certificate((made.pki / "clients/app/client.crt").read_bytes())
    assert (client.not_valid_after_utc - now()).days in (89, 90)
    (kept,) = made.pki.glob("issued/*")
    assert kept.name == f"app@{client.serial_number:x}.crt"


def test_with_the_roots_key_elsewhere_it_goes_on_until_it_is_needed(made: Control) -> None:
    before = made.snapshot()
    root_key = (made.pki / "ca.key").rename(made.folder / "safe.key")
    try:
        said = made.run()
        assert " changed=0 " in said, said
        assert " failed=0 " in said, said
        root_list = (made.pki / "ca.crl").rename(made.folder / "ca.crl")
        said = made.run()
        assert "ca.key is not there, and is needed to make the issuing CA or the root's" in said
        root_list.rename(made.pki / "ca.crl")
    finally:
        root_key.rename(made.pki / "ca.key")
    assert made.snapshot() == before


def test_a_list_is_renewed_in_its_last_third(made: Control) -> None:
    path = made.pki / "issuing.crl"
    for left, renewed in ((2 * DAY, False), (DAY / 3, True)):
        # Lists of this CA begin a day ago.
        path.write_text(made.issuing().crl(end=now() + left))
        before = path.read_text()
        said = made.run(steps=("crl",))
        assert " failed=0 " in said, said
        assert (path.read_text() != before) is renewed, said
    assert made.verified().endswith(": OK\n")


def test_clients_are_revoked_by_name_and_number(made: Control) -> None:
    number = made.issuing().issue("stranger").certificate.serial_number
    revoked = {"pki_revoked": ["app", hex(number), "12345"]}
    assert " failed=0 " in made.run(steps=ISSUE, **revoked)
    crl = x509.load_pem_x509_crl((made.pki / "issuing.crl").read_bytes())
    (kept,) = made.pki.glob("issued/app@*")
    numbers = {int(kept.stem.partition("@")[2], 16), number, 12345}
    assert {one.serial_number for one in crl} == numbers
    assert "certificate revoked" in made.verified()
    assert " changed=0 " in made.run(steps=ISSUE, **revoked)
    key = (made.pki / "clients/app/client.key").read_text()
    said = made.run(steps=ISSUE)
    assert " failed=0 " in said, said
    crl = x509.load_pem_x509_crl((made.pki / "issuing.crl").read_bytes())
    assert {one.serial_number for one in crl} == numbers, "what variables forget stays revoked"
    assert made.verified().endswith(": OK\n"), "a client that is taken back gets another one"
    assert (made.pki / "clients/app/client.key").read_text() != key
    assert not (made.pki / "clients/app/previous.crt").exists()
    assert " changed=0 " in made.run(steps=ISSUE)
    (made.pki / "issuing.crl").unlink()
    assert " failed=0 " in made.run(steps=ISSUE)
    assert made.verified().endswith(": OK\n")


def test_what_the_ca_before_it_issued_is_revoked_too(made: Control) -> None:
    shown = x509.load_pem_x509_certificate((made.pki / "clients/app/client.crt").read_bytes())
    change = {
        "pki_ca_directory": str(made.folder / "next"),
        "pki_previous_ca_directory": str(made.pki),
        "pki_revoked": ["app"],
    }
    key = (made.pki / "issuing.key").rename(made.folder / "safe.key")
    said = made.run(**change)
    assert "issuing.key is needed to revoke" in said, said
    assert " changed=0 " in said, said
    key.rename(made.pki / "issuing.key")
    said = made.run(**change)
    assert " failed=0 " in said, said
    crl = x509.load_pem_x509_crl((made.pki / "issuing.crl").read_bytes())
    assert shown.serial_number in {one.serial_number for one in crl}
    assert "certificate revoked" in made.verified()
    said = made.run(**change)
    assert " changed=0 " in said, said
    (made.pki / "issuing.crl").unlink()


def test_the_next_certificate_leaves_the_one_before_it(made: Control) -> None:
    folder = made.pki / "clients/app"
    before = (folder / "client.crt").read_text()
    issued = len(list(made.pki.glob("issued/app@*")))
    key = (folder / "client.key").read_text()
    said = made.run(steps=("clients",), pki_renew=["clients"])
    assert " failed=0 " in said, said
    assert (folder / "previous.crt").read_text() == before
    assert (folder / "client.crt").read_text() != before
    assert (folder / "client.key").read_text() == key
    assert len(list(made.pki.glob("issued/app@*"))) == issued + 1


SECRET = "a client's secret"
BAD = {
    "passphrase": ({"pki_ca_passphrase": "wrong"}, "pki_ca_passphrase does not open"),
    "twice": ({"pki_clients": [{"name": "a"}, {"name": "a"}]}, "pki_clients needs for each client"),
    "name": (
        {"pki_clients": [{"name": "Desk", "pkcs12_passphrase": SECRET}]},
        "pki_clients needs for each client",
    ),
    "revoked": (
        {"pki_revoked": ["No Name"]},
        "pki_revoked takes names of clients and serial numbers",
    ),
    "days": ({"pki_client_days": 3000}, "do not fit into each other"),
    "previous": ({"pki_previous_ca_directory": "/nonexistent"}, "/nonexistent has no ca.crt"),
}


@pytest.fixture(scope="module")
def refused(made: Control) -> dict[str, str]:
    """What was said of each bad input, once no file has changed."""
    before = made.snapshot()
    said = made.run_all({name: variables for name, (variables, _message) in BAD.items()}, "-vv")
    assert made.snapshot() == before
    return said


@pytest.mark.parametrize("name", BAD)
def test_bad_input_changes_nothing(refused: dict[str, str], name: str) -> None:
    said = refused[name]
    assert BAD[name][1] in said, said
    assert " changed=0 " in said
    assert " failed=1 " in said


def test_passphrases_of_clients_are_not_shown(made: Control, refused: dict[str, str]) -> None:
    clients = [
        {"name": "app", "names": ["app.test"]},
        {"name": "desk", "pkcs12_passphrase": SECRET},
    ]
    said = made.run("-vv", steps=("clients",), pki_clients=clients)
    assert " failed=0 " in said, said
    assert (made.pki / "clients/desk/client.p12").exists()
    assert SECRET not in said + "".join(refused.values())


def test_files_that_do_not_belong_together(made: Control) -> None:
    issuing = made.pki / "issuing.crt"
    kept = issuing.read_text()
    issuing.write_text(Authority("LLM gateway internal CA, issuing").pem)
    try:
        assert "was not signed by" in made.run(steps=PREFLIGHT)
    finally:
        issuing.write_text(kept)


def test_a_ca_of_one_level_goes_on(tmp_path: Path) -> None:
    control = Control(tmp_path)
    control.pki.mkdir()
    ca = Authority("Old CA", path_length=0)
    (control.pki / "ca.crt").write_text(ca.pem)
    key = ca.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    (control.pki / "ca.key").write_bytes(key)
    said = control.run(pki_ca_passphrase="")
    assert " failed=0 " in said, said
    assert "are not encrypted: whoever can read them" in said
    assert control.verified().endswith(": OK\n")
    assert not (control.pki / "issuing.crt").exists()
    readme = (Path(__file__).parents[3] / "roles/pki/README.md").read_text()
    (encrypt,) = re.findall(r"`(openssl pkcs8 .*)`", readme)
    command = encrypt.replace("-v2", f"-passout 'pass:{PASSPHRASE}' -v2")
    subprocess.run(command, shell=True, cwd=control.pki, check=True, capture_output=True)  # noqa: S602
    said = control.run()
    assert " failed=0 " in said, said
    assert " changed=0 " in said, said


def test_check_mode_on_a_control_node_without_a_ca(tmp_path: Path) -> None:
    control = Control(tmp_path)
    said = control.run("--check", steps=("preflight_internal", "internal"))
    assert " failed=0 " in said, said
    assert "Would issue a certificate for DNS:llm.test" in said
    assert "Would issue a certificate for the client app: there is none" in said
    assert not control.pki.exists()
