# SPDX-License-Identifier: GPL-3.0-or-later
"""Client certificates: the role's nginx, asked for real, with the validator's own judgement."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import subprocess
import sys
import time
import typing as t
from contextlib import contextmanager
from pathlib import Path

import pytest
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.lab.certificates import DAY, Authority, Pair, now
from tests.lab.steps import wait_until

from .rendering import NAME, ROLE
from .stage import GO_ON, Answer, Heard, Say, Stage, free_port

sys.path.insert(0, str(ROLE.parent / "key_validator" / "files"))

from llm_key_validator.decision import RequestHeaders, decide, messages
from llm_key_validator.keys import generate_key, key_digest
from llm_key_validator.registry import load_registry

TLS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
CHAT = b'{"model":"tiny","messages":[]}'
LARGE = CHAT.ljust(10_000)


class Clients:
    """A root with an intermediate CA, and every kind of client."""

    def __init__(self) -> None:
        self.root = Authority("Root")
        self.issuing = Authority("Issuing", self.root)
        self.keys = {name: generate_key() for name in ("app", "keyed", "other")}
        issue, lookalike = self.issuing.issue, Authority("Issuing", Authority("Root"))
        self.pairs: dict[str, Pair] = {
            "app": issue("app"),
            "certified": issue("certified"),
            "stranger": issue("stranger"),
            "revoked": issue("revoked"),
            "expired": issue("expired", start=now() - 3 * DAY, end=now() - DAY),
            "not yet valid": issue("app", start=now() + DAY, end=now() + 2 * DAY),
            "a server's": issue("app", usage=ExtendedKeyUsageOID.SERVER_AUTH),
            "self-made": Authority("app").issue("app"),
            "of a CA of the same name": lookalike.issue("app"),
        }
        self.issuing.revoked.append(self.pairs["revoked"].certificate)
        known = [
            {"id": "app", "sha256": key_digest(self.keys["app"]), "certificate": "app"},
            {"id": "certified", "certificate": "certified"},
            {"id": "keyed", "sha256": key_digest(self.keys["keyed"])},
            {"id": "revoked", "certificate": "revoked"},
        ]
        for record in known:
            record["owner"] = "Team"
            if shown := record.pop("certificate", None):
                record["certificate_sha256"] = self.pairs[shown].sha256
        self.registry = load_registry(json.dumps({"version": 1, "keys": known}))

    @property
    def crl(self) -> str:
        return self.issuing.crl() + self.root.crl()


class Gate(Stage):
    """The stage with client certificates."""

    def __init__(self, folder: Path, clients: Clients, auth: str, **variables: t.Any) -> None:
        self.clients = clients
        self.auth = auth
        # Why the validator has refused
        self.reasons: list[str] = []
        folder.mkdir()
        self.ca_file, self.crl_file = folder / "clients.crt", folder / "clients.crl"
        self.ca_file.write_text(clients.root.pem)
        self.crl_file.write_text(clients.crl)
        wanted = {"gateway_client_ca": str(self.ca_file), "gateway_client_crl": str(self.crl_file)}
        super().__init__(folder, gateway_auth=auth, **{**wanted, **variables})

    def shown(self, name: str | None, tls: str = "1.3", *, chain: bool = True) -> ssl.SSLContext:
        """The settings of a client that shows this certificate."""
        trust = self.trust()
        trust.minimum_version = trust.maximum_version = TLS[tls]
        if name:
            self.clients.pairs[name].load(trust, self.folder, chain=chain)
        return trust

    def chat(
        self, trust: ssl.SSLContext, key: str | None = None, body: bytes = CHAT, **headers: str
    ) -> Answer:
        token = self.clients.keys[key] if key else None
        return self.ask("POST", "/api/chat", body, key=token, trust=trust, **headers)

    def _as_hop(self, heard: Heard) -> Say:
        """As the key validator judges, without its policy."""
        slots = {
            "authorization": "authorization",
            "x-api-key": "x_api_key",
            "x-gateway-request": "gateway_request",
            "x-limit-key": "limit_key",
            "x-client-certificate": "client_certificate",
        }
        values = {
            slot: tuple(value.encode() for value in heard.headers.get(name, []))
            for name, slot in slots.items()
        }
        headers = RequestHeaders(**values)
        reason, record = decide(headers, self.clients.registry, time.time(), self.auth)
        named = {"X-Key-Id": record.id} if record else {}
        if reason.word != "ok":
            error = {"error": {"message": messages(self.auth)[reason]}}
            named |= {"X-Auth-Reason": reason.word, "Content-Type": "application/json"}
            self.reasons.append(reason.word)
            return Say(reason.status, named, json.dumps(error).encode())
        return Say(200, GO_ON | named) if heard.target == "/authorize" else Say(204, named)


@pytest.fixture(scope="module")
def clients() -> Clients:
    return Clients()


@pytest.fixture(scope="module", params=["api_key", "mtls", "both", "either"])
def any_gate(
    request: pytest.FixtureRequest, clients: Clients, tmp_path_factory: pytest.TempPathFactory
) -> t.Iterator[Gate]:
    gate = Gate(tmp_path_factory.mktemp("gate") / request.param, clients, request.param)
    yield gate
    gate.close()


@pytest.fixture
def gate(any_gate: Gate, running: Stage) -> Gate:
    any_gate.reset()
    any_gate.reasons.clear()
    return any_gate


def one_gate(tmp_path: Path, auth: str, **variables: t.Any) -> Gate:
    return Gate(tmp_path / "gate", Clients(), auth, **variables)


def message(answer: Answer) -> str:
    return str(json.loads(answer.body)["error"]["message"])


# (certificate, key) -> the client that gets in, or why nobody does; by mode
CASES: dict[tuple[str | None, str | None], dict[str, str]] = {
    (None, None): {
        "api_key": "missing",
        "mtls": "certificate_missing",
        "both": "certificate_missing",
        "either": "missing",
    },
    (None, "keyed"): {
        "api_key": "keyed",
        "mtls": "certificate_missing",
        "both": "certificate_missing",
        "either": "keyed",
    },
    (None, "app"): {
        "api_key": "certificate",
        "mtls": "certificate_missing",
        "both": "certificate_missing",
        "either": "certificate",
    },
    (None, "other"): {
        "api_key": "unknown",
        "mtls": "certificate_missing",
        "both": "certificate_missing",
        "either": "unknown",
    },
    ("app", None): {"api_key": "missing", "mtls": "app", "both": "missing", "either": "missing"},
    ("app", "app"): {"api_key": "certificate", "mtls": "app", "both": "app", "either": "app"},
    ("app", "keyed"): {
        "api_key": "keyed",
        "mtls": "app",
        "both": "certificate_conflict",
        "either": "certificate_conflict",
    },
    ("app", "other"): {
        "api_key": "unknown",
        "mtls": "app",
        "both": "unknown",
        "either": "unknown",
    },
    ("certified", None): {
        "api_key": "missing",
        "mtls": "certified",
        "both": "missing",
        "either": "certified",
    },
    ("certified", "app"): {
        "api_key": "certificate",
        "mtls": "certified",
        "both": "certificate",
        "either": "certificate",
    },
    ("stranger", None): {
        "api_key": "missing",
        "mtls": "certificate_unknown",
        "both": "missing",
        "either": "certificate_unknown",
    },
    ("stranger", "keyed"): {
        "api_key": "keyed",
        "mtls": "certificate_unknown",
        "both": "certificate_conflict",
        "either": "certificate_conflict",
    },
}


@pytest.mark.parametrize(("tls", "size"), [("1.2", len(CHAT)), ("1.3", len(LARGE))])
@pytest.mark.parametrize(("certificate", "key"), CASES)
def test_who_gets_in(
    gate: Gate, certificate: str | None, key: str | None, tls: str, size: int
) -> None:
    expected = CASES[certificate, key][gate.auth]
    answer = gate.chat(gate.shown(certificate, tls), key, CHAT.ljust(size))
    report = gate.reported(answer)
    if expected in ("app", "keyed", "certified"):
        assert (answer.status, report["key"], report["forwarded"]) == (200, expected, "1")
        assert len(gate.llm.heard) == 1
        return
    assert answer.status == (401 if expected in ("missing", "unknown") else 403)
    assert answer.headers["content-type"] == "application/json"
    assert gate.llm.heard == []
    if expected == "certificate_missing":
        assert report["forwarded"] == expected
        assert message(answer) == "A client certificate is required."
        assert gate.hop.heard == []
    else:
        assert gate.reasons == [expected]


BAD = {
    "revoked": "certificate_revoked",
    "expired": "certificate_expired",
    "not yet valid": "certificate_not_yet_valid",
    "a server's": "certificate_refused",
    "self-made": "certificate_refused",
    "of a CA of the same name": "certificate_refused",
    "without its intermediate": "certificate_refused",
}


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("certificate", BAD)
@pytest.mark.parametrize("key", [None, "keyed"])
def test_a_certificate_that_does_not_hold(
    gate: Gate, certificate: str, tls: str, key: str | None
) -> None:
    """With a good key as well, and in every mode that asks for certificates."""
    if certificate == "without its intermediate":
        trust = gate.shown("app", tls, chain=False)
    else:
        trust = gate.shown(certificate, tls)
    answer = gate.chat(trust, key)
    report = gate.reported(answer)
    if gate.auth == "api_key":
        assert answer.status == (200 if key else 401)
        return
    assert (answer.status, report["forwarded"]) == (403, BAD[certificate])
    assert json.loads(answer.body)["error"]["type"] == "permission_error"
    assert json.loads(answer.body)["error"]["request_id"] == answer.headers["x-request-id"]
    assert "certificate" in message(answer)
    assert gate.hop.heard == gate.llm.heard == []


BAD_SIGNATURE = "bad signature"  # OpenSSL's words


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("key", [None, "app"])
def test_a_certificate_without_its_private_key(
    gate: Gate, clients: Clients, tmp_path: Path, tls: str, key: str | None
) -> None:
    """Whoever copied one gets no handshake, not even with a good key."""
    if gate.auth == "api_key":
        pytest.skip("it is not asked for")
    trust = gate.shown(None, tls)
    clients.pairs["app"].in_foreign_hands().load(trust, tmp_path)
    before = gate.errors().count(BAD_SIGNATURE)
    # In TLS 1.3 the client believes that all is well until it reads, or the other end is gone.
    with pytest.raises(OSError):
        gate.chat(trust, key)
    assert wait_until(lambda: gate.errors().count(BAD_SIGNATURE) > before), gate.errors()
    assert gate.hop.heard == gate.llm.heard == []


def test_a_subject_is_handed_on_in_plain_ascii(
    gate: Gate, clients: Clients, tmp_path: Path
) -> None:
    """Whatever a CA has let into it: it makes no header of its own."""
    if gate.auth == "api_key":
        pytest.skip("no certificate is asked for")
    trust = gate.shown(None)
    pair = clients.issuing.issue('Über "a", b\r\nX-Client-Certificate: c')
    pair.load(trust, tmp_path)
    gate.chat(trust)
    (heard,) = gate.hop.heard
    (shown,) = heard.headers["x-client-certificate"]
    assert shown.partition(" ")[2] == r"CN=\C3\9Cber \"a\"\, b\0D\0AX-Client-Certificate: c"


def test_a_certificate_that_is_only_claimed(gate: Gate, clients: Clients) -> None:
    """As a header of the client's own."""
    claimed = clients.pairs["certified"].pem(chain=False).replace("\n", "%0A").replace("+", "%2B")
    trust = gate.shown(None if gate.auth == "either" else "stranger")
    for name in ("X_Client_Certificate", "x_client_certificate"):
        for body in (CHAT, LARGE):
            gate.reset()
            answer = gate.chat(trust, None, body, **{name: claimed})
            assert answer.status in (401, 403)
            for heard in gate.hop.heard:
                assert claimed not in str(heard.headers)


