# SPDX-License-Identifier: GPL-3.0-or-later
"""A host's files and processes, looked at without being caught by them."""

from __future__ import annotations

import os
import time

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.host_view import (
    FILE,
    HostView,
    differences,
)


def test_facts_of_what_is_there(tmp_path):
    host = HostView(str(tmp_path))
    (tmp_path / "f").write_text("abc")
    (tmp_path / "f").chmod(0o4751)
    (tmp_path / "l").symlink_to("f")
    os.mkfifo(tmp_path / "p")
    facts = host.facts("/f")
    assert (facts.kind, facts.mode, facts.size) == (FILE, 0o4751, 3)
    assert (host.facts("/l").kind, host.facts("/l").target) == ("a symbolic link", "f")
    assert host.facts("/p").kind == "a FIFO"
    assert host.facts("/none") is None
    assert host.facts("/f/below") is None


def test_reading_is_bounded_and_follows_nothing(tmp_path):
    host = HostView(str(tmp_path))
    (tmp_path / "f").write_text("abcdef")
    (tmp_path / "l").symlink_to("f")
    os.mkfifo(tmp_path / "p")
    assert host.read("/f", 3) == b"abc"
    assert host.read("/f", 3, 4) == b"ef"
    assert host.read("/none", 3) is None
    for name in ("/l", "/p", "/"):
        with pytest.raises(OSError):
            host.read(name, 3)
    assert host.names("/none") is None
    assert host.names("/") == ["f", "l", "p"]


def test_its_own_process():
    host = HostView()
    process = host.process(os.getpid())
    assert process.command
    assert os.path.samefile(process.program, "/proc/self/exe")
    assert time.time() - 3600 < process.started <= time.time() + 1
    assert os.getpid() in {one.pid for one in host.processes()}


def test_open_files_also_when_they_are_gone(tmp_path):
    host = HostView()
    with open(tmp_path / "log", "ab") as file, open(__file__, "rb") as other:
        identity = host.facts(str(tmp_path / "log")).identity
        (tmp_path / "log").unlink()
        found = {one.identity: one for one in host.open_files(os.getpid())}
        assert found[identity].writable
        assert found[identity].path.endswith("(deleted)")
        status = os.fstat(other.fileno())
        assert not found[(status.st_dev, status.st_ino)].writable
        assert not file.closed


@pytest.mark.parametrize(
    ("mode", "allowed", "count"), [(0o600, 0o640, 0), (0o640, 0o640, 0), (0o644, 0o640, 1)]
)
def test_less_than_the_mode_is_fine(tmp_path, mode, allowed, count):
    host = HostView(str(tmp_path))
    (tmp_path / "f").touch()
    (tmp_path / "f").chmod(mode)
    facts = host.facts("/f")
    owner = f"{facts.owner}:{facts.group}"
    assert len(differences(facts, "/f", FILE, owner, allowed)) == count
    assert len(differences(facts, "/f", FILE, "nobody:else", allowed)) == count + 1
    assert differences(None, "/f", FILE, owner, allowed) == ["/f is not there"]
