# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read nginx's configuration as nginx does, from the dump that `nginx -T` makes of it.

Strict: what nginx would read in another way than this, or not at all, is an NginxSyntaxError, never
half a tree. The rules are those of ngx_conf_read_token() in nginx 1.22, src/core/ngx_conf_file.c.
Pure functions.
"""

from __future__ import annotations

import functools
import posixpath
import re
import typing as t
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ("Directive", "NginxSyntaxError", "assemble", "parse", "split_dump", "walk")

_MARKER = re.compile(r"# configuration file ([^\n]+):\n")
_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+)|(?P<comment>\#[^\n]*)|(?P<mark>[;{}])
    |"(?P<double>(?:\\[\s\S]|[^"\\])*)"|'(?P<single>(?:\\[\s\S]|[^'\\])*)'
    |(?P<word>(?!["'])(?:\\[\s\S]|\$\{*|[^\\$ \t\r\n;{])+)""",
    re.VERBOSE,
)
# Within quotes and without: all other backslashes stay (they may be a pattern's)
_ESCAPE = re.compile(r"\\([\"'\\trn])")
_ESCAPED = {"t": "\t", "r": "\r", "n": "\n"}
# A token in quotes ends at its quote, and one of these must follow.
_AFTER_QUOTE = frozenset(" \t\r\n;{)")
# Far more than anybody writes, and little enough to walk the tree by recursion
_MOST_DEEP = 32
_MOST_INCLUDES = 8
_WILD = re.compile(r"[*?\[]")


class NginxSyntaxError(ValueError):
    """Text that is no nginx configuration, or one that cannot be judged; says where."""


@dataclass(frozen=True, slots=True)
class Directive:
    """One directive. `block` is None for one that ends with a semicolon."""

    name: str
    args: tuple[str, ...]
    block: tuple["Directive", ...] | None
    file: str
    line: int

    @property
    def where(self) -> str:
        """File and line, for evidence."""
        return f"{self.file}:{self.line}"

    @property
    def text(self) -> str:
        """The directive in one line, without what is in its block."""
        return " ".join((self.name, *self.args))


@dataclass(slots=True)
class _Open:
    """A block whose end was not read yet; the outermost one has no words."""

    words: list[str]
    line: int
    inside: list[Directive]


def _plain(text: str) -> str:
    return _ESCAPE.sub(lambda found: _ESCAPED.get(found[1], found[1]), text)


