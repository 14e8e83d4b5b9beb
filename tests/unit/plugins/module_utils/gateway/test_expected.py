# SPDX-License-Identifier: GPL-3.0-or-later
"""What the settings ask for, and whether a target is the LLM server."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.expected import (
    Backend,
    Limit,
    expected_from,
    seconds,
    size,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import Target
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_routes import GatewayError

from tests.unit.plugins.gateway_files import options


def target(host, port):
    return Target("http", host, port, "", host)


@pytest.mark.parametrize(
    ("text", "number"), [("8k", 8192), ("10M", 10 * 1024**2), ("0", 0), ("1g", 1024**3)]
)
def test_sizes(text, number):
    assert size(text) == number


@pytest.mark.parametrize(
    ("text", "number"), [("10s", 10), ("10", 10), ("1h", 3600), ("500ms", 0.5), ("2m", 120)]
)
def test_times(text, number):
    assert seconds(text) == number


@pytest.mark.parametrize("text", ["", "k", "1x", "1k ", "-1", "1m30s"])
def test_neither(text):
    for read in (size, seconds):
        with pytest.raises(GatewayError, match="not a"):
            read(text)


@pytest.mark.parametrize(
    ("text", "backend"),
    [
        ("127.0.0.1:11434", Backend("127.0.0.1", 11434)),
        ("[::1]:11434", Backend("::1", 11434)),
        ("http://127.0.0.1:11434/", Backend("127.0.0.1", 11434)),
        ("http://a.test", Backend("a.test", 80)),
        ("https://a.test", Backend("a.test", 443, tls=True)),
        ("https://a.test:8443", Backend("a.test", 8443, tls=True)),
        ("unix:/run/llm.sock", Backend("unix:/run/llm.sock", 0)),
        ("http://unix:/run/llm.sock", Backend("unix:/run/llm.sock", 0)),
    ],
)
def test_backends(text, backend):
    assert Backend.of(text) == backend


@pytest.mark.parametrize("text", ["127.0.0.1", "a:b", ":1", "ftp://a:1", "a:0", "a:99999"])
def test_no_backend(text):
    with pytest.raises(GatewayError):
        Backend.of(text)


@pytest.mark.parametrize(
    ("settings", "host", "port", "may"),
    [
        ({}, "127.0.0.1", 11434, True),
        ({}, "127.9.9.9", 11434, True),
        ({}, "localhost", 11434, True),
        ({}, "::1", 11434, True),
        ({}, "0.0.0.0", 11434, True),  # noqa: S104
        ({}, "::ffff:127.0.0.1", 11434, True),
        ({}, "192.0.2.1", 11434, True),
        ({}, "192.0.2.2", 11434, False),
        ({}, "gpu.example.com", 11434, True),
        ({}, "127.1", 11434, True),
        ({}, "127.0.0.1", 11435, False),
        ({}, "127.0.0.1", 80, False),
        ({}, "", 0, True),
        ({"backend": "127.0.0.1:9000"}, "127.0.0.1", 9000, True),
        ({"backend": "127.0.0.1:9000"}, "127.0.0.1", 11434, True),
        ({"backend": "192.0.2.20:443"}, "192.0.2.20", 443, True),
        ({"backend": "192.0.2.20:443"}, "192.0.2.21", 443, False),
        ({"backend": "192.0.2.20:443"}, "example.com", 443, False),
        ({"backend": "gpu1:443"}, "GPU1", 443, True),
        ({"backend": "unix:/run/llm.sock"}, "unix:/run/x/../llm.sock", 0, True),
        ({"backend": "unix:/run/llm.sock"}, "unix:/run/other.sock", 0, False),
        ({}, "unix:/run/llm.sock", 0, False),
    ],
)
def test_who_may_be_the_llm_server(settings, host, port, may):
    assert expected_from(options(**settings), ["192.0.2.1"]).may_reach(target(host, port)) is may


def test_only_the_named_one_is_expected():
    expected = expected_from(options(backend="127.0.0.1:9000"))
    assert expected.is_backend(target("localhost", 9000))
    assert not expected.is_backend(target("127.0.0.1", 11434))


def test_what_was_turned_off_is_none():
    expected = expected_from(options(limit_per_key=None, audit_socket=""))
    assert (expected.limit_per_key, expected.audit_socket) == (None, None)
    assert expected_from(options(limit_per_key={"rate": "1r/s"})).limit_per_key == Limit("1r/s", 0)


@pytest.mark.parametrize(
    "settings",
    [
        {"server": "nobody"},
        {"endpoint_classes": ["account"]},
        {"extra_routes": ["GET /nowhere"]},
        {"limit_per_key": {"rate": "10r/h"}},
        {"limit_per_key": {"burst": 5}},
        {"limit_per_key": "10r/m"},
        {"limit_per_address": {"rate": "10r/m", "burst": -1}},
        {"connections_per_address": "many"},
        {"max_body_size": "big"},
        {"backend": "somewhere"},
    ],
)
def test_wrong_settings_are_named(settings):
    with pytest.raises(ValueError):
        expected_from(options(**settings))


def test_names_and_addresses():
    assert expected_from(options(server_names=["A.Test"])).server_names == ("a.test",)
    assert not expected_from(options(server_names=["a.test"])).by_address
    assert expected_from(options(server_names=["a.test", "2001:db8::1"])).by_address
