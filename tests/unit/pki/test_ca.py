# SPDX-License-Identifier: GPL-3.0-or-later
"""The internal CA on the control node: the role's own tasks, its files judged by OpenSSL."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from tests.lab.certificates import DAY, Authority, now

PASSPHRASE = "a passphrase"
ROLE = "llmsec.hardening.pki"


class Control:
    """A control node with a CA directory, and a host's folder that stays empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pki = folder / "pki"

    def run(
        self,
        *words: str,
        steps: tuple[str, ...] = ("preflight_internal", "ca", "clients", "crl"),
        **variables: object,
    ) -> str:
        """Bring everything on the control node up to date; return all that was said."""
        conditions = {"ca": "not __pki_ca_exists or __pki_issuing_ends"}
        tasks = [
            {
                "ansible.builtin.import_role": {"name": ROLE, "tasks_from": step},
                "when": conditions.get(step, "true"),
            }
            for step in steps
        ]
        play = {"hosts": "localhost", "connection": "local", "gather_facts": False, "tasks": tasks}
        settings = {
            "ansible_python_interpreter": sys.executable,
            "pki_ca_directory": str(self.pki),
            "pki_directory": str(self.folder / "host"),
            "pki_server_names": ["llm.test"],
            "pki_ca_passphrase": PASSPHRASE,
            "pki_for_clients": True,
            "pki_clients": [{"name": "app", "names": ["app.test"]}],
            **variables,
        }
        (self.folder / "play.yml").write_text(json.dumps([play]))
        (self.folder / "extra.json").write_text(json.dumps(settings))
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", "localhost,", "play.yml",
             "-e", "@extra.json", *words],
            cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return " ".join((done.stdout + done.stderr).split())

    def verified(self, name: str = "app") -> str:
        """What OpenSSL says of a client's certificate, revocation lists looked at."""
        folder = self.pki / "clients" / name
        lists = self.folder / "lists.pem"
        lists.write_text("".join(path.read_text() for path in sorted(self.pki.glob("*.crl"))))
        done = subprocess.run(
            ["openssl", "verify", "-crl_check_all", "-purpose", "sslclient", "-CRLfile", lists,
             "-CAfile", self.pki / "ca.crt", "-untrusted", folder / "client.crt",
             folder / "client.crt"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

    def issuing(self) -> Authority:
        return Authority.from_files(self.pki / "issuing.crt", self.pki / "issuing.key", PASSPHRASE)

    def snapshot(self) -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in self.pki.rglob("*") if path.is_file()}


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
        said = made.run()
        assert " failed=0 " in said, said
        assert (path.read_text() != before) is renewed, said
    assert made.verified().endswith(": OK\n")


def test_clients_are_revoked_by_name_and_number(made: Control) -> None:
    number = made.issuing().issue("stranger").certificate.serial_number
    revoked = {"pki_revoked": ["app", hex(number), "12345"]}
    assert " failed=0 " in made.run(**revoked)
    crl = x509.load_pem_x509_crl((made.pki / "issuing.crl").read_bytes())
    (kept,) = made.pki.glob("issued/app@*")
    numbers = {int(kept.stem.partition("@")[2], 16), number, 12345}
    assert {one.serial_number for one in crl} == numbers
    assert "certificate revoked" in made.verified()
    assert " changed=0 " in made.run(**revoked)
    key = (made.pki / "clients/app/client.key").read_text()
    said = made.run()
    assert " failed=0 " in said, said
    crl = x509.load_pem_x509_crl((made.pki / "issuing.crl").read_bytes())
    assert {one.serial_number for one in crl} == numbers, "what variables forget stays revoked"
    assert made.verified().endswith(": OK\n"), "a client that is taken back gets another one"
    assert (made.pki / "clients/app/client.key").read_text() != key
    assert not (made.pki / "clients/app/previous.crt").exists()
    assert " changed=0 " in made.run()
    (made.pki / "issuing.crl").unlink()
    assert " failed=0 " in made.run()
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
    said = made.run(pki_renew=["clients"])
    assert " failed=0 " in said, said
    assert (folder / "previous.crt").read_text() == before
    assert (folder / "client.crt").read_text() != before
    assert (folder / "client.key").read_text() == key
    assert len(list(made.pki.glob("issued/app@*"))) == issued + 1


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"pki_ca_passphrase": "wrong"}, "pki_ca_passphrase does not open"),
        ({"pki_clients": [{"name": "a"}, {"name": "a"}]}, "pki_clients needs for each client"),
        ({"pki_revoked": ["No Name"]}, "pki_revoked takes names of clients and serial numbers"),
        ({"pki_client_days": 3000}, "do not fit into each other"),
        ({"pki_previous_ca_directory": "/nonexistent"}, "/nonexistent has no ca.crt"),
    ],
)
def test_bad_input_changes_nothing(
    made: Control, variables: dict[str, object], message: str
) -> None:
    before = made.snapshot()
    said = made.run(**variables)
    assert message in said, said
    assert " changed=0 " in said
    assert made.snapshot() == before


def test_passphrases_of_clients_are_not_shown(made: Control) -> None:
    secret = "a client's secret"
    desk = {"name": "desk", "pkcs12_passphrase": secret}
    said = made.run("-vv", pki_clients=[{"name": "app", "names": ["app.test"]}, desk])
    assert " failed=0 " in said, said
    assert (made.pki / "clients/desk/client.p12").exists()
    refused = made.run("-vv", pki_clients=[{"name": "Desk", "pkcs12_passphrase": secret}])
    assert "pki_clients needs for each client" in refused
    assert secret not in said + refused


def test_files_that_do_not_belong_together(made: Control) -> None:
    issuing = made.pki / "issuing.crt"
    kept = issuing.read_text()
    issuing.write_text(Authority("LLM gateway internal CA, issuing").pem)
    try:
        assert "was not signed by" in made.run()
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
