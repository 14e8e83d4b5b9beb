#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: listeners_info
short_description: Report which program and unit listens on which address
version_added: 0.1.0
description:
  - Reads the listening sockets of the host from the kernel and finds the process and the systemd
    unit behind each.
  - Judges by what is bound, not by what a configuration file says or a packet filter lets through.
  - Sees the sockets of its own network namespace only.
options:
  ports:
    description: Only these ports; all when empty.
    type: list
    elements: int
    default: []
  protocols:
    description: Kinds of sockets to look at. For V(udp) every bound, unconnected socket counts.
    type: list
    elements: str
    choices: [tcp, udp]
    default: [tcp]
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    platforms: linux
notes:
  - Run it as root. Other users see the sockets, but not whose they are, and get a warning.
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: See who owns the HTTPS port
  llmsec.hardening.listeners_info:
    ports: [443]
  register: https

- name: Stop when it is not nginx
  ansible.builtin.assert:
    that: https.listeners | rejectattr('program', 'eq', 'nginx') | length == 0
"""

RETURN = r"""
listeners:
  description: One entry per listening socket, sorted by port.
  returned: success
  type: list
  elements: dict
  contains:
    address:
      description: Address the socket is bound to. IPv4 mapped into IPv6 is shown as IPv4.
      type: str
      sample: 127.0.0.1
    port:
      description: Port number.
      type: int
      sample: 11434
    protocol:
      description: V(tcp) or V(udp).
      type: str
      sample: tcp
    family:
      description: V(ipv4) or V(ipv6), after the mapping above.
      type: str
      sample: ipv4
    v4_mapped:
      description: Whether an IPv6 socket is bound to an IPv4 address.
      type: bool
    dual_stack:
      description: Whether this is a V(::) socket that takes IPv4 connections too. In doubt V(true).
      type: bool
    uid:
      description: User id that created the socket.
      type: int
      sample: 998
    pid:
      description:
        - Process that answers for the socket; 1 when systemd holds it for a C(.socket) unit, the
          master when workers share it. V(null) when no process was found.
      type: int
      sample: 731
    program:
      description: The process's name as the kernel knows it, at most 15 characters.
      type: str
      sample: ollama
    unit:
      description:
        - System unit of the process, or the C(.socket) unit that systemd holds the socket for.
      type: str
      sample: ollama.service
    units:
      description: Units of all processes that hold the socket, with socket activation usually two.
      type: list
      elements: str
      sample: [llm-key-validator.service, llm-key-validator.socket]
"""

import os
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.sockets import (
    PROTOCOLS,
    ProcReader,
    SocketTableError,
    build_listeners,
    parse_socket_units,
)


def socket_units(module: AnsibleModule) -> dict[tuple[str, str, int], str]:
    """Ask systemd which C(.socket) unit holds which address; nothing when it cannot say."""
    systemctl = module.get_bin_path("systemctl")
    if systemctl is None:
        return {}
    command = [systemctl, "show", "--no-pager", "--property=Id,Listen", "*.socket"]
    code, out, _err = module.run_command(command, environ_update={"LC_ALL": "C"})
    return parse_socket_units(out) if code == 0 else {}


def find_listeners(module: AnsibleModule) -> list[dict[str, t.Any]]:
    """Read the host and return the entries documented above."""
    proc = ProcReader()
    sockets = proc.sockets(module.params["protocols"])
    holders = proc.holders({socket.inode for socket in sockets})
    by_systemd = any(holder.pid == 1 for found in holders.values() for holder in found)
    units = socket_units(module) if by_systemd else {}
    return build_listeners(sockets, holders, units, module.params["ports"])


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "default": []},
            "protocols": {
                "type": "list",
                "elements": "str",
                "choices": list(PROTOCOLS),
                "default": ["tcp"],
            },
        },
        supports_check_mode=True,
    )
    if os.geteuid() != 0:
        module.warn("listeners_info does not run as root: processes of other users stay unknown")
    try:
        module.exit_json(changed=False, listeners=find_listeners(module))
    except (SocketTableError, OSError) as exc:
        module.fail_json(msg=f"Cannot read the listening sockets: {exc}")


if __name__ == "__main__":
    main()
