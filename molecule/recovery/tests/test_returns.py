# SPDX-License-Identifier: GPL-3.0-or-later
"""What was changed by hand, half done by a killed run, or switched off comes back."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from tests.lab import curl, playbook

START_TIMEOUT = 30  # seconds
REGISTRY = "/etc/llm-key-validator/keys.json"
DROP_IN = "/etc/systemd/system/ollama.service.d/50-llm-hardening.conf"
ROUTES = "/etc/nginx/llm-gateway/routes.conf"
OWNED = (REGISTRY, DROP_IN, ROUTES)
GENERATE = curl.generate("tiny", tokens=4, stream=False)


def workers(gateway):
    return set(gateway.host.check_output("pgrep -f '^nginx: worker process$'").split())


def test_drift_is_repaired(gateways, keys):
    before = [[gateway.host.file(path).content for path in OWNED] for gateway in gateways]
    for gateway in gateways:
        # A key thrown out, the sandbox off, a management route open; nothing told to anybody.
        gateway.host.check_output(f"""echo '{{"version": 1, "keys": []}}' >{REGISTRY}""")
        gateway.host.check_output(f"echo '[Service]' >{DROP_IN}")
        gateway.host.check_output(f"sed -i 's:/api/tags:/api/pull:' {ROUTES}")
    run = playbook.harden("recovery")
    assert run.code == 0, run.ending
    assert all(run.changed.values()), run.ending
    after = [[gateway.host.file(path).content for path in OWNED] for gateway in gateways]
    assert after == before
    for gateway in gateways:
        assert gateway.ask("/api/generate", *GENERATE, key=keys["app"]).status == 200
        assert gateway.ask("/api/tags", key=keys["app"]).status == 200

    run = playbook.harden("recovery")
    assert run.code == 0, run.ending
    assert run.changed == {gateway.name: 0 for gateway in gateways}, run.ending


def test_a_run_was_killed_before_the_reload(gateways, keys):
    """The files are right already; only the workers are older."""
    old = [workers(gateway) for gateway in gateways]
    for gateway in gateways:
        gateway.host.check_output(f"touch {ROUTES}")
    run = playbook.harden("recovery", harden_roles=["gateway"])
    assert run.changed == {gateway.name: 1 for gateway in gateways}, run.ending
    for gateway, before in zip(gateways, old, strict=True):
        assert not workers(gateway) & before
        assert gateway.ask("/api/tags", key=keys["app"]).status == 200


def assert_soon(expected, ask, meanwhile=()):
    """Ask until the answer is the expected one, and see no other one than `meanwhile` before.

    The lab's neighbours take a moment to find a host again that was switched off.
    """
    deadline = time.monotonic() + START_TIMEOUT
    while (seen := str(ask())) != expected:
        assert seen in {"no answer", "no such name", *meanwhile}
        assert time.monotonic() < deadline, seen
        time.sleep(0.5)


@pytest.fixture
def rebooted(gateways, lab):
    with ThreadPoolExecutor() as pool:
        list(pool.map(lab.reboot, [gateway.name for gateway in gateways]))


@pytest.mark.usefixtures("rebooted")
def test_reboot(gateways, keys, lab):
    for gateway in gateways:
        ask = partial(gateway.ask, "/api/generate", *GENERATE)
        # Ollama has started, but may not listen yet.
        assert_soon("200", partial(ask, key=keys["app"]), meanwhile={"502"})
        assert_soon("401", partial(ask, by="stranger"))
        for address in (gateway.address, f"[{gateway.address6}]"):
            url = f"http://{address}:11434/api/tags"
            assert_soon("refused", partial(curl.request, lab, "stranger", url))
        failed = gateway.host.check_output("systemctl --failed --quiet --no-legend")
        assert failed == ""
