# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `crl_problems`: see plugins/module_utils/certificates.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: crl_problems
author: llmsec.hardening contributors
version_added: 0.2.0
short_description: Why a revocation list is not in force, or should be renewed
description:
  - Judges the period that P(community.crypto.x509_crl_info#filter) tells of a revocation list.
    nginx refuses every certificate of a CA whose list has expired.
options:
  _input:
    description: What P(community.crypto.x509_crl_info#filter) returned.
    type: dict
    required: true
  part_left:
    description: How much of its whole period must be left, such as V(0.33).
    type: float
    default: 0
"""

EXAMPLES = r"""
- name: Stop on a list that has expired
  ansible.builtin.assert:
    that: lookup('file', 'clients.crl') | community.crypto.x509_crl_info
      | llmsec.hardening.crl_problems | length == 0
"""

RETURN = r"""
_value:
  description: Halves of sentences such as V(it expired on 2026-12-03); empty when it is in force.
  type: list
  elements: str
"""

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.llmsec.hardening.plugins.module_utils.certificates import crl_problems


def _filter(crl: Mapping[str, Any], part_left: float = 0.0) -> list[str]:
    try:
        return crl_problems(crl, part_left=part_left)
    except (KeyError, TypeError) as error:
        raise AnsibleFilterError(f"not a result of x509_crl_info: {error}") from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"crl_problems": _filter}
