# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""By which means: TLS towards clients and towards the LLM server, and clients' certificates."""

from __future__ import annotations

from collections.abc import Iterator

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.access import refused_or_sent
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.catalogue import Skip
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.parts import Gateway
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import Scope

__all__ = ("certificate_problems", "tls_problems")

Problems = Iterator[tuple[str, "str | Skip"]]

# Mozilla guidelines 6.0
_PROTOCOLS = {"intermediate": {"TLSv1.2", "TLSv1.3"}, "modern": {"TLSv1.3"}}
_SUITES = frozenset(
    f"ECDHE-{key}-{suite}"
    for key in ("ECDSA", "RSA")
    for suite in ("AES128-GCM-SHA256", "AES256-GCM-SHA384", "CHACHA20-POLY1305")
)
_GROUPS = frozenset({"x25519mlkem768", "x25519", "prime256v1", "p-256", "secp384r1", "p-384"})
# Options of ssl_conf_command that weaken nothing
_OPTIONS = frozenset({"ktls", "prioritizechacha", "serverpreference", "-sessionticket"})
# nginx before 1.27.3 spoke these where nothing is said.
_OLD_PROTOCOLS = "TLSv1 TLSv1.1 TLSv1.2"


def tls_problems(gateway: Gateway) -> Problems:
    """Yield what makes TLS on the gateway's port weaker than its profile."""
    port = gateway.expected.port
    servers = list(dict.fromkeys((*gateway.defaults, gateway.server)))
    for server in servers:
        for listen in server.listens():
            if port in listen.ports and "ssl" not in listen.words:
                yield "gateway.tls.listen", f"{server.name}: listens without ssl"
        for name, problem in _spoken(gateway, server):
            yield f"gateway.tls.{name}", f"{server.name}: {problem}"
    yield from _elsewhere(gateway)
    for server in gateway.config.servers():
        if server.serves(port):
            for problem in _newer_http(server, port):
                yield "gateway.tls.http2", f"{server.name}: {problem}"
    yield from _backend(gateway)


def _elsewhere(gateway: Gateway) -> Problems:
    """Yield further ports of the gateway's own server, which may speak plain HTTP."""
    for listen in gateway.server.listens():
        if gateway.expected.port not in listen.ports and "ssl" not in listen.words:
            place = f"{listen.address}:{listen.ports.start}" if listen.ports else listen.address
            yield "gateway.tls.listen", f"{gateway.server.name}: {place} without ssl"


def _spoken(gateway: Gateway, server: Scope) -> Iterator[tuple[str, str]]:
    profile = gateway.expected.tls_profile
    # Several in one block add up.
    named = [word for one in server.effective("ssl_protocols") for word in one.args]
    protocols = set(named or _OLD_PROTOCOLS.split())
    if protocols - _PROTOCOLS[profile]:
        yield "protocols", f"ssl_protocols {' '.join(sorted(protocols))}"
    suites = server.value("ssl_ciphers", "HIGH:!aNULL:!MD5")
    # Suites of TLS 1.3 have names of their own, which this directive does not touch.
    if protocols != {"TLSv1.3"} and not _SUITES.issuperset(suites.split(":")):
        yield "ciphers", f"ssl_ciphers {suites}"
    groups = server.value("ssl_ecdh_curve", "auto")
    if not _GROUPS.issuperset(groups.lower().split(":")):
        yield "ciphers", f"ssl_ecdh_curve {groups}"
    for one in server.effective("ssl_conf_command"):
        name, value = (*one.args, "", "")[:2]
        if name.lower() != "options" or not _OPTIONS.issuperset(value.lower().split(",")):
            # It is obeyed after nginx's own directives, and says other things than they do.
            yield ("protocols" if "protocol" in name.lower() else "ciphers"), one.text
    if server.value("ssl_session_tickets", "on") != "off":
        yield "sessions", "ssl_session_tickets is on"
    if server.value("ssl_early_data", "off") != "off":
        yield "early_data", "ssl_early_data is on"


def _newer_http(server: Scope, port: int) -> Iterator[str]:
    for listen in server.listens():
        for word in ("http2", "spdy", "quic"):
            if port in listen.ports and word in listen.words:
                yield f"listen with {word}"
    for name in ("http2", "http3"):
        if server.value(name, "off") not in ("off", ""):
            yield f"{name} is on"


def _backend(gateway: Gateway) -> Problems:
    expected, name = gateway.expected, "gateway.tls.backend"
    scopes = list(filter(refused_or_sent, gateway.backends()))
    if not expected.backend.tls:
        hosts = [one.host for one in expected.backends]
        remote = [one for one in hosts if not (one.startswith("unix:") or expected.local(one))]
        for host in remote:
            yield name, f"{host} is asked without TLS (gateway_backend_tls: false)"
        if not remote:
            yield name, Skip("the LLM server is on this host")
        return
    for scope in scopes:
        if any(target.scheme != "https" for target in gateway.to(scope)):
            yield name, f"{scope.name}: not asked by https"
        for problem in _verified(scope, expected.backend_name):
            yield name, f"{scope.name}: {problem}"


def _verified(scope: Scope, name: str) -> Iterator[str]:
    if scope.value("proxy_ssl_verify", "off") != "on":
        yield "proxy_ssl_verify is off"
    if not scope.value("proxy_ssl_trusted_certificate"):
        yield "no proxy_ssl_trusted_certificate"
    said = scope.value("proxy_ssl_name")
    if (name and said != name) or "$" in said:
        yield f"proxy_ssl_name is {said or 'not set'}"
    protocols = {word for one in scope.effective("proxy_ssl_protocols") for word in one.args}
    if protocols - _PROTOCOLS["intermediate"]:
        yield f"proxy_ssl_protocols {' '.join(sorted(protocols))}"


def certificate_problems(gateway: Gateway) -> Problems:
    """Yield what lets a client's certificate count that should not."""
    names = [f"gateway.mtls.{name}" for name in ("verify", "crl", "sessions")]
    if not gateway.expected.certificates:
        for name in names:
            yield name, Skip("gateway_auth is api_key")
        return
    server, expected = gateway.server, gateway.expected
    wanted = "optional" if gateway.expected.auth == "either" else "on"
    verify = server.value("ssl_verify_client", "off")
    if verify not in ("on", wanted):
        yield names[0], f"ssl_verify_client is {verify}, not {wanted}"
    file = server.value("ssl_client_certificate")
    if not file:
        yield names[0], "no ssl_client_certificate says whose certificates count"
    elif file != (expected.client_ca or file):
        yield names[0], f"ssl_client_certificate is {file}, not {expected.client_ca}"
    for one in server.effective("ssl_trusted_certificate"):
        yield names[0], f"{one.text} ({one.where}): clients' certificates of these CAs count, too"
    revoked = server.value("ssl_crl")
    if not revoked:
        yield names[1], "no ssl_crl (gateway_client_crl is empty)"
    elif revoked != (expected.client_crl or revoked):
        yield names[1], f"ssl_crl is {revoked}, not {expected.client_crl}"
    # Sessions are looked up in the default server's cache: the name is not known yet.
    for one in dict.fromkeys((server, *gateway.defaults)):
        cache = one.value("ssl_session_cache", "none")
        if cache not in ("off", "none"):
            yield names[2], f"{one.name}: ssl_session_cache is {cache}"
    if server.value("ssl_session_tickets", "on") != "off":
        yield names[2], "ssl_session_tickets is on"
