# SPDX-License-Identifier: GPL-3.0-or-later
"""What the next boot makes of the firewall, from a tree of files."""

from __future__ import annotations

import os
import stat
from types import SimpleNamespace

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_boot import (
    exposed,
    files_finding,
    policy_finding,
    unit_finding,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import (
    FirewallError,
    Machine,
)

UNIT = "llm-firewall.service"
PLACE = f"/etc/systemd/system/{UNIT}"
TEXT = (
    "[Unit]\nAfter=nftables.service\nBefore=network-pre.target\n\n[Service]\nType=oneshot\n"
    "ExecStart=/bin/sh /etc/llm-firewall/load /etc/llm-firewall\n\n"
    "[Install]\nWantedBy=sysinit.target\n"
)
KEPT = {"ruleset.nft": "table inet x { }\n"}


@pytest.fixture
def host(tmp_path):
    def write(path, text):
        place = tmp_path / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
        return place

    machine = Machine(lambda _command, _stdin: (0, "enabled\n", ""), str(tmp_path))
    write(PLACE, f"# Ansible managed\n{TEXT}")
    for name, text in {"load": "#!/bin/sh\n", **KEPT}.items():
        write(f"/etc/llm-firewall/{name}", text)
    return SimpleNamespace(write=write, machine=machine)


def backend(listed=lambda files: files["ruleset.nft"]):
    return SimpleNamespace(load="#!/bin/sh\n", listed=listed)


def test_a_unit_as_it_was_installed(host):
    assert unit_finding(host.machine, UNIT, TEXT)["result"] == "pass"
    host.write(f"{PLACE}.d/more.conf", "[Unit]\nAfter=x.service\n[Service]\nTimeoutSec=9\n")
    assert unit_finding(host.machine, UNIT, TEXT)["result"] == "pass"


@pytest.mark.parametrize("state", ["disabled", "masked", "enabled-runtime", ""])
def test_a_unit_that_is_not_started(host, state):
    host.machine.run = lambda _command, _stdin: (1, f"{state}\n", "")
    one = unit_finding(host.machine, UNIT, TEXT)
    assert (one["result"], one["severity"]) == ("fail", "high")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (PLACE, TEXT.replace("/bin/sh /etc", "/bin/true /etc")),
        (PLACE, TEXT.replace("Before=network-pre.target\n", "")),
        (PLACE, TEXT.replace("After=nftables.service", "Before=nftables.service")),
        (f"{PLACE}.d/x.conf", "[Service]\nExecStart=\nExecStart=/bin/true\n"),
        (f"/run/systemd/system/{UNIT}.d/x.conf", "[Unit]\nConditionPathExists=/nowhere\n"),
        (f"{PLACE}.d/x.conf", "[Service]\nExecStartPost=/usr/sbin/nft flush ruleset\n"),
    ],
)
def test_a_unit_that_loads_nothing(host, path, text):
    host.write(path, text)
    one = unit_finding(host.machine, UNIT, TEXT)
    assert (one["result"], one["id"]) == ("fail", "firewall.unit")
    assert path in one["actual"]


def test_files_that_the_next_boot_loads(host):
    def look():
        return files_finding(host.machine, backend(), KEPT)

    if os.geteuid() == 0:
        assert look()["result"] == "pass"
    place = host.write("/etc/llm-firewall/load", "#!/bin/sh\nexit 0\n")
    assert "load was changed" in look()["actual"]
    place.write_text("#!/bin/sh\n")
    place.chmod(0o777)
    assert "has mode 0777" in look()["actual"]
    place.unlink()
    assert "is gone" in look()["actual"]


def test_files_that_others_may_change_are_written_anew(host):
    folder = host.machine.path("/etc/llm-firewall")
    (folder / "ruleset.nft").chmod(0o666)
    folder.chmod(0o777)
    assert len([one for one in exposed(host.machine, KEPT) if "mode" in one]) >= 2
    host.machine.store("/etc/llm-firewall", {**KEPT, "load": "#!/bin/sh\n"})
    modes = [stat.S_IMODE(one.stat().st_mode) for one in (folder, folder / "ruleset.nft")]
    assert modes == [0o700, 0o600]
    if os.geteuid() == 0:
        assert exposed(host.machine, KEPT) == []


def test_rules_that_are_not_the_inventorys():
    wanted = {"ruleset.nft": "table inet x { elements = { 10.0.0.1 } }\n"}
    assert policy_finding(backend(), wanted, wanted)["result"] == "pass"
    one = policy_finding(backend(), KEPT, wanted)
    assert (one["result"], one["severity"]) == ("fail", "high")
    # Only the comments differ
    assert policy_finding(backend(lambda _files: "same"), KEPT, wanted)["result"] == "pass"
    assert policy_finding(backend(), {}, wanted)["result"] == "fail"


def test_rules_that_cannot_be_loaded_are_not_measured():
    def refuse(_files):
        raise FirewallError("no")

    one = policy_finding(backend(refuse), KEPT, {"ruleset.nft": "other"})
    assert one["result"] == "error"
