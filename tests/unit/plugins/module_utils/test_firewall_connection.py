# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.checks import (
    Connection,
    Place,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_connection import (
    controller,
    places,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import Machine
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_options import user_number

ADDRESSES = [
    {"ifname": "eth0", "addr_info": [{"local": "192.0.2.20"}, {"local": "192.0.2.21"}]},
    {"ifname": "eth1", "addr_info": [{"local": "2001:db8::20"}]},
]


@pytest.fixture
def machine(tmp_path, monkeypatch):
    def run(command, _stdin):
        found = ADDRESSES if "address" in command else [{"dst": command[-1], "dev": "eth0"}]
        return 0, json.dumps(found), ""

    found = Machine(run, str(tmp_path))
    monkeypatch.setattr(found, "has", lambda _program: True)
    return found


def process(machine, number, parent, name, **environment):
    place = machine.path(f"/proc/{number}")
    place.mkdir(parents=True)
    entries = [f"{key}={value}".encode() for key, value in environment.items()]
    (place / "environ").write_bytes(b"\0".join(entries))
    (place / "stat").write_text(f"{number} ({name}) S {parent} 1 1 0")


@pytest.mark.parametrize("name", ["sudo", "a ) b", "sh (1)"])
def test_the_connection_is_found_above_sudo(machine, name):
    process(machine, 30, 20, "python3", PATH="/bin")
    process(machine, 20, 10, name, SUDO_USER="x")
    process(machine, 10, 1, "sh", SSH_CONNECTION="192.0.2.10 50000 192.0.2.20 22")
    process(machine, 1, 0, "systemd")
    assert controller(machine, 30) == Connection("192.0.2.10", "192.0.2.20", 22, "eth0")


def test_a_zone_is_no_part_of_the_address(machine):
    process(machine, 10, 1, "sh", SSH_CONNECTION="fe80::1%eth0 50000 fe80::2%eth0 22")
    found = controller(machine, 10)
    assert (found.client, found.server) == ("fe80::1", "fe80::2")


def test_without_ssh_there_is_none(machine):
    process(machine, 10, 1, "sh", HOME="/root")
    process(machine, 1, 0, "systemd")
    assert controller(machine, 10) is None
    assert controller(machine, 99) is None


def test_one_address_of_each_version(machine):
    assert places(machine) == [Place("192.0.2.20", "eth0"), Place("2001:db8::20", "eth1")]


@pytest.mark.parametrize(
    ("name", "number"), [("root", 0), ("33", 33), ("no-such-user", None), ("\u0663", None)]
)
def test_users_by_name_or_number(name, number):
    assert user_number(name) == number
