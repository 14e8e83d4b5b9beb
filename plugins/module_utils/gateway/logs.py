# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is left of a request: the report to the key validator, logs, and no secret in them."""

from __future__ import annotations

import re
from collections.abc import Iterator

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.catalogue import Skip
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.parts import Gateway
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import (
    Config,
    Scope,
    dependencies,
    names_in,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_syntax import Directive

__all__ = ("log_problems",)

Problems = Iterator[tuple[str, "str | Skip"]]

# What the key validator reads from a report, word by word: roles/gateway, llm-gateway.conf.j2
_REPORT = (
    "$request_id $status $body_bytes_sent $request_time {outcome} $llm_known_key "
    "$remote_addr $llm_method $request_uri"
)
_SECRET = re.compile(
    r"http_(x_)?(authorization|proxy_authorization|api_key|api_keys|cookie)|cookie_\w+"
    r"|request_body|ssl_client_(raw_|escaped_)?cert|sent_http_set_cookie"
)
# A key may stand in a query by mistake. The key validator hides it, a file does not.
_QUERY = re.compile(r"request|request_uri|args|query_string|arg_\w+")
_BUILT_IN = {"combined": '$remote_addr - $remote_user [$time_local] "$request" $status'}
_QUIET = frozenset({"crit", "alert", "emerg"})


def log_problems(gateway: Gateway) -> Problems:
    """Yield requests that leave no trace, and secrets that would."""
    formats = _formats(gateway)
    if gateway.expected.audit_socket is None:
        yield "gateway.logs.reports", "turned off by gateway_audit_socket: null"
    for scope in _logged(gateway):
        logs = scope.effective("access_log")
        if problem := _report(gateway, logs, formats):
            yield "gateway.logs.reports", f"{scope.name}: {problem}"
        if gateway.expected.access_log and (problem := _file(gateway, logs, formats)):
            yield "gateway.logs.access", f"{scope.name}: {problem}"
        for problem in _secrets(gateway, logs, formats):
            yield "gateway.logs.secrets", problem
        for one in scope.effective("error_log"):
            yield from _errors(one)
        kept = scope.value("client_body_in_file_only", "off")
        if kept == "on":
            yield "gateway.logs.secrets", f"{scope.name}: client_body_in_file_only keeps all bodies"
    if not gateway.expected.access_log:
        yield "gateway.logs.access", Skip("turned off by gateway_access_log: false")
    yield from _whole_process(gateway.config)


def _whole_process(config: Config) -> Problems:
    """Yield what is said outside of `http`: whose connections are debugged, what a crash leaves."""
    for one in config.main.all("worker_rlimit_core"):
        if one.args != ("0",):
            yield "gateway.logs.secrets", f"{one.text} ({one.where}): memory is kept after a crash"
    for events in config.main.all("events"):
        for one in events.block or ():
            if one.name == "debug_connection":
                yield "gateway.logs.debug", f"{one.text} ({one.where})"


def _logged(gateway: Gateway) -> list[Scope]:
    """Return the scopes in which a request can end; the question for a verdict is none."""
    inside = [one for one in gateway.server.within() if one.around("location") is not None]
    verdict = gateway.validator
    return [gateway.server, *(one for one in inside if one.around("location") is not verdict)]


def _formats(gateway: Gateway) -> dict[str, tuple[str, str]]:
    """Return (escape, text) of each log format."""
    found = {name: ("default", text) for name, text in _BUILT_IN.items()}
    for scope in gateway.config.scopes():
        for one in scope.all("log_format") if scope.kind == "http" else ():
            name, *words = one.args
            escape = words.pop(0) if words and words[0].startswith("escape=") else "escape=default"
            found[name] = (escape.partition("=")[2], "".join(words))
    return found


def _format_of(log: Directive) -> str:
    words = [word for word in log.args[1:] if not re.match(r"(buffer|flush|gzip|if)\b", word)]
    return words[0] if words else "combined"


def _is_report(gateway: Gateway, log: Directive) -> bool:
    words = log.args[0].removeprefix("syslog:").split(",") if log.args else []
    wanted = f"server=unix:{gateway.expected.audit_socket}"
    return log.args[0].startswith("syslog:") and wanted in words if words else False


def _report(
    gateway: Gateway, logs: list[Directive], formats: dict[str, tuple[str, str]]
) -> str | None:
    """Return why the key validator does not hear of a request, None when it does."""
    if gateway.expected.audit_socket is None:
        return None  # said already
    mine = [one for one in logs if _is_report(gateway, one)]
    if not mine:
        return "no report"
    outcome = "$llm_outcome" if gateway.expected.certificates else "$llm_forwarded"
    wanted = _REPORT.format(outcome=outcome).split()
    for one in mine:
        escape, text = formats.get(_format_of(one), ("", ""))
        whole = not any(word.startswith("if=") for word in one.args)
        if whole and escape == "json" and text.split() == wanted:
            return None
    return f"{mine[0].text} ({mine[0].where}): not the report that the key validator reads"


def _file(
    gateway: Gateway, logs: list[Directive], formats: dict[str, tuple[str, str]]
) -> str | None:
    """Return why no file has a line for each request, None when one has."""
    files = [one for one in logs if not _is_report(gateway, one)]
    for one in files:
        path = one.args[0] if one.args else "off"
        escape = formats.get(_format_of(one), ("none", ""))[0]
        some = any(word.startswith("if=") for word in one.args)
        if path != "off" and not path.startswith("/dev/") and "$" not in path:
            if some or escape == "none":
                return f"{one.text} ({one.where}): {'only some requests' if some else 'unescaped'}"
            return None
    return "; ".join(f"{one.text} ({one.where})" for one in files) or "no file"


def _secrets(
    gateway: Gateway, logs: list[Directive], formats: dict[str, tuple[str, str]]
) -> Iterator[str]:
    for one in logs:
        if one.args and one.args[0] not in ("off", "/dev/null"):
            kept = not one.args[0].startswith("syslog:")
            _escape, text = formats.get(_format_of(one), ("", ""))
            for name in names_in(text):
                if _tells(gateway, name, kept):
                    yield f"${name} in {one.text} ({one.where})"


def _tells(gateway: Gateway, name: str, kept: bool) -> bool:
    """Tell whether a variable holds a secret, or is made of one."""
    config, server = gateway.config, gateway.server
    if kept and _QUERY.fullmatch(name):
        return True
    for one in dependencies(config, name, server):
        tables = config.tables.get(one, [])
        # A table that looks at a secret may still give a word of its own for it.
        copies = any(names_in(value) for table in tables for _row, value in table.rows)
        looks = any(_SECRET.fullmatch(each) for t in tables for each in names_in(t.source))
        if looks and copies:
            return True
        if _SECRET.fullmatch(one) and not _only_looked_at(gateway, name, one):
            return True
    return False


def _only_looked_at(gateway: Gateway, name: str, secret: str) -> bool:
    """Tell whether a secret chooses a variable's value, and is no part of it."""
    values = gateway.config.expand(f"${name}", gateway.server)
    return name != secret and not any(secret in names_in(value) for value in values)


def _errors(log: Directive) -> Problems:
    path, level = (*log.args, "error", "error")[:2]
    if level == "debug":
        yield "gateway.logs.debug", f"{log.text} ({log.where})"
    if path.startswith("/dev/null") or level in _QUIET:
        yield "gateway.logs.errors", f"{log.text} ({log.where})"
