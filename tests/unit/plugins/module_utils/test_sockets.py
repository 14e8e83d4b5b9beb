# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import socket
import typing as t
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import sockets
from ansible_collections.llmsec.hardening.plugins.module_utils.sockets import (
    Holder,
    KernelSocket,
    ProcReader,
    SocketTableError,
    build_listeners,
    parse_socket_units,
    parse_table,
    parse_unit,
)
from hypothesis import given
from hypothesis import strategies as st

ANY = "0.0.0.0"  # noqa: S104 - compared, never bound
HEADER = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"  # noqa: E501

# Real rows of a Debian 12 host (x86-64): sshd, ollama, an established connection
TCP = HEADER + (
    "   0: 00000000:0016 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 634 1 0000000012e145aa 100 0 0 10 0\n"  # noqa: E501
    "   1: 0100007F:2CAA 00000000:0000 0A 00000000:00000000 00:00000000 00000000   998        0 811 1 00000000a0b1c2d3 100 0 0 10 0\n"  # noqa: E501
    "   2: 020200C0:9E40 507100CB:0050 06 00000000:00000000 03:00001762 00000000     0        0 0 3 00000000beefbeef\n"  # noqa: E501
)


def row(digits: str, port: int, state: str = "0A", inode: int = 1) -> str:
    return f"   0: {digits}:{port:04X} 0:0 {state} 0:0 00:0 0 0 0 {inode} 1 0 100 0 0 10 0\n"


def listening(address: str, port: int, inode: int = 1, **other: t.Any) -> KernelSocket:
    version = ipaddress.ip_address(address).version
    facts = {"protocol": "tcp", "v4_mapped": False, "uid": 0, **other}
    return KernelSocket(address=address, port=port, family=f"ipv{version}", inode=inode, **facts)


class TestParseTable:
    def test_keeps_listening_sockets_with_address_port_user_and_inode(self) -> None:
        found = parse_table(TCP, "tcp", "little")
        assert [(s.address, s.port, s.uid, s.inode) for s in found] == [
            (ANY, 22, 0, 634),
            ("127.0.0.1", 11434, 998, 811),
        ]

    @pytest.mark.parametrize(
        ("digits", "address", "family", "mapped"),
        [
            ("0" * 32, "::", "ipv6", False),
            ("00000000000000000000000001000000", "::1", "ipv6", False),
            ("0000000000000000FFFF00000100007F", "127.0.0.1", "ipv4", True),
            ("B80D0120000000000000000001000000", "2001:db8::1", "ipv6", False),
        ],
    )
    def test_ipv6(self, digits: str, address: str, family: str, mapped: bool) -> None:
        (found,) = parse_table(HEADER + row(digits, 443), "tcp", "little")
        assert (found.address, found.family, found.v4_mapped) == (address, family, mapped)

    @given(st.ip_addresses(), st.integers(0, 65535), st.sampled_from(["little", "big"]))
    def test_any_address_survives_the_kernels_spelling(self, address, port, order) -> None:
        words = re.findall(".{4}", address.packed.decode("latin-1"), re.DOTALL)
        step = -1 if order == "little" else 1
        digits = "".join(word.encode("latin-1")[::step].hex().upper() for word in words)
        (found,) = parse_table(HEADER + row(digits, port), "tcp", order)
        mapped = getattr(address, "ipv4_mapped", None)
        assert (found.address, found.port) == (str(mapped or address), port)

    def test_udp_counts_unconnected_sockets(self) -> None:
        text = HEADER + row("0100007F", 53, "07") + row("0100007F", 54, "01")
        assert [s.port for s in parse_table(text, "udp", "little")] == [53]

    @pytest.mark.parametrize(
        "text", ["", "nonsense\n", HEADER + "garbage\n", HEADER + row("0100", 1), HEADER + "\n"]
    )
    def test_an_unknown_shape_is_an_error_and_never_an_empty_list(self, text: str) -> None:
        with pytest.raises(SocketTableError, match="unknown tcp socket"):
            parse_table(text, "tcp")

    @given(st.text())
    def test_hostile_text_never_gets_past_the_typed_error(self, text: str) -> None:
        with contextlib.suppress(SocketTableError):
            parse_table(HEADER + text, "tcp")


