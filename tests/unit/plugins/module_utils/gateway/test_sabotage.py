# SPDX-License-Identifier: GPL-3.0-or-later
"""Each way to break the gateway turns its own finding red, and none of another control."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import typing as t
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.access import GATE_SOURCE
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway.catalogue import CHECKS

from tests.unit.gateway.stage import free_port
from tests.unit.plugins.gateway_files import (
    DEBIAN,
    FOLDER,
    MAIN,
    SITE,
    WELCOME,
    Files,
    changed,
    judge,
    options_of,
    red,
    rendered,
)

NGINX = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
ROUTES, AUTHORIZE = f"{FOLDER}/routes.conf", f"{FOLDER}/authorize.conf"
BACKEND, ERRORS, TLS = f"{FOLDER}/backend.conf", f"{FOLDER}/errors.conf", f"{FOLDER}/tls.conf"
OTHER = "/etc/nginx/conf.d/other.conf"
Edit = t.Callable[[Files], Files]


def edit(path: str, old: str, new: str) -> Edit:
    return lambda files: changed(files, path, old, new)


def both(*edits: Edit) -> Edit:
    def all_of(files: Files) -> Files:
        for one in edits:
            files = one(files)
        return files

    return all_of


def add(text: str, path: str = OTHER) -> Edit:
    return lambda files: {**files, path: text}


def in_server(text: str) -> Edit:
    """Add to the gateway's own server block."""
    return edit(SITE, IN_SERVER, f"    {text}\n{IN_SERVER}")


def in_default(text: str) -> Edit:
    return edit(SITE, "    return 444;\n}", f"    {text}\n    return 444;\n}}")


def stream(text: str) -> Edit:
    return edit(MAIN, "events {", f"stream {{ {text} }}\nevents {{")


def server(text: str, listen: str = "listen 8080;") -> Edit:
    """Add a server in a file of its own."""
    return add(f"server {{ {listen} {text} }}")


def to(target: str) -> Edit:
    """Add a server that passes everything on."""
    return server(f"location / {{ proxy_pass {target}; }}")


def in_http(text: str) -> Edit:
    return edit(MAIN, "    gzip on;\n", f"    gzip on;\n{text}\n")


def in_chat(text: str) -> Edit:
    """Add to one route's location."""
    return edit(ROUTES, "location = /api/chat {\n", f"location = /api/chat {{\n    {text}\n")


def in_verdict(text: str) -> Edit:
    return edit(SITE, "        internal;\n", f"        internal;\n        {text}\n")


def in_backend(text: str) -> Edit:
    return edit(BACKEND, "    auth_request off;\n", f"    auth_request off;\n    {text}\n")


def out(path: str, text: str) -> Edit:
    return edit(path, text, "")


LISTEN = "    listen 443 ssl;\n    server_name"
IN_SERVER = "    server_tokens off;\n    uninit"
CACHE = "proxy_cache_path /var/lib/nginx/c keys_zone=c:1m;"
TO_OLLAMA = "location / { proxy_pass http://127.0.0.1:11434; }"
TLS_LINES = "include llm-gateway/tls.conf;"
B_TEST = f"listen 443 ssl; server_name b.test; {TLS_LINES}"
HOP = "proxy_pass http://llm_policy_hop$llm_hop;"
ADDRESS_ZONE = "limit_req_zone $binary_remote_addr zone=llm_per_address"
BY_ADDRESS = "limit_req zone=llm_per_address_10m burst=10 nodelay;"
BY_KEY = "limit_req zone=llm_per_key_10m burst=5 nodelay;"
JUDGED = "set $llm_endpoint_class read; include llm-gateway/authorize.conf;"
PULL = f"location ~ ^/api/(pull|push) {{ set $llm_route $uri; {JUDGED} }}"
PREFIX = f"location /api/ {{ set $llm_route $uri; {JUDGED} }}"
HSTS = '    add_header Strict-Transport-Security "max-age=63072000" always;\n'
FORMAT = "log_format mine '{}';"
LOG_HERE = "access_log /var/log/nginx/mine.log mine;"

