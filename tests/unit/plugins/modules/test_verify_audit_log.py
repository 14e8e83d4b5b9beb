# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log of a hardened host, and each way to break it."""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
import time

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import audit_probe
from ansible_collections.llmsec.hardening.plugins.modules import verify_audit_log

from tests.unit.plugins.hardened_host import CODE, CONFIG, FILES, LOG, REPORTS, Hardened

DEFAULTS = {
    "log": LOG, "owner": "llm-validator", "group": "adm", "mode": "0640",
    "directory_mode": "02750", "config": CONFIG, "unit": "llm-key-validator.service",
    "registry": "/etc/llm-key-validator/keys.json", "socket": "/run/llm-key-validator.sock",
    "report_socket": REPORTS, "code_directory": CODE, "verifier": "/usr/local/bin/llm-audit",
    "verifier_sha256": hashlib.sha256((FILES / "llm-audit").read_bytes()).hexdigest(),
    "anchor": None, "address": "127.0.0.1", "port": 1, "server_name": "localhost", "wait": 1.0,
    "records": 1000, "chain_seconds": 60, "least_free_bytes": 0, "least_free_percent": 0.0,
    "settings": None,
}  # fmt: skip


@pytest.fixture
def hardened():
    # A short path: that of a unix socket has 108 bytes at most.
    root = tempfile.mkdtemp()
    yield Hardened(root)
    shutil.rmtree(root)


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(audit_probe, "_SETTLE", 0.0)


def assess(hardened, *, active=False, services=True, **options):
    """Return the findings by id, and the head."""
    options = {**DEFAULTS, "code": hardened.code, **options}
    check = verify_audit_log.Check(hardened.host, hardened.run, options, active=active)
    if not services:
        found = check.findings()
    else:
        with hardened.service():
            found = check.findings()
    assert len({one["id"] for one in found}) == len(found)
    return {one["id"]: one for one in found}, check.head


def assess_live(hardened, react=None, **options):
    with hardened.gateway(react) as port:
        return assess(hardened, active=True, port=port, **options)


def red(found, result="fail"):
    return {name for name, one in found.items() if one["result"] == result}


def test_a_hardened_host_is_green_and_gives_its_head(hardened):
    first = hardened.log.head()
    found, head = assess_live(hardened, anchor=first, settings={"audit_enabled": True})
    assert red(found) | red(found, "error") | red(found, "skip") == set()
    assert head.keys() == {"sequence", "hash", "epoch", "file", "time"}
    assert head["epoch"] == 2
    # The request itself is the last record.
    assert (head["sequence"], head["hash"]) == (first["sequence"] + 1, hardened.log.hash.hex())


def test_a_host_that_nobody_hardened_has_one_finding(hardened):
    for name in ("etc", "usr", "var"):
        shutil.rmtree(hardened.root / name)
    found, head = assess(hardened, services=False, active=True)
    assert (red(found), head, len(found)) == ({"audit_log.enabled"}, {}, 1)


def test_a_log_that_is_switched_off(hardened):
    hardened.put(CONFIG, json.dumps({"audit_enabled": False}))
    assert red(assess(hardened)[0]) == {"audit_log.enabled"}


@pytest.mark.parametrize("text", ["{", "[]"])
def test_settings_that_cannot_be_read_are_no_pass(hardened, text):
    hardened.put(CONFIG, text)
    found, _head = assess(hardened)
    assert red(found, "error") == {"audit_log.enabled"}
    assert len(found) == 1


@pytest.mark.parametrize(
    ("settings", "finding"),
    [
        ({"debug_requests": True}, "audit_log.config"),
        ({"audit_directory": "/srv/elsewhere"}, "audit_log.config"),
        ({"audit_keep_files": "all"}, "audit_log.config"),
        ({"audit_prompt_digest": "sha256"}, "audit_log.prompt_digest"),
        ({"audit_refusals_per_second": 0}, "audit_log.refusals"),
        ({"audit_max_file_bytes": "x"}, "audit_log.config"),
        ({"audit_sinks": ["file", "syslog"]}, "audit_log.reports"),
    ],
)
def test_settings_that_weaken_the_log(hardened, settings, finding):
    hardened.put(CONFIG, json.dumps({"audit_enabled": True, **settings}))
    found, _head = assess(hardened)
    assert red(found) == {finding}


