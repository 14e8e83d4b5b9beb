# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's file system, used with care."""

from __future__ import annotations

import fcntl
import os
import stat
import typing as t
from collections.abc import Callable
from pathlib import Path

import pytest
from llm_key_validator.audit.files import OsFiles

FILES = OsFiles()


def test_a_log_file_is_made_with_its_mode_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        descriptor = FILES.open_log(str(tmp_path / "log"), 0o640)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o640
    assert fcntl.fcntl(descriptor, fcntl.F_GETFD) & fcntl.FD_CLOEXEC
    assert fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_APPEND
    FILES.write(descriptor, b"abc")
    assert FILES.read(descriptor, 1, 9) == b"bc"
    assert FILES.status(descriptor) == FILES.status_at(str(tmp_path / "log"))
    FILES.close(descriptor)


def test_a_file_with_another_mode_gets_ours(tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    (tmp_path / "log").chmod(0o666)
    FILES.close(FILES.open_log(str(tmp_path / "log"), 0o640))
    FILES.close(FILES.create_secret(str(tmp_path / "secret")))
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "secret").stat().st_mode) == 0o600


OPENERS: dict[str, Callable[[str], t.Any]] = {
    "log": lambda path: FILES.open_log(path, 0o640),
    "rotated": FILES.open_rotated,
    "secret": FILES.open_secret,
    "new secret": FILES.create_secret,
    "small file": lambda path: FILES.read_file(path, 10),
}


@pytest.mark.parametrize("opener", OPENERS)
@pytest.mark.parametrize("kind", ["link", "fifo", "folder"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str, opener: str) -> None:
    path = tmp_path / "x"
    if kind == "link":
        (tmp_path / "target").touch()
        path.symlink_to("target")
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.mkdir()
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError):
        OPENERS[opener](str(path))
    assert len(os.listdir("/proc/self/fd")) == descriptors


def test_nothing_at_a_path(tmp_path: Path) -> None:
    assert FILES.status_at(str(tmp_path / "x")) is None


def test_an_ordinary_directory_is_fine(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir(mode=0o750)
    (tmp_path / "link").symlink_to("logs")
    FILES.check_directory(str(tmp_path / "logs"))
    FILES.check_directory(str(tmp_path / "link"))
    FILES.sync_directory(str(tmp_path / "logs"))
    with pytest.raises(FileNotFoundError):
        FILES.check_directory(str(tmp_path / "none"))
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        FILES.check_directory(str(tmp_path / "file"))


def test_a_directory_that_others_control_is_refused(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs").chmod(0o777)
    with pytest.raises(PermissionError):
        FILES.check_directory(str(tmp_path / "logs"))


@pytest.mark.parametrize("place", ["logs", "link"])
def test_another_users_directory_or_link_is_refused(
    tmp_path: Path, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "link").symlink_to("logs")
    FILES.check_directory(str(tmp_path / "link"))
    if os.geteuid() == 0:
        os.lchown(tmp_path / place, 4711, -1)
    else:
        monkeypatch.setattr(os, "geteuid", lambda: 4711)
    with pytest.raises(PermissionError):
        FILES.check_directory(str(tmp_path / "link"))
