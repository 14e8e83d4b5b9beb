# SPDX-License-Identifier: GPL-3.0-or-later
"""The module api_key as Ansible runs it: check, real, again, check again."""

from __future__ import annotations

import os
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import (
    is_well_formed,
    key_digest,
)
from ansible_collections.llmsec.hardening.plugins.modules import api_key

Run = t.Callable[..., dict[str, t.Any]]


@pytest.fixture
def run(run_module: Run, tmp_path: Path) -> Run:
    """Call the module with the vars file of this test."""

    def call(check: bool = False, **params: t.Any) -> dict[str, t.Any]:
        params = {"path": str(tmp_path / "vars" / "api_keys.yml"), "id": "app1", **params}
        return run_module(api_key.main, check=check, **params)

    return call


def records(tmp_path: Path) -> list[dict[str, t.Any]]:
    return yaml.safe_load((tmp_path / "vars" / "api_keys.yml").read_text())["key_validator_keys"]


def test_issues_a_key_once(run: Run, tmp_path: Path) -> None:
    wish = {"owner": "Team", "expires": "2027-01-31", "secret_file": str(tmp_path / "app1.key")}
    foretold = run(check=True, **wish)
    assert foretold["changed"] is foretold["created"] is True
    assert "secret" not in foretold
    assert "made when the key is issued" in foretold["diff"]["after"]
    assert os.listdir(tmp_path) == []

    issued = run(**wish)
    secret = (tmp_path / "app1.key").read_text().strip()
    assert issued["changed"] is True
    assert issued["secret_file"] == str(tmp_path / "app1.key")
    assert is_well_formed(secret.encode())
    assert records(tmp_path) == [issued["key"]]
    assert issued["key"]["sha256"] == key_digest(secret)
    assert secret not in str(issued)

    for check in (False, True):
        again = run(check=check, **wish)
        assert again["changed"] is again["created"] is False
        assert "diff" not in again
        assert again["key"] == issued["key"]
    assert (tmp_path / "app1.key").read_text().strip() == secret


def test_without_a_file_the_secret_is_returned_once(run: Run, tmp_path: Path) -> None:
    issued = run()
    assert key_digest(issued["secret"]) == records(tmp_path)[0]["sha256"]
    assert issued["secret"] not in issued["diff"]["after"]
    assert "secret" not in run()
    changed = run(owner="Other")
    assert changed["changed"] is True
    assert changed["created"] is False
    assert "secret" not in changed


def test_a_client_without_a_key_has_no_secret(run: Run, tmp_path: Path) -> None:
    assert "needs certificate_sha256" in run(with_key=False)["msg"]
    wish = {"with_key": False, "certificate_sha256": "ab" * 32}
    for check in (True, False):
        made = run(check=check, **wish, secret_file=str(tmp_path / "app1.key"))
        assert made["changed"] is made["created"] is True
        assert "sha256" not in made["key"]
        assert not {"secret", "secret_file"} & set(made)
    assert records(tmp_path) == [made["key"]]
    assert [path.name for path in tmp_path.iterdir()] == ["vars"]
    assert run(**wish)["changed"] is False


def test_binds_a_key_and_frees_it_again(run: Run, tmp_path: Path) -> None:
    bare = run(secret_file=str(tmp_path / "app1.key"))["key"]
    limits = {"models": ["llama3.2:*"], "tier": "batch", "certificate_sha256": "ab" * 32}
    assert run(**limits)["key"] == {**bare, **limits}
    assert run(**limits)["changed"] is False
    assert run(owner="Other")["key"] == {**bare, **limits, "owner": "Other"}
    freed = run(models=[], tier="", certificate_sha256="", owner=bare["owner"])
    assert freed["key"] == bare
    assert records(tmp_path) == [bare]


@pytest.mark.parametrize("state", ["revoked", "absent"])
def test_revokes_and_removes(run: Run, tmp_path: Path, state: str) -> None:
    run()
    before = (tmp_path / "vars" / "api_keys.yml").read_text()
    assert run(check=True, state=state)["changed"] is True
    assert (tmp_path / "vars" / "api_keys.yml").read_text() == before
    result = run(state=state)
    assert result["changed"] is True
    assert result["diff"]["before"] == before
    left = records(tmp_path)
    assert left == [] if state == "absent" else left[0]["revoked"] is True
    for check in (False, True):
        assert run(check=check, state=state)["changed"] is False


def test_absent_where_nothing_is(run: Run, tmp_path: Path) -> None:
    assert run(state="absent")["changed"] is False
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"id": "App 1"}, "id must be"),
        ({"state": "revoked"}, "there is no key app1"),
        ({"expires": "soon"}, "key_validator_keys[0].expires"),
        ({"networks": ["10.0.0.1/8"]}, "key_validator_keys[0].networks[0]"),
        ({"models": ["../tiny"]}, "key_validator_keys[0].models[0]"),
    ],
)
@pytest.mark.parametrize("check", [False, True])
def test_a_wish_that_cannot_be_is_one_sentence_and_no_change(
    run: Run, tmp_path: Path, params: dict[str, t.Any], message: str, check: bool
) -> None:
    result = run(check=check, secret_file=str(tmp_path / "secret"), **params)
    assert result["failed"] is True
    assert message in result["msg"]
    assert not (tmp_path / "secret").exists()
    assert not (tmp_path / "vars" / "api_keys.yml").exists()


@pytest.mark.parametrize("check", [False, True])
def test_a_secret_is_never_written_over(run: Run, tmp_path: Path, check: bool) -> None:
    (tmp_path / "app1.key").write_text("in use")
    result = run(check=check, secret_file=str(tmp_path / "app1.key"))
    assert "exists" in result["msg"]
    assert (tmp_path / "app1.key").read_text() == "in use"
    assert not (tmp_path / "vars" / "api_keys.yml").exists()


def test_a_file_of_somebody_elses_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "vars").mkdir()
    path = tmp_path / "vars" / "api_keys.yml"
    path.write_text("nginx_port: 443\n")
    result = run(secret_file=str(tmp_path / "app1.key"))
    assert result["failed"] is True
    assert result["msg"].startswith(str(path))
    assert path.read_text() == "nginx_port: 443\n"
    assert not (tmp_path / "app1.key").exists()


def test_a_secret_without_its_record_does_not_stay(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[bool] = []

    def full(_path: str, _text: str) -> t.NoReturn:
        seen.append((tmp_path / "app1.key").exists())
        raise OSError(28, "No space left on device", "api_keys.yml")

    monkeypatch.setattr(api_key, "write_atomically", full)
    result = run(secret_file=str(tmp_path / "app1.key"))
    assert result["msg"] == "api_keys.yml: No space left on device"
    assert seen == [True]  # the secret was safe before its hash was to be recorded
    assert not (tmp_path / "app1.key").exists()


def test_a_linked_vars_file_stays_a_link(run: Run, tmp_path: Path) -> None:
    (tmp_path / "vars").mkdir()
    (tmp_path / "real").mkdir()
    link = tmp_path / "vars" / "api_keys.yml"
    link.symlink_to(tmp_path / "real" / "keys.yml")
    assert run()["vars_file"] == str(tmp_path / "real" / "keys.yml")
    assert link.is_symlink()
    assert records(tmp_path)[0]["id"] == "app1"
