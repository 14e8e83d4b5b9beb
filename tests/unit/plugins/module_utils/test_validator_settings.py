# SPDX-License-Identifier: GPL-3.0-or-later
"""The key validator's settings against those of the inventory."""

from __future__ import annotations

from ansible_collections.llmsec.hardening.plugins.module_utils.validator_settings import (
    settings_findings,
)


def test_a_password_in_an_address_is_not_shown():
    found = {"counters_url": "redis://me:hush@192.0.2.1:6379/0"}
    findings = [*settings_findings(found, {"counters_url": ""})]
    (red,) = [one for one in findings if one["result"] == "fail"]
    assert (red["id"], red["control"]) == ("audit_log.settings_limits", "rate_limit")
    assert "redis://...@192.0.2.1" in str(red)
    assert "hush" not in str(red)