AUTHENTICATION: dict[str, tuple[Edit, set[str]]] = {
    "one location is not asked": (in_chat("auth_request off;"), {"auth.locations"}),
    "one location asks another": (
        both(
            in_chat("auth_request /mine;"),
            in_server("location = /mine { internal; auth_request off; return 403; }"),
        ),
        {"auth.locations", "auth.validator"},
    ),
    "nobody is asked": (
        edit(SITE, "auth_request /validate-key;", "auth_request off;"),
        {"auth.locations"},
    ),
    "auth_request is gone": (out(SITE, "    auth_request /validate-key;\n"), {"auth.locations"}),
    "satisfy any in a location": (in_chat("satisfy any; allow all;"), {"auth.satisfy"}),
    "satisfy any around it all": (in_http("satisfy any; allow 10.0.0.0/8;"), {"auth.satisfy"}),
    "a validator that always says yes": (in_verdict("return 200;"), {"auth.validator"}),
    "a validator that says yes to some": (
        in_verdict("if ($http_x_debug) { return 204; }"),
        {"auth.validator"},
    ),
    "a validator of somebody's own": (
        edit(
            SITE,
            "proxy_pass http://llm_key_validator/validate",
            "proxy_pass http://127.0.0.1:9/validate",
        ),
        {"auth.validator"},
    ),
    "a second validator in the group": (
        edit(
            SITE,
            "upstream llm_key_validator {",
            "upstream llm_key_validator { server 127.0.0.1:8081;",
        ),
        {"auth.validator"},
    ),
    "a second hop in the group": (
        edit(SITE, "upstream llm_policy_hop {", "upstream llm_policy_hop { server 127.0.0.1:9;"),
        {"auth.hop", "auth.ways"},
    ),
    "another question is asked": (
        edit(SITE, "llm_key_validator/validate;", "llm_key_validator/healthz;"),
        {"auth.validator"},
    ),
    "verdicts are cached": (
        both(
            in_http(CACHE),
            in_verdict("proxy_cache c; proxy_cache_valid 204 1h;"),
        ),
        {"auth.validator"},
    ),
    "verdicts from outside": (out(SITE, "        internal;\n"), {"auth.validator"}),
    "verdicts with a body": (
        out(SITE, "        proxy_pass_request_body off;\n"),
        {"auth.validator"},
    ),
    "refusals become consents": (
        in_verdict("proxy_intercept_errors on; error_page 401 =204 /llm-gateway/errors/401;"),
        {"auth.validator", "auth.ways"},
    ),
    "a verdict redirects": (
        out(SITE, "        proxy_ignore_headers X-Accel-Redirect;\n"),
        {"auth.validator"},
    ),
    "the gate is open for all": (
        edit(SITE, "default                       ask;", "default open;"),
        {"auth.validator"},
    ),
    "the gate looks at a header": (
        edit(SITE, f"map {GATE_SOURCE} $llm_gate", "map $http_x_debug $llm_gate"),
        {"auth.validator"},
    ),
    "the gate is set": (in_server("set $llm_gate open;"), {"auth.validator", "auth.ways"}),
    "the hop is a healthcheck": (
        edit(AUTHORIZE, "set $llm_hop /authorize;", "set $llm_hop /;"),
        {"auth.hop"},
    ),
    "the hop gets the client's path": (
        edit(AUTHORIZE, HOP, "proxy_pass http://llm_policy_hop;"),
        {"auth.hop"},
    ),
    "the hop is asked twice": (
        edit(AUTHORIZE, "proxy_next_upstream off", "proxy_next_upstream error non_idempotent"),
        {"auth.hop"},
    ),
    "answers of the hop are cached": (
        both(
            in_http(CACHE),
            in_chat("proxy_cache c; proxy_cache_valid any 1h;"),
        ),
        {"auth.hop"},
    ),
    "the hop reads another body": (in_chat('proxy_set_body "{}";'), {"auth.hop"}),
    "a second server on 443": (
        server(TO_OLLAMA, B_TEST),
        {"auth.backend", "names.servers"},
    ),
    "a second server on 443 for others": (
        server("location / { proxy_pass http://127.0.0.1:3000; }", B_TEST),
        {"names.servers"},
    ),
    "a second server of the same name": (
        add(f"server {{ listen 443 ssl; server_name llm.test; {TLS_LINES} return 200; }}"),
        {"names.servers"},
    ),
    "a server on the port of one address": (
        add(f"server {{ listen 127.0.0.1:443 ssl; server_name b.test; {TLS_LINES} root /srv; }}"),
        {"names.default", "names.servers"},
    ),
    "a server on another port": (add(f"server {{ listen 8080; {TO_OLLAMA} }}"), {"auth.backend"}),
    "a server on port 80 by a name": (
        add("server { location / { proxy_pass http://localhost:11434/; } }"),
        {"auth.backend"},
    ),
    "a server by an address of the host": (
        to("http://192.0.2.1:11434"),
        {"auth.backend"},
    ),
    "a server by IPv6": (
        to("http://[::1]:11434"),
        {"auth.backend"},
    ),
    "a server by mapped IPv6": (
        to("http://[::ffff:127.0.0.9]:11434"),
        {"auth.backend"},
    ),
    "a server by our group": (
        add("server { listen 8080; location /x/ { proxy_pass http://LLM_server; } }"),
        {"auth.backend"},
    ),
    "a server by a group of its own": (
        both(
            in_http("upstream a { server 10.0.0.1:9; server 127.0.0.1:11434 backup; }"),
            to("http://a"),
        ),
        {"auth.backend"},
    ),
    "a server by a variable": (
        server("set $where 127.0.0.1:11434; location / { proxy_pass http://$where; }"),
        {"auth.backend"},
    ),
    "a server by a map of hosts": (
        both(
            in_http("map $host $where { default 10.0.0.1:80; a.test llm_server; }"),
            to("http://$where$request_uri"),
        ),
        {"auth.backend"},
    ),
    "a server to where the client likes": (
        to("http://$arg_to"),
        {"auth.backend"},
    ),
    "a server by uwsgi": (
        add("server { listen 8080; location / { uwsgi_pass 127.0.0.1:11434; } }"),
        {"auth.backend"},
    ),
    "a server on a socket": (
        add(f"server {{ listen unix:/run/x.sock; {TO_OLLAMA} }}"),
        {"auth.backend"},
    ),
    "a stream": (
        stream("server { listen 9999; proxy_pass 127.0.0.1:11434; }"),
        {"auth.backend"},
    ),
    "a stream by a group": (
        stream(
            "upstream u { server localhost:11434; } map $ssl_preread_server_name $to { default u; }"
            "server { listen 9999; proxy_pass $to; }"
        ),
        {"auth.backend"},
    ),
    "a stream on the gateway's port": (
        stream("server { listen 192.0.2.1:443; proxy_pass 10.0.0.1:443; }"),
        {"names.servers"},
    ),
    "a route past the hop": (
        edit(AUTHORIZE, HOP, "proxy_pass http://llm_server$llm_route;"),
        {"auth.backend", "auth.hop", "auth.ways"},
    ),
    "a route past everybody": (
        both(
            edit(AUTHORIZE, HOP, "proxy_pass http://llm_server;"),
            edit(SITE, "auth_request /validate-key;", "auth_request off;"),
        ),
        {"auth.backend", "auth.hop", "auth.locations", "auth.ways"},
    ),
    "a route by Host": (
        both(
            in_http("map $host $llm_way { default llm_policy_hop; debug.test llm_server; }"),
            edit(AUTHORIZE, HOP, "proxy_pass http://$llm_way$llm_hop;"),
        ),
        {"auth.backend", "auth.hop", "auth.ways"},
    ),
    "the LLM server by Host": (
        both(
            in_http("map $http_x_to $llm_way { default llm_server; a 192.0.2.66:80; }"),
            edit(BACKEND, "http://llm_server$llm_route", "http://$llm_way$llm_route"),
        ),
        {"auth.target"},
    ),
    "another LLM server in the group": (
        edit(SITE, "    keepalive 32;\n", "    server 192.0.2.66:11434;\n    keepalive 32;\n"),
        {"auth.target"},
    ),
    "@backend for anybody": (
        edit(BACKEND, 'if ($llm_key_id = "") {', 'if ($llm_key_id = "x") {'),
        {"auth.backend", "auth.locations", "auth.target"},
    ),
    "@backend takes another's word": (
        edit(
            BACKEND, "set $llm_key_id $upstream_http_x_key_id;", "set $llm_key_id $http_x_key_id;"
        ),
        {"auth.backend", "auth.locations", "auth.target"},
    ),
    "a way by a prefix": (
        edit(BACKEND, "location @backend {", "location /backend/ {"),
        {"auth.backend", "auth.locations", "auth.target", "routes.allowed"},
    ),
    "a way by error_page": (in_server("error_page 401 = @backend;"), {"auth.ways"}),
    "a way by error_page of http": (
        both(
            in_http("error_page 401 = @backend;"),
            lambda files: {**files, ERRORS: re.sub(r"(?m)^error_page", "#", files[ERRORS])},
        ),
        {"auth.ways"},
    ),
    "a refusal that says yes": (
        edit(ERRORS, "error_page 401 =401", "error_page 401 =200"),
        {"auth.ways"},
    ),
    "an error page elsewhere": (in_server("error_page 401 https://a.test/;"), {"auth.ways"}),
    "a way by try_files": (in_chat("try_files /x @backend;"), {"auth.ways"}),
    "a mirror": (
        in_server("mirror /x; location = /x { internal; auth_request off; return 404; }"),
        {"auth.ways"},
    ),
    "a mirror around it all": (in_http("mirror /x;"), {"auth.ways"}),
    "a rewrite": (in_server("rewrite ^/old(.*)$ $1 last;"), {"auth.ways"}),
    "a header that opens": (
        in_chat("if ($http_x_debug) { proxy_pass http://llm_server; }"),
        {"auth.backend", "auth.ways"},
    ),
    "a header that answers": (in_server('if ($http_x_debug) { return 200 "x"; }'), {"auth.ways"}),
    "a header that leads on": (
        in_server("if ($http_x_debug) { rewrite ^ /api/tags last; }"),
        {"auth.ways"},
    ),
    "a method that leads on": (
        in_chat("limit_except POST { proxy_pass http://llm_policy_hop; }"),
        {"auth.ways"},
    ),
    "the LLM server redirects": (
        edit(BACKEND, "proxy_ignore_headers X-Accel-Redirect", "proxy_ignore_headers"),
        {"auth.ways"},
    ),
    "a subrequest by SSI": (in_server("ssi on;"), {"auth.ways"}),
    "perl": (in_chat("perl 'sub { return 200; }';"), {"auth.ways"}),
    "njs": (in_chat("js_access main.go;"), {"auth.ways"}),
    "lua in http": (in_http("access_by_lua_file /x.lua;"), {"auth.ways"}),
    "a scripting module": (
        add("load_module modules/ngx_http_lua_module.so;", "/etc/nginx/modules-enabled/x.conf"),
        {"modules"},
    ),
    "a module from elsewhere": (
        add("load_module /tmp/geoip.so;", "/etc/nginx/modules-enabled/x.conf"),
        {"modules.place"},
    ),
    "a module from elsewhere, on a detour": (
        add("load_module modules/../../x.so;", "/etc/nginx/modules-enabled/x.conf"),
        {"modules.place"},
    ),
    "answers of the LLM server are cached": (
        both(in_http(CACHE), in_backend("proxy_cache c; proxy_cache_valid any 1h;")),
        {"auth.target"},
    ),
    "a relay to the gateway": (to("https://127.0.0.1:443"), {"auth.backend"}),
    "a relay to the gateway's name": (
        server("set $to llm.test; location / { proxy_pass https://$to; }"),
        {"auth.backend"},
    ),
    "a stream to the gateway": (
        stream("server { listen 9999; proxy_pass [::1]:443; }"),
        {"auth.backend"},
    ),
    "a relay to the key validator": (
        to("http://unix:/var/run/llm-key-validator.sock:/authorize"),
        {"auth.backend"},
    ),
    "a key for everybody": (
        edit(AUTHORIZE, "proxy_http_version", 'proxy_set_header X-Api-Key "x"; proxy_http_version'),
        {"auth.headers"},
    ),
    "a key for everybody's verdict": (
        in_verdict('proxy_set_header Authorization "Bearer x";'),
        {"auth.headers"},
    ),
    "certificates by a header": (
        in_http("map $http_x_cert $ssl_client_escaped_cert { default $http_x_cert; }"),
        {"auth.headers"},
    ),
    "a verdict by a map": (
        add('map "" $ssl_client_verify { default SUCCESS; }'),
        {"auth.headers"},
    ),
    "another key for each request": (
        add("map $request_id $http_x_api_key { default $request_id; }"),
        {"auth.headers"},
    ),
    "a header that a foreign server sets": (
        server("set $http_authorization x; return 404;"),
        {"auth.headers"},
    ),
    "names with underscores": (in_http("underscores_in_headers on;"), {"auth.headers"}),
    "invalid names": (in_default("ignore_invalid_headers off;"), {"auth.headers"}),
    "an identity goes on": (in_backend("proxy_set_header X-User $http_x_user;"), {"auth.headers"}),
    "the key goes on": (
        edit(
            BACKEND,
            "proxy_set_header Accept $http_accept;",
            "proxy_set_header Authorization $http_authorization;",
        ),
        {"auth.headers"},
    ),
    "all headers go on": (out(BACKEND, "    proxy_pass_request_headers off;\n"), {"auth.headers"}),
    "the client's Host goes on": (
        edit(BACKEND, "proxy_set_header Host localhost:11434", "proxy_set_header Host $host"),
        {"auth.headers"},
    ),
    "the client's X-Forwarded-For goes on": (
        in_backend("proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;"),
        {"auth.headers"},
    ),
    "the client describes its request": (
        out(AUTHORIZE, 'proxy_set_header X-Gateway-Request "$llm_request";\n'),
        {"auth.headers"},
    ),
    "a client's address is its own word": (
        edit(SITE, "$request_id $remote_addr $llm", "$request_id $http_x_real_ip $llm"),
        {"auth.headers"},
    ),
    "a client shows any certificate": (
        edit(AUTHORIZE, 'proxy_set_header X-Client-Certificate "";', ""),
        {"auth.headers"},
    ),
    "verdicts about somebody else": (
        out(SITE, '        proxy_set_header X-Gateway-Request "$llm_request";\n'),
        {"auth.headers"},
    ),
    "any name is answered": (out(SITE, "    ssl_reject_handshake on;\n"), {"names.default"}),
    "the default server answers": (
        edit(SITE, "    return 444;\n}", '    return 200 "hello";\n}'),
        {"names.default"},
    ),
    "the default server is another": (
        both(
            edit(SITE, "    listen 443 ssl default_server;", "    listen 443 ssl;"),
            add(f"server {{ listen 443 ssl default_server; {TLS_LINES} root /srv; }}"),
        ),
        {"names.default"},
    ),
    "the gateway is the default server": (
        both(
            edit(SITE, "    listen 443 ssl default_server;", "    listen 443 ssl;"),
            edit(SITE, LISTEN, "    listen 443 ssl default_server;\n    server_name"),
        ),
        {"names.default"},
    ),
    "any name is the gateway's": (
        edit(SITE, "server_name llm.test;", "server_name llm.test ~^(.+)$;"),
        {"names.servers"},
    ),
    "the gateway's name is gone": (
        edit(SITE, "server_name llm.test;", "server_name other.test;"),
        {"names.servers"},
    ),
}

