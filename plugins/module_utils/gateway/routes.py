# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is let through: exactly the catalogue's routes, by the path that was judged."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterator

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.access import refused_or_sent
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.parts import (
    Gateway,
    condition,
    place_of,
    refuses,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import Scope, pieces_in

__all__ = ("route_problems",)

Problems = Iterator[tuple[str, str]]
Place = tuple[str, ...]

_METHODS = re.compile(r"\^\(\?:([A-Z]+(?:\|[A-Z]+)*)\)\$\Z")


def route_problems(gateway: Gateway) -> Problems:
    """Yield locations that are no route, routes that are none, and paths of somebody's own."""
    wanted = {place_of(route): route for route in gateway.expected.routes}
    found: dict[Place, Scope] = {}
    for scope in gateway.locations():
        if scope is gateway.validator or refused_or_sent(scope) or scope.args[0].startswith("@"):
            continue  # a named location is no path
        found[scope.args] = scope
        if scope.args not in wanted:
            yield "gateway.routes.allowed", f"{scope.name}: not a route that was asked for"
        else:
            for problem in _route(scope, wanted[scope.args]):
                yield "gateway.routes.allowed", f"{scope.name}: {problem}"
    for place in wanted:
        if place not in found:
            yield "gateway.routes.allowed", f"location {' '.join(place)} is missing"
    if not _refuses_the_rest(gateway):
        yield "gateway.routes.allowed", "no location / refuses everything else"
    yield from _managing(gateway, list(found.values()))
    for problem in _paths(gateway, wanted):
        yield "gateway.routes.path", problem


def _refuses_the_rest(gateway: Gateway) -> bool:
    if refuses(gateway.server):
        return True
    return any(one.args == ("/",) and refuses(one) for one in gateway.locations())


def _route(scope: Scope, route: dict[str, t.Any]) -> Iterator[str]:
    """Yield how a location differs from its route."""
    methods = _methods(scope)
    if methods != set(route["methods"]):
        yield f"methods {' '.join(sorted(methods)) or 'of any kind'}"
    said = [one.args for one in scope.all("set")]
    path = route.get("path", "$uri")
    if [args for args in said if args[0] == "$llm_route"] != [("$llm_route", path)]:
        yield "not its own path is judged"
    endpoint_class = ("$llm_endpoint_class", route["class"])
    if [args for args in said if args[0] == "$llm_endpoint_class"] != [endpoint_class]:
        yield f"not judged as {route['class']}"
    opaque = scope.value("proxy_pass_request_body", "on") == "off"
    if opaque != (route.get("body") == "opaque"):
        yield "judged without its body" if opaque else "its body is sent to be judged"
    if not scope.passes():
        yield "answers by itself"


def _methods(scope: Scope) -> set[str]:
    """Return the methods that a location does not refuse, none when it refuses none."""
    for one in scope.children:
        words = condition(one)
        if one.kind != "if" or len(words) != 3 or words[0] != "$request_method" or not refuses(one):
            continue
        if words[1] == "!=":
            return {words[2]}
        several = _METHODS.match(words[2]) if words[1] == "!~" else None
        if several is not None:
            return set(several[1].split("|"))
    return set()


def _managing(gateway: Gateway, scopes: list[Scope]) -> Problems:
    """Yield locations of routes that manage models, or log in, whether asked for or not."""
    closed = [
        route for route in gateway.expected.server.routes
        if route.endpoint_class in ("management", "account")
    ]  # fmt: skip
    places = {place_of(route.as_dict()) for route in closed}
    paths = [route.path for route in closed if route.path is not None]
    for scope in scopes:
        if scope.args in places or any(_covers(scope, path) for path in paths):
            yield "gateway.routes.management", f"{scope.name} is open"


def _covers(scope: Scope, path: str) -> bool:
    """Tell whether a location can be that of a path."""
    *modifier, text = scope.args or ("",)
    if modifier == ["="]:
        return text == path
    if modifier in (["~"], ["~*"]):
        # PCRE's end of a subject, and names of groups, are spelt otherwise in Python.
        pattern = text.replace(r"\z", r"\Z").replace("(?<", "(?P<")
        return re.search(pattern, path, re.IGNORECASE if modifier == ["~*"] else 0) is not None
    return not text.startswith("@") and path.startswith(text)


def _paths(gateway: Gateway, wanted: t.Collection[Place]) -> Iterator[str]:
    """Yield what the LLM server may get as a path besides a route's own."""
    known = {place[1] for place in wanted if place[0] == "="} | {"$uri"}
    # Whatever else leads there is a finding of its own: gateway.auth.backend.
    for scope in filter(refused_or_sent, gateway.backends()):
        for one in scope.passes():
            *pieces, last, after = [("", ""), *pieces_in(" ".join(one.args))]
            before = "".join([text for text, _name in pieces] + [last[0]])
            address = re.match(r"\w+://[^/]*\Z", before)
            if last[1] != "llm_route" or after[0] or address is None:
                yield f"{one.text} ({one.where}): not the route's path alone"
                continue
            for path in gateway.config.expand("$llm_route", gateway.server):
                # Which path belongs to which location is looked at route by route.
                if path not in known:
                    yield f"{one.text} ({one.where}): may be sent {path}"
