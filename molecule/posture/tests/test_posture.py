# SPDX-License-Identifier: GPL-3.0-or-later
"""A hardened host is green, and each way to break it turns its finding red, and nothing else.

Each for itself takes half an hour: LLMSEC_NIGHTLY=1 ./dev test molecule posture. Without it several
are tried at a time.
"""

from __future__ import annotations

import json
import os
from fnmatch import fnmatch
from pathlib import Path

import pytest
from sabotage import Sabotage, broken, dense_rounds, rounds, sabotages

from tests.lab import playbook, scenarios
from tests.lab.hosts import STATE

HOSTS = list(scenarios.gateways("posture"))
NIGHTLY = bool(os.environ.get("LLMSEC_NIGHTLY"))
ROUNDS = rounds(sabotages(), len(HOSTS)) if NIGHTLY else dense_rounds(sabotages(), len(HOSTS))
# What nobody can say without more requests, more time or another setting
SKIPPED = {
    "gateway.tls.backend", "keys.unused", "rate_limit.active", "tls.certificate.ecdsa",
    "tls.client_certificate.required", "tls.groups.post_quantum", "tls.http_port",
    "keys.plain_text.bounded", "service.nginx.packages", "service.llm-key-validator.packages",
}  # fmt: skip

FILES = ("gateway.files.", "gateway.extra_files", "gateway.loaded")


def assess(directory: Path, **variables):
    """Assess the hosts; return (run, host → its findings by id)."""
    run = playbook.play(
        "assess", assess_hosts="posture", posture_report_dir=str(directory), **variables
    )
    report = json.loads((directory / "report.json").read_text())
    return run, {
        host["name"]: {one["id"]: one for one in host["findings"]} for host in report["hosts"]
    }


@pytest.fixture(scope="module")
def untouched(tmp_path_factory):
    return assess(tmp_path_factory.mktemp("untouched"))


@pytest.mark.parametrize("host", HOSTS)
def test_an_untouched_host_is_green(untouched, host):
    run, found = untouched
    assert run.code == 0, run.ending
    assert len(found[host]) > 300
    others = {name: one for name, one in found[host].items() if one["outcome"] != "pass"}
    assert {one["outcome"] for one in others.values()} <= {"skip", "waived"}, others
    assert {name for name, one in others.items() if one["outcome"] == "skip"} <= SKIPPED
    assert [name for name, one in others.items() if one["outcome"] == "waived"] == [
        "service.ollama.version"
    ]


def test_the_sabotages_cover_every_control(untouched):
    _run, found = untouched
    every = sabotages()
    assert len(every) >= 60
    by_control = {one.control: 0 for one in every}
    for one in every:
        by_control[one.control] += 1
    assert min(by_control.values()) >= 3, by_control
    known = {control["control"] for control in found[HOSTS[0]].values()}
    assert known - set(by_control) <= {"assessment", "budget"}


def check(batch: list[Sabotage], found: dict[str, dict]) -> list[str]:
    """Return what is not as it must be on a host that was broken so."""
    red = {name: one for name, one in found.items() if one["outcome"] in ("fail", "error")}
    problems = [
        f"{one.id}: {wanted} is {found[wanted]['outcome'] if wanted in found else 'not there'}"
        for one in batch
        for wanted in one.red
        if not any(fnmatch(name, wanted) for name in red)
    ]
    allowed = {control for one in batch for control in (one.control, *one.also)}
    # That a file of the gateway was changed is a finding of its own, whatever was changed in it,
    # and so is one that nginx has not read yet.
    changed = any(one.place == "nginx" for one in batch)
    return problems + [
        f"{', '.join(one.id for one in batch)}: {name} ({one['control']}) is red: {one['actual']}"
        for name, one in red.items()
        if one["control"] not in allowed and not (changed and name.startswith(FILES))
    ]


@pytest.mark.parametrize("number", range(len(ROUNDS)))
def test_what_is_broken_is_found(lab, number, tmp_path):
    key = (STATE / "molecule/keys/posture/app.key").read_text().strip()
    batches = dict(zip(HOSTS, ROUNDS[number], strict=False))
    with broken(lab, batches, key):
        run, found = assess(tmp_path)
    problems = [problem for host in batches for problem in check(batches[host], found[host])]
    assert not problems, "\n".join(problems)
    assert run.code != 0, "the gate is green"


def test_afterwards_it_is_green_again(tmp_path):
    run, found = assess(tmp_path)
    assert run.code == 0, run.ending
    for host in HOSTS:
        assert {one["outcome"] for one in found[host].values()} <= {"pass", "skip", "waived"}
