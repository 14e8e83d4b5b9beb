# SPDX-License-Identifier: GPL-3.0-or-later
"""The module against a file tree of its own and programs that answer as told."""

from __future__ import annotations

import os
import pwd

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import unit_files
from ansible_collections.llmsec.hardening.plugins.modules import llm_host_info

UNIT = "[Service]\nUser={}\nExecStart=-/bin/x run\nEnvironment=HOME=/srv/x\n"
ME = pwd.getpwuid(os.geteuid())


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder of unit files, and a systemctl and an openssl that say something."""
    for name, said in (("systemctl", "someone"), ("openssl", "http://ocsp.example.com")):
        program = tmp_path / "bin" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho {said}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    monkeypatch.setattr(unit_files, "UNIT_PATHS", (str(tmp_path),))
    monkeypatch.setitem(
        unit_files.dropin_directories.__globals__, "UNIT_PATHS", (str(tmp_path),)
    )  # fmt: skip
    monkeypatch.setattr(llm_host_info, "OWN_PLACE", str(tmp_path))
    (tmp_path / "x.service").write_text(UNIT.format(ME.pw_name))
    return tmp_path


def look(run_module, **params):
    return run_module(
        llm_host_info.main, check=True, unit="x.service", environment=["HOME", "OTHER"], **params
    )  # fmt: skip


def test_what_the_host_says(place, run_module):
    own = place / "x.service.d/50-llm-hardening.conf"
    own.parent.mkdir()
    own.write_text("[Service]\nEnvironment=HOME=/ours OTHER=ours\n")
    found = look(run_module, certificate="/some.crt")
    assert found["unit_file"]["environment"] == {"HOME": "/srv/x", "OTHER": None}
    assert (found["unit_file"]["user"], found["home"]) == (ME.pw_name, ME.pw_dir)
    assert (found["unit_user"], found["ocsp_uri"]) == ("someone", "http://ocsp.example.com")
    assert found["has_ipv6"] is os.path.exists("/proc/net/if_inet6")
    assert found["changed"] is False
    assert look(run_module)["ocsp_uri"] == ""


@pytest.mark.parametrize(("user", "home"), [(str(ME.pw_uid), ME.pw_dir), ("no-such-user", None)])
def test_by_number_and_without_a_home(place, run_module, user, home):
    (place / "x.service").write_text(UNIT.format(user))
    assert look(run_module)["home"] == home


def test_what_cannot_be_read_is_nothing(place, run_module):
    (place / "x.service").unlink()
    assert look(run_module, user=ME.pw_name)["home"] == ME.pw_dir
    (place / "x.service").mkdir()
    (place / "bin/systemctl").write_text("#!/bin/sh\nexit 1\n")
    found = look(run_module)
    assert found["unit_file"]["environment"] == {"HOME": None, "OTHER": None}
    assert (found["home"], found["unit_user"]) == (None, "")