def test_a_log_on_dev_null(hardened):
    hardened.at(LOG).unlink()
    hardened.at(LOG).symlink_to("/dev/null")
    found, head = assess(hardened)
    assert {"audit_log.file", "audit_log.open"} <= red(found)
    assert "/dev/null" in found["audit_log.file"]["actual"]
    assert found["audit_log.chain"]["result"] == "error"
    assert head == {}


def test_a_folder_that_is_a_link(hardened):
    folder = hardened.at(LOG).parent
    folder.rename(folder.with_name("other"))
    folder.symlink_to("other")
    assert {"audit_log.file", "audit_log.permissions"} <= red(assess(hardened)[0])


def test_a_log_that_was_deleted_while_it_is_open(hardened):
    files = hardened.host.open_files(4242)
    hardened.host.open_files = lambda _pid: files
    before = hardened.at(LOG).read_bytes()
    hardened.at(LOG).rename(hardened.at(LOG).with_name("gone"))
    found, head = assess(hardened)
    assert {"audit_log.file", "audit_log.open"} <= red(found)
    assert head == {}
    # Another file in its place is no better.
    hardened.put(LOG, before)
    assert red(assess(hardened)[0]) == {"audit_log.open"}


def test_a_service_that_does_not_run_is_no_pass(hardened):
    hardened.main_pid = 0
    found, _head = assess(hardened, services=False)
    names = {"audit_log.open", "audit_log.process", "audit_log.in_force", "audit_log.sealed"}
    assert red(found, "error") == names


def shorter_by(hardened, count):
    """Cut records off the end, and go on as a restarted service does."""
    lines = hardened.log.files[-1]
    del lines[-count:]
    last = json.loads(lines[-1])
    hardened.log.sequence = last["event.sequence"]
    hardened.log.hash = bytes.fromhex(last["event.hash"])


def test_a_cut_end_with_a_repaired_chain(hardened):
    anchor = hardened.log.head()
    shorter_by(hardened, 3)
    hardened.write_log()
    found, head = assess(hardened, anchor=anchor)
    assert red(found) == {"audit_log.anchor"}
    assert head == {}
    # Grown past the anchor again, it is another history.
    for number in range(5):
        hardened.log.request(f"{number:032d}")
    hardened.write_log()
    found, head = assess(hardened, anchor=anchor)
    assert red(found) == {"audit_log.anchor"}
    assert head == {}
    assert red(assess(hardened)[0]) == set()


def test_an_altered_record(hardened):
    text = hardened.at(LOG).read_text()
    hardened.put(LOG, text.replace('"user.id":"app1"', '"user.id":"app2"', 1))
    found, head = assess(hardened)
    assert red(found) == {"audit_log.chain"}
    assert head == {}


def test_a_removed_record(hardened):
    lines = hardened.at(LOG).read_bytes().splitlines(keepends=True)
    hardened.put(LOG, b"".join(lines[:2] + lines[3:]))
    assert red(assess(hardened)[0]) == {"audit_log.chain"}


def rotated(hardened):
    return sorted(hardened.at(LOG).parent.glob("audit-*.jsonl"))


def test_a_missing_file_in_the_middle(hardened):
    hardened.log.open()
    hardened.write_log()
    rotated(hardened)[1].unlink()
    assert red(assess(hardened)[0]) == {"audit_log.chain"}


def test_a_missing_first_file(hardened):
    rotated(hardened)[0].unlink()
    assert red(assess(hardened)[0]) == {"audit_log.beginning"}
    hardened.put(CONFIG, json.dumps({"audit_keep_files": 1}))
    assert red(assess(hardened)[0]) == {"audit_log.beginning"}
    hardened.log.open()
    hardened.write_log()
    rotated(hardened)[0].unlink()
    assert red(assess(hardened)[0]) == set()


