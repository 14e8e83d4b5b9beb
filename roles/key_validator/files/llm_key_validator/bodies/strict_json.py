# SPDX-License-Identifier: GPL-3.0-or-later
"""JSON that every parser reads alike, or none.

RFC 8259 leaves open what a parser does with duplicate keys, huge numbers and lone surrogates, and
Python's own takes NaN as well. Whatever two parsers could read in two ways is refused here.
The work is done by the C scanner of the standard library; the hooks only see objects and numbers.
"""

from __future__ import annotations

import json
import math
import re
from typing import NoReturn

from .errors import BodyError

MAX_DEPTH = 64
# Each value costs a fraction of a microsecond: what needs more of them than a long conversation
# with a long `context` is there to keep this service busy.
MAX_VALUES = 2**16
# 64 bits with a sign, as Go's int
_LARGEST = 2**63 - 1
_LONGEST_INTEGER = len(str(-(2**63)))
# Always matches from a quote on, to the end if need be, so it never looks twice.
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89abAB]|\\u[dD][c-fC-F]")


def parse_object(body: bytes) -> dict[str, object]:
    """Return the object that ``body`` holds, with nothing but blanks around it.

    Raises BodyError unless the body is UTF-8 without a byte-order mark and strict JSON: no
    duplicate keys, no NaN, no integer beyond 64 bits, no number beyond a double, no lone
    surrogate, at most MAX_DEPTH levels, fewer than MAX_VALUES commas between values.
    """
    try:
        text = body.decode()
        if text.count(",") >= MAX_VALUES and _STRING.sub("", text).count(",") >= MAX_VALUES:
            raise BodyError("The body has too many values.")
        value = _decode(text)
        if _SURROGATE.search(text) is not None:
            # Pairs are one character by now; what is left of them cannot be encoded.
            json.dumps(value, ensure_ascii=False).encode()
    except BodyError:
        raise
    except UnicodeError:
        raise BodyError("The body is not valid UTF-8.") from None
    except RecursionError:
        raise _too_deep() from None
    except ValueError:
        raise BodyError("The body is not valid JSON.") from None
    if not isinstance(value, dict):
        raise BodyError("The body must be a JSON object.")
    # Each level has a bracket of its own, wherever else brackets may stand.
    if text.count("[") + text.count("{") > MAX_DEPTH:
        _check_depth(value)
    return value


def _check_depth(value: object) -> None:
    level = [value]
    for _level in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, dict) else outer)  # type: ignore[attr-defined]
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise _too_deep()


def _too_deep() -> BodyError:
    return BodyError(f"The body is nested deeper than {MAX_DEPTH} levels.")


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BodyError("The body has an object with the same key twice.")
    return found


def _float(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise BodyError("The body has a number beyond the range of a double.")
    return value


def _integer(text: str) -> int:
    # The length first: reading n digits takes n squared steps.
    if len(text) <= _LONGEST_INTEGER:
        value = int(text)
        if -_LARGEST - 1 <= value <= _LARGEST:
            return value
    raise BodyError("The body has an integer beyond 64 bits.")


def _constant(_word: str) -> NoReturn:
    raise BodyError("The body has a number that is none in JSON.")


_decode = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_float, parse_int=_integer, parse_constant=_constant
).decode
