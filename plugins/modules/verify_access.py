#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: verify_access
short_description: Say whether somebody without a good key gets past the gateway
version_added: 0.2.0
description:
  - Asks for every route of the LLM server without a key and with a key that nobody has, and tries
    what is known to lead around gateways - odd paths, forged headers, other names, smuggled
    requests, bad credentials, internal locations.
  - Every request must be refused, and does no harm where it is not. It names no model, or one that
    cannot exist. Routes that would sign the server out are asked for without the body that they
    announce, and only of a gateway that has refused everything else there.
  - An answer that is neither a refusal of the gateway nor one of nginx is V(fail). What was
    limited, undecided or not answered proves nothing and is V(error).
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
  ca_file:
    description:
      - Certificates of the CA (PEM) by which the gateway must prove its name before O(key) is sent
        to it. All other requests go to whoever answers, since certificates are not judged here.
    type: path
  server:
    description: The LLM server behind it, by its name in the collection's catalogue.
    type: str
    choices: [litellm, llama_cpp, localai, ollama, vllm]
    default: ollama
  endpoint_classes:
    description: Classes of routes that are meant to be open, as C(gateway_route_classes).
    type: list
    elements: str
    choices: [inference, read, inspect, management]
    default: [inference, read]
  extra_routes:
    description: Single routes that are meant to be open too, as C(gateway_extra_routes).
    type: list
    elements: str
    default: []
  auth:
    description:
      - What clients must show, as C(gateway_auth). For V(mtls) and V(both) nothing is asked with
        O(key) unless there is a O(client_certificate).
    type: str
    choices: [api_key, mtls, both, either]
    default: api_key
  key:
    description:
      - A good API key. With it, the routes that are meant to be closed are asked for once more.
        It must be good for reading from here.
    type: str
  client_certificate:
    description: A good client certificate (PEM, with its chain), for the requests with O(key).
    type: path
  client_certificate_key:
    description: Its private key (PEM).
    type: path
  refused_keys:
    description: Keys that were good once, such as revoked and expired ones. They must be refused.
    type: list
    elements: str
    default: []
  other_names:
    description:
      - Further names to ask for, beside a few likely ones, such as every C(server_name) that nginx
        knows on the host.
    type: list
    elements: str
    default: []
  direct:
    description:
      - Addresses and ports, as seen from here, at which the LLM server or the key validator would
        be reached without the gateway. Nobody must answer there.
      - Those on loopback are for O(local_users) to try.
    type: list
    elements: dict
    default: []
    suboptions:
      address:
        description: IP address or name.
        type: str
        required: true
      port:
        description: Port.
        type: int
        required: true
  local_users:
    description:
      - Local users that must not reach the addresses on loopback in O(direct), nor open the
        O(sockets). A child process becomes each of them and tries. For the gateway's host itself,
        as root.
      - Not the web server's user, who may.
    type: list
    elements: str
    default: []
  sockets:
    description: Unix sockets of the key validator that O(local_users) must not open.
    type: list
    elements: path
    default: [/run/llm-key-validator.sock, /run/llm-key-validator-log.sock]
  loopback_guarded:
    description:
      - Whether the firewall keeps local users off loopback (C(firewall_loopback_users)). If not,
        they are not tried there, and the findings say so.
    type: bool
    default: true
  quick:
    description:
      - Ask at most eight requests of the gateway. For neighbours, who have one address each, and
        run into the limit per address with more.
    type: bool
    default: false
  timeout:
    description: Seconds to wait for a connection or an answer.
    type: float
    default: 5
  within:
    description: Seconds after which nothing more is asked. What was not is V(error).
    type: int
    default: 60
notes:
  - On the gateway's own host requests come from many addresses in 127.0.0.0/8, so that the limit
    per address does not hide what a request would have got. It is counted before the key is looked
    at, and only where a route exists. From elsewhere use O(quick=true), or expect to wait
    (O(within)) and to get V(error) for what stayed limited.
  - The requests show in the gateway's logs, the audit log included.
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
    details: Changes nothing, so it does the same in check mode.
  diff_mode:
    support: none
  platform:
    platforms: linux
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: Try to get past the gateway, on its own host
  llmsec.hardening.verify_access:
    address: 127.0.0.1
    server_name: llm.internal.example.com
    direct:
      - {address: 127.0.0.1, port: 11434}
      - {address: "{{ ansible_facts['default_ipv4']['address'] }}", port: 11434}
    local_users: [nobody]
  become: true
  register: access

- name: The same from a neighbour, in a few requests
  llmsec.hardening.verify_access:
    address: llm.internal.example.com
    server_name: llm.internal.example.com
    quick: true
  delegate_to: app1.internal.example.com

- name: Stop when somebody gets in
  ansible.builtin.assert:
    that: access.findings | rejectattr('result', 'in', ['pass', 'skip']) | length == 0