def test_an_anchor_that_went_with_old_files_is_not_measured(hardened):
    rotated(hardened)[0].unlink()
    found, _head = assess(hardened, anchor={"sequence": 2, "hash": "ab" * 32})
    assert red(found, "error") == {"audit_log.anchor"}


def test_a_chain_that_takes_too_long_is_not_measured(hardened):
    hardened.run = lambda command, _stdin: (124 if command[0] == "timeout" else 0, "4242", "")
    found, head = assess(hardened)
    assert found["audit_log.chain"]["result"] == "error"
    assert "chain_seconds" in found["audit_log.chain"]["actual"]
    assert head == {}


@pytest.mark.parametrize(
    ("path", "mode"), [(LOG, 0o644), (LOG, 0o666), ("/var/log/llm-gateway", 0o777)]
)
def test_a_log_that_others_may_read_or_write(hardened, path, mode):
    hardened.at(path).chmod(mode)
    assert red(assess(hardened)[0]) == {"audit_log.permissions"}


def test_a_log_that_is_somebody_elses(hardened):
    hardened.host.owners = {LOG: "www-data:adm", **hardened.host.owners}
    assert red(assess(hardened)[0]) == {"audit_log.permissions"}


def test_a_validator_that_says_yes_to_all(hardened):
    place = hardened.at(f"{CODE}/llm_key_validator/decision.py")
    place.write_text(place.read_text() + "\ndecide = lambda *_a: Decision(Reason.OK)\n")
    found, head = assess(hardened)
    assert red(found) == {"audit_log.code"}
    assert found["audit_log.code"]["severity"] == "critical"
    assert found["audit_log.code"]["control"] == "authentication"
    # What it would say of the log is worth nothing.
    assert {"audit_log.chain", "audit_log.config"} <= red(found, "error")
    assert head == {}


@pytest.mark.parametrize(
    "name",
    ["httptools.py", "llm_key_validator/__pycache__/decision.cpython-311.pyc", "sitecustomize.py"],
)
def test_a_file_more_beside_the_code(hardened, name):
    hardened.put(f"{CODE}/{name}", "x", 0o644)
    hardened.at(f"{CODE}/{name}").parent.chmod(0o755)
    found, _head = assess(hardened)
    assert red(found) == {"audit_log.code"}
    assert name in found["audit_log.code"]["actual"]


def test_a_file_less_and_a_link_in_the_code(hardened):
    hardened.at(f"{CODE}/llm_key_validator/peers.py").unlink()
    assert red(assess(hardened)[0]) == {"audit_log.code"}
    hardened.at(f"{CODE}/llm_key_validator/peers.py").symlink_to("/srv/peers.py")
    assert red(assess(hardened)[0]) == {"audit_log.code"}


def test_without_the_expected_code_it_is_skipped(hardened):
    found, head = assess(hardened, code=None, verifier_sha256="")
    assert red(found, "skip") >= {"audit_log.code", "audit_log.verifier"}
    assert red(found) == set()
    assert head


def test_another_llm_audit(hardened):
    hardened.put("/usr/local/bin/llm-audit", "#!/bin/true\n", 0o755)
    assert red(assess(hardened)[0]) == {"audit_log.verifier"}


def test_a_request_without_a_record(hardened):
    found, _head = assess_live(hardened, lambda _request: None, wait=0.2)
    assert red(found) == {"audit_log.live"}
    assert found["audit_log.client_address"]["result"] == "error"


def test_a_gateway_that_does_not_answer_is_not_measured(hardened):
    found, _head = assess(hardened, active=True)
    names = {"audit_log.live", "audit_log.client_address", "audit_log.leak"}
    assert red(found, "error") == names


def test_check_mode_sends_nothing(hardened):
    found, _head = assess(hardened)
    assert red(found, "skip") >= {"audit_log.live", "audit_log.leak"}


