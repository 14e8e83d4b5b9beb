# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `select_routes`: see plugins/module_utils/gateway_routes.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: select_routes
author: llmsec.hardening contributors
version_added: 0.1.0
short_description: The routes of an LLM server that a gateway lets through
description:
  - Picks routes of the catalogue by class, and single ones by name.
  - Fails for a class or route that is not in the catalogue, or that may never be opened.
positional: classes, extra
options:
  _input:
    description: The RV(llmsec.hardening.llm_server#lookup:_raw[].routes) of a server.
    type: list
    elements: dict
    required: true
  classes:
    description: Classes of routes to let through.
    type: list
    elements: str
    required: true
  extra:
    description: Single routes on top, such as V(POST /api/show).
    type: list
    elements: str
    default: []
"""

EXAMPLES = r"""
- name: Show what the gateway lets through by default
  ansible.builtin.debug:
    msg: "{{ lookup('llmsec.hardening.llm_server', 'ollama').routes
             | llmsec.hardening.select_routes(['inference', 'read']) }}"
"""

RETURN = r"""
_value:
  description: Routes, one per path.
  type: list
  elements: dict
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_routes import (
    GatewayError,
    select_routes,
)


def _filter(
    routes: list[dict[str, Any]], classes: list[str], extra: list[str] | None = None
) -> list[dict[str, Any]]:
    try:
        return select_routes(routes, classes, extra or [])
    except GatewayError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"select_routes": _filter}