"""

RETURN = r"""
findings:
  description: One dictionary for each group of requests.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Stable name of the check., type: str}
    control: {description: The control that it is about., type: str}
    title: {description: What must hold., type: str}
    severity: {description: "V(critical) for what lets anybody use the LLM server.", type: str}
    result: {description: "V(pass), V(fail), V(skip), or V(error) if not measured.", type: str}
    expected: {description: The answer that there must be., type: str}
    actual: {description: The answers that there were., type: str}
    evidence: {description: Request lines and what came back., type: list}
    remediation: {description: What to do about it., type: str}
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.access_checks import (
    direct_findings,
    local_findings,
    skipped,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.access_corpus import (
    Places,
    open_routes,
    places,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.access_probe import (
    Plan,
    Prober,
    ask_directly,
    gateway_findings,
    is_loopback,
    plan,
    try_as_users,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_routes import (
    GatewayError,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import (
    Endpoint,
    Sources,
    tls_context,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import SERVERS, get_server

ARGUMENTS: dict[str, t.Any] = {
    "address": {"type": "str", "required": True},
    "port": {"type": "int", "default": 443},
    "server_name": {"type": "str", "required": True},
    "tls": {"type": "bool", "default": True},
    "ca_file": {"type": "path"},
    "server": {"type": "str", "choices": sorted(SERVERS), "default": "ollama"},
    "endpoint_classes": {
        "type": "list",
        "elements": "str",
        "choices": ["inference", "read", "inspect", "management"],
        "default": ["inference", "read"],
    },
    "extra_routes": {"type": "list", "elements": "str", "default": []},
    "auth": {"type": "str", "choices": ["api_key", "mtls", "both", "either"], "default": "api_key"},
    "key": {"type": "str", "no_log": True},
    "client_certificate": {"type": "path"},
    "client_certificate_key": {"type": "path", "no_log": False},
    "refused_keys": {"type": "list", "elements": "str", "default": [], "no_log": True},
    "other_names": {"type": "list", "elements": "str", "default": []},
    "direct": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "address": {"type": "str", "required": True},
            "port": {"type": "int", "required": True},
        },
    },
    "local_users": {"type": "list", "elements": "str", "default": []},
    "sockets": {
        "type": "list",
        "elements": "path",
        "default": ["/run/llm-key-validator.sock", "/run/llm-key-validator-log.sock"],
    },
    "loopback_guarded": {"type": "bool", "default": True},
    "quick": {"type": "bool", "default": False},
    "timeout": {"type": "float", "default": 5},
    "within": {"type": "int", "default": 60},
}


def planned(params: dict[str, t.Any]) -> tuple[Plan, Places]:
    """Return what to ask, and the paths that tricks are tried on. Raises GatewayError."""
    server = get_server(params["server"])
    is_open = open_routes(server, params["endpoint_classes"], params["extra_routes"])
    name = params["server_name"]
    spots = places(server, f"[{name}]" if ":" in name else name, is_open)
    shown = bool(params["client_certificate"])
    with_key = bool(params["key"] or shown) and (shown or params["auth"] not in ("mtls", "both"))
    asked_for = plan(
        server, is_open, spots, names=params["other_names"], refused_keys=params["refused_keys"],
        with_key=with_key and not params["quick"], quick=params["quick"], tls=params["tls"],
    )  # fmt: skip
    return asked_for, spots


def prober(params: dict[str, t.Any], spots: Places) -> Prober:
    """Return who asks. Raises OSError for certificates that cannot be used."""

    def endpoint(*files: str) -> Endpoint:
        return Endpoint(
            address=params["address"], port=params["port"], server_name=params["server_name"],
            context=tls_context(*files) if params["tls"] else None, timeout=params["timeout"],
        )  # fmt: skip

    names = ("ca_file", "client_certificate", "client_certificate_key")
    key = params["key"] or ""
    return Prober(
        endpoint(), Sources(params["address"]), time.monotonic() + params["within"], spots,
        keyed=endpoint(*(params[name] or "" for name in names)), key=key,
        hidden=(key, *params["refused_keys"]), at_a_time=2 if params["quick"] else 6,
    )  # fmt: skip


def from_outside(params: dict[str, t.Any], gateway_answers: bool) -> t.Iterator[dict[str, t.Any]]:
    """Yield what becomes of us at the addresses that are not on loopback."""
    asked = [
        ask_directly(Endpoint(**one, timeout=params["timeout"]))
        for one in params["direct"]
        if not is_loopback(one["address"])
    ]
    yield from direct_findings(asked, gateway_answers)


def from_inside(params: dict[str, t.Any]) -> t.Iterator[dict[str, t.Any]]:
    """Yield what becomes of local users on loopback and at the sockets."""
    direct = params["direct"]
    spots = [(one["address"], one["port"]) for one in direct if is_loopback(one["address"])]
    if params["local_users"]:
        tried = try_as_users(
            params["local_users"], spots, params["sockets"], params["timeout"],
            params["loopback_guarded"],
        )  # fmt: skip
        yield from local_findings(tried)
    elif spots:
        why = "no local user was named to try (local_users)"
        yield skipped("access.local", "loopback", "local users are kept off loopback", why)


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_by={"client_certificate_key": ["client_certificate"]},
        supports_check_mode=True,
    )
    params = module.params
    try:
        asked_for, spots = planned(params)
        asker = prober(params, spots)
    except (GatewayError, OSError) as exc:
        module.fail_json(msg=f"Cannot ask the gateway: {exc}")
    # Children of this process try as other users: before there are threads.
    local = [*from_inside(params)]
    findings = [*gateway_findings(asker, asked_for)]
    direct = [*from_outside(params, findings[0]["result"] == "pass")]
    if params["key"] and not asked_for.with_key and not params["quick"]:
        why = "with this auth a client_certificate is needed as well"
        findings.append(skipped("access.key", "authentication", "the given key is let in", why))
    module.exit_json(changed=False, findings=findings + direct + local)


if __name__ == "__main__":
    main()
