# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What somebody without a good key sends to get in all the same. Pure data, and what fills it in.

Every request here must be refused, and must do no harm where it is not: bodies name a model that
cannot exist, or none at all, so that an open Ollama answers 404 or 400 at once. Templates are the
bytes on the wire; words in angle brackets are filled in by `fill`:

    <host>         the gateway's name, as in Host
    <read>         a path that is routed for GET, and in other spellings:
    <READ>, <r%65ad>, <r%2Fead>   in upper case; its first letter, its inner slashes encoded
    <post>, <up>   a path that is routed for POST, and the dots that lead from it to the root
    <managed>, <MANAGED>, <m%61naged>, <m%2Fanaged>   a path of model management, likewise
    <key>          an API key as it should be, which nobody has: another one each time
    <typo>         one with a wrong checksum
    <password>     user and password as Basic has them
    <Bearer>       the word; in another case where the request is repeated

No two requests show the same credential: the gateway counts by what was sent as a key, before it
looks at it, and whoever asks for the sixth time is limited and not refused.
"""

from __future__ import annotations

import base64
import re
import secrets
import typing as t
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_routes import select_routes
from ansible_collections.llmsec.hardening.plugins.module_utils.servers import Route, Server

__all__ = (
    "BASELINE",
    "BYPASSES",
    "CREDENTIALS",
    "METHODS",
    "Case",
    "Places",
    "Question",
    "few_cases",
    "few_questions",
    "fill",
    "host_cases",
    "open_routes",
    "places",
    "plain_request",
    "questions",
    "refused_key_case",
    "sample_path",
)  # fmt: skip

# An open server says 404 to this model without loading anything, and 400 to none.
NO_MODEL = b'{"model":"llmsec-probe/none"}'
EMPTY_MODEL = b'{"model":""}'
_JSON = b"Content-Type: application/json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """Requests that are one trick; each goes over a connection of its own.

    `id` ends the finding's id, `title` says what must hold. `may_close`: to hang up without an
    answer is a refusal too. `waits`: the body that the request announces never comes, and who
    waits for it has let a stranger in so far. `tls`: False sends it in the clear. `server_name` is
    another name in the handshake. `quick`: its first request is one of the few for a neighbour.
    """

    id: str
    title: str
    requests: tuple[bytes, ...]
    may_close: bool = True
    waits: bool = False
    tls: bool = True
    server_name: str | None = None
    quick: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The paths that the tricks are tried on."""

    host: str
    read: str
    post: str
    managed: str


def plain_request(
    line: bytes, *headers: bytes, body: bytes = b"", host: bytes = b"<host>"
) -> bytes:
    """Return a request with no trick but those in its arguments; the connection ends after it."""
    lines = [line + b" HTTP/1.1", b"Host: " + host, *headers, b"Connection: close"]
    if body:
        lines += [_JSON, b"Content-Length: %d" % len(body)]
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _get(*headers: bytes, host: bytes = b"<host>") -> bytes:
    return plain_request(b"GET <read>", *headers, host=host)


def _post(*headers: bytes) -> bytes:
    return plain_request(b"POST <post>", *headers, body=NO_MODEL)


def _manage(path: bytes) -> bytes:
    return plain_request(b"POST " + path, body=EMPTY_MODEL)


def _credential(case_id: str, title: str, *headers: bytes, target: bytes = b"<read>") -> Case:
    get = plain_request(b"GET " + target, *headers)
    post = plain_request(b"POST <post>" + target[len(b"<read>") :], *headers, body=NO_MODEL)
    return Case(id=case_id, title=title, requests=(get, post), may_close=False)


