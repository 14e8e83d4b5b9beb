# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `certificate_problems`: see plugins/module_utils/certificates.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: certificate_problems
author: llmsec.hardening contributors
version_added: 0.1.0
short_description: Why a certificate cannot serve, or should be renewed
description:
  - Judges what P(community.crypto.x509_certificate_info#filter) tells about a certificate.
    Period, names, key, purpose and signature algorithm are always looked at.
options:
  _input:
    description: What P(community.crypto.x509_certificate_info#filter) returned.
    type: dict
    required: true
  names:
    description: Host names and IP addresses that it must name.
    type: list
    elements: str
    default: []
  exact:
    description: Whether it may name nothing else.
    type: bool
    default: false
  public_key:
    description: SHA-256 fingerprint of the public key that it must belong to.
    type: str
  issuer_key_id:
    description: Subject key identifier of the CA that it must come from.
    type: str
  key_type:
    description: Type of key that it must have.
    type: str
    choices: [ecdsa-p256, ecdsa-p384, rsa-3072]
  days:
    description: How many days it must still be valid.
    type: int
    default: 0
  purpose:
    description: What it must be good for in TLS, or V(issuer) when it must be that of a CA.
    type: str
    choices: [server, client, issuer]
    default: server
"""

EXAMPLES = r"""
- name: Stop on a certificate that ends within a month
  ansible.builtin.assert:
    that: lookup('file', 'server.crt') | community.crypto.x509_certificate_info
      | llmsec.hardening.certificate_problems(days=30) | length == 0
"""

RETURN = r"""
_value:
  description: Halves of sentences such as V(it expired on 2026-12-03); empty when it may serve.
  type: list
  elements: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.llmsec.hardening.plugins.module_utils.certificates import (
    CertificateError,
    certificate_problems,
)


def _filter(certificate: Mapping[str, Any], **wanted: Any) -> list[str]:  # noqa: ANN401
    try:
        return certificate_problems(certificate, **wanted)
    except CertificateError as error:
        raise AnsibleFilterError(str(error)) from error
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"not a result of x509_certificate_info: {error}") from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"certificate_problems": _filter}
