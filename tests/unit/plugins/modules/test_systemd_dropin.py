# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against a file tree of its own and a systemctl that only writes down its calls."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import unit_files
from ansible_collections.llmsec.hardening.plugins.module_utils.unit_files import UnitFiles
from ansible_collections.llmsec.hardening.plugins.modules import systemd_dropin

NAME = "50-llm-hardening.conf"


class Host:
    """A directory that plays the host's root, and a systemctl whose answer tests choose."""

    def __init__(self, top: Path) -> None:
        self.top = top
        self.calls = top / "calls"
        self.answer = top / "answer"
        self.answer.write_text("")
        self.dropin = top / f"etc/systemd/system/x.service.d/{NAME}"

    def write(self, path: str, text: str) -> Path:
        file = self.top / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def says(self, **properties: str) -> None:
        self.answer.write_text("".join(f"{key}={value}\n" for key, value in properties.items()))

    def reloads(self) -> int:
        calls = self.calls.read_text() if self.calls.exists() else ""
        return calls.splitlines().count("daemon-reload")


@pytest.fixture
def host(tmp_path, monkeypatch):
    host = Host(tmp_path)
    systemctl = host.write(
        "bin/systemctl",
        f'#!/bin/sh\necho "$1" >> {host.calls}\n[ "$1" != show ] || cat {host.answer}\n',
    )
    systemctl.chmod(0o755)
    monkeypatch.setenv("PATH", f"{systemctl.parent}:{os.environ['PATH']}")
    places = tuple(f"{tmp_path}{place}" for place in unit_files.UNIT_PATHS)
    monkeypatch.setattr(unit_files, "UNIT_PATHS", places)
    monkeypatch.setattr(systemd_dropin, "OWN_PLACE", f"{tmp_path}/etc/systemd/system")
    units = unit_files.dropin_directories.__globals__
    monkeypatch.setitem(units, "UNIT_PATHS", places)
    if os.geteuid() != 0:  # only root can give files away
        monkeypatch.setattr(systemd_dropin, "fix_attributes", lambda module, path: False)
    host.write("usr/lib/systemd/system/x.service", "[Service]\nUser=me\nExecStart=-/bin/x run\n")
    return host


@pytest.fixture
def run(run_module):
    def call(check: bool = False, **params):
        return run_module(systemd_dropin.main, check=check, unit="x.service", **params)

    return call


WANT = {"environment": {"HOST": "127.0.0.1"}, "content": {"Service": {"LimitCORE": 0}}}


def test_check_then_write_then_nothing_then_nothing_in_check_mode(host, run):
    predicted = run(check=True, **WANT)
    assert predicted["changed"] and not host.dropin.exists() and host.reloads() == 0
    done = run(**WANT)
    assert done["changed"] and host.reloads() == 1 and done["previous"] is None
    assert host.dropin.read_text() == done["diff"]["after"] == predicted["diff"]["after"]
    assert host.dropin.stat().st_mode & 0o777 == 0o644
    assert 'Environment="HOST=127.0.0.1"' in host.dropin.read_text()
    assert not run(**WANT)["changed"]
    assert not run(check=True, **WANT)["changed"]
    assert host.reloads() == 1


def test_absent_removes_the_drop_in_and_its_empty_directory(host, run):
    run(**WANT)
    assert run(check=True, state="absent")["changed"] and host.dropin.exists()
    gone = run(state="absent")
    assert gone["changed"] and gone["diff"]["after"] == "" and "HOST" in gone["previous"]
    assert not host.dropin.parent.exists()
    assert host.reloads() == 2
    assert not run(state="absent")["changed"]


def test_a_directory_with_other_drop_ins_stays(host, run):
    other = host.write("etc/systemd/system/x.service.d/other.conf", "")
    run(**WANT)
    run(state="absent")
    assert other.exists()


def test_a_conflict_is_refused_before_anything_is_written(host, run):
    path = host.write(
        "etc/systemd/system/x.service.d/override.conf", "[Service]\n\nEnvironment=HOST=0.0.0.0\n"
    )
    for check in (True, False):
        failed = run(check=check, **WANT)
        assert failed["failed"]
        assert f"remove HOST=0.0.0.0 from {path} (line 3)" in failed["msg"]
    assert not host.dropin.exists() and host.reloads() == 0


