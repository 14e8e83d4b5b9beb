# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Everything that verify_gateway says: the names of its findings, what must hold, the remedies."""

from __future__ import annotations

import re
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.findings import (
    finding,
    not_measured,
)

__all__ = ("CHECKS", "Check", "Skip", "error_of", "finding_of")

_HARDEN = "Run llmsec.hardening.harden, which puts the gateway's own files back; "
_FOREIGN = _HARDEN + "remove what stands in other files of nginx's."
_MOST_LINES, _MOST_CHARACTERS = 20, 300
_SECRET = re.compile(r"llmk_\w+|(?<=Bearer )[^\s\"';]+|(?<=Basic )[^\s\"';]+")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold. `severity` is that of its failure."""

    control: str
    severity: str
    title: str
    expected: str
    remediation: str


@dataclass(frozen=True, slots=True)
class Skip:
    """Why something was not looked at."""

    reason: str


def _auth(severity: str, title: str, expected: str, remediation: str = _FOREIGN) -> Check:
    return Check("authentication", severity, title, expected, remediation)


def _limit(title: str, expected: str, remediation: str, severity: str = "high") -> Check:
    return Check("rate_limit", severity, title, expected, remediation)


def _tls(title: str, expected: str, remediation: str = _FOREIGN, severity: str = "high") -> Check:
    return Check("tls", severity, title, expected, remediation)


CHECKS: Mapping[str, Check] = {
    # Whether there is anything to judge
    "gateway.present": _auth(
        "critical", "nginx guards the LLM server", "a server of the gateway's on its port",
        "Run llmsec.hardening.harden with gateway_server_names set.",
    ),
    "gateway.configuration": _auth(
        "high", "nginx's configuration can be read whole", "nginx -T prints it",
        "Run `nginx -t` and mend what it names, or run llmsec.hardening.harden as root.",
    ),
    "gateway.loaded": _auth(
        "high", "nginx serves what is on disk", "workers newer than each file",
        "See what was changed, then reload nginx (systemctl reload nginx).",
    ),
    "gateway.master": _auth(
        "high", "One nginx runs on the host, of the distribution's", "one, by its unit",
        "Stop the other one, or restart nginx (systemctl restart nginx).",
    ),
    "gateway.permissions": _auth(
        "high", "Only root can change nginx's configuration", "root's, writable by nobody else",
        "Give the files and directories to root and take the others' right to write away.",
    ),
    "gateway.extra_files": _auth(
        "high", "The gateway's directories hold its own files only", "no other file",
        "Run llmsec.hardening.harden, which removes files that are not its own.",
    ),
    "gateway.modules": _auth(
        "medium", "nginx loads no module that can answer by itself", "none of a scripting language",
        "Remove the package or the load_module line.",
    ),
    "gateway.modules.place": _auth(
        "high", "nginx's modules are the distribution's", "from /usr/lib/nginx/modules only",
        "Remove the load_module line, and see who wrote it.",
    ),
    "gateway.unit": _auth(
        "high", "nginx's unit starts it as the distribution does",
        "/usr/sbin/nginx with /etc/nginx/nginx.conf, and no code or files of somebody else's",
        "See `systemctl cat nginx.service`, and remove the drop-in that changes it.",
    ),
    "gateway.workers": Check(
        "service_sandbox", "high", "nginx's workers are not root", "a user of their own",
        "Take `user root` out of nginx.conf and restart nginx (systemctl restart nginx).",
    ),
    # Who gets in
    "gateway.auth.locations": _auth(
        "critical", "Every location of the gateway asks the key validator first",
        "auth_request in force, or nothing to get",
    ),
    "gateway.auth.satisfy": _auth(
        "critical", "No address is let in without a key", "satisfy all",
    ),
    "gateway.auth.validator": _auth(
        "critical", "The verdict is the key validator's own",
        "an internal location that passes headers to the validator's socket, and nothing else",
    ),
    "gateway.auth.hop": _auth(
        "critical", "Each route goes to the key validator's /authorize",
        "its socket and no other place, asked once",
    ),
    "gateway.auth.backend": _auth(
        "critical", "Nothing reaches the LLM server past the key validator",
        "one location, which only the key validator opens",
    ),
    "gateway.auth.target": _auth(
        "high", "Requests go to the expected LLM server only",
        "gateway_backend and no other, or of gateway_backends one that has the model",
        _HARDEN + "set gateway_backend (gateway_backends) to where the LLM server listens.",
    ),
    "gateway.auth.ways": _auth(
        "critical", "Nothing moves a request before the key validator has judged it",
        "refusals only: no rewrite, try_files, mirror, error_page or `if` that leads on",
    ),
    "gateway.auth.headers": _auth(
        "high", "No client says who it is but by its key or certificate",
        "headers of the gateway's own replace a client's; none of a client's identity goes on",
    ),
    "gateway.names.default": _auth(
        "high", "A client that calls another name gets no answer", "a default server that refuses",
    ),
    "gateway.names.servers": _auth(
        "high", "The gateway's port and names are its own", "gateway_server_names, on one server",
        _HARDEN + "set gateway_server_names, or move the other server to a port of its own.",
    ),
    # What they get
    "gateway.routes.allowed": Check(
        "management_routes", "high", "The routes asked for are open, and everything else is 404",
        "one location for each route, with its methods",
        _HARDEN + "open routes by gateway_route_classes and gateway_extra_routes.",
    ),
    "gateway.routes.path": Check(
        "management_routes", "high", "The LLM server gets the path that was judged",
        "the route's own path", _FOREIGN,
    ),
    "gateway.routes.management": Check(
        "management_routes", "high", "No route that manages models is open", "none",
        "Leave management out of gateway_route_classes and gateway_extra_routes.",
    ),
    # How much
    "gateway.limits.per_key": _limit(
        "Requests are limited per key", "the rate and burst asked for, on each route",
        _HARDEN + "set gateway_limit_per_key.",
    ),
    "gateway.limits.per_address": _limit(
        "Requests are limited per address", "the rate and burst asked for, on each route",
        _HARDEN + "set gateway_limit_per_address.",
    ),
    "gateway.limits.connections": _limit(
        "Requests under way are limited per address", "the number asked for, on each route",
        _HARDEN + "set gateway_connections_per_address.", "medium",
    ),
    "gateway.limits.client_address": _limit(
        "A client's address is that of its connection", "no header of anybody's replaces it",
        "Take set_real_ip_from away, or name your own proxies in it one by one.",
    ),
    "gateway.limits.sizes": _limit(
        "Sizes and waiting times are bounded", "no more than asked for",
        _HARDEN + "set gateway_max_body_size, gateway_max_header_size and gateway_client_timeout.",
        "medium",
    ),
    # By which means
    "gateway.tls.listen": _tls("The gateway's port speaks TLS only", "ssl on each listen"),
    "gateway.tls.protocols": _tls(
        "Only current versions of TLS are spoken", "those of gateway_tls_profile"
    ),
    "gateway.tls.ciphers": _tls(
        "Only current suites and groups are spoken", "those of gateway_tls_profile"
    ),
    "gateway.tls.sessions": _tls(
        "No session tickets under one lasting key", "ssl_session_tickets off", severity="medium"
    ),
    "gateway.tls.early_data": _tls("No request can be replayed", "ssl_early_data off"),
    "gateway.tls.http2": _tls(
        "HTTP/2 and HTTP/3 are off (CVE-2026-123007, CVE-2023-44487)", "HTTP/1.1 only",
        severity="medium",
    ),
    "gateway.tls.backend": _tls(
        "The LLM server proves who it is", "a verified certificate, or a server on this host",
        "Set gateway_backend_tls, gateway_backend_name and gateway_backend_ca.",
    ),
    "gateway.tls.hsts": _tls(
        "Clients are told to use TLS only", "Strict-Transport-Security of at least half a year",
        "Set gateway_hsts to true and run llmsec.hardening.harden.", "medium",
    ),
    "gateway.tls.nosniff": _tls(
        "Browsers do not guess types", "X-Content-Type-Options nosniff", severity="low"
    ),
    "gateway.mtls.verify": Check(
        "mtls", "high", "nginx verifies clients' certificates", "as gateway_auth asks",
        _HARDEN + "set gateway_auth and gateway_client_ca.",
    ),
    "gateway.mtls.crl": Check(
        "mtls", "high", "Revoked certificates are refused", "a revocation list",
        "Set gateway_client_crl (role pki makes the list).",
    ),
    "gateway.mtls.sessions": Check(
        "mtls", "high", "Each connection's certificate is verified", "no session is resumed",
        _FOREIGN,
    ),
    "gateway.server_tokens": Check(
        "versions", "low", "nginx does not tell its version", "server_tokens off", _FOREIGN
    ),
    # What is left of it
    "gateway.logs.reports": Check(
        "audit_log", "high", "The key validator hears how each request ended",
        "a report to its socket from every location",
        _HARDEN + "set gateway_audit_socket.",
    ),
    "gateway.logs.access": Check(
        "audit_log", "medium", "nginx keeps a log of its own", "a file, for every location",
        _HARDEN + "set gateway_access_log to true.",
    ),
    "gateway.logs.errors": Check(
        "audit_log", "medium", "nginx's errors are kept", "a file, from level error on", _FOREIGN
    ),
    "gateway.logs.secrets": Check(
        "secrets_at_rest", "high", "No key and no body is written to a log",
        "no such variable in a log format", _FOREIGN,
    ),
    "gateway.logs.debug": Check(
        "secrets_at_rest", "high", "nginx writes no debug log", "no level debug",
        "Take the level debug and debug_connection away.",
    ),
}  # fmt: skip

# Findings of single files: the control that each serves
FILE_CONTROLS = {"tls.conf": "tls", "routes.conf": "management_routes"}


def shown(lines: Sequence[str]) -> list[str]:
    """Return evidence as a report may hold it: short, and without secrets."""
    # Bytes that are no UTF-8 would break the report.
    plain = [line.encode(errors="replace").decode() for line in lines[:_MOST_LINES]]
    cut = [_SECRET.sub("********", line)[:_MOST_CHARACTERS] for line in plain]
    more = len(lines) - len(cut)
    return [*cut[:-1], f"and {more + 1} more"] if more > 0 else cut


def finding_of(
    name: str, verdict: Sequence[str] | Skip, *, good: str = "", check: Check | None = None
) -> dict[str, t.Any]:
    """Return the finding of a check: what is wrong (nothing is a pass), or why it was skipped."""
    known = check or CHECKS[name]
    facts = {"expected": known.expected, "remediation": known.remediation}
    words = (name, known.control, known.title, known.severity)
    if isinstance(verdict, Skip):
        return finding(*words, "skip", **{**facts, "actual": verdict.reason})
    if not verdict:
        return finding(*words, "pass", **facts, actual=good or "as expected")
    lines = shown(list(dict.fromkeys(verdict)))
    return finding(*words, "fail", **facts, actual=lines[0], evidence=lines)


def error_of(name: str, why: object) -> dict[str, t.Any]:
    """Return the finding of a check that could not be made."""
    known = CHECKS[name]
    text = shown([str(why)])[0]
    return not_measured(name, known.control, known.title, text, known.remediation)
