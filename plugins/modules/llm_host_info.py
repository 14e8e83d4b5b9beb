#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: llm_host_info
short_description: Report what only the host can say about its LLM server and gateway
version_added: 0.2.0
description:
  - Reads what the promises of this collection's roles depend on, beside their variables, in one
    round trip. What cannot be read is V(null), and changes nothing about the rest.
options:
  unit:
    description: Unit of the LLM server, with its suffix.
    type: str
    required: true
  user:
    description: As whom it runs where there is no such unit.
    type: str
    default: root
  environment:
    description: Environment variables of the unit to return.
    type: list
    elements: str
    default: []
  dropin:
    description: Name of this collection's own drop-in, which does not count.
    type: str
    default: 50-llm-hardening.conf
  certificate:
    description: A certificate on the host, to say whom to ask whether it is revoked.
    type: path
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    platforms: linux
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: See where Ollama's user is at home
  llmsec.hardening.llm_host_info:
    unit: ollama.service
    environment: [HOME]
  register: seen

- name: Show it
  ansible.builtin.debug:
    msg: "{{ seen.unit_file.environment.HOME or seen.home }}"
"""

RETURN = r"""
unit_file:
  description: The unit as its files have it, without O(dropin).
  returned: success
  type: dict
  contains:
    path: {description: "The unit file, V(null) when there is none.", type: str}
    user: {description: "C(User=).", type: str}
    group: {description: "C(Group=).", type: str}
    program: {description: The program of the last C(ExecStart=)., type: str}
    environment: {description: "Those of O(environment), V(null) where not set.", type: dict}
home:
  description: Home directory of the unit's user, V(null) where there is no such user.
  returned: success
  type: str
unit_user:
  description: As whom systemd runs the unit, empty when it does not say.
  returned: success
  type: str
has_ipv6:
  description: Whether the kernel has IPv6.
  returned: success
  type: bool
ocsp_uri:
  description: Whom the certificate says to ask, empty for nobody.
  returned: success
  type: str
"""

import os
import pwd
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.systemd_units import (
    UnitError,
    parse_fragments,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.unit_files import (
    OWN_PLACE,
    UnitFiles,
    describe_unit,
)

IF_INET6 = "/proc/net/if_inet6"


def unit_facts(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return `unit_file`. Raises UnitError, OSError."""
    files = UnitFiles(params["unit"])
    own = f"{OWN_PLACE}/{params['unit']}.d/{params['dropin']}"
    assignments = parse_fragments(files.fragments(own, None))
    environment_files = files.environment_files(assignments)
    return describe_unit(
        assignments, environment_files, files.unit_file(), params["environment"]
    )  # fmt: skip


def home_of(user: str) -> str | None:
    """Return a user's home directory, by name or number, None for one that there is not."""
    try:
        found = pwd.getpwuid(int(user)) if user.isdecimal() else pwd.getpwnam(user)
    except (KeyError, OverflowError):
        return None
    return found.pw_dir


def said(module: AnsibleModule, *command: str) -> str:
    """Return what a program prints, nothing when it is missing or fails."""
    if module.get_bin_path(command[0]) is None:
        return ""
    code, out, _err = module.run_command(list(command), environ_update={"LC_ALL": "C"})
    return out.strip() if code == 0 else ""


def look(module: AnsibleModule) -> dict[str, t.Any]:
    """Return everything documented above."""
    params = module.params
    try:
        unit = unit_facts(params)
        user = unit["user"] or ("root" if unit["path"] else params["user"])
        home = home_of(user)
    except (UnitError, OSError):
        unit = {"path": None, "user": None, "group": None, "program": None}
        unit["environment"] = dict.fromkeys(params["environment"])
        home = None
    certificate = params["certificate"]
    return {
        "unit_file": unit,
        "home": home,
        "unit_user": said(
            module, "systemctl", "show", "--property=User", "--value", "--", params["unit"]
        ),
        "has_ipv6": os.path.exists(IF_INET6),
        "ocsp_uri": said(module, "openssl", "x509", "-noout", "-ocsp_uri", "-in", certificate)
        if certificate
        else "",
    }


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "user": {"type": "str", "default": "root"},
            "environment": {"type": "list", "elements": "str", "default": []},
            "dropin": {"type": "str", "default": "50-llm-hardening.conf"},
            "certificate": {"type": "path"},
        },
        supports_check_mode=True,
    )
    module.exit_json(changed=False, **look(module))


if __name__ == "__main__":
    main()
