# SPDX-License-Identifier: GPL-3.0-or-later
"""All formats from one report, and the files that SARIF results point at."""

from __future__ import annotations

import json

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.posture import formats, sarif

from tests.unit.plugins.module_utils.posture.build import (
    PATHS,
    PAYLOADS,
    before_and_after,
    check,
    host,
    hostile,
    report,
)


def test_each_format_has_its_ending():
    made, texts = formats.render(before_and_after(), list(formats.SUFFIXES), PATHS)
    assert set(texts) == {"json", "html", "sarif", "junit.xml", "md"}
    assert json.loads(texts["json"]) == made
    assert json.loads(texts["sarif"])["version"] == "2.1.0"


@pytest.mark.parametrize("payload", PAYLOADS)
def test_whatever_a_host_says_all_can_be_written_and_read_back(payload):
    made, texts = formats.render(hostile(payload), list(formats.SUFFIXES), PATHS)
    for text in texts.values():
        assert text.encode().decode() == text
    assert json.loads(texts["json"]) == made


def test_only_what_was_asked_for():
    assert list(formats.render(before_and_after(), ["markdown"], PATHS)[1]) == ["md"]
    assert formats.render(before_and_after(), [], PATHS)[1] == {}


def test_what_sarif_had_to_leave_out_stands_in_the_others(monkeypatch):
    monkeypatch.setattr(sarif, "MOST_RESULTS", 1)
    made = report({"llm1": host(check("tls.a", "fail"), check("tls.b", "fail"))})
    noted, texts = formats.render(made, ["json", "sarif", "markdown"], PATHS)
    assert noted["notes"] == ["SARIF: llm1 has 2 results, 1 kept."]
    assert "1 kept" in texts["json"]
    assert "1 kept" in texts["md"]


def test_paths():
    paths = formats.repository_paths({"tls": "group_vars/all.yml"}, "hosts.yml")
    assert paths == {"default": "hosts.yml", "tls": "group_vars/all.yml"}
    assert formats.repository_paths({"default": "site.yml"}, "hosts.yml") == {"default": "site.yml"}


@pytest.mark.parametrize("path", ["", "/etc/hosts", "../hosts.yml", "a/../../b", "a\\b"])
def test_paths_that_are_not_in_the_repository(path):
    with pytest.raises(formats.PathError, match=r"tls: .* is not relative"):
        formats.repository_paths({"tls": path}, "hosts.yml")
