# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `backend_groups`: see plugins/module_utils/gateway_backends.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: backend_groups
author: llmsec.hardening contributors
version_added: 0.2.0
short_description: The groups that LLM servers behind one gateway form
description:
  - Puts servers that name no models into one group, and those of a model into one of its own.
    Models with the same servers share a group.
  - Takes a list that P(llmsec.hardening.backend_problems#filter) finds nothing wrong with.
options:
  _input:
    description: The servers, as the variable C(gateway_backends) of the role C(gateway) has them.
    type: list
    elements: dict
    required: true
"""

EXAMPLES = r"""
- name: Show which group has which model
  ansible.builtin.debug:
    msg: "{{ (gateway_backends | llmsec.hardening.backend_groups).models }}"
"""

RETURN = r"""
_value:
  description:
    - C(groups), each with its C(name) and its C(servers); C(models), each with its canonical
      C(name) and its C(group).
    - C(others) is the group of all other models, empty where there is none, and C(without) that of
      requests which name no model.
  type: dict
"""

from collections.abc import Callable
from typing import Any

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_backends import (
    backend_groups,
)


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"backend_groups": backend_groups}
