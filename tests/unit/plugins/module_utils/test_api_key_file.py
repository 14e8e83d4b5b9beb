# SPDX-License-Identifier: GPL-3.0-or-later
"""The vars file: what is read from it, what a wish makes of it, how it is written."""

from __future__ import annotations

import os
import stat
import threading
import typing as t
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml
from ansible_collections.llmsec.hardening.plugins.module_utils import api_key_file as subject
from ansible_collections.llmsec.hardening.plugins.module_utils.api_key_file import (
    UNISSUED,
    KeyFileError,
    KeyWishError,
    Wish,
    parse_vars,
    render_vars,
    resolve_time,
    with_present,
    with_revoked,
    without,
)
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
FIRST: dict[str, t.Any] = {"id": "app1", "owner": "Team", "sha256": "ab" * 32}
SECOND: dict[str, t.Any] = {
    "id": "app2",
    "owner": 'J. "Ö" \\ # : {x}',
    "sha256": "0" * 64,
    "not_before": "2026-01-01",
    "expires": "2027-01-31T00:00:00Z",
    "revoked": True,
    "networks": ["10.0.1.0/24"],
    "certificate_sha256": "cd" * 32,
    "endpoint_classes": ["read"],
    "models": ["tiny", "*"],
    "tier": "batch",
}


def test_what_is_written_is_read_again() -> None:
    assert parse_vars(render_vars([FIRST, SECOND])) == [FIRST, SECOND]
    assert parse_vars(render_vars([])) == []
    assert parse_vars("") == []
    assert parse_vars("---\n# nothing yet\n") == []


@given(st.text(max_size=128))
def test_any_owner_survives_or_is_refused(owner: str) -> None:
    record = {**FIRST, "owner": owner}
    try:
        (kept,) = with_present([], Wish(id="app1", owner=owner), digest="ab" * 32, now=NOW)
    except KeyFileError:
        return
    assert yaml.safe_load(render_vars([record]))["key_validator_keys"] == [record]
    assert kept["owner"] == owner


def test_unquoted_dates_are_dates() -> None:
    text = (
        "key_validator_keys:\n"
        f"  - {{id: a, owner: b, sha256: '{'ab' * 32}', expires: 2027-01-31,"
        " not_before: 2026-01-31T01:00:00+01:00}\n"
    )
    (record,) = parse_vars(text)
    assert record["expires"] == "2027-01-31"
    assert record["not_before"] == "2026-01-31T00:00:00Z"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("$ANSIBLE_VAULT;1.1;AES256\n6162", "vault-encrypted"),
        ("other: 1\n", "something else"),
        ("key_validator_keys: []\nother: 1\n", "something else"),
        ("- 1\n", "something else"),
        ("key_validator_keys: 1\n", "must be a list"),
        ("key_validator_keys: [1]\n", "every item"),
        ("key_validator_keys: [\n", "not valid YAML at line"),
        ("key_validator_keys: []\nkey_validator_keys: []\n", "twice"),
        ("key_validator_keys: [{id: a, id: b}]\n", "twice"),
        ("key_validator_keys: [{id: A}]\n", "key_validator_keys[0].id"),
        ("key_validator_keys: !!python/name:os.system []\n", "not valid YAML"),
        ("? [a]\n: 1\n", "not valid YAML"),
        ("key_validator_keys: [{id: a, sha256: 1, owner: b}]\n", "key_validator_keys[0].sha256"),
        (render_vars([FIRST, {**SECOND, "id": "app1"}]), "key_validator_keys[1].id"),
        (render_vars([FIRST, {**FIRST, "id": "b"}]), "key_validator_keys[1].sha256"),
    ],
)
def test_a_file_that_is_not_ours_is_refused_with_a_reason(text: str, problem: str) -> None:
    with pytest.raises(KeyFileError) as caught:
        parse_vars(text)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.text(max_size=200))
def test_no_text_crashes_the_reader(text: str) -> None:
    try:
        parse_vars(text)
    except KeyFileError as error:
        assert "\n" not in str(error)


def test_a_new_key_gets_defaults_and_an_old_one_keeps_what_is_not_named() -> None:
    created = with_present([FIRST], Wish(id="app3"), digest="cd" * 32, now=NOW)
    assert created[1] == {
        "id": "app3",
        "owner": "app3",
        "sha256": "cd" * 32,
        "endpoint_classes": ["inference", "read"],
    }
    wish = Wish(id="app3", owner="Other", networks=["192.0.2.0/24"], expires="90d")
    changed = with_present(created, wish, digest="ef" * 32, now=NOW)
    assert changed[1] == {
        **created[1],
        "owner": "Other",
        "networks": ["192.0.2.0/24"],
        "expires": "2027-02-22",
    }
    assert with_present(changed, wish, digest="", now=NOW) == changed
    undone = with_present(
        changed, Wish(id="app3", networks=[], expires="never"), digest="", now=NOW
    )
    assert undone[1] == {**created[1], "owner": "Other"}


