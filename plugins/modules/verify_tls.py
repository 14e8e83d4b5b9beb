#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: verify_tls
short_description: Say whether a server speaks TLS as the profile promises
version_added: 0.2.0
description:
  - Sends hand-built hellos to a server and reads what it answers, so that no local OpenSSL policy
    is mistaken for the server's. Looks at versions, cipher suites, groups, compression, sessions,
    HTTP/2, certificates, names, plain HTTP, and whether a client certificate is asked for.
  - Makes about 60 connections, a few at a time, and some requests without a key. Runs on the host
    or on a neighbour, such as the control node.
  - What is behind encryption is looked at with Python's ssl, which may refuse a server that is too
    old for it. That is the result V(error), and so is a server that does not answer.
  - Changes nothing and never fails for what it finds.
options:
  address:
    description: Where to connect to.
    type: str
    default: 127.0.0.1
  port:
    description: TCP port there.
    type: int
    default: 443
  server_name:
    description: By which name, or IP address, clients call the server.
    type: str
    required: true
  profile:
    description: Mozilla's TLS profile that it must keep, as C(gateway_tls_profile) says.
    type: str
    choices: [intermediate, modern]
    default: intermediate
  ca_file:
    description:
      - The CAs (PEM) that clients trust, on the machine where the module runs. Empty means not to
        verify the chain.
    type: path
  client_certificate:
    description:
      - Whether clients need a certificate. With V(optional) one is asked for, but a key will do.
    type: str
    choices: [none, required, optional]
    default: none
  certificate_days:
    description:
      - For how many days a certificate may be issued at most. V(0) means 366 in the profile
        V(intermediate) and 90 in V(modern).
    type: int
    default: 0
  least_days:
    description: For how many days the certificate must be good from now on.
    type: int
    default: 14
  post_quantum:
    description: Whether the group X25519MLKEM768 must be there, which takes OpenSSL 3.5.
    type: bool
    default: false
  refuses_names:
    description:
      - Whether the handshake must be refused to those who call another name, or none. With
        V(false) it need not, as for a server that is called by its address, but a request must
        not be answered.
    type: bool
    default: true
  hsts:
    description: Whether Strict-Transport-Security must be sent.
    type: bool
    default: true
  http_port:
    description: A port on which nothing but a redirect to HTTPS may be served. V(0) is none.
    type: int
    default: 0
  timeout:
    description: Seconds for one connection. All together get six times as long.
    type: float
    default: 5
  connections:
    description: Connections at a time. The gateway has a limit for each address.
    type: int
    default: 8
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
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: See how the gateway speaks TLS, from the control node
  llmsec.hardening.verify_tls:
    address: "{{ ansible_host | default(inventory_hostname) }}"
    server_name: "{{ gateway_server_names | first }}"
    ca_file: pki/ca.crt
    http_port: 80
  delegate_to: localhost
  become: false
  register: tls

- name: See it on the host itself, where each client must show a certificate
  llmsec.hardening.verify_tls:
    server_name: llm1.internal.example.com
    client_certificate: required
    ca_file: /etc/llm-gateway/pki/ca.crt
"""

RETURN = r"""
findings:
  description: One dictionary for each check, always the same ones.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Stable name of the check., type: str}
    control: {description: "The control that it is about: V(tls) or V(mtls).", type: str}
    title: {description: What must hold., type: str}
    severity: {description: What it weighs when it does not., type: str}
    result:
      description: V(pass), V(fail), V(skip) with the reason, or V(error) for what was not measured.
      type: str
    expected: {description: What the server must do., type: str}
    actual: {description: What it does., type: str}
    evidence: {description: What it accepted., type: list}
    remediation: {description: What to do about it., type: str}
"""

import datetime
import time

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_checks import tls_findings
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.connection import Target
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.survey import (
    Scope,
    survey,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.verdicts import (
    CLIENT_CERTIFICATES,
    PROFILES,
    Wishes,
)

# For how many exchanges that take all their time there is time
EXCHANGES = 6
OPTIONS = {
    "address": {"type": "str", "default": "127.0.0.1"},
    "port": {"type": "int", "default": 443},
    "server_name": {"type": "str", "required": True},
    "profile": {"type": "str", "choices": list(PROFILES), "default": "intermediate"},
    "ca_file": {"type": "path"},
    "client_certificate": {
        "type": "str",
        "choices": list(CLIENT_CERTIFICATES),
        "default": "none",
    },
    "certificate_days": {"type": "int", "default": 0},
    "least_days": {"type": "int", "default": 14},
    "post_quantum": {"type": "bool", "default": False},
    "refuses_names": {"type": "bool", "default": True},
    "hsts": {"type": "bool", "default": True},
    "http_port": {"type": "int", "default": 0},
    "timeout": {"type": "float", "default": 5},
    "connections": {"type": "int", "default": 8},
}
WISHES = (
    "server_name", "profile", "client_certificate", "certificate_days", "least_days",
    "post_quantum", "refuses_names", "hsts",
)  # fmt: skip
# Option: from, to
RANGES = {
    "port": (1, 65535), "http_port": (0, 65535), "timeout": (0.1, 600), "connections": (1, 64),
}  # fmt: skip


def main() -> None:
    module = AnsibleModule(argument_spec=OPTIONS, supports_check_mode=True)
    params = module.params
    for name, (least, most) in RANGES.items():
        if not least <= params[name] <= most:
            module.fail_json(msg=f"{name} is {params[name]}, and must be from {least} to {most}.")
    if not params["server_name"].strip():
        module.fail_json(msg="server_name is empty.")
    target = Target(
        params["address"],
        params["port"],
        params["timeout"],
        time.monotonic() + EXCHANGES * params["timeout"],
    )
    scope = Scope(
        params["server_name"], params["ca_file"] or "", params["http_port"], params["connections"]
    )
    wishes = Wishes(
        now=datetime.datetime.now(datetime.UTC), **{name: params[name] for name in WISHES}
    )
    module.exit_json(changed=False, findings=tls_findings(survey(target, scope), wishes))


if __name__ == "__main__":
    main()
