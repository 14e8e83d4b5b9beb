# SPDX-License-Identifier: GPL-3.0-or-later
"""The audit log: what it says, what it never says, and who notices when it was touched."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import shutil
import time
from collections import Counter
from datetime import datetime
from itertools import accumulate

import pytest

from tests.lab.audit import FOLDER, STATE_FILE, chain_anew, requests
from tests.lab.batch import Question, post
from tests.lab.steps import wait_until

ACTIVE = f"{FOLDER}/audit.jsonl"
LIST = Question("/api/tags")


def generate(prompt, model="tiny", **more):
    options = {"num_predict": 2, "seed": 3}
    body = {"model": model, "prompt": prompt, "stream": False, "options": options, **more}
    return post("/api/generate", **body)


# --- what it says ---


def test_the_guides_eight_facts(ask, keys, audit, lab):
    prompt = "How many doors are there?"
    (answer,) = ask("app", generate(prompt, model="TINY"))
    assert answer.status == 200
    request, response = audit.of(answer, 2)
    assert (request["event.action"], response["event.action"]) == ("request", "response")
    assert response["event.sequence"] > request["event.sequence"]

    asked_at = datetime.fromisoformat(request["@timestamp"])
    assert abs(time.time() - asked_at.timestamp()) < 60
    assert request["user.hash"] == hashlib.sha256(keys["app"].encode()).hexdigest()
    assert request["client.ip"] in lab.addresses()["app-server"]
    assert request["gen_ai.request.model"] == "tiny:latest"
    assert request["llm.prompt.hash"] == audit.run("digest", stdin=prompt).stdout.strip()
    assert request["llm.prompt.length"] == len(prompt)
    assert 0 < response["event.duration"] < 60e9
    assert response["http.response.status_code"] == 200

    assert request["user.id"] == response["user.id"] == "app"
    assert request["http.request.method"] == "POST"
    assert request["url.path"] == "/api/generate"
    assert response["http.response.body.bytes"] >= len(answer.body)
    assert response["event.outcome"] == "success"


@pytest.mark.parametrize(
    ("shape", "path", "body"),
    [
        ("ollama_chat", "/api/chat", {"messages": [{"role": "user", "content": "one"}]}),
        (
            "openai_chat",
            "/v1/chat/completions",
            {"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]},
        ),
        ("openai_responses", "/v1/responses", {"input": "two", "instructions": "three"}),
        (
            "anthropic_messages",
            "/v1/messages",
            {"max_tokens": 4, "messages": [{"role": "user", "content": "four"}]},
        ),
    ],
)
def test_a_whole_body_can_be_looked_up(ask, audit, shape, path, body):
    body = {"model": "tiny", **body}
    (answer,) = ask("app", post(path, **body))
    request, _unused = audit.of(answer, 2)
    digest = audit.run("digest", "--body", shape, stdin=json.dumps(body)).stdout.strip()
    assert request["llm.prompt.hash"] == digest


def test_reading_leaves_records_too(ask, audit):
    for key in ("app", "tiny_only"):
        (answer,) = ask(key, LIST)
        request, response = audit.of(answer, 2)
        assert (request["user.id"], response["http.response.status_code"]) == (key, 200)


def test_an_answer_of_the_llm_server_that_is_an_error(ask, audit):
    (answer,) = ask("app", generate("x", model="no-such-model"))
    assert answer.status == 404
    request, response = audit.of(answer, 2)
    assert request["gen_ai.request.model"] == "no-such-model:latest"
    assert (response["http.response.status_code"], response["event.outcome"]) == (404, "failure")


REFUSED = [
    ("app", Question("/api/generate", b"{"), (400, "body")),
    ("", LIST, (401, "missing")),
    ("expired", LIST, (401, "expired")),
    ("elsewhere", LIST, (403, "network")),
    ("reader", generate("x"), (403, "endpoint_class")),
    ("tiny_only", generate("x", model="secret"), (403, "model")),
    ("small", Question("/api/generate", b" " * 20_001), (413, "body_size")),
    # nginx by itself
    ("app", Question("/api/no-such-route"), (404, "http_404")),
    ("app", Question("/api/generate", b" " * 2_100_000), (413, "http_413")),
]


@pytest.fixture(scope="session")
def refused(ask):
    """The answers, and enough time for nginx's reports, which must not count twice."""
    answers = [ask(key, question)[0] for key, question, _unused in REFUSED]
    time.sleep(1)
    return answers


@pytest.mark.parametrize(
    "number", range(len(REFUSED)), ids=[ending[1] for *_unused, ending in REFUSED]
)
def test_a_refusal_is_one_record(refused, audit, number):
    key, question, ending = REFUSED[number]
    assert refused[number].status == ending[0], refused[number]
    (record,) = audit.of(refused[number])
    assert record["event.action"] == "refusal"
    assert (record["http.response.status_code"], record["event.reason"]) == ending
    assert record["url.path"] == question.path
    known = "" if ending[1].startswith("http") else key
    assert record.get("user.id", "") == known


