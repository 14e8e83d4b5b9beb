# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The filter `rate_period`: see plugins/module_utils/gateway_routes.py."""

from __future__ import annotations

DOCUMENTATION = r"""
name: rate_period
author: llmsec.hardening contributors
version_added: 0.1.0
short_description: Seconds until a rate limit lets one more request in
description:
  - Turns a rate as nginx writes it into whole seconds, rounded up, for C(Retry-After).
options:
  _input:
    description: A rate such as V(10r/m) or V(5r/s).
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Show 6
  ansible.builtin.debug:
    msg: "{{ '10r/m' | llmsec.hardening.rate_period }}"
"""

RETURN = r"""
_value:
  description: Seconds.
  type: int
"""

from collections.abc import Callable
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_routes import (
    GatewayError,
    rate_period,
)


def _filter(rate: str) -> int:
    try:
        return rate_period(rate)
    except GatewayError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """Ansible's entry point."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"rate_period": _filter}
