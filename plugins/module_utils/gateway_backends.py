# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Several LLM servers behind one gateway: what is wrong with them, and which group has a model.

Pure functions over `gateway_backends`: dictionaries of `address`, `models` and `drain`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

__all__ = ("DEFAULT_GROUP", "backend_groups", "backend_problems", "canonical_model")

DEFAULT_GROUP = "llm_server"

_FIELDS = ("address", "models", "drain")
# As roles/gateway/vars/main.yml has it of gateway_backend
_ADDRESS = re.compile(r"(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):(?P<port>[0-9]{1,5})\Z")
# As the key validator reads names of models: bodies/names.py, canonical_name()
_MODEL = re.compile(
    r"(?:(?:(?P<host>[a-z0-9_][a-z0-9_.:-]{0,349})/)?(?P<namespace>[a-z0-9_][a-z0-9_-]{0,79})/)?"
    r"(?P<model>[a-z0-9_][a-z0-9_.-]{0,79})(?::(?P<tag>[a-z0-9_][a-z0-9_.-]{0,79}))?\Z"
)


def canonical_model(text: object) -> str | None:
    """Return the one form of a model's name in which the key validator tells it, None if none.

    `tiny`, `TINY:latest` and `registry.ollama.ai/library/tiny` are all `tiny:latest`.
    """
    found = _MODEL.match(text.lower()) if isinstance(text, str) and text.isascii() else None
    if found is None or found["tag"] == "local":
        return None
    name = f"{found['model']}:{found['tag'] or 'latest'}"
    if found["host"] not in (None, "registry.ollama.ai"):
        return f"{found['host']}/{found['namespace']}/{name}"
    return name if found["namespace"] in (None, "library") else f"{found['namespace']}/{name}"


def backend_problems(backends: object) -> list[str]:
    """Return what is wrong with a list of LLM servers, one clause for each problem."""
    if not isinstance(backends, (list, tuple)):
        return ["it is not a list"]
    problems = [one for item in backends for one in _item_problems(item)]
    return problems or [*_twice(backends), *_drained(backends)]


def backend_groups(backends: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the groups that requests are spread over, and which of them has which model.

    `groups`: a name each, and its servers; models with the same servers share one. `models`: the
    canonical name of each with its group, sorted. `others` is the group of all other models, empty
    where there is none; `without` that of requests which name no model.
    """
    servers_of: dict[str, list[Mapping[str, Any]]] = {}
    others = [one for one in backends if not one.get("models")]
    for one in backends:
        for name in dict.fromkeys(map(canonical_model, one.get("models") or ())):
            servers_of.setdefault(str(name), []).append(one)
    groups = [_group(DEFAULT_GROUP, others)] if others else []
    models = []
    for name, servers in servers_of.items():
        known = next((each for each in groups if each["servers"] == _servers(servers)), None)
        if known is None:
            known = _group(f"{DEFAULT_GROUP}_{len(groups) + (not others)}", servers)
            groups.append(known)
        models.append({"name": name, "group": known["name"]})
    return {
        "groups": groups,
        "models": sorted(models, key=lambda one: one["name"]),
        "others": DEFAULT_GROUP if others else "",
        "without": groups[0]["name"] if groups else "",
    }


def _group(name: str, servers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {"name": name, "servers": _servers(servers)}


def _servers(backends: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{"address": one["address"], "drain": bool(one.get("drain"))} for one in backends]


def _item_problems(item: object) -> Iterator[str]:
    if not isinstance(item, Mapping) or "address" not in item:
        yield f"{item!r} has no address"
        return
    address, models = item["address"], item.get("models")
    for name in item:
        if name not in _FIELDS:
            yield f"{address} has {name!r}, and only {', '.join(_FIELDS)} are known"
    found = _ADDRESS.match(address) if isinstance(address, str) else None
    if found is None or not 0 < int(found["port"]) < 65536:
        yield f"{address!r} is not address:port"
    if not isinstance(item.get("drain", False), bool):
        yield f"drain of {address} is neither true nor false"
    if models is not None and (not isinstance(models, (list, tuple)) or not models):
        yield f"models of {address} is not a list of names (leave it out for all other models)"
        return
    for name in models or ():
        if canonical_model(name) is None:
            yield f"{address} has {name!r}, which is no model's name"


def _twice(backends: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    seen = set()
    for address in (one["address"].lower() for one in backends):
        if address in seen:
            yield f"{address} is there twice"
        seen.add(address)


def _drained(backends: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what nobody would answer for any more."""
    if not backends:
        return
    if all(one.get("drain") for one in backends):
        yield "all of them are drained, so that nobody would answer"
        return
    found = backend_groups(backends)
    empty = {
        one["name"] for one in found["groups"] if all(each["drain"] for each in one["servers"])
    }
    for one in found["models"]:
        if one["group"] in empty:
            yield f"every server of the model {one['name']} is drained"
    if found["others"] in empty:
        yield "every server of the models that nobody names is drained"
