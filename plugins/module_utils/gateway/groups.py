# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several LLM servers: who is in which group, and which group a model's requests go to."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.parts import Gateway
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import Scope

__all__ = ("group_problems",)

# By the key validator's word alone: a client's header would have another name.
_JUDGED = "$upstream_http_x_llm_model"
_HOST = re.compile(r"https?://([\w.-]+|\$\w+)\$llm_route\Z")


def group_problems(gateway: Gateway, scope: Scope) -> Iterator[str]:
    """Yield how the location behind the hop spreads requests otherwise than it should."""
    for one in scope.effective("proxy_next_upstream"):
        if "non_idempotent" in one.args:
            yield f"{one.text}: a request may be sent to two servers, and paid for twice"
    groups = gateway.expected.groups
    if groups is None:
        return
    for group in groups["groups"]:
        yield from _members(gateway, group)
    for one in scope.passes():
        found = _HOST.match(" ".join(one.args))
        host = found[1] if found is not None else ""
        if groups["models"]:
            yield from _chosen(gateway, host, groups)
        elif host != groups["others"]:
            yield f"{one.text}: not to the group {groups['others']}"


def _members(gateway: Gateway, group: Mapping[str, Any]) -> Iterator[str]:
    name = group["name"]
    found = gateway.config.upstreams.get(("http", name))
    if found is None:
        yield f"there is no group {name}"
        return
    has = {one.args[0]: "down" in one.args for one in found if one.name == "server" and one.args}
    wanted = {one["address"]: one["drain"] for one in group["servers"]}
    for address in sorted(has.keys() - wanted.keys()):
        yield f"{address} is in the group {name}"
    for address, drained in wanted.items():
        if address not in has:
            yield f"{address} is not in the group {name}"
        elif has[address] != drained:
            state = "is drained, and gets requests" if drained else "gets no requests"
            yield f"{address} of the group {name} {state}"


def _chosen(gateway: Gateway, host: str, groups: Mapping[str, Any]) -> Iterator[str]:
    """Yield what makes the choice of a group another one than that by the judged model."""
    tables = gateway.config.tables.get(host.lstrip("$"), []) if host.startswith("$") else []
    if len(tables) != 1:
        yield f"the group is {host or 'no name'}, and not chosen by one map"
        return
    source = tables[0].source
    said = gateway.config.sets(source.lstrip("$"), gateway.server)
    if [one.args[1:] for one in said] != [(_JUDGED,)]:
        yield f"the group is chosen by {source}, which is not the key validator's word"
    wanted = _rows(groups)
    for pattern, value in tables[0].rows:
        if (pattern, value) not in wanted:
            yield f"{pattern} goes to {value or 'no group'} ({tables[0].where})"
    for pattern, value in wanted:
        if (pattern, value) not in tables[0].rows:
            yield f"{pattern} does not go to {value} ({tables[0].where})"
    if set(tables[0].rows) == set(wanted) and list(tables[0].rows) != wanted:
        yield f"the first row that fits counts, and it is another one ({tables[0].where})"


def _rows(groups: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the map's rows as the role writes them: roles/gateway, llm-gateway.conf.j2."""
    rows = [("-", groups["without"])]
    rows += [(_pattern(one["name"]), one["group"]) for one in groups["models"]]
    return [*rows, ("~.", groups["others"])] if groups["others"] else rows


def _pattern(model: str) -> str:
    """Return a model's row as the role writes it."""
    return f"~^{model.replace('.', '[.]')}$"