def test_floods_are_counted_to_the_last_one(gateway, audit):
    """More refusals a second than are written; what is not written is counted."""
    audit.rotate()
    last = audit.sequence
    wrong = "llmk_" + "0" * 46
    flood = [answer.status for answer in gateway.ask_all([LIST] * 1500, wrong)]
    assert set(flood) <= {401, 429}
    assert flood.count(429) > 0, "nginx let everything pass: this proves nothing"

    def counts():
        seen = Counter()
        for record in audit.since(last):
            if record["event.action"] in {"refusal", "suppressed"}:
                seen[record["event.reason"]] += record.get("llm.audit.count", 1)
        return seen

    wait_until(lambda: counts().total() == len(flood), seconds=5)
    assert counts() == {"malformed": flood.count(401), "http_429": flood.count(429)}


# --- what it never says ---


def files_with(gateway, lines):
    """The host's files that hold one of these texts, which come on standard input to grep."""
    grep = "cd / && grep -rlaF --devices=skip -f -"
    places = "etc home root run tmp usr/local usr/share/ollama var"
    return gateway.lab.run(gateway.name, "sh", "-c", f"{grep} {places}", stdin=lines).stdout


def test_a_prompt_is_noted_by_its_digest_and_nowhere_by_its_text(ask, gateway, audit):
    nonce = f"nonce {secrets.token_hex(16)}"
    system = f"system {secrets.token_hex(16)}"
    plain, both, misspelt = ask(
        "app", generate(nonce), generate(nonce, system=system), generate(nonce, MODEL=system)
    )
    (refused,) = ask("tiny_only", generate(nonce, model="secret"))
    assert [one.status for one in (plain, both, misspelt, refused)] == [200, 200, 400, 403]
    digest = audit.run("digest", stdin=nonce).stdout.strip()
    assert audit.of(plain, 2)[0]["llm.prompt.hash"] == digest
    assert audit.of(both, 2)[0]["llm.prompt.hash"] != digest

    assert files_with(gateway, f"{nonce}\n{system}\n") == ""
    journal = "exec 3<&0; journalctl --no-pager --output=cat </dev/null | grep -aF -f /dev/fd/3"
    found = gateway.lab.run(gateway.name, "sh", "-c", journal, stdin=f"{nonce}\n{system}\n")
    assert found.stdout == ""


def test_the_digest_is_keyed(audit):
    """Who has only the log cannot try out what a prompt was."""
    keyed, plain = audit.run("digest", stdin="yes"), audit.run("digest", "--sha256", stdin="yes")
    assert plain.stdout.strip() == hashlib.sha256(b"yes").hexdigest()
    assert keyed.stdout != plain.stdout


@pytest.mark.parametrize(
    ("path", "owner", "group", "mode"),
    [
        (FOLDER, "llm-validator", "adm", 0o2750),
        (ACTIVE, "llm-validator", "adm", 0o640),
        ("/var/lib/llm-key-validator/audit", "llm-validator", "llm-validator", 0o700),
        (STATE_FILE, "llm-validator", "llm-validator", 0o600),
        ("/etc/llm-key-validator/credentials", "root", "root", 0o700),
        ("/etc/llm-key-validator/credentials/prompt-pepper", "root", "root", 0o600),
        ("/usr/local/bin/llm-audit", "root", "root", 0o755),
        ("/run/llm-key-validator-log.sock", "root", "www-data", 0o660),
    ],
)
def test_owners_and_modes(gateway, path, owner, group, mode):
    file = gateway.host.file(path)
    assert (file.user, file.group, oct(file.mode)) == (owner, group, oct(mode))


# --- who notices ---


def test_the_log_is_whole(audit):
    result = audit.verify()
    assert result["verdict"] == "whole", result


def test_the_auditor_finds_it_whole_with_the_first_key(ask, audit, tmp_path):
    ask("app", LIST)
    audit.wait_for_seal()
    result = audit.judge(audit.copy(tmp_path), "--anchor", audit.anchor)
    assert (result["verdict"], result["seals_checked"]) == ("whole", True), result
    assert result["seals"] > 0


def test_the_first_key_is_not_on_the_host(ask, gateway, audit):
    """After the first seal the host has another one, from which nobody finds the way back."""
    ask("app", LIST)
    audit.wait_for_seal()
    first = "".join(file.read_text() for file in audit.key_files)
    assert len(first.split()) == 1
    assert len(first.strip()) == 64
    assert audit.state["key"] != first.strip()
    assert files_with(gateway, first) == ""
    (file,) = audit.key_files
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)


def change_a_byte(lines):
    place = requests(lines)[-1]
    lines[place] = lines[place].replace(b'"user.id":"app"', b'"user.id":"bpp"')