def test_absent_works_under_a_conflict(host, run):
    run(**WANT)
    host.write("etc/systemd/system/x.service.d/override.conf", "[Service]\nLimitCORE=1\n")
    assert run(**WANT)["failed"]
    assert run(state="absent")["changed"]


def test_an_environment_file_is_read(host, run):
    file = host.write("etc/default/x", "A=1\nHOST=0.0.0.0\n")
    host.write("run/systemd/system/x.service.d/e.conf", f"[Service]\nEnvironmentFile=-{file}\n")
    assert f"{file} (line 2)" in run(**WANT)["msg"]
    file.unlink()
    assert run(**WANT)["changed"]


def test_a_drop_in_for_an_alias_counts(host, run):
    place = host.top / "etc/systemd/system"
    place.mkdir(parents=True)
    (place / "alias.service").symlink_to(host.top / "usr/lib/systemd/system/x.service")
    path = host.write("etc/systemd/system/alias.service.d/z.conf", "[Service]\nLimitCORE=1\n")
    assert str(path) in run(**WANT)["msg"]


def test_facts_about_the_unit(host, run):
    found = run(inspect_environment=["HOST", "OTHER"], **WANT)["unit_file"]
    assert found["path"].endswith("usr/lib/systemd/system/x.service")
    assert (found["user"], found["group"], found["program"]) == ("me", None, "/bin/x")
    assert found["environment"] == {"HOST": "127.0.0.1", "OTHER": None}


def test_a_host_without_the_unit(host, run):
    (host.top / "usr/lib/systemd/system/x.service").unlink()
    found = run(check=True, **WANT)
    assert found["changed"]
    assert found["unit_file"]["path"] is None


def test_a_process_older_than_the_drop_in_needs_a_restart(host, run):
    host.says(ActiveState="active", ExecMainStartTimestamp=f"@{int(time.time()) - 60}")
    assert run(**WANT)["restart_required"]
    assert run(**WANT)["restart_required"]  # an earlier run stopped before it could restart
    host.says(ActiveState="active", ExecMainStartTimestamp=f"@{int(time.time()) + 5}")
    again = run(**WANT)
    assert not again["changed"] and not again["restart_required"]


def test_a_stopped_unit_needs_no_restart(host, run):
    host.says(ActiveState="inactive", ExecMainStartTimestamp="")
    assert not run(**WANT)["restart_required"]


def test_a_manager_that_has_not_seen_the_file_is_reloaded(host, run):
    run(**WANT)
    host.says(ActiveState="active", NeedDaemonReload="yes")
    run(check=True, **WANT)
    assert host.reloads() == 1
    assert not run(**WANT)["changed"]
    assert host.reloads() == 2


def test_a_wrong_mode_is_a_change(host, run):
    if os.geteuid() != 0:
        pytest.skip("only root may own the drop-in")
    run(**WANT)
    host.dropin.chmod(0o666)
    assert run(check=True, **WANT)["changed"]
    assert run(**WANT)["changed"]
    assert host.dropin.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("params", "part"),
    [
        ({"name": "../x.conf"}, "../x.conf"),
        ({"name": "x"}, "'x'"),
        ({"content": {"Service": {"A": "1\n2"}}}, "A has a control character"),
        ({"environment": {"A-B": "1"}}, "A-B"),
    ],
)
def test_bad_input_names_its_part(host, run, params, part):
    failed = run(**params)
    assert failed["failed"] and part in failed["msg"]


def test_a_unit_needs_its_suffix(host, run_module):
    failed = run_module(systemd_dropin.main, unit="../x")
    assert failed["failed"] and "not a unit name" in failed["msg"]


def test_a_template_serves_its_instances(tmp_path):
    place = tmp_path / "etc/systemd/system"
    place.mkdir(parents=True)
    (place / "a@.service").write_text("[Service]\nExecStart=/x\n")
    assert UnitFiles("a@b.service", str(tmp_path)).unit_file() == "/etc/systemd/system/a@.service"