class TestParseUnit:
    @pytest.mark.parametrize(
        ("cgroup", "init", "unit"),
        [
            # v2
            ("0::/system.slice/ollama.service\n", "0::/init.scope\n", "ollama.service"),
            # v1: the named hierarchy, not a controller's
            (
                "9:name=systemd:/system.slice/nginx.service\n4:memory:/\n",
                "9:name=systemd:/init.scope\n",
                "nginx.service",
            ),
            # hybrid: name=systemd wins over the unified one
            (
                "1:name=systemd:/system.slice/a.service\n0::/elsewhere.service\n",
                "1:name=systemd:/init.scope\n",
                "a.service",
            ),
            # inside a container that sees the host's paths
            (
                "0::/machine.slice/libpod-1.scope/system.slice/ssh.service\n",
                "0::/machine.slice/libpod-1.scope/init.scope\n",
                "ssh.service",
            ),
            # services below sub-slices and with sub-groups of their own
            ("0::/system.slice/system-x.slice/x@1.service/sub\n", "", "x@1.service"),
            # a user's unit may carry any name
            (
                "0::/user.slice/user-1000.slice/user@1000.service/app.slice/ollama.service\n",
                "0::/init.scope\n",
                "user@1000.service",
            ),
            ("0::/system.slice/_cpu.service\n", "", "cpu.service"),
            ("0::/\n", "0::/init.scope\n", None),
            ("0::/mine/ollama.service\n", "0::/init.scope\n", None),
            ("", "", None),
            ("broken", "broken", None),
        ],
    )
    def test_units(self, cgroup: str, init: str, unit: str | None) -> None:
        assert parse_unit(cgroup, init) == unit

    @given(st.text(), st.text())
    def test_hostile_text_is_no_crash(self, cgroup: str, init: str) -> None:
        assert parse_unit(cgroup, init) is None or parse_unit(cgroup, init)


def test_socket_units_reads_what_systemctl_show_prints() -> None:
    text = (
        "Id=llm-key-validator.socket\nListen=/run/llm-key-validator.sock (Stream)\n"
        "Listen=127.0.0.1:8081 (Stream)\n\nId=dns.socket\nListen=[::1]:53 (Datagram)\n\n"
        "Id=systemd-initctl.socket\nListen=/run/initctl/fifo (FIFO)\n"
    )
    assert parse_socket_units(text) == {
        ("tcp", "127.0.0.1", 8081): "llm-key-validator.socket",
        ("udp", "::1", 53): "dns.socket",
    }


