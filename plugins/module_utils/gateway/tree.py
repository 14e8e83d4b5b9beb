# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx's directives as the scopes that they make: what is in force where, and where it leads.

Sources: the "Context" and inheritance notes of each directive at nginx.org/en/docs, and
ngx_http_upstream_add() for names of upstream groups.
"""

from __future__ import annotations

import itertools
import re
import typing as t
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_syntax import Directive, walk

__all__ = (
    "PASSES",
    "Config",
    "Listen",
    "Scope",
    "Table",
    "Target",
    "all_of",
    "dependencies",
    "names_in",
    "pieces_in",
)

# Directives that hand a request to somebody else, with the port where none is written
PASSES = {
    "proxy_pass": 80, "grpc_pass": 80, "fastcgi_pass": 0, "uwsgi_pass": 0, "scgi_pass": 0,
    "memcached_pass": 11211,
}  # fmt: skip
_SCOPES = frozenset({"http", "server", "location", "if", "limit_except", "stream", "mail"})
_TABLES = frozenset({"map", "geo", "split_clients"})
# Lines of a `geo` that are no rows; those of a `map` are single words
_GEO_WORDS = frozenset({"proxy", "delete", "include"})
_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
# nginx begins these with a slash, so that they end the name of a host
_PATHS = frozenset({"uri", "document_uri", "request_uri"})
_UNKNOWN = "$?"
_MOST_TEXTS = 1500
_MOST_DEEP = 8


def names_in(text: str) -> list[str]:
    """Return the names of the variables in a text, in their order."""
    return [braced or bare for braced, bare in _VARIABLE.findall(text)]


def pieces_in(text: str) -> list[tuple[str, str]]:
    """Return a text as (plain text, name of the variable after it), the last name empty."""
    pieces, at = [], 0
    for found in _VARIABLE.finditer(text):
        pieces.append((text[at : found.start()], found[1] or found[2]))
        at = found.end()
    return [*pieces, (text[at:], "")]


@dataclass(frozen=True, slots=True)
class Listen:
    """One `listen`: address (empty for all), its ports, further words."""

    address: str
    ports: range
    words: tuple[str, ...]

    @classmethod
    def of(cls, directive: Directive) -> "Listen":
        """Read the directive; one that listens on a unix socket has no ports."""
        place, *words = directive.args or ("",)
        address, _colon, port = place.rpartition(":")
        if place.startswith("unix:"):
            return cls(place, range(0), tuple(words))
        if not _colon or place.endswith("]"):
            address, port = ("", place) if re.fullmatch(r"[\d-]+", place) else (place, "80")
        first, _dash, last = port.partition("-")
        low = int(first) if first.isdecimal() else 0
        high = int(last) if last.isdecimal() else low
        return cls(address.strip("[]*"), range(low, high + 1), tuple(words))


@dataclass(slots=True, eq=False)
class Scope:
    """A block whose directives are in force within it; `kind` is the block's name."""

    kind: str
    directive: Directive | None
    own: tuple[Directive, ...]
    parent: "Scope | None"
    children: list["Scope"] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What it is called in evidence, such as `location = /api/chat (routes.conf:7)`."""
        return f"{self.directive.text} ({self.directive.where})" if self.directive else "main"

    @property
    def args(self) -> tuple[str, ...]:
        return self.directive.args if self.directive else ()

    def all(self, *names: str) -> list[Directive]:
        """Return its own directives of these names."""
        return [one for one in self.own if one.name in names]

    def effective(self, name: str) -> list[Directive]:
        """Return the directives in force: its own, or else those of the nearest scope around."""
        scope: Scope | None = self
        while scope is not None:
            if found := scope.all(name):
                return found
            scope = scope.parent
        return []

    def value(self, name: str, default: str = "") -> str:
        """Return the words in force of a directive that can be given once."""
        found = self.effective(name)
        return " ".join(found[-1].args) if found else default

    def within(self) -> Iterator["Scope"]:
        """Yield the scope and all within it."""
        yield self
        for child in self.children:
            yield from child.within()

    def around(self, kind: str) -> "Scope | None":
        """Return the scope of this kind that it is in, or itself is."""
        scope: Scope | None = self
        while scope is not None and scope.kind != kind:
            scope = scope.parent
        return scope

    def passes(self) -> list[Directive]:
        """Return its own directives that hand a request on."""
        return self.all(*PASSES)

    def listens(self) -> list[Listen]:
        """Return where a server listens; nginx's default is port 80 of all addresses."""
        found = [Listen.of(one) for one in self.all("listen")]
        return found or [Listen("", range(80, 81), ())]

    def serves(self, port: int) -> bool:
        return any(port in one.ports for one in self.listens())


@dataclass(frozen=True, slots=True)
class Table:
    """A `map`, `geo` or `split_clients`: what it looks at, and (pattern, value) of each row."""

    kind: str
    source: str
    rows: tuple[tuple[str, str], ...]
    where: str


@dataclass(frozen=True, slots=True)
class Target:
    """Where a request is handed to. `host` is empty when only a request decides it."""

    scheme: str
    host: str
    port: int
    path: str
    text: str

    @property
    def unknown(self) -> bool:
        return not self.host


def _scope(directive: Directive, parent: Scope | None) -> Scope:
    scope = Scope(directive.name, directive, directive.block or (), parent)
    for one in scope.own:
        if one.block is not None and one.name in _SCOPES:
            scope.children.append(_scope(one, scope))
    return scope