def test_another_name_than_that_of_the_handshake_gets_no_answer(gate: Gate) -> None:
    with gate.connect(gate.shown("app")) as link:
        link.sendall(b"GET /api/version HTTP/1.1\r\nHost: other.test\r\n\r\n")
        assert link.recv(100) == b""
    assert gate.hop.heard == []


def ask_again(link: ssl.SSLSocket) -> int:
    """The status of one more request on a connection; 0: it is over."""
    try:
        link.sendall(f"GET /api/version HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        with http.client.HTTPResponse(link) as answer:
            answer.begin()
            answer.read()
            return answer.status
    except (OSError, http.client.HTTPException):
        return 0


@pytest.mark.parametrize("tls", TLS)
@pytest.mark.parametrize("auth", ["mtls", "either"])
def test_a_revoked_client_rides_no_old_session_and_no_old_connection(
    tmp_path: Path, running: Stage, auth: str, tls: str
) -> None:
    gate = one_gate(tmp_path, auth)
    try:
        trust = gate.shown("certified", tls)
        with gate.connect(trust) as link:
            assert ask_again(link) == 200
            session = link.session
        with gate.connect(trust, session) as link:
            assert not link.session_reused, "a resumed session is not verified again"
        with gate.connect(trust) as kept:
            assert ask_again(kept) == ask_again(kept) == 200
            gate.clients.issuing.revoked.append(gate.clients.pairs["certified"].certificate)
            gate.crl_file.write_text(gate.clients.crl)
            gate.reload()
            assert ask_again(kept) == 0
        with gate.connect(trust, session) as link:
            assert ask_again(link) == 403
        assert gate.chat(trust).status == 403
    finally:
        gate.close()


def test_lists_that_have_expired_or_are_missing_refuse_everybody(
    tmp_path: Path, running: Stage
) -> None:
    gate = one_gate(tmp_path, "either")
    root, issuing = gate.clients.root, gate.clients.issuing
    try:
        for text, reason, words in (
            (issuing.crl(end=now() - DAY) + root.crl(), "crl_expired", "has expired"),
            (issuing.crl(), "certificate_refused", "list of revoked certificates is missing"),
        ):
            gate.crl_file.write_text(text)
            gate.reload()
            answer = gate.chat(gate.shown("certified"))
            assert (answer.status, gate.reported(answer)["forwarded"]) == (403, reason)
            assert words in message(answer)
            assert gate.chat(gate.shown(None), "keyed").status == 200
    finally:
        gate.close()


def test_two_cas_are_trusted_while_one_replaces_the_other(tmp_path: Path, running: Stage) -> None:
    gate = one_gate(tmp_path, "mtls", gateway_client_crl="")
    new = Authority("Root")  # of the same name
    pair = new.issue("certified")
    try:
        renewed = gate.trust()
        pair.load(renewed, gate.folder)
        statuses = []
        for trusted in (gate.clients.root.pem, gate.clients.root.pem + new.pem, new.pem):
            gate.ca_file.write_text(trusted)
            gate.reload()
            old = gate.chat(gate.shown("certified"))
            answer = gate.chat(renewed)
            statuses.append((old.status, gate.reported(answer)["forwarded"]))
        # The validator does not know the new certificate, so it is the one that refuses it.
        assert statuses == [(200, "certificate_refused"), (200, ""), (403, "")]
    finally:
        gate.close()


@pytest.mark.parametrize("auth", ["mtls", "both", "either"])
def test_a_certificate_is_counted_whatever_key_comes_with_it(
    tmp_path: Path, running: Stage, auth: str
) -> None:
    limit = {"rate": "1r/m", "burst": 1}
    gate = one_gate(tmp_path, auth, gateway_limit_per_key=limit)
    try:
        trust = gate.shown("app")
        statuses = [
            gate.chat(trust, "app" if auth != "mtls" else None, X_Api_Key=generate_key()).status
            for _unused in range(3)
        ]
        assert statuses[2] == 429
        assert 429 not in statuses[:2]
        # Nobody else can use it up: another client's allowance is its own.
        assert gate.chat(gate.shown("stranger")).status in (401, 403)
    finally:
        gate.close()


def test_the_profile_modern_knows_tls_1_3_only(tmp_path: Path, running: Stage) -> None:
    gate = one_gate(tmp_path, "mtls", gateway_tls_profile="modern")
    try:
        assert gate.chat(gate.shown("certified", "1.3")).status == 200
        with pytest.raises(ssl.SSLError, match=r"(?i)protocol.version"):
            gate.chat(gate.shown("certified", "1.2"))
    finally:
        gate.close()


def test_a_client_that_calls_an_address(tmp_path: Path, running: Stage) -> None:
    """It sends no name in the handshake, so the default server asks for the certificate."""
    gate = one_gate(tmp_path, "mtls", gateway_server_names=[NAME, "127.0.0.1"])
    try:
        for shown, status in (("certified", b" 200 "), ("stranger", b" 403 "), (None, b" 403 ")):
            trust = gate.shown(shown)
            trust.check_hostname = False
            plain = socket.create_connection(("127.0.0.1", gate.port), 10)
            with trust.wrap_socket(plain) as link:
                link.sendall(b"GET /api/version HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
                assert status in link.recv(1000).partition(b"\r\n")[0]
    finally:
        gate.close()


BACKEND = "gpu1.example.com"


@pytest.mark.parametrize(
    ("name", "trusted", "shown", "status"),
    [
        (BACKEND, True, True, 200),
        ("gpu2.example.com", True, True, 502),
        (BACKEND, False, True, 502),
        (BACKEND, True, False, 502),
    ],
)
def test_an_llm_server_elsewhere_proves_who_it_is(
    tmp_path: Path, name: str, trusted: bool, shown: bool, status: int
) -> None:
    """And wants a certificate itself."""
    authority = Authority()
    server_side = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server_side.verify_flags &= ~ssl.VERIFY_X509_STRICT
    pair = authority.issue(host=BACKEND, usage=ExtendedKeyUsageOID.SERVER_AUTH)
    pair.load(server_side, tmp_path)
    server_side.load_verify_locations(cadata=authority.pem)
    server_side.verify_mode = ssl.CERT_REQUIRED
    client = authority.issue("gateway")
    ca, certificate, key = (tmp_path / f"{word}.pem" for word in ("ca", "certificate", "key"))
    ca.write_text(authority.pem if trusted else Authority().pem)
    certificate.write_text(client.pem())
    key.write_text(client.key_pem())
    own = {
        "gateway_backend_certificate": str(certificate),
        "gateway_backend_certificate_key": str(key),
    }
    stage = Stage(
        tmp_path / "stage",
        llm_tls=server_side,
        gateway_backend_tls=True,
        gateway_backend_name=name,
        gateway_backend_ca=str(ca),
        **(own if shown else {}),
    )
    try:
        answer = stage.ask("POST", "/api/chat", CHAT, key="k1")
        assert answer.status == status, stage.errors()
        hosts = [heard.headers["host"] for heard in stage.llm.heard]
        assert len(hosts) == (status == 200)
        assert all(host[0].startswith(f"{BACKEND}:") for host in hosts)
    finally:
        stage.close()


@contextmanager
def responder(folder: Path, port: int, authority: Authority, pair: Pair) -> t.Iterator[None]:
    """The CA's word on one certificate, by openssl's own OCSP responder."""
    end = pair.certificate.not_valid_after_utc.strftime("%y%m%d%H%M%SZ")
    serial = f"{pair.certificate.serial_number:X}"
    serial = serial.rjust(len(serial) + len(serial) % 2, "0")
    (folder / "index.txt").write_text(f"V\t{end}\t\t{serial}\tunknown\t/CN=llm\n")
    (folder / "ca.pem").write_text(authority.pem)
    (folder / "ca.key").write_text(Pair(authority.certificate, authority.key).key_pem())
    words = ["openssl", "ocsp", "-port", str(port), "-index", "index.txt", "-CA", "ca.pem"]
    signer = ["-rsigner", "ca.pem", "-rkey", "ca.key", "-nrequest", "50", "-timeout", "60"]
    with subprocess.Popen(
        [*words, *signer], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield
        finally:
            process.kill()


def stapled(port: int) -> str:
    words = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-servername", NAME]
    words.append("-status")
    return subprocess.run(words, input="", capture_output=True, text=True, check=False).stdout


def test_the_cas_word_is_stapled_where_it_gives_one(tmp_path: Path) -> None:
    authority, port = Authority(), free_port()
    server = ExtendedKeyUsageOID.SERVER_AUTH
    pair = authority.issue(host=NAME, usage=server, ocsp=f"http://127.0.0.1:{port}/")
    folder = tmp_path / "stage"
    folder.mkdir()
    (folder / "server.crt").write_text(pair.pem() + authority.pem)
    (folder / "server.key").write_text(pair.key_pem())
    asked = ["openssl", "x509", "-noout", "-ocsp_uri", "-in", folder / "server.crt"]
    found = subprocess.run(asked, capture_output=True, text=True, check=True).stdout
    stage = Stage(folder, __gateway_ocsp={"stdout": found.strip()})
    try:
        assert "no response sent" in stapled(stage.port), "no client waits for it"
        with responder(tmp_path, port, authority, pair):
            # After an error nginx asks again in minutes, or when it is reloaded.
            stage.reload()
            deadline = time.monotonic() + 20
            while "OCSP Response Status: successful" not in (shown := stapled(stage.port)):
                assert time.monotonic() < deadline, shown + stage.errors()
                time.sleep(0.3)
        assert "Cert Status: good" in shown
    finally:
        stage.close()
