# SPDX-License-Identifier: GPL-3.0-or-later
"""The LLM server's routes, as the collection's catalogue has them: what a body there looks like.

nginx has its own list of them and lets nothing else through. This one says how to judge them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from .bodies import SHAPES
from .keys import GRANTABLE_CLASSES

_FIELDS = {"methods", "class", "body", "models", "path", "pattern"}
_METHOD = re.compile(r"[A-Z]{1,20}")
# What a route says about models beside its body: nothing, a list of them, or one in its path
_MODELS = ("", "list", "path")


class RouteError(ValueError):
    """A route is not acceptable; the text names it by its place."""


@dataclass(frozen=True, slots=True)
class Route:
    """One endpoint."""

    methods: frozenset[str]
    endpoint_class: str
    # The shape that bodies.read_body takes; "none" or "opaque": there is nothing to read
    body: str
    # "list": the answer names models; "path": the path's last segment does
    models: str
    # What the path must be, whole
    pattern: re.Pattern[str]


class RouteTable:
    """Finds the route of a request."""

    __slots__ = ("_exact", "_patterns")

    def __init__(self, routes: Iterable[tuple[str | None, Route]] = ()) -> None:
        self._exact: dict[tuple[str, str], Route] = {}
        self._patterns: list[Route] = []
        for path, route in routes:
            if path is None:
                self._patterns.append(route)
            for method in route.methods if path is not None else ():
                self._exact[method, path] = route  # type: ignore[index]

    def __eq__(self, other: object) -> bool:
        """Two tables are equal when they find the same."""
        return (
            isinstance(other, RouteTable)
            and self._exact == other._exact
            and self._patterns == other._patterns
        )

    __hash__ = None  # type: ignore[assignment]

    def find(self, method: str, path: str) -> Route | None:
        """Return the route of this method and path, if there is one."""
        found = self._exact.get((method, path))
        if found is not None:
            return found
        for route in self._patterns:
            if method in route.methods and route.pattern.fullmatch(path):
                return route
        return None


def parse_routes(raw: object) -> RouteTable:
    """Return the table that a list of objects describes. Raises RouteError."""
    if not isinstance(raw, list):
        raise RouteError("must be a list")
    return RouteTable(_parse_route(item, f"[{index}]") for index, item in enumerate(raw))


def _parse_route(raw: object, where: str) -> tuple[str | None, Route]:
    if not isinstance(raw, Mapping) or not raw.keys() <= _FIELDS:
        raise RouteError(f"{where}: must be an object with {', '.join(sorted(_FIELDS))}")
    methods, path, pattern = raw.get("methods"), raw.get("path"), raw.get("pattern")
    if not isinstance(methods, list) or not methods or not all(map(_is_method, methods)):
        raise RouteError(f"{where}.methods: must be a list of HTTP methods")
    if raw.get("class") not in GRANTABLE_CLASSES:
        raise RouteError(f"{where}.class: must be one of {', '.join(GRANTABLE_CLASSES)}")
    if raw.get("body") not in SHAPES or raw.get("models", "") not in _MODELS:
        raise RouteError(f"{where}: body or models has a value that is not known")
    if (path is None) == (pattern is None) or not isinstance(path or pattern, str):
        raise RouteError(f"{where}: must have a path or a pattern")
    try:
        compiled = re.compile(re.escape(path) if path is not None else str(pattern))
    except re.error:
        raise RouteError(f"{where}.pattern: is not a regular expression") from None
    return path, Route(
        frozenset(methods), raw["class"], raw["body"], raw.get("models", ""), compiled
    )


def _is_method(text: object) -> bool:
    return isinstance(text, str) and _METHOD.fullmatch(text) is not None
