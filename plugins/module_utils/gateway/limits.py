# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""How much: rates, connections, sizes and times, and whom nginx counts them by."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.expected import (
    Limit,
    seconds,
    size,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.parts import Gateway
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import Config, Scope
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_syntax import Directive

__all__ = ("limit_problems",)

Problems = Iterator[tuple[str, str]]

_ADDRESS = frozenset({"$binary_remote_addr", "$remote_addr"})
_CERTIFICATE = frozenset({"$ssl_client_fingerprint"})
# The key as it was sent: roles/gateway, llm-gateway.conf.j2
_KEY_SOURCE = "$http_x_api_key"
_KEY_ROWS = {("", "$http_authorization"), ("default", "$http_x_api_key")}
# Networks larger than these hold clients, too, and not just a few proxies of one's own.
_LARGEST = {4: 28, 6: 124}
# nginx's own values where nothing is said
_BODY, _HEADER, _TIME = "1m", "8k", "60s"


@dataclass(frozen=True, slots=True)
class Zone:
    """A `limit_req_zone` or `limit_conn_zone`: what it counts, and its rate."""

    key: str
    rate: str


def _words(directive: Directive) -> dict[str, str]:
    """Return the `name=value` words of a directive, bare ones with an empty value."""
    pairs = (word.partition("=") for word in directive.args)
    return {name: value for name, _equals, value in pairs}


def zones(config: Config, directive: str) -> dict[str, Zone]:
    """Return the zones that a directive of `http` defines, by their names."""
    found = {}
    for scope in config.scopes():
        for one in scope.all(directive) if scope.kind == "http" else ():
            words = _words(one)
            name = words.get("zone", "").partition(":")[0]
            found[name] = Zone(one.args[0], words.get("rate", ""))
    return found


def limit_problems(gateway: Gateway) -> Problems:
    """Yield limits that are missing, looser than asked for, or evaded by a header."""
    expected = gateway.expected
    keys = [_key_names(gateway.config)] if expected.auth in ("api_key", "either") else []
    keys += [_CERTIFICATE] if expected.certificates else []
    for name, limit, counted in (
        ("per_key", expected.limit_per_key, keys),
        ("per_address", expected.limit_per_address, [_ADDRESS]),
    ):
        for problem in _requests(gateway, name, limit, counted):
            yield f"gateway.limits.{name}", problem
    for problem in _connections(gateway):
        yield "gateway.limits.connections", problem
    for problem in _addresses(gateway):
        yield "gateway.limits.client_address", problem
    for problem in _sizes(gateway):
        yield "gateway.limits.sizes", problem


def _key_names(config: Config) -> frozenset[str]:
    """Return the variables that hold the key as a client sent it, by either header."""
    return frozenset(
        f"${name}"
        for name, tables in config.tables.items()
        if len(tables) == 1 and tables[0].source == _KEY_SOURCE and set(tables[0].rows) == _KEY_ROWS
    )


def _requests(
    gateway: Gateway, name: str, limit: Limit | None, counted: list[frozenset[str]]
) -> Iterator[str]:
    if limit is None:
        yield f"turned off by gateway_limit_{name}: null"
        return
    known = zones(gateway.config, "limit_req_zone")
    if not gateway.routes():
        yield "no route has a limit, for there is none"
    for scope in gateway.routes():
        for keys in counted:
            yield from _limited(scope, known, keys, limit)
        yield from _in_earnest(scope, "limit_req")


def _limited(
    scope: Scope, known: dict[str, Zone], keys: frozenset[str], limit: Limit
) -> Iterator[str]:
    """Yield why a location is not limited by one of these keys as asked for."""
    in_force = [_words(one) for one in scope.effective("limit_req")]
    mine = [one for one in in_force if known[one["zone"]].key in keys]
    if not mine:
        others = [f"{one['zone']} counts {known[one['zone']].key}" for one in in_force]
        wanted = " or ".join(sorted(keys)) or "the key that was sent"
        yield f"{scope.name}: not counted by {wanted} ({', '.join(others) or 'nothing is'})"
    for one in mine:
        rate, burst = known[one["zone"]].rate, one.get("burst", "0")
        if (rate, burst) != (limit.rate, str(limit.burst)):
            asked = f"{limit.rate} and {limit.burst}"
            yield f"zone {one['zone']}: rate {rate} and burst {burst}, not {asked}"


def _in_earnest(scope: Scope, name: str) -> Iterator[str]:
    if scope.value(f"{name}_dry_run", "off") != "off":
        yield f"{name}_dry_run is on, which counts and refuses nobody"
    status = scope.value(f"{name}_status", "503")
    if status != "429":
        yield f"{name}_status is {status}, not 429"


def _connections(gateway: Gateway) -> Iterator[str]:
    wanted = gateway.expected.connections_per_address
    if wanted is None:
        yield "turned off by gateway_connections_per_address: null"
        return
    known = zones(gateway.config, "limit_conn_zone")
    if not gateway.routes():
        yield "no route has a limit, for there is none"
    for scope in gateway.routes():
        found = [one.args for one in scope.effective("limit_conn")]
        numbers = [int(number) for name, number in found if known[name].key in _ADDRESS]
        if not numbers or min(numbers) > wanted:
            said = f"{min(numbers)}, not {wanted}" if numbers else "not limited by address"
            yield f"{scope.name}: {said}"
        yield from _in_earnest(scope, "limit_conn")


def _addresses(gateway: Gateway) -> Iterator[str]:
    for one in gateway.in_force("set_real_ip_from"):
        text = one.args[0] if one.args else ""
        if text != "unix:" and _is_everybody(text):
            yield f"{one.text} ({one.where}): everybody says what address is counted"


def _is_everybody(text: str) -> bool:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False  # the name of one proxy
    return network.prefixlen < _LARGEST[network.version]


def _sizes(gateway: Gateway) -> Iterator[str]:
    expected = gateway.expected
    for scope in gateway.routes():
        body = scope.value("client_max_body_size", _BODY)
        if not 0 < size(body) <= size(expected.max_body_size):
            yield f"{scope.name}: client_max_body_size {body}"
        yield from _waits(scope, "client_body_timeout", expected.client_timeout)
    # nginx takes these from the default server before it knows the name.
    for server in gateway.refusing():
        buffers = server.value("large_client_header_buffers", f"4 {_HEADER}")
        if size(buffers.split()[-1]) > size(expected.max_header_size):
            yield f"{server.name}: large_client_header_buffers {buffers}"
        yield from _waits(server, "client_header_timeout", expected.client_timeout)


def _waits(scope: Scope, name: str, most: int) -> Iterator[str]:
    value = scope.value(name, _TIME)
    if not 0 < seconds(value) <= most:
        yield f"{scope.name}: {name} {value}, not {most}s"
