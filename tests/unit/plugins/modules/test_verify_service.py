# SPDX-License-Identifier: GPL-3.0-or-later
"""The module with a systemctl and an apt-cache that answer as told, and this very process."""

from __future__ import annotations

import getpass
import os
import time

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import service_host, unit_files
from ansible_collections.llmsec.hardening.plugins.modules import verify_service

from tests.unit.plugins.guarded import by_id, red
from tests.unit.plugins.module_utils.test_service_versions import UPDATED

DROPIN = "50-llm-hardening.conf"
MAIN = "[Service]\nUser={user}\nExecStart=/bin/x\nUnsetEnvironment=NOBODY_SETS_THIS\n"
OURS = "[Service]\nIPAddressDeny=any\nEnvironment=LLM_TEST=1\n"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """Put this process, as x.service, below a root of its own."""
    places = tuple(f"{tmp_path}{place}" for place in unit_files.UNIT_PATHS)
    for module in (unit_files, service_host):
        monkeypatch.setattr(module, "UNIT_PATHS", places)
    monkeypatch.setitem(unit_files.dropin_directories.__globals__, "UNIT_PATHS", places)
    own = f"{tmp_path}/etc/systemd/system"
    monkeypatch.setattr(verify_service, "OWN_PLACE", own)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:{os.environ['PATH']}")
    # Only what was in the environment at the start is in /proc/self/environ.
    monkeypatch.setattr(
        service_host, "parse_unit", lambda _cgroup, _init="": "x.service"
    )  # fmt: skip

    def write(path, text, mode=0o644):
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        place.chmod(mode)
        return place

    def program(name, text):
        answer = write(f"{name}.txt", text)
        write(f"bin/{name}", f"#!/bin/sh\ncat {answer}\n", 0o755)

    user = getpass.getuser()
    unit = write("etc/systemd/system/x.service", MAIN.format(user=user))
    dropin = write(f"etc/systemd/system/x.service.d/{DROPIN}", OURS)
    started = int(time.time()) + 60
    program(
        "systemctl",
        "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNeedDaemonReload=no\n"
        f"MainPID={os.getpid()}\nFragmentPath={unit}\nDropInPaths={dropin}\n"
        f"ExecMainStartTimestamp=@{started}\nIPAddressDeny=::/0 0.0.0.0/0\n",
    )
    program("apt-cache", UPDATED)
    return write


@pytest.fixture
def verify(run_module):
    def run(*units):
        result = run_module(verify_service.main, check=True, units=[*units])
        assert result["changed"] is False
        return by_id(result["findings"])

    return run


def unit(**changes):
    return {
        "unit": "x.service", "user": getpass.getuser(), "dropin": DROPIN, "packages": ["nginx"],
        "directives": {"IPAddressDeny": "any", "ProtectHome": None},
        "forbidden_environment": ["NOBODY_SETS_THIS"], **changes,
    }  # fmt: skip


def test_a_service_as_it_should_be(verify, host):
    found = verify(unit())
    loose = {} if os.geteuid() == 0 else {"service.x.unit_file": "fail"}
    assert red(list(found.values())) == loose
    assert set(found) >= {
        "service.x.running", "service.x.enabled", "service.x.dropin", "service.x.reloaded",
        "service.x.restarted", "service.x.user", "service.x.forbidden_environment",
        "service.x.directive.IPAddressDeny", "service.x.packages",
    }  # fmt: skip
    assert "service.x.directive.ProtectHome" not in found


def test_what_is_wrong_with_it_is_named(verify, host):
    host("etc/systemd/system/x.service.d/99-x.conf", "[Service]\nIPAddressDeny=\nUser=root0\n")
    found = verify(unit(environment={"LLM_TEST": 2}))
    reds = red(list(found.values()))
    assert reds["service.x.directive.IPAddressDeny"] == "fail"
    assert reds["service.x.environment.LLM_TEST"] == "fail"
    assert reds["service.x.user"] == "fail"
    assert (
        "99-x.conf, line 2, takes it back" in found["service.x.directive.IPAddressDeny"]["actual"]
    )


def test_several_units_in_one_run(verify, host):
    found = verify(unit(), {"unit": "y.socket"})
    assert {"service.x.running", "service.y-socket.running"} <= set(found)


def test_a_servers_user_and_environment_come_from_the_catalogue(verify, host):
    found = verify({"unit": "x.service", "server": "ollama", "address": "127.0.0.1:1"})
    assert found["service.x.user"]["title"] == "x.service runs as ollama"
    assert found["service.x.environment.OLLAMA_HOST"]["result"] == "fail"
    assert found["service.x.version"]["result"] == "error"
    assert "OLLAMA_REMOTES" in found["service.x.forbidden_environment"]["expected"]


def test_a_host_without_systemd_and_apt(verify, monkeypatch):
    monkeypatch.setattr(
        verify_service, "live_host", lambda _module: service_host.ServiceHost(
            lambda command: (127, "", f"{command[0]} is not installed"), is_root=True
        ),
    )  # fmt: skip
    found = verify(unit(server="ollama", address="127.0.0.1:1"))
    assert {one["result"] for one in found.values()} == {"error"}


def test_programs_that_are_missing_do_not_end_the_module(verify, host, tmp_path, monkeypatch):
    monkeypatch.setattr(
        verify_service.AnsibleModule, "get_bin_path", lambda _self, _name, *_args: None
    )
    found = verify(unit())
    assert found["service.x.running"]["result"] == "error"
    assert "systemctl is not installed" in found["service.x.running"]["actual"]


@pytest.mark.parametrize(
    ("units", "why"),
    [
        ([{"unit": "../x"}], "not a unit name"),
        ([{"unit": "x.service"}, {"unit": "x.service"}], "the unit x is given twice"),
        ([{"unit": "x.service", "directives": {"A": {"b": 1}}}], "neither text, number"),
    ],
)
def test_a_wrong_call_fails(run_module, units, why):
    failed = run_module(verify_service.main, units=units)
    assert failed["failed"] is True
    assert why in failed["msg"]
