# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `posture_findings`: what several verify modules said of one host, in one list."""

from __future__ import annotations

DOCUMENTATION = r"""
name: posture_findings
author: llmsec.hardening contributors (@llmsec)
version_added: 0.2.0
positional: skips
short_description: The findings of several verify modules in one list
description:
  - A module that failed is a finding with the result V(error), a task that was left out has none.
options:
  _input:
    description:
      - By subject, such as V(listeners), a dictionary of C(control), which is not measured when the
        module failed, and C(result), as the task registered it.
    type: dict
    required: true
  skips:
    description:
      - What is not looked at by choice, each with C(id), C(control) and C(reason), and with
        C(severity) where the choice itself is a failure.
    type: list
    elements: dict
    default: []
"""

EXAMPLES = r"""
- name: See who listens
  llmsec.hardening.verify_listeners:
    server: ollama
  register: listeners
  failed_when: false

- name: Keep what was found
  ansible.builtin.set_fact:
    found: "{{ results | llmsec.hardening.posture_findings }}"
  vars:
    results: {listeners: {control: loopback, result: "{{ listeners }}"}}
"""

RETURN = r"""
_value:
  description: The findings, in the order of the subjects.
  type: list
  elements: dict
"""

import typing as t
from collections.abc import Callable, Mapping, Sequence

from ansible.errors import AnsibleFilterError
from ansible_collections.llmsec.hardening.plugins.module_utils.assessment import (
    AssessmentError,
    host_findings,
)


def posture_findings(
    results: Mapping[str, Mapping[str, t.Any]], skips: Sequence[Mapping[str, str]] = ()
) -> list[dict[str, t.Any]]:
    """Return the findings. Raises AnsibleFilterError for what is no result."""
    try:
        return host_findings(results, skips)
    except AssessmentError as exc:
        raise AnsibleFilterError(f"posture_findings: {exc}") from exc


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        return {"posture_findings": posture_findings}