OTHERS: dict[str, tuple[Edit, set[str]]] = {
    # management_routes
    "a pattern for pulling": (in_server(PULL), {"routes.allowed", "routes.management"}),
    "a prefix": (
        in_server(PREFIX),
        {"routes.allowed", "routes.management"},
    ),
    "a route for creating": (
        edit(ROUTES, "location = /api/embed {", "location = /api/create {"),
        {"routes.allowed", "routes.management"},
    ),
    "a foreign route": (
        edit(ROUTES, "location = /api/embed {", "location = /api/me2 {"),
        {"routes.allowed"},
    ),
    "any method": (
        edit(ROUTES, "if ($request_method != POST)", "if ($request_method = BREW)"),
        {"routes.allowed"},
    ),
    "another method": (
        edit(ROUTES, "if ($request_method != POST)", "if ($request_method != DELETE)"),
        {"routes.allowed"},
    ),
    "another class": (
        edit(ROUTES, "set $llm_endpoint_class inference;", "set $llm_endpoint_class read;"),
        {"routes.allowed"},
    ),
    "the route's body unseen": (in_chat("proxy_pass_request_body off;"), {"routes.allowed"}),
    "a route leads to another": (
        edit(ROUTES, 'set $llm_route "/api/chat";', 'set $llm_route "/api/pull";'),
        {"routes.allowed", "routes.path"},
    ),
    "the client's path goes on": (
        edit(ROUTES, 'set $llm_route "/api/chat";', "set $llm_route $request_uri;"),
        {"routes.allowed", "routes.path"},
    ),
    "a looser pattern": (edit(ROUTES, "]+\\z", "]+"), {"routes.allowed"}),
    "a page of its own": (
        in_server("location = /hello { default_type text/plain; }"),
        {"routes.allowed"},
    ),
    "no refusal for the rest": (
        edit(
            SITE,
            "    location / {\n        return 404;",
            "    location = /x {\n        return 404;",
        ),
        {"routes.allowed"},
    ),
    "proxy_pass with a URI": (
        edit(BACKEND, "http://llm_server$llm_route", "http://llm_server$uri"),
        {"routes.path"},
    ),
    "proxy_pass without the route": (
        edit(BACKEND, "http://llm_server$llm_route", "http://llm_server"),
        {"routes.path"},
    ),
    "proxy_pass with a prefix": (
        edit(BACKEND, "http://llm_server$llm_route", "http://llm_server/api$llm_route"),
        {"routes.path"},
    ),
    # rate_limit
    "addresses by a header": (
        edit(
            SITE, ADDRESS_ZONE, ADDRESS_ZONE.replace("$binary_remote_addr", "$http_x_forwarded_for")
        ),
        {"limits.per_address"},
    ),
    "keys by a header": (
        edit(SITE, "limit_req_zone $llm_limit_key", "limit_req_zone $http_x_forwarded_for"),
        {"limits.per_key"},
    ),
    "keys by a header and the key": (
        edit(SITE, "limit_req_zone $llm_limit_key", "limit_req_zone $llm_limit_key$http_x_any"),
        {"limits.per_key"},
    ),
    "real addresses from everybody": (
        in_http("set_real_ip_from 0.0.0.0/0; real_ip_header X-Forwarded-For;"),
        {"limits.client_address"},
    ),
    "real addresses from all of IPv6": (
        in_server("set_real_ip_from ::/0;"),
        {"limits.client_address"},
    ),
    "real addresses from the neighbours": (
        in_http("set_real_ip_from 192.0.2.0/24;"),
        {"limits.client_address"},
    ),
    "no limit by address": (out(AUTHORIZE, BY_ADDRESS), {"limits.per_address"}),
    "no limit by key": (out(AUTHORIZE, BY_KEY), {"limits.per_key"}),
    "a dry run": (in_server("limit_req_dry_run on;"), {"limits.per_address", "limits.per_key"}),
    "a dry run of connections": (in_http("limit_conn_dry_run on;"), {"limits.connections"}),
    "another rate": (edit(SITE, "rate=30r/m", "rate=30r/s"), {"limits.per_address"}),
    "another burst": (edit(AUTHORIZE, "burst=5 ", "burst=5000 "), {"limits.per_key"}),
    "another status": (
        out(SITE, "    limit_req_status 429;\n"),
        {"limits.per_address", "limits.per_key"},
    ),
    "any number of connections": (
        edit(SITE, "limit_conn llm_connections_10m 100;", "limit_conn llm_connections_10m 60000;"),
        {"limits.connections"},
    ),
    "connections are not counted": (
        out(SITE, "    limit_conn llm_connections_10m 100;\n"),
        {"limits.connections"},
    ),
    "bodies of any size": (in_chat("client_max_body_size 0;"), {"limits.sizes"}),
    "headers of any size": (
        edit(SITE, "large_client_header_buffers 4 8k", "large_client_header_buffers 4 8m"),
        {"limits.sizes"},
    ),
    "slow headers": (
        edit(SITE, "client_header_timeout 10s", "client_header_timeout 1h"),
        {"limits.sizes"},
    ),
    "slow bodies": (out(SITE, "    client_body_timeout 10s;\n"), {"limits.sizes"}),
    # tls, versions
    "TLS 1.0": (
        edit(TLS, "ssl_protocols TLSv1.2", "ssl_protocols TLSv1 TLSv1.2"),
        {"tls.protocols"},
    ),
    "TLS 1.1 besides": (in_server("ssl_protocols TLSv1.1;"), {"tls.protocols"}),
    "the vendor's protocols": (out(TLS, "ssl_protocols TLSv1.2 TLSv1.3;\n"), {"tls.protocols"}),
    "old suites": (edit(TLS, "ssl_ciphers ", "ssl_ciphers AES128-SHA:"), {"tls.ciphers"}),
    "nginx's own suites": (
        lambda files: {**files, TLS: re.sub(r"ssl_ciphers.*", "", files[TLS])},
        {"tls.ciphers"},
    ),
    "suites by OpenSSL's own words": (
        in_server('ssl_conf_command CipherString "ALL:@SECLEVEL=0";'),
        {"tls.ciphers"},
    ),
    "versions by OpenSSL's own words": (
        in_http("ssl_conf_command MinProtocol TLSv1;"),
        {"tls.protocols"},
    ),
    "old groups": (edit(TLS, "ssl_ecdh_curve ", "ssl_ecdh_curve secp256k1:"), {"tls.ciphers"}),
    "tickets": (edit(TLS, "ssl_session_tickets off", "ssl_session_tickets on"), {"tls.sessions"}),
    "early data": (in_server("ssl_early_data on;"), {"tls.early_data"}),
    "plain HTTP on the port": (
        edit(SITE, LISTEN, "    listen 443;\n    server_name"),
        {"tls.listen"},
    ),
    "plain HTTP on another port": (
        edit(SITE, LISTEN, "    listen 443 ssl;\n    listen 80;\n    server_name"),
        {"tls.listen"},
    ),
    "HTTP/2": (edit(SITE, LISTEN, "    listen 443 ssl http2;\n    server_name"), {"tls.http2"}),
    "HTTP/2 as newer nginx has it": (in_server("http2 on;"), {"tls.http2"}),
    "HTTP/2 by a neighbour": (in_default("http2 on;"), {"tls.http2"}),
    "no HSTS on answers": (out(BACKEND, HSTS), {"tls.hsts"}),
    "no HSTS on refusals": (out(ERRORS, HSTS), {"tls.hsts"}),
    "HSTS for a minute": (edit(BACKEND, "max-age=63072000", "max-age=60"), {"tls.hsts"}),
    "HSTS is taken back first": (
        in_backend('add_header Strict-Transport-Security "max-age=0" always;'),
        {"tls.hsts"},
    ),
    "no nosniff": (
        out(BACKEND, "    add_header X-Content-Type-Options nosniff always;\n"),
        {"tls.nosniff"},
    ),
    "the version": (edit(SITE, IN_SERVER, IN_SERVER.replace("off", "on")), {"server_tokens"}),
    "the version by default": (
        edit(SITE, "    server_tokens off;\n    client", "    client"),
        {"server_tokens"},
    ),
    # audit_log, secrets_at_rest
    "no log": (in_chat("access_log off;"), {"logs.access", "logs.reports"}),
    "no log for some": (
        in_chat("if ($http_x_quiet) { return 418; } access_log /dev/null;"),
        {"logs.access", "logs.reports"},
    ),
    "no report": (
        lambda files: {**files, SITE: re.sub(r"    access_log syslog.*", "", files[SITE])},
        {"logs.reports"},
    ),
    "reports to somebody else": (
        edit(SITE, "syslog:server=unix:/run/llm-key-validator-log.sock", "syslog:server=127.0.0.1"),
        {"logs.reports"},
    ),
    "reports of some": (
        edit(SITE, "tag=llm llm_gateway_audit;", "tag=llm llm_gateway_audit if=$http_x_log;"),
        {"logs.reports"},
    ),
    "reports of something else": (
        edit(
            SITE, "$body_bytes_sent $request_time $llm_forwarded", "0 $request_time $llm_forwarded"
        ),
        {"logs.reports"},
    ),
    "the log on /dev/null": (
        edit(SITE, "access_log /var/log/nginx/llm-gateway.access.log", "access_log /dev/null"),
        {"logs.access"},
    ),
    "a log unescaped": (
        edit(SITE, "log_format llm_gateway escape=json", "log_format llm_gateway escape=none"),
        {"logs.access"},
    ),
    "errors on /dev/null": (in_server("error_log /dev/null;"), {"logs.errors"}),
    "only emergencies": (
        edit(MAIN, "/var/log/nginx/error.log", "/var/log/nginx/error.log emerg"),
        {"logs.errors"},
    ),
    "a debug log": (in_server("error_log /var/log/nginx/debug.log debug;"), {"logs.debug"}),
    "a debug log around it all": (
        edit(MAIN, "/var/log/nginx/error.log", "/var/log/nginx/error.log debug"),
        {"logs.debug"},
    ),
    "a debug log for some": (
        edit(
            MAIN,
            "    worker_connections 768;",
            "    worker_connections 768; debug_connection 10.0.0.1;",
        ),
        {"logs.debug"},
    ),
    "keys in a log": (
        edit(SITE, '"client":"$remote_addr"', '"client":"$http_authorization"'),
        {"logs.secrets"},
    ),
    "keys in a log by another name": (
        both(
            in_http('map $http_x_api_key $who { "~^(?<first>.+)$" $first; default -; }'),
            edit(SITE, '"client":"$remote_addr"', '"client":"$who"'),
        ),
        {"logs.secrets"},
    ),
    "keys in a log by a set": (
        both(
            in_server("set $who $llm_limit_key;"),
            edit(SITE, '"client":"$remote_addr"', '"client":"$who"'),
        ),
        {"logs.secrets"},
    ),
    "bodies in a log": (
        edit(SITE, '"client":"$remote_addr"', '"client":"$request_body"'),
        {"logs.secrets"},
    ),
    "bodies in files": (in_server("client_body_in_file_only on;"), {"logs.secrets"}),
    "memory after a crash": (
        edit(MAIN, "events {", "worker_rlimit_core 500m;\nevents {"),
        {"logs.secrets"},
    ),
    "queries in a log": (
        edit(SITE, '"route":"$llm_route"', '"route":"$request_uri"'),
        {"logs.secrets"},
    ),
    "the vendor's format": (
        edit(
            SITE,
            "llm-gateway.access.log llm_gateway buffer",
            "llm-gateway.access.log combined buffer",
        ),
        {"logs.secrets"},
    ),
}
SABOTAGES = {**AUTHENTICATION, **OTHERS}
# A path that is open, and a way past the key validator
OF_TWO_CONTROLS = {"a way by a prefix"}
# What the nginx of these tests has no module for, or a newer one only understands
NOT_RUN = re.compile(r"stream|perl|njs|lua|module|newer|neighbour|SSI|a pattern for")


