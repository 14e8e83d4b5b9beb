#!/usr/bin/python

# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: audit_seal_key
short_description: Make the first key that seals a host's audit log
version_added: 0.2.0
description:
  - Each run makes a new random key and keeps it in O(directory) under its public name.
    Whether a host needs one is for the role P(llmsec.hardening.key_validator#role) to say.
  - Runs on the control node, so with C(delegate_to=localhost) and without C(become). The key
    verifies the seals later; the host gets it once and erases it as it goes on.
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    platforms: posix
options:
  directory:
    description:
      - Folder of this one host's keys. It must exist, but for check mode.
    type: path
    required: true
notes:
  - The result holds the key. Say C(no_log=true).
author:
  - llmsec.hardening contributors (@llmsec)
seealso:
  - module: llmsec.hardening.secret_file
"""

EXAMPLES = r"""
- name: Make a first key
  llmsec.hardening.audit_seal_key:
    directory: /srv/ansible/audit/gateway1
  delegate_to: localhost
  become: false
  register: first
  no_log: true
"""

RETURN = r"""
key_file:
  description: Where the key was written, mode 0600.
  type: str
  returned: not in check mode
  sample: /srv/ansible/audit/gateway1/0f3c5a7be21d4496.key
state:
  description: Content of C(seal.json) for the host. Holds the key; empty in check mode.
  type: str
  returned: always
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.audit_keys import (
    first_state,
    make_first_key,
)


def run(directory: str, *, check_mode: bool) -> dict[str, Any]:
    """Make the key and return the module's result. Raises OSError."""
    if check_mode:
        return {"changed": True, "state": ""}
    path, key = make_first_key(directory)
    return {"changed": True, "key_file": path, "state": first_state(key)}


def main() -> None:
    """Run the module."""
    spec = {"directory": {"type": "path", "required": True}}
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    directory = module.params["directory"]
    try:
        result = run(directory, check_mode=module.check_mode)
    except OSError as error:
        module.fail_json(msg=f"{error.filename or directory}: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