CREDENTIALS: tuple[Case, ...] = (
    _credential("unknown_key", "a key that nobody has is refused", b"Authorization: Bearer <key>"),
    _credential("unknown_x_api_key", "a key that nobody has is refused in X-API-Key",
                b"X-API-Key: <key>"),
    _credential("malformed_key", "what is no key is refused", b"Authorization: Bearer <typo>"),
    _credential("empty_key", "an empty key is refused", b"Authorization: <Bearer>", b"X-API-Key:"),
    _credential("basic", "a password is refused", b"Authorization: Basic <password>"),
    _credential("default_key", "the keys of manuals are refused",
                b"Authorization: <Bearer> sk-1234"),
    _credential("query", "a key in the query is refused",
                target=b"<read>?api_key=<key>&key=<key>&access_token=<key>"),
    _credential("cookie", "a key in a cookie is refused", b"Cookie: token=<key>; api_key=<key>"),
    _credential("two_authorization", "two different keys in one header are refused",
                b"Authorization: Bearer <key>", b"Authorization: Bearer <key>"),
    _credential("two_headers", "two different keys in two headers are refused",
                b"Authorization: Bearer <key>", b"X-API-Key: <key>"),
    _credential("control_character", "a key with a control character is refused",
                b"X-API-Key: <key>\x01"),
)  # fmt: skip


def _path(case_id: str, title: str, read: bytes, managed: bytes, *, quick: bool = False) -> Case:
    requests = (plain_request(b"GET " + read), _manage(managed))
    return Case(id=case_id, title=title, requests=requests, quick=quick)


_PATHS = (
    _path("dot_segments", "dot segments lead nowhere", b"/x/..<read>", b"<post><up><managed>",
          quick=True),
    _path("encoded_dots", "encoded dot segments lead nowhere", b"/x/%2e%2e<read>",
          b"<post>/%2e%2e/%2e%2e<managed>"),
    _path("encoded_traversal", "encoded slashes and dots lead nowhere",
          b"/v1/models/..%2f..<read>", b"/v1/models/..%2f..%2f..<managed>"),
    _path("double_slash", "doubled slashes lead nowhere", b"/<read>", b"/<managed>"),
    _path("encoded_letter", "encoded letters lead nowhere", b"<r%65ad>", b"<m%61naged>"),
    _path("encoded_slash", "encoded slashes lead nowhere", b"<r%2Fead>", b"<m%2Fanaged>"),
    _path("upper_case", "upper case leads nowhere", b"<READ>", b"<MANAGED>"),
    _path("trailing_slash", "a trailing slash leads nowhere", b"<read>/", b"<managed>/"),
    _path("semicolon", "path parameters lead nowhere", b"<read>;x", b"<managed>;x"),
    _path("suffix", "a suffix leads nowhere", b"<read>%20", b"<managed>.json"),
    _path("null_byte", "a null byte leads nowhere", b"<read>%00", b"<managed>%00x"),
    _path("line_feed", "an encoded line feed leads nowhere", b"<read>%0a", b"<managed>%0a"),
    _path("backslash", "backslashes lead nowhere", b"/x\\..\\<read>", b"/x\\..\\<managed>"),
    _path("query_path", "a path behind the question mark leads nowhere", b"<read>?/x/..",
          b"<managed>?<read>"),
    _path("fragment", "a fragment leads nowhere", b"<read>#x", b"<managed>#<read>"),
    _path("absolute_uri", "an absolute URI leads nowhere", b"https://<host><read>",
          b"https://<host><managed>"),
    _path("absolute_uri_elsewhere", "an absolute URI of another host leads nowhere",
          b"http://localhost:11434<read>", b"http://127.0.0.1:11434<managed>"),
)  # fmt: skip


def _forged(case_id: str, title: str, *headers: bytes) -> Case:
    return Case(id=case_id, title=title, requests=(_get(*headers), _post(*headers)))


