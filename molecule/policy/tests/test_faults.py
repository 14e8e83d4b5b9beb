# SPDX-License-Identifier: GPL-3.0-or-later
"""No record, no request: full disks, killed processes, and 10,000 requests meanwhile."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.lab.audit import FOLDER, Audit
from tests.lab.batch import Question, post
from tests.lab.steps import wait_until

HERE = Path(__file__).parent
LIST = Question("/api/tags")
GENERATE = post(
    "/api/generate", model="tiny", prompt="Hello", stream=False, options={"num_predict": 2}
)
RESUMED_WITHIN = 5  # seconds
RETRY = 1.2  # seconds; the service tries once in each
# Fewer than 4000 are over before all went wrong that shall go wrong.
REQUESTS = int(os.environ.get("LAB_LOAD_REQUESTS", "10000"))
CONNECTIONS = 32
PER_SECOND = 900  # below what nginx lets the eight keys ask
PAUSE = 0.5  # seconds between two faults

DISK = "/mnt/audit-disk"
MOUNT = f"""
systemctl stop llm-key-validator.service
mkdir -p {DISK}
mount -t tmpfs -o size=64m audit-disk {DISK}
cp --archive {FOLDER} {DISK}/log
mount --bind {DISK}/log {FOLDER}
systemctl start llm-key-validator.service
"""
# What was written there goes on in the log that the host had.
UNMOUNT = f"""
mount -o remount,rw {DISK}
rm -f {DISK}/filler
systemctl stop llm-key-validator.service
umount {FOLDER}
cp --archive {DISK}/log/. {FOLDER}/
umount {DISK}
rmdir {DISK}
systemctl start llm-key-validator.service
systemctl reload nginx.service
"""


@dataclass(frozen=True)
class Disk:
    """The file system of the audit log alone, 64 MB, which a test may fill up."""

    audit: Audit

    def fill(self):
        self.audit.shell(f"cat /dev/zero >{DISK}/filler || true")

    def free(self):
        self.audit.shell(f"rm {DISK}/filler")

    def remount(self, how):
        self.audit.shell(f"mount -o remount,{how} {DISK}")


@pytest.fixture
def disk(audit):
    """Put the audit log, with all that it holds, on a small disk; afterwards it is back."""
    audit.shell(MOUNT)
    yield Disk(audit)
    audit.shell(UNMOUNT)
    assert audit.verify()["verdict"] == "whole"


def health(audit):
    """Status and text of /healthz."""
    words = "curl --silent --write-out ' %{http_code}' http://127.0.0.1:8081/healthz"
    text, _unused, status = audit.shell(words).rpartition(" ")
    return int(status), json.loads(text)


def refusals(audit):
    """How often a request was refused for want of a record, as Prometheus sees it."""
    text = audit.shell("curl --silent --fail http://127.0.0.1:8081/metrics")
    (line,) = (x for x in text.splitlines() if '_authorizations_total{reason="audit"}' in x)
    return int(line.split()[-1])


def assert_nothing_passes(ask, audit):
    """Every request of every kind is refused, and who looks after the gateway can see why."""
    before = refusals(audit)
    answers = ask("app", *[LIST, GENERATE] * 3)
    assert {answer.status for answer in answers} == {503}
    assert answers[0].json()["error"]["type"] == "unavailable"
    assert int(answers[0].headers["retry-after"]) > 0
    assert refusals(audit) == before + 6
    status, body = health(audit)
    assert (status, body["status"], body["audit"]) == (503, "unavailable", "failing")


def assert_resumes(ask, audit):
    """By itself, and the log says that it was away."""

    def statuses():
        return {answer.status for answer in ask("app", LIST, GENERATE)}

    assert wait_until(lambda: statuses() == {200}, seconds=RESUMED_WITHIN)
    assert health(audit)[0] == 200
    last = audit.shell(f'grep \'"event.action":"resume"\' {FOLDER}/audit.jsonl').splitlines()[-1]
    assert json.loads(last)["llm.audit.refused"] >= 6
    result = audit.verify()
    assert result["verdict"] == "whole", result


def wait_for_full_disk(ask, audit):
    """What is left of the file's last page takes a few more records, large or small ones."""

    def is_full():
        answers = ask("app", *[LIST] * 20)
        time.sleep(RETRY)
        return answers[-1].status == 503 and health(audit)[0] == 503

    assert wait_until(is_full)


