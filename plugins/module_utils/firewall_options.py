# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the modules of the firewall share: the options of a policy, and access to the live host."""

from __future__ import annotations

import pwd
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import (
    Backend,
    IptablesBackend,
    Machine,
    NftBackend,
)

__all__ = ("BACKEND", "POLICY", "backends", "live_machine", "user_number")

_GUARD: dict[str, t.Any] = {
    "port": {"type": "int", "required": True},
    "title": {"type": "str", "required": True},
    "sources": {"type": "list", "elements": "str", "default": []},
}
_LOOPBACK: dict[str, t.Any] = {
    "port": {"type": "int", "required": True},
    "title": {"type": "str", "required": True},
    "users": {"type": "list", "elements": "str", "default": []},
}
_DESTINATION: dict[str, t.Any] = {
    "destination": {"type": "str", "required": True},
    "port": {"type": "int", "required": True},
    "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
}
_EGRESS: dict[str, t.Any] = {
    "user": {"type": "str", "required": True},
    "restrict": {"type": "bool", "default": True},
    "metadata": {"type": "bool", "default": True},
    "allow": {"type": "list", "elements": "dict", "default": [], "options": _DESTINATION},
}
POLICY: dict[str, t.Any] = {
    "guards": {"type": "list", "elements": "dict", "default": [], "options": _GUARD},
    "default": {"type": "str", "choices": ["accept", "drop"], "default": "accept"},
    "loopback": {"type": "list", "elements": "dict", "default": [], "options": _LOOPBACK},
    "egress": {"type": "dict", "options": _EGRESS},
}
BACKEND: dict[str, t.Any] = {
    "type": "str",
    "choices": ["nftables", "iptables"],
    "default": "nftables",
}


def user_number(name: str) -> int | None:
    """Look a user's number up on this host; None when there is no such user.

    A number is taken as it is.
    """
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None


def live_machine(module: AnsibleModule) -> Machine:
    """Return the host that the module runs on."""

    def run(command: t.Sequence[str], stdin: str) -> tuple[int, str, str]:
        environment = {"LC_ALL": "C"}
        return module.run_command(
            list(command), data=stdin, binary_data=True, environ_update=environment
        )

    return Machine(run)


def backends(machine: Machine, name: str) -> tuple[Backend, Backend]:
    """Return the backend of that name, and the other one."""
    nft, iptables = NftBackend(machine), IptablesBackend(machine)
    return (nft, iptables) if name == nft.name else (iptables, nft)