class _Reader:
    """Turns tokens into directives; `place` says where the reader is, for messages."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.line = 1
        self.words: list[str] = []
        self.begun = 1
        self.blocks = [_Open([], 1, [])]

    def fail(self, what: str) -> t.NoReturn:
        raise NginxSyntaxError(f"{self.file}:{self.line}: {what}")

    def word(self, text: str) -> None:
        if not self.words:
            self.begun = self.line
        self.words.append(text)

    def mark(self, mark: str) -> None:
        if bool(self.words) == (mark == "}"):
            self.fail(f"unexpected {mark}")
        if mark == "}":
            self._close()
        elif mark == "{":
            self._open()
        else:
            self._add(self.words, None, self.begun)
        self.words = []

    def _open(self) -> None:
        if self.words[0].endswith("_by_lua_block"):
            self.fail(f"{self.words[0]} holds a program, which is not read here")
        if len(self.blocks) > _MOST_DEEP:
            self.fail(f"more than {_MOST_DEEP} blocks within each other")
        self.blocks.append(_Open(self.words, self.begun, []))

    def _close(self) -> None:
        if len(self.blocks) == 1:
            self.fail("unexpected }")
        ended = self.blocks.pop()
        self._add(ended.words, tuple(ended.inside), ended.line)

    def _add(self, words: list[str], block: tuple[Directive, ...] | None, line: int) -> None:
        name, *args = words
        self.blocks[-1].inside.append(Directive(name, tuple(args), block, self.file, line))


def parse(text: str, file: str = "nginx.conf") -> tuple[Directive, ...]:
    """Return the directives of one file, includes as they stand, or raise NginxSyntaxError."""
    reader, at = _Reader(file), 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            reader.fail("a quote or a backslash that nothing follows")
        kind, at = t.cast(str, found.lastgroup), found.end()
        if kind == "mark":
            reader.mark(found[kind])
        elif kind in ("double", "single", "word"):
            reader.word(_plain(found[kind]))
            if kind != "word" and text[at : at + 1] not in _AFTER_QUOTE:
                reader.fail("no blank after a closing quote")
        reader.line += found[0].count("\n")
    if reader.words or len(reader.blocks) > 1:
        reader.fail('the file ends within a directive or a block; ";" or "}" is missing')
    return tuple(reader.blocks[0].inside)


def split_dump(dump: str, read: Callable[[str], str]) -> dict[str, str]:
    """Return {path: text} of what `nginx -T` has printed; the first is the main file.

    `read` gives the text of a file on disk and raises OSError. It is the measure of where a file
    ends in the dump, since a comment in it may look like the beginning of the next.
    """
    files: dict[str, str] = {}
    at = 0
    while at < len(dump):
        found = _MARKER.match(dump, at)
        if found is None:
            raise NginxSyntaxError(f"the dump has {dump[at : at + 40]!r} between two files")
        path = found[1]
        try:
            text = read(path)
        except OSError as exc:
            raise NginxSyntaxError(f"{path} cannot be read again: {exc.strerror}") from exc
        if path in files or not dump.startswith(f"{text}\n", found.end()):
            raise NginxSyntaxError(f"{path} is not what nginx has read a moment ago")
        files[path] = text
        at = found.end() + len(text) + 1
    return files


def assemble(files: Mapping[str, str], main: str | None = None) -> tuple[Directive, ...]:
    """Return the directives of the main file, the first unless named, includes in their places.

    Raises NginxSyntaxError also for an include that the files lack, and for a file that none names.
    """
    first = next(iter(files), None) if main is None else main
    if first is None:
        raise NginxSyntaxError("no configuration at all")
    loader = _Loader(files, posixpath.dirname(first))
    tree = loader.load(first, ())
    missed = [path for path in files if path not in loader.seen]
    if missed:
        raise NginxSyntaxError(f"{missed[0]} is in the dump, and nothing includes it")
    return tree


class _Loader:
    def __init__(self, files: Mapping[str, str], base: str) -> None:
        self.files = files
        self.base = base
        self.seen: dict[str, tuple[Directive, ...]] = {}

    def load(self, path: str, around: tuple[str, ...]) -> tuple[Directive, ...]:
        if path in around or len(around) > _MOST_INCLUDES:
            raise NginxSyntaxError(f"{path} includes itself, or its includes go too deep")
        if path not in self.seen:
            if path not in self.files:
                raise NginxSyntaxError(f"{path} is included, and not in the dump")
            self.seen[path] = parse(self.files[path], path)
        return self._expand(self.seen[path], (*around, path))

    def _expand(
        self, directives: tuple[Directive, ...], around: tuple[str, ...]
    ) -> tuple[Directive, ...]:
        found: list[Directive] = []
        for one in directives:
            if one.name == "include" and one.block is None:
                for path in self._included(one):
                    found += self.load(path, around)
            elif one.block:
                block = self._expand(one.block, around)
                found.append(Directive(one.name, one.args, block, one.file, one.line))
            else:
                found.append(one)
        return tuple(found)

    def _included(self, directive: Directive) -> list[str]:
        if len(directive.args) != 1:
            raise NginxSyntaxError(f"{directive.where}: include takes one file")
        path = posixpath.join(self.base, directive.args[0])
        if not _WILD.search(path):
            return [path]
        pattern = _glob(path)
        return sorted(known for known in self.files if pattern.fullmatch(known))


@functools.cache
def _glob(path: str) -> re.Pattern[str]:
    """Return glob(7)'s meaning of a path: no wildcard stands for a slash or a leading dot."""
    parts = []
    for part in path.split("/"):
        text = re.sub(r"\\?\[!", "[^", re.sub(r"[^*?\[\]!^-]", _escaped, part))
        text = text.replace("*", "[^/]*").replace("?", "[^/]")
        parts.append((r"(?!\.)" if part[:1] in ("*", "?", "[") else "") + text)
    try:
        return re.compile("/".join(parts))
    except re.error:
        raise NginxSyntaxError(f"a pattern that is not read here: {path}") from None


def _escaped(found: re.Match[str]) -> str:
    return re.escape(found[0])


def walk(directives: t.Iterable[Directive]) -> t.Iterator[Directive]:
    """Yield all directives, those in blocks included, in their order."""
    for one in directives:
        yield one
        yield from walk(one.block or ())
