# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Write rules of nft's JSON the way nft's own language has them, for messages."""

from __future__ import annotations

import json
from collections.abc import Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.numbers import Json

__all__ = ("write_rule",)

_SHOWN_ELEMENTS = 4  # of a set


def write_rule(expr: Sequence[Json]) -> str:
    """Return a readable line for the list `expr` of a rule; never raises."""
    words = (_statement(each) for each in expr)
    return " ".join(word for word in words if word)


def _statement(statement: Json) -> str:
    try:
        ((kind, body),) = statement.items()
        return _known(kind, body)
    except (KeyError, TypeError, ValueError, AttributeError):
        return json.dumps(statement)


def _known(kind: str, body: Json) -> str:  # noqa: PLR0911 - one per kind of statement
    if kind == "match":
        operator = {"==": "", "in": ""}.get(body["op"], f"{body['op']} ")
        return f"{_value(body['left'])} {operator}{_value(body['right'])}"
    if kind == "vmap":
        return f"{_value(body['key'])} vmap {_value(body['data'])}"
    if kind in ("jump", "goto"):
        return f"{kind} {body['target']}"
    if kind == "mangle":
        return f"{_value(body['key'])} set {_value(body['value'])}"
    if kind == "set":
        return f"{body['op']} {body['set']} {{ {_value(body['elem'])} }}"
    if kind == "xt":
        return f"xt {body['type']} {body['name']}" if body else "xt"
    if kind == "limit":
        return f"limit rate {'over ' if body.get('inv') else ''}{body['rate']}/{body['per']}"
    if kind in ("dnat", "snat", "redirect", "tproxy", "masquerade") and body:
        return " ".join([kind, *(f"{key} {_value(value)}" for key, value in body.items())])
    return "" if kind == "counter" else kind


def _value(value: Json) -> str:  # noqa: PLR0911, PLR0912 - one per form
    if isinstance(value, list):
        return ",".join(_value(each) for each in value)
    if isinstance(value, bool):
        return "exists" if value else "missing"
    if not isinstance(value, dict):
        return str(value)
    ((form, body),) = value.items()
    if form == "payload":
        return f"{body['protocol']} {body['field']}" if "protocol" in body else f"@{body['base']}"
    if form == "meta":
        return f"meta {body['key']}"
    if form == "ct":
        return " ".join(["ct", *([body["dir"]] if "dir" in body else []), body["key"]])
    if form == "fib":
        return f"fib {' . '.join(_words(body['flags']))} {body['result']}"
    if form == "prefix":
        return f"{body['addr']}/{body['len']}"
    if form == "range":
        return f"{body[0]}-{body[1]}"
    if form == "concat":
        return " . ".join(_value(each) for each in body)
    if form == "elem":
        return _value(body["val"])
    if form in ("&", "|", "^"):
        return f" {form} ".join(_value(each) for each in body)
    if form == "set":
        return _set(body)
    if form == "map":
        return f"{_value(body['key'])} map {_value(body['data'])}"
    if form in ("jump", "goto"):
        return f"{form} {body['target']}"
    return form if body is None else json.dumps(value)


def _words(words: Json) -> list[str]:
    return words if isinstance(words, list) else [words]


def _set(elements: Json) -> str:
    if not isinstance(elements, list):
        return _value(elements)
    shown = [
        f"{_value(each[0])} : {_value(each[1])}" if isinstance(each, list) else _value(each)
        for each in elements[:_SHOWN_ELEMENTS]
    ]
    more = len(elements) - len(shown)
    return "{ " + ", ".join([*shown, *([f"… {more} more"] if more else [])]) + " }"
