# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `posture_targets`: who asks which port of a host in an assessment."""

from __future__ import annotations

DOCUMENTATION = r"""
name: posture_targets
author: llmsec.hardening contributors (@llmsec)
version_added: 0.2.0
short_description: Who asks which port of a host in an assessment
description:
  - The LLM server and the key validator must be closed to all neighbours, on each address. The
    gateway must be open to application servers, and closed to strangers where a firewall says so.
options:
  _input:
    description:
      - The host, with C(host), C(addresses), C(managed_by), C(gateway_port), C(private_ports),
        C(app_servers), C(strangers), C(control_node) and C(isolated).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what the neighbours ask
  ansible.builtin.debug:
    msg: "{{ plan | llmsec.hardening.posture_targets }}"
  vars:
    plan:
      host: llm1
      addresses: [192.0.2.10]
      managed_by: 192.0.2.10
      gateway_port: 443
      private_ports: [11434, 8081]
      app_servers: [app1]
      strangers: []
      control_node: true
      isolated: true
"""

RETURN = r"""
_value:
  description: C(direct), what the host asks of itself, and C(neighbours), what each of them asks.
  type: dict
"""

import typing as t
from collections.abc import Callable

from ansible_collections.llmsec.hardening.plugins.module_utils.assessment import targets


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        return {"posture_targets": targets}