def test_models_tier_and_certificate_come_and_go() -> None:
    (bare,) = with_present([], Wish(id="a"), digest="cd" * 32, now=NOW)
    wish = Wish(id="a", models=["tiny"], tier="batch", certificate_sha256=[":".join(["AB"] * 32)])
    (bound,) = with_present([bare], wish, digest="", now=NOW)
    assert bound == {
        **bare,
        "models": ["tiny"],
        "tier": "batch",
        "certificate_sha256": "ab" * 32,
    }
    assert with_present([bound], wish, digest="", now=NOW) == [bound]
    assert with_present([bound], Wish(id="a"), digest="", now=NOW) == [bound]
    undo = Wish(id="a", models=[], tier="", certificate_sha256=[""])
    assert with_present([bound], undo, digest="", now=NOW) == [bare]
    both = Wish(id="a", certificate_sha256=["cd" * 32, "ab" * 32])
    (overlap,) = with_present([bound], both, digest="", now=NOW)
    assert overlap["certificate_sha256"] == ["cd" * 32, "ab" * 32]
    assert parse_vars(render_vars([overlap])) == [overlap]
    with pytest.raises(KeyFileError, match=r"\[1\]\.certificate_sha256: is used"):
        with_present([overlap], replace(both, id="b"), digest="ef" * 32, now=NOW)


def test_a_client_without_a_key() -> None:
    wish = Wish(id="a", with_key=False, certificate_sha256=["ab" * 32])
    (client,) = with_present([], wish, digest="cd" * 32, now=NOW)
    assert "sha256" not in client
    assert parse_vars(render_vars([client])) == [client]
    with pytest.raises(KeyFileError, match="sha256"):
        with_present([], Wish(id="a", with_key=False), digest="cd" * 32, now=NOW)


@pytest.mark.parametrize(
    ("wish", "named"),
    [
        (Wish(id="b", expires="soon"), "[1].expires"),
        (Wish(id="b", networks=["10.0.0.1/8"]), "[1].networks[0]"),
        (Wish(id="b", endpoint_classes=[]), "[1].endpoint_classes"),
        (Wish(id="b", owner=""), "[1].owner"),
        (Wish(id="b", models=["tiny", "a b"]), "[1].models[1]"),
        (Wish(id="b", tier="No tier"), "[1].tier"),
        (Wish(id="b", certificate_sha256=["AB:CD"]), "[1].certificate_sha256"),
        (Wish(id="b", not_before="2027-01-01", expires="2026-12-01"), "[1].expires"),
    ],
)
def test_a_wish_the_validator_would_refuse_is_refused_here(wish: Wish, named: str) -> None:
    for digest in ("cd" * 32, UNISSUED):
        with pytest.raises(KeyFileError) as caught:
            with_present([FIRST], wish, digest=digest, now=NOW)
        assert named in str(caught.value)


def test_revoked_is_for_good() -> None:
    revoked = with_revoked([FIRST], "app1")
    assert revoked == [{**FIRST, "revoked": True}]
    assert with_revoked(revoked, "app1") == revoked
    with pytest.raises(KeyWishError, match="revoked for good"):
        with_present(revoked, Wish(id="app1"), digest="", now=NOW)
    with pytest.raises(KeyWishError, match="no key app9"):
        with_revoked([FIRST], "app9")


def test_absent() -> None:
    assert without([FIRST, SECOND], "app1") == [SECOND]
    assert without([SECOND], "app1") == [SECOND]


@pytest.mark.parametrize("hour", [0, 12, 23])
def test_days_are_whole_and_the_same_all_day(hour: int) -> None:
    """A key lives at least so many days, and repeating the wish changes nothing that day."""
    assert resolve_time("90d", NOW.replace(hour=hour)) == "2027-02-22"
    assert resolve_time("1d", NOW.replace(hour=hour)) == "2026-11-25"


def test_other_times_stay_as_they_are() -> None:
    assert resolve_time("never", NOW) is None
    assert resolve_time("2027-01-31", NOW) == "2027-01-31"
    assert resolve_time("0d", NOW) == "0d"
    assert resolve_time("99999d", NOW) == "2300-09-08"


def test_writes_in_one_step_and_keeps_the_mode(tmp_path: Path) -> None:
    path = tmp_path / "api_keys.yml"
    subject.write_atomically(str(path), "a")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    path.chmod(0o600)
    before = path.stat().st_ino
    subject.write_atomically(str(path), "b")
    assert path.read_text() == "b"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_ino != before
    assert os.listdir(tmp_path) == ["api_keys.yml"]


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "api_keys.yml"
    path.write_text("old")

    def full(*_arguments: t.Any) -> t.NoReturn:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        subject.write_atomically(str(path), "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["api_keys.yml"]


def test_a_secret_is_written_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "app1.key"
    old = os.umask(0)
    try:
        subject.write_secret(str(path), "llmk_x")
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_text() == "llmk_x\n"
    with pytest.raises(FileExistsError):
        subject.write_secret(str(path), "llmk_y")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(FileExistsError):
        subject.write_secret(str(tmp_path / "link"), "llmk_y")
    assert path.read_text() == "llmk_x\n"


def test_two_runs_take_turns(tmp_path: Path) -> None:
    path = str(tmp_path / "api_keys.yml")
    order: list[str] = []
    entered = threading.Event()

    def second() -> None:
        entered.wait(5)
        with subject.locked(path, seconds=5):
            order.append("second")

    thread = threading.Thread(target=second)
    thread.start()
    with subject.locked(path):
        entered.set()
        with pytest.raises(KeyFileError, match="another run"), subject.locked(path, seconds=0.2):
            pass
        order.append("first")
    thread.join(5)
    assert order == ["first", "second"]
    assert os.listdir(tmp_path) == []
