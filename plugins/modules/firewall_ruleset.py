#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: firewall_ruleset
short_description: Put a firewall in force with a way back, and keep it
version_added: 0.1.0
description:
  - Owns the table C(inet llm_hardening) (nftables) or the chains C(LLM-HARDENING-*) (iptables and
    ip6tables together) and touches nothing else. No policy is changed and nothing is flushed.
  - O(state=present) tries the rules in a scratch network namespace, refuses them when they would
    shut out the SSH connection that the module came through, arms a timer that brings the old
    rules back, and puts the new ones in force. The backend not named is taken away when they are
    confirmed. Come back over a new connection and confirm with O(state=confirmed), or the timer
    fires.
  - O(state=confirmed) stops the timer and keeps the rules in C(/etc/llm-firewall), from where a
    unit can load them with C(/bin/sh /etc/llm-firewall/load /etc/llm-firewall).
options:
  state:
    description: What shall be. V(absent) takes the rules in force and those kept away.
    type: str
    choices: [present, confirmed, absent]
    default: present
  unpublished_ports:
    description:
      - Ports that no rule may forward to somewhere else, as Docker does for a published port.
    type: list
    elements: int
    default: []
  confirm_within:
    description: Seconds after which the timer brings the old rules back.
    type: int
    default: 60
extends_documentation_fragment:
  - llmsec.hardening.firewall_policy
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
    details: Works where nftables is not installed yet, and where the users are not there yet.
  diff_mode:
    support: full
  platform:
    platforms: linux
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: Let application servers in, and nobody else
  llmsec.hardening.firewall_ruleset: &rules
    policy:
      guards:
        - {port: 443, title: the gateway, sources: [192.0.2.0/28, "2001:db8:1::/64"]}
        - {port: 11434, title: nobody but loopback}
      loopback:
        - {port: 11434, title: nginx and root only, users: [root, www-data]}
      egress: {user: ollama}

- name: Leave the old connection
  ansible.builtin.meta: reset_connection

- name: Come back through a new one
  ansible.builtin.wait_for_connection:
    timeout: 40

- name: Keep the rules
  llmsec.hardening.firewall_ruleset:
    <<: *rules
    state: confirmed
"""

RETURN = r"""
armed:
  description: Whether new rules are in force and the timer waits for O(state=confirmed).
  returned: success
  type: bool
controller:
  description:
    - The SSH connection that was judged, V(null) when there is none. Then only the timer protects
      it.
  returned: success
  type: dict
  sample: {client: 192.0.2.10, server: 192.0.2.20, port: 22, interface: eth0}
others:
  description: Other programs that write firewall rules on this host.
  returned: success
  type: list
  elements: str
  sample: [Docker, ufw]