def findings_of(files: Files, variant: str = "api_key_intermediate") -> t.Any:
    return judge(files, **options_of(variant))


@pytest.mark.parametrize("name", SABOTAGES)
def test_its_finding_alone_turns_red(name: str) -> None:
    change, ids = SABOTAGES[name]
    green = rendered()["api_key_intermediate"]
    assert red(findings_of(green)) == set()
    found = findings_of(change(green))
    assert red(found) == {f"gateway.{one}" for one in ids}, red(found)
    assert {found[f"gateway.{one}"]["result"] for one in ids} == {"fail"}
    controls = {CHECKS[f"gateway.{one}"].control for one in ids}
    assert len(controls) == 1 or name in OF_TWO_CONTROLS, controls


WITH_CERTIFICATES = {
    "certificates are optional": (
        edit(TLS, "ssl_verify_client on", "ssl_verify_client optional"),
        {"mtls.verify"},
    ),
    "certificates of anybody": (
        edit(TLS, "ssl_verify_client on", "ssl_verify_client optional_no_ca"),
        {"mtls.verify"},
    ),
    "certificates are not asked for": (out(TLS, "ssl_verify_client on;"), {"mtls.verify"}),
    "nobody's certificates count": (edit(TLS, "ssl_client_certificate", "#"), {"mtls.verify"}),
    "another CA besides": (
        in_server("ssl_trusted_certificate /etc/ssl/certs/ca-certificates.crt;"),
        {"mtls.verify"},
    ),
    "revoked ones count": (edit(TLS, "ssl_crl", "#"), {"mtls.crl"}),
    "sessions are resumed": (
        edit(TLS, "ssl_session_cache off", "ssl_session_cache shared:x:1m"),
        {"mtls.sessions"},
    ),
    "tickets": (
        edit(TLS, "ssl_session_tickets off", "ssl_session_tickets on"),
        {"mtls.sessions", "tls.sessions"},
    ),
    "a certificate that was not verified": (
        edit(SITE, '    SUCCESS "$ssl_client_escaped_cert', '    NONE "$ssl_client_escaped_cert'),
        {"auth.headers"},
    ),
    "a subject that the client wrote": (
        edit(SITE, '_cert $ssl_client_s_dn";', '_cert $http_x_subject";'),
        {"auth.headers"},
    ),
    "certificates are not counted": (
        edit(SITE, "limit_req_zone $ssl_client_fingerprint", "limit_req_zone $http_x_client"),
        {"limits.per_key"},
    ),
}
BEHIND_TLS = {
    "the LLM server proves nothing": (out(BACKEND, "    proxy_ssl_verify on;\n"), {"tls.backend"}),
    "to nobody": (edit(BACKEND, "proxy_ssl_trusted_certificate", "#"), {"tls.backend"}),
    "by any name": (
        edit(BACKEND, "proxy_ssl_name gpu1.example.com", "proxy_ssl_name $host"),
        {"tls.backend"},
    ),
    "by old TLS": (
        edit(BACKEND, "proxy_ssl_protocols ", "proxy_ssl_protocols TLSv1 "),
        {"tls.backend"},
    ),
    "without TLS": (edit(BACKEND, "https://llm_server", "http://llm_server"), {"tls.backend"}),
    "to another address": (
        edit(SITE, "server 192.0.2.20:443", "server 192.0.2.21:443"),
        {"auth.target"},
    ),
    "past the gateway": (to("https://192.0.2.20"), {"auth.backend"}),
}


