# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `network_problems`: see plugins/module_utils/firewall/policy.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: network_problems
author: llmsec.hardening contributors
version_added: 0.1.0
short_description: What is wrong with a list of addresses and networks
description:
  - Says of each item that is no IPv4 or IPv6 address and no network what is wrong with it.
options:
  _input:
    description: Addresses and networks.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Stop on what is no address
  ansible.builtin.assert:
    that: app_servers | llmsec.hardening.network_problems | length == 0
"""

RETURN = r"""
_value:
  description: One clause for each bad item.
  type: list
  elements: str
"""

from collections.abc import Callable, Iterable
from typing import Any

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.policy import (
    PolicyError,
    parse_network,
)


def _filter(items: Iterable[Any]) -> list[str]:
    problems = []
    for item in items:
        try:
            parse_network(item)
        except PolicyError as error:
            problems.append(str(error))
    return problems


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"network_problems": _filter}
