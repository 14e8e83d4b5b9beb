# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway is found in a configuration, and a refusal is told from an answer."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.expected import expected_from
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.parts import (
    certificates,
    condition,
    defaults_of,
    find_gateway,
    names_of,
    place_of,
    refuses,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import Config
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_syntax import assemble, parse

from tests.unit.plugins.gateway_files import MAIN, options, rendered

HOP = "location /a { proxy_pass http://unix:/run/llm-key-validator.sock:/authorize; }"


def location(inside):
    config = Config(parse(f"http {{ server {{ location / {{ {inside} }} }} }}"))
    return next(one for one in config.scopes() if one.kind == "location")


@pytest.mark.parametrize(
    ("inside", "refused"),
    [
        ("return 404;", True),
        ("return 444;", True),
        ("return 403 'no';", True),
        ("return 404; if ($a) { return 405; }", True),
        ("return 200;", False),
        ("return 301 /x;", False),
        ("return /x;", False),
        ("return 404; return 200;", False),
        ("if ($a) { return 404; }", False),
        ("return 404; if ($a) { return 200; }", False),
        ("return 404; if ($a) { proxy_pass http://a; }", False),
        ("return 404; proxy_pass http://a;", False),
        ("return 404; location /x { root /srv; }", False),
        ("root /srv;", False),
        ("", False),
    ],
)
def test_what_is_a_refusal(inside, refused):
    assert refuses(location(inside)) is refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("($a)", ("$a",)),
        ("($a = b)", ("$a", "=", "b")),
        ('($a = "")', ("$a", "=", "")),
        ("( $a = b )", ("$a", "=", "b")),
        ('($a !~ "^(?:GET|HEAD)$")', ("$a", "!~", "^(?:GET|HEAD)$")),
    ],
)
def test_the_words_of_a_condition(text, words):
    (inner,) = location(f"if {text} {{ return 404; }}").children
    assert condition(inner) == words


def test_the_default_server_is_the_named_or_the_first_of_each_address():
    config = Config(
        parse(
            "http { server { listen 443; server_name a; }"
            " server { listen 443 default_server; listen [::]:443; server_name b; }"
            " server { listen 10.0.0.1:443; server_name c; } server { server_name d; } }"
        )
    )
    assert [names_of(one) for one in defaults_of(config, 443)] == [{"b"}, {"c"}]


@pytest.mark.parametrize(
    ("servers", "found"),
    [
        (f"server {{ listen 443; server_name x; {HOP} }}", {"x"}),
        (f"server {{ listen 444; server_name x; {HOP} }}", None),
        ("server { listen 443; server_name llm.test; }", None),
        ("server { listen 443; server_name llm.test; auth_request /v; }", {"llm.test"}),
        (
            f"server {{ listen 443; server_name x; {HOP} }}"
            f"server {{ listen 443; server_name llm.test; {HOP} }}",
            {"llm.test"},
        ),
    ],
)
def test_the_gateway_is_known_by_what_it_asks(servers, found):
    gateway = find_gateway(Config(parse(f"http {{ {servers} }}")), expected_from(options()))
    assert (gateway and names_of(gateway.server)) == found


def test_the_files_that_nginx_reads_once():
    directives = assemble(rendered()["upstream_mtls"], MAIN)
    assert set(certificates(directives, expected_from(options(auth="either")))) == {
        "/etc/llm-gateway/pki/server.crt", "/etc/llm-gateway/pki/server.key",
        "/etc/llm-gateway/pki/client-ca.crt", "/etc/llm-gateway/pki/client.crl",
        "/etc/llm-gateway/backend/ca.crt", "/etc/llm-gateway/backend/client.crt",
        "/etc/llm-gateway/backend/client.key",
    }  # fmt: skip
    assert certificates(parse("http { }"), expected_from(options())) == []


def test_the_place_of_a_route():
    assert place_of({"path": "/a"}) == ("=", "/a")
    assert place_of({"pattern": "^/a/[a-z]+$"}) == ("~", "^/a/[a-z]+\\z")