@pytest.mark.parametrize(
    ("variant", "name", "change", "ids"),
    [
        (variant, name, *sabotage)
        for variant, table in (
            ("both_intermediate", WITH_CERTIFICATES),
            ("upstream_tls", BEHIND_TLS),
        )
        for name, sabotage in table.items()
    ],
)
def test_the_same_with_certificates(variant: str, name: str, change: Edit, ids: set[str]) -> None:
    found = findings_of(change(rendered()[variant]), variant)
    assert red(found) == {f"gateway.{one}" for one in ids}, name


BY_MODEL = {
    "a stranger in a group": edit(
        SITE, "    server 127.0.0.1:8081", "    server 192.0.2.9:80;\n    server 127.0.0.1:8081"
    ),
    "a server of another model in a group": edit(
        SITE, "    server 127.0.0.1:8080", "    server 127.0.0.1:8081;\n    server 127.0.0.1:8080"
    ),
    "a drained server in use": edit(SITE, "8082 down", "8082"),
    "a server that gets nothing": edit(SITE, "8080 max_fails=0", "8080 down"),
    "a server is missing": out(SITE, "    server 127.0.0.1:8082 down;\n"),
    "a model goes to another group": edit(
        SITE, '"~^tiny:latest$" llm_server_1', '"~^tiny:latest$" llm_server_2'
    ),
    "a model goes elsewhere": edit(
        SITE, '"~^tiny:latest$" llm_server_1', '"~^tiny:latest$" 192.0.2.9'
    ),
    "a row more": edit(
        SITE, "    ~. llm_server;", "    ~^secret llm_server_1;\n    ~. llm_server;"
    ),
    "a row that hides the others": both(
        out(SITE, "    ~. llm_server;\n"),
        edit(SITE, "    - llm_server;", "    - llm_server;\n    ~. llm_server;"),
    ),
    "the client chooses": edit(BACKEND, "$upstream_http_x_llm_model", "$http_x_llm_model"),
    "the client chooses the group": edit(
        SITE, "map $llm_model $llm_group", "map $http_x_llm_model $llm_group"
    ),
    "one group for all": edit(
        BACKEND, "http://$llm_group$llm_route", "http://llm_server$llm_route"
    ),
    "a generation is paid for twice": edit(
        BACKEND, "proxy_next_upstream error", "proxy_next_upstream non_idempotent error"
    ),
}