def take_a_record_out(lines):
    del lines[requests(lines)[-1]]


def swap_two_records(lines):
    place = requests(lines)[-1]
    lines[place], lines[place - 1] = lines[place - 1], lines[place]


def double_a_record(lines):
    place = requests(lines)[-1]
    lines.insert(place, lines[place])


def put_a_record_in(lines):
    lines.insert(requests(lines)[-1], b'{"event.action":"request"}')


def cut_the_end(lines):
    """From before the last sealed request on: without the key nothing shows, but for the anchor."""
    del lines[requests(lines)[-1] :]


@pytest.fixture(scope="session")
def sealed_copy(ask, audit, tmp_path_factory):
    """A copy of the log, with requests that are sealed, and where it ended."""
    audit.rotate()
    ask("app", *[LIST] * 3)
    audit.wait_for_seal()
    anchor = tmp_path_factory.mktemp("anchor") / "head.json"
    anchor.write_text(audit.run("head", "--json").stdout)
    return audit.copy(tmp_path_factory.mktemp("copy")), anchor


@pytest.mark.parametrize(
    ("tamper", "shows"),
    [
        (change_a_byte, "to everybody"),
        (take_a_record_out, "to everybody"),
        (swap_two_records, "to everybody"),
        (double_a_record, "to everybody"),
        (put_a_record_in, "to everybody"),
        (chain_anew, "with the first key"),
        (cut_the_end, "with the anchor"),
    ],
)
def test_tampering_shows(audit, sealed_copy, tmp_path, tamper, shows):
    original, anchor = sealed_copy
    folder = tmp_path / "copy"
    shutil.copytree(original, folder)
    assert audit.judge(folder, "--anchor", anchor)["verdict"] == "whole"
    file = folder / "audit.jsonl"
    lines = file.read_bytes().splitlines()
    tamper(lines)
    file.write_bytes(b"".join(line + b"\n" for line in lines))
    broken = {
        "to everybody": audit.judge(folder, with_key=False)["breaks"] > 0,
        "with the first key": audit.judge(folder)["breaks"] > 0,
        "with the anchor": audit.judge(folder, "--anchor", anchor)["breaks"] > 0,
    }
    # Who has more sees more.
    assert broken == dict(zip(broken, accumulate(who == shows for who in broken), strict=True))


def test_rotation_leaves_no_gap(ask, gateway, audit):
    ask("app", LIST)
    audit.rotate()
    (answer,) = ask("app", LIST)
    assert len(audit.of(answer, 2)) == 2
    first = json.loads(audit.shell(f"head -n 1 {ACTIVE}"))
    assert first["event.action"] == "open"
    assert first["llm.audit.previous.file"] == audit.rotated()[-1]
    assert gateway.host.file(ACTIVE).mode == 0o640
    result = audit.verify()
    assert result["verdict"] == "whole", result
    assert result["files"] == len(audit.rotated()) + 1


def test_somebody_else_renames_the_file(ask, gateway, audit):
    """As logrotate does. The service notices within a second, and goes on in a new one."""
    moved = f"{FOLDER}/audit.jsonl.1"
    audit.shell(f"mv {ACTIVE} {moved}")
    try:
        assert wait_until(lambda: gateway.host.file(ACTIVE).exists, seconds=5)
        (answer,) = ask("app", LIST)
        assert answer.status == 200
        assert len(audit.of(answer, 2)) == 2
        files = audit.shell(f"ls {FOLDER}/audit*").split()
        assert audit.verify(*files)["verdict"] == "whole"
        # Without the file that was taken out of the log, there is a gap.
        assert audit.verify()["verdict"] == "broken"
    finally:
        first = json.loads(audit.shell(f"head -n 1 {moved}"))["event.sequence"]
        audit.shell(f"mv {moved} {FOLDER}/audit-{first:020d}.jsonl")
    assert audit.verify()["verdict"] == "whole"


def test_tail_and_stats_show_requests(ask, audit):
    (answer,) = ask("app", LIST)
    assert len(audit.of(answer, 2)) == 2
    # A seal may have come meanwhile.
    tail = audit.run("tail", "-n", "3").stdout
    assert re.search(r" app .*/api/tags", tail), tail
    rows = [json.loads(line) for line in audit.run("stats", "--json").stdout.splitlines()]
    assert {row["key"] for row in rows} >= {"app"}
    assert sum(row["requests"] for row in rows) > 0


def test_a_reader_needs_no_root(gateway):
    """The group adm reads the log, as it does others."""
    as_reader = "setpriv --reuid nobody --regid nogroup --groups adm llm-audit "
    assert gateway.host.run(f"{as_reader} verify").rc == 0
    alone = gateway.host.run("runuser -u nobody -- llm-audit verify")
    assert (alone.rc, "adm" in alone.stderr) == (2, True)
