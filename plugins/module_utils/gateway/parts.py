# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Find the gateway in nginx's configuration, and tell its locations apart by what they do."""

from __future__ import annotations

import collections
import re
import typing as t
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.expected import Expected
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import (
    Config,
    Scope,
    Target,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_syntax import Directive

__all__ = ("Gateway", "certificates", "condition", "find_gateway", "refuses", "targets_of")

# Files that nginx reads at a reload only
_READ_ONCE = (
    "ssl_certificate", "ssl_certificate_key", "ssl_client_certificate", "ssl_crl",
    "ssl_trusted_certificate", "ssl_dhparam", "proxy_ssl_certificate",
    "proxy_ssl_certificate_key", "proxy_ssl_trusted_certificate", "proxy_ssl_crl",
)  # fmt: skip


def condition(scope: Scope) -> tuple[str, ...]:
    """Return the words of an `if`, without the brackets around them."""
    words = list(scope.args)
    if words:
        words[0] = words[0].removeprefix("(")
        words[-1] = words[-1].removesuffix(")")
        # A bracket that stands alone was a word of its own; an empty text in quotes is one, too.
        if scope.args[0] == "(":
            del words[0]
        if scope.args[-1] == ")":
            del words[-1]
    return tuple(words)


def place_of(route: Mapping[str, t.Any]) -> tuple[str, ...]:
    """Return the words of a route's location; nginx's `$` also matches before a line feed."""
    if "path" in route:
        return ("=", route["path"])
    return ("~", re.sub(r"\$\Z", r"\\z", route["pattern"]))


def status_of(directive: Directive) -> int:
    """Return the status that a `return` gives; a bare address is a redirect, 302."""
    first = directive.args[0] if directive.args else ""
    return int(first) if first.isdecimal() else 302


def refuses(scope: Scope) -> bool:
    """Tell whether a location or server answers every request with a refusal of its own."""
    returns = scope.all("return")
    inside = [one for one in scope.within() if one is not scope]
    return (
        bool(returns)
        and all(status_of(one) >= 400 for one in returns)
        and not scope.passes()
        and all(refuses(one) for one in inside)
    )


def targets_of(config: Config, scope: Scope) -> list[Target]:
    """Return all that a scope's own directives hand requests to."""
    return [target for one in scope.passes() for target in config.targets(one, scope)]


@dataclass(slots=True)
class Gateway:
    """The gateway's server, what shares its port, and the location that gives verdicts."""

    config: Config
    expected: Expected
    server: Scope
    # Servers that answer on the port when no name fits
    defaults: list[Scope]
    validator: Scope | None

    def locations(self) -> Iterator[Scope]:
        return (one for one in self.server.within() if one.kind == "location")

    def routes(self) -> list[Scope]:
        """Return the locations of routes, wherever they lead, and all that lead to the hop."""
        places = {place_of(route) for route in self.expected.routes}
        return [
            one
            for one in self._handing()
            if one.args in places or any(map(self.expected.is_validator, self.to(one)))
        ]

    def backends(self) -> list[Scope]:
        """Return the locations that hand requests to the LLM server, or may do so."""
        return [one for one in self._handing() if any(map(self.expected.may_reach, self.to(one)))]

    def to(self, scope: Scope) -> list[Target]:
        return targets_of(self.config, scope)

    def _handing(self) -> list[Scope]:
        return [one for one in self.locations() if one.passes() and one is not self.validator]

    def answering(self) -> list[Scope]:
        """Return the locations whose answers a client sees: routes, @backend, and refusals."""
        named = {one.args[-1] for one in self.in_force("error_page") if one.args}
        refusals = [one for one in self.locations() if one.args[-1] in named and refuses(one)]
        spoken = [one for one in refusals if all(status_of(r) != 444 for r in one.all("return"))]
        opened = [one for one in self._handing() if one.args[0].startswith("@")]
        return [*self.routes(), *opened, *spoken]

    def refusing(self) -> list[Scope]:
        """Return the default servers that do what they are for, and the gateway's own server.

        Any other default server is a finding of its own: gateway.names.default.
        """
        return [*(one for one in self.defaults if refuses(one)), self.server]

    def in_force(self, name: str) -> list[Directive]:
        """Return all directives of a name that are in force anywhere in the server."""
        found: dict[int, Directive] = {}
        for scope in self.server.within():
            for one in scope.effective(name):
                found[id(one)] = one
        return list(found.values())

    def location(self, uri: str) -> Scope | None:
        """Return the exact or named location of a URI."""
        wanted = (uri,) if uri.startswith("@") else ("=", uri)
        return next((one for one in self.locations() if one.args == wanted), None)


def defaults_of(config: Config, port: int) -> list[Scope]:
    """Return the default server of each address on a port: the one named so, or the first."""
    by_address: dict[str, list[tuple[bool, Scope]]] = {}
    for server in config.servers():
        for listen in server.listens():
            if port in listen.ports:
                named = bool({"default_server", "default"} & set(listen.words))
                by_address.setdefault(listen.address, []).append((named, server))
    found = []
    for candidates in by_address.values():
        named = [server for is_named, server in candidates if is_named]
        found.append((named or [candidates[0][1]])[0])
    return list(dict.fromkeys(found))


def find_gateway(config: Config, expected: Expected) -> Gateway | None:
    """Return the gateway, None where no server asks the key validator, or anybody, for a verdict.

    Known by the validator's socket, or else by its name and an `auth_request`.
    """
    servers = [one for one in config.servers() if one.serves(expected.port)]
    leading = [one for one in servers if _asks_validator(config, expected, one)]
    named = [one for one in servers if _names(one) & set(expected.server_names)]
    asking = [one for one in named if _verdict_uri(one)]
    both = [one for one in leading if one in named]
    server = next(iter([*both, *leading, *asking]), None)
    if server is None:
        return None
    gateway = Gateway(config, expected, server, defaults_of(config, expected.port), None)
    gateway.validator = gateway.location(_verdict_uri(server)) or _by_target(gateway)
    return gateway


def _asks_validator(config: Config, expected: Expected, server: Scope) -> bool:
    return any(
        expected.is_validator(target)
        for scope in server.within()
        for target in targets_of(config, scope)
    )


def _by_target(gateway: Gateway) -> Scope | None:
    """Return the location that asks for verdicts although nobody asks it."""
    for one in gateway.locations():
        found = gateway.to(one)
        if found and all(target.path == "/validate" for target in found):
            return one
    return None


def _names(server: Scope) -> set[str]:
    return {name.lower() for one in server.all("server_name") for name in one.args}


def names_of(server: Scope) -> set[str]:
    """Return a server's names, addresses without their brackets."""
    return {name.strip("[]") for name in _names(server)}


def _verdict_uri(server: Scope) -> str:
    """Return the location that most of the server asks for a verdict, empty when none is asked."""
    asked = [scope.value("auth_request", "off") for scope in server.within()]
    found = collections.Counter(uri for uri in asked if uri != "off").most_common(1)
    return found[0][0] if found else ""


def certificates(directives: Sequence[Directive], expected: Expected) -> list[str]:
    """Return the gateway's certificates, keys and lists, by the paths that nginx was given."""
    gateway = find_gateway(Config(directives), expected)
    if gateway is None:
        return []
    found = [one.args[-1] for name in _READ_ONCE for one in gateway.in_force(name) if one.args]
    # What a variable or a key store names is no file.
    return [path for path in dict.fromkeys(found) if not re.search(r"\$|\A\w+:", path)]
