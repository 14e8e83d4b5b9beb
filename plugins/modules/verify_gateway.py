#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: verify_gateway
short_description: Say whether nginx guards the LLM server
version_added: 0.2.0
description:
  - Reads the configuration that the running nginx was started with (C(nginx -T)), whole, and judges
    what it does to a request, wherever in it something stands. That includes whatever else on the
    host's nginx reaches the LLM server, in another file, on another port, or in a C(stream) block.
  - Says whether the running workers have read what is on disk, whether the gateway's own files are
    unchanged, and whether only root can change them.
  - Changes nothing and never fails for what it finds. What could not be decided has the result
    V(error). A control that was turned off is a finding like any other.
options:
  files:
    description:
      - The files that the role put there. One that was changed or is missing, and any other file in
        the gateway's places, is a finding. Without this option the files are not looked at.
    type: list
    elements: dict
    suboptions:
      path:
        description: Absolute path.
        type: str
        required: true
      sha256:
        description: Its SHA-256 in hexadecimal digits. Exactly one of this and O(files[].content).
        type: str
      content:
        description: Its whole content. The finding then tells how many lines differ.
        type: str
      mode:
        description: Quoted octal mode, not looked at when it is left out.
        type: str
      owner:
        description: User id of its owner, not looked at when it is left out.
        type: int
  server:
    description: The LLM server, by its name in the collection's catalogue.
    type: str
    default: ollama
  server_names:
    description: Names and addresses of the gateway. When empty, any are taken.
    type: list
    elements: str
    default: []
  port:
    description: The gateway's port.
    type: int
    default: 443
  backend:
    description:
      - Where the LLM server listens, as C(address:port), a URL without a path, or C(unix:/path).
        C(https) means that it must prove who it is. Empty means the catalogue's address.
    type: str
    default: ""
  backends:
    description:
      - Several LLM servers in its place, as C(gateway_backends) has them. O(backend) then says by
        its scheme only whether they must prove who they are.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: Address and port.
        type: str
        required: true
      models:
        description: Names of the models that it answers for. Without it, all that no server names.
        type: list
        elements: str
      drain:
        description: Whether it should get no new requests.
        type: bool
        default: false
  backend_name:
    description: Host name in that server's certificate.
    type: str
    default: ""
  endpoint_classes:
    description: Classes of routes that should be open.
    type: list
    elements: str
    default: [inference, read]
  extra_routes:
    description: Single routes that should be open on top, such as V(POST /api/show).
    type: list
    elements: str
    default: []
  auth:
    description: What clients must show, as C(gateway_auth).
    type: str
    choices: [api_key, mtls, both, either]
    default: api_key
  validator_socket:
    description: Unix socket of the key validator.
    type: path
    default: /run/llm-key-validator.sock
  audit_socket:
    description: Unix socket that reports go to. V(null) or empty means that they were turned off.
    type: raw
    default: /run/llm-key-validator-log.sock
  access_log:
    description: Whether nginx should keep a log of its own.
    type: bool
    default: true
  limit_per_key:
    description:
      - Requests per key or certificate, as C(gateway_limit_per_key) has it. C(rate) is in requests
        per second or minute, C(burst) is how many more may come at once. V(null) means that the
        limit was turned off.
    type: raw
    default: {rate: 10r/m, burst: 5}
  limit_per_address:
    description: Requests per client address, in the same way.
    type: raw
    default: {rate: 30r/m, burst: 10}
  connections_per_address:
    description: Requests under way per client address. V(null) means that it was turned off.
    type: raw
    default: 100
  max_body_size:
    description: Largest request body, as nginx writes sizes.
    type: str
    default: 10m
  max_header_size:
    description: Largest request line or header, as nginx writes sizes.
    type: str
    default: 8k
  client_timeout:
    description: Seconds that a client may take for its header, and between two pieces of a body.
    type: int
    default: 10
  tls_profile:
    description: Mozilla's TLS profile.
    type: str
    choices: [intermediate, modern]
    default: intermediate
  client_ca:
    description: The file of the CAs whose clients count. Empty means that any file will do.
    type: str
    default: ""
  client_crl:
    description: The file of their revocation lists. Empty means that any file will do.
    type: str
    default: ""
  hsts:
    description: Whether C(Strict-Transport-Security) should be sent.
    type: bool
    default: true
  service:
    description: Systemd unit of nginx.
    type: str
    default: nginx
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
  - Run it as root.
  - An nginx in a container with a network of its own is not looked at.
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: See whether nginx guards the LLM server
  llmsec.hardening.verify_gateway:
    server_names: [llm.internal.example.com]
  register: gateway

