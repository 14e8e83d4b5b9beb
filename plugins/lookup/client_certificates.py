# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup of the fingerprints of clients' certificates."""

from __future__ import annotations

DOCUMENTATION = r"""
name: client_certificates
author: llmsec.hardening contributors (@llmsec)
version_added: 0.2.0
short_description: Fingerprints of the client certificates that role pki has issued
description:
  - For each client in folders as role P(llmsec.hardening.pki#role) keeps it on the control node,
    the SHA-256 of its certificate, and of the one before it.
options:
  _terms:
    description: Folders; the first one's certificates come first. One that does not exist has none.
    type: list
    elements: path
    required: true
"""

EXAMPLES = r"""
- name: Show the clients' fingerprints
  ansible.builtin.debug:
    msg: "{{ lookup('llmsec.hardening.client_certificates', 'pki/clients') }}"
"""

RETURN = r"""
_raw:
  description: One dictionary, with lists of fingerprints by the clients' names.
  type: list
  elements: dict
"""

import base64
import hashlib
import os
import re

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase

# What role pki calls a client's certificate, and the one before it
_FILES = ("client.crt", "previous.crt")
_PEM = re.compile("-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\\s]+)-----END CERTIFICATE-----")


def fingerprint(pem: str) -> str:
    """Return the SHA-256 (hex) of the first certificate in ``pem``. Raises ValueError."""
    match = _PEM.search(pem)
    if match is None:
        raise ValueError("no certificate")
    der = base64.b64decode("".join(match[1].split()), validate=True)
    return hashlib.sha256(der).hexdigest()


def read_clients(folder: str, clients: dict[str, list[str]]) -> None:
    """Add the fingerprints to ``clients``, by their names. Raises OSError, ValueError."""
    for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else []:
        for file in _FILES:
            path = os.path.join(folder, name, file)
            if os.path.exists(path):
                with open(path, encoding="ascii") as opened:
                    found = fingerprint(opened.read())
                if found not in clients.setdefault(name, []):
                    clients[name].append(found)


class LookupModule(LookupBase):
    """Ansible's entry point."""

    def run(
        self, terms: list[str], variables: object = None, **_options: object
    ) -> list[dict[str, list[str]]]:
        """Return one dictionary for all folders."""
        clients: dict[str, list[str]] = {}
        try:
            for folder in terms:
                read_clients(os.path.expanduser(folder), clients)
        except (OSError, ValueError) as error:
            raise AnsibleLookupError(f"clients' certificates cannot be read: {error}") from error
        return [clients]