class TestBuildListeners:
    def test_a_master_answers_for_its_workers_whatever_the_pids(self) -> None:
        master = Holder(900, 1, "nginx", "nginx.service")
        workers = [Holder(pid, 900, "nginx", "nginx.service") for pid in (12, 901)]
        (found,) = build_listeners([listening(ANY, 443)], {1: [*workers, master]}, {})
        assert (found["pid"], found["unit"], found["units"]) == (
            900,
            "nginx.service",
            ["nginx.service"],
        )

    def test_socket_activation_names_the_socket_unit_and_keeps_the_service(self) -> None:
        holders = [
            Holder(1, 0, "systemd", "init.scope"),
            Holder(40, 1, "python3", "llm-key-validator.service"),
        ]
        units = {("tcp", "127.0.0.1", 8081): "llm-key-validator.socket"}
        (found,) = build_listeners([listening("127.0.0.1", 8081)], {1: holders}, units)
        assert (found["pid"], found["program"], found["unit"]) == (
            1,
            "systemd",
            "llm-key-validator.socket",
        )
        assert found["units"] == ["llm-key-validator.service", "llm-key-validator.socket"]

    def test_systemds_socket_of_an_unknown_unit_has_no_unit(self) -> None:
        holders = {1: [Holder(1, 0, "systemd", "init.scope")]}
        (found,) = build_listeners([listening("::", 22)], holders, {})
        assert (found["program"], found["unit"], found["units"]) == ("systemd", None, [])

    def test_nobody_visible_is_said_so(self) -> None:
        (found,) = build_listeners([listening("::1", 5)], {}, {})
        assert (found["pid"], found["program"], found["unit"]) == (None, None, None)

    def test_a_separate_ipv4_wildcard_means_the_ipv6_one_takes_no_ipv4(self) -> None:
        both = [listening(ANY, 443, 1), listening("::", 443, 2), listening("::", 80, 3)]
        found = {(s["address"], s["port"]): s["dual_stack"] for s in build_listeners(both, {}, {})}
        assert found == {(ANY, 443): False, ("::", 443): False, ("::", 80): True}

    def test_ports_filter_and_order(self) -> None:
        wanted = [listening("::1", 9), listening("127.0.0.1", 9), listening("127.0.0.1", 7)]
        found = build_listeners([*wanted, listening("::", 8)], {}, {}, ports=[9, 7])
        assert [(s["port"], s["address"]) for s in found] == [
            (7, "127.0.0.1"),
            (9, "127.0.0.1"),
            (9, "::1"),
        ]


class TestProcReader:
    def fake_proc(self, root: Path, processes: dict[int, dict[str, str]]) -> ProcReader:
        for pid, files in processes.items():
            (root / str(pid) / "fd").mkdir(parents=True)
            for name, text in files.items():
                if name == "fd":
                    os.symlink(text, root / str(pid) / "fd" / "3")
                else:
                    (root / str(pid) / name).write_text(text)
        return ProcReader(root)

    def test_finds_the_holders_of_an_inode(self, tmp_path: Path) -> None:
        reader = self.fake_proc(
            tmp_path,
            {
                1: {"cgroup": "0::/init.scope\n", "comm": "systemd\n", "fd": "/dev/null"},
                77: {
                    "cgroup": "0::/system.slice/ollama.service\n",
                    "comm": "ollama\n",
                    "status": "Name:\tollama\nPPid:\t1\n",
                    "fd": "socket:[811]",
                },
                78: {"comm": "other\n", "fd": "socket:[999]"},
                79: {},  # ended between listing and reading
            },
        )
        assert reader.holders({811}) == {811: [Holder(77, 1, "ollama", "ollama.service")]}

    def test_reads_both_tables_and_does_without_ipv6(self, tmp_path: Path) -> None:
        (tmp_path / "net").mkdir()
        (tmp_path / "net" / "tcp").write_text(TCP)
        assert len(ProcReader(tmp_path).sockets(["tcp"])) == 2
        (tmp_path / "net" / "tcp6").write_text(HEADER + row("0" * 32, 443))
        assert [s.port for s in ProcReader(tmp_path).sockets(["tcp"])] == [22, 11434, 443]

    def test_a_truncated_table_of_the_host_is_an_error(self, tmp_path: Path) -> None:
        (tmp_path / "net").mkdir()
        (tmp_path / "net" / "tcp").write_text(HEADER + "   0: 0000")
        with pytest.raises(SocketTableError):
            ProcReader(tmp_path).sockets(["tcp"])

    def test_sees_a_real_socket_of_this_process(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            reader = ProcReader()
            (mine,) = [s for s in reader.sockets(["tcp"]) if s.port == port]
            (holder,) = reader.holders({mine.inode})[mine.inode]
        assert (mine.address, holder.pid, holder.parent) == (
            "127.0.0.1",
            os.getpid(),
            os.getppid(),
        )


def test_public_names_exist() -> None:
    assert all(hasattr(sockets, name) for name in sockets.__all__)
