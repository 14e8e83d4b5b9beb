# SPDX-License-Identifier: GPL-3.0-or-later
"""Markdown, judged by another parser: what a host says is never markup."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.posture import markdown
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from tests.unit.plugins.module_utils.posture.build import (
    PAYLOADS,
    before_and_after,
    check,
    fleet,
    host,
    hostile,
    report,
)

PARSER = MarkdownIt("commonmark").enable(["table"])


def shape(text):
    """Return the kinds of all tokens, those within a line included."""
    for token in PARSER.parse(text):
        yield token.type
        yield from (child.type for child in token.children or () if child.type != "text")


def texts(text):
    inner = PARSER.parseInline(text)[0].children or []
    return [token.content for token in inner], [token.type for token in inner]


@pytest.mark.parametrize("payload", PAYLOADS)
def test_whatever_a_host_says_the_structure_stays_the_same(payload):
    plain = list(shape(markdown.render(hostile("x"))))
    assert list(shape(markdown.render(hostile(payload)))) == plain
    assert "code_inline" in plain


@given(st.text(alphabet="a `|\\*[]()<>&@#\n!", max_size=30))
def test_a_code_span_holds_all_of_a_text(text):
    whole = " ".join(text.split()) or "-"
    assert texts(f"x {markdown.code(text)} y") == (
        ["x ", whole, " y"],
        ["text", "code_inline", "text"],
    )


@given(st.text(alphabet="ab `|\\*_[]()<>&;@#\n!~$+", max_size=30))
def test_escaped_text_is_text_alone(text):
    content, kinds = texts(f"x {markdown.escape(text)} y")
    assert set(kinds) <= {"text", "text_special"}
    shown = "".join(content).replace("\N{ZERO WIDTH SPACE}", "")
    assert shown.split() == f"x {text} y".split()


def test_mentions_and_addresses_are_dead():
    text = markdown.escape("@team see https://evil.example/")
    assert "@team" not in text
    assert "https://" not in text


def test_a_merge_request_gets_the_verdict_the_hosts_and_what_to_do():
    text = markdown.render(before_and_after())
    assert text.startswith("## LLM hosts: gate FAILED\n")
    assert "| `llm2` | 1 | 0 | 1 | 1 | 21 |" in text
    assert "2 newly failing, 13 fixed, 0 gone" in text
    assert "- **high** (new) `llm2`: Each location asks the key validator" in text
    assert "Remove it from gateway\\_extra\\_locations." in text
    assert "**not measured** (new) `llm3`" in text
    assert "tls.group" not in text


def test_a_good_report_is_short():
    text = markdown.render(report({"llm1": host(check("tls.a"))}))
    assert "gate passed" in text
    assert "What to do" not in text
    assert len(text.splitlines()) == 7


def test_it_fits_into_a_comment_of_github():
    text = markdown.render(fleet(60, 200))
    assert len(text) < 65_536
    assert "440 more findings are in the full report." in text
    assert "| 10 more |" in text
