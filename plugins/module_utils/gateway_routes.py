# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What the gateway lets through, and how long a refused client waits. Pure functions."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

__all__ = ("NEVER_ROUTED", "GatewayError", "rate_period", "select_routes")

# Sign-in and debug routes of an LLM server: no variable opens them.
NEVER_ROUTED = frozenset({"account"})

_RATE = re.compile(r"(?P<count>[1-9][0-9]*)r/(?P<unit>[sm])\Z")
_SECONDS = {"s": 1, "m": 60}


class GatewayError(ValueError):
    """A setting of the gateway that cannot be; the message names it."""


def rate_period(rate: str) -> int:
    """Whole seconds, rounded up, until nginx's `limit_req` lets one more request in.

    `rate` is written as nginx writes it: `10r/m` gives 6, `5r/s` gives 1.
    """
    found = _RATE.match(str(rate))
    if found is None:
        raise GatewayError(f"not a rate such as 10r/m or 5r/s: {rate!r}")
    return math.ceil(_SECONDS[found["unit"]] / int(found["count"]))


def select_routes(
    routes: Sequence[dict[str, Any]], classes: Sequence[str], extra: Sequence[str]
) -> list[dict[str, Any]]:
    """Return the catalogue's routes of these classes, and the single ones named in `extra`.

    `routes` are as in the catalogue: `methods`, `path` or `pattern`, `class`, `body`. An item of
    `extra` is "METHOD path" with the catalogue's path or pattern; only that method is let through.
    Routes with one path are merged, so that each path is one location.
    """
    known = {route["class"] for route in routes}
    for name in classes:
        if name in NEVER_ROUTED or name not in known:
            raise GatewayError(
                f"not a route class that can be opened: {name!r} (there are: "
                f"{', '.join(sorted(known - NEVER_ROUTED))})"
            )
    chosen = [dict(route) for route in routes if route["class"] in classes]
    return _merge(chosen + [_single(routes, name) for name in extra])


def _place(route: dict[str, Any]) -> str:
    return str(route.get("path", route.get("pattern")))


def _single(routes: Sequence[dict[str, Any]], name: str) -> dict[str, Any]:
    method, _unused, place = str(name).partition(" ")
    for route in routes:
        if method in route["methods"] and place == _place(route):
            if route["class"] in NEVER_ROUTED:
                break
            return {**route, "methods": [method]}
    raise GatewayError(f"not a route of the catalogue that can be opened: {name!r}")


def _merge(routes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    merged: dict[str, dict[str, Any]] = {}
    for route in routes:
        known = merged.setdefault(_place(route), {**route, "methods": []})
        for name in ("class", "body"):
            if known.get(name) != route.get(name):
                raise GatewayError(
                    f"{_place(route)} has two values of {name}, {known.get(name)} and "
                    f"{route.get(name)}; one location cannot serve both"
                )
        known["methods"] += [name for name in route["methods"] if name not in known["methods"]]
    return list(merged.values())
