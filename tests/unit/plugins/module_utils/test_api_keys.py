# SPDX-License-Identifier: GPL-3.0-or-later
"""Key text, checksum and key records."""

from __future__ import annotations

import hashlib
import json
import typing as t
import zlib
from datetime import UTC, datetime

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import (
    BASE62,
    KEY_LENGTH,
    RecordError,
    checksum,
    generate_key,
    is_well_formed,
    key_digest,
    parse_instant,
    parse_network,
    parse_record,
)
from hypothesis import given
from hypothesis import strategies as st

GOOD: dict[str, t.Any] = {"id": "app1", "sha256": "ab" * 32, "owner": "Team Search"}


def test_a_key_has_the_agreed_shape() -> None:
    key = generate_key()
    assert len(key) == KEY_LENGTH == 51
    assert key.startswith("llmk_")
    assert set(key[5:]) <= set(BASE62)
    assert is_well_formed(key.encode())
    assert key_digest(key) == hashlib.sha256(key.encode()).hexdigest()


def test_keys_do_not_repeat() -> None:
    assert len({generate_key() for _unused in range(200)}) == 200


@given(st.text(BASE62, min_size=40, max_size=40))
def test_the_checksum_is_crc32_in_base62(random: str) -> None:
    body = f"llmk_{random}"
    number = 0
    for digit in checksum(body):
        number = number * 62 + BASE62.index(digit)
    assert number == zlib.crc32(body.encode())
    assert len(checksum(body)) == 6


def test_the_checksum_of_a_known_text() -> None:
    """CRC-32 of 123456789 is 0xCBF43926 = 3*62^5 + 45*62^4 + 35*62^3 + 27*62^2 + 22*62 + 14."""
    assert zlib.crc32(b"123456789") == 0xCBF43926
    assert checksum("123456789") == "3jZRME"


@given(st.integers(0, KEY_LENGTH - 1), st.sampled_from(BASE62))
def test_every_typing_error_is_noticed(place: int, digit: str) -> None:
    key = generate_key()
    mistyped = key[:place] + digit + key[place + 1 :]
    assert is_well_formed(mistyped.encode()) is (mistyped == key)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2027-01-31", datetime(2027, 1, 31, tzinfo=UTC)),
        ("2027-01-31T12:30:59Z", datetime(2027, 1, 31, 12, 30, 59, tzinfo=UTC)),
        ("2027-01-31T12:30:59+00:00", datetime(2027, 1, 31, 12, 30, 59, tzinfo=UTC)),
        ("1970-01-01", datetime(1970, 1, 1, tzinfo=UTC)),
        ("9999-12-31", datetime(9999, 12, 31, tzinfo=UTC)),
    ],
)
def test_instants(text: str, expected: datetime) -> None:
    assert parse_instant(text) == int(expected.timestamp())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "90d",
        "2027-1-31",
        "2027-02-29",
        "2027-01-31T24:00:00Z",
        "2027-01-31T00:00:60Z",
        "2027-01-31T00:00:00",
        "2027-01-31 00:00:00Z",
        "2027-01-31T00:00:00+01:00",
        "2027-01-31T00:00:00.5Z",
        "0000-01-01",
        "\uff12\uff10\uff12\uff17-01-31",
        "2027-01-31\n",
    ],
)
def test_what_is_no_instant(text: str) -> None:
    with pytest.raises(ValueError, match=r"must be a UTC time|is not a day"):
        parse_instant(text)


@pytest.mark.parametrize(
    "text", ["", "10.0.0.1/8", "10.0.0/24", "10.0.0.0/33", "fe80::%eth0/64", "::ffff:10.0.0.0/104"]
)
def test_what_is_no_network(text: str) -> None:
    with pytest.raises(ValueError, match="must"):
        parse_network(text)


def test_a_whole_record() -> None:
    record = parse_record(
        {
            **GOOD,
            "not_before": "2026-01-01",
            "expires": "2027-01-31",
            "revoked": True,
            "networks": ["10.0.1.0/24", "2001:db8::/32", "192.0.2.7"],
            "endpoint_classes": ["read", "inspect"],
            "certificate_sha256": "cd" * 32,
            "models": ["Tiny", "llama3.2:*"],
            "tier": "batch",
        },
        "keys[0]",
    )
    assert record.digest == bytes.fromhex("ab" * 32)
    assert record.expires == parse_instant("2027-01-31")
    assert [str(network) for network in record.networks] == [
        "10.0.1.0/24",
        "2001:db8::/32",
        "192.0.2.7/32",
    ]
    assert record.endpoint_classes == {"read", "inspect"}
    assert record.certificates == ("cd" * 32,)
    assert record.models == ("Tiny", "llama3.2:*")
    assert record.tier == "batch"
    assert "abab" not in repr(record)


