# SPDX-License-Identifier: GPL-3.0-or-later
"""The modules secret_file and audit_seal_key as Ansible runs them: check, real, again."""

from __future__ import annotations

import json
import os
import stat
import typing as t
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.modules import audit_seal_key, secret_file

Run = t.Callable[..., dict[str, t.Any]]


def mode(path: Path) -> int:
    return stat.S_IMODE(os.stat(path).st_mode)


def test_a_secret_is_made_once_and_shown_nowhere(run_module: Run, tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    foretold = run_module(secret_file.main, check=True, path=str(path))
    assert foretold["changed"] is foretold["created"] is True
    assert not path.exists()
    made = run_module(secret_file.main, path=str(path))
    text = path.read_text().strip()
    assert len(bytes.fromhex(text)) == 32
    assert mode(path) == 0o600
    assert made["changed"] is True
    assert text not in json.dumps(made)
    for check in (True, False):
        again = run_module(secret_file.main, check=check, path=str(path))
        assert again["changed"] is again["created"] is False
    assert path.read_text().strip() == text


def test_a_given_secret_takes_the_place_of_another(run_module: Run, tmp_path: Path) -> None:
    path = tmp_path / "password"
    for content in ("geheim-1", "geheim-2"):
        foretold = run_module(secret_file.main, check=True, path=str(path), content=content)
        assert not path.exists() or path.read_text() != f"{content}\n"
        result = run_module(secret_file.main, path=str(path), content=content)
        assert foretold["changed"] is result["changed"] is True
        assert foretold["diff"] == result["diff"]
        assert path.read_text() == f"{content}\n"
        assert mode(path) == 0o600
        assert "geheim" not in json.dumps(result)
        assert run_module(secret_file.main, path=str(path), content=content)["changed"] is False


def test_a_loose_mode_is_mended(run_module: Run, tmp_path: Path) -> None:
    path = tmp_path / "pepper"
    path.write_text("geheim\n")
    path.chmod(0o644)
    assert run_module(secret_file.main, check=True, path=str(path))["changed"] is True
    assert mode(path) == 0o644
    assert run_module(secret_file.main, path=str(path))["changed"] is True
    assert (mode(path), path.read_text()) == (0o600, "geheim\n")


@pytest.mark.parametrize("content", ["", " ", "geheim "])
def test_what_is_no_secret(run_module: Run, tmp_path: Path, content: str) -> None:
    result = run_module(secret_file.main, path=str(tmp_path / "s"), content=content)
    assert result["failed"] is True
    assert os.listdir(tmp_path) == []


def test_an_empty_file_is_not_taken_for_a_secret(run_module: Run, tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    assert "empty" in run_module(secret_file.main, path=str(tmp_path / "s"))["msg"]


def test_a_first_key(run_module: Run, tmp_path: Path) -> None:
    missing = str(tmp_path / "none")
    assert run_module(audit_seal_key.main, check=True, directory=missing)["state"] == ""
    assert run_module(audit_seal_key.main, directory=missing)["failed"] is True
    one = run_module(audit_seal_key.main, directory=str(tmp_path))
    other = run_module(audit_seal_key.main, directory=str(tmp_path))
    for made in (one, other):
        state = json.loads(made["state"])
        path = tmp_path / f"{state['key_id']}.key"
        assert made["key_file"] == str(path)
        assert path.read_text() == f"{state['key']}\n"
        assert mode(path) == 0o600
    assert one["state"] != other["state"]