"""

import dataclasses
import difflib
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils import (
    firewall_boot,
    firewall_host,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.checks import (
    Connection,
    lock_out,
    other_firewalls,
    published_port,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.policy import (
    Policy,
    PolicyError,
    parse_policy,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import RulesetError
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_connection import (
    controller,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import (
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

ARGUMENTS: dict[str, t.Any] = {
    "state": {"type": "str", "choices": ["present", "confirmed", "absent"], "default": "present"},
    "backend": BACKEND,
    "policy": {"type": "dict", "options": POLICY},
    "unpublished_ports": {"type": "list", "elements": "int", "default": []},
    "confirm_within": {"type": "int", "default": 60},
}


def refuse_published(machine: Machine, ports: t.Sequence[int]) -> list[str]:
    """Return who else writes rules here. Raises FirewallError for a port that is forwarded."""
    listing = machine.must("nft", "list", "ruleset") if machine.has("nft") else ""
    lines = listing.splitlines()
    for _version, _legacy, output in firewall_host.all_saved(machine):
        lines += output.splitlines()
    for port in ports:
        rule = published_port(lines, port)
        if rule:
            raise FirewallError(
                f"port {port} is published to somewhere else, past every rule of this firewall "
                f"({rule}): publish it on 127.0.0.1 in Docker, or not at all"
            )
    return other_firewalls(
        listing + "\n".join(f"chain {line[1:]}" for line in lines if line[:1] == ":")
    )


def described(connection: Connection | None) -> dict[str, t.Any] | None:
    return dataclasses.asdict(connection) if connection else None


class Work:
    """What one run of the module does."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        self.machine = live_machine(module)
        self.backend, self.other = backends(self.machine, module.params["backend"])

    def policy(self) -> Policy:
        return parse_policy(
            self.module.params["policy"], user_number, partial=self.module.check_mode
        )

    def present(self) -> dict[str, t.Any]:
        files = self.backend.render(self.policy())
        if not self.backend.installed():
            return self._not_installed(files)
        others = refuse_published(self.machine, self.module.params["unpublished_ports"])
        before, after = self.backend.live(), self.backend.listed(files)
        connection = controller(self.machine)
        self._refuse_lock_out(files, connection)
        changed = before != after or firewall_host.pending(self.machine)
        if changed and not self.module.check_mode:
            firewall_host.apply(
                self.machine, self.backend, files, self.module.params["confirm_within"]
            )
        return {
            "changed": changed,
            "armed": changed and not self.module.check_mode,
            "controller": described(connection),
            "others": others,
            "diff": diff("rules in force", before, after),
        }

    def _not_installed(self, files: t.Mapping[str, str]) -> dict[str, t.Any]:
        if not self.module.check_mode:
            needed = " and ".join(self.backend.packages)
            raise FirewallError(f"the backend {self.backend.name} needs {needed}")
        after = "\n".join(files.values())
        connection = controller(self.machine)
        self._refuse_lock_out(files, connection)
        return {
            "changed": True,
            "armed": False,
            "controller": described(connection),
            "others": [],
            "diff": diff("rules in force", "", after),
        }

    def _refuse_lock_out(self, files: t.Mapping[str, str], connection: Connection | None) -> None:
        if connection is None:
            return
        if self.backend.installed():
            own = firewall_host.own_rules(self.machine, self.backend, files)
            whole = firewall_host.whole_rules(self.machine, self.backend, files)
        else:
            own = whole = firewall_host.policy_rules(self.policy())
        why = lock_out(own, whole, connection)
        if why:
            raise FirewallError(
                f"these rules would shut out {connection.client}, from where this run comes to "
                f"port {connection.port}, so they were not put in force ({why})"
            )

    def confirmed(self) -> dict[str, t.Any]:
        files = self.backend.render(self.policy())
        kept = firewall_host.kept(self.machine, self.backend)
        loader = self.machine.read(f"{firewall_host.KEPT}/load")
        other = self.other.installed() and bool(self.other.live())
        # Written anew, they are root's alone again.
        exposed = firewall_boot.exposed(self.machine, kept)
        changed = kept != files or loader != self.backend.load or bool(exposed) or other
        if not self.module.check_mode and (changed or firewall_host.pending(self.machine)):
            firewall_host.confirm(self.machine, self.backend, self.other, files)
        before, after = ("\n".join(each.values()) for each in (kept, files))
        found = {"armed": False, "controller": None, "others": []}
        return {"changed": changed, "diff": diff(firewall_host.KEPT, before, after), **found}

    def absent(self) -> dict[str, t.Any]:
        before = "\n".join(item.live() for item in (self.backend, self.other) if item.installed())
        directories = [
            self.machine.path(firewall_host.KEPT),
            self.machine.path(firewall_host.PENDING),
        ]
        changed = bool(before.strip()) or any(path.exists() for path in directories)
        if changed and not self.module.check_mode:
            firewall_host.absent(self.machine, (self.backend, self.other))
        found = {"armed": False, "controller": None, "others": []}
        return {"changed": changed, "diff": diff("rules in force", before, ""), **found}


def diff(header: str, before: str, after: str) -> dict[str, str]:
    """Return a diff with few lines around each change."""
    lines = difflib.unified_diff(
        before.splitlines(), after.splitlines(), f"before: {header}", f"after: {header}",
        lineterm="",
    )  # fmt: skip
    return {"prepared": "".join(f"{line}\n" for line in lines)}


def main() -> None:
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", ["policy"]), ("state", "confirmed", ["policy"])],
        supports_check_mode=True,
    )
    try:
        result = getattr(Work(module), module.params["state"])()
    except (PolicyError, FirewallError, RulesetError, OSError) as exc:
        module.fail_json(msg=f"The firewall was left as it was: {exc}.")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
