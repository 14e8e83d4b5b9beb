# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import signal
import typing as t
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import nginx_config as core
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_config import NginxConfigError
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_host import SystemHost
from ansible_collections.llmsec.hardening.plugins.modules import nginx_config

Run = t.Callable[..., dict[str, t.Any]]


@pytest.fixture(autouse=True)
def scratch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> t.Iterator[Path]:
    """A tree of our own, an nginx that is not installed, and this process's signals back later."""
    (tmp_path / "conf.d").mkdir()
    monkeypatch.setattr(
        nginx_config,
        "live_host",
        lambda module: SystemHost(
            run=lambda command: (0, "", ""), binary=None, systemctl=None, root=str(tmp_path)
        ),
    )
    monkeypatch.setattr(
        nginx_config,
        "parse_wishes",
        lambda files, folders: core.parse_wishes(files, folders, str(tmp_path)),
    )
    kept = {name: signal.getsignal(name) for name in (signal.SIGTERM, signal.SIGHUP)}
    yield tmp_path
    for name, handler in kept.items():
        signal.signal(name, handler)


def test_check_mode_without_nginx_says_what_would_change(run_module: Run, scratch: Path) -> None:
    path = f"{scratch}/conf.d/gw.conf"
    result = run_module(nginx_config.main, check=True, files=[{"path": path, "content": "x\n"}])
    assert (result["changed"], result["paths"], result["started"]) == (True, [path], True)
    assert result["diff"][0]["after"] == "x\n"
    assert os.listdir(scratch / "conf.d") == []


def test_absent_works_without_nginx(run_module: Run, scratch: Path) -> None:
    path = scratch / "conf.d" / "gw.conf"
    path.write_text("x")
    wish = {"files": [{"path": str(path), "state": "absent"}]}
    assert run_module(nginx_config.main, **wish)["changed"] is True
    assert not path.exists()
    assert run_module(nginx_config.main, **wish)["changed"] is False


@pytest.mark.parametrize("check", [True, False])
def test_sensitive_content_is_nowhere_in_the_result(
    run_module: Run, scratch: Path, check: bool
) -> None:
    path = scratch / "conf.d" / "gw.conf"
    path.write_text("old-secret-word\n")
    item = {"path": str(path), "content": "new-secret-word\n", "sensitive": True}
    result = run_module(nginx_config.main, check=check, files=[item])
    assert result.get("failed", False) is not check  # nginx is missing, so the real run fails
    assert "secret-word" not in json.dumps(result)
    (shown,) = result["invocation"]["module_args"]["files"]
    assert (shown["path"], shown["content"]) == (str(path), "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER")


def test_a_wrong_wish_fails_in_one_sentence(run_module: Run) -> None:
    result = run_module(nginx_config.main, files=[{"path": "/etc/passwd", "content": "x"}])
    assert result["failed"] is True
    assert result["msg"].startswith("'/etc/passwd' is not a plain absolute path below ")


def test_the_hosts_journal_gets_no_contents(
    run_module: Run, monkeypatch: pytest.MonkeyPatch, scratch: Path
) -> None:
    logged: list[str] = []
    monkeypatch.setattr(
        nginx_config.AnsibleModule, "log", lambda _self, msg, **_: logged.append(str(msg))
    )
    item = {"path": f"{scratch}/conf.d/a", "content": "line one\nline two\n"}
    # As the control node sends it with every task
    run_module(nginx_config.main, check=True, files=[item], _ansible_no_log=False)
    assert not [line for line in logged if "line one" in line]


def test_a_signal_becomes_an_error_once(scratch: Path) -> None:
    signal.signal(signal.SIGTERM, nginx_config.stop_with_rollback)
    with pytest.raises(NginxConfigError, match="stopped by SIGTERM"):
        os.kill(os.getpid(), signal.SIGTERM)
    os.kill(os.getpid(), signal.SIGTERM)  # must not disturb the rollback
