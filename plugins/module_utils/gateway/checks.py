# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put all checks together: the findings about a configuration that was read."""

from __future__ import annotations

import typing as t
from collections.abc import Callable, Iterable, Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.access import (
    access_problems,
    backend_problems,
    module_problems,
    way_problems,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.catalogue import (
    Skip,
    error_of,
    finding_of,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.expected import Expected
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.headers import (
    header_problems,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.limits import limit_problems
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.logs import log_problems
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.names import name_problems
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.parts import (
    Gateway,
    find_gateway,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.routes import route_problems
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tls import (
    certificate_problems,
    tls_problems,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import Config
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_syntax import Directive

__all__ = ("configuration_findings",)

Finding = dict[str, t.Any]
Problems = Iterable[tuple[str, "str | Skip"]]

# Each subject, and the beginnings of the names of its findings: what it does not speak of is good.
_SUBJECTS: tuple[tuple[tuple[str, ...], Callable[[Gateway], Problems]], ...] = (
    (
        ("gateway.auth.locations", "gateway.auth.satisfy", "gateway.auth.validator",
         "gateway.auth.hop", "gateway.auth.target"),
        access_problems,
    ),
    (("gateway.auth.ways",), way_problems),
    (("gateway.auth.headers", "gateway.tls.hsts", "gateway.tls.nosniff", "gateway.server_tokens"),
     header_problems),
    (("gateway.names.default", "gateway.names.servers"), name_problems),
    (("gateway.routes.allowed", "gateway.routes.path", "gateway.routes.management"),
     route_problems),
    (("gateway.limits.per_key", "gateway.limits.per_address", "gateway.limits.connections",
      "gateway.limits.client_address", "gateway.limits.sizes"), limit_problems),
    (("gateway.tls.listen", "gateway.tls.protocols", "gateway.tls.ciphers", "gateway.tls.sessions",
      "gateway.tls.early_data", "gateway.tls.http2", "gateway.tls.backend"), tls_problems),
    (("gateway.mtls.verify", "gateway.mtls.crl", "gateway.mtls.sessions"), certificate_problems),
    (("gateway.logs.reports", "gateway.logs.access", "gateway.logs.errors", "gateway.logs.secrets",
      "gateway.logs.debug"), log_problems),
)  # fmt: skip


def configuration_findings(directives: Sequence[Directive], expected: Expected) -> list[Finding]:
    """Return the findings about a configuration; without a gateway in it, few.

    Where nothing guards the LLM server, it makes no sense to say twenty times what is missing.
    """
    config = Config(directives)
    gateway = find_gateway(config, expected)
    found = [
        *_judged(("gateway.modules", "gateway.modules.place"), lambda: module_problems(config)),
        *_judged(("gateway.auth.backend",), lambda: backend_problems(config, expected, gateway)),
    ]
    if gateway is None:
        why = f"no server on port {expected.port} asks the key validator"
        return [finding_of("gateway.present", [why]), *found]
    good = f"{gateway.server.name} on port {expected.port}"
    found.insert(0, finding_of("gateway.present", [], good=good))
    for names, problems in _SUBJECTS:
        found += _judged(names, lambda problems=problems: problems(gateway))
    return found


def _judged(names: Sequence[str], problems: Callable[[], Problems]) -> list[Finding]:
    """Return a finding for each name; all are errors where one cannot be decided."""
    verdicts: dict[str, list[str]] = {name: [] for name in names}
    skipped: dict[str, Skip] = {}
    try:
        for name, problem in problems():
            if isinstance(problem, Skip):
                skipped[name] = problem
            else:
                verdicts[name].append(problem)
    except (ArithmeticError, LookupError, TypeError, ValueError) as exc:
        # A shape of a directive that nginx takes and this does not know
        return [error_of(name, f"{type(exc).__name__}: {exc}") for name in names]
    return [finding_of(name, verdicts[name] or skipped.get(name, [])) for name in names]
