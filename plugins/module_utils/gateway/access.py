# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who gets in: verdicts, the way of a request, and whatever leads around them."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.expected import Expected
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.groups import group_problems
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.parts import (
    Gateway,
    condition,
    refuses,
    status_of,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import (
    Config,
    Scope,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_syntax import Directive

__all__ = (
    "access_problems",
    "backend_problems",
    "module_problems",
    "refused_or_sent",
    "way_problems",
)

Problems = Iterator[tuple[str, str]]

# A small request passes the gate and is judged with its body: roles/gateway, llm-gateway.conf.j2.
GATE_SOURCE = "$server_protocol:$http_transfer_encoding:$content_length"
GATE_ROWS = {(r"~^HTTP/1\.[01]::[0-9]{0,4}$", "open"), ("default", "ask")}
# Directives that answer, or move a request, before or beside the key validator. Those of scripting
# modules are known by their beginnings.
_MOVING = frozenset(
    {
        "rewrite", "try_files", "mirror", "post_action", "alias", "ssi", "add_before_body",
        "add_after_body", "dav_methods", "stub_status", "empty_gif", "autoindex", "random_index",
        "perl", "proxy_store", "root",
    }
)  # fmt: skip
_SCRIPT = re.compile(r"js_|echo|.*_by_lua|perl_|passenger_|njs_|wasm_")
_SCRIPT_MODULE = re.compile(r"lua|perl|_js_|njs|echo|dav|passenger|wasm|fancyindex|upload")
_MODULE_FOLDERS = ("modules", "/usr/lib/nginx/modules", "/usr/share/nginx/modules")
_KEY_ID = "$upstream_http_x_key_id"


def access_problems(gateway: Gateway) -> Problems:
    """Yield what lets a request through to the key validator's second question, or past it."""
    yield from _unasked(gateway)
    for one in gateway.in_force("satisfy"):
        if one.args == ("any",):
            yield "gateway.auth.satisfy", f"{one.text} ({one.where})"
    for problem in _verdict(gateway):
        yield "gateway.auth.validator", problem
    for scope in gateway.routes():
        for problem in _hop(gateway, scope):
            yield "gateway.auth.hop", f"{scope.name}: {problem}"
    yield from _target(gateway)


def _unasked(gateway: Gateway) -> Problems:
    """Yield the locations that have something to give and ask nobody."""
    asked = gateway.validator.args[-1] if gateway.validator is not None else ""
    for scope in gateway.locations():
        if scope is gateway.validator or refused_or_sent(scope):
            continue
        said = scope.value("auth_request", "off")
        if said == "off" or said != asked:
            yield "gateway.auth.locations", f"{scope.name}: auth_request {said}"


def _opened_by_hop(scope: Scope) -> bool:
    """Tell whether a location refuses whatever the policy hop did not send, as @backend does."""
    if not scope.args[0].startswith("@"):
        return False
    key = next((one.args[0] for one in scope.all("set") if one.args[1:] == (_KEY_ID,)), None)
    if key is None or len([one for one in scope.all("set") if one.args[0] == key]) != 1:
        return False
    guards = [one for one in scope.children if one.kind == "if"]
    for guard in guards:
        if condition(guard) == (key, "=", "") and refuses(guard):
            names = [one.name for one in scope.own]
            # The name is taken before it is looked at.
            return names.index("set") < names.index("if") and guard is guards[0]
    return False


def refused_or_sent(scope: Scope) -> bool:
    """Tell whether a location has nothing to give, or to the policy hop's requests only."""
    return refuses(scope) or _opened_by_hop(scope)


def _verdict(gateway: Gateway) -> Iterator[str]:
    """Yield what is wrong with the location that gives verdicts."""
    scope = gateway.validator
    if scope is None:
        yield "no location is asked for a verdict"
        return
    if not scope.all("internal"):
        yield f"{scope.name}: not internal"
    targets = gateway.to(scope)
    if not targets:
        yield f"{scope.name}: asks nobody"
    for target in targets:
        if not gateway.expected.is_validator(target) or target.path != "/validate":
            yield f"{scope.name}: asks {target.host or target.text}{target.path}"
    yield from _verdict_settings(gateway, scope)
    for one in scope.all("return", "rewrite", "try_files", "error_page", "set", "root"):
        yield f"{scope.name}: {one.text}"
    for inner in scope.children:
        if not _is_gate(gateway.config, inner, gateway.server):
            yield f"{inner.name}: in the location of verdicts"


def _verdict_settings(gateway: Gateway, scope: Scope) -> Iterator[str]:
    if scope.value("proxy_pass_request_body", "on") != "off":
        yield f"{scope.name}: proxy_pass_request_body is on"
    if scope.value("proxy_intercept_errors", "off") != "off":
        yield f"{scope.name}: proxy_intercept_errors is on"
    if scope.value("proxy_cache", "off") != "off":
        yield f"{scope.name}: verdicts are cached"
    if not _ignores_orders(scope):
        yield f"{scope.name}: X-Accel-Redirect is obeyed"
    for one in gateway.in_force("auth_request"):
        if one.args not in (("off",), scope.args[-1:]):
            yield f"{one.text} ({one.where}): another place gives verdicts"


def _ignores_orders(scope: Scope) -> bool:
    ignored = {word.lower() for one in scope.effective("proxy_ignore_headers") for word in one.args}
    return "x-accel-redirect" in ignored


def _is_gate(config: Config, scope: Scope, server: Scope) -> bool:
    """Tell whether an `if` lets small requests on to be judged with their body, and no others."""
    words = condition(scope)
    if scope.kind != "if" or len(words) != 3 or words[1:] != ("=", "open"):
        return False
    tables = config.tables.get(words[0].lstrip("$"), [])
    return (
        [one.text for one in scope.own] == ["return 204"]
        and len(tables) == 1
        and tables[0].source == GATE_SOURCE
        and set(tables[0].rows) == GATE_ROWS
        and not config.sets(words[0].lstrip("$"), server)
    )


def _hop(gateway: Gateway, scope: Scope) -> Iterator[str]:
    for target in gateway.to(scope):
        if not gateway.expected.is_validator(target):
            yield f"goes to {target.host or target.text}"
        elif target.path != "/authorize":
            yield f"goes to {target.path or 'the path that the client sent'}"
    if scope.value("proxy_next_upstream") != "off":
        yield "proxy_next_upstream is not off, so that a request may be judged twice"
    if scope.value("proxy_intercept_errors", "off") != "off":
        yield "proxy_intercept_errors is on"
    if scope.value("proxy_cache", "off") != "off":
        yield "answers are cached"
    for one in (*scope.effective("proxy_method"), *scope.effective("proxy_set_body")):
        yield one.text


def _target(gateway: Gateway) -> Problems:
    """Yield where the location behind the hop leads besides to the LLM server."""
    found = [(one, gateway.to(one)) for one in gateway.locations() if _opened_by_hop(one)]
    for scope, targets in found:
        if targets and scope.value("proxy_cache", "off") != "off":
            yield "gateway.auth.target", f"{scope.name}: answers are kept, and given to others"
        for problem in group_problems(gateway, scope):
            yield "gateway.auth.target", f"{scope.name}: {problem}"
        for target in targets:
            if not gateway.expected.is_backend(target):
                yield (
                    "gateway.auth.target",
                    f"{scope.name}: {target.host or target.text}:{target.port}",
                )
    if not any(targets for _scope, targets in found):
        yield "gateway.auth.target", "nothing is sent to the LLM server by the key validator's word"


def backend_problems(config: Config, expected: Expected, gateway: Gateway | None) -> Problems:
    """Yield everything in http, stream and mail that can reach the LLM server, but one location.

    A relay to the gateway counts, too: it may bring a key along, and hides who is asking.
    """
    for scope in config.scopes():
        ours = gateway is not None and scope.around("server") is gateway.server
        if ours and scope.kind == "location" and _opened_by_hop(scope):
            continue
        for one in scope.passes():
            targets = config.targets(one, scope)
            relays = not ours and any(map(expected.is_gateway, targets))
            if relays or any(map(expected.may_reach, targets)):
                server = scope.around("server")
                place = f" in {_server_name(server)}" if server is not None else ""
                yield "gateway.auth.backend", f"{one.text} ({one.where}){place}"


def _server_name(server: Scope) -> str:
    listens = [" ".join(one.args) for one in server.all("listen")] or ["80"]
    names = [name for one in server.all("server_name") for name in one.args]
    return f"the server {' '.join(names)} on {', '.join(listens)}"


def way_problems(gateway: Gateway) -> Problems:
    """Yield what moves or answers a request before it is judged, or against the verdict."""
    for problem in _ways(gateway):
        yield "gateway.auth.ways", problem


def _ways(gateway: Gateway) -> Iterator[str]:
    for one in gateway.in_force("error_page"):
        yield from _error_page(gateway, one)
    for scope in (*_around(gateway.server), *gateway.server.within()):
        for one in scope.own:
            moves = one.name in _MOVING and (scope.kind in ("server", "location", "if"))
            if moves or _SCRIPT.match(one.name) or one.name == "mirror":
                yield f"{one.text} ({one.where})"
    for scope in gateway.server.within():
        if scope.parent is gateway.validator:
            continue  # what is in there is judged with the verdict
        yield from _moves(gateway, scope)
    for scope in gateway.locations():
        foreign = any(not gateway.expected.is_validator(one) for one in gateway.to(scope))
        if foreign and not _ignores_orders(scope):
            yield f"{scope.name}: X-Accel-Redirect is obeyed"


def _around(scope: Scope) -> Iterator[Scope]:
    parent = scope.parent
    while parent is not None:
        yield parent
        parent = parent.parent


def _error_page(gateway: Gateway, directive: Directive) -> Iterator[str]:
    *codes, uri = directive.args
    changed = [code[1:] for code in codes if code.startswith("=")]
    place = gateway.location(uri)
    harmless = place is not None and refuses(place)
    if not harmless or any(code and int(code) < 400 for code in changed):
        yield f"{directive.text} ({directive.where})"


def _moves(gateway: Gateway, scope: Scope) -> Iterator[str]:
    if scope is not gateway.validator:
        for one in scope.all("return"):
            if status_of(one) < 400:
                yield f"{scope.name}: {one.text}"
    if scope.kind == "if" and [one.name for one in scope.own] != ["return"]:
        yield f"{scope.name} does more than refuse"
    if scope.kind in ("if", "limit_except"):
        for one in scope.passes():
            yield f"{scope.name}: {one.text}"
    for one in scope.all("set"):
        if one.args[0].lstrip("$") in gateway.config.tables:
            yield f"{one.text} ({one.where}): a variable that is worked out elsewhere"


def module_problems(config: Config) -> Problems:
    """Yield modules that could answer before anybody is asked, and code from anywhere else."""
    for one in config.main.all("load_module"):
        folder, name = posixpath.split(posixpath.normpath(one.args[0] if one.args else ""))
        if _SCRIPT_MODULE.search(name):
            yield "gateway.modules", f"{one.text} ({one.where})"
        if folder not in _MODULE_FOLDERS:
            yield "gateway.modules.place", f"{one.text} ({one.where})"
