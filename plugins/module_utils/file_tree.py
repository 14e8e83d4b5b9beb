# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""A folder whose whole content is known: what is wrong with it, and how it is put right.

Names are relative to the folder, with ``/``; the folder itself is ``""``. First the pure part;
the functions that touch the file system stand at the end. Those walk down by descriptors and
follow no symbolic link, so that nothing below the folder can lead them out of it.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

FOLDER_MODE = 0o755

FILE = "a file"
FOLDER = "a folder"
LINK = "a symbolic link"
SPECIAL = "a special file"

# With the leading zero: YAML reads an unquoted 0644 as the number 420.
_MODE = re.compile(r"0[0-7]{3}", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

Owner = tuple[int, int]


class TreeError(ValueError):
    """The wish, or what is on the host, is not acceptable; the text says what and where."""


@dataclass(frozen=True, slots=True)
class Wish:
    """One entry as it should be; a folder has no content."""

    mode: int
    content: bytes | None = None

    @property
    def kind(self) -> str:
        return FOLDER if self.content is None else FILE


@dataclass(frozen=True, slots=True)
class Found:
    """One entry on the host; the content is only there where a file is wished for."""

    kind: str
    mode: int
    owner: Owner
    content: bytes | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What to remove, and then what to write, parents first."""

    removed: tuple[str, ...]
    written: tuple[str, ...]


Tree = Mapping[str, Wish]
Entries = Mapping[str, Found]


def parse_path(path: str) -> str:
    """Return the folder's path. Raises TreeError unless it is absolute and says no more than that.

    A folder at the top, such as ``/etc``, belongs to nobody alone.
    """
    # normpath keeps two slashes at the beginning
    if not path.startswith("/") or path.startswith("//") or os.path.normpath(path) != path:
        raise TreeError("is not an absolute path without '..', '//' and a slash at the end")
    if path.count("/") < 2 or _CONTROL.search(path):
        raise TreeError("is not a folder that one owner can have whole")
    return path


def parse_files(files: Sequence[Mapping[str, Any]]) -> Tree:
    """Return the tree that holds these files ({path, content, mode}). Raises TreeError."""
    if not files:
        raise TreeError("files is empty: with state absent the folder goes as well")
    tree: dict[str, Wish] = {}
    for file in files:
        name = file["path"]
        _require_name(name)
        if name in tree:
            raise TreeError(f"{name!r} is in files twice")
        tree[name] = Wish(_parse_mode(name, file["mode"]), _encode(name, file["content"]))
    for folder in {above for name in tree for above in _folders_above(name)}:
        if folder in tree:
            raise TreeError(f"{folder!r} is a file and a folder")
        tree[folder] = Wish(FOLDER_MODE)
    return tree


def make_plan(tree: Tree, found: Entries, owner: Owner) -> Plan:
    """Return what makes ``found`` into ``tree``; an empty tree removes all."""
    removed = [name for name, entry in found.items() if _is_in_the_way(tree.get(name), entry)]
    written = [
        name
        for name, wish in tree.items()
        if name not in found or what_differs(wish, found[name], owner)
    ]
    return Plan(tuple(sorted(removed)), tuple(sorted(written)))


def what_differs(wish: Wish, found: Found, owner: Owner) -> str:
    """Return in two words what is not as wished, empty when all is."""
    if found.kind != wish.kind:
        return found.kind
    if found.content != wish.content:
        return "other content"
    if found.mode != wish.mode:
        return f"mode {found.mode:04o}"
    return "" if found.owner == owner else "owner {}:{}".format(*found.owner)


def show(name: str, kind: str) -> str:
    """Return the name for people: folders end in a slash, undecodable bytes are escaped."""
    text = os.fsencode(name or ".").decode("utf-8", "backslashreplace")
    return f"{text}/" if kind == FOLDER else text


def diff_of(path: str, tree: Tree, found: Entries, plan: Plan, owner: Owner) -> dict[str, str]:
    """Return the difference as names, not as the files' text."""
    before = []
    for name in sorted({*plan.removed, *plan.written} & set(found)):
        differs = what_differs(tree[name], found[name], owner) if name in tree else ""
        before.append(show(name, found[name].kind) + (f" ({differs})" if differs else ""))
    after = [show(name, tree[name].kind) for name in plan.written]
    return {
        "before": "".join(f"{line}\n" for line in before),
        "after": "".join(f"{line}\n" for line in after),
        "before_header": path,
        "after_header": path,
    }


def _is_in_the_way(wish: Wish | None, found: Found) -> bool:
    """Tell whether the entry must go first; a rename replaces all but a folder."""
    return wish is None or (found.kind != wish.kind and FOLDER in (found.kind, wish.kind))


def _require_name(name: str) -> None:
    if name.startswith("/") or {"", ".", ".."} & set(name.split("/")) or _CONTROL.search(name):
        raise TreeError(f"{name!r} is not a path below the folder")


def _parse_mode(name: str, mode: str) -> int:
    if not _MODE.fullmatch(mode):
        raise TreeError(f"the mode of {name!r} is not a quoted octal number such as '0644'")
    return int(mode, 8)


def _encode(name: str, content: str) -> bytes:
    try:
        return content.encode("utf-8")
    except UnicodeEncodeError:
        raise TreeError(f"the content of {name!r} is not text") from None


def _folders_above(name: str) -> Iterator[str]:
    """Yield the folders that hold the file, the tree's own, ``""``, included."""
    while name:
        name = name.rpartition("/")[0]
        yield name


# The file system


def scan(path: str, tree: Tree) -> Entries:
    """Return what is at ``path`` now, empty when nothing is; a folder not in ``tree`` is one entry.

    Raises TreeError when ``path`` is something else than a folder, and OSError.
    """
    try:
        with _open_folder(path, []) as above:
            top = _look(above, os.path.basename(path), None)
    except FileNotFoundError:
        return {}
    if top.kind != FOLDER:
        raise TreeError(f"is {top.kind}")
    found = {"": top}
    for folder in sorted(name for name, wish in tree.items() if wish.kind == FOLDER):
        if folder in found and found[folder].kind == FOLDER:
            with _open_folder(path, _parts(path, folder)) as descriptor:
                for last in os.listdir(descriptor):
                    name = f"{folder}/{last}" if folder else last
                    found[name] = _look(descriptor, last, tree.get(name))
    return found


def apply_plan(path: str, tree: Tree, plan: Plan, owner: Owner) -> None:
    """Do what the plan says. Raises OSError; what is done by then is not done again."""
    for name in plan.removed:
        *folders, last = _parts(path, name)
        with _open_folder(path, folders) as descriptor:
            _remove(descriptor, last)
    for name in plan.written:
        *folders, last = _parts(path, name)
        with _open_folder(path, folders) as descriptor:
            content = tree[name].content
            if content is None:
                _make_folder(descriptor, last, tree[name].mode, owner)
            else:
                _write(descriptor, last, content, tree[name].mode, owner)


def _parts(path: str, name: str) -> list[str]:
    """Return the way to the entry from the folder that holds ``path``."""
    return [os.path.basename(path), *(name.split("/") if name else [])]


@contextmanager
def _open_folder(path: str, parts: Sequence[str]) -> Iterator[int]:
    """Open the folder that these parts lead to from the one that holds ``path``."""
    descriptor = os.open(os.path.dirname(path), _FOLDER_FLAGS)
    try:
        for part in parts:
            inner = os.open(part, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _look(folder: int, last: str, wish: Wish | None) -> Found:
    status = os.stat(last, dir_fd=folder, follow_symlinks=False)
    kinds = {stat.S_IFREG: FILE, stat.S_IFDIR: FOLDER, stat.S_IFLNK: LINK}
    kind = kinds.get(stat.S_IFMT(status.st_mode), SPECIAL)
    content = None
    if kind == FILE and wish is not None and wish.content is not None:
        # One byte more than wished for is enough to differ, however large the file is.
        content = _read(folder, last, len(wish.content) + 1)
    return Found(kind, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid), content)


def _read(folder: int, last: str, size: int) -> bytes:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with os.fdopen(os.open(last, flags, dir_fd=folder), "rb") as file:
        return file.read(size)


def _remove(folder: int, last: str) -> None:
    if stat.S_ISDIR(os.stat(last, dir_fd=folder, follow_symlinks=False).st_mode):
        shutil.rmtree(last, dir_fd=folder)
    else:
        os.unlink(last, dir_fd=folder)


def _make_folder(above: int, last: str, mode: int, owner: Owner) -> None:
    with suppress(FileExistsError):
        os.mkdir(last, 0o700, dir_fd=above)
    descriptor = os.open(last, _FOLDER_FLAGS | os.O_NOFOLLOW, dir_fd=above)
    try:
        os.fchown(descriptor, *owner)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _write(folder: int, last: str, content: bytes, mode: int, owner: Owner) -> None:
    """Put a new file in place in one step: the old one may have other names, or be executed."""
    temporary = f".{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
        os.replace(temporary, last, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary, dir_fd=folder)
        raise