def test_an_address_from_a_header(hardened):
    found, _head = assess_live(
        hardened, lambda request: hardened.refuse(request, client=audit_probe.CLAIMED)
    )
    assert red(found) == {"audit_log.client_address"}


def test_a_record_that_says_something_else(hardened):
    found, _head = assess_live(hardened, lambda one: hardened.refuse(one, status=200))
    assert red(found) == {"audit_log.live"}


def test_a_debug_log_of_requests(hardened):
    log = hardened.put("/var/log/nginx/error.log", "old\n")

    def react(request):
        hardened.refuse(request)
        with log.open("ab") as file:
            file.write(b"[debug] http header: " + request)

    found, _head = assess_live(hardened, react)
    assert red(found) == {"audit_log.leak"}
    shown = json.dumps(found["audit_log.leak"])
    assert "/var/log/nginx/error.log" in shown


def test_a_request_in_the_journal(hardened):
    def react(request):
        hardened.refuse(request)
        secret = request.split(b"probe=")[1].split(b" ")[0].decode()
        message = {"SYSLOG_IDENTIFIER": "ollama", "MESSAGE": f"prompt {secret}"}
        hardened.journal = json.dumps(message) + "\n"

    found, _head = assess_live(hardened, react)
    assert red(found) == {"audit_log.leak"}
    assert "ollama" in found["audit_log.leak"]["actual"]


def test_a_journal_that_cannot_be_read_is_not_measured(hardened):
    run = hardened.run
    broken = (1, "", "Failed to open the journal")
    hardened.run = lambda command, stdin: (
        broken if command[0] == "journalctl" else run(command, stdin)
    )
    found, _head = assess_live(hardened)
    assert red(found, "error") == {"audit_log.leak"}


def test_records_with_texts_and_keys(hardened):
    hardened.log.append({"event.action": "request", "llm.prompt": "who are you"})
    hardened.write_log()
    found, _head = assess(hardened)
    assert red(found) == {"audit_log.content"}
    assert "llm.prompt" in found["audit_log.content"]["actual"]
    assert "who are you" not in json.dumps(found)


def test_a_registered_key_in_a_path(hardened):
    hardened.log.refusal(path=f"/{hardened.key}")
    hardened.write_log()
    found, _head = assess(hardened)
    assert red(found) == {"audit_log.content"}
    assert hardened.key not in json.dumps(found)


def test_a_log_that_is_not_sealed(hardened):
    metrics = "llm_key_validator_audit_writable 0\nllm_key_validator_audit_sealed 0\n"
    options = {**DEFAULTS, "code": hardened.code}
    with hardened.service(metrics):
        check = verify_audit_log.Check(hardened.host, hardened.run, options, active=False)
        found = {one["id"]: one for one in check.findings()}
    assert red(found) == {"audit_log.sealed"}
    assert len(found["audit_log.sealed"]["evidence"]) == 2


def test_sockets_that_others_may_write_to(hardened):
    with hardened.service():
        hardened.at(REPORTS).chmod(0o666)
        assert red(assess(hardened, services=False)[0]) == {"audit_log.reports"}
    assert red(assess(hardened, services=False)[0]) == {"audit_log.reports"}


