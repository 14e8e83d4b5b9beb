# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `backend_problems`: see plugins/module_utils/gateway_backends.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: backend_problems
author: llmsec.hardening contributors
version_added: 0.2.0
short_description: What is wrong with a list of LLM servers behind one gateway
description:
  - Says what the gateway could not do with the list, such as an address that is there twice, or a
    model all of whose servers are drained.
options:
  _input:
    description: The servers, as the variable C(gateway_backends) of the role C(gateway) has them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Stop on servers that cannot be behind one gateway
  ansible.builtin.assert:
    that: gateway_backends | llmsec.hardening.backend_problems | length == 0
"""

RETURN = r"""
_value:
  description: One clause for each problem.
  type: list
  elements: str
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_backends import (
    backend_problems,
)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"backend_problems": backend_problems}
