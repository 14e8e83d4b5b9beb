# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import audit_keys
from ansible_collections.llmsec.hardening.plugins.module_utils.audit_keys import SecretError

from tests.unit.key_validator.conftest import FILES

KEY = "00112233445566778899aabbccddeeff" * 2


def test_the_service_reads_what_is_made_here() -> None:
    assert FILES
    from llm_key_validator.audit import seals

    first = seals.first_key(KEY)
    assert audit_keys.key_id_of(KEY) == first.key_id
    assert seals.parse_key(audit_keys.first_state(KEY).encode()) == first
    assert audit_keys.first_state(KEY).encode() == first.render()


@pytest.mark.parametrize("key", ["", "0" * 63, KEY + "\n", KEY.upper(), "g" * 64])
def test_what_is_no_first_key(key: str) -> None:
    with pytest.raises(SecretError) as caught:
        audit_keys.key_id_of(key)
    assert not key or key not in str(caught.value)


def test_each_first_key_is_new_and_kept_under_its_name(tmp_path: Path) -> None:
    made = [audit_keys.make_first_key(str(tmp_path)) for _unused in range(3)]
    assert len({key for _unused, key in made}) == 3
    for path, key in made:
        assert Path(path).read_text() == f"{key}\n"
        assert Path(path).name == f"{audit_keys.key_id_of(key)}.key"
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert json.loads(audit_keys.first_state(key))["epoch"] == 0


def test_a_secret_is_read(tmp_path: Path) -> None:
    path = tmp_path / "s"
    assert audit_keys.read_secret(str(path)) is None
    path.write_text("geheim\n")
    assert audit_keys.read_secret(str(path)) == "geheim"


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff\n", b"x" * 5000])
def test_what_is_no_secret(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "s").write_bytes(content)
    with pytest.raises(SecretError):
        audit_keys.read_secret(str(tmp_path / "s"))


def test_neither_links_nor_pipes_are_secrets(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(SecretError):
            audit_keys.read_secret(str(tmp_path / name))
