# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's own files in all variants are green, and what cannot be decided is an error."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.controls import CONTROLS, SEVERITIES
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.catalogue import (
    CHECKS,
    Skip,
    error_of,
    finding_of,
)

from tests.unit.plugins.gateway_files import (
    SITE,
    VARIANTS,
    changed,
    judge,
    options_of,
    red,
    rendered,
)

# Said of the host, not of the configuration
OF_THE_HOST = {
    "gateway.configuration", "gateway.loaded", "gateway.master", "gateway.permissions",
    "gateway.extra_files", "gateway.unit", "gateway.workers",
}  # fmt: skip
TURNED_OFF = {
    "off": {
        "gateway.limits.per_key", "gateway.limits.per_address", "gateway.limits.connections",
        "gateway.logs.reports", "gateway.tls.hsts", "gateway.mtls.crl",
    },
    "management": {"gateway.routes.management"},
}  # fmt: skip


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_roles_own_files_are_green(variant: str) -> None:
    found = judge(rendered()[variant], **options_of(variant))
    assert set(found) == set(CHECKS) - OF_THE_HOST
    assert red(found) == TURNED_OFF.get(variant, set())
    for name in red(found):
        assert found[name]["result"] == "fail"


@pytest.mark.parametrize("variant", VARIANTS)
def test_what_was_skipped_has_its_reason(variant: str) -> None:
    variables = VARIANTS[variant]
    found = judge(rendered()[variant], **options_of(variant))
    skipped = {name for name, one in found.items() if one["result"] == "skip"}
    expected = set()
    if variables.get("gateway_auth", "api_key") == "api_key":
        expected |= {name for name in CHECKS if name.startswith("gateway.mtls.")}
    if not variables.get("gateway_backend_tls"):
        expected.add("gateway.tls.backend")
    if not variables.get("gateway_access_log", True):
        expected.add("gateway.logs.access")
    assert skipped == expected
    assert all(found[name]["actual"] for name in skipped)


@pytest.mark.parametrize(
    ("settings", "ids"),
    [
        ({"auth": "mtls"}, {"mtls.verify", "mtls.crl", "mtls.sessions"}),
        ({"tls_profile": "modern"}, {"tls.protocols"}),
        ({"server_names": ["other.test"]}, {"names.servers"}),
        ({"limit_per_key": {"rate": "1r/m", "burst": 0}}, {"limits.per_key"}),
        ({"connections_per_address": 5}, {"limits.connections"}),
        ({"endpoint_classes": ["inference"]}, {"routes.allowed"}),
        ({"extra_routes": ["POST /api/show"]}, {"routes.allowed"}),
        ({"backend": "127.0.0.1:9000"}, {"auth.target"}),
        ({"max_body_size": "1k"}, {"limits.sizes"}),
        ({"validator_socket": "/run/other.sock"}, {"auth.validator"}),
        ({"audit_socket": "/run/other.sock"}, {"logs.reports"}),
        ({"port": 8443}, {"present"}),
    ],
)
def test_other_settings_are_told_from_these_files(settings, ids) -> None:
    found = red(judge(rendered()["api_key_intermediate"], **settings))
    assert {f"gateway.{one}" for one in ids} <= found


def test_without_names_any_is_taken() -> None:
    assert red(judge(rendered()["names"], server_names=[])) <= {"gateway.names.default"}


def test_what_is_not_understood_is_an_error_and_no_pass() -> None:
    """nginx takes such a time, and this does not know it."""
    green = rendered()["api_key_intermediate"]
    found = judge(changed(green, SITE, "client_header_timeout 10s", "client_header_timeout 0m5s"))
    assert found["gateway.limits.sizes"]["result"] == "error"
    assert "not a time" in found["gateway.limits.sizes"]["actual"]
    assert {found[name]["result"] for name in found if name.startswith("gateway.limits.")} == {
        "error"
    }
    assert found["gateway.auth.locations"]["result"] == "pass"


def test_every_check_is_about_a_control() -> None:
    for name, check in CHECKS.items():
        assert name.startswith("gateway.")
        assert check.control in CONTROLS
        assert check.severity in SEVERITIES
        assert check.remediation


def test_evidence_is_short_and_tells_no_secret() -> None:
    lines = [f"{number} llmk_{'a' * 46} Bearer abc {'x' * 400}" for number in range(30)]
    found = finding_of("gateway.present", [*lines, "\udcff"])
    assert len(found["evidence"]) == 20
    assert found["evidence"][-1] == "and 12 more"
    assert all(len(line) <= 300 for line in found["evidence"])
    assert "llmk_" not in str(found)
    assert "abc" not in str(found)
    assert finding_of("gateway.present", ["\udcff"])["actual"] == "?"


def test_results() -> None:
    assert finding_of("gateway.present", [])["result"] == "pass"
    assert finding_of("gateway.present", Skip("why"))["actual"] == "why"
    assert error_of("gateway.present", "why")["actual"] == "not measured: why"