def test_full_disk(ask, audit, disk):
    assert ask("app", GENERATE)[0].status == 200
    disk.fill()
    wait_for_full_disk(ask, audit)
    assert_nothing_passes(ask, audit)
    # A service that starts now is no wiser.
    audit.shell("systemctl restart llm-key-validator.service")
    wait_for_full_disk(ask, audit)
    assert_nothing_passes(ask, audit)
    disk.free()
    assert_resumes(ask, audit)


def test_a_disk_that_became_read_only(ask, audit, disk):
    # A file that is open for writing keeps the kernel from it, so the disk is full first.
    disk.fill()
    wait_for_full_disk(ask, audit)
    disk.remount("ro")
    assert_nothing_passes(ask, audit)
    disk.remount("rw")
    disk.free()
    assert_resumes(ask, audit)


def test_a_disk_that_is_read_only_from_the_start(ask, audit, disk):
    audit.shell("systemctl stop llm-key-validator.service")
    disk.remount("ro")
    audit.shell("systemctl start llm-key-validator.service")
    assert_nothing_passes(ask, audit)
    disk.remount("rw")
    assert_resumes(ask, audit)


def test_no_report_is_lost_when_the_sockets_were_closed(ask, audit):
    """As they are when the service is stopped. A lost report would hold a place for an hour."""

    def eight_answers():
        """On as many connections, so that every worker has some."""
        return [answer for _unused in range(8) for answer in ask("busy", LIST)]

    eight_answers()
    audit.shell("systemctl stop llm-key-validator.service")
    audit.shell("systemctl start llm-key-validator.service")
    time.sleep(1)
    answers = eight_answers()
    assert [answer.status for answer in answers] == [200] * 8
    asked = {answer.headers["x-request-id"] for answer in answers}

    def unreported():
        records = audit.lines("--key", "busy", "--since", "1h")
        ended = {one["http.request.id"] for one in records if one["event.action"] == "response"}
        return asked - ended

    assert wait_until(lambda: not unreported(), seconds=5), unreported()


# --- everything at once ---

RECORDED = "/run/recorder/requests"
START_RECORDER = f"""
cat >/run/recorder.py
systemctl stop ollama.service
systemd-run --quiet --unit=recorder --uid=ollama --property=RuntimeDirectory=recorder \
    /usr/bin/python3 /run/recorder.py {RECORDED}
"""
STOP_RECORDER = """
systemctl stop recorder.service
rm /run/recorder.py
systemctl start ollama.service
"""
# Runs on the host: what reached the LLM server, held against what the audit log says.
COMPARE = """
import datetime, glob, json, sys
recorded = {}
for path in glob.glob(sys.argv[2] + "/audit*.jsonl"):
    with open(path) as lines:
        for record in map(json.loads, lines):
            if record["event.action"] == "request":
                moment = datetime.datetime.fromisoformat(record["@timestamp"])
                recorded[record["http.request.id"]] = moment.timestamp()
with open(sys.argv[1]) as lines:
    reached = [line.split(maxsplit=2) for line in lines]
json.dump({
    "reached": len(reached),
    "twice": len(reached) - len({request for _, request, _ in reached}),
    "unrecorded": [request for _, request, _ in reached if request not in recorded],
    "too_early": [request for when, request, _ in reached
                  if float(when) < recorded.get(request, 0)],
    "forbidden": [prompt for _, _, prompt in reached if not prompt.startswith("allowed")],
}, sys.stdout)
"""


@pytest.fixture
def recorder(gateway, audit):
    """Something in Ollama's place that notes what reaches it."""

    def shell(script, stdin=""):
        gateway.lab.run(gateway.name, "sh", "-euc", script, stdin=stdin, check=True)

    shell(START_RECORDER, (HERE / "recorder.py").read_text())
    probe = ["curl", "--silent", "--json", '{"prompt":"allowed probe"}', "--header"]
    probe += [f"X-Request-Id: {'0' * 32}", "http://127.0.0.1:11434/"]
    assert wait_until(lambda: gateway.lab.run(gateway.name, *probe).returncode == 0)
    shell(f": >{RECORDED}")
    yield
    shell(STOP_RECORDER)
    assert wait_until(lambda: "ollama" in audit.shell("curl -s 127.0.0.1:11434/ || true").lower())


