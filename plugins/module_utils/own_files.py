# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Files that are kept on the control node: replaced in one step, and never readable by more."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress


def is_current(path: str, text: str, mode: int) -> bool:
    """Return whether the file holds this text and is as private as it should be."""
    try:
        with open(path, encoding="utf-8", newline="") as file:
            now = os.fstat(file.fileno()).st_mode & 0o7777
            return now == mode and not os.path.islink(path) and file.read() == text
    except (OSError, UnicodeDecodeError):
        return False


def replace(path: str, text: str, prepare: Callable[[int], None]) -> None:
    """Replace the file in one step; `prepare` gives the open new one its mode. Raises OSError."""
    folder, name = os.path.split(path)
    # The dot keeps Ansible from reading the unfinished file as group_vars.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as file:
            prepare(descriptor)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise


def store(texts: Mapping[str, str], *, mode: int, folder_mode: int, check: bool) -> bool:
    """Write the files (path → text) that are not current, and the folders that are not there.

    Returns whether there were any. Raises OSError.
    """
    stale = {path: text for path, text in texts.items() if not is_current(path, text, mode)}
    if not check:
        for path, text in stale.items():
            make_folder(os.path.dirname(path), folder_mode)
            replace(path, text, lambda descriptor: os.fchmod(descriptor, mode))
    return bool(stale)


def make_folder(folder: str, mode: int) -> None:
    """Make the folder and those above it, which os.makedirs would make for all. Raises OSError."""
    missing = []
    while folder and not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for place in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(place, mode)
