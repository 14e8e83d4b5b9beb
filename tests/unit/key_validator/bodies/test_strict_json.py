# SPDX-License-Identifier: GPL-3.0-or-later
"""What two parsers could read in two ways is refused; all other JSON is read as it is."""

from __future__ import annotations

import contextlib
import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.bodies.errors import BodyError
from llm_key_validator.bodies.strict_json import MAX_DEPTH, MAX_VALUES, parse_object

TEXT = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(TEXT, inner),
    max_leaves=20,
)


@given(st.dictionaries(TEXT, VALUES), st.booleans())
def test_strict_json_is_read_as_it_is(value, ascii_only):
    assert parse_object(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"a":1,"a":1}', "same key twice"),
        (b'{"a":1,"\\u0061":2}', "same key twice"),
        (b'{"x":[{"y":{"a":1,"b":2,"a":3}}]}', "same key twice"),
        (b'{"a":NaN}', "none in JSON"),
        (b'{"a":[Infinity]}', "none in JSON"),
        (b'{"a":-Infinity}', "none in JSON"),
        (b'{"a":1e309}', "range of a double"),
        (b'{"a":-1.5e999}', "range of a double"),
        (b'{"a":9223372036854775808}', "64 bits"),
        (b'{"a":-9223372036854775809}', "64 bits"),
        (b'{"a":' + b"9" * 1_000_000 + b"}", "64 bits"),
        (b'\xef\xbb\xbf{"a":1}', "not valid JSON"),
        (b'{"a":1} x', "not valid JSON"),
        (b'{"a":1}{"a":2}', "not valid JSON"),
        (b'{"a":1}\0', "not valid JSON"),
        (b'\x0b{"a":1}', "not valid JSON"),
        (b'{"a":01}', "not valid JSON"),
        (b'{"a":1.}', "not valid JSON"),
        (b'{"a":+1}', "not valid JSON"),
        ('{"a":\u0661}'.encode(), "not valid JSON"),
        (b'{"a":"\t"}', "not valid JSON"),
        (b'{"a":"\\x41"}', "not valid JSON"),
        (b'{"a":"\\u00 1"}', "not valid JSON"),
        (b"{'a':1}", "not valid JSON"),
        (b'{"a":1,}', "not valid JSON"),
        (b"{a:1}", "not valid JSON"),
        (b'{"a":True}', "not valid JSON"),
        (b"", "not valid JSON"),
        (b"[]", "must be a JSON object"),
        (b'"a"', "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b'{"a":"\xff"}', "not valid UTF-8"),
        (b'{"a":"\xc0\x80"}', "not valid UTF-8"),
        (b'{"a":"\xed\xa0\x80"}', "not valid UTF-8"),
        (b'{"a":"\\ud800"}', "not valid UTF-8"),
        (b'{"a":"\\uDC00\\ud800"}', "not valid UTF-8"),
        (b'{"\\udfff":1}', "not valid UTF-8"),
    ],
)
def test_refused(body, message):
    with pytest.raises(BodyError, match=message):
        parse_object(body)


def test_edges_that_are_read():
    numbers = b"9223372036854775807,-9223372036854775808,1e308,1e-400,-0.0"
    value = parse_object(b' {"a":[%b],"b":"\\ud83d\\ude00"}\n' % numbers)
    assert value == {"a": [2**63 - 1, -(2**63), 1e308, 0.0, 0.0], "b": "\U0001f600"}
    assert math.copysign(1, value["a"][4]) == -1
    # An escaped backslash before `ud800` is no surrogate.
    assert parse_object(b'{"a":"\\\\ud800"}') == {"a": "\\ud800"}


@pytest.mark.parametrize(("opening", "closing"), [(b"[", b"]"), (b'{"a":', b"}")])
def test_depth(opening, closing):
    def nested(levels):
        return b'{"a":' + opening * (levels - 1) + b"1" + closing * (levels - 1) + b"}"

    parse_object(nested(MAX_DEPTH))
    for levels in (MAX_DEPTH + 1, 1000, 100_000):
        with pytest.raises(BodyError, match="nested deeper"):
            parse_object(nested(levels))
    # Never closed, as an attacker would: nothing but a refusal either.
    with pytest.raises(BodyError):
        parse_object(opening * 100_000)


def test_brackets_in_text_and_side_by_side_are_no_depth():
    assert parse_object(b'{"a":"%b"}' % (b"[{" * 1000))
    assert parse_object(b'{"a":[%b]}' % b",".join([b"[]"] * 1000))


def test_many_values_are_refused_but_not_many_commas_in_text():
    with pytest.raises(BodyError, match="too many values"):
        parse_object(b'{"a":[%b]}' % b",".join([b"1"] * (MAX_VALUES + 1)))
    assert parse_object(b'{"a":[%b]}' % b",".join([b"1"] * MAX_VALUES))
    assert parse_object(b'{"a":"\\",%b"}' % (b"," * MAX_VALUES))


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt":"%b"}' % (b"word [{ \\n" * 100_000),
        # Quotes that never close, after enough commas to have them counted
        b"," * (MAX_VALUES + 1) + b'"' + b'\\"' * 500_000,
        b'{"a":' + b"[" * 1_000_000,
        b'{"a":' + b"1" * 1_000_000 + b"}",
        b'{"a":0.' + b"1" * 1_000_000 + b"}",
        b'{"a":[%b]}' % b",".join([b"{}"] * 300_000),
    ],
    ids=["prompt", "quotes", "brackets", "integer", "fraction", "objects"],
)
def test_a_megabyte_takes_milliseconds(body):
    started = time.process_time()
    with contextlib.suppress(BodyError):
        parse_object(body)
    # A few milliseconds here; what is quadratic would take minutes.
    assert time.process_time() - started < 0.5


@given(st.binary(max_size=200))
def test_any_bytes_are_an_object_or_an_error(body):
    with contextlib.suppress(BodyError):
        assert isinstance(parse_object(b'{"a":' + body), dict)