class Config:
    """The whole configuration: its scopes, the groups of upstream servers, and all variables."""

    def __init__(self, directives: Sequence[Directive]) -> None:
        self.main = Scope("main", None, tuple(directives), None)
        for one in directives:
            if one.block is not None and one.name in _SCOPES:
                self.main.children.append(_scope(one, self.main))
        self.tables: dict[str, list[Table]] = {}
        self.upstreams: dict[tuple[str, str], list[Directive]] = {}
        self._sets: dict[str, list[tuple[Scope | None, Directive]]] = {}
        for scope in self.scopes():
            self._read(scope)

    def _read(self, scope: Scope) -> None:
        protocol = "stream" if scope.around("stream") else "http"
        for one in scope.own:
            if one.name in _TABLES and one.args:
                table = _table(one)
                self.tables.setdefault(one.args[-1].lstrip("$"), []).append(table)
            elif one.name == "upstream" and one.args:
                self.upstreams[protocol, one.args[0].lower()] = list(one.block or ())
            elif one.name in ("set", "auth_request_set") and len(one.args) == 2:
                name = one.args[0].lstrip("$")
                self._sets.setdefault(name, []).append((scope.around("server"), one))

    def scopes(self) -> Iterator[Scope]:
        return self.main.within()

    def servers(self, kind: str = "http") -> list[Scope]:
        """Return the server blocks of `http`, `stream` or `mail`, in nginx's order."""
        return [one for one in self.scopes() if one.kind == "server" and one.around(kind)]

    def sets(self, name: str, server: Scope | None) -> list[Directive]:
        """Return each `set` and `auth_request_set` of a variable in a server."""
        return [one for where, one in self._sets.get(name, ()) if server is None or where is server]

    def expand(self, text: str, server: Scope | None = None) -> list[str]:
        """Return all that a text can become. What only a request knows stays as its $name."""
        found = self._expand(text, server, _MOST_DEEP)
        return sorted(found) if len(found) <= _MOST_TEXTS else [_UNKNOWN]

    def _expand(self, text: str, server: Scope | None, deep: int) -> set[str]:
        parts = []
        for plain, name in pieces_in(text):
            parts.append([plain])
            if name:
                parts.append(sorted(self._values(name, server, deep)))
        found: set[str] = set()
        for one in itertools.product(*parts):
            found.add("".join(one))
            if len(found) > _MOST_TEXTS:
                return {_UNKNOWN}
        return found

    def _values(self, name: str, server: Scope | None, deep: int) -> set[str]:
        texts = [one.args[1] for one in self.sets(name, server)]
        tables = self.tables.get(name, ())
        texts += [value for table in tables for _pattern, value in table.rows]
        if tables and not any(table.rows for table in tables):
            texts.append("")
        if not texts or deep == 0:
            return {f"${name}"}
        return set().union(*(self._expand(text, server, deep - 1) for text in texts))

    def targets(self, directive: Directive, scope: Scope) -> list[Target]:
        """Return everybody that a `…_pass` can hand a request to, groups resolved."""
        protocol = "stream" if scope.around("stream") else "http"
        default = PASSES[directive.name] if protocol == "http" else 0
        found: dict[Target, None] = {}
        for text in self.expand(" ".join(directive.args), scope.around("server")):
            target = _target(text, default)
            for one in self._resolved(target, protocol):
                found[one] = None
        return list(found)

    def _resolved(self, target: Target, protocol: str) -> list[Target]:
        group = self.upstreams.get((protocol, target.host.lower()))
        if group is None:
            return [target]
        default = 80 if protocol == "http" else 0
        found = []
        for one in group:
            if one.name == "server" and one.args:
                host, port = _place(one.args[0], default)
                found.append(Target(target.scheme, host, port, target.path, target.text))
        return found


def _table(directive: Directive) -> Table:
    rows, source = [], directive.args[0] if len(directive.args) == 2 else ""
    for one in directive.block or ():
        if one.args and not (directive.name == "geo" and one.name in _GEO_WORDS):
            rows.append((one.name, one.args[-1]))
    return Table(directive.name, source, tuple(rows), directive.where)


def _target(text: str, default: int) -> Target:
    scheme, separator, rest = text.partition("://")
    if not separator:
        scheme, rest = "", text
    default = 443 if scheme in ("https", "grpcs") else default
    if rest.startswith("unix:"):
        place, _colon, path = rest.removeprefix("unix:").partition(":")
        return Target(scheme, f"unix:{place}" if "$" not in place else "", 0, path, text)
    place, path = re.match(r"([^/?$]*)(.*)", rest, re.DOTALL).groups()  # type: ignore[union-attr]
    if path.startswith("$") and (names_in(path) or [""])[0] not in _PATHS:
        return Target(scheme, "", 0, path, text)
    host, port = _place(place, default)
    return Target(scheme, host, port, path, text)


def _place(text: str, default: int) -> tuple[str, int]:
    """Return (host, port) of an address; a unix socket's host is `unix:PATH`."""
    if text.startswith("unix:"):
        return text, 0
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text.strip("[]"), default
    return host.strip("[]"), int(port) if port.isdecimal() else default


def dependencies(config: Config, name: str, server: Scope | None) -> Iterator[str]:
    """Yield the variables that the value of one is made of or chosen by, itself included."""
    todo, seen = [name], set()
    while todo:
        one = todo.pop()
        if one in seen:
            continue
        seen.add(one)
        yield one
        for table in config.tables.get(one, ()):
            todo += names_in(table.source)
            todo += [each for _pattern, value in table.rows for each in names_in(value)]
        for directive in config.sets(one, server):
            todo += names_in(directive.args[1])


def all_of(directives: t.Iterable[Directive], name: str) -> list[Directive]:
    """Return the directives of a name, also those in blocks."""
    return [one for one in walk(directives) if one.name == name]