def test_what_a_short_record_means() -> None:
    record = parse_record(GOOD, "keys[0]")
    assert (record.not_before, record.expires, record.revoked) == (None, None, False)
    assert record.networks == ()
    assert record.endpoint_classes == {"inference", "read"}
    assert (record.certificates, record.models, record.tier) == ((), (), None)


def test_a_client_without_a_key_has_certificates() -> None:
    raw = {"id": "batch1", "owner": "Team", "certificate_sha256": ["cd" * 32, "ef" * 32]}
    record = parse_record(raw, "keys[0]")
    assert record.digest is None
    assert record.certificates == ("cd" * 32, "ef" * 32)
    for none in ([], ["cd" * 32] * 9, "CD" * 32, None, [None]):
        with pytest.raises(RecordError, match=r"keys\[0\]\.certificate_sha256"):
            parse_record({**raw, "certificate_sha256": none}, "keys[0]")


@pytest.mark.parametrize("missing", ["id", "sha256", "owner"])
def test_what_a_record_must_have(missing: str) -> None:
    raw = {name: value for name, value in GOOD.items() if name != missing}
    with pytest.raises(RecordError) as caught:
        parse_record(raw, "keys[7]")
    assert (caught.value.where, caught.value.field) == ("keys[7]", missing)
    assert str(caught.value).startswith(f"keys[7].{missing}: ")


@pytest.mark.parametrize("key_id", ["", "-a", "A", "a b", "a" * 64, "ä", 7, None, ["a"], "a\n"])
def test_ids_that_are_none(key_id: t.Any) -> None:
    with pytest.raises(RecordError, match=r"keys\[0\]\.id"):
        parse_record({**GOOD, "id": key_id}, "keys[0]")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)


OTHERS = ("networks", "expires", "revoked", "endpoint_classes", "models", "tier")


@given(st.sampled_from([*GOOD, *OTHERS, "certificate_sha256"]), JSON)
def test_any_value_in_any_field_is_a_record_or_a_record_error(name: str, value: t.Any) -> None:
    try:
        parse_record({**GOOD, name: value}, "keys[0]")
    except RecordError as error:
        assert error.field.startswith(name)


@given(JSON)
def test_what_is_no_record_is_a_record_error(raw: t.Any) -> None:
    with pytest.raises(RecordError):
        parse_record(raw, "keys[0]")


@given(st.sampled_from([*GOOD, *OTHERS, "certificate_sha256"]))
def test_a_key_in_the_wrong_field_is_not_repeated(name: str) -> None:
    key = generate_key()
    value = f"{key}\n" if name == "owner" else key
    with pytest.raises(RecordError) as caught:
        parse_record(json.loads(json.dumps({**GOOD, name: value})), "keys[0]")
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "glob",
    [
        *("*", "?", "tiny", "TINY:Latest", "llama3.2:*", "*-embed-*", "a:b.c_d-e", "*/*", "*/*/*"),
        *("user/tiny", "hf.co/user/tiny:q4", "host:8080/user/tiny", "t" * 80, "*" * 80),
    ],
)
def test_models(glob: str) -> None:
    assert parse_record({**GOOD, "models": ["tiny", glob]}, "keys[0]").models == ("tiny", glob)


@pytest.mark.parametrize(
    "glob",
    [
        *("", " ", "tiny ", "tiny\n", "a b", "/tiny", "tiny/", "a//b", "a/b/c/d", "a:b:c", "tiny:"),
        *(
            ":latest",
            "-tiny",
            ".tiny",
            "a:-b",
            "us.er/tiny",
            "ti\u212ay",
            "t\u0131ny",
            "[a-z]",
            "{a}",
        ),
        *("t" * 81, "a/" + "*" * 255, "!tiny", "\\*", 7, None, ["tiny"], {}),
    ],
)
def test_what_names_no_models(glob: t.Any) -> None:
    with pytest.raises(RecordError, match=r"^keys\[0\]\.models\[1\]: "):
        parse_record({**GOOD, "models": ["tiny", glob]}, "keys[0]")


@pytest.mark.parametrize("models", [[], None, "tiny", {"tiny": 1}, ["*"] * 257])
def test_models_are_a_list_that_says_something(models: t.Any) -> None:
    """An empty list might be meant to say: no model at all."""
    with pytest.raises(RecordError, match=r"^keys\[0\]\.models: must be a list of 1 to 256"):
        parse_record({**GOOD, "models": models}, "keys[0]")


def test_what_many_records_have_in_common_is_kept_once() -> None:
    text = json.dumps({**GOOD, "models": ["tiny", "llama3.2:*"], "tier": "one-of-a-kind"})
    one, other = (parse_record(json.loads(text), "keys[0]") for _unused in range(2))
    assert one.models is other.models
    assert one.tier is other.tier
