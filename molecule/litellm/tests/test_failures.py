# SPDX-License-Identifier: GPL-3.0-or-later
"""What fails behind LiteLLM, and what its users notice of it. Each test leaves the host well."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from chain import RECORDED, Inside, chat

from tests.lab.playbook import harden
from tests.lab.steps import wait_until

OLLAMAS = ("ollama.service", "ollama2.service")
# How long LiteLLM remembers a key that it looked up, see the role's README, and a little more
FORGOTTEN = 15


@contextmanager
def stopped(gateway, unit):
    gateway.host.check_output("systemctl stop %s", unit)
    try:
        yield
    finally:
        gateway.host.check_output("systemctl start %s", unit)


def statuses(answers):
    return [answer.status for answer in answers]


@pytest.mark.parametrize("unit", OLLAMAS)
def test_one_of_two_ollamas_stops_and_no_request_is_lost(gateway, ask, unit):
    """Some are under way at that time; those of this Ollama are asked again of the other."""
    # What models share is no alias, which would be one object with one number to LiteLLM.
    assert "*id" not in gateway.host.file("/etc/litellm/config.yaml").content_string
    with ThreadPoolExecutor(4) as pool:
        under_way = [pool.submit(ask, "app", *[chat()] * 5) for _unused in range(4)]
        time.sleep(0.5)
        with stopped(gateway, unit):
            answers = [answer for one in under_way for answer in one.result()]
            answers += ask("app", *[chat()] * 4)
    assert statuses(answers) == [200] * 24


def took(ask) -> float:
    start = time.monotonic()
    assert statuses(ask("app", *[chat()] * 3)) == [200] * 3
    return time.monotonic() - start


def test_a_dead_or_hanging_langfuse_neither_slows_nor_fails_requests(gateway, ask):
    usual = took(ask)
    gateway.host.check_output("touch %s.hang", RECORDED)
    try:
        hanging = took(ask)
    finally:
        gateway.host.check_output("rm %s.hang", RECORDED)
    with stopped(gateway, "langfuse-recorder.service"):
        dead = took(ask)
    # Its client waits for 5 s and more: whoever waited for it would take many times as long.
    assert max(hanging, dead) < 3 * usual + 4, (usual, hanging, dead)


def test_without_the_store_of_counters_it_answers_on(gateway, ask):
    """Each proxy counts for itself then, as the README says."""
    store = "redis" if gateway.name.endswith("d12") else "valkey"
    with stopped(gateway, f"{store}-server@litellm.service"):
        assert statuses(ask("app", *[chat()] * 3)) == [200] * 3


def test_without_the_database_it_refuses(gateway, ask):
    assert statuses(ask("app", chat())) == [200]
    with stopped(gateway, "postgresql.service"):
        assert wait_until(lambda: statuses(ask("app", chat())) != [200], FORGOTTEN)
        refused = statuses(ask("app", chat(), chat()))
    assert all(status in (401, 403, 500, 502, 503) for status in refused), refused
    assert wait_until(lambda: statuses(ask("app", chat())) == [200], 60)


def test_what_was_lost_comes_back_from_a_backup(gateway, ask, inside):
    """As the role's README says."""
    kept = (
        'select count(*), sum(spend) from "LiteLLM_SpendLogs"',
        'select token from "LiteLLM_VerificationToken" order by token',
    )

    def read():
        return [inside.sql(one) for one in kept]

    def steady():
        """What was spent is written some seconds after the answers."""
        first = read()
        time.sleep(2)
        return first == read() and first

    shell = gateway.host.check_output
    before = wait_until(steady, 60)
    assert before and before[1], before
    shell("cd / && runuser -u postgres -- pg_dump --format=custom litellm >/root/litellm.dump")
    inside.sql('truncate "LiteLLM_SpendLogs", "LiteLLM_VerificationToken" cascade')
    refused = wait_until(lambda: statuses(ask("app", chat())) != [200], 30)
    shell("systemctl stop litellm.service")
    try:
        shell(
            "cd / && runuser -u postgres -- pg_restore --clean --if-exists --dbname litellm"
            " </root/litellm.dump && rm /root/litellm.dump"
        )
        after = read()
    finally:
        shell("systemctl start litellm.service")
    assert refused
    assert after == before
    assert wait_until(lambda: statuses(ask("app", chat())) == [200], 90)


def test_several_proxies_count_together(gateways):
    """A second proxy on the same host, with the same settings and store."""
    gateway = gateways[0]
    inside = Inside(gateway.host)
    status, made = inside.call("/key/generate", rpm_limit=3, key_type="llm_api")
    assert status == 200, made
    run = (
        "systemd-run --unit=litellm-second --uid=litellm --property=EnvironmentFile="
        "/etc/litellm/credentials/environment --property=WorkingDirectory=/var/lib/litellm"
        " $(systemctl show --property=Environment --value litellm.service | tr ' ' '\\n'"
        " | sed 's/^/--setenv=/') /opt/litellm/current/bin/litellm"
        " --config /etc/litellm/config.yaml --host 127.0.0.1 --port 4001"
    )
    gateway.host.check_output(run)
    try:
        assert wait_until(lambda: _lives(gateway, 4001), 120)
        body = {"model": "house", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        ports = (4000, 4001, 4000, 4001, 4000)
        found = [
            inside.call("/v1/chat/completions", port, made["key"], **body)[0] for port in ports
        ]
    finally:
        gateway.host.check_output("systemctl stop litellm-second.service")
    assert found[:3] == [200] * 3, found
    assert found[3:] == [429] * 2, found


def _lives(gateway, port):
    return gateway.host.run(f"curl -sf http://127.0.0.1:{port}/health/liveliness").rc == 0


def test_a_database_that_does_not_answer_stops_the_run_before_anything_changes(gateways):
    pids = [gateway.main_pid("litellm.service") for gateway in gateways]
    run = harden(
        "litellm",
        harden_roles=["litellm"],
        litellm_install_postgresql=False,
        litellm_database_url="postgresql://litellm:secret-word@127.0.0.1:5499/litellm",
    )
    for gateway in gateways:
        assert run.hosts[gateway.name].failed == 1, run.ending
        assert run.changed[gateway.name] == 0, run.ending
        assert "5499" in run.said[gateway.name], run.ending
    assert "secret-word" not in run.text
    assert [gateway.main_pid("litellm.service") for gateway in gateways] == pids


def test_settings_that_it_does_not_start_with_are_taken_back(gateways, keys):
    """On one host: the run waits until it gives up."""
    gateway = gateways[0]
    settings = gateway.host.file("/etc/litellm/config.yaml").content_string
    run = harden(
        "litellm",
        f"--limit={gateway.name},localhost",
        harden_roles=["litellm"],
        litellm_extra_config={"router_settings": {"no_such_setting": True}},
        litellm_health_timeout=60,
    )
    assert run.hosts[gateway.name].failed == 1, run.ending
    assert gateway.host.file("/etc/litellm/config.yaml").content_string == settings
    assert wait_until(lambda: _lives(gateway, 4000), 90)
    assert wait_until(lambda: statuses(gateway.ask_all([chat()], key=keys["app"])) == [200], 60)
