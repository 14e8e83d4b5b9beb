#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_window
short_description: Let one user's processes out to the network for a while
version_added: 0.1.0
description:
  - Opens and closes the window in the firewall of M(llmsec.hardening.firewall_ruleset) through
    which models are pulled. The kernel closes it when the time is over, whether or not this
    module comes back.
  - Metadata addresses stay closed. A host without that firewall is left alone.
options:
  state:
    description: Whether the window is open.
    type: str
    choices: [open, closed]
    required: true
  user:
    description: Name of the user whose processes may go out.
    type: str
    required: true
  seconds:
    description: How long, with O(state=open).
    type: int
    default: 3600
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: partial
    details: Changes nothing, and does not say whether it would.
  diff_mode:
    support: none
  platform:
    platforms: linux
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: Let Ollama out for ten minutes
  llmsec.hardening.firewall_window:
    state: open
    user: ollama
    seconds: 600
"""

RETURN = r"""# """

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import FirewallError
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_options import (
    backends,
    live_machine,
    user_number,
)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "state": {"type": "str", "choices": ["open", "closed"], "required": True},
            "user": {"type": "str", "required": True},
            "seconds": {"type": "int", "default": 3600},
        },
        supports_check_mode=True,
    )
    params = module.params
    number = user_number(params["user"])
    if number is None:
        module.fail_json(msg=f"There is no user {params['user']}.")
    changed = False
    try:
        for backend in backends(live_machine(module), "nftables"):
            if module.check_mode or not backend.installed():
                continue
            if params["state"] == "open":
                changed = backend.open_window(number, params["seconds"]) or changed
            else:
                changed = backend.close_window() or changed
    except (FirewallError, OSError) as exc:
        module.fail_json(msg=f"The firewall's window could not be {params['state']}: {exc}.")
    module.exit_json(changed=changed)


if __name__ == "__main__":
    main()
