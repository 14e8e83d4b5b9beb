#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: verify_certificates
short_description: Say how long certificates are still good, and whether they were changed
version_added: 0.2.0
description:
  - Reads PEM files on the host with C(openssl), and gives a finding for each certificate and each
    revocation list in them. An expired list makes nginx refuse every client.
options:
  paths:
    description: The files. One that is not there is a finding with the result V(error).
    type: list
    elements: path
    required: true
  least_days:
    description: How many days each must be good for from now on.
    type: int
    default: 14
  unchanged:
    description:
      - SHA-256 checksums in lower-case hex, by path, of files that must be as they were put there.
        One more CA among those of clients would let in whom it likes, and an older revocation list
        whoever was revoked since.
    type: dict
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
- name: See how long the gateway's certificates and lists are still good
  llmsec.hardening.verify_certificates:
    paths:
      - /etc/llm-gateway/pki/server.crt
      - /etc/llm-gateway/pki/client.crl
    least_days: 21
  register: certificates

- name: Stop when one is not
  ansible.builtin.assert:
    that: ending | length == 0
    fail_msg: "{{ ending | map(attribute='title') | join('; ') }}"
  vars:
    ending: "{{ certificates.findings | rejectattr('result', 'eq', 'pass') }}"
"""

RETURN = r"""
findings:
  description: One dictionary for each certificate and list.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Stable name of the check., type: str}
    control: {description: The control that it is about., type: str}
    title: {description: What must hold., type: str}
    severity: {description: "V(high) for what has expired or cannot be read.", type: str}
    result: {description: "V(pass), V(fail), or V(error) for what was not measured.", type: str}
    expected: {description: How long it must be good for., type: str}
    actual: {description: How long it is., type: str}
    evidence: {description: What openssl says., type: list}
    remediation: {description: What to do about it., type: str}
"""

import time
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.expiry import (
    COMMANDS,
    content_finding,
    expiry_findings,
)


def read(path: str) -> bytes | None:
    """Return what is in a file, None when it is not there or cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return None


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "paths": {"type": "list", "elements": "path", "required": True},
            "least_days": {"type": "int", "default": 14},
            "unchanged": {"type": "dict"},
        },
        supports_check_mode=True,
    )
    openssl = module.get_bin_path("openssl", required=True)

    def ask(kind: str, pem: str) -> str:
        status, output, errors = module.run_command([openssl, *COMMANDS[kind]], data=pem)
        if status != 0:
            raise ValueError(f"openssl: {errors.strip() or status}")
        return output

    findings: list[dict[str, t.Any]] = []
    for path in module.params["paths"]:
        least = module.params["least_days"]
        data = read(path)
        text = None if data is None else data.decode("ascii", "replace")
        findings += expiry_findings(path, text, ask, time.time(), least)
    for path, sha256 in (module.params["unchanged"] or {}).items():
        findings.append(content_finding(path, read(path), str(sha256)))
    module.exit_json(changed=False, findings=findings)


if __name__ == "__main__":
    main()
