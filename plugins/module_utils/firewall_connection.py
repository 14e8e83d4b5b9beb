# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the packets of a host come from and go to: the controller's connection, own addresses."""

from __future__ import annotations

import json
import os
import typing as t

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.checks import (
    Connection,
    Place,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import Machine

__all__ = ("controller", "places")


def controller(machine: Machine, process: int | None = None) -> Connection | None:
    """Return the SSH connection that a process, this one by default, runs under; None for none.

    sshd tells its children in SSH_CONNECTION (ssh(1)); sudo drops it, so the ancestors are asked.
    """
    found = _ssh_connection(machine, os.getpid() if process is None else process)
    if found is None:
        return None
    client, _client_port, server, port = found
    client, server = client.partition("%")[0], server.partition("%")[0]
    return Connection(client, server, int(port), _arrives_at(machine, client))


def _ssh_connection(machine: Machine, process: int) -> list[str] | None:
    while process > 0:
        try:
            environment = machine.path(f"/proc/{process}/environ").read_bytes()
            status = machine.path(f"/proc/{process}/stat").read_text(errors="replace")
        except OSError:
            return None
        for entry in environment.split(b"\0"):
            name, _equals, value = entry.partition(b"=")
            words = value.decode(errors="replace").split()
            if name == b"SSH_CONNECTION" and len(words) == 4:
                return words
        # pid (name) state parent …; the name may hold blanks and brackets (proc_pid_stat(5))
        process = int(status.rpartition(")")[2].split()[1])
    return None


def _json(machine: Machine, *words: str) -> list[dict[str, t.Any]]:
    if not machine.has("ip"):
        return []
    status, output, _errors = machine.run(["ip", "-json", *words], "")
    return json.loads(output) if status == 0 and output.strip() else []


def _arrives_at(machine: Machine, client: str) -> str | None:
    """Return the interface that leads to an address, where its packets most likely arrive."""
    routes = _json(machine, "route", "get", client)
    return routes[0].get("dev") if routes else None


def places(machine: Machine) -> list[Place]:
    """Return one global address of the host for each IP version."""
    found: dict[int, Place] = {}
    for link in _json(machine, "address", "show", "scope", "global"):
        for entry in link.get("addr_info", []):
            if entry.get("local") and link.get("ifname"):
                place = Place(entry["local"], link["ifname"])
                found.setdefault(place.version, place)
    return [found[version] for version in sorted(found)]
