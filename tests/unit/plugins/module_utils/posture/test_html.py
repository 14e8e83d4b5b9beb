# SPDX-License-Identifier: GPL-3.0-or-later
"""The page: complete without JavaScript, closed to what hosts say, and light."""

from __future__ import annotations

import base64
import hashlib
import re
import time
from html.parser import HTMLParser

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.posture import html

from tests.unit.plugins.module_utils.posture.build import (
    PAYLOADS,
    WAIVER,
    before_and_after,
    check,
    fleet,
    host,
    hostile,
    report,
)

VOID = {"meta", "input"}


class Document(HTMLParser):
    """The elements of a page, their text, and whether each is closed where it should be."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.comments = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_comment(self, data):
        self.comments.append(data)

    def handle_data(self, data):
        if not {"script", "style"} & set(self.open):
            self.words.append(data)

    @property
    def text(self):
        return " ".join("".join(self.words).split())

    def attributes(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def document(made):
    return Document(html.render(made))


@pytest.mark.parametrize("payload", PAYLOADS)
def test_whatever_a_host_says_the_elements_stay_the_same(payload):
    found = document(hostile(payload))
    plain = document(hostile("x"))
    assert [(tag, list(attrs)) for tag, attrs in found.elements] == [
        (tag, list(attrs)) for tag, attrs in plain.elements
    ]
    assert found.comments == []


@pytest.mark.parametrize("payload", ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>'])
def test_what_a_host_says_can_be_read(payload):
    text = document(hostile(payload)).text
    # actual, expected, title, remediation, evidence, address, reasons …
    assert text.count(payload) > 20


def test_the_policy_allows_this_style_and_this_script_and_nothing_else():
    page = html.render(before_and_after())
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    for tag, rule in (("style", "style-src"), ("script", "script-src")):
        (inline,) = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
        assert rules.pop(rule) == f"'sha256-{digest}'"
    assert set(rules) == {"default-src", "base-uri", "form-action"}
    assert set(rules.values()) == {"'none'"}


def test_nothing_is_loaded_and_nothing_needs_an_inline_handler():
    for _tag, attrs in document(before_and_after()).elements:
        assert not {"src", "style", "srcset", "data"} & set(attrs)
        assert not [name for name in attrs if name.startswith("on")]
        assert attrs.get("href", "#").startswith("#")
    assert not re.search(r"url\(|@import|https?:", html.render(report({})))


def test_every_link_has_its_target():
    found = document(before_and_after())
    ids = [attrs["id"] for _tag, attrs in found.elements if "id" in attrs]
    assert len(set(ids)) == len(ids)
    links = {attrs["href"].removeprefix("#") for attrs in found.attributes("a")}
    assert links <= set(ids)
    labels = {attrs["for"] for attrs in found.attributes("label") if "for" in attrs}
    assert labels <= set(ids)
    named = {
        attrs["aria-labelledby"] for _tag, attrs in found.elements if "aria-labelledby" in attrs
    }
    assert named <= set(ids)


def test_without_javascript_everything_is_open_and_there_is_no_dead_filter():
    found = document(before_and_after())
    assert all("open" in attrs for attrs in found.attributes("details"))
    hidden = [tag for tag, attrs in found.elements if "hidden" in attrs]
    assert hidden == ["form"]


def test_what_a_failed_finding_shows():
    text = document(before_and_after()).text
    for part in (
        "✗ Gate failed", "1 failed, high: llm2: gateway.location.metrics",
        "✗ high Each location asks the key validator gateway.location.metrics new",
        "Expected auth_request in each location", "Actual none in location /metrics",
        "To do Remove it from gateway_extra_locations.", "proxy_pass http://127.0.0.1:9090;",
        "NIST 800-53r5 IA-2, IA-8", "192.0.2.12, Debian 13.2",
        "Waived until 2026-12-31, Team Search: The clients of the old agency cannot do better.",
        "? not measured the head is the one of the last assessment",
        "before: failed, 200 with 3 models", "before: not measured: no audit log",
    ):  # fmt: skip
        spaced = re.sub(r"(Expected|Actual|To do|Waived)(?=\S)", r"\1 ", text)
        assert part.replace(" ", "") in spaced.replace(" ", ""), part


def test_the_matrix_says_in_words_what_it_shows():
    labels = [
        a["aria-label"] for a in document(before_and_after()).attributes("a") if "aria-label" in a
    ]
    assert "llm1, authentication: 1 passed, before: failed" in labels
    assert "llm2, authentication: 1 failed" in labels
    assert "llm1, tls: 1 waived, before: failed" in labels
    assert "llm3, audit_log: 1 not measured" in labels


def test_failures_that_are_gone_are_listed():
    first = report({"llm1": host(check("tls.a", "fail", title="An old cipher"), check("tls.b"))})
    made = report({"llm1": host(check("tls.b"))}, baseline=first)
    assert "An old cipher (tls.a)" in document(made).text
    assert "llm1, tls: 1 passed, before: failed" in html.render(made)


def test_waivers_and_notes_are_shown():
    made = report({"llm1": host(check("tls.b"))}, waivers=[{**WAIVER, "expires": "2026-01-01"}])
    text = document(made).text
    assert "2026-01-01 (expired)" in text
    assert "has expired and is needed no more: remove it." in text


@pytest.mark.parametrize("hosts", [{}, {"llm1": {}}, {"llm1": None}])
def test_a_report_of_nothing_is_red(hosts):
    assert "✗ Gate failed" in document(report(hosts)).text


def test_twenty_hosts_with_two_hundred_findings_are_light():
    made = fleet(20, 200)
    start = time.process_time()
    page = html.render(made)
    assert len(page.encode()) < 3_000_000
    assert time.process_time() - start < 5
