# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `posture_hosts`: what was found of each host, as posture_report takes it."""

from __future__ import annotations

DOCUMENTATION = r"""
name: posture_hosts
author: llmsec.hardening contributors (@llmsec)
version_added: 0.2.0
positional: variables
short_description: What was found of each host, by itself and by its neighbours
description:
  - Takes C(posture_found) of each host, and C(posture_reached) of each neighbour that its
    C(posture_targets) name, from their variables. A host without the first was not reached.
options:
  _input:
    description: Names of the hosts.
    type: list
    elements: str
    required: true
  variables:
    description: The variables of all hosts, C(hostvars).
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Report
  llmsec.hardening.posture_report:
    hosts: "{{ ansible_play_hosts_all | llmsec.hardening.posture_hosts(hostvars) }}"
    directory: report
  run_once: true
"""

RETURN = r"""
_value:
  description: The option O(llmsec.hardening.posture_report#module:hosts).
  type: dict
"""

import typing as t
from collections.abc import Callable, Iterable, Mapping

from ansible.errors import AnsibleFilterError
from ansible_collections.llmsec.hardening.plugins.module_utils.assessment import (
    AssessmentError,
    hosts_found,
)


def posture_hosts(
    names: Iterable[str], variables: Mapping[str, Mapping[str, t.Any]]
) -> dict[str, dict[str, t.Any]]:
    """Return what was found, by host. Raises AnsibleFilterError for what is no result."""
    try:
        return hosts_found(names, variables)
    except AssessmentError as exc:
        raise AnsibleFilterError(f"posture_hosts: {exc}") from exc


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        return {"posture_hosts": posture_hosts}