@pytest.mark.parametrize("change", BY_MODEL.values(), ids=BY_MODEL)
def test_several_servers_are_told_apart(change: Edit) -> None:
    found = findings_of(change(rendered()["by_model"]), "by_model")
    assert red(found) == {"gateway.auth.target"}
    assert found["gateway.auth.target"]["result"] == "fail"


def test_a_stranger_in_the_only_group_is_told() -> None:
    for files in (
        changed(rendered()["pool"], SITE, "server 127.0.0.1:8081", "server 127.0.0.1:8082"),
        changed(rendered()["pool"], BACKEND, "http://llm_server$", "http://127.0.0.1:8080$"),
    ):
        assert red(findings_of(files, "pool")) == {"gateway.auth.target"}


def test_each_of_several_servers_needs_tls_elsewhere() -> None:
    files = rendered()["pool"]
    far = {"backends": [{"address": "127.0.0.1:8080"}, {"address": "192.0.2.30:8081"}]}
    found = judge(files, **{**options_of("pool"), **far})
    assert "192.0.2.30 is asked without TLS" in found["gateway.tls.backend"]["actual"]


def test_other_files_of_cas_and_lists_are_named() -> None:
    settings = {"client_ca": "/etc/llm-gateway/pki/client-ca.crt", "client_crl": "/else/list"}
    variant = "both_intermediate"
    found = judge(rendered()[variant], **{**options_of(variant), **settings})
    assert red(found) == {"gateway.mtls.crl"}
    assert found["gateway.mtls.crl"]["actual"].endswith("not /else/list")
    settings = {"client_ca": "/else/ca", "client_crl": "/etc/llm-gateway/pki/client.crl"}
    assert red(judge(rendered()[variant], **{**options_of(variant), **settings})) == {
        "gateway.mtls.verify"
    }


