# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `with_clients`: records of keys and of clients, each with its certificates."""

from __future__ import annotations

DOCUMENTATION = r"""
name: with_clients
author: llmsec.hardening contributors
version_added: 0.2.0
positional: clients, known
short_description: Records of API keys together with those of clients that have certificates
description:
  - A client with the id of a key is that key's owner, and its fields are added to the key's record.
    Any other client is a record of its own.
options:
  _input:
    description: Key records, as role P(llmsec.hardening.key_validator#role) takes them.
    type: list
    elements: dict
    required: true
  clients:
    description:
      - Records of clients. One without C(certificate_sha256) gets the fingerprints that are known
        under its id. When there are none yet, a digest that no certificate has stands in their
        place. One without C(owner) is its own, unless it belongs to a key.
    type: list
    elements: dict
    required: true
  known:
    description: Fingerprints by name, from P(llmsec.hardening.client_certificates#lookup).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show the records
  ansible.builtin.debug:
    msg: "{{ keys | llmsec.hardening.with_clients([{'id': 'app1'}], {'app1': [fingerprint]}) }}"
"""

RETURN = r"""
_value:
  description: The records, those of keys first.
  type: list
  elements: dict
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError

Record = Mapping[str, Any]


def with_clients(
    keys: Sequence[Record], clients: Sequence[Record], known: Mapping[str, Sequence[str]]
) -> list[dict[str, Any]]:
    """Return all records. Raises AnsibleFilterError for a client that is there twice."""
    ids = [client.get("id") for client in clients]
    twice = sorted({str(name) for name in ids if ids.count(name) > 1})
    if twice:
        raise AnsibleFilterError(f"client {twice[0]} is there twice")
    wanted = {client.get("id"): _with_certificates(client, known) for client in clients}
    records = [{**key, **wanted.pop(key.get("id"), {})} for key in keys]
    return records + [{"owner": name, **client} for name, client in wanted.items()]


def _with_certificates(client: Record, known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    name = str(client.get("id"))
    none_yet = hashlib.sha256(name.encode()).hexdigest()
    return {"certificate_sha256": list(known.get(name, ())) or [none_yet], **client}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"with_clients": with_clients}
