# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By which names the gateway is called, and what else answers on its port."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.parts import (
    Gateway,
    names_of,
    refuses,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import Scope

__all__ = ("name_problems",)

Problems = Iterator[tuple[str, str]]


def name_problems(gateway: Gateway) -> Problems:
    """Yield who answers on the gateway's port besides it and a default server that refuses."""
    for server in gateway.defaults:
        for problem in _answers(gateway, server):
            yield "gateway.names.default", f"{_called(server)}: {problem}"
    for problem in (*_own_names(gateway), *_neighbours(gateway)):
        yield "gateway.names.servers", problem


def _called(server: Scope) -> str:
    where = server.directive.where if server.directive is not None else ""
    return f"server {' '.join(sorted(names_of(server)))} ({where})"


def _answers(gateway: Gateway, server: Scope) -> Iterator[str]:
    if server is gateway.server:
        yield "the gateway itself answers to any name"
        return
    if not refuses(server):
        yield "it answers, or asks others to"
    rejects = server.value("ssl_reject_handshake", "off") == "on"
    if not rejects and not gateway.expected.by_address:
        yield "ssl_reject_handshake is off"


def _own_names(gateway: Gateway) -> Iterator[str]:
    found, wanted = names_of(gateway.server), set(gateway.expected.server_names)
    if wanted:
        for name in sorted(found - wanted):
            yield f"the gateway is called {name or 'nothing'}, too"
        for name in sorted(wanted - found):
            yield f"the gateway is not called {name}"


def _neighbours(gateway: Gateway) -> Iterator[str]:
    port, names = gateway.expected.port, names_of(gateway.server)
    addresses = {one.address for one in gateway.server.listens() if port in one.ports}
    for server in gateway.config.servers():
        if server is gateway.server or not server.serves(port):
            continue
        others = {one.address for one in server.listens() if port in one.ports}
        if names_of(server) & names:
            yield f"{_called(server)}: the gateway's name"
        if any(one.passes() for one in server.within()):
            yield f"{_called(server)}: hands requests on, on the gateway's port"
        if others - addresses:
            yield f"{_called(server)}: takes the port on {', '.join(sorted(others - addresses))}"
    for server in gateway.config.servers("stream"):
        if server.serves(port):
            yield f"a stream {_called(server)}: takes the gateway's port"
