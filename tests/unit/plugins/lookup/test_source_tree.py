# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup reads every Python file below a folder, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from ansible.errors import AnsibleError
from ansible_collections.llmsec.hardening.plugins.lookup.source_tree import LookupModule


def lookup(*folders: Path) -> list[dict[str, str]]:
    return LookupModule().run([str(folder) for folder in folders])


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    for name in ("b.py", "a/z.py", "a/__init__.py", "a/b/deep.py", "script", "a/data.json"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"# {name} {{{{ x }}}}\r\n\n".encode())
    return folder


def test_all_files_in_order_and_unchanged(sources: Path) -> None:
    found = lookup(sources)
    assert [file["path"] for file in found] == ["a/__init__.py", "a/b/deep.py", "a/z.py", "b.py"]
    assert found[1]["content"] == "# a/b/deep.py {{ x }}\r\n\n"


def test_a_link_to_a_file_is_read_and_one_to_a_folder_is_not(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "keys.py").write_text("KEYS\n")
    (sources / "keys.py").symlink_to("../other/keys.py")
    (sources / "linked").symlink_to(tmp_path / "other")
    found = {file["path"]: file["content"] for file in lookup(sources)}
    assert found["keys.py"] == "KEYS\n"
    assert "linked/keys.py" not in found


def test_what_tools_leave_behind_is_left_out(sources: Path) -> None:
    before = lookup(sources)
    for name in ("a/__pycache__/x.py", "__pycache__/y.cpython-313.pyc", ".venv/z.py", "a/.#b.py"):
        path = sources / name
        path.parent.mkdir(exist_ok=True)
        path.touch()
    assert lookup(sources) == before


def test_a_folder_without_sources_is_an_error(sources: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(AnsibleError, match="holds no Python file"):
        lookup(sources, tmp_path / "empty")
    with pytest.raises(AnsibleError, match="No such file"):
        lookup(tmp_path / "none")


def test_what_is_not_text_is_an_error(sources: Path) -> None:
    (sources / "bad.py").write_bytes(b"\xff")
    with pytest.raises(AnsibleError, match=r"source_tree: .*utf-8"):
        lookup(sources)
