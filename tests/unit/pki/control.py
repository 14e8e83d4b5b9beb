# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's own tasks on a control node, for one host or for many cases in one run."""

from __future__ import annotations

import json
import subprocess
import sys
import typing as t
from pathlib import Path

from tests.lab.certificates import Authority
from tests.lab.playbook import by_host

PASSPHRASE = "a passphrase"
ROLE = "llmsec.hardening.pki"
CONDITIONS = {"ca": "not __pki_ca_exists or __pki_issuing_ends", "provided": "put_files"}
PREFLIGHT = ("preflight_internal",)
STEPS = (*PREFLIGHT, "ca", "clients", "crl")
Cases = t.Mapping[str, t.Mapping[str, object]]


class Control:
    """A control node with a CA directory, and a host's folder that stays empty."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.pki = folder / "pki"

    def run(self, *words: str, steps: tuple[str, ...] = STEPS, **variables: object) -> str:
        """Bring everything on the control node up to date; return all that was said."""
        return " ".join(self._play(words, steps, {"localhost": variables}).split())

    def run_all(self, cases: Cases, *words: str, steps: tuple[str, ...] = STEPS) -> dict[str, str]:
        """Run the steps for each case, all as hosts of one run; return what was said of each.

        What was said of none is there without a name. To start Ansible for each of them would
        take longer than the cases.
        """
        text = self._play(words, steps, cases)
        said = by_host(text)
        assert said.keys() == {"", *cases}, text
        return said

    def _play(self, words: tuple[str, ...], steps: tuple[str, ...], cases: Cases) -> str:
        tasks = [
            {
                "ansible.builtin.import_role": {"name": ROLE, "tasks_from": step},
                "when": CONDITIONS.get(step, "true"),
            }
            for step in steps
        ]
        play = {"hosts": "all", "connection": "local", "gather_facts": False, "tasks": tasks}
        usual = {
            "ansible_python_interpreter": sys.executable,
            "pki_ca_directory": str(self.pki),
            "pki_directory": str(self.folder / "host"),
            "pki_server_names": ["llm.test"],
            "pki_ca_passphrase": PASSPHRASE,
            "pki_for_clients": True,
            "pki_clients": [{"name": "app", "names": ["app.test"]}],
        }
        inventory = {"all": {"hosts": cases, "vars": usual}}
        (self.folder / "play.yml").write_text(json.dumps([play]))
        (self.folder / "inventory.json").write_text(json.dumps(inventory))
        done = subprocess.run(
            [sys.executable, "-m", "ansible", "playbook", "-i", "inventory.json", "play.yml",
             *words],
            cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        return done.stdout + done.stderr

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
