# SPDX-License-Identifier: GPL-3.0-or-later
"""Whatever is in the folder, one run makes it the wished tree, and a second has nothing to do."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import file_tree
from ansible_collections.llmsec.hardening.plugins.module_utils.file_tree import (
    FILE,
    FOLDER,
    LINK,
    Found,
    Plan,
    TreeError,
    Wish,
    apply_plan,
    make_plan,
    parse_files,
    parse_path,
    scan,
    show,
    what_differs,
)
from hypothesis import given, settings
from hypothesis import strategies as st

ME = (os.geteuid(), os.getegid())


def a_file(path: str, content: str = "", mode: str = "0644") -> dict[str, str]:
    return {"path": path, "content": content, "mode": mode}


def converge(path: Path, files: list[dict[str, str]]) -> Plan:
    tree = parse_files(files)
    plan = make_plan(tree, scan(str(path), tree), ME)
    apply_plan(str(path), tree, plan, ME)
    return plan


def contents(path: Path) -> dict[str, str]:
    return {
        str(file.relative_to(path)): file.read_text() for file in path.rglob("*") if file.is_file()
    }


def test_the_folders_on_the_way_belong_to_the_tree() -> None:
    tree = parse_files([a_file("a/b/c.py", "x\n", "0755")])
    assert tree == {
        "": Wish(0o755),
        "a": Wish(0o755),
        "a/b": Wish(0o755),
        "a/b/c.py": Wish(0o755, b"x\n"),
    }


@pytest.mark.parametrize(
    "name",
    ["", "/etc/passwd", "..", "../x", "a/../../x", "a/..", "./a", "a//b", "a/", "a\nb", "\0"],
)
def test_hostile_names_are_refused(name: str) -> None:
    with pytest.raises(TreeError, match="not a path below"):
        parse_files([a_file(name)])


@pytest.mark.parametrize("path", ["x", "../x", "/a/../b", "/a/b/", "//a/b", "/a//b", "/", "/etc"])
def test_hostile_folders_are_refused(path: str) -> None:
    with pytest.raises(TreeError):
        parse_path(path)


def test_an_ordinary_folder_is_taken() -> None:
    assert parse_path("/usr/local/lib/x") == "/usr/local/lib/x"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "empty"),
        ([a_file("a"), a_file("a")], "twice"),
        ([a_file("a"), a_file("a/b")], "a file and a folder"),
        # What YAML makes of an unquoted 0644
        ([a_file("a", mode="420")], "octal"),
        ([a_file("a", mode="4755")], "octal"),
        ([a_file("a", mode="u=rw")], "octal"),
        ([a_file("a", "\ud800")], "not text"),
    ],
)
def test_what_is_no_tree(files: list[dict[str, str]], message: str) -> None:
    with pytest.raises(TreeError, match=message):
        parse_files(files)


@pytest.mark.parametrize(
    ("found", "differs"),
    [
        (Found(FILE, 0o644, (0, 0), b"x"), ""),
        (Found(FILE, 0o644, (0, 0), b"xy"), "other content"),
        (Found(FILE, 0o4644, (0, 0), b"x"), "mode 4644"),
        (Found(FILE, 0o644, (0, 7), b"x"), "owner 0:7"),
        (Found(LINK, 0o777, (0, 0)), LINK),
        (Found(FOLDER, 0o644, (0, 0)), FOLDER),
    ],
)
def test_what_differs(found: Found, differs: str) -> None:
    assert what_differs(Wish(0o644, b"x"), found, (0, 0)) == differs


def test_only_a_folder_is_in_the_way_of_a_file() -> None:
    tree = {"": Wish(0o755), "a": Wish(0o644, b""), "b": Wish(0o644, b""), "c": Wish(0o755)}
    found = {
        "": Found(FOLDER, 0o755, ME),
        "a": Found(LINK, 0o777, ME),
        "b": Found(FOLDER, 0o755, ME),
        "c": Found(LINK, 0o777, ME),
        "stale": Found(FILE, 0o644, ME),
    }
    assert make_plan(tree, found, ME) == Plan(("b", "c", "stale"), ("a", "b", "c"))


def test_names_for_people() -> None:
    assert [show("", FOLDER), show("a", FOLDER), show("a", FILE)] == ["./", "a/", "a"]
    assert show(os.fsdecode(b"\xff"), FILE) == "\\xff"


def test_a_large_stale_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "t"
    converge(folder, [a_file("a", "12345")])
    (folder / "stale").write_text("x" * 100)
    (folder / "a").write_text("x" * 100)
    read: list[tuple[str, int]] = []

    def spy(_folder: int, last: str, size: int) -> bytes:
        read.append((last, size))
        return b""

    monkeypatch.setattr(file_tree, "_read", spy)
    scan(str(folder), parse_files([a_file("a", "12345")]))
    assert read == [("a", 6)]


def test_another_name_of_a_file_keeps_its_content(tmp_path: Path) -> None:
    folder, other = tmp_path / "t", tmp_path / "other"
    converge(folder, [a_file("a", "old")])
    os.link(folder / "a", other)
    converge(folder, [a_file("a", "new", "0600")])
    assert (folder / "a").read_text() == "new"
    assert (other.read_text(), stat.S_IMODE(other.stat().st_mode)) == ("old", 0o644)


def test_a_link_that_comes_after_the_look_is_not_followed(tmp_path: Path) -> None:
    folder, outside = tmp_path / "t", tmp_path / "outside"
    outside.mkdir()
    converge(folder, [a_file("a/b", "old")])
    tree = parse_files([a_file("a/b", "new")])
    plan = make_plan(tree, scan(str(folder), tree), ME)
    shutil.rmtree(folder / "a")
    (folder / "a").symlink_to(outside)
    with pytest.raises(NotADirectoryError):
        apply_plan(str(folder), tree, plan, ME)
    assert os.listdir(outside) == []


def test_a_write_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "t"
    converge(folder, [a_file("a", "old")])

    def fail(*_arguments: object, **_keywords: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(file_tree.os, "fchmod", fail)
        with pytest.raises(OSError, match="No space"):
            converge(folder, [a_file("a", "new")])
    assert contents(folder) == {"a": "old"}


KINDS = st.sampled_from(["file", "folder", "link", "fifo"])


def disturb(folder: Path, entries: Mapping[str, str], outside: Path) -> None:
    """Make what can be made of these entries in the folder."""
    for name, kind in entries.items():
        path = folder / name
        if os.path.lexists(path) or not path.parent.is_dir() or path.parent.is_symlink():
            continue
        if kind == "file":
            path.write_text("other")
        elif kind == "folder":
            path.mkdir(mode=0o700)
        elif kind == "link":
            path.symlink_to(outside)
        else:
            os.mkfifo(path)


@settings(max_examples=60, deadline=None)
@given(
    names=st.sets(st.sampled_from(["a", "b", "c/a", "c/b/a"]), min_size=1),
    entries=st.dictionaries(st.sampled_from(["a", "b", "c", "a/b", "c/a", "c/b", "c/b/a"]), KINDS),
)
def test_one_run_makes_the_tree(names: set[str], entries: dict[str, str]) -> None:
    files = [a_file(name, f"{name}\n") for name in names]
    with tempfile.TemporaryDirectory() as top:
        folder, outside = Path(top, "t"), Path(top, "outside")
        outside.mkdir()
        (outside / "kept").touch()
        folder.mkdir()
        disturb(folder, entries, outside)
        converge(folder, files)
        assert contents(folder) == {name: f"{name}\n" for name in names}
        kinds = {stat.S_IFMT(os.lstat(path).st_mode) for path in folder.rglob("*")}
        assert kinds <= {stat.S_IFREG, stat.S_IFDIR}
        assert os.listdir(outside) == ["kept"]
        assert converge(folder, files) == Plan((), ())
