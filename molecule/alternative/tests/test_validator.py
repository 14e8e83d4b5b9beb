# SPDX-License-Identifier: GPL-3.0-or-later
"""The key validator's other settings: counters in a store, a second sink, records on the disk.

And the audit log of such a host, as the control node sees it.
"""

from __future__ import annotations

import json
import re

import pytest

from tests.lab.audit import FOLDER, Audit, chain_anew, chained
from tests.lab.batch import Question
from tests.lab.playbook import play
from tests.lab.steps import wait_until

VERSION = Question("/api/version")
STORE = "valkey-server.service"
JOURNAL_SOCKET = "/run/systemd/journal/socket"


@pytest.fixture(scope="session")
def audit(gateway):
    """The gateway's audit log."""
    return Audit(gateway.lab, gateway.name)


def metric(audit, name):
    text = audit.shell("curl --silent --fail http://127.0.0.1:18081/metrics")
    return int(re.search(rf"^llm_key_validator_{re.escape(name)} (\d+)$", text, re.MULTILINE)[1])


# --- counters in a store ---


def test_the_store_counts(ask, audit):
    """It holds the count, in the database that the URL names, and not the service's memory."""
    *good, bad = ask("limited", *[VERSION] * 3)
    assert [answer.status for answer in good] == [200, 200]
    assert bad.status == 429
    assert int(bad.headers["retry-after"]) > 0
    password = "$(cat /etc/llm-key-validator/credentials/counters-password)"
    names = audit.shell(f'REDISCLI_AUTH="{password}" valkey-cli -n 3 keys "llm-gateway:*"')
    assert "llm-gateway:{limited}:counts" in names.split()


def test_without_the_store_nobody_passes(ask, audit):
    assert ask("app", VERSION)[0].status == 200
    audit.shell(f"systemctl stop {STORE}")
    try:
        answers = ask("app", VERSION) + ask("limited", VERSION)
    finally:
        audit.shell(f"systemctl start {STORE}")
    assert [answer.status for answer in answers] == [503, 503]
    assert audit.of(answers[0])[0]["event.reason"] == "counters"
    assert wait_until(lambda: ask("app", VERSION)[0].status == 200, seconds=5)


# --- a second sink, and records on the disk ---


def in_journal(audit, answer):
    """The records of one request that the journal has."""
    words = "--no-pager --output=cat --identifier=llm-audit"
    number = answer.headers["x-request-id"]
    lines = audit.shell(f"journalctl {words} --grep={number} || true").splitlines()
    return [json.loads(line) for line in lines]


def test_the_journal_has_the_records_too(ask, audit):
    (answer,) = ask("app", VERSION)
    records = audit.of(answer, 2)
    assert wait_until(lambda: in_journal(audit, answer) == records, seconds=5)


def test_one_sink_may_fail_but_not_both(ask, audit):
    """A journal that is gone; a limit on the size of files makes writing fail (EFBIG)."""
    limit = (
        "pid=$(systemctl show --property=MainPID --value llm-key-validator.service); "
        "setpriv --reuid=llm-validator --regid=llm-validator --clear-groups "
        "prlimit --pid=$pid --fsize="
    )
    audit.shell(f"mv {JOURNAL_SOCKET} {JOURNAL_SOCKET}.away")
    try:
        (answer,) = ask("app", VERSION)
        assert answer.status == 200
        assert len(audit.of(answer, 2)) == 2
        audit.shell(f"{limit}1:")
        try:
            assert {one.status for one in ask("app", *[VERSION] * 3)} == {503}
        finally:
            audit.shell(f"{limit}unlimited:")
        assert wait_until(lambda: ask("app", VERSION)[0].status == 200, seconds=5)
    finally:
        audit.shell(f"mv {JOURNAL_SOCKET}.away {JOURNAL_SOCKET}")
    (answer,) = ask("app", VERSION)
    assert wait_until(lambda: len(in_journal(audit, answer)) == 2, seconds=5)
    assert audit.verify()["verdict"] == "whole"


def test_a_request_waits_for_the_disk(ask, audit):
    """One at a time, each is synced for itself."""
    before = metric(audit, "audit_fsyncs_total")
    assert {answer.status for answer in ask("app", *[VERSION] * 5)} == {200}
    assert metric(audit, "audit_fsyncs_total") >= before + 5


# --- the control node, with the first key ---


@pytest.fixture
def verify_on_control_node(tmp_path, monkeypatch):
    """The playbook; nothing of the log stays where it was copied to."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    def run():
        done = play("verify_audit", verify_audit_hosts="alternative")
        assert not [*tmp_path.glob("llm-audit-*")]
        return done

    return run


def test_the_control_node_finds_it_whole_and_notes_its_head(verify_on_control_node, ask, audit):
    ask("app", *[VERSION] * 20)
    before = audit.anchor.read_text()
    run = verify_on_control_node()
    assert run.code == 0, run.ending
    assert run.changed[audit.name] == 0
    assert re.search(r"\d+ records.* [1-9]\d* seals", run.text), run.ending
    assert json.loads(audit.anchor.read_text())["sequence"] > json.loads(before)["sequence"]


def with_another_past(lines):
    """A record that was sealed says something else, and all hashes behind it are made anew."""
    chain_anew(lines)
    return lines


def without_its_past(lines):
    """One file that claims to go on from the last record, whose seals nobody can miss."""
    last, opened = json.loads(lines[-1]), json.loads(lines[0])
    opened |= {
        "event.sequence": last["event.sequence"] + 1,
        "llm.audit.previous.sequence": last["event.sequence"],
        "llm.audit.previous.hash": last["event.hash"],
    }
    del opened["event.hash"]
    body = json.dumps(opened, separators=(",", ":")).encode()[:-1]
    line, _digest = chained(bytes.fromhex(last["event.hash"]), body)
    return [line]


@pytest.fixture
def real(audit):
    """The log, which the service goes on with afterwards."""
    file = f"{FOLDER}/audit.jsonl"
    audit.shell(f"systemctl stop llm-key-validator.service; cp --archive {file} /root/real.jsonl")
    yield audit.shell(f"cat {file}").encode().splitlines()
    audit.shell(f"cat /root/real.jsonl >{file}; systemctl start llm-key-validator.service")


@pytest.mark.parametrize(
    ("forge", "said"),
    [
        (with_another_past, "the seal is forged"),
        (without_its_past, "older files were removed"),
    ],
)
def test_the_control_node_finds_what_the_host_cannot(
    verify_on_control_node, audit, real, forge, said
):
    """What root on the host can write anew."""
    text = b"".join(line + b"\n" for line in forge(real)).decode()
    audit.lab.run(audit.name, "sh", "-c", f"cat >{FOLDER}/audit.jsonl", stdin=text, check=True)
    assert audit.verify()["verdict"] == "whole"
    before = audit.anchor.read_text()
    run = verify_on_control_node()
    assert run.hosts[audit.name].failed == 1, run.ending
    assert said in run.text, run.ending
    assert audit.anchor.read_text() == before