_HEADERS = (
    _forged("x_accel_redirect", "a client's X-Accel-Redirect sends nothing anywhere",
            b"X-Accel-Redirect: @backend", b"X-Accel-Redirect: <read>"),
    _forged("x_forwarded_for", "a forged address makes nobody local",
            b"X-Forwarded-For: 127.0.0.1", b"X-Real-IP: 127.0.0.1", b"X-Client-IP: ::1",
            b"Forwarded: for=127.0.0.1;proto=https;host=localhost"),
    _forged("x_original_uri", "a forged URI is not the one that is judged",
            b"X-Original-URI: /", b"X-Original-URL: /", b"X-Rewrite-URL: /",
            b"X-Original-Method: OPTIONS", b"X-HTTP-Method-Override: OPTIONS"),
    _forged("identity", "a forged identity is nobody's",
            b"X-Key-Id: app1", b"X-Auth-Reason: ok", b"X-Limit-Key: <>",
            b"X-LLM-Key-Id: app1", b"X-LLM-User: root", b"Remote-User: root", b"X-User: root",
            b"X-Gateway-Request: 00000000000000000000000000000000 127.0.0.1 read GET <read>"),
    _forged("certificate_header", "a certificate in a header is none",
            b"X-Client-Certificate: x", b"X-SSL-Client-Verify: SUCCESS", b"X-SSL-Client-Cert: x"),
    _forged("hop_by_hop", "Connection takes no header of the gateway's away",
            b"Connection: close, X-Gateway-Request, X-Limit-Key, Authorization, Host"),
    _forged("websocket", "an upgrade to WebSocket is refused", b"Connection: Upgrade",
            b"Upgrade: websocket", b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: AAAA"),
    _forged("h2c", "an upgrade to HTTP/2 is refused", b"Connection: Upgrade, HTTP2-Settings",
            b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAAP__"),
    _forged("large_header", "an oversized header is refused", b"X-Large: " + b"a" * 40000),
    _forged("many_headers", "very many headers are refused",
            *(b"X-%d: x" % number for number in range(500))),
)  # fmt: skip


def _raw(*lines: bytes, body: bytes = b"") -> bytes:
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


_HOST = b"Host: <host>"
_HOSTS = (
    Case(id="http_1_0", title="HTTP/1.0 without Host leads nowhere",
         requests=(_raw(b"GET <read> HTTP/1.0"),
                   _raw(b"POST <post> HTTP/1.0", b"Content-Length: %d" % len(NO_MODEL),
                        body=NO_MODEL))),
    Case(id="http_0_9", title="HTTP/0.9 leads nowhere", requests=(b"GET <read>\r\n",)),
    Case(id="no_host", title="HTTP/1.1 without Host leads nowhere",
         requests=(_raw(b"GET <read> HTTP/1.1", b"Connection: close"),)),
    Case(id="two_hosts", title="two Host headers lead nowhere",
         requests=(_raw(b"GET <read> HTTP/1.1", _HOST, b"Host: localhost", b"Connection: close"),)),
    Case(id="host_with_query", title="a Host with a path and a query leads nowhere",
         requests=(_get(host=b"<host>/?x="), _get(host=b"<host>#"), _get(host=b"<host>@x"))),
    Case(id="host_spelling", title="the name in other spellings leads nowhere",
         requests=(_get(host=b"<host>."), _get(host=b"<host>:80"), _get(host=b"<host>:11434"))),
    Case(id="unknown_host", title="an unknown Host leads nowhere",
         requests=(_get(host=b"llmsec-probe.invalid"), _get(host=b"localhost:11434"),
                   _get(host=b"127.0.0.1:11434"), _get(host=b"[::1]"), _get(host=b"")),
         quick=True),
    Case(id="plain_http", title="plain HTTP on the TLS port leads nowhere", tls=False,
         requests=(_get(), _post())),
)  # fmt: skip


def _method(line: bytes, *headers: bytes) -> bytes:
    return _raw(line, _HOST, *headers, b"Connection: close")


_METHODS = (
    Case(id="trace", title="TRACE is refused",
         requests=(_method(b"TRACE <read> HTTP/1.1"), _method(b"TRACK <read> HTTP/1.1"))),
    Case(id="connect", title="CONNECT is refused",
         requests=(_method(b"CONNECT 127.0.0.1:11434 HTTP/1.1"),
                   _method(b"CONNECT <read> HTTP/1.1"))),
    Case(id="options", title="OPTIONS is refused",
         requests=(_method(b"OPTIONS * HTTP/1.1"),
                   _method(b"OPTIONS <post> HTTP/1.1", b"Origin: https://x.invalid",
                           b"Access-Control-Request-Method: POST"))),
    Case(id="other_methods", title="methods that are not HTTP's own are refused",
         requests=(_method(b"PROPFIND <read> HTTP/1.1"), _method(b"get <read> HTTP/1.1"),
                   _method(b"LLMSEC <read> HTTP/1.1"), _method(b"GET\t<read> HTTP/1.1"),
                   _method(b"GET <read> HTTP/2.0"), _method(b"GET <read>  HTTP/1.1"))),
    Case(id="http_2", title="HTTP/2 without a word before leads nowhere",
         requests=(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0",)),
)  # fmt: skip

# What a server that is fooled takes for a second request. It ends the connection.
_SMUGGLED = b"GET <read> HTTP/1.1\r\nHost: <host>\r\nConnection: close\r\n\r\n"
_CHUNKED = b"Transfer-Encoding: chunked"


def _smuggled(case_id: str, title: str, *headers: bytes) -> Case:
    """The body is over at once by its chunks, and goes on by its length."""
    request = _raw(b"POST <post> HTTP/1.1", _HOST, _JSON, *headers, body=b"0\r\n\r\n" + _SMUGGLED)
    return Case(id=case_id, title=title, requests=(request,))


_SMUGGLING = (
    _smuggled("smuggling_cl_te", "a request hidden behind a length and chunks is not let in",
              b"Content-Length: 5", _CHUNKED),
    _smuggled("smuggling_te_cl", "a request hidden behind chunks and a length is not let in",
              _CHUNKED, b"Content-Length: 5"),
    _smuggled("smuggling_te_te", "two codings hide no request", _CHUNKED,
              b"Transfer-Encoding: identity", b"Content-Length: 5"),
    _smuggled("smuggling_te_spelling", "a coding spelt oddly hides no request",
              b"Transfer-Encoding: xchunked", b"Content-Length: 5"),
    _smuggled("smuggling_te_space", "a coding with a space before its colon hides no request",
              b"Transfer-Encoding : chunked", b"Content-Length: 5"),
    _smuggled("smuggling_te_folded", "a folded coding hides no request",
              b"Transfer-Encoding:\r\n chunked", b"Content-Length: 5"),
    _smuggled("smuggling_two_lengths", "two lengths hide no request",
              b"Content-Length: 5", b"Content-Length: 0"),
    _smuggled("smuggling_length_list", "a list of lengths hides no request",
              b"Content-Length: 5, 0"),
    _smuggled("smuggling_length_sign", "a length with a sign hides no request",
              b"Content-Length: +5"),
    Case(id="smuggling_bare_lf", title="bare line feeds hide no request",
         requests=(b"GET /llmsec-probe HTTP/1.1\r\nHost: <host>\r\nX: x\n\n" + _SMUGGLED,)),
    Case(id="smuggling_bare_cr", title="bare carriage returns hide no request",
         requests=(b"GET /llmsec-probe HTTP/1.1\r\nHost: <host>\r\nX: x\r\r" + _SMUGGLED,)),
    Case(id="pipelining", title="a second request on the connection is judged as the first",
         requests=(_raw(b"GET /llmsec-probe HTTP/1.1", _HOST, body=_SMUGGLED),)),
)  # fmt: skip

_SIZES = (
    Case(id="unsent_body", title="who has no key is refused before a large body is sent",
         requests=(_raw(b"POST <post> HTTP/1.1", _HOST, _JSON, b"Content-Length: 20000"),
                   _raw(b"POST <post> HTTP/1.1", _HOST, _JSON, _CHUNKED)),
         waits=True),
    Case(id="huge_body", title="a huge body is refused before it is sent",
         requests=(_raw(b"POST <post> HTTP/1.1", _HOST, _JSON, b"Content-Length: 99999999999"),),
         waits=True),
    Case(id="long_line", title="an oversized request line is refused",
         requests=(plain_request(b"GET <read>?" + b"a" * 40000),)),
)  # fmt: skip


def _services(case_id: str, title: str, *lines: bytes) -> Case:
    bodies = (EMPTY_MODEL if line.startswith(b"POST") else b"" for line in lines)
    requests = (plain_request(line, body=body) for line, body in zip(lines, bodies, strict=True))
    return Case(id=case_id, title=title, requests=tuple(requests), may_close=False)


# Names of internal locations: the gateway's own, and those that guides give them.
_INTERNAL = (
    b"GET /validate-key", b"POST /authorize", b"GET /validate", b"GET /_llm_validate",
    b"GET /auth", b"GET /_auth", b"POST /@backend", b"GET /llm-gateway/errors/401",
    b"GET /llm-gateway/errors/name",
)  # fmt: skip
_SERVICES = (
    _services("internal_locations", "internal locations are nobody's", *_INTERNAL),
    _services("metrics", "metrics are not public", b"GET /metrics", b"GET /nginx_status"),
    _services("healthz", "the services' health is not public", b"GET /healthz", b"GET /readyz",
              b"GET /health", b"GET /health/liveliness"),
    # The public templates of nuclei: ollama-detect, ollama-improper-authorization, litellm-*,
    # localai-detect
    _services("scanners", "scanners find nothing", b"GET /", b"GET /api/tags", b"GET /api/version",
              b"GET /v1/models", b"GET /model/info", b"GET /models/available", b"GET /ui/",
              b"POST /login", b"GET /swagger/index.html", b"GET /docs", b"GET /openapi.json"),
)  # fmt: skip

BYPASSES: tuple[Case, ...] = (
    *_PATHS, *_HEADERS, *_HOSTS, *_METHODS, *_SMUGGLING, *_SIZES, *_SERVICES,
)  # fmt: skip

# Names by which somebody may have made a way around; the module's user knows more of them.
LIKELY_NAMES = ("localhost", "ollama", "llm", "api", "internal", "test", "admin", "localai")
_PLAIN_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?\Z")


def host_cases(host: str, more: Iterable[str]) -> Iterator[Case]:
    """Yield the requests by other names: in the handshake and in Host, and in Host alone."""
    _first, dot, domain = host.partition(".")
    within = [f"{name}.{domain}" for name in ("ollama", "api", "internal")] if dot else []
    names = [*dict.fromkeys((*LIKELY_NAMES, *within, *more))]
    known = [name for name in names if _PLAIN_NAME.match(name) and name != host]
    requests = tuple(_get(host=name.encode()) for name in known)
    yield Case(
        id="other_host", title="no other Host leads around the gateway", requests=requests,
    )  # fmt: skip
    for name in known:
        yield Case(
            id="other_name", title="no other name in the handshake leads around the gateway",
            requests=(_get(host=name.encode()),), server_name=name,
        )  # fmt: skip


def refused_key_case(keys: Sequence[str]) -> Case:
    """Return the requests with keys that were good once, or are good elsewhere."""
    headers = [b"Authorization: Bearer " + key.encode("latin-1", "replace") for key in keys]
    return Case(
        id="refused_keys", title="revoked and expired keys are refused", may_close=False,
        requests=tuple(_get(one) for one in headers),
    )  # fmt: skip


def _encoded(path: str) -> str:
    """Return the path with its first letter percent-encoded."""
    return re.sub("[A-Za-z]", lambda found: f"%{ord(found[0]):02x}", path, count=1)


def _typo(key: str) -> str:
    return key[:-1] + ("1" if key.endswith("0") else "0")


def _other_case(word: str) -> str:
    return "".join(secrets.choice((char.upper(), char.lower())) for char in word)


def _inner_slashes(path: str) -> str:
    return path[:1] + (path[1:].replace("/", "%2F") or "%2F")


def fill(
    template: bytes, spots: Places, make_key: Callable[[], str], *, again: bool = False
) -> bytes:
    """Return the request with its words filled in; each `<key>` becomes a key of its own.

    `again`: it was limited, and what is not another one by itself becomes another spelling.
    """
    words = {
        "<host>": spots.host, "<read>": spots.read, "<READ>": spots.read.upper(),
        "<r%65ad>": _encoded(spots.read), "<r%2Fead>": _inner_slashes(spots.read),
        "<post>": spots.post, "<up>": "/.." * spots.post.count("/"),
        "<managed>": spots.managed, "<MANAGED>": spots.managed.upper(),
        "<m%61naged>": _encoded(spots.managed), "<m%2Fanaged>": _inner_slashes(spots.managed),
    }  # fmt: skip

    made: Mapping[str, Callable[[], str]] = {
        "<key>": make_key, "<typo>": lambda: _typo(make_key()),
        "<password>": lambda: base64.b64encode(f"user:{make_key()}".encode()).decode(),
        "<Bearer>": lambda: _other_case("Bearer") if again else "Bearer",
    }  # fmt: skip

    def word(found: re.Match[bytes]) -> bytes:
        name = found[0].decode()
        return (made[name]() if name in made else words.get(name, name)).encode("latin-1")

    return re.sub(rb"<[A-Za-z0-9%]+>", word, template)


# What may stand where a pattern of the catalogue has a variable part. The last one is no digest
# that Ollama would look for, let alone keep.
_SAMPLES = ("llmsec-probe", ":0")


def sample_path(route: Route) -> str:
    """Return a path of the route. Raises ValueError for a pattern that no sample fits."""
    if route.path is not None:
        return route.path
    start = str(route.pattern).removeprefix("^").partition("[")[0]
    for sample in _SAMPLES:
        if any(route.matches(method, start + sample) for method in route.methods):
            return start + sample
    raise ValueError(f"no sample of {route.pattern}")


def open_routes(
    server: Server, classes: Sequence[str], extra: Sequence[str]
) -> Callable[[str, Route], bool]:
    """Return what says of a method and its route whether the gateway is meant to let them through.

    `classes` and `extra` are those of `select_routes`, which raises GatewayError.
    """
    chosen = select_routes([route.as_dict() for route in server.routes], classes, extra)
    let_through = {
        (method, one.get("path", one.get("pattern"))) for one in chosen for method in one["methods"]
    }
    return lambda method, route: (method, route.path or route.pattern) in let_through


def places(server: Server, host: str, routed: Callable[[str, Route], bool]) -> Places:
    """Return where to try the tricks on this server; `routed` tells (method, route) apart."""

    def first(method: str, endpoint_class: str, *, is_routed: bool) -> str:
        found = [
            route.path
            for route in server.routes
            if route.path and method in route.methods and route.endpoint_class == endpoint_class
            if routed(method, route) is is_routed
        ]
        return found[0] if found else "/"

    read = server.health_path
    return Places(
        host=host, read=read, post=first("POST", "inference", is_routed=True),
        managed=first("POST", "management", is_routed=False),
    )  # fmt: skip


# Asked first: what a request for nothing gets. Without an answer there is nothing to judge.
BASELINE = Case(
    id="gateway", title="the gateway answers", requests=(plain_request(b"GET /llmsec-probe"),)
)

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
# Bodies by the catalogue's shapes: names that cannot be, so nothing is made, copied or deleted.
_BODIES: Mapping[str, bytes] = {
    "none": b"", "opaque": b"", "ollama_pull": EMPTY_MODEL, "ollama_push": EMPTY_MODEL,
    "ollama_create": EMPTY_MODEL, "ollama_copy": b'{"source":"","destination":""}',
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """One method of one path of the catalogue.

    `group` ends the finding's id. `absent`: the route must not exist at all. `unsafe`: what it does
    takes no body to do, so it is asked only of somebody who has already refused this path, and the
    body that it announces never comes.
    """

    group: str
    method: str
    path: str
    body: bytes = b""
    credential: str = ""  # "unknown": a key that nobody has; "key": the one that was given
    absent: bool = False
    unsafe: bool = False

    def raw(self, host: str, key: str) -> bytes:
        """Return the request as bytes; the connection may be used again."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {host}"]
        if key:
            lines.append(f"Authorization: Bearer {key}")
        if self.unsafe:
            # Go's server, which Ollama is, answers 417 to this before it does anything.
            lines += ["Expect: llmsec-probe", "Content-Length: 2"]
        elif self.body or self.method not in ("GET", "HEAD", "OPTIONS"):
            lines += ["Content-Type: application/json", f"Content-Length: {len(self.body)}"]
        return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + self.body


def questions(
    server: Server, routed: Callable[[str, Route], bool], with_key: bool
) -> Iterator[list[Question]]:
    """Yield what is asked of each path of the catalogue, other methods than its own first."""
    by_path: dict[str, list[Route]] = {}
    for route in server.routes:
        by_path.setdefault(sample_path(route), []).append(route)
    for path, routes in by_path.items():
        own = {method: route for route in routes for method in route.methods}
        body = _BODIES.get(routes[0].body, NO_MODEL)
        others = [method for method in METHODS if method not in own]
        asked = [_other(path, method, body) for method in others]
        for method, route in own.items():
            asked += _own(path, method, route, routed(method, route), with_key)
        yield asked


def _other(path: str, method: str, body: bytes) -> Question:
    sent = body if method in ("POST", "PUT", "PATCH", "DELETE") else b""
    return Question(group="methods", method=method, path=path, body=sent)


def _own(path: str, method: str, route: Route, routed: bool, with_key: bool) -> Iterator[Question]:
    common: dict[str, t.Any] = {"method": method, "path": path}
    common["body"] = b"" if method in ("GET", "HEAD") else _BODIES.get(route.body, NO_MODEL)
    name = route.endpoint_class
    if routed:
        yield Question(group=f"no_key.{name}", **common)
        yield Question(group=f"wrong_key.{name}", credential="unknown", **common)
        return
    # Signing out, or forgetting a key, takes no body: an open server would do it.
    unsafe = name == "account" and method != "GET"
    yield Question(group=f"closed.{name}", absent=True, unsafe=unsafe, **common)
    if with_key:
        group = f"closed_to_keys.{name}"
        yield Question(group=group, credential="key", absent=True, unsafe=unsafe, **common)


# With the first request for nothing, that makes at most eight: the gateway's default limit lets
# eleven of an address through at once.
_FEW_GROUPS = (
    "no_key.inference", "no_key.read", "wrong_key.read", "closed.management", "closed.inspect",
)  # fmt: skip


def few_questions(paths: Iterable[list[Question]]) -> Iterator[list[Question]]:
    """Yield the few questions that a neighbour may ask without running into a limit."""
    wanted = set(_FEW_GROUPS)
    for asked in paths:
        chosen = []
        for question in asked:
            if question.group in wanted:
                wanted.remove(question.group)
                chosen.append(question)
        if chosen:
            yield chosen


def few_cases(cases: Iterable[Case]) -> Iterator[Case]:
    """Yield the few cases that a neighbour may try, with one request each."""
    for case in cases:
        if case.quick:
            yield replace(case, requests=case.requests[:1])
