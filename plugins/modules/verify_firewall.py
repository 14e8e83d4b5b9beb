#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: verify_firewall
short_description: Say who gets in and out under the firewall rules of a host
version_added: 0.1.0
description:
  - Reads all rules in force, of every program that wrote some (nftables, iptables,
    iptables-legacy), and judges packets by them without sending any, for IPv4 and IPv6. Does the
    same for the rules that are kept for the next boot.
  - Changes nothing and never fails for what it finds. What could not be decided has the result
    V(error).
options:
  unit:
    description: The unit that loads the rules at boot. Empty means not to look.
    type: str
    default: llm-firewall.service
  unit_text:
    description:
      - The whole text of that unit's file as it was installed. The one on the host must say the
        same, comments apart, and no drop-in may keep it from loading the rules. Not compared when
        empty.
    type: str
    default: ""
extends_documentation_fragment:
  - llmsec.hardening.firewall_policy
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
- name: See whether a stranger reaches the LLM server
  llmsec.hardening.verify_firewall:
    policy:
      guards:
        - {port: 11434, title: nobody but loopback}
  register: firewall

- name: Stop when anything does not hold or could not be decided
  ansible.builtin.assert:
    that: firewall.findings | rejectattr('result', 'in', ['pass', 'skip']) | length == 0
"""

RETURN = r"""
findings:
  description: One dictionary for each packet that was judged, and for drift and persistence.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Stable name of the check., type: str}
    control: {description: The control that it is about., type: str}
    title: {description: What must hold., type: str}
    severity: {description: V(high) or V(medium)., type: str}
    result: {description: "V(pass), V(fail), or V(error) for what was not measured.", type: str}
    expected: {description: What must become of the packet., type: str}
    actual: {description: What becomes of it., type: str}
    evidence: {description: The rules that decide., type: list}
    remediation: {description: What to do about it., type: str}
"""

import difflib
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils import (
    firewall_boot,
    firewall_host,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.findings import (
    finding,
    not_measured,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.checks import (
    verdict_findings,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.policy import (
    Policy,
    PolicyError,
    parse_policy,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import (
    Ruleset,
    RulesetError,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_connection import places
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import (
    Backend,
    FirewallError,
    Machine,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_options import (
    BACKEND,
    POLICY,
    backends,
    live_machine,
    user_number,
)

Finding = dict[str, t.Any]
CONTROL = "network_isolation"
REMEDY = "Run llmsec.hardening.harden."


def judged(machine: Machine, backend: Backend, policy: Policy, kept: dict) -> t.Iterator[Finding]:
    """Yield what becomes of packets under the rules in force and under those kept."""
    rulesets: dict[str, Ruleset] = {}
    try:
        rulesets["live"] = firewall_host.whole_rules(machine, backend)
    except (FirewallError, RulesetError, OSError) as exc:
        yield not_measured("firewall.live", CONTROL, "the rules in force can be read", exc, REMEDY)
    try:
        if kept:
            rulesets["kept"] = firewall_host.own_rules(machine, backend, kept)
    except (FirewallError, RulesetError, OSError) as exc:
        yield not_measured(
            "firewall.kept", CONTROL, "the rules kept for the next boot can be loaded", exc, REMEDY
        )
    here = places(machine)
    if not here:
        yield not_measured(
            "firewall.address", CONTROL, "the host has an address", "it has none", REMEDY
        )
    yield from verdict_findings(policy, here, rulesets)


def drift(backend: Backend, kept: dict) -> Finding:
    """Return whether the rules in force are those that the next boot loads."""
    title = "the rules in force are those kept for the next boot"
    try:
        live, boot = backend.live(), backend.listed(kept) if kept else ""
    except (FirewallError, OSError) as exc:
        return not_measured("firewall.drift", CONTROL, title, exc, REMEDY)
    lines = difflib.unified_diff(boot.splitlines(), live.splitlines(), "kept", "live", lineterm="")
    same = bool(kept) and live == boot
    actual = "they are" if same else "they differ" if kept else "none are kept"
    return finding(
        "firewall.drift", CONTROL, title, "high", "pass" if same else "fail",
        expected="they are", actual=actual, evidence=[*lines][:40], remediation=REMEDY,
    )  # fmt: skip


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "backend": BACKEND,
            "policy": {"type": "dict", "options": POLICY},
            "unit": {"type": "str", "default": "llm-firewall.service"},
            "unit_text": {"type": "str", "default": ""},
        },
        supports_check_mode=True,
    )
    machine = live_machine(module)
    backend, _other = backends(machine, module.params["backend"])
    try:
        policy = parse_policy(module.params["policy"] or {}, user_number)
    except PolicyError as exc:
        module.fail_json(msg=f"{exc}.")
    if not backend.installed():
        needed = " and ".join(backend.packages)
        found = [
            not_measured(
                "firewall.backend",
                CONTROL,
                "the rules can be read",
                f"{needed} not installed",
                REMEDY,
            )
        ]
        module.exit_json(changed=False, findings=found)
    kept = firewall_host.kept(machine, backend)
    findings = [*judged(machine, backend, policy, kept), drift(backend, kept)]
    unit = module.params["unit"]
    if unit:
        findings += [
            firewall_boot.policy_finding(backend, kept, backend.render(policy)),
            firewall_boot.files_finding(machine, backend, kept),
            firewall_boot.unit_finding(machine, unit, module.params["unit_text"]),
        ]
    module.exit_json(changed=False, findings=findings)


if __name__ == "__main__":
    main()
