# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What travels on of a client's headers, and what the gateway says in its own."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.access import refused_or_sent
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.expected import Expected
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.parts import Gateway
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import Config, Scope

__all__ = ("header_problems",)

Problems = Iterator[tuple[str, str]]

# Of what a client sent, only these go on to the LLM server.
_HARMLESS = frozenset({"$http_accept", "$content_type", "$http_content_type", "$request_id"})
_OF_ADDRESS = frozenset({"x-forwarded-for", "x-real-ip"})
# What the key validator believes, by header: roles/gateway, llm-gateway.conf.j2
_REQUEST = "$request_id $remote_addr $llm_endpoint_class $request_method $llm_route"
_KEY_ROWS = {("", "$http_authorization"), ("default", "$http_x_api_key")}
_CERTIFICATE_ROWS = {("SUCCESS", "$ssl_client_escaped_cert $ssl_client_s_dn"), ("default", "")}
# What the gateway adds to a client's headers; a key among them would be everybody's.
_ADDED = frozenset(
    {"host", "connection", "content-length", "x-gateway-request", "x-limit-key",
     "x-client-certificate"}
)  # fmt: skip
# Variables of the role's files that hold what was really sent, or what TLS has verified. A `map` or
# `set` can take their place, for all servers (ngx_http_add_variable()).
_FACTS = re.compile(
    r"http_(accept|authorization|content_type|transfer_encoding|x_api_key)"
    r"|upstream_http_(ratelimit|x)_\w+|ssl_client_\w+"
)
# What nginx does by itself with header names of other characters: it drops them
_NAMES = (("underscores_in_headers", "off"), ("ignore_invalid_headers", "on"))
_HALF_A_YEAR = 15_768_000


def header_problems(gateway: Gateway) -> Problems:
    """Yield headers by which a client could pass for somebody else, and missing ones of ours."""
    for scope in filter(refused_or_sent, gateway.backends()):
        for problem in _sent_on(scope, gateway.expected):
            yield "gateway.auth.headers", f"{scope.name}: {problem}"
    asking = [*gateway.routes(), *([gateway.validator] if gateway.validator is not None else [])]
    for scope in asking:
        for problem in _believed(scope, gateway.config, gateway.expected):
            yield "gateway.auth.headers", f"{scope.name}: {problem}"
    for problem in (*_false_facts(gateway.config), *_lax_names(gateway)):
        yield "gateway.auth.headers", problem
    yield from _answered(gateway)
    for server in gateway.refusing():
        for scope in server.within():
            said = scope.value("server_tokens", "on")
            if said not in ("off", "''"):
                yield "gateway.server_tokens", f"{scope.name}: server_tokens {said}"


def _set_headers(scope: Scope) -> dict[str, str]:
    """Return the headers that a location sends on, by their names in lower case."""
    found = {}
    for one in scope.effective("proxy_set_header"):
        name, *value = one.args or ("",)
        found[name.lower()] = " ".join(value)
    return found


def _sent_on(scope: Scope, expected: Expected) -> Iterator[str]:
    if scope.value("proxy_pass_request_headers", "on") != "off":
        yield "the client's headers go on to the LLM server"
    headers = _set_headers(scope)
    host = f"{expected.backend_name}:{expected.backend.port}"
    wanted = host if expected.backend.tls else expected.server.host_header
    if headers.get("host") != wanted and (expected.backend_name or not expected.backend.tls):
        yield f"Host is {headers.get('host', 'not set')}, not {wanted}"
    for name, value in headers.items():
        plain = "$" not in value or value in _HARMLESS
        # The key's id, as the key validator said it.
        plain |= name == expected.server.user_header and value == "$llm_key_id"
        if not plain and not (name in _OF_ADDRESS and value == "$remote_addr"):
            yield f"proxy_set_header {name} {value}"


def _believed(scope: Scope, config: Config, expected: Expected) -> Iterator[str]:
    """Yield what the key validator would take for the gateway's word, and a client could write."""
    headers = _set_headers(scope)
    if not _is_request(config, headers.get("x-gateway-request", "")):
        yield f"X-Gateway-Request is {headers.get('x-gateway-request', 'not set')}"
    inner = re.fullmatch(r"<(\$\w+)>", headers.get("x-limit-key", ""))
    if inner is None or not _is_table(config, inner[1], "$http_x_api_key", _KEY_ROWS):
        yield f"X-Limit-Key is {headers.get('x-limit-key', 'not set')}"
    for name in sorted(headers.keys() - _ADDED):
        yield f"proxy_set_header {name}: what the client itself sent is replaced"
    shown = headers.get("x-client-certificate")
    if expected.certificates:
        good = _is_table(config, shown or "", "$ssl_client_verify", _CERTIFICATE_ROWS)
    else:
        good = shown == ""
    if not good:
        yield f"X-Client-Certificate is {'not set' if shown is None else shown or 'empty'}"


def _false_facts(config: Config) -> Iterator[str]:
    """Yield what puts something else in the place of a variable that nginx itself fills."""
    for scope in config.scopes():
        for one in scope.own if scope.around("http") else ():
            defines = one.block is not None and one.name in ("map", "geo", "split_clients")
            name = one.args[-1] if defines and one.args else ""
            if one.name in ("set", "auth_request_set") and one.args:
                name = one.args[0]
            if _FACTS.fullmatch(name.lstrip("$")):
                yield f"{one.text} ({one.where}): in the place of nginx's own variable"


def _lax_names(gateway: Gateway) -> Iterator[str]:
    """Yield servers that let X_API_KEY pass for X-API-Key, by which limits count.

    nginx takes these from the default server before it knows the name.
    """
    for server in dict.fromkeys((*gateway.defaults, gateway.server)):
        for name, good in _NAMES:
            if (said := server.value(name, good)) != good:
                yield f"{server.name}: {name} {said}"


def _is_request(config: Config, text: str) -> bool:
    tables = config.tables.get(text.lstrip("$"), [])
    if re.fullmatch(r"\$\w+", text) and len(tables) == 1:
        return [value for _pattern, value in tables[0].rows] == [_REQUEST]
    return text == _REQUEST


def _is_table(config: Config, variable: str, source: str, rows: set[tuple[str, str]]) -> bool:
    tables = config.tables.get(variable.lstrip("$"), [])
    return len(tables) == 1 and tables[0].source == source and set(tables[0].rows) == rows


def _answered(gateway: Gateway) -> Problems:
    for scope in gateway.answering():
        headers = {}
        for one in scope.effective("add_header"):
            name, value, *words = (*one.args, "", "")
            # Of two, clients take the first (RFC 6797, 8.1).
            headers.setdefault(name.lower(), value if "always" in words else "")
        if gateway.expected.hsts and not _lasts(headers.get("strict-transport-security", "")):
            yield "gateway.tls.hsts", f"{scope.name}: no lasting Strict-Transport-Security, always"
        if headers.get("x-content-type-options", "").lower() != "nosniff":
            yield "gateway.tls.nosniff", f"{scope.name}: no X-Content-Type-Options nosniff, always"
    if not gateway.expected.hsts:
        yield "gateway.tls.hsts", "turned off by gateway_hsts: false"


def _lasts(value: str) -> bool:
    found = re.search(r"(?:\A|[;\s])max-age=\"?(\d+)", value.lower())
    return found is not None and int(found[1]) >= _HALF_A_YEAR
