# SPDX-License-Identifier: GPL-3.0-or-later
"""What is in force where, and where a request is handed to."""

from __future__ import annotations

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.tree import (
    Config,
    Listen,
    Target,
    dependencies,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_syntax import parse


def config(text):
    return Config(parse(text))


def scope(found, kind, *args):
    return next(one for one in found.scopes() if one.kind == kind and one.args == args)


NESTED = """
http {
    access_log /a; proxy_set_header A 1; limit_req zone=a;
    server {
        proxy_set_header B 2; limit_req zone=b; limit_req zone=c;
        location / {
            location = /x { proxy_set_header C 3; if ($a) { return 404; } }
        }
        location = /y { limit_req zone=d; access_log off; }
    }
}
"""


@pytest.mark.parametrize(
    ("place", "name", "in_force"),
    [
        (("=", "/x"), "proxy_set_header", ["C 3"]),
        (("/",), "proxy_set_header", ["B 2"]),
        (("=", "/x"), "limit_req", ["zone=b", "zone=c"]),
        (("=", "/y"), "limit_req", ["zone=d"]),
        (("=", "/x"), "access_log", ["/a"]),
        (("=", "/y"), "access_log", ["off"]),
        (("=", "/y"), "satisfy", []),
    ],
)
def test_what_a_scope_says_replaces_all_that_it_would_inherit(place, name, in_force):
    found = scope(config(NESTED), "location", *place).effective(name)
    assert [" ".join(one.args) for one in found] == in_force


def test_an_if_is_a_scope_of_its_location():
    inner = scope(config(NESTED), "if", "($a)")
    assert inner.around("location").args == ("=", "/x")
    assert inner.value("proxy_set_header") == "C 3"


@pytest.mark.parametrize(
    ("text", "address", "ports", "words"),
    [
        ("443 ssl", "", range(443, 444), ("ssl",)),
        ("[::]:443", "::", range(443, 444), ()),
        ("*:80", "", range(80, 81), ()),
        ("10.0.0.1:8443 ssl", "10.0.0.1", range(8443, 8444), ("ssl",)),
        ("10.0.0.1", "10.0.0.1", range(80, 81), ()),
        ("[::1]", "::1", range(80, 81), ()),
        ("localhost", "localhost", range(80, 81), ()),
        ("440-450", "", range(440, 451), ()),
        ("unix:/run/x", "unix:/run/x", range(0), ()),
    ],
)
def test_listens(text, address, ports, words):
    (directive,) = parse(f"listen {text};")
    assert Listen.of(directive) == Listen(address, ports, words)


def test_no_listen_is_port_80():
    (server,) = config("http { server { } }").servers()
    assert server.serves(80)
    assert not server.serves(443)


WAYS = """
stream { upstream u { server 127.0.0.1:1; } server { listen 1; proxy_pass u; } }
http {
    upstream u { server 127.0.0.1:11434 weight=2; server unix:/run/b backup; keepalive 2; }
    upstream plain { server example.com; }
    map $host $chosen { default u; a.test 10.0.0.1:9; }
    map $host $none { }
    map $loop $loop { default $loop; }
    server {
        set $path /a; set $name u;
        location / { proxy_pass %s; }
    }
}
"""


def at(host, port, path="", scheme="http"):
    return (scheme, host, port, path)


@pytest.mark.parametrize(
    ("text", "targets"),
    [
        ("http://127.0.0.1:11434", [at("127.0.0.1", 11434)]),
        ("http://127.0.0.1", [at("127.0.0.1", 80)]),
        ("https://a.test/x", [at("a.test", 443, "/x", "https")]),
        ("http://[::1]:9/", [at("::1", 9, "/")]),
        ("http://[::1]/", [at("::1", 80, "/")]),
        ("http://unix:/run/x.sock:/p", [at("unix:/run/x.sock", 0, "/p")]),
        ("http://unix:/run/x.sock", [at("unix:/run/x.sock", 0)]),
        ("http://u", [at("127.0.0.1", 11434), at("unix:/run/b", 0)]),
        ("http://U/x", [at("127.0.0.1", 11434, "/x"), at("unix:/run/b", 0, "/x")]),
        ("http://plain", [at("example.com", 80)]),
        ("http://plain$path", [at("example.com", 80, "/a")]),
        ("http://plain$uri", [at("example.com", 80, "$uri")]),
        ("http://${name}$path", [at("127.0.0.1", 11434, "/a"), at("unix:/run/b", 0, "/a")]),
        (
            "http://$chosen",
            [at("10.0.0.1", 9), at("127.0.0.1", 11434), at("unix:/run/b", 0)],
        ),
        ("http://$host", [at("", 0, "$host")]),
        ("http://10.0.0.1$arg_x", [at("", 0, "$arg_x")]),
        ("http://10.0.0.1:9/$arg_x", [at("10.0.0.1", 9, "/$arg_x")]),
        ("http://unix:$arg_x", [at("", 0)]),
        ("http://$loop", [at("", 0, "$loop")]),
    ],
)
def test_where_a_request_goes(text, targets):
    found = config(WAYS % text)
    place = scope(found, "location", "/")
    got = [found.targets(one, place) for one in place.passes()]
    assert [[(t.scheme, t.host, t.port, t.path) for t in one] for one in got] == [targets]


def test_groups_of_streams_are_apart():
    found = config(WAYS % "http://u")
    (server,) = found.servers("stream")
    (target,) = found.targets(server.passes()[0], server)
    assert target == Target("", "127.0.0.1", 1, "", "u")


def test_too_many_texts_are_unknown():
    rows = "".join(f"k{number} v{number};" for number in range(40))
    found = config(f"http {{ map $host $a {{ {rows} }} server {{ }} }}")
    assert len(found.expand("$a")) == 40
    assert found.expand("$a$a") == ["$?"]


def test_dependencies_are_followed():
    text = 'http { map $http_x $a { default $b; } server { set $b "${c}!"; } }'
    assert set(dependencies(config(text), "a", None)) == {"a", "http_x", "b", "c"}


def test_a_set_counts_in_its_server_only():
    found = config("http { server { set $a b; } server { listen 81; } }")
    one, other = found.servers()
    assert found.expand("$a", one) == ["b"]
    assert found.expand("$a", other) == ["$a"]
    assert found.expand("$a") == ["b"]
