# SPDX-License-Identifier: GPL-3.0-or-later
"""Where the shared counters are."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.quotas.address import StoreAddress, parse_address


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("unix:///run/valkey/valkey.sock", StoreAddress(path="/run/valkey/valkey.sock")),
        ("unix:///run/s?db=3", StoreAddress(path="/run/s", database=3)),
        ("redis://127.0.0.1", StoreAddress(host="127.0.0.1")),
        ("redis://127.0.0.1:6380/0", StoreAddress(host="127.0.0.1", port=6380)),
        ("redis://[::1]:6380/", StoreAddress(host="::1", port=6380)),
        (
            "rediss://gateway@valkey.example:6380/2",
            StoreAddress(host="valkey.example", port=6380, tls=True, user="gateway", database=2),
        ),
    ],
)
def test_addresses(url: str, expected: StoreAddress) -> None:
    assert parse_address(url) == expected


@pytest.mark.parametrize(
    "url",
    [
        *(
            "",
            "unix://",
            "unix:///",
            "unix://run/s",
            "redis://",
            "redis:///0",
            "http://h",
            "h:6379",
        ),
        *("redis://h:x", "redis://h/x", "redis://h/0/1", "redis://h?db=1", "unix:///s?db=1&x=2"),
        *("rediss://h?ssl_cert_reqs=none", "redis://h\n", "unix:///s?password=secret"),
        *("redis://user:secret@h", "redis://:secret@h:6379/0", "unix://:secret@/run/s"),
    ],
)
def test_what_is_none_is_not_repeated(url: str) -> None:
    with pytest.raises(ValueError, match=r"^must be unix:///PATH") as caught:
        parse_address(url)
    assert "secret" not in str(caught.value)


@given(st.text())
def test_any_text(url: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_address(url)
