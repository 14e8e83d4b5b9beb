# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import socket
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.sockets import Holder, ProcReader
from ansible_collections.llmsec.hardening.plugins.modules import listeners_info


@pytest.mark.parametrize("check", [False, True])
def test_reports_a_real_listener_in_and_out_of_check_mode(
    run_module: t.Callable[..., dict[str, t.Any]], check: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        result = run_module(listeners_info.main, check=check, ports=[port])
    (found,) = result["listeners"]
    assert result["changed"] is False
    assert (found["address"], found["family"], found["pid"]) == ("127.0.0.1", "ipv4", os.getpid())


def test_a_broken_table_fails_in_one_sentence(
    run_module: t.Callable[..., dict[str, t.Any]], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "tcp").write_text("something else\n")
    monkeypatch.setattr(listeners_info, "ProcReader", lambda: ProcReader(tmp_path))
    result = run_module(listeners_info.main)
    assert result["failed"] is True
    assert result["msg"].startswith("Cannot read the listening sockets: unknown tcp socket table")


def test_warns_when_it_may_not_look_at_other_users(
    run_module: t.Callable[..., dict[str, t.Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    warned: list[str] = []
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(AnsibleModule, "warn", lambda _self, text: warned.append(text))
    run_module(listeners_info.main)
    assert ["does not run as root" in text for text in warned] == [True]


def test_asks_systemd_only_for_its_own_sockets(
    run_module: t.Callable[..., dict[str, t.Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        held = [Holder(1, 0, "systemd", "init.scope")]
        monkeypatch.setattr(
            ProcReader, "holders", lambda _self, inodes: dict.fromkeys(inodes, held)
        )
        shown = f"Id=mine.socket\nListen=127.0.0.1:{port} (Stream)\n"
        monkeypatch.setattr(AnsibleModule, "get_bin_path", lambda _self, name: f"/bin/{name}")
        monkeypatch.setattr(AnsibleModule, "run_command", lambda *_a, **_k: (0, shown, ""))
        result = run_module(listeners_info.main, ports=[port])
    assert [found["unit"] for found in result["listeners"]] == ["mine.socket"]