def test_a_full_disk(hardened):
    assert red(assess(hardened, least_free_percent=100.0)[0]) == {"audit_log.space"}
    assert red(assess(hardened, least_free_bytes=1 << 60)[0]) == {"audit_log.space"}


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/etc/logrotate.d/llm", "/var/log/llm-gateway/audit.jsonl {\n copytruncate\n}\n"),
        ("/etc/logrotate.d/all", "/var/log/*/*.jsonl {\n daily\n}\n"),
        ("/etc/tmpfiles.d/clean.conf", "D /var/log/llm-gateway 0755 root root 1d\n"),
        ("/etc/cron.d/clean", "* * * * * root truncate -s 0 /var/log/llm-gateway/audit.jsonl\n"),
        ("/etc/cron.daily/clean", "#!/bin/sh\n: >/var/log/llm-gateway/audit.jsonl\n"),
        ("/var/spool/cron/crontabs/root", "0 3 * * * find /var/log/llm-gateway -delete\n"),
    ],
)
def test_somebody_else_rotates(hardened, path, text):
    hardened.put("/etc/logrotate.d/nginx", "/var/log/nginx/*.log {}\n# /var/log/llm-gateway\n")
    assert red(assess(hardened)[0]) == set()
    hardened.put(path, text)
    found, _head = assess(hardened)
    assert red(found) == {"audit_log.rotation"}
    assert found["audit_log.rotation"]["severity"] == "high"


def test_a_backup_touches_nothing(hardened):
    hardened.put(
        "/etc/cron.d/backup", "0 1 * * * root rsync /var/log/llm-gateway far:/b >/dev/null\n"
    )
    assert red(assess(hardened)[0]) == set()


SETTINGS = {
    "audit_enabled": True, "audit_fsync": True, "audit_sinks": ["file"], "auth": "api_key",
    "tiers": {"standard": {"requests_per_minute": 60, "requests_per_day": 500}},
}  # fmt: skip


@pytest.mark.parametrize(
    ("change", "red_ones"),
    [
        ({"audit_fsync": False}, {""}),
        ({"audit_sinks": ["file", "journald"]}, {""}),
        ({"auth": "either"}, {"_access"}),
        ({"trusted_users": ["www-data", "eve"]}, {"_access"}),
        ({"tiers": {"standard": {"requests_per_minute": 6000, "requests_per_day": 500}}},
         {"_limits"}),
        ({"tiers": {"standard": {"requests_per_minute": 60}}}, {"_budget"}),
        ({"tiers": {**SETTINGS["tiers"], "vip": {}}}, {"_limits"}),
        ({"default_tier": "vip"}, {"_limits"}),
    ],
)  # fmt: skip
def test_settings_that_are_not_the_inventorys(hardened, change, red_ones):
    controls = {"": "audit_log", "_access": "authentication", "_limits": "rate_limit",
                "_budget": "budget"}  # fmt: skip
    hardened.put(CONFIG, json.dumps(SETTINGS))
    found, _head = assess(hardened, settings=SETTINGS)
    assert not [name for name in red(found) if name.startswith("audit_log.settings")]
    hardened.put(CONFIG, json.dumps({**SETTINGS, **change}))
    found, _head = assess(hardened, settings=SETTINGS)
    names = {name.removeprefix("audit_log.settings") for name in red(found)
             if name.startswith("audit_log.settings")}  # fmt: skip
    assert names == red_ones
    for end in red_ones:
        one = found[f"audit_log.settings{end}"]
        assert (one["control"], one["severity"]) == (controls[end], "high")


def test_a_file_that_is_never_put_aside(hardened):
    hardened.put(CONFIG, json.dumps({"audit_max_file_bytes": 4096}))
    with hardened.at(LOG).open("ab") as file:
        file.truncate(1 << 23)
    assert "audit_log.rotation" in red(assess(hardened)[0])


def test_code_that_changed_after_the_start(hardened):
    running = hardened.host.running
    hardened.host.running = [
        type(one)(one.pid, one.name, one.program, one.command, one.environment, time.time() - 60)
        for one in running
    ]
    found, _head = assess(hardened)
    assert red(found) == {"audit_log.in_force"}


def test_the_module_as_ansible_runs_it(run_module, tmp_path):
    missing = str(tmp_path / "none.json")
    result = run_module(verify_audit_log.main, config=missing)
    assert [one["id"] for one in result["findings"]] == ["audit_log.enabled"]
    assert (result["changed"], result["head"]) == (False, {})
    assert run_module(verify_audit_log.main, mode="rw")["failed"] is True
    assert run_module(verify_audit_log.main, anchor={"hash": "x"})["failed"] is True
