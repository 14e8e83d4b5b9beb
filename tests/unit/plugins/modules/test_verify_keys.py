# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys of a hardened host, and each way to break them."""

from __future__ import annotations

import json
import shutil
import tempfile
import time

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import key_checks
from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import (
    checksum,
    generate_key,
    key_digest,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.host_view import Process
from ansible_collections.llmsec.hardening.plugins.modules import verify_keys

from tests.unit.plugins.hardened_host import CONFIG, LOG, REGISTRY, SOCKET, Hardened

DEFAULTS = {
    "registry": REGISTRY, "group": "llm-validator", "socket": SOCKET,
    "audit_log": "/var/log/llm-gateway", "warn_days": 14, "unused_days": 90,
    "private_keys": ["/etc/llm-gateway/pki"], "search_paths": None, "max_bytes": 1 << 28,
    "max_seconds": 60.0,
}  # fmt: skip
DAY = 86400


@pytest.fixture
def hardened():
    # A short path: that of a unix socket has 108 bytes at most.
    root = tempfile.mkdtemp()
    yield Hardened(root)
    shutil.rmtree(root)


def assess(hardened, expected=None, services=True, **options):
    """Return the findings by id; `expected` are the inventory's records."""
    wanted = None if expected is None else key_checks.parse_records(expected, "expected_keys")
    options = {**DEFAULTS, **options}
    if services:
        with hardened.service():
            found = verify_keys.findings_of(hardened.host, options, wanted)
    else:
        found = verify_keys.findings_of(hardened.host, options, wanted)
    assert len({one["id"] for one in found}) == len(found)
    assert hardened.key not in json.dumps(found)
    return {one["id"]: one for one in found}


def red(found, result="fail"):
    return {name for name, one in found.items() if one["result"] == result}


def day(days):
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + days * DAY))


def test_a_hardened_host_is_green(hardened):
    found = assess(hardened, [hardened.record()])
    assert red(found) | red(found, "error") == set()
    # The log is too young to say who is not used.
    assert red(found, "skip") == {"keys.unused"}


def test_a_host_that_nobody_hardened_has_one_finding(hardened):
    shutil.rmtree(hardened.at("/etc/llm-key-validator"))
    (one,) = assess(hardened, services=False).values()
    assert (one["id"], one["result"], one["control"], one["severity"]) == (
        "keys.registry", "fail", "authentication", "high",
    )  # fmt: skip


@pytest.mark.parametrize("content", ["link", "folder"])
def test_a_registry_that_is_no_file(hardened, content):
    place = hardened.at(REGISTRY)
    place.unlink()
    if content == "link":
        place.symlink_to("/dev/null")
    else:
        place.mkdir()
    (one,) = assess(hardened, services=False).values()
    assert (one["id"], one["result"]) == ("keys.registry", "fail")


def test_without_the_inventory_nothing_is_compared(hardened):
    found = assess(hardened)
    assert {"keys.unknown", "keys.stale"} <= red(found, "skip")
    assert red(found) == set()


def test_a_key_more(hardened):
    wanted = [hardened.record()]
    hardened.write_registry([*wanted, hardened.record("intruder", generate_key())])
    found = assess(hardened, wanted)
    assert red(found) == {"keys.unknown"}
    assert "intruder" in found["keys.unknown"]["actual"]


def test_another_key_under_a_known_name(hardened):
    hardened.write_registry([hardened.record(key=generate_key())])
    assert red(assess(hardened, [hardened.record()])) == {"keys.unknown"}


def test_an_old_registry_that_was_copied_back(hardened):
    now = [hardened.record(revoked=True), hardened.record("app2", generate_key())]
    hardened.write_registry([hardened.record()])
    found = assess(hardened, now)
    assert red(found) == {"keys.stale"}
    lines = "\n".join(found["keys.stale"]["evidence"])
    assert "app1: differs in revoked" in lines
    assert "app2: is missing" in lines


def test_the_same_record_written_otherwise_is_the_same(hardened):
    hardened.write_registry([hardened.record(expires="2126-01-31")])
    expected = [{"expires": "2126-01-31T00:00:00Z", **hardened.record()}]
    assert red(assess(hardened, expected)) == set()


def test_a_service_that_uses_another_registry(hardened):
    with hardened.service():
        hardened.write_registry([hardened.record(), hardened.record("app2", generate_key())])
        assert red(assess(hardened, services=False)) == {"keys.loaded"}