def test_what_weakens_nothing_is_green() -> None:
    harmless = both(
        in_http(
            "ssl_conf_command Options KTLS; set_real_ip_from 192.0.2.7; log_format x '$status';"
            "map $http_upgrade $connection_upgrade { default upgrade; }"
            "map $ssl_protocol $ssl_is_old { default 0; }"
            "map $http_user_agent $http_bot { default 0; }"
        ),
        server("server_name a.test; set $args x; location / { proxy_pass http://127.0.0.1:3000; }"),
    )
    assert red(findings_of(harmless(rendered()["api_key_intermediate"]))) == set()


def relocated(files: Files, folder: Path) -> Path:
    """Write a configuration where nginx can test it, with its paths below a folder."""
    port = str(free_port())
    key, certificate = folder / "server.key", folder / "server.crt"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
         "-nodes", "-days", "2", "-subj", "/CN=x", "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    for path, text in files.items():
        if "modules-enabled" in path:
            continue
        moved = text
        for old, new in (
            ("/etc/llm-gateway/pki/server", f"{folder}/server"),
            ("/etc/nginx", str(folder)),
            ("/var/log/nginx", str(folder)),
            ("/var/lib/nginx", str(folder)),
            ("/run/nginx.pid", f"{folder}/pid"),
            ("user www-data;", ""),
        ):
            moved = moved.replace(old, new)
        moved = re.sub(r"(listen (?:[\d.]+:)?)443\b", rf"\g<1>{port}", moved)
        place = Path(path.replace("/etc/nginx", str(folder)))
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(moved)
    return folder / "nginx.conf"


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed here")
@pytest.mark.parametrize("name", [name for name in SABOTAGES if not NOT_RUN.search(name)])
def test_nginx_takes_it(name: str, tmp_path: Path) -> None:
    """What nginx itself refuses would be no sabotage."""
    change, _ids = SABOTAGES[name]
    main = relocated(change(rendered()["api_key_intermediate"]), tmp_path)
    temporary = " ".join(
        f"{kind}_temp_path {tmp_path}/{kind};"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main.write_text(main.read_text().replace("http {", f"http {{ {temporary}", 1))
    words = [str(NGINX), "-t", "-p", str(tmp_path), "-c", str(main)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert "test is successful" in done.stderr, done.stderr


class TestWhereNothingWasHardened:
    def test_debians_own_nginx_lacks_the_gateway_and_leads_nowhere(self) -> None:
        files = {**DEBIAN, "/etc/nginx/sites-enabled/default": WELCOME}
        found = judge(files)
        assert red(found) == {"gateway.present"}
        assert found["gateway.present"]["severity"] == "critical"
        assert len(found) == 4

    def test_a_plain_proxy_is_named(self) -> None:
        found = judge({**DEBIAN, OTHER: f"server {{ listen 80; {TO_OLLAMA} }}"})
        assert red(found) == {"gateway.present", "gateway.auth.backend"}
        assert OTHER in found["gateway.auth.backend"]["evidence"][0]

    def test_a_proxy_by_the_right_name_is_no_gateway(self) -> None:
        text = f"server {{ listen 443 ssl; server_name llm.test; {TO_OLLAMA} }}"
        found = judge({**DEBIAN, OTHER: text})
        assert red(found) == {"gateway.present", "gateway.auth.backend"}

    def test_the_welcome_page_beside_the_gateway_is_nobodys_business(self) -> None:
        files = {**rendered()["ipv6"], "/etc/nginx/sites-enabled/default": WELCOME}
        assert red(judge(files)) == set()
