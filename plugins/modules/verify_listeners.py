#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: verify_listeners
short_description: Say whether the LLM server listens on loopback only, and who else listens
version_added: 0.2.0
description:
  - Reads the listening TCP sockets of the host from the kernel, with the process and unit behind
    each, and judges them by where they are bound, IPv4 and IPv6 apart. What a packet filter lets
    through is no excuse.
  - Looks past the host's own sockets as well, at units of systemd's that would listen, at rules
    that translate a port (nftables, iptables, iptables-legacy, IPVS), and at the sockets of other
    network namespaces.
  - An XDP program or a filter of tc's takes packets before any rule does, and nobody can say where
    it sends them, so that having one is a finding. Programs attached as links of tcx are not seen.
  - Asks public listeners that nobody expects whether the LLM server answers behind them, by one
    GET without a key.
  - Works on a host that nobody has hardened. Changes nothing and never fails for what it finds.
    What could not be decided has the result V(error).
options:
  server:
    description: The LLM server, by its name in the catalogue.
    type: str
    default: ollama
  server_port:
    description: Its port. The catalogue's unless given.
    type: int
  server_unit:
    description: The unit that it runs in. The catalogue's unless given.
    type: str
  server_user:
    description:
      - The user that it runs as; sockets of this user count as the server's. The catalogue's
        unless given.
    type: str
  gateway_port:
    description: The port of the gateway.
    type: int
    default: 443
  gateway_units:
    description: The units that may hold the port of the gateway. Empty means not to look.
    type: list
    elements: str
    default: [nginx.service]
  private_ports:
    description: Ports beside the LLM server's that must be bound to loopback.
    type: list
    elements: dict
    default:
      - port: 8081
        title: key validator
        units: [llm-key-validator.socket, llm-key-validator.service]
    suboptions:
      port:
        description: The port.
        type: int
        required: true
      title:
        description: What listens there.
        type: str
        default: private
      units:
        description: The units that may hold it. Empty means not to look.
        type: list
        elements: str
        default: []
  allowed:
    description:
      - What else may listen on every address. The gateway may anyway.
      - A program is the process's name as the kernel knows it, at most 15 characters.
    type: list
    elements: dict
    default:
      - {port: 22, program: sshd}
      - {port: 22, unit: ssh.socket}
    suboptions:
      port:
        description: The port.
        type: int
        required: true
      program:
        description: The program that may hold it. Any when empty.
        type: str
        default: ""
      unit:
        description: The unit that may hold it. Any when empty.
        type: str
        default: ""
  strict:
    description:
      - Whether any other public listener, and any other translated port, is a finding. It is one
        of severity V(medium), or V(high) for a listener that no service of the system's started.
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
  - Run it as root. Other users see the sockets but not whose they are, and no rules.
  - Looks at TCP only.
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: See who listens
  llmsec.hardening.verify_listeners:
    allowed:
      - {port: 22, program: sshd}
      - {port: 9100, unit: prometheus-node-exporter.service}
  register: listeners

- name: Stop when anything does not hold or could not be decided
  ansible.builtin.assert:
    that: wrong | length == 0
    fail_msg: "{{ wrong | map(attribute='title') | join('; ') }}"
  vars:
    wrong: "{{ listeners.findings | rejectattr('result', 'in', ['pass', 'skip']) }}"
"""

RETURN = r"""
findings:
  description: One dictionary for each check.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Stable name of the check., type: str}
    control: {description: The control that it is about., type: str}
    title: {description: What must hold., type: str}
    severity: {description: "V(critical) for what lets anybody use the LLM server.", type: str}
    result:
      description: "V(pass), V(fail), V(skip), or V(error) for what was not measured."
      type: str
    expected: {description: Who should listen where., type: str}
    actual: {description: Who does., type: str}
    evidence: {description: All listeners or rules that are wrong., type: list}
    remediation: {description: What to do about it., type: str}
"""

import os
import typing as t
from dataclasses import replace

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_options import live_machine
from ansible_collections.llmsec.hardening.plugins.module_utils.listener_answers import who_answers
from ansible_collections.llmsec.hardening.plugins.module_utils.listener_checks import (
    Allowed,
    Private,
    Wanted,
    judge,
    to_ask,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.listener_host import read_host
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import (
    UnknownServerError,
    get_server,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.unread import Unread

PRIVATE: dict[str, t.Any] = {
    "port": {"type": "int", "required": True},
    "title": {"type": "str", "default": "private"},
    "units": {"type": "list", "elements": "str", "default": []},
}
VALIDATOR = {
    "port": 8081,
    "title": "key validator",
    "units": ["llm-key-validator.socket", "llm-key-validator.service"],
}
ALLOWED: dict[str, t.Any] = {
    "port": {"type": "int", "required": True},
    "program": {"type": "str", "default": ""},
    "unit": {"type": "str", "default": ""},
}
SSH = [{"port": 22, "program": "sshd"}, {"port": 22, "unit": "ssh.socket"}]
ARGUMENTS: dict[str, t.Any] = {
    "server": {"type": "str", "default": "ollama"},
    "server_port": {"type": "int"},
    "server_unit": {"type": "str"},
    "server_user": {"type": "str"},
    "gateway_port": {"type": "int", "default": 443},
    "gateway_units": {"type": "list", "elements": "str", "default": ["nginx.service"]},
    "private_ports": {
        "type": "list",
        "elements": "dict",
        "options": PRIVATE,
        "default": [VALIDATOR],
    },
    "allowed": {"type": "list", "elements": "dict", "options": ALLOWED, "default": SSH},
    "strict": {"type": "bool", "default": True},
}


def wanted_from(params: dict[str, t.Any]) -> Wanted:
    """Return what is expected. Raises UnknownServerError."""
    server = get_server(params["server"])
    own = Private(
        params["server_port"] or server.port, server.name,
        (params["server_unit"] or server.unit,), is_server=True,
    )  # fmt: skip
    others = [
        Private(each["port"], each["title"], tuple(each["units"]))
        for each in params["private_ports"]
        if each["port"] != own.port
    ]
    return Wanted(
        (own, *others), params["server_user"] or server.user, params["gateway_port"],
        tuple(params["gateway_units"]),
        tuple(
            Allowed(each["port"], each["unit"], each["program"]) for each in params["allowed"]
        ),
        params["strict"],
    )  # fmt: skip


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        wanted = wanted_from(module.params)
    except UnknownServerError as exc:
        module.fail_json(msg=f"{exc}.")
    host = read_host(live_machine(module), is_root=os.geteuid() == 0)
    if not isinstance(host.listeners, Unread):
        heard = who_answers(module.params["server"], to_ask(wanted, host.listeners))
        host = replace(host, answering=heard)
    module.exit_json(changed=False, findings=judge(wanted, host))


if __name__ == "__main__":
    main()
