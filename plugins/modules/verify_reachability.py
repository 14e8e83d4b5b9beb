#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: verify_reachability
short_description: Say which ports of the gateway a neighbour reaches
version_added: 0.2.0
description:
  - Runs on a neighbour of the gateway, connects to ports, and says whether each is open or closed
    as it should be. All connections are tried side by side, and nothing is sent over them.
  - A port that is silent counts as closed only where something else answers, at the same address
    or a witness. Otherwise the network may be down, and the result is V(error).
  - Changes nothing and never fails for what it finds.
options:
  targets:
    description: The ports to try.
    type: list
    elements: dict
    required: true
    suboptions:
      address:
        description: Address or name. Of a name every address is tried.
        type: str
        required: true
      port:
        description: The port.
        type: int
        required: true
      expected:
        description:
          - What must become of the connection. A refused one is V(closed), and so is one that
            gets no answer.
        type: str
        choices: [open, closed]
        default: closed
      id:
        description: The target's part of the finding's id. V(port-PORT) when empty.
        type: str
        default: ""
      title:
        description: What the finding calls the port.
        type: str
        default: ""
      private:
        description:
          - Whether it is an LLM server's own port. If one of these opens, the finding is
            V(critical). The catalogue's ports are private anyway.
        type: bool
        default: false
      host:
        description:
          - The inventory's name of the host whose port it is. The target's findings carry it, so
            that those of many hosts can be told apart.
        type: str
        default: ""
      severity:
        description: Severity of this target's finding, O(severity) unless given.
        type: str
        choices: [info, low, medium, high, critical]
  vantage:
    description:
      - Who this neighbour is, for the findings' ids and titles. Several neighbours of one gateway
        need names of their own.
    type: str
    default: neighbour
  severity:
    description: Severity of the findings.
    type: str
    choices: [info, low, medium, high, critical]
    default: high
  timeout:
    description: Seconds to wait for all answers.
    type: float
    default: 3
  witness_port:
    description:
      - A port of each target's address that shows by its answer, even a refusal, that packets get
        there and back. V(0) for none.
    type: int
    default: 22
  witness:
    description:
      - Further ports that show the same, for all targets of their IP version. Needed where the
        gateway answers this neighbour nothing at all.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: Address or name.
        type: str
        required: true
      port:
        description: The port.
        type: int
        required: true
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
    details: Connects in check mode as well, which changes nothing.
  diff_mode:
    support: none
  platform:
    platforms: linux
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: See what a stranger reaches
  llmsec.hardening.verify_reachability:
    vantage: stranger
    targets:
      - {address: llm.internal.example.com, port: 443, title: the gateway}
      - {address: llm.internal.example.com, port: 11434, title: the LLM server}
      - {address: llm.internal.example.com, port: 8081, title: the key validator}
    witness:
      - {address: monitoring.internal.example.com, port: 22}
  delegate_to: stranger.internal.example.com
  register: reachability

- name: Stop when anything does not hold or could not be decided
  ansible.builtin.assert:
    that: wrong | length == 0
    fail_msg: "{{ wrong | map(attribute='title') | join('; ') }}"
  vars:
    wrong: "{{ reachability.findings | rejectattr('result', 'in', ['pass', 'skip']) }}"
"""

RETURN = r"""
findings:
  description: One dictionary for each target and IP version in which it has an address.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Stable name of the check., type: str}
    control: {description: The control that it is about., type: str}
    title: {description: What must hold., type: str}
    severity: {description: "V(critical) for an LLM server's own port.", type: str}
    result:
      description: "V(pass), V(fail), V(skip), or V(error) for what was not measured."
      type: str
    expected: {description: V(open) or V(closed)., type: str}
    actual: {description: What became of the connection., type: str}
    evidence: {description: Nothing more., type: list}
    remediation: {description: What to do about it., type: str}
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.connect_probe import (
    connect_all,
    local_families,
    resolve_all,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.controls import SEVERITIES
from ansible_collections.llmsec.hardening.plugins.module_utils.reachability import (
    Probe,
    Target,
    TargetError,
    check_targets,
    endpoints,
    judge,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import SERVERS

SEVERITY: dict[str, t.Any] = {"type": "str", "choices": list(SEVERITIES)}
PLACE: dict[str, t.Any] = {
    "address": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
}
TARGET: dict[str, t.Any] = {
    **PLACE,
    "expected": {"type": "str", "choices": ["open", "closed"], "default": "closed"},
    "id": {"type": "str", "default": ""},
    "title": {"type": "str", "default": ""},
    "private": {"type": "bool", "default": False},
    "host": {"type": "str", "default": ""},
    "severity": SEVERITY,
}
ARGUMENTS: dict[str, t.Any] = {
    "targets": {"type": "list", "elements": "dict", "required": True, "options": TARGET},
    "vantage": {"type": "str", "default": "neighbour"},
    "severity": {**SEVERITY, "default": "high"},
    "timeout": {"type": "float", "default": 3},
    "witness_port": {"type": "int", "default": 22},
    "witness": {"type": "list", "elements": "dict", "options": PLACE, "default": []},
}


def targets_from(params: dict[str, t.Any]) -> list[Target]:
    """Return the targets. Raises TargetError."""
    own_ports = {server.port for server in SERVERS.values()}
    targets = [
        Target(
            each["id"] or f"port-{each['port']}", each["address"], each["port"], each["expected"],
            each["title"] or f"port {each['port']} of {each['address']}",
            each["severity"] or params["severity"],
            each["private"] or each["port"] in own_ports, each["host"],
        )
        for each in params["targets"]
    ]  # fmt: skip
    check_targets(params["vantage"], targets)
    ports = [target.port for target in targets] + [each["port"] for each in params["witness"]]
    for port in (*ports, params["witness_port"] or 1):
        if not 0 < port <= 0xFFFF:
            raise TargetError(f"{port} is no port")
    if params["timeout"] <= 0:
        raise TargetError("timeout is not above 0")
    return targets


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    try:
        targets = targets_from(params)
    except TargetError as exc:
        module.fail_json(msg=f"{exc}.")
    witnesses = tuple((each["address"], each["port"]) for each in params["witness"])
    names = [*(target.address for target in targets), *(name for name, _port in witnesses)]
    addresses = resolve_all(names, params["timeout"])
    places = endpoints(targets, addresses, params["witness_port"], witnesses)
    probe = Probe(
        params["vantage"], addresses, connect_all(places, params["timeout"]),
        frozenset(local_families()), witnesses,
    )  # fmt: skip
    module.exit_json(changed=False, findings=judge(targets, probe))


if __name__ == "__main__":
    main()
