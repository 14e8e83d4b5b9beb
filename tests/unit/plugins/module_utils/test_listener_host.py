# SPDX-License-Identifier: GPL-3.0-or-later
"""Reading a host: real sockets and namespaces where it is cheap, programs that answer as told."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import (
    FirewallError,
    Machine,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.listener_host import read_host
from ansible_collections.llmsec.hardening.plugins.module_utils.unread import Unread

NO_RULES = '{"nftables": [{"metainfo": {}}]}'
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class Told(Machine):
    """A machine whose programs answer what the test says, by their first words."""

    def __init__(self, root, answers=None, programs=("nft",), tables=True):
        self.answers = {"nft": (0, NO_RULES, ""), **(answers or {})}
        self.calls = []
        self.programs = programs
        self.tables = tables
        super().__init__(self._answer, str(root))

    def _answer(self, command, _stdin):
        self.calls.append(command)
        for words, answer in self.answers.items():
            if " ".join(command).startswith(words):
                return answer
        return 127, "", "not here"

    def has(self, program):
        return program in self.programs

    def holds_nft_tables(self):
        if isinstance(self.tables, Exception):
            raise self.tables
        return self.tables


def write(path, text=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def booted(root):
    (root / "run/systemd/system").mkdir(parents=True)


def test_a_real_socket_with_its_process(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = read_host(Told(tmp_path), is_root=True)
        port = server.getsockname()[1]
    (mine,) = [each for each in found.listeners if each.port == port]
    assert (mine.address, mine.version, mine.public, mine.held) == ("127.0.0.1", 4, False, True)
    assert mine.user == getpass.getuser()
    assert "pytest" in mine.command
    assert found.owners_known


def test_an_ipv6_socket_that_takes_ipv4_as_well(tmp_path):
    with socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        port = server.getsockname()[1]
        found = read_host(Told(tmp_path), is_root=True)
    (mine,) = [each for each in found.listeners if each.port == port]
    assert mine.public
    assert mine.takes(4)
    assert mine.takes(6)


SERVER = """
import socket, sys, time
server = socket.create_server(("0.0.0.0", 0))
print(server.getsockname()[1], flush=True)
sys.stdin.read()
"""


@needs_root
def test_a_socket_in_another_network_namespace(tmp_path):
    command = [shutil.which("unshare"), "--net", sys.executable, "-c", SERVER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        port = int(process.stdout.readline())
        found = read_host(Told(tmp_path), is_root=True)
        process.stdin.close()
    (theirs,) = [each for each in found.elsewhere if str(tmp_path) in each.command]
    assert (theirs.port, theirs.public) == (port, True)
    assert theirs.program.startswith("python")
    assert not [each for each in found.listeners if str(tmp_path) in each.command]


def test_only_relays_of_this_network_are_told(tmp_path):
    for pid, namespace in (("self", 1), ("70", 1), ("71", 2)):
        write(tmp_path / f"proc/{pid}/comm", "socat\n")
        write(tmp_path / f"proc/{pid}/cmdline", f"socat\0TCP:{pid}\0")
        (tmp_path / f"proc/{pid}/ns").mkdir()
        (tmp_path / f"proc/{pid}/ns/net").symlink_to(f"net:[{namespace}]")
    found = read_host(Told(tmp_path), is_root=True, proc=str(tmp_path / "proc"))
    assert found.relays == ["socat TCP:70"]


def test_without_root_other_namespaces_and_rules_are_not_read(tmp_path):
    found = read_host(Told(tmp_path), is_root=False)
    assert "without root" in found.elsewhere.why
    assert "without root" in found.translations.why
    assert not found.owners_known


@pytest.mark.parametrize("table", ["something else\n", None])
def test_a_table_that_cannot_be_read_is_no_closed_port(tmp_path, table):
    if table is not None:
        write(tmp_path / "proc/net/tcp", table)
    found = read_host(Told(tmp_path), is_root=True, proc=str(tmp_path / "proc"))
    assert isinstance(found.listeners, Unread)
    assert isinstance(found.elsewhere, Unread)


def test_no_systemd_holds_no_socket(tmp_path):
    machine = Told(tmp_path)
    assert read_host(machine, is_root=True).socket_units.harmless
    assert not [call for call in machine.calls if call[0] == "systemctl"]


def test_units_that_are_loaded_and_units_in_files(tmp_path):
    booted(tmp_path)
    shown = (
        "Id=proxy.socket\nListen=0.0.0.0:8434 (Stream)\nTriggers=proxy.service\n"
        "ActiveState=inactive\nUnitFileState=enabled\n"
    )
    listed = "proxy.socket enabled enabled\nsshd@.socket disabled enabled\n"
    machine = Told(
        tmp_path,
        {
            "systemctl list-unit-files": (0, listed, ""),
            "systemctl show --no-pager --property=Id,ExecStart -- proxy.service":
                (0, "ExecStart={ argv[]=/a 127.0.0.1:11434 ; }\nId=proxy.service\n", ""),
            "systemctl show": (0, shown, ""),
        },
    )  # fmt: skip
    (unit,) = read_host(machine, is_root=True).socket_units
    assert (unit.name, unit.enabled, unit.active) == ("proxy.socket", True, False)
    assert "127.0.0.1:11434" in unit.commands[0]
    asked = next(call for call in machine.calls if call[1] == "show")
    assert [*asked[-2:]] == ["*.socket", "proxy.socket"]


def test_a_manager_that_does_not_answer_is_not_measured(tmp_path):
    booted(tmp_path)
    machine = Told(tmp_path, {"systemctl": (1, "", "Failed to connect to bus\n")})
    found = read_host(machine, is_root=True).socket_units
    assert (found.harmless, found.why) == (False, "systemctl failed: Failed to connect to bus")


def rules(tmp_path, **settings):
    return read_host(Told(tmp_path, **settings), is_root=True).translations


def test_rules_of_all_programs(tmp_path):
    saved = "*nat\n-A PREROUTING -p tcp --dport 8439 -j REDIRECT --to-ports 11434\nCOMMIT\n"
    write(tmp_path / "proc/net/ip_tables_names", "nat\n")
    programs = ("iptables-legacy-save", "iptables-nft-save")
    answers = {programs[0]: (0, saved, ""), programs[1]: (0, "", "")}
    found = rules(tmp_path, answers=answers, programs=("nft", *programs))
    assert [each.text.split(":")[0] for each in found] == ["iptables-legacy"]
    assert rules(tmp_path / "other") == []


def test_without_nft_the_kernel_says_that_it_has_no_tables(tmp_path):
    assert rules(tmp_path, programs=(), tables=False) == []
    saved = "*nat\n-A PREROUTING -p tcp --dport 8439 -j REDIRECT --to-ports 11434\nCOMMIT\n"
    write(tmp_path / "proc/net/ip_tables_names", "nat\n")
    programs = ("iptables-legacy-save",)
    answers = {programs[0]: (0, saved, "")}
    assert len(rules(tmp_path, answers=answers, programs=programs, tables=False)) == 1


@pytest.mark.parametrize(
    ("names", "settings", "why"),
    [
        ("", {"programs": ()}, "nft is not installed"),
        ("", {"programs": (), "tables": FirewallError("no answer")}, "no answer"),
        ("nat\n", {"programs": (), "tables": False}, "iptables-legacy-save is missing"),
        ("", {"answers": {"nft": (1, "", "Operation not permitted")}}, "not permitted"),
        ("", {"answers": {"nft": (0, "table ip x {}", "")}}, "unknown output of nft"),
        ("nat\n", {}, "iptables-legacy-save is missing"),
        (
            "",
            {
                "answers": {"iptables-nft-save": (4, "", "busy")},
                "programs": ("nft", "iptables-nft-save"),
            },
            "busy",
        ),
    ],
)
def test_rules_that_cannot_be_read_are_not_measured(tmp_path, names, settings, why):
    write(tmp_path / "proc/net/ip_tables_names", names)
    found = rules(tmp_path, **settings)
    assert isinstance(found, Unread)
    assert why in found.why
    assert not found.harmless
