# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `subject_alt_names`: see plugins/module_utils/certificates.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: subject_alt_names
author: llmsec.hardening contributors
version_added: 0.1.0
short_description: Host names and addresses as a certificate spells them
description:
  - Puts C(DNS:) or C(IP:) before each name, in canonical form (lower case, short IPv6), once each.
options:
  _input:
    description: Host names and IP addresses.
    type: list
    elements: str
    required: true
  strict:
    description: Whether to fail for what is neither a host name nor an address, or to leave it out.
    type: bool
    default: true
"""

EXAMPLES = r"""
- name: Show DNS:llm.example.org and IP:fd00::1
  ansible.builtin.debug:
    msg: "{{ ['LLM.example.org', 'fd00:0::1'] | llmsec.hardening.subject_alt_names }}"
"""

RETURN = r"""
_value:
  description: Subject alternative names.
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.llmsec.hardening.plugins.module_utils.certificates import (
    CertificateError,
    subject_alt_names,
)


def _filter(names: Iterable[str], strict: bool = True) -> list[str]:
    try:
        return subject_alt_names(names, strict=strict)
    except CertificateError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"subject_alt_names": _filter}
