# SPDX-License-Identifier: GPL-3.0-or-later
"""The action audit_head: forwards only, check mode, private files, and what it refuses."""

from __future__ import annotations

import json
import os
import stat
from types import SimpleNamespace

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible_collections.llmsec.hardening.plugins.action import audit_head
from ansible_collections.llmsec.hardening.plugins.modules import audit_head as documented

HASHES = {number: f"{number:064x}" for number in range(10)}


def head(sequence, **more):
    return {"sequence": sequence, "hash": HASHES[sequence], **more}


@pytest.fixture
def note(tmp_path):
    """Run the action; give its result."""

    def call(what, check=False, path="audit/llm1/head.json"):
        loader = DataLoader()
        loader.set_basedir(str(tmp_path))
        args = {"path": path, "head": what}
        task = SimpleNamespace(args=args, check_mode=check, async_val=0, diff=False)
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
        return audit_head.ActionModule(task, connection, None, loader, None, None).run(task_vars={})

    return call


@pytest.fixture
def file(tmp_path):
    return tmp_path / "audit/llm1/head.json"


def test_check_real_again(note, file, tmp_path):
    assert note(head(1), check=True) == {"changed": True, "noted": None}
    assert list(tmp_path.iterdir()) == []
    assert note(head(1, epoch=3)) == {"changed": True, "noted": None}
    assert json.loads(file.read_text()) == head(1, epoch=3)
    for check in (True, False):
        assert note(head(1), check=check) == {"changed": False, "noted": head(1, epoch=3)}
    assert note(head(2), check=True) == {"changed": True, "noted": head(1, epoch=3)}
    assert note(head(2)) == {"changed": True, "noted": head(1, epoch=3)}
    assert json.loads(file.read_text()) == head(2)


@pytest.mark.parametrize("what", [head(4), {"sequence": 5, "hash": HASHES[9]}])
def test_it_never_goes_back(note, file, what):
    note(head(5))
    assert note(what) == {"changed": False, "noted": head(5)}
    assert json.loads(file.read_text()) == head(5)


def test_nobody_else_reads_it_whatever_the_umask(note, file, tmp_path):
    old = os.umask(0o000)
    try:
        note(head(1))
    finally:
        os.umask(old)
    modes = {place: stat.S_IMODE(place.stat().st_mode) for place in (file, *file.parents)}
    assert modes[file] == 0o600
    assert modes[tmp_path / "audit/llm1"] == modes[tmp_path / "audit"] == 0o700


@pytest.mark.parametrize(
    ("what", "why"),
    [
        ({}, "sequence"),
        ({"sequence": True, "hash": HASHES[1]}, "sequence"),
        ({"sequence": -1, "hash": HASHES[1]}, "sequence"),
        ({"sequence": "7", "hash": HASHES[1]}, "sequence"),
        ({"sequence": 1}, "hash"),
        ({"sequence": 1, "hash": "ab"}, "hash"),
        ({"sequence": 1, "hash": HASHES[1] + "\n"}, "hash"),
    ],
)
def test_what_is_no_head_is_refused_and_changes_nothing(note, file, what, why):
    note(head(1))
    with pytest.raises(AnsibleActionFail, match=f"head: {why} must be"):
        note(what)
    assert json.loads(file.read_text()) == head(1)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"sequence": 1}', "[" * 100_000])
def test_a_noted_head_that_cannot_be_read_is_kept_for_somebody_to_look_at(note, file, text):
    note(head(1))
    file.write_text(text)
    with pytest.raises(AnsibleActionFail, match="holds no head"):
        note(head(2))
    assert file.read_text() == text


def test_a_folder_that_cannot_be_made_is_named(note, tmp_path):
    (tmp_path / "audit").write_text("")
    with pytest.raises(AnsibleActionFail, match=r"audit.*: (Not a directory|File exists)"):
        note(head(1))


def test_a_write_that_fails_keeps_the_old_head(note, file, monkeypatch):
    note(head(1))

    def full(*_names):
        raise OSError(28, "No space left on device", str(file))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(AnsibleActionFail, match="No space left on device"):
        note(head(2))
    assert [place.name for place in file.parent.iterdir()] == ["head.json"]
    assert json.loads(file.read_text()) == head(1)


def test_the_documented_options_are_those_it_takes():
    options = yaml.safe_load(documented.DOCUMENTATION)["options"]
    assert set(options) == set(audit_head.argument_spec())
    for name, spec in audit_head.argument_spec().items():
        assert {key: options[name][key] for key in spec} == spec
