# SPDX-License-Identifier: GPL-3.0-or-later
"""Keys are found wherever they stand in a text, and nothing else is."""

from __future__ import annotations

import gzip
import os

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import plain_text_keys
from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import (
    generate_key,
    key_digest,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.host_view import HostView
from ansible_collections.llmsec.hardening.plugins.module_utils.plain_text_keys import (
    Budget,
    Hit,
    describe,
    keys_in,
    search,
)
from hypothesis import given
from hypothesis import strategies as st

KEY = generate_key()


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_a_key_is_found_between_any_bytes(before, after):
    assert (len(before), KEY) in list(keys_in(before + KEY.encode() + after))


@given(st.binary(max_size=200))
def test_other_bytes_hold_none(data):
    assert list(keys_in(data)) == []


@given(st.integers(0, len(KEY) - 1), st.characters(codec="ascii"))
def test_a_changed_key_is_none(place, char):
    changed = KEY[:place] + char + KEY[place + 1 :]
    assert [text for _at, text in keys_in(changed.encode())] == ([KEY] if changed == KEY else [])


def look(tmp_path, *patterns, most=1 << 30, seconds=1e9):
    host = HostView(str(tmp_path), proc=str(tmp_path / "proc"))
    (tmp_path / "proc").mkdir(exist_ok=True)
    return search(host, patterns, (), Budget(most, seconds, clock=lambda: 1.0))


def test_a_key_across_two_blocks_is_found_once(tmp_path, monkeypatch):
    monkeypatch.setattr(plain_text_keys, "_BLOCK", 256)
    for start in range(180, 260, 7):
        (tmp_path / "f").write_text("\n" * start + KEY + "\n" * 600)
        assert look(tmp_path, "/f").hits == [Hit("/f", start + 1, key_digest(KEY))]


def test_logs_that_were_packed(tmp_path):
    (tmp_path / "a.log.2.gz").write_bytes(gzip.compress(b"x\n" * 2_000_000 + KEY.encode()))
    (tmp_path / "b.gz").write_bytes(b"no gzip")
    found = look(tmp_path, "/*.gz")
    assert [(hit.place, hit.line) for hit in found.hits] == [("/a.log.2.gz", 2_000_001)]


def test_a_wildcard_at_the_end_does_not_go_down(tmp_path):
    (tmp_path / "home/.cache").mkdir(parents=True)
    (tmp_path / "home/.cache/f").write_text(KEY)
    assert look(tmp_path, "/home/.*").hits == []
    assert len(look(tmp_path, "/home").hits) == 1


def test_links_fifos_and_the_same_file_twice(tmp_path):
    (tmp_path / "d").mkdir()
    (tmp_path / "secret").write_text(KEY)
    (tmp_path / "d/link").symlink_to(tmp_path / "secret")
    os.mkfifo(tmp_path / "d/fifo")
    assert look(tmp_path, "/d").hits == []
    os.link(tmp_path / "secret", tmp_path / "d/again")
    assert len(look(tmp_path, "/d", "/secret").hits) == 1


@pytest.mark.parametrize(
    ("bounds", "why"), [({"most": 10}, "max_bytes"), ({"seconds": 0.5}, "max_seconds")]
)
def test_it_ends_where_it_must(tmp_path, bounds, why):
    for name in ("a", "b", "c"):
        (tmp_path / name).write_text("x" * 20)
    found = look(tmp_path, "/a", "/b", "/c", **bounds)
    assert why in found.ended
    assert found.files < 3
    assert look(tmp_path, "/a", "/b", "/c").ended == ""


def test_a_key_is_shown_by_its_id_or_its_digest():
    digest = key_digest(KEY)
    lines = describe([Hit("/a", 3, digest), Hit("/b", 0, "ab" * 32)], {digest: "app1"})
    assert lines == ["/a:3: key app1", "/b: SHA-256 abababab..."]
