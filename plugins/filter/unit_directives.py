# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `unit_directives`: directives of a unit file's service section."""

from __future__ import annotations

DOCUMENTATION = r"""
name: unit_directives
author: llmsec.hardening contributors (@llmsec)
version_added: 0.2.0
positional: names
short_description: Directives of a unit file's service section
description:
  - Reads the text of a unit file, and gives the directives of its section C([Service]), each with
    its value, or with a list of values where it stands there more than once.
options:
  _input:
    description: The text of the unit file.
    type: str
    required: true
  names:
    description: The directives that are wanted.
    type: list
    elements: str
    required: true
"""

EXAMPLES = r"""
- name: Show what a unit says of its sandbox
  ansible.builtin.debug:
    msg: "{{ text | llmsec.hardening.unit_directives(['NoNewPrivileges', 'ProtectSystem']) }}"
"""

RETURN = r"""
_value:
  description: The directives that are there, by name.
  type: dict
"""

import typing as t
from collections.abc import Callable, Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils.systemd_units import parse_unit


def unit_directives(text: str, names: Sequence[str]) -> dict[str, str | list[str]]:
    """Return the wanted directives of the text's `[Service]` section."""
    found: dict[str, list[str]] = {}
    for assignment in parse_unit(text, "unit"):
        if assignment.section == "Service" and assignment.key in names:
            found.setdefault(assignment.key, []).append(assignment.value)
    return {key: values[0] if len(values) == 1 else values for key, values in found.items()}


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., t.Any]]:
        return {"unit_directives": unit_directives}