def test_a_service_that_does_not_answer_is_no_pass(hardened):
    assert red(assess(hardened, services=False), "error") == {"keys.loaded"}


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"version": 2, "keys": []}',
        '{"version": 1, "keys": [{"id": "a", "owner": "b", "sha256": "5f4dcc3b5aa765d61d8327de"}]}',
        '{"version": 1, "keys": [{"id": "a", "owner": "b", "sha256": "hunter2"}]}',
    ],
)
def test_a_registry_that_the_service_refuses(hardened, text):
    hardened.put(REGISTRY, text)
    assert red(assess(hardened)) == {"keys.format"}


def test_a_plain_key_in_the_registry(hardened):
    hardened.write_registry([hardened.record(owner=hardened.key)])
    assert red(assess(hardened)) == {"keys.format", "keys.plain_text"}


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        (REGISTRY, 0o644), (CONFIG, 0o666), ("/etc/llm-key-validator", 0o755), ("/etc", 0o777),
    ],
)  # fmt: skip
def test_files_that_others_may_read_or_write(hardened, path, mode):
    hardened.at(path).chmod(mode)
    found = red(assess(hardened))
    # In a folder that is closed to others, nobody reads it.
    assert found == {"keys.permissions"}


def test_a_registry_that_is_somebody_elses(hardened):
    hardened.host.owners = {REGISTRY: "www-data:llm-validator", **hardened.host.owners}
    assert red(assess(hardened)) == {"keys.permissions"}


@pytest.mark.parametrize(
    ("path", "mode"),
    [
        ("/etc/llm-key-validator/credentials/prompt-pepper", 0o644),
        ("/etc/llm-key-validator/credentials", 0o755),
        ("/var/lib/llm-key-validator/audit/seal.json", 0o640),
        ("/run/llm-validator/prompt-pepper", 0o440),
    ],
)
def test_secrets_that_others_may_read(hardened, path, mode):
    hardened.at(path).chmod(mode)
    assert red(assess(hardened)) == {"keys.credentials"}


def test_secrets_that_are_somebody_elses(hardened):
    place = "/etc/llm-key-validator/credentials/prompt-pepper"
    hardened.host.owners = {place: "llm-validator:root", **hardened.host.owners}
    assert red(assess(hardened)) == {"keys.credentials"}


def test_a_private_key_that_others_may_read(hardened):
    key = hardened.at("/etc/llm-gateway/pki/server.key")
    key.chmod(0o644)
    assert red(assess(hardened)) == {"keys.private_keys"}
    key.chmod(0o600)
    # Links are followed, for nginx follows them.
    other = hardened.put("/etc/ssl/private/x.pem", key.read_bytes(), 0o640)
    hardened.at("/etc/llm-gateway/pki/link.pem").symlink_to("/etc/ssl/private/x.pem")
    assert red(assess(hardened)) == {"keys.private_keys"}
    other.chmod(0o600)
    assert red(assess(hardened)) == set()
    hardened.host.owners = {"/etc/ssl/private": "www-data:www-data", **hardened.host.owners}
    assert red(assess(hardened, private_keys=["/etc/ssl/private/x.pem"])) == {"keys.private_keys"}


@pytest.mark.parametrize("body", ["llmk_" + "a" * 40, "llmk_" + "0123456789" * 4])
def test_a_key_that_can_be_guessed(hardened, body):
    hardened.write_registry([hardened.record(key=body + checksum(body))])
    found = assess(hardened)
    assert red(found) == {"keys.weak"}
    assert found["keys.weak"]["severity"] == "critical"


def test_keys_that_end(hardened):
    hardened.write_registry(
        [
            hardened.record(expires=day(3)), hardened.record("b", generate_key(), expires=day(-3)),
            hardened.record("c", generate_key(), revoked=True),
            hardened.record("d", generate_key(), expires=day(20)),
            hardened.record("e", generate_key()),
        ]
    )  # fmt: skip
    found = assess(hardened)
    assert red(found) == {"keys.expiring"}
    assert "app1: expires in 2 days" in found["keys.expiring"]["actual"]
    assert found["keys.expired"]["actual"].startswith("1 expired, 1 revoked")
    assert found["keys.endless"]["evidence"] == ["e"]
    assert red(assess(hardened, warn_days=1)) == set()


