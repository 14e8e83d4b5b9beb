# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit files, drop-ins and environment files of a host, in the order systemd reads them."""

from __future__ import annotations

import glob
import os
import re
import typing as t
from pathlib import Path

from ansible_collections.llmsec.hardening.plugins.module_utils.systemd_units import (
    UNIT_PATHS,
    Assignment,
    Fragment,
    dropin_directories,
    effective_environment,
    environment_file_patterns,
    expand_specifiers,
    in_force,
    order_dropins,
    split_words,
)

__all__ = ("OWN_PLACE", "UNIT_NAME", "UnitFiles", "describe_unit")

OWN_PLACE = "/etc/systemd/system"
UNIT_NAME = re.compile(
    r"[A-Za-z0-9:_.@\\-]+\.(service|socket|mount|swap|timer|path|slice|target)\Z"
)


class UnitFiles:
    """The unit files of a host; `root` is put before every path, for tests."""

    def __init__(self, unit: str, root: str = "") -> None:
        self.unit = unit
        self.root = root

    def read(self, path: str) -> str:
        """Return a file's text, with undecodable bytes kept; systemd judges those."""
        return Path(self.root + path).read_text(encoding="utf-8", errors="surrogateescape")

    def unit_file(self) -> str | None:
        """Return the path of the unit file in force, or None."""
        template = re.sub(r"@[^@]+\.", "@.", self.unit)
        for name in dict.fromkeys((self.unit, template)):
            for place in UNIT_PATHS:
                if os.path.lexists(f"{self.root}{place}/{name}"):
                    return f"{place}/{name}"
        return None

    def aliases(self) -> list[str]:
        """Return the other names of the unit: symbolic links in the load path to or from it."""
        kind = self.unit.rpartition(".")[2]
        names: set[str] = set()
        for place in UNIT_PATHS:
            for link in glob.glob(f"{glob.escape(self.root + place)}/*.{kind}"):
                if os.path.islink(link):
                    pair = {os.path.basename(link), os.path.basename(os.path.realpath(link))}
                    names |= pair if self.unit in pair else set()
        return sorted(name for name in names - {self.unit} if name.endswith(f".{kind}"))

    def dropins(self, own_path: str) -> list[str]:
        """Return the drop-ins in reading order, as if `own_path` existed."""
        found = []
        for directory in dropin_directories(self.unit, self.aliases()):
            here = glob.glob(f"{glob.escape(self.root + directory)}/*.conf")
            paths = {f"{directory}/{os.path.basename(path)}" for path in here}
            if directory == os.path.dirname(own_path):
                paths.add(own_path)
            found += sorted(paths)
        return order_dropins(found)

    def fragments(self, own_path: str, own_text: str | None) -> list[Fragment]:
        """Return the unit and its drop-ins; ours with the text given, without it when None."""
        unit_file = self.unit_file()
        paths = [unit_file] if unit_file else []
        paths += self.dropins(own_path)
        return [
            Fragment(path, own_text or "" if path == own_path else self.read(path))
            for path in paths
            if path != own_path or own_text is not None
        ]

    def environment_files(self, assignments: list[Assignment]) -> list[Fragment]:
        """Read the files that EnvironmentFile= names; one that is not there sets nothing."""
        files = []
        for pattern in environment_file_patterns(assignments):
            name = expand_specifiers(pattern.removeprefix("-"), self.unit)
            for found in sorted(glob.glob(self.root + name)):
                path = found.removeprefix(self.root)
                files.append(Fragment(path, self.read(path)))
        return files


def describe_unit(
    assignments: list[Assignment], files: list[Fragment], unit_file: str | None, names: list[str]
) -> dict[str, t.Any]:
    """Return `unit_file` as the modules document it: what the unit's files say of its process."""

    def scalar(key: str) -> str | None:
        found = in_force(assignments, "Service", key)
        return found[-1].value if found else None

    variables = effective_environment(assignments, files)
    start = split_words(scalar("ExecStart") or "")
    return {
        "path": unit_file,
        "user": scalar("User"),
        "group": scalar("Group"),
        "program": start[0].lstrip("@-:+!|") if start else None,
        "environment": {
            name: variables[name].value if name in variables else None for name in names
        },
    }