- name: Stop when anything does not hold or could not be decided
  ansible.builtin.assert:
    that: wrong | length == 0
    fail_msg: "{{ wrong | map(attribute='title') | join('; ') }}"
  vars:
    wrong: "{{ gateway.findings | rejectattr('result', 'in', ['pass', 'skip']) }}"
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
    expected: {description: What the configuration should do., type: str}
    actual: {description: The first thing that is wrong with it., type: str}
    evidence: {description: "All that is wrong, with files and lines.", type: list}
    remediation: {description: What to do about it., type: str}
"""

import os
import typing as t
from collections.abc import Iterable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.expected import (
    Expected,
    expected_from,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_host import (
    GatewayHost,
    verify,
)

FILE: dict[str, t.Any] = {
    "path": {"type": "str", "required": True},
    "sha256": {"type": "str"},
    "content": {"type": "str"},
    "mode": {"type": "str"},
    "owner": {"type": "int"},
}
BACKEND: dict[str, t.Any] = {
    "address": {"type": "str", "required": True},
    "models": {"type": "list", "elements": "str"},
    "drain": {"type": "bool", "default": False},
}
ARGUMENTS: dict[str, t.Any] = {
    "files": {
        "type": "list",
        "elements": "dict",
        "options": FILE,
        "mutually_exclusive": [["sha256", "content"]],
        "required_one_of": [["sha256", "content"]],
    },
    "server": {"type": "str", "default": "ollama"},
    "server_names": {"type": "list", "elements": "str", "default": []},
    "port": {"type": "int", "default": 443},
    "backend": {"type": "str", "default": ""},
    "backends": {"type": "list", "elements": "dict", "default": [], "options": BACKEND},
    "backend_name": {"type": "str", "default": ""},
    "endpoint_classes": {"type": "list", "elements": "str", "default": ["inference", "read"]},
    "extra_routes": {"type": "list", "elements": "str", "default": []},
    "auth": {
        "type": "str",
        "choices": ["api_key", "mtls", "both", "either"],
        "default": "api_key",
    },
    "validator_socket": {"type": "path", "default": "/run/llm-key-validator.sock"},
    "audit_socket": {"type": "raw", "default": "/run/llm-key-validator-log.sock"},
    "access_log": {"type": "bool", "default": True},
    "limit_per_key": {
        "type": "raw",
        "default": {"rate": "10r/m", "burst": 5},
        "no_log": False,
    },
    "limit_per_address": {"type": "raw", "default": {"rate": "30r/m", "burst": 10}},
    "connections_per_address": {"type": "raw", "default": 100},
    "max_body_size": {"type": "str", "default": "10m"},
    "max_header_size": {"type": "str", "default": "8k"},
    "client_timeout": {"type": "int", "default": 10},
    "tls_profile": {
        "type": "str",
        "choices": ["intermediate", "modern"],
        "default": "intermediate",
    },
    "client_ca": {"type": "str", "default": ""},
    "client_crl": {"type": "str", "default": ""},
    "hsts": {"type": "bool", "default": True},
    "service": {"type": "str", "default": "nginx"},
}


def live_host(module: AnsibleModule) -> GatewayHost:
    return GatewayHost(
        run=lambda command: module.run_command(list(command), environ_update={"LC_ALL": "C"}),
        binary=module.get_bin_path("nginx", opt_dirs=["/usr/sbin", "/usr/local/sbin"]),
        service=module.params["service"],
        systemctl=module.get_bin_path("systemctl"),
        is_root=os.geteuid() == 0,
    )


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    settings = module.params

    def expect(addresses: Iterable[str]) -> Expected:
        return expected_from(settings, addresses)

    try:
        expect(())
    except ValueError as exc:
        module.fail_json(msg=f"{exc}.")
    module.exit_json(changed=False, findings=verify(live_host(module), expect, settings["files"]))


if __name__ == "__main__":
    main()
