# SPDX-License-Identifier: GPL-3.0-or-later
"""Real servers on loopback: nginx with the role's own TLS settings, openssl, and Python's ssl."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
import time
from pathlib import Path

import jinja2
import pytest
import yaml
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe import visit
from ansible_collections.llmsec.hardening.plugins.modules import verify_tls
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.lab.certificates import DAY, Authority, now

NGINX = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
ROLE = Path(__file__).parents[4] / "roles" / "gateway"
NAME = "llm.test"
ROOT = Authority("Root")
ISSUING = Authority("Issuing", ROOT)
# Of the authority's certificates, whose CA ends after nine days
DAYS = 7

_MAIN = """
{user}
daemon off; worker_processes 1; pid nginx.pid; error_log error.log notice;
events {{ worker_connections 256; }}
http {{
    access_log off; client_body_temp_path body; proxy_temp_path proxy;
    fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
    server {{
        listen 127.0.0.1:{port} ssl default_server;
        {tls}
        ssl_reject_handshake on;
        error_page 400 421 494 495 496 497 501 505 /;
        return 444;
    }}
    server {{
        listen 127.0.0.1:{port} ssl;
        server_name {name};
        {tls}
        add_header Strict-Transport-Security "max-age=63072000" always;
        error_page 495 496 =403 /refused;
        location = /refused {{
            internal;
            add_header Strict-Transport-Security "max-age=63072000" always;
            return 403 "{{\\"error\\":{{\\"message\\":\\"A client certificate is required.\\"}}}}";
        }}
        location / {{ return 404; }}
    }}
    server {{ listen 127.0.0.1:{plain}; return 301 https://{name}/; }}
}}
"""


def server_certificate(**wanted):
    wanted = {"end": now() + DAYS * DAY, "host": NAME, **wanted}
    return ISSUING.issue("server", usage=ExtendedKeyUsageOID.SERVER_AUTH, **wanted)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def wait_for(port):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.05)
    raise AssertionError(f"nobody listens on {port}")


@contextlib.contextmanager
def running(command, folder, port):
    log = folder / "output.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    try:
        wait_for(port)
        yield
    except AssertionError:
        print(log.read_text())
        raise
    finally:
        process.terminate()
        process.wait(10)


def tls_settings(folder, profile, auth):
    """Render the role's tls.conf as the role does on Debian 12."""
    settings = yaml.safe_load((ROLE / "vars/main.yml").read_text())
    loader = jinja2.FileSystemLoader(ROLE / "templates")
    environment = jinja2.Environment(loader=loader, trim_blocks=True, autoescape=False)  # noqa: S701
    return environment.get_template("tls.conf.j2").render(
        gateway_tls_profile=profile,
        gateway_certificate=f"{folder}/server.crt",
        gateway_certificate_key=f"{folder}/server.key",
        gateway_auth=auth,
        gateway_client_ca=f"{folder}/ca.crt",
        gateway_client_crl="",
        gateway_client_verify_depth=2,
        __gateway_tls_ciphers=settings["__gateway_tls_ciphers"],
        __gateway_tls_groups="X25519:prime256v1:secp384r1",
        __gateway_staples=False,
        __gateway_wants_certificates=auth != "api_key",
    )


class Front:
    """nginx as the role sets it up, changed by hand, and looked at."""

    def __init__(self, folder, run_module):
        self.folder = folder
        self._run_module = run_module
        (folder / "ca.crt").write_text(ROOT.pem)
        self.show(server_certificate())

    def show(self, pair):
        (self.folder / "server.crt").write_text(pair.pem())
        (self.folder / "server.key").write_text(pair.key_pem())

    def make(self, *words, names=f"DNS:{NAME}"):
        """Show a certificate that openssl makes and signs by itself."""
        subprocess.run(
            ["openssl", "req", "-x509", "-nodes", "-keyout", "server.key", "-out", "server.crt",
             "-subj", "/CN=x", "-addext", f"subjectAltName={names}", "-days", "30", *words],
            cwd=self.folder, capture_output=True, check=True,
        )  # fmt: skip

    def look(self, *changes, profile="intermediate", auth="api_key", **params):
        """Return the findings of nginx with these changes: (text, text that takes its place)."""
        port, plain = free_port(), free_port()
        tls = tls_settings(self.folder, profile, auth)
        user = "user root;" if os.geteuid() == 0 else ""
        main = _MAIN.format(port=port, plain=plain, tls=tls, name=NAME, user=user)
        for old, new in changes:
            assert old in main, old
            main = main.replace(old, new)
        (self.folder / "nginx.conf").write_text(main)
        command = [NGINX, "-p", f"{self.folder}/", "-c", f"{self.folder}/nginx.conf"]
        with running(command, self.folder, port):
            return self.ask(port, http_port=plain, profile=profile, **params)

    def ask(self, port, **params):
        wanted = {"least_days": 5, "server_name": NAME, "ca_file": str(self.folder / "ca.crt")}
        result = self._run_module(verify_tls.main, port=port, **{**wanted, **params})
        assert result["changed"] is False
        return {one["id"]: one for one in result["findings"]}


@pytest.fixture
def front(tmp_path, run_module):
    return Front(tmp_path, run_module)


needs_nginx = pytest.mark.skipif(NGINX is None, reason="nginx is not installed here")


def ids(findings, *results):
    """Return the ids, without `tls.`, of those that ended in one of these ways."""
    wanted = results or ("fail", "error")
    return {name[4:] for name, one in findings.items() if one["result"] in wanted}


# --- green


@needs_nginx
@pytest.mark.parametrize("check", [False, True])
def test_the_gateway_is_green(front, check):
    start = time.monotonic()
    findings = front.look(check=check)
    assert ids(findings) == set()
    assert ids(findings, "skip") == {
        "groups.post_quantum", "sessions.resumption", "certificate.ecdsa",
        "client_certificate.required",
    }  # fmt: skip
    assert time.monotonic() - start < 20


@needs_nginx
def test_the_profile_modern_is_green(front):
    findings = front.look(profile="modern")
    assert ids(findings) == set()
    assert findings["tls.version.tls12"]["actual"] == "refused"
    assert findings["tls.certificate.name"]["result"] == "pass"


@needs_nginx
@pytest.mark.parametrize("profile", ["intermediate", "modern"])
@pytest.mark.parametrize(("auth", "wanted"), [("mtls", "required"), ("either", "optional")])
def test_client_certificates_are_green(front, profile, auth, wanted):
    findings = front.look(profile=profile, auth=auth, client_certificate=wanted)
    assert ids(findings) == set()
    assert findings["tls.client_certificate.asked"]["actual"] == "it asks"
    assert findings["tls.sessions.resumption"]["result"] == "pass"
    required = findings["tls.client_certificate.required"]["result"]
    assert required == ("pass" if wanted == "required" else "skip")


@needs_nginx
def test_an_rsa_certificate_is_green(front):
    key, request = front.folder / "server.key", front.folder / "request"
    subprocess.run(
        ["openssl", "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", key, "-out", request,
         "-subj", "/CN=x", "-addext", f"subjectAltName=DNS:{NAME}"],
        capture_output=True, check=True,
    )  # fmt: skip
    (front.folder / "server.crt").write_text(signed(request) + ISSUING.pem)
    findings = front.look()
    assert ids(findings) == set()
    assert findings["tls.certificate.key"]["actual"].startswith("RSA of 2048 bits")


def signed(request):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.serialization import Encoding

    asked = x509.load_pem_x509_csr(request.read_bytes())
    names = asked.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    builder = (
        x509.CertificateBuilder()
        .subject_name(asked.subject)
        .issuer_name(ISSUING.name)
        .public_key(asked.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now() - DAY)
        .not_valid_after(now() + DAYS * DAY)
        .add_extension(names, critical=False)
    )
    return builder.sign(ISSUING.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()


# --- red: each sabotage of the gateway, and all that it turns red

PROTOCOLS = "ssl_protocols TLSv1.2 TLSv1.3;"
CIPHERS = "ssl_ciphers ECDHE-ECDSA-AES128-GCM-SHA256"
GROUPS = "ssl_ecdh_curve X25519:prime256v1:secp384r1;"
TICKETS = "ssl_session_tickets off;"
HSTS = 'add_header Strict-Transport-Security "max-age=63072000" always;'
STRANGERS = "ssl_reject_handshake on;"
SESSIONS = "ssl_session_cache off;"
MTLS = {"auth": "mtls", "client_certificate": "required"}
MODERN = {"profile": "modern"}


@needs_nginx
@pytest.mark.parametrize(
    ("changes", "params", "red"),
    [
        (
            [(PROTOCOLS, "ssl_protocols TLSv1 TLSv1.1 TLSv1.2 TLSv1.3;"),
             (CIPHERS, "ssl_ciphers @SECLEVEL=0:ECDHE-ECDSA-AES128-SHA:"
              "ECDHE-ECDSA-AES128-GCM-SHA256")],
            {}, {"version.tls10", "version.tls11", "suites.cbc"},
        ),
        ([(PROTOCOLS, "ssl_protocols TLSv1.2;")], {}, {"version.tls13"}),
        ([(PROTOCOLS, "ssl_protocols TLSv1.3;")], {}, {"version.tls12"}),
        ([(CIPHERS, "ssl_ciphers ECDHE-ECDSA-AES128-CCM:ECDHE-ECDSA-AES128-GCM-SHA256")], {},
         {"suites.rare"}),
        (
            [(CIPHERS, "ssl_ciphers @SECLEVEL=0:AECDH-AES128-SHA:ECDHE-ECDSA-NULL-SHA:"
              "ECDHE-ECDSA-AES128-GCM-SHA256")],
            {}, {"suites.null", "suites.anonymous"},
        ),
        ([("prefer_server_ciphers off;", "prefer_server_ciphers on;")], {}, {"suites.order"}),
        ([(GROUPS, "ssl_ecdh_curve X25519:prime256v1:secp384r1:secp521r1;")], {}, {"groups.other"}),
        ([(GROUPS, "ssl_ecdh_curve X25519:prime256v1:secp384r1:secp256k1;")], {}, {"groups.weak"}),
        ([(GROUPS, "ssl_ecdh_curve X25519:prime256v1:secp384r1:ffdhe2048;")], {}, {"groups.weak"}),
        ([(GROUPS, "ssl_ecdh_curve prime256v1:secp384r1;")], {}, {"groups.profile"}),
        ([], {"post_quantum": True}, {"groups.post_quantum"}),
        ([(" ssl default_server;", " ssl http2 default_server;"), (" ssl;", " ssl http2;")], {},
         {"http2"}),
        ([(TICKETS, "ssl_session_tickets on;")], {}, {"sessions.tickets"}),
        ([(TICKETS, "ssl_session_tickets on;")], MTLS, {"sessions.tickets", "sessions.resumption"}),
        ([(SESSIONS, "ssl_session_cache shared:s:1m;")], MTLS, {"sessions.resumption"}),
        ([(TICKETS, "ssl_session_tickets on; ssl_early_data on;")], {},
         {"sessions.tickets", "early_data"}),
        ([(TICKETS, "ssl_session_tickets on;")], MODERN, {"sessions.tickets"}),
        ([(SESSIONS, "ssl_session_cache shared:s:1m;")], MTLS | MODERN, {"sessions.resumption"}),
        ([(" ssl;", " ssl http2;")], MODERN, {"http2"}),
        ([("ssl_verify_client on;", "")], MTLS | MODERN,
         {"client_certificate.asked", "client_certificate.required"}),
        ([(HSTS, "")], {}, {"hsts"}),
        ([("max-age=63072000", "max-age=300")], {}, {"hsts"}),
        ([("ssl_verify_client on;", "")], MTLS,
         {"client_certificate.asked", "client_certificate.required"}),
        ([("ssl_verify_client on;", "ssl_verify_client optional;")], MTLS,
         {"client_certificate.required"}),
        ([("ssl_verify_client on;", "ssl_verify_client optional_no_ca;")], MTLS,
         {"client_certificate.required"}),
        ([("ssl_verify_client optional;", "")],
         {"auth": "either", "client_certificate": "optional"}, {"client_certificate.asked"}),
        ([], {"auth": "mtls"}, {"client_certificate.asked"}),
        ([(STRANGERS, "")], {}, {"unknown_name", "no_name"}),
        ([(STRANGERS, ""), ("return 444;", "return 200 hello;")], {"refuses_names": False},
         {"unknown_name", "no_name"}),
        ([("return 301 https", "return 301 http")], {}, {"http_port"}),
        ([(f"return 301 https://{NAME}/;", "return 200 hello;")], {}, {"http_port"}),
        ([], {"profile": "modern", "certificate_days": 3}, {"certificate.lifetime"}),
    ],
)  # fmt: skip
def test_each_sabotage_turns_its_own_checks_red(front, changes, params, red):
    assert ids(front.look(*changes, **params)) == red


@needs_nginx
def test_a_python_without_the_hook_says_what_it_does_not_see(front, monkeypatch):
    monkeypatch.setattr(visit, "_overhear", lambda _context, _messages: None)
    findings = front.look(profile="modern")
    assert ids(findings) == ids(findings, "error") == {"client_certificate.asked", "early_data"}
    assert findings["tls.certificate.name"]["result"] == "pass"


@needs_nginx
def test_tls_1_0_alone_is_red_and_what_cannot_be_seen_is_no_pass(front):
    old = "@SECLEVEL=0:ECDHE-ECDSA-AES128-SHA"
    findings = front.look((PROTOCOLS, "ssl_protocols TLSv1;"), (CIPHERS, f"ssl_ciphers {old}"))
    assert {"handshake", "version.tls10", "version.tls13", "suites.cbc"} <= ids(findings, "fail")
    assert "certificate.name" in ids(findings, "error")


@needs_nginx
@pytest.mark.parametrize(
    ("wanted", "params", "red"),
    [
        ({"start": now() - 3 * DAY, "end": now() - DAY}, {},
         {"certificate.expiry", "certificate.chain"}),
        ({"end": now() + 4 * DAY}, {}, {"certificate.expiry"}),
        ({"start": now() + DAY}, {}, {"certificate.expiry", "certificate.chain"}),
        ({"host": "other.test"}, {}, {"certificate.name", "certificate.chain"}),
        ({"host": ""}, {}, {"certificate.name", "certificate.chain"}),
        ({"end": now() + 400 * DAY}, {}, {"certificate.lifetime"}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("profile", ["intermediate", "modern"])
def test_certificates_that_do_not_hold(front, profile, wanted, params, red):
    front.show(server_certificate(**wanted))
    assert ids(front.look(profile=profile, **params)) == red


@needs_nginx
@pytest.mark.parametrize(
    ("words", "red"),
    [
        (["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"], set()),
        (["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-sha1"],
         {"certificate.signature"}),
        (["-newkey", "rsa:2048", "-md5"], {"certificate.signature"}),
        (["-newkey", "rsa:1024"], {"certificate.key"}),
    ],
)  # fmt: skip
def test_self_made_certificates(front, words, red):
    front.make(*words)
    weak = (CIPHERS, CIPHERS.replace("ciphers ", "ciphers @SECLEVEL=0:"))
    assert ids(front.look(weak)) == {"certificate.self_signed", "certificate.chain"} | red


@needs_nginx
def test_a_chain_that_is_not_sent_does_not_hold(front):
    pair = server_certificate()
    pair.chain.clear()
    front.show(pair)
    assert ids(front.look()) == {"certificate.chain"}


@needs_nginx
def test_a_ca_file_that_cannot_be_read_is_an_error(front):
    findings = front.look(ca_file="/nonexistent/ca.crt")
    assert ids(findings) == ids(findings, "error") == {"certificate.chain"}


@needs_nginx
def test_a_server_that_is_called_by_its_address(front):
    front.make("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", names="IP:127.0.0.1")
    named = (f"server_name {NAME};", "server_name 127.0.0.1;")
    self_made = {"certificate.self_signed", "certificate.chain"}
    by_address = {"server_name": "127.0.0.1", "refuses_names": False}
    assert ids(front.look((STRANGERS, ""), named, **by_address)) == self_made


# --- other servers


@contextlib.contextmanager
def openssl_server(folder, *words):
    port = free_port()
    files = ["-cert", "server.crt", "-cert_chain", "server.crt", "-key", "server.key"]
    command = ["openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-quiet", *files, *words]
    with running(command, folder, port):
        yield port


def test_openssl_with_everything_on(front):
    front.make("-newkey", "rsa:2048")
    words = ["-www", "-cipher", "ALL:COMPLEMENTOFALL:@SECLEVEL=0", "-dhparam", "dh.pem",
             "-psk", "0123", "-alpn", "h2", "-groups", "brainpoolP256r1:P-521:P-256"]  # fmt: skip
    (front.folder / "dh.pem").write_bytes(
        subprocess.run(
            ["openssl", "genpkey", "-genparam", "-algorithm", "DH", "-pkeyopt", "group:ffdhe2048",
             "-text"],
            capture_output=True, check=True,
        ).stdout
    )  # fmt: skip
    with openssl_server(front.folder, *words) as port:
        findings = front.ask(port)
    red = ids(findings, "fail")
    assert {
        "version.tls10", "version.tls11", "suites.null", "suites.anonymous", "suites.psk",
        "suites.static", "suites.dhe", "suites.rare", "suites.cbc", "groups.weak", "groups.other",
        "groups.profile", "http2", "sessions.tickets", "certificate.self_signed",
        "certificate.chain", "unknown_name", "no_name", "hsts",
    } <= red  # fmt: skip
    assert not {"certificate.name", "suites.rc4", "suites.des", "version.ssl2"} & red


def test_client_certificates_of_openssl_are_demanded_by_an_alert(front):
    with openssl_server(front.folder, "-www", "-Verify", "1", "-no_ticket") as port:
        findings = front.ask(port, client_certificate="required")
    required = findings["tls.client_certificate.required"]
    assert (required["result"], findings["tls.client_certificate.asked"]["result"]) == (
        "pass", "pass",
    )  # fmt: skip
    assert "ALERT" in required["actual"]


def test_pythons_server_and_its_weak_settings(front):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_certificate().load(context, front.folder)
    context.set_ciphers("ECDHE+CHACHA20:DHE+AESGCM:ECDHE+AES")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening, context), daemon=True).start()
        findings = front.ask(listening.getsockname()[1])
        listening.shutdown(socket.SHUT_RDWR)
    red = ids(findings, "fail")
    assert {"suites.cbc", "suites.rare", "sessions.tickets", "hsts"} <= red
    assert "certificate.chain" not in ids(findings)


def serve(listening, context):
    """Answer each request with nothing, one connection after the other."""
    with contextlib.suppress(OSError):
        while True:
            link, _address = listening.accept()
            link.settimeout(2)
            with contextlib.suppress(OSError), context.wrap_socket(link, server_side=True) as one:
                one.recv(4096)
                one.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")


# --- nobody, and wrong calls


def test_nobody_there_is_an_error_for_each_check(front):
    findings = front.ask(free_port(), client_certificate="required", profile="modern")
    assert {one["result"] for one in findings.values()} == {"error", "skip"}
    assert ids(findings, "skip") == {"http_port"}
    assert "refused" in findings["tls.handshake"]["actual"]


def test_a_server_that_hangs_costs_no_more_than_its_time(front):
    with socket.create_server(("127.0.0.1", 0)) as listening:
        start = time.monotonic()
        findings = front.ask(listening.getsockname()[1], timeout=0.5)
    assert time.monotonic() - start < 5
    assert findings["tls.handshake"]["actual"].endswith("no answer within 0.5 seconds")


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"port": 0}, "port is 0"),
        ({"port": 70000}, "port is 70000"),
        ({"http_port": -1}, "http_port is -1"),
        ({"timeout": 0}, "timeout is 0"),
        ({"connections": 0}, "connections is 0"),
        ({"server_name": " "}, "server_name is empty"),
        ({"profile": "old"}, "value of profile must be one of"),
    ],
)
def test_wrong_calls_fail(run_module, params, said):
    result = run_module(verify_tls.main, **{"server_name": NAME, **params})
    assert result["failed"] is True
    assert said in result["msg"]
