# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup over the catalogue of LLM servers."""

from __future__ import annotations

DOCUMENTATION = r"""
name: llm_server
author: llmsec.hardening contributors (@llmsec)
version_added: 0.1.0
short_description: Facts about an LLM server from the catalogue
description:
  - Returns what this collection knows about an LLM server, such as its unit, its address, its
    routes by class, the environment that hardening sets and the versions known as vulnerable.
  - Runs on the control node and asks nobody.
options:
  _terms:
    description: Names of servers, for example V(ollama).
    type: list
    elements: str
    required: true
  installed_version:
    description:
      - A version to hold against the catalogue.
      - With it every result has RV(_raw[].missed_floors).
    type: str
"""

EXAMPLES = r"""
- name: Show which paths Ollama serves for inference
  ansible.builtin.debug:
    msg: "{{ lookup('llmsec.hardening.llm_server', 'ollama').routes
             | selectattr('class', 'eq', 'inference') | map(attribute='path') }}"

- name: Show the vulnerabilities of an old version
  ansible.builtin.debug:
    msg: "{{ lookup('llmsec.hardening.llm_server', 'ollama', installed_version=version)
             .missed_floors | map(attribute='cves') | flatten }}"
  vars:
    version: 0.33.0
"""

RETURN = r"""
_raw:
  description: One dictionary per name.
  type: list
  elements: dict
  contains:
    name:
      description: Name in the catalogue.
      type: str
    unit:
      description: The systemd unit of the server's official installation.
      type: str
    user:
      description: User that the official installation runs as.
      type: str
    group:
      description: Group that the official installation runs as.
      type: str
    home:
      description: Home directory of that user.
      type: str
    address:
      description: Address to bind.
      type: str
    port:
      description: TCP port.
      type: int
    host_header:
      description: The Host header that a proxy must send.
      type: str
    health_path:
      description: Path that answers 200 without a key.
      type: str
    install_version:
      description: Release that is installed unless another is asked for; may be empty.
      type: str
    environment:
      description: Environment variables that hardening sets.
      type: dict
    forbidden_environment:
      description: Environment variables that nobody may set.
      type: list
      elements: str
    writable_paths:
      description: Paths that the server writes below.
      type: list
      elements: str
    devices:
      description: Devices the server may open, in the form of systemd's DeviceAllow.
      type: list
      elements: str
    routes:
      description:
        - Endpoints, each with C(methods), C(class), C(body), and C(path) or C(pattern).
        - C(body) names the shape in which the key validator reads requests.
      type: list
      elements: dict
    version_floors:
      description: Each C(version) below which the C(cves) apply.
      type: list
      elements: dict
    key_file:
      description: File on the host with the key that the server wants; may be empty.
      type: str
    user_header:
      description: Header in which a proxy says whose request it is; may be empty.
      type: str
    only_standard:
      description: Whether the key validator lets no fields of a body through but its API's own.
      type: bool
    missed_floors:
      description: The floors that O(installed_version) is below.
      returned: O(installed_version) is given
      type: list
      elements: dict
"""

import typing as t

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import (
    UnknownServerError,
    VersionError,
    get_server,
    missed_floors,
)


def describe(name: str, installed_version: str | None) -> dict[str, t.Any]:
    """Return the catalogue's entry as plain data, with the missed floors if a version is given."""
    server = get_server(name)
    result = server.as_dict()
    if installed_version is not None:
        missed = missed_floors(server.version_floors, installed_version)
        result["missed_floors"] = [floor.as_dict() for floor in missed]
    return result


class LookupModule(LookupBase):
    """Answers from the catalogue."""

    def run(
        self, terms: list[str], variables: dict[str, object] | None = None, **kwargs: object
    ) -> list[dict[str, t.Any]]:
        """Return one dictionary per term."""
        self.set_options(var_options=variables, direct=kwargs)
        version = self.get_option("installed_version")
        try:
            return [describe(str(term), version) for term in terms]
        except (UnknownServerError, VersionError) as error:
            raise AnsibleLookupError(f"llm_server: {error}") from error
