# SPDX-License-Identifier: GPL-3.0-or-later
"""The module file_tree as Ansible runs it: check, real, again, check again."""

from __future__ import annotations

import json
import os
import stat
import typing as t
from pathlib import Path

import pytest
from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.modules import file_tree

Run = t.Callable[..., dict[str, t.Any]]
FILES = [
    {"path": "run", "content": "#!/bin/sh\n", "mode": "0755"},
    {"path": "pkg/__init__.py", "content": ""},
    {"path": "pkg/sub/one.py", "content": "ONE = 'geheim'\n"},
]


@pytest.fixture(autouse=True)
def owner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only root can give files away."""
    monkeypatch.setattr(file_tree, "ROOT", (os.geteuid(), os.getegid()))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "lib"


@pytest.fixture
def run(run_module: Run, folder: Path) -> Run:
    def call(check: bool = False, **params: t.Any) -> dict[str, t.Any]:
        wish = {"path": str(folder), "files": FILES, **params}
        return run_module(file_tree.main, check=check, **wish)

    return call


def listing(path: Path) -> dict[str, tuple[int, str | None]]:
    """Return mode and content of all that is below the folder."""
    return {
        str(entry.relative_to(path)): (
            stat.S_IMODE(entry.lstat().st_mode),
            entry.read_text() if entry.is_file() and not entry.is_symlink() else None,
        )
        for entry in path.rglob("*")
    }


WISHED = {
    "run": (0o755, "#!/bin/sh\n"),
    "pkg": (0o755, None),
    "pkg/__init__.py": (0o644, ""),
    "pkg/sub": (0o755, None),
    "pkg/sub/one.py": (0o644, "ONE = 'geheim'\n"),
}


def settle(run: Run, folder: Path) -> dict[str, t.Any]:
    """Foretell, do it, and see that nothing is left to do; return the result."""
    before = listing(folder)
    foretold = run(check=True)
    assert listing(folder) == before
    done = run()
    assert foretold == done
    assert listing(folder) == WISHED
    for check in (False, True):
        again = run(check=check)
        assert (again["changed"], again["written"], again["removed"]) == (False, [], [])
        assert again["diff"]["before"] == again["diff"]["after"] == ""
    return done


def test_on_a_fresh_host(run: Run, folder: Path) -> None:
    old = os.umask(0o077)
    try:
        done = settle(run, folder)
    finally:
        os.umask(old)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o755
    assert done["changed"] is True
    names = ["./", "pkg/", "pkg/__init__.py", "pkg/sub/", "pkg/sub/one.py", "run"]
    assert (done["written"], done["removed"]) == (names, [])
    assert done["diff"]["after"].split() == names
    assert "geheim" not in json.dumps({**done, "invocation": None})


def test_check_mode_where_not_even_the_folder_above_is(run: Run, tmp_path: Path) -> None:
    path = str(tmp_path / "none" / "lib")
    assert run(check=True, path=path)["changed"] is True
    assert run(path=path)["failed"] is True


def test_what_does_not_belong_there_goes(run: Run, folder: Path, tmp_path: Path) -> None:
    run()
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").touch()
    (folder / "old.py").touch()
    (folder / ".hidden").touch()
    (folder / "pkg" / "__pycache__").mkdir()
    (folder / "pkg" / "__pycache__" / "x.pyc").touch()
    (folder / "pkg" / "link").symlink_to(outside)
    (folder / "dangling").symlink_to("nowhere")
    (folder / os.fsdecode(b"\xff")).touch()
    done = settle(run, folder)
    assert done["written"] == []
    gone = [".hidden", "dangling", "old.py", "pkg/__pycache__/", "pkg/link", "\\xff"]
    assert sorted(done["removed"]) == sorted(gone)
    assert sorted(done["diff"]["before"].split()) == sorted(gone)
    assert os.listdir(outside) == ["kept"]


def test_what_is_wrong_is_mended(run: Run, folder: Path) -> None:
    run()
    (folder / "run").chmod(0o777)
    (folder / "pkg" / "sub").chmod(0o777)
    (folder / "pkg" / "sub" / "one.py").write_text("TWO = 2\n")
    done = settle(run, folder)
    assert done["written"] == ["pkg/sub/", "pkg/sub/one.py", "run"]
    assert done["diff"]["before"].splitlines() == [
        "pkg/sub/ (mode 0777)",
        "pkg/sub/one.py (other content)",
        "run (mode 0777)",
    ]
    assert "TWO" not in json.dumps(done)


def test_another_owner_is_mended(run: Run, folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give files away")
    run()
    os.chown(folder / "run", 1, 1)
    os.chown(folder, 1, 1)
    assert settle(run, folder)["diff"]["before"] == "./ (owner 1:1)\nrun (owner 1:1)\n"
    assert {folder.stat().st_uid, (folder / "run").stat().st_uid} == {0}


def test_a_link_in_place_of_a_file(run: Run, folder: Path, tmp_path: Path) -> None:
    run()
    target = tmp_path / "target"
    # The right text does not make it the right file.
    target.write_text("#!/bin/sh\n")
    (folder / "run").unlink()
    (folder / "run").symlink_to(target)
    assert settle(run, folder)["written"] == ["run"]
    assert target.read_text() == "#!/bin/sh\n"
    assert not (folder / "run").is_symlink()


def test_a_link_in_place_of_a_folder(run: Run, folder: Path, tmp_path: Path) -> None:
    run()
    outside = tmp_path / "outside"
    (folder / "pkg").rename(outside)
    (outside / "kept").touch()
    (folder / "pkg").symlink_to(outside)
    done = settle(run, folder)
    assert done["removed"] == ["pkg"]
    assert done["written"] == ["pkg/", "pkg/__init__.py", "pkg/sub/", "pkg/sub/one.py"]
    assert (outside / "kept").exists()


def test_a_folder_in_place_of_a_file_and_the_reverse(run: Run, folder: Path) -> None:
    (folder / "run" / "x").mkdir(parents=True)
    (folder / "pkg").write_text("")
    assert settle(run, folder)["removed"] == ["pkg", "run/"]


def test_a_fifo_in_place_of_a_file_blocks_nothing(run: Run, folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "run")
    assert "run" in settle(run, folder)["written"]


@pytest.mark.parametrize("state", ["present", "absent"])
def test_a_link_or_a_file_at_the_path_is_refused(
    run: Run, folder: Path, tmp_path: Path, state: str
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "kept").touch()
    folder.symlink_to(target)
    for check in (True, False):
        assert "is a symbolic link" in run(check=check, state=state)["msg"]
    assert os.listdir(target) == ["kept"]
    folder.unlink()
    folder.touch()
    assert "is a file" in run(state=state)["msg"]


@pytest.mark.parametrize(
    "params",
    [
        {"path": "lib"},
        {"path": "/usr/../tmp/lib"},
        {"path": "/"},
        {"files": []},
        {"files": None},
        {"files": [{"path": "../x", "content": ""}]},
        {"files": [{"path": "/x/y", "content": ""}]},
        {"files": [{"path": "x"}]},
    ],
)
def test_hostile_or_empty_wishes_change_nothing(
    run: Run, folder: Path, params: dict[str, t.Any]
) -> None:
    run()
    assert run(**params)["failed"] is True
    assert listing(folder) == WISHED


def test_absent(run: Run, folder: Path, tmp_path: Path) -> None:
    assert run(state="absent")["changed"] is False
    run()
    (folder / "out").symlink_to(tmp_path)
    foretold = run(check=True, state="absent")
    assert (foretold["changed"], foretold["removed"], folder.exists()) == (True, ["./"], True)
    assert run(state="absent") == foretold
    assert os.listdir(tmp_path) == []
    for check in (False, True):
        assert run(check=check, state="absent")["changed"] is False


def test_the_system_log_gets_no_files(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list[tuple[str, object]] = []
    monkeypatch.setattr(
        AnsibleModule, "log", lambda _self, msg, log_args=None: logged.append((msg, log_args))
    )
    run()
    assert "3 files" in logged[0][0]
    assert "geheim" not in str(logged)
