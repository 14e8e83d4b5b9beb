#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: verify_rate_limit
short_description: Say whether a gateway limits requests as it says
version_added: 0.2.0
description:
  - Asks for the same thing without a key until the gateway answers 429, tries to dodge the limit
    with forged headers and new keys, and sees whether it is let in again later.
  - Uses up the limit of the address that it asks from. On the gateway's own host that is one in
    127.0.0.0/8 which nobody else uses; elsewhere it is this host's own, whose other clients are
    refused for a while.
  - Never fails for what it finds.
options:
  address:
    description: Address of the gateway, as seen from here.
    type: str
    required: true
  port:
    description: Its port.
    type: int
    default: 443
  server_name:
    description: The name that clients call it by, in the handshake and in C(Host).
    type: str
    required: true
  tls:
    description: Whether it speaks TLS.
    type: bool
    default: true
  server:
    description: The LLM server behind it, by its name in the collection's catalogue.
    type: str
    choices: [litellm, llama_cpp, localai, ollama, vllm]
    default: ollama
  path:
    description:
      - What to ask for. A route that is open, since only those are counted. The catalogue's path
        for the server's health when empty.
    type: str
    default: ""
  per_address:
    description:
      - The limit per address, as C(gateway_limit_per_address). When it is missing, the gateway is
        meant to have none, which is a finding.
    type: dict
    suboptions: &limit
      rate:
        description: Requests per second or minute, as nginx writes it, such as V(30r/m).
        type: str
        required: true
      burst:
        description: How many more may come at once.
        type: int
        default: 0
  per_key:
    description:
      - The limit per key, as C(gateway_limit_per_key). When it is missing, the gateway is meant to
        have none, which is a finding. Measured on the gateway's own host only.
    type: dict
    suboptions: *limit
  key:
    description:
      - The key to use up. By default one that nobody has, which the gateway counts alike.
    type: str
  ca_file:
    description: Certificates of the CA (PEM) by which the gateway must prove its name. For O(key).
    type: path
  client_certificate:
    description: A client certificate (PEM), where the gateway counts nobody without one.
    type: path
  client_certificate_key:
    description: Its private key (PEM).
    type: path
  requests:
    description: The most requests to send, up to 200.
    type: int
    default: 200
  timeout:
    description: Seconds to wait for a connection or an answer.
    type: float
    default: 5
  recover_within:
    description: The most seconds to wait for one more request to be let in.
    type: float
    default: 10
  within:
    description: Seconds after which nothing more is asked. What was not is V(error).
    type: int
    default: 30
notes:
  - The requests show in the gateway's logs, the audit log included.
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
    details: Asks nothing in check mode, and says so in findings with the result V(skip).
  diff_mode:
    support: none
  platform:
    platforms: linux
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: See whether the limits hold
  llmsec.hardening.verify_rate_limit:
    address: 127.0.0.1
    server_name: llm.internal.example.com
    per_address: {rate: 30r/m, burst: 10}
    per_key: {rate: 10r/m, burst: 5}
  register: limits

- name: Stop when one does not
  ansible.builtin.assert:
    that: limits.findings | rejectattr('result', 'in', ['pass', 'skip']) | length == 0
"""

RETURN = r"""
findings:
  description: One dictionary for each limit, each dodge, the answer and the recovery.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Stable name of the check., type: str}
    control: {description: The control that it is about., type: str}
    title: {description: What must hold., type: str}
    severity: {description: "V(high), or V(low) for answer and recovery.", type: str}
    result: {description: "V(pass), V(fail), V(skip), or V(error) if not measured.", type: str}
    expected: {description: When a 429 must come., type: str}
    actual: {description: When it came., type: str}
    evidence: {description: The answers to a dodge., type: list}
    remediation: {description: What to do about it., type: str}
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_routes import GatewayError
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import (
    Endpoint,
    Sources,
    tls_context,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.rate_checks import (
    parse_limit,
    skip_finding,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.rate_probe import (
    MOST_REQUESTS,
    Flood,
    Wanted,
    rate_findings,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import SERVERS, get_server

LIMIT: dict[str, t.Any] = {
    "type": "dict",
    "options": {
        "rate": {"type": "str", "required": True},
        "burst": {"type": "int", "default": 0},
    },
}


def flood(params: dict[str, t.Any]) -> Flood:
    """Return who asks. Raises OSError for certificates that cannot be used."""
    server, name = get_server(params["server"]), params["server_name"]
    names = ("ca_file", "client_certificate", "client_certificate_key")
    files = [params[one] or "" for one in names]
    posts = (route.path for route in server.routes if "POST" in route.methods and route.path)
    endpoint = Endpoint(
        address=params["address"], port=params["port"], server_name=name,
        context=tls_context(*files) if params["tls"] else None, timeout=params["timeout"],
    )  # fmt: skip
    return Flood(
        endpoint, f"[{name}]" if ":" in name else name, params["path"] or server.health_path,
        next(posts, "/"), params["requests"], time.monotonic() + params["within"],
    )  # fmt: skip


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "default": 443},
            "server_name": {"type": "str", "required": True},
            "tls": {"type": "bool", "default": True},
            "server": {"type": "str", "choices": sorted(SERVERS), "default": "ollama"},
            "path": {"type": "str", "default": ""},
            "per_address": LIMIT,
            "per_key": {**LIMIT, "no_log": False},
            "key": {"type": "str", "no_log": True},
            "ca_file": {"type": "path"},
            "client_certificate": {"type": "path"},
            "client_certificate_key": {"type": "path", "no_log": False},
            "requests": {"type": "int", "default": MOST_REQUESTS},
            "timeout": {"type": "float", "default": 5},
            "recover_within": {"type": "float", "default": 10},
            "within": {"type": "int", "default": 30},
        },
        required_by={"client_certificate_key": ["client_certificate"]},
        supports_check_mode=True,
    )
    params = module.params
    if not 1 <= params["requests"] <= MOST_REQUESTS:
        module.fail_json(msg=f"requests must be from 1 to {MOST_REQUESTS}.")
    try:
        wanted = Wanted(
            per_address=parse_limit(params["per_address"]), per_key=parse_limit(params["per_key"]),
            key=params["key"] or "", recover_within=params["recover_within"],
        )  # fmt: skip
        asker = flood(params)
    except (GatewayError, OSError) as exc:
        module.fail_json(msg=f"Cannot ask the gateway: {exc}")
    if module.check_mode:
        why = "nothing is asked in check mode"
        skipped = [skip_finding(which, why) for which in ("per_address", "per_key")]
        module.exit_json(changed=False, findings=skipped)
    findings = [*rate_findings(asker, wanted, Sources(params["address"]))]
    module.exit_json(changed=False, findings=findings)


if __name__ == "__main__":
    main()