def test_a_tier_that_does_not_exist(hardened):
    hardened.write_registry([hardened.record(tier="gold")])
    assert red(assess(hardened)) == {"keys.tier"}
    hardened.put(CONFIG, json.dumps({"tiers": {"gold": {}}}))
    assert red(assess(hardened)) == set()
    hardened.put(CONFIG, "{")
    assert red(assess(hardened), "error") == {"keys.tier"}


def test_a_key_that_nobody_uses(hardened):
    stale, fresh = generate_key(), generate_key()
    hardened.write_registry(
        [
            hardened.record(), hardened.record("idle", stale),
            hardened.record("new", fresh, not_before=day(-5)),
        ]
    )  # fmt: skip
    assert red(assess(hardened, unused_days=0)) == {"keys.unused"}
    found = assess(hardened, unused_days=0)["keys.unused"]
    assert "idle" in found["actual"] + str(found["evidence"])
    assert "app1" not in found["actual"] + str(found["evidence"])
    shutil.rmtree(hardened.at(LOG).parent)
    assert "keys.unused" in red(assess(hardened, unused_days=0), "skip")


@pytest.mark.parametrize(
    ("path", "before"),
    [
        ("/root/.bash_history", "ls\ncurl -H 'X-API-Key: "),
        ("/etc/systemd/system/app.service.d/env.conf", "[Service]\nEnvironment=LLM_KEY="),
        ("/etc/nginx/snippets/key.conf", "\nproxy_set_header Authorization 'Bearer "),
        ("/var/log/app/requests.log", "x\nGET /?key="),
        ("/home/ann/.config/tool/settings.json", '{\n"key":"'),
        ("/opt/app/.env", "A=1\nKEY="),
        ("/srv/app/.env", "a\n"),
    ],
)
def test_a_key_in_plain_text(hardened, path, before):
    hardened.put(path, f"{before}{hardened.key}'\n", 0o600)
    found = assess(hardened)
    assert red(found) == {"keys.plain_text"}
    assert found["keys.plain_text"]["actual"] == f"{path}:2: key app1"
    assert found["keys.plain_text"]["severity"] == "high"


def test_a_key_that_lets_nobody_in_is_less(hardened):
    other = generate_key()
    hardened.put("/root/notes", other)
    found = assess(hardened)
    assert red(found) == {"keys.plain_text_other"}
    assert other not in json.dumps(found)
    hardened.put("/root/notes", hardened.key)
    hardened.write_registry([hardened.record(revoked=True)])
    assert red(assess(hardened)) == {"keys.plain_text_other"}


def test_what_only_looks_like_a_key_is_none(hardened):
    hardened.put("/root/notes", hardened.key[:-1] + ("a" if hardened.key[-1] != "a" else "b"))
    assert red(assess(hardened)) == set()


@pytest.mark.parametrize("where", ["command", "environment"])
def test_a_key_in_a_process(hardened, where):
    words = ("curl", "-H", f"X-API-Key: {hardened.key}" if where == "command" else "x")
    environment = f"A=1\0KEY={hardened.key}\0" if where == "environment" else ""
    hardened.host.running = [Process(7, "curl", "/usr/bin/curl", words, environment.encode(), 0.0)]
    found = assess(hardened)
    assert red(found) == {"keys.plain_text"}
    assert f"{where} of process curl" in found["keys.plain_text"]["actual"]


def test_a_search_that_ends_early_says_so(hardened):
    for bounds in ({"max_bytes": 0}, {"max_seconds": 0.0}):
        found = assess(hardened, **bounds)
        assert "keys.plain_text.bounded" in red(found, "skip")


def test_a_copy_of_the_registry_for_everybody(hardened):
    hardened.put("/etc/default/keys.json.bak", hardened.at(REGISTRY).read_bytes(), 0o644)
    hardened.root.chmod(0o755)
    assert red(assess(hardened)) == {"keys.copies"}
    hardened.at("/etc/default").chmod(0o700)
    assert red(assess(hardened)) == set()


def test_the_module_as_ansible_runs_it(run_module, tmp_path):
    record = {"id": "a", "owner": "b", "sha256": key_digest(generate_key())}
    path = str(tmp_path / "keys.json")
    result = run_module(verify_keys.main, registry=path, expected_keys=[record])
    assert [one["id"] for one in result["findings"]] == ["keys.registry"]
    assert result["changed"] is False
    wrong = run_module(verify_keys.main, registry=path, expected_keys=[{"id": "A"}])
    assert wrong["failed"] is True
    assert wrong["msg"].startswith("expected_keys[0]")
