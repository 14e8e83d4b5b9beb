# SPDX-License-Identifier: GPL-3.0-or-later
"""How all of it leaves again: the last of the scenario's tests."""

from __future__ import annotations

from chain import Inside

from tests.lab.playbook import play

OWN = (
    "/opt/litellm", "/etc/litellm", "/var/lib/litellm", "/etc/systemd/system/litellm.service",
    "/etc/systemd/system/litellm.service.d", "/etc/redis/redis-litellm.conf",
    "/etc/valkey/valkey-litellm.conf",
)  # fmt: skip


def test_it_leaves_nothing_behind(gateways):
    run = play(
        "rollback",
        rollback_hosts="litellm",
        rollback_roles=["gateway", "key_validator", "pki", "litellm", "ollama"],
        litellm_remove_data=True,
    )
    assert run.code == 0, run.ending
    for gateway in gateways:
        for place in OWN:
            assert not gateway.host.file(place).exists, (gateway.name, place)
        assert not gateway.host.user("litellm").exists
        listening = gateway.host.check_output("ss --tcp --listening --numeric --no-header")
        assert not any(f":{port} " in listening for port in (443, 4000, 6380, 8081)), listening
        left = Inside(gateway.host).sql("select datname from pg_database", "postgres")
        assert ["litellm"] not in left
