# SPDX-License-Identifier: GPL-3.0-or-later
"""The loader of keys.json: strict, in slices, and silent about what it read."""

from __future__ import annotations

import json
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.keys import generate_key
from llm_key_validator.registry import (
    SLICE,
    Registry,
    RegistryError,
    load_in_slices,
    load_registry,
)

from .conftest import record, registry_text

KEY = generate_key()
GOOD = record(KEY)


def error_of(text: str) -> str:
    with pytest.raises(RegistryError) as caught:
        load_registry(text)
    return str(caught.value)


def test_finds_by_digest_only() -> None:
    registry = load_registry(registry_text(GOOD, record(generate_key(), "app2")))
    assert len(registry) == 2
    found = registry.find(bytes.fromhex(GOOD["sha256"]))
    assert found is not None
    assert found.id == "app1"
    assert registry.find(b"\0" * 32) is None
    assert registry.find(b"") is None


def test_finds_by_certificate() -> None:
    client = {"id": "app2", "owner": "Team", "certificate_sha256": ["ab" * 32, "cd" * 32]}
    registry = load_registry(registry_text(GOOD, client))
    assert len(registry) == len(list(registry)) == 2
    for known in client["certificate_sha256"]:
        found = registry.find_certificate(known)
        assert found is not None
        assert (found.id, found.digest) == ("app2", None)
    assert registry.find_certificate("ef" * 32) is None
    for other in ({**GOOD, "certificate_sha256": "cd" * 32}, {**client, "id": "app3"}):
        problem = error_of(registry_text(client, other))
        assert problem.startswith("keys[1].certificate_sha256: is used")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"id": "App1"}, "keys[1].id"),
        ({"id": None}, "keys[1].id"),
        ({"sha256": "AB" * 32}, "keys[1].sha256"),
        ({"sha256": KEY}, "keys[1].sha256"),
        ({"owner": "a\nb"}, "keys[1].owner"),
        ({"owner": "\ud800"}, "keys[1].owner"),
        ({"expires": "tomorrow"}, "keys[1].expires"),
        ({"expires": None}, "keys[1].expires"),
        ({"expires": "2027-02-30"}, "keys[1].expires"),
        ({"not_before": "2027-01-02", "expires": "2027-01-02"}, "keys[1].expires"),
        ({"revoked": "yes"}, "keys[1].revoked"),
        ({"bound": 0}, "keys[1].bound"),
        ({"networks": ["10.0.0.1/8"]}, "keys[1].networks[0]"),
        ({"networks": "10.0.0.0/8"}, "keys[1].networks"),
        ({"endpoint_classes": []}, "keys[1].endpoint_classes"),
        ({"endpoint_classes": ["account"]}, "keys[1].endpoint_classes"),
        ({"expire": "2027-01-01"}, "keys[1]: has an unknown field 'expire'"),
        ({KEY: 1}, "keys[1]: has an unknown field (name not shown)"),
        ({"sha256": GOOD["sha256"]}, "keys[1].sha256: is used"),
        ({"id": "app1"}, "keys[1].id: is used"),
    ],
)
def test_a_bad_record_is_named_and_not_quoted(change: dict[str, t.Any], problem: str) -> None:
    bad = {**record(generate_key(), "app2"), **change}
    message = error_of(registry_text(GOOD, bad))
    assert problem in message
    assert KEY not in message
    assert GOOD["sha256"] not in message


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        '{"version": 1}',
        '{"keys": []}',
        '{"version": 2, "keys": []}',
        '{"version": true, "keys": []}',
        '{"version": 1.0, "keys": []}',
        '{"version": "1", "keys": []}',
        '{"version": 1, "keys": {}}',
        '{"version": 1, "keys": [1]}',
        '{"version": 1, "keys": [[]]}',
        '{"version": 1, "keys": [],}',
        '{"version": 1, "keys": [], "more": 1}',
        '{"version": 1, "keys": []} {}',
        '{"version": 1, "keys": [], "keys": []}',
        '{"version": 1, "version": 1, "keys": []}',
        '{"version": NaN, "keys": []}',
        '{"version": 1, "keys": [}',
        '{"version": 1 "keys": []}',
        "{1: 1}",
        "[" * 100_000,
        '{"version": ' + "[" * 100_000,
        '{"version": ' + "9" * 5000 + ', "keys": []}',
        '\ufeff{"version": 1, "keys": []}',
    ],
)
def test_anything_but_a_registry_is_refused(text: str) -> None:
    error_of(text)


def test_a_field_given_twice_is_refused() -> None:
    twice = json.dumps(GOOD)[:-1] + ', "revoked": true, "revoked": false}'
    assert "twice" in error_of('{"version": 1, "keys": [' + twice + "]}")


def test_a_syntax_error_says_where() -> None:
    assert "line 2, column 1" in error_of('{"version": 1,\n]')


def test_loading_pauses_between_slices() -> None:
    records = [
        {"id": f"k{number}", "sha256": f"{number:064x}", "owner": "x"}
        for number in range(2 * SLICE + 1)
    ]
    loader = load_in_slices(registry_text(*records))
    pauses = 0
    with pytest.raises(StopIteration) as end:
        while True:
            next(loader)
            pauses += 1
    assert pauses == 2
    assert len(end.value.value) == 2 * SLICE + 1


SPACE = st.text(" \t\r\n", max_size=2)


@given(st.lists(st.integers(0, 2**64), unique=True, max_size=6), SPACE, st.booleans())
def test_reads_what_any_json_reader_reads(numbers: list[int], space: str, turned: bool) -> None:
    records = [{"id": f"k{n}", "sha256": f"{n:064x}", "owner": "ü"} for n in numbers]
    members = {"keys": records, "version": 1} if turned else {"version": 1, "keys": records}
    text = space + json.dumps(members, separators=("," + space, space + ":"), indent=1) + space
    registry = load_registry(text)
    assert len(registry) == len(numbers)
    assert all(registry.find(bytes.fromhex(raw["sha256"])) for raw in records)


@given(st.data())
def test_a_damaged_file_is_read_whole_or_not_at_all(data: st.DataObject) -> None:
    """Cut, or with one character changed: an error, or exactly what json makes of it."""
    text = registry_text(GOOD, record(generate_key(), "app2", expires="2027-01-31"))
    place = data.draw(st.integers(0, len(text) - 1))
    damaged = data.draw(
        st.sampled_from([text[:place], text[:place] + text[place + 1 :]])
        | st.characters().map(lambda c: text[:place] + c + text[place + 1 :])
    )
    try:
        registry = load_registry(damaged)
    except RegistryError:
        return
    assert isinstance(registry, Registry)
    assert len(registry) == len(json.loads(damaged)["keys"])


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=5))
def test_no_json_value_crashes_the_loader(value: t.Any) -> None:
    for text in (json.dumps(value), registry_text({**GOOD, "networks": value}, value)):
        with pytest.raises(RegistryError):
            load_registry(text)
