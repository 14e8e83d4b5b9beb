# SPDX-License-Identifier: GPL-3.0-or-later
"""The module on a real nginx, started by the role's own files."""

from __future__ import annotations

import os
import re
import shutil
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_host import GatewayHost
from ansible_collections.llmsec.hardening.plugins.modules import verify_gateway

from tests.unit.gateway.stage import NAME, Stage
from tests.unit.plugins.gateway_files import red

NGINX = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
LIMIT = {"rate": "100r/s", "burst": 50}
Run = t.Callable[..., dict[str, t.Any]]


def test_wrong_settings_fail_in_one_sentence(run_module: Run) -> None:
    result = run_module(verify_gateway.main, extra_routes=["GET /nowhere"])
    assert result["failed"] is True
    assert "GET /nowhere" in result["msg"]


def test_a_file_is_given_by_digest_or_content(run_module: Run) -> None:
    for facts in ({}, {"sha256": "0", "content": ""}):
        result = run_module(verify_gateway.main, files=[{"path": "/x", **facts}])
        assert result["failed"] is True


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host without nginx."""
    monkeypatch.setattr(GatewayHost, "processes", lambda _self: [])
    monkeypatch.setattr(AnsibleModule, "get_bin_path", lambda *_words, **_options: None)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("check", [False, True])
def test_a_host_without_nginx(run_module: Run, check: bool) -> None:
    result = run_module(verify_gateway.main, check=check)
    assert result["changed"] is False
    (found,) = result["findings"]
    assert (found["id"], found["result"], found["control"]) == (
        "gateway.present",
        "fail",
        "authentication",
    )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Stage]:
    if NGINX is None:
        pytest.skip("nginx is not installed here")
    made = Stage(
        tmp_path_factory.mktemp("stage"),
        gateway_limit_per_key=LIMIT,
        gateway_limit_per_address=LIMIT,
    )
    yield made
    made.close()


@pytest.fixture
def verify(
    stage: Stage, run_module: Run, monkeypatch: pytest.MonkeyPatch
) -> t.Callable[..., dict[str, t.Any]]:
    """Run the module as if the stage's nginx were the only one here."""
    everybody = GatewayHost.processes
    master = stage._nginx.pid

    def processes(host: GatewayHost) -> list[t.Any]:
        return [one for one in everybody(host) if master in (one.pid, one.parent)]

    def run(**settings: t.Any) -> dict[str, t.Any]:
        backend = re.search(r"upstream llm_server \{\n\s+server ([^;]+);", site(stage).read_text())
        assert backend is not None
        usual = {
            "server_names": [NAME], "port": stage.port, "backend": backend[1],
            "validator_socket": f"{stage.folder}/hop", "audit_socket": f"{stage.folder}/log",
            "limit_per_key": LIMIT, "limit_per_address": LIMIT,
        }  # fmt: skip
        result = run_module(verify_gateway.main, **{**usual, **settings})
        return {one["id"]: one for one in result["findings"]}

    monkeypatch.setattr(GatewayHost, "processes", processes)
    programs = {"nginx": NGINX}
    monkeypatch.setattr(
        AnsibleModule, "get_bin_path", lambda _self, name, **_options: programs.get(name)
    )
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return run


def site(stage: Stage) -> Path:
    return stage.folder / "conf.d/llm-gateway.conf"


# A tests' nginx belongs to no unit and may be root's, and its files lie where everybody may write.
OF_THE_STAGE = {"gateway.master", "gateway.permissions", "gateway.workers"}


def test_a_running_gateway_is_green(verify: t.Callable[..., t.Any]) -> None:
    found = verify()
    assert red(found) <= OF_THE_STAGE, found
    assert found["gateway.configuration"]["actual"] == "7 files"
    assert found["gateway.loaded"]["result"] == "pass"
    assert found["gateway.extra_files"]["result"] == "skip"


def test_null_means_that_a_limit_was_turned_off(verify: t.Callable[..., t.Any]) -> None:
    found = verify(limit_per_key=None, connections_per_address=None, audit_socket=None)
    assert red(found) - OF_THE_STAGE == {
        "gateway.limits.per_key",
        "gateway.limits.connections",
        "gateway.logs.reports",
    }
    assert found["gateway.limits.per_key"]["actual"] == "turned off by gateway_limit_per_key: null"


def test_what_was_not_loaded_yet(stage: Stage, verify: t.Callable[..., t.Any]) -> None:
    before = site(stage).read_text()
    site(stage).write_text(f"{before}\n# later\n")
    found = verify()
    assert red(found) - OF_THE_STAGE == {"gateway.loaded"}
    assert found["gateway.loaded"]["evidence"] == [f"{site(stage)} was changed later"]
    stage.reload()
    assert red(verify()) <= OF_THE_STAGE


def test_what_nginx_refuses(stage: Stage, verify: t.Callable[..., t.Any]) -> None:
    before = site(stage).read_text()
    site(stage).write_text(f"{before}\nnonsense;\n")
    try:
        found = verify()
    finally:
        site(stage).write_text(before)
    assert found["gateway.configuration"]["result"] == "error"
    assert "nonsense" in found["gateway.configuration"]["actual"]
    stage.reload()


def test_a_way_around_in_another_file(stage: Stage, verify: t.Callable[..., t.Any]) -> None:
    other = stage.folder / "conf.d/other.conf"
    other.write_text(
        f"server {{ listen unix:{stage.folder}/other; location / "
        "{ proxy_pass http://localhost:11434; } }"
    )
    try:
        found = verify()
    finally:
        other.unlink()
    assert "gateway.auth.backend" in red(found)
    assert f"{other}:1" in found["gateway.auth.backend"]["evidence"][0]


def test_only_root_can_tell(
    verify: t.Callable[..., t.Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = verify()
    assert found["gateway.configuration"]["result"] == "error"
    assert "only root" in found["gateway.configuration"]["actual"]
