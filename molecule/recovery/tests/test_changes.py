# SPDX-License-Identifier: GPL-3.0-or-later
"""Changes on a gateway in use: they hold for the next request, and nothing running is cut."""

from __future__ import annotations

import ssl
import time
from contextlib import ExitStack, contextmanager

import pytest

from tests.lab import link, playbook
from tests.lab.hosts import STATE

AUDIT_LOG = "/var/log/llm-gateway/audit.jsonl"
PRIVATE_KEY = "/etc/llm-gateway/pki/server.key"
KEYS_FILE = STATE / "molecule/inventory/group_vars/recovery/api_keys.yml"


def is_over(gateway, stream):
    """The response record comes with a request's end."""
    ending = f'"event.action":"response".*{stream.request_id}'
    return gateway.host.run("grep %s %s", ending, AUDIT_LOG).rc == 0


@contextmanager
def running_streams(gateways, doors, key):
    """One stream on each gateway goes on while the block runs, and comes to its end afterwards."""
    with ExitStack() as stack:
        streams = [stack.enter_context(door.stream(key)) for door in doors.values()]
        yield
        for gateway, stream in zip(gateways, streams, strict=True):
            assert not is_over(gateway, stream), "it ended before the change: this proves nothing"
            assert stream.rest()[-1]["done"] is True


def harden_gateway(**variables):
    run = playbook.harden("recovery", harden_roles=["gateway"], **variables)
    assert run.code == 0, run.ending
    return run


def restarts(gateways, unit):
    """What changes when the unit is restarted, and stays when it is reloaded."""
    return [gateway.main_pid(unit) for gateway in gateways]


@pytest.fixture
def put_keys_back():
    """Afterwards each key is as the scenario's converge left it."""
    before = KEYS_FILE.read_text()
    yield
    KEYS_FILE.write_text(before)
    run = playbook.harden("recovery", harden_roles=["key_validator"])
    assert run.code == 0, run.ending


@pytest.mark.usefixtures("put_keys_back")
def test_a_key_is_revoked(gateways, doors, keys):
    validators = restarts(gateways, "llm-key-validator.service")
    revoked = playbook.play(
        "issue_key",
        issue_key_id="operator",
        issue_key_state="revoked",
        issue_key_vars_file=str(KEYS_FILE),
    )
    assert revoked.code == 0, revoked.ending
    # Nothing is known of it on the gateways yet.
    with running_streams(gateways, doors, keys["operator"]):
        run = playbook.harden("recovery", "--tags=key_validator_configure")
        assert run.code == 0, run.ending
        assert all(run.changed.values()), run.ending
        for gateway in gateways:
            answer = gateway.ask("/api/tags", key=keys["operator"])
            assert answer.status == 401
            assert "revoked" in answer.json()["error"]["message"]
            assert gateway.ask("/api/tags", key=keys["app"]).status == 200
    assert restarts(gateways, "llm-key-validator.service") == validators


def near_expiry(certificate):
    """Variables under which this certificate is near its end, and a new one is not."""
    days = int(ssl.cert_time_to_seconds(certificate["notAfter"]) - time.time()) // 86400
    return {"pki_renew_before_days": days + 1, "pki_server_days": days + 2}


def test_the_certificate_is_renewed(gateways, doors, keys):
    masters = restarts(gateways, "nginx.service")
    certificates = [door.certificate() for door in doors.values()]
    private_keys = [gateway.host.file(PRIVATE_KEY).sha256sum for gateway in gateways]
    with running_streams(gateways, doors, keys["app"]), link.asking(doors, keys["app"]) as seen:
        run = playbook.harden(
            "recovery", "--tags=pki_configure", harden_roles=["pki"], **near_expiry(certificates[0])
        )
    assert run.code == 0, run.ending
    for door, old in zip(doors.values(), certificates, strict=True):
        assert door.certificate()["serialNumber"] != old["serialNumber"]
    assert set(seen) == {(name, 200) for name in doors}, seen
    assert min(seen.values()) > 5, seen
    assert restarts(gateways, "nginx.service") == masters
    assert [gateway.host.file(PRIVATE_KEY).sha256sum for gateway in gateways] == private_keys


def test_a_limit_is_changed(gateways, doors, keys):
    def statuses(door, count):
        return [door.ask("/api/tags", keys["app"]) for _unused in range(count)]

    masters = restarts(gateways, "nginx.service")
    try:
        with running_streams(gateways, doors, keys["app"]):
            harden_gateway(gateway_limit_per_key={"rate": "1r/m", "burst": 0})
            # The stream's own request was this minute's, unless it was slow to come here.
            assert [statuses(door, 2)[1] for door in doors.values()] == [429] * len(doors)
            harden_gateway(gateway_limit_per_key=None)
            assert [statuses(door, 3) for door in doors.values()] == [[200] * 3] * len(doors)
    finally:
        harden_gateway()
    assert restarts(gateways, "nginx.service") == masters
