# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Lookup of the Python files below a folder."""

from __future__ import annotations

DOCUMENTATION = r"""
name: source_tree
author: llmsec.hardening contributors (@llmsec)
version_added: 0.2.0
short_description: The Python files below a folder of the control node
description:
  - Reads every C(*.py) below a folder, in the order of their paths, for
    M(llmsec.hardening.file_tree).
  - Links to files are read, links to folders are not followed. Hidden files and folders, and
    C(__pycache__), are left out.
options:
  _terms:
    description: Folders. One that has no such file is an error.
    type: list
    elements: path
    required: true
"""

EXAMPLES = r"""
- name: Install a role's Python code
  llmsec.hardening.file_tree:
    path: /usr/local/lib/example
    files: "{{ query('llmsec.hardening.source_tree', role_path ~ '/files') }}"
"""

RETURN = r"""
_raw:
  description: The files.
  type: list
  elements: dict
  contains:
    path:
      description: The file's path, relative to the folder.
      type: str
    content:
      description: The file's text, unchanged.
      type: str
"""

import os
from collections.abc import Iterator

from ansible.errors import AnsibleLookupError
from ansible.plugins.lookup import LookupBase


def source_names(folder: str) -> Iterator[str]:
    """Yield the relative paths of the Python files below a folder. Raises OSError."""

    def stop(error: OSError) -> None:
        raise error

    for path, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if name[0] != "." and name != "__pycache__"]
        for name in names:
            if name[0] != "." and name.endswith(".py"):
                yield os.path.relpath(os.path.join(path, name), folder)


def read_sources(folder: str) -> list[dict[str, str]]:
    """Return path and content of each file. Raises OSError, UnicodeDecodeError."""
    files = []
    for name in sorted(source_names(folder)):
        # newline: as it is in the file
        with open(os.path.join(folder, name), encoding="utf-8", newline="") as file:
            files.append({"path": name, "content": file.read()})
    return files


class LookupModule(LookupBase):
    """Reads source files."""

    def run(
        self, terms: list[str], variables: dict[str, object] | None = None, **kwargs: object
    ) -> list[dict[str, str]]:
        """Return one dictionary per file."""
        result = []
        for folder in map(str, terms):
            try:
                files = read_sources(folder)
            except (OSError, UnicodeDecodeError) as error:
                raise AnsibleLookupError(f"source_tree: {folder}: {error}") from error
            if not files:
                raise AnsibleLookupError(f"source_tree: {folder}: holds no Python file")
            result += files
        return result
