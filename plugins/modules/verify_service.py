#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: verify_service
short_description: Say whether services run confined, and in versions without known holes
version_added: 0.2.0
description:
  - Holds units of systemd's against what they should be, by their files, by what systemd has in
    force, and by the running process. All three must agree, so a drop-in that was edited after the
    start is seen as well as one that sorts later.
  - Asks an LLM server for its version, on its loopback address or else its program, and compares
    with the versions that have known holes. Asks apt about packages, by the lists on the host.
  - Works on a host that nobody has hardened. Changes nothing and never fails for what it finds.
    What could not be decided has the result V(error).
options:
  units:
    description: The units to judge.
    type: list
    elements: dict
    required: true
    suboptions:
      unit:
        description:
          - Name of the unit with its suffix, a service with a main process, or a socket.
          - Of a unit that is not there no more is said than that.
        type: str
        required: true
      server:
        description:
          - The LLM server that runs in it. Its user and environment are the catalogue's unless
            given, and its version is judged.
        type: str
        choices: [ollama, localai, litellm]
      address:
        description:
          - Where to ask the server for its version, C(ADDRESS:PORT). Its default port on loopback
            unless given.
        type: str
        default: ""
      user:
        description: The user that it must run as. Not looked at when empty.
        type: str
      environment:
        description: Variables it must run with, with their literal values. V(null) leaves one out.
        type: dict
      forbidden_environment:
        description: Variables that it must not run with.
        type: list
        elements: str
      directives:
        description:
          - Directives of the unit's own section (C([Service]) or C([Socket])), as in
            O(llmsec.hardening.systemd_dropin#module:content). An empty text or list means nothing,
            V(null) leaves a directive out.
        type: dict
        default: {}
      dropin:
        description: File name of the drop-in that must be in force. Not looked at when empty.
        type: str
        default: ""
      text:
        description:
          - The whole text of the unit file as it was installed. The one on the host must say the
            same, comments apart. Not compared when empty.
        type: str
        default: ""
      packages:
        description: Packages of the distribution that it is made of.
        type: list
        elements: str
        default: []
      enabled:
        description: Whether to look that it is started at boot.
        type: bool
        default: true
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
    details: Reads only, so it does the same in check mode.
  diff_mode:
    support: none
  platform:
    platforms: linux
notes:
  - Run it as root. Other users may not look at the process.
  - Values of variables that are not asked for are never shown.
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: See how the services run
  llmsec.hardening.verify_service:
    units:
      - unit: ollama.service
        server: ollama
        dropin: 50-llm-hardening.conf
        directives:
          NoNewPrivileges: true
          CapabilityBoundingSet: ""
          IPAddressDeny: any
          IPAddressAllow: localhost
          SystemCallFilter: ["@system-service @resources", "~@privileged"]
      - unit: nginx.service
        packages: [nginx]
  register: services

- name: Stop when anything does not hold or could not be decided
  ansible.builtin.assert:
    that: wrong | length == 0
    fail_msg: "{{ wrong | map(attribute='title') | join('; ') }}"
  vars:
    wrong: "{{ services.findings | rejectattr('result', 'in', ['pass', 'skip']) }}"
"""

RETURN = r"""
findings:
  description: One dictionary for each check of each unit, one for each directive among them.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Stable name of the check., type: str}
    control: {description: The control that it is about., type: str}
    title: {description: What must hold., type: str}
    severity: {description: "V(high), V(medium) or V(low).", type: str}
    result:
      description: "V(pass), V(fail), V(skip), or V(error) for what was not measured."
      type: str
    expected: {description: How it should be., type: str}
    actual: {description: The first thing that is wrong with it., type: str}
    evidence: {description: "All that is wrong, with files and lines.", type: list}
    remediation: {description: What to do about it., type: str}
"""

import os
import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import SERVERS
from ansible_collections.llmsec.hardening.plugins.module_utils.service_checks import (
    Expected,
    judge,
    slug,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.service_host import ServiceHost
from ansible_collections.llmsec.hardening.plugins.module_utils.systemd_units import (
    UnitError,
    make_wish,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.unit_files import (
    OWN_PLACE,
    UNIT_NAME,
)

UNIT: dict[str, t.Any] = {
    "unit": {"type": "str", "required": True},
    "server": {"type": "str", "choices": ["ollama", "localai", "litellm"]},
    "address": {"type": "str", "default": ""},
    "user": {"type": "str"},
    "environment": {"type": "dict"},
    "forbidden_environment": {"type": "list", "elements": "str"},
    "directives": {"type": "dict", "default": {}},
    "dropin": {"type": "str", "default": ""},
    "text": {"type": "str", "default": ""},
    "packages": {"type": "list", "elements": "str", "default": []},
    "enabled": {"type": "bool", "default": True},
}


def expected_from(params: dict[str, t.Any]) -> Expected:
    """Return what one unit should be like. Raises UnitError."""
    unit = params["unit"]
    if not UNIT_NAME.match(unit):
        raise UnitError(f"not a unit name with its suffix: {unit!r}")
    server = SERVERS.get(params["server"])
    environment, forbidden = params["environment"], params["forbidden_environment"]
    user = params["user"]
    if server:
        environment = server.environment if environment is None else environment
        forbidden = server.forbidden_environment if forbidden is None else forbidden
        user = server.user if user is None else user
    section = unit.rpartition(".")[2].capitalize()
    wish = make_wish({section: params["directives"]}, environment or {}, forbidden or ())
    dropin = f"{OWN_PLACE}/{unit}.d/{params['dropin']}" if params["dropin"] else ""
    return Expected(
        unit, wish, user or "", params["server"] or "", dropin, tuple(params["packages"]),
        params["enabled"], params["text"],
    )  # fmt: skip


def all_expected(units: list[dict[str, t.Any]]) -> list[Expected]:
    """Return what the units should be like. Raises UnitError, also for two of one name."""
    found = [expected_from(params) for params in units]
    names = [slug(each.unit) for each in found]
    for name in names:
        if names.count(name) > 1:
            raise UnitError(f"the unit {name} is given twice")
    return found


def live_host(module: AnsibleModule) -> ServiceHost:
    def run(command: list[str]) -> tuple[int, str, str]:
        # run_command would end the module
        if module.get_bin_path(command[0]) is None:
            return 127, "", f"{command[0]} is not installed"
        return module.run_command(command, environ_update={"LC_ALL": "C"})

    return ServiceHost(run, is_root=os.geteuid() == 0)


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "units": {"type": "list", "elements": "dict", "required": True, "options": UNIT}
        },
        supports_check_mode=True,
    )
    try:
        expected = all_expected(module.params["units"])
    except UnitError as exc:
        module.fail_json(msg=f"{exc}.")
    host = live_host(module)
    names = dict.fromkeys(name for each in expected for name in each.packages)
    packages = host.packages([*names], time.time())
    findings = [
        finding
        for each, params in zip(expected, module.params["units"], strict=True)
        for finding in judge(each, host.facts(each, params["address"], packages))
    ]
    module.exit_json(changed=False, findings=findings)


if __name__ == "__main__":
    main()