def run_load(gateway, keys):
    """The load test on the application server; what it saw."""
    unknown = "llmk_" + "0" * 46
    asked = {
        "server_name": gateway.server_name,
        "ca_file": gateway.ca_file,
        "count": REQUESTS,
        "connections": CONNECTIONS,
        "per_second": PER_SECOND,
        "allowed": [(keys[f"load-{number}"], "tiny") for number in range(1, 9)],
        "forbidden": [
            (unknown, "tiny"),
            (keys["revoked"], "tiny"),
            (keys["tiny_only"], "secret"),
            (keys["load-1"] + "x", "tiny"),
            (keys["reader"], "tiny"),
        ],
    }
    code = (HERE / "load.py").read_text()
    words = ["python3", "-c", code]
    done = gateway.lab.run("app-server", *words, stdin=json.dumps(asked), check=True)
    return json.loads(done.stdout)


@pytest.fixture
def load(gateway, keys):
    """The load test's beginning: it goes on in a thread, and its result is what it saw."""
    with ThreadPoolExecutor(1) as pool:
        yield lambda: pool.submit(run_load, gateway, keys)


@pytest.fixture
def auditor(ask, audit, tmp_path):
    """Has the first key: when all is over, the seals fit as well, and no epoch is missing."""
    yield
    ask("app", LIST)
    audit.wait_for_seal()
    result = audit.judge(audit.copy(tmp_path), "--anchor", audit.anchor)
    assert (result["verdict"], result["seals_checked"]) == ("whole", True), result


# The auditor comes before `disk`, so that the log is back in its place when it is copied.
@pytest.mark.usefixtures("recorder", "auditor")
def test_ten_thousand_requests_and_everything_goes_wrong(ask, audit, disk, load):
    # There is nothing to kill or to tell while systemd waits to start it again.
    def kill():
        audit.shell("systemctl kill --signal=KILL llm-key-validator.service || true")

    def reload():
        audit.shell("systemctl reload nginx.service")

    def rotate():
        unit = "llm-key-validator.service"
        audit.shell(
            # A process that does not listen to the signal yet would end.
            f"for n in $(seq 50); do systemctl --quiet is-active {unit} && break; sleep 0.1; done;"
            f"systemctl kill --kill-whom=main --signal=USR1 {unit} || true"
        )
        before = len(audit.rotated())
        wait_until(lambda: len(audit.rotated()) > before, 2)

    def full_disk():
        disk.fill()
        time.sleep(1)
        disk.free()

    faults = [kill, reload, rotate, full_disk, kill, rotate, reload, kill, rotate, full_disk, kill]
    happened = Counter()
    files = len(audit.rotated())
    going_on = load()
    for fault in faults:
        time.sleep(PAUSE)
        if not going_on.done():
            fault()
            happened[fault.__name__] += 1
    result = going_on.result()
    seen = result["seen"]
    print(f"{audit.name}: {result} {dict(happened)}")
    assert set(happened) == {"kill", "reload", "rotate", "full_disk"}
    assert len(audit.rotated()) > files

    # Everybody got an answer: that of the LLM server, or a refusal.
    assert sum(seen.values()) == REQUESTS
    assert {text for text in seen if text.startswith("forbidden")} <= {
        f"forbidden {status}" for status in (401, 403, 429, 503)
    }, seen
    assert {text for text in seen if text.startswith("allowed")} <= {
        f"allowed {status}" for status in (200, 429, 503)
    }, seen

    words = ["python3", "-c", COMPARE, RECORDED, FOLDER]
    compared = json.loads(audit.lab.run(audit.name, *words, check=True).stdout)
    assert compared["reached"] >= seen["allowed 200"] > REQUESTS / 10, (compared, seen)
    del compared["reached"]
    assert compared == {"twice": 0, "unrecorded": [], "too_early": [], "forbidden": []}

    assert wait_until(lambda: health(audit)[0] == 200, seconds=RESUMED_WITHIN)
    assert audit.verify()["verdict"] == "whole"
    assert ask("tiny_only", LIST)[0].status == 502  # the recorder has no lists
