# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `request_problems`: see plugins/module_utils/certificates.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: request_problems
author: llmsec.hardening contributors
version_added: 0.1.0
short_description: Why a CA must not sign a request
description:
  - Judges what P(community.crypto.openssl_csr_info#filter) tells about a certificate signing
    request. A host may ask for a server certificate with exactly its names, and for nothing else.
options:
  _input:
    description: What P(community.crypto.openssl_csr_info#filter) returned.
    type: dict
    required: true
  names:
    description: Host names and IP addresses that the host may have in its certificate.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Stop on a request for somebody else's name
  ansible.builtin.assert:
    that: lookup('file', 'server.csr') | community.crypto.openssl_csr_info
      | llmsec.hardening.request_problems(names=['llm.example.org']) | length == 0
"""

RETURN = r"""
_value:
  description: Halves of sentences such as V(it asks for a CA); empty when it may be signed.
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.llmsec.hardening.plugins.module_utils.certificates import (
    CertificateError,
    request_problems,
)


def _filter(request: Mapping[str, Any], names: Iterable[str]) -> list[str]:
    try:
        return request_problems(request, names)
    except CertificateError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"request_problems": _filter}
