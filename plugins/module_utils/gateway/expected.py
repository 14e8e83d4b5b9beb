# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateway should be: the role's settings, and whether a target is the LLM server."""

from __future__ import annotations

import ipaddress
import posixpath
import re
import typing as t
from collections.abc import Mapping
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import Target
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_backends import (
    backend_groups,
    backend_problems,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_routes import (
    GatewayError,
    rate_period,
    select_routes,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import Server, get_server

__all__ = ("Backend", "Expected", "Limit", "expected_from", "size")

_SIZE = re.compile(r"(\d+)([kmg]?)\Z", re.IGNORECASE)
_UNITS = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}
_TIME = re.compile(r"(\d+)(ms|[smh]?)\Z")
_SECONDS = {"ms": 0.001, "": 1, "s": 1, "m": 60, "h": 3600}
# On these, names of hosts tell nothing: half the internet listens there.
_COMMON_PORTS = frozenset({80, 443})


def size(text: str) -> int:
    """Return bytes of a size as nginx writes it, such as `10m`; raises GatewayError."""
    found = _SIZE.match(text)
    if found is None:
        raise GatewayError(f"not a size such as 8k or 10m: {text!r}")
    return int(found[1]) * _UNITS[found[2].lower()]


def seconds(text: str) -> float:
    """Return seconds of a time as nginx writes it, such as `10s`; raises GatewayError."""
    found = _TIME.match(text)
    if found is None:
        raise GatewayError(f"not a time such as 10s: {text!r}")
    return int(found[1]) * _SECONDS[found[2]]


@dataclass(frozen=True, slots=True)
class Limit:
    """Requests per second or minute, as nginx writes them, and how many more at once."""

    rate: str
    burst: int = 0


@dataclass(frozen=True, slots=True)
class Backend:
    """The LLM server's place: host and port, or `unix:PATH` and 0."""

    host: str
    port: int
    tls: bool = False

    @classmethod
    def of(cls, text: str) -> "Backend":
        """Read `127.0.0.1:11434`, `https://gpu1.example.com:443` or `unix:/run/llm.sock`."""
        scheme, separator, rest = text.rpartition("://")
        if scheme not in ("", "http", "https"):
            raise GatewayError(f"not http, https or an address: {text!r}")
        tls = scheme == "https"
        if rest.startswith("unix:/"):
            return cls(rest, 0, tls)
        host, colon, port = rest.rstrip("/").rpartition(":")
        if not colon or "]" in port:
            host, port = rest.rstrip("/"), "443" if tls else "80" if separator else ""
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise GatewayError(f"not an address and a port: {text!r}")
        return cls(host.strip("[]"), int(port), tls)


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        found = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """The settings that the role rendered the gateway from; names as of its variables.

    `addresses` are the host's own. A limit, a number of connections or the audit socket that is
    None was turned off.
    """

    server: Server
    # The first says by which name they are called, and whether by TLS.
    backends: tuple[Backend, ...]
    # What backend_groups() makes of several; None where there is one
    groups: Mapping[str, t.Any] | None
    server_names: tuple[str, ...]
    port: int
    validator_socket: str
    audit_socket: str | None
    access_log: bool
    auth: str
    limit_per_key: Limit | None
    limit_per_address: Limit | None
    connections_per_address: int | None
    max_body_size: str
    max_header_size: str
    client_timeout: int
    tls_profile: str
    hsts: bool
    backend_name: str
    client_ca: str
    client_crl: str
    routes: tuple[dict[str, t.Any], ...]
    addresses: frozenset[str]

    @property
    def backend(self) -> Backend:
        return self.backends[0]

    @property
    def certificates(self) -> bool:
        """Whether clients show certificates."""
        return self.auth != "api_key"

    @property
    def by_address(self) -> bool:
        """Whether a client may call an address, so that no name comes with its handshake."""
        return any(_address(name) is not None for name in self.server_names)

    def local(self, host: str) -> bool:
        """Tell whether a host is this one: loopback, unspecified, or an address of its own."""
        address = _address(host)
        if address is None:
            return host.lower() == "localhost"
        return address.is_loopback or address.is_unspecified or str(address) in self.addresses

    def is_backend(self, target: Target) -> bool:
        """Tell whether a target is an LLM server that requests should go to."""
        return any(self._same(target, one.host, one.port) for one in self.backends)

    def may_reach(self, target: Target) -> bool:
        """Tell whether a target is the LLM server, or can be, by any name or address."""
        if target.unknown:
            return True
        usual = (self.server.address, self.server.port)
        places = (*((one.host, one.port) for one in self.backends), usual)
        return any(self._same(target, *one) or self._named(target, one[1]) for one in places)

    def is_validator(self, target: Target) -> bool:
        return target.host == f"unix:{self.validator_socket}"

    def is_gateway(self, target: Target) -> bool:
        """Tell whether a target is the gateway itself, or the key validator behind it."""
        if target.host.startswith("unix:"):
            return _socket(target.host) == _socket(f"unix:{self.validator_socket}")
        ours = self.local(target.host) or target.host.lower() in self.server_names
        return ours and target.port == self.port

    def _same(self, target: Target, host: str, port: int) -> bool:
        if host.startswith("unix:") or target.host.startswith("unix:"):
            return _socket(host) == _socket(target.host)
        if target.port != port:
            return False
        if self.local(host):
            return self.local(target.host)
        return (_address(host) or host.lower()) == (_address(target.host) or target.host.lower())

    def _named(self, target: Target, port: int) -> bool:
        """Tell whether a host goes by a name on this port, which may mean any address."""
        named = _address(target.host) is None and not target.host.startswith("unix:")
        return named and target.port == port and port not in _COMMON_PORTS


def _socket(host: str) -> str | None:
    if not host.startswith("unix:"):
        return None
    # /var/run is a link to /run on every host that has systemd.
    return re.sub(r"\A/var/run/", "/run/", posixpath.normpath(host.removeprefix("unix:")))


def _limit(name: str, setting: object) -> Limit | None:
    """Read a limit as the role has it: `{rate: 10r/m, burst: 5}`, or null (empty) for none."""
    if setting in (None, ""):
        return None
    if not isinstance(setting, Mapping) or not str(setting.get("burst") or 0).isdecimal():
        raise GatewayError(f"{name} is not a rate and a burst: {setting!r}")
    rate_period(setting.get("rate", ""))
    return Limit(setting["rate"], int(setting.get("burst") or 0))


def _number(name: str, setting: object) -> int | None:
    if setting in (None, ""):
        return None
    if not str(setting).isdecimal():
        raise GatewayError(f"{name} is not a number: {setting!r}")
    return int(str(setting))


def _backends(settings: Mapping[str, t.Any], usual: str) -> tuple[Backend, ...]:
    first = Backend.of(settings["backend"] or usual)
    scheme = "https://" if first.tls else ""
    several = settings["backends"] or ()
    for problem in backend_problems(several):
        raise GatewayError(f"backends: {problem}")
    return tuple(Backend.of(scheme + one["address"]) for one in several) or (first,)


def expected_from(settings: Mapping[str, t.Any], addresses: t.Iterable[str] = ()) -> Expected:
    """Return what the module's options ask for, or raise ValueError with what is wrong in them."""
    server = get_server(settings["server"])
    catalogue = [route.as_dict() for route in server.routes]
    routes = select_routes(catalogue, settings["endpoint_classes"], settings["extra_routes"])
    size(settings["max_body_size"])
    size(settings["max_header_size"])
    same = (
        "port", "validator_socket", "access_log", "auth", "max_body_size", "max_header_size",
        "client_timeout", "tls_profile", "hsts", "backend_name", "client_ca", "client_crl",
    )  # fmt: skip
    return Expected(
        server=server,
        backends=_backends(settings, f"{server.address}:{server.port}"),
        groups=backend_groups(settings["backends"]) if settings["backends"] else None,
        server_names=tuple(name.lower() for name in settings["server_names"]),
        audit_socket=settings["audit_socket"] or None,
        **{name: _limit(name, settings[name]) for name in ("limit_per_key", "limit_per_address")},
        connections_per_address=_number(
            "connections_per_address", settings["connections_per_address"]
        ),
        routes=tuple(routes),
        addresses=frozenset(str(_address(one)) for one in addresses),
        **{name: settings[name] for name in same},
    )
