# SPDX-License-Identifier: GPL-3.0-or-later
"""What a hostile host says, made fit for a report."""

from __future__ import annotations

import unicodedata

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import generate_key
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.text import (
    EVIDENCE_LINES,
    LINE,
    clean,
    clean_lines,
    cut,
    printable,
)
from hypothesis import given
from hypothesis import strategies as st

ANYTHING = st.text(st.characters(categories=None), max_size=80)


@given(ANYTHING)
def test_what_is_left_can_be_seen_and_encoded(text):
    kept = clean(text)
    kept.encode()
    hidden = {"Cc", "Cf", "Cs", "Co", "Cn"}
    assert not [c for c in kept if unicodedata.category(c) in hidden and c not in "\n\t"]
    assert clean(kept) == kept


@given(ANYTHING)
def test_a_line_for_the_terminal_is_printable_ascii(text):
    line = printable(clean(text))
    assert line.isascii()
    assert not line or line.isprintable()


@pytest.mark.parametrize(
    "text", ["", "plain", "zwei Zeilen\nund ein\tTab", "日本語, é, €", "a < b"]
)
def test_what_is_harmless_stays_as_it_is(text):
    assert clean(text) == text


@pytest.mark.parametrize(
    ("value", "text"), [(None, ""), (0, "0"), (["a"], "['a']"), ("a\r\nb", "a\nb")]
)
def test_any_value_becomes_a_text(value, text):
    assert clean(value) == text


@pytest.mark.parametrize(
    "hidden",
    [
        "\u202e",
        "\u2066",
        "\u200b",
        "\ufeff",
        "\u00ad",
        "\x1b",
        "\x9b",
        "\x7f",
        "\r",
        "\ud800",
        "\ufffe",
    ],
)
def test_what_cannot_be_seen_is_shown(hidden):
    assert clean(f"a{hidden}b") == "a\N{REPLACEMENT CHARACTER}b"


KEY = generate_key()
PRIVATE = "-----BEGIN EC PRIVATE KEY-----\nTUlHSEFnRUE=\nb3RoZXI=\n-----END EC PRIVATE KEY-----"


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        (f"key {KEY} in /tmp/x", KEY[5:]),
        (f"curl -H 'X-API-Key: {KEY}'", KEY[5:]),
        ("Authorization: Bearer s3cr3t-t0ken", "s3cr3t-t0ken"),
        ("authorization: basic dXNlcjpwYXNz", "dXNlcjpwYXNz"),
        ("x-api-key=s3cr3t-t0ken", "s3cr3t-t0ken"),
        (PRIVATE, "TUlHSEFnRUE="),
        (PRIVATE.partition("b3R")[0], "TUlHSEFnRUE="),
    ],
)
def test_a_secret_does_not_get_through(text, secret):
    assert secret not in clean(text)
    assert "(redacted)" in clean(text)
    assert secret not in "\n".join(clean_lines(text.split("\n")))


def test_a_secret_does_not_get_through_where_the_text_is_cut():
    text = "x" * 1990 + f" {KEY} " + "y" * 9000
    assert KEY[5:8] not in clean(text)
    assert len(clean(text)) == 2000


@pytest.mark.parametrize(
    ("value", "lines"),
    [
        (None, []),
        ([], []),
        ("one\ntwo", ["one", "two"]),
        (["one\ntwo", 3], ["one", "two", "3"]),
        (["x" * 999], [cut("x" * 999, LINE)]),
        ([f"{number}" for number in range(EVIDENCE_LINES)], [*map(str, range(EVIDENCE_LINES))]),
    ],
)
def test_evidence_is_a_list_of_lines(value, lines):
    assert clean_lines(value) == lines


def test_long_evidence_says_how_much_is_missing():
    lines = clean_lines([f"{number}" for number in range(50)])
    assert len(lines) == EVIDENCE_LINES
    assert lines[-2:] == ["18", "(31 more lines)"]


@pytest.mark.parametrize(("text", "limit", "kept"), [("abcde", 5, "abcde"), ("abcdef", 5, "ab...")])
def test_cut(text, limit, kept):
    assert cut(text, limit) == kept
