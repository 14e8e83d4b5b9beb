# SPDX-License-Identifier: GPL-3.0-or-later
"""Client certificates on real hosts: who gets in, revocation, changes of certificates under load.

The tests change the hosts one after the other, in the order in which they stand here.
"""

from __future__ import annotations

import http.client
import json
import re
import select
import shlex
import shutil
import ssl
import subprocess
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from tests.lab import artifacts, playbook
from tests.lab.certificates import DAY, Authority, Pair, now
from tests.lab.hosts import STATE
from tests.lab.link import Door
from tests.lab.steps import ROOT, wait_until

PKI = STATE / "molecule/pki/mtls"
NEW_PKI = STATE / "molecule/pki/mtls-new"
PASSPHRASE = "the lab's passphrase"
TLS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
REQUESTS = 2000
TAGS = ("--tags=pki_configure,key_validator_configure,gateway_configure",)


def trust(*roots, tls=None):
    context = ssl.create_default_context()
    for root in roots or [PKI / "ca.crt"]:
        context.load_verify_locations(root)
    if tls:
        context.minimum_version = context.maximum_version = TLS[tls]
    return context


def shown(name, *roots, pki=PKI, tls=None):
    context = trust(*roots, tls=tls)
    folder = pki / "clients" / name
    context.load_cert_chain(folder / "client.crt", folder / "client.key")
    return context


def door(gateway, context):
    return Door(gateway.address, gateway.server_name, context)


def ask(link, key=""):
    """(status, body) of one request on an open connection; status 0: it is over."""
    headers = {"X-API-Key": key} if key else {}
    try:
        link.request("GET", "/api/version", headers=headers)
        with link.getresponse() as answer:
            return answer.status, answer.read().decode()
    except (OSError, http.client.HTTPException):
        return 0, ""


def status(gateway, context, key=""):
    with door(gateway, context).open() as link:
        return ask(link, key)[0]


def served(gateway, context):
    """The server's certificate."""
    with door(gateway, context).open() as link:
        return x509.load_der_x509_certificate(link.sock.getpeercert(binary_form=True))


def issued_to(name):
    folder = PKI / "clients" / name
    return Pair.from_files(folder / "client.crt", folder / "client.key")


def issuing():
    return Authority.from_files(PKI / "issuing.crt", PKI / "issuing.key", PASSPHRASE)


def audited(gateway):
    """The newest record of a request or refusal."""
    text = gateway.host.check_output("tail -n 20 /var/log/llm-gateway/audit.jsonl")
    records = map(json.loads, text.splitlines())
    return [one for one in records if one["event.action"] in ("request", "refusal")][-1]


def refused_pairs():
    """Certificates that look right, and what is wrong with each."""
    ours = issuing()
    (name,) = ours.name
    twin = Authority(str(name.value), Authority("Another root"))
    server = ExtendedKeyUsageOID.SERVER_AUTH
    return [
        (ours.issue("app", start=now() - 3 * DAY, end=now() - DAY), "certificate_expired"),
        (ours.issue("app", start=now() + DAY, end=now() + 2 * DAY), "certificate_not_yet_valid"),
        (ours.issue("app", usage=server), "certificate_refused"),
        (Authority("app").issue("app"), "certificate_refused"),
        (twin.issue("app"), "certificate_refused"),
        # It holds, and is on no record
        (ours.issue("app"), "certificate_unknown"),
    ]


@pytest.mark.parametrize("tls", TLS)
def test_whose_certificate_gets_in(gateway, tls):
    for name, record in (("app", "app"), ("batch1", "batch1")):
        assert status(gateway, shown(name, tls=tls)) == 200
        assert audited(gateway)["user.id"] == record
        assert len(audited(gateway)["tls.client.hash.sha256"]) == 64
        assert audited(gateway)["tls.client.subject"] == f"CN={name}"
    assert status(gateway, shown("nobody", tls=tls)) == 403
    assert audited(gateway)["event.reason"] == "certificate_unknown"
    with door(gateway, trust(tls=tls)).open() as link:
        code, body = ask(link)
    assert code == 403
    assert json.loads(body)["error"]["message"] == "A client certificate is required."
    time.sleep(0.2)  # nginx reports it
    assert audited(gateway)["event.reason"] == "certificate_missing"


def test_the_readmes_command_for_clients(gateways, tmp_path):
    """As it is written, but for the host's name; the unit tests compare its variables."""
    (tmp_path / "pki").symlink_to(PKI)
    text = (ROOT / "README.md").read_text().replace("\\\n", " ")
    (line,) = re.findall(r"^curl .*--cert .*$", text, re.MULTILINE)
    for gateway in gateways:
        words = shlex.split(line.replace("llm1.internal.example.com", gateway.server_name))
        where = ["--resolve", f"{gateway.server_name}:443:{gateway.address}"]
        done = subprocess.run(
            [*words, *where, "--silent", "--show-error"],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert json.loads(done.stdout)["version"]


def gets_no_handshake(gateway, context, key=""):
    """TLS 1.3 tells the client only when it goes on."""
    try:
        return status(gateway, context, key) == 0
    except OSError:
        return True


def without_its_key(name, tls, tmp_path):
    context = trust(tls=tls)
    issued_to(name).in_foreign_hands().load(context, tmp_path)
    return context


@pytest.mark.parametrize("tls", TLS)
def test_certificates_that_do_not_hold(gateway, tls, tmp_path):
    for pair, reason in refused_pairs():
        context = trust(tls=tls)
        pair.load(context, tmp_path)
        assert status(gateway, context) == 403, reason
        time.sleep(0.2)
        assert audited(gateway)["event.reason"] == reason
    alone = tmp_path / "alone.pem"
    end = "-----END CERTIFICATE-----\n"
    leaf = (PKI / "clients/app/client.crt").read_text().partition(end)[0] + end
    alone.write_text(leaf + (PKI / "clients/app/client.key").read_text())
    context = trust(tls=tls)
    context.load_cert_chain(alone)
    assert status(gateway, context) == 403, "without its intermediate"
    assert gets_no_handshake(gateway, without_its_key("app", tls, tmp_path))


def test_what_a_client_may_do_is_its_records_to_say(gateway):
    with door(gateway, shown("leaver")).open() as link:
        body = json.dumps({"model": "other", "prompt": "Hello"})
        link.request("POST", "/api/generate", body, {"Content-Type": "application/json"})
        with link.getresponse() as answer:
            assert answer.status == 403
    assert audited(gateway)["event.reason"] == "model"


def test_the_bundle_opens(tmp_path):
    words = ["openssl", "pkcs12", "-in", PKI / "clients/batch1/client.p12", "-nodes"]
    done = subprocess.run(
        [*words, "-passin", "pass:the bundle's"], capture_output=True, text=True, check=True
    )
    assert done.stdout.count("BEGIN CERTIFICATE") == 2
    assert "BEGIN PRIVATE KEY" in done.stdout


# What testssl.sh finds at MEDIUM or above, and why it stays.
TESTSSL_KNOWN = {
    "cert_revocation": "certificates of an internal CA name nobody to ask; their period is short",
    "cipher_order": "Mozilla's profile leaves the choice to the client, all ciphers being good",
}
# All but the client simulations and the list of each cipher
TESTSSL_PARTS = ["-p", "-s", "-f", "-P", "-S", "-h", "-U"]
TESTSSL = """
export DEBIAN_FRONTEND=noninteractive
apt-get -qq update
apt-get -qq install -y --no-install-recommends testssl.sh bsdextrautils
"""


def report_of_testssl(lab, gateway, asker):
    """What testssl.sh says of a gateway, asked from the host that has it."""
    report = f"/root/{gateway.name}.json"
    done = lab.run(
        asker, "testssl", "--quiet", "--warnings", "off", "--color", "0", "--ip", gateway.address,
        "--add-ca", "/root/lab-ca.crt", *TESTSSL_PARTS, "--overwrite", "--jsonfile", report,
        f"https://{gateway.server_name}:443", timeout=900,
    )  # fmt: skip
    text = lab.run(asker, "cat", report).stdout
    assert text, done.stdout + done.stderr
    return json.loads(text)


def test_tls_as_testssl_grades_it(gateways, lab):
    """Debian 12's testssl.sh gives no grades: Debian 13's is asked, about both hosts."""
    asker = gateways[-1].name
    lab.run(asker, "sh", "-euc", f"({TESTSSL}) >/dev/null 2>&1", check=True)
    ca = (PKI / "ca.crt").read_text()
    lab.run(asker, "sh", "-c", "cat >/root/lab-ca.crt", stdin=ca, check=True)
    with ThreadPoolExecutor() as pool:
        reports = list(pool.map(lambda gateway: report_of_testssl(lab, gateway, asker), gateways))
    for report in reports:
        grades = [one["finding"] for one in report if one["id"] == "overall_grade"]
        assert grades == ["A+"], report
        severe = {
            one["id"]: one["finding"]
            for one in report
            if one["severity"] in {"MEDIUM", "HIGH", "CRITICAL"} and one["id"] not in TESTSSL_KNOWN
        }
        assert severe == {}


def against_mozillas_profile(profile, gateways):
    """What sslyze holds against each of them. It knows version 5.7 of the profiles; ours is 6.0."""
    program = ROOT / "tests/lab/sslyze_check.py"
    servers = [f"{gateway.server_name}={gateway.address}" for gateway in gateways]
    done = subprocess.run(
        [artifacts.sslyze(), program, profile, PKI / "ca.crt", *servers],
        capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_tls_as_sslyze_holds_it_against_mozillas_profile(gateways):
    found = against_mozillas_profile("intermediate", gateways)
    assert found == {gateway.server_name: {} for gateway in gateways}


def test_the_profile_modern(gateways):
    """With a new server certificate, whose days are fewer; the next run takes it back."""
    run = playbook.harden(
        "mtls",
        *TAGS,
        harden_roles=["pki", "gateway"],
        gateway_tls_profile="modern",
        pki_renew=["server"],
    )
    assert run.code == 0, run.ending
    found = against_mozillas_profile("modern", gateways)
    assert found == {gateway.server_name: {} for gateway in gateways}
    for gateway in gateways:
        assert status(gateway, shown("app", tls="1.3")) == 200
        with pytest.raises(ssl.SSLError):
            status(gateway, shown("app", tls="1.2"))


def test_the_post_quantum_group_where_openssl_has_it(gateways, lab):
    groups = []
    for gateway in gateways:
        words = ["-connect", f"{gateway.address}:443", "-servername", gateway.server_name, "-brief"]
        done = lab.run(gateway.name, "openssl", "s_client", *words, stdin="")
        assert "Protocol version: TLSv1.3" in done.stdout + done.stderr
        groups.append("X25519MLKEM768" in done.stdout + done.stderr)
    assert groups == [False, True]


def refused(*messages, **variables):
    run = playbook.harden("mtls", "--diff", harden_roles=["pki"], **variables)
    assert run.code != 0
    for message in messages:
        assert message in run.text, run.ending
    assert not any(run.changed.values()), run.ending


def only_on(gateway, bad, good):
    """A variable that is wrong for one host."""
    where = f"inventory_hostname == '{gateway.name}'"
    return f"{{{{ {json.dumps(bad)} if {where} else {json.dumps(good)} }}}}"


def test_bad_input_changes_nothing(gateways, tmp_path):
    """Something else is wrong with each host. What else can be, the unit tests of the CA test."""
    before = sorted(path.name for path in PKI.rglob("*"))
    refused(
        "pki_ca_passphrase does not open",
        "has a certificate of a CA that is not in",
        pki_ca_passphrase=only_on(gateways[0], "wrong", PASSPHRASE),
        pki_ca_directory=only_on(gateways[1], str(tmp_path), str(PKI)),
    )
    assert sorted(path.name for path in PKI.rglob("*")) == before


@pytest.fixture(scope="module", params=["both", "either"])
def mode(request, gateways):
    run = playbook.harden(
        "mtls",
        *TAGS,
        harden_roles=["key_validator", "gateway"],
        gateway_auth=request.param,
    )
    assert run.code == 0, run.ending
    return request.param


@pytest.mark.parametrize("tls", TLS)
def test_modes(mode, gateways, keys, tls):
    names = ("app", "batch1", "nobody", "reader")
    app, batch, nobody, reader = (shown(name, tls=tls) for name in names)
    none = trust(tls=tls)
    both = {
        (none, "app"): 403,
        (none, "operator"): 403,
        (app, ""): 401,
        (app, "app"): 200,
        (app, "operator"): 403,
        (batch, ""): 401,
        (batch, "app"): 403,
        (nobody, "app"): 403,
        (none, "reader"): 403,
        (reader, ""): 401,
        (reader, "reader"): 200,
    }
    either = {
        (none, ""): 401,
        (none, "app"): 403,  # bound to its certificate
        (none, "operator"): 200,
        (app, "app"): 200,
        (app, "operator"): 403,
        (batch, ""): 200,
        (nobody, ""): 403,
        (none, "reader"): 200,
        (reader, ""): 200,
        (reader, "reader"): 200,
        (reader, "operator"): 403,
    }
    for gateway in gateways:
        for (context, key), expected in {"both": both, "either": either}[mode].items():
            assert status(gateway, context, keys.get(key, "")) == expected, (gateway.name, key)


@pytest.mark.parametrize("tls", TLS)
def test_certificates_that_do_not_hold_in_the_other_modes(mode, gateways, keys, tls, tmp_path):
    """A good key beside it does not help."""
    for pair, reason in refused_pairs():
        context = trust(tls=tls)
        pair.load(context, tmp_path)
        for gateway in gateways:
            assert status(gateway, context, keys["reader"]) == 403, (mode, reason)
    foreign = without_its_key("reader", tls, tmp_path)
    for gateway in gateways:
        assert gets_no_handshake(gateway, foreign, keys["reader"])


LIST = "/etc/llm-gateway/pki/client.crl"


@contextmanager
def on_the_list(lab, gateways, name):
    """The hosts have a list with this client on it, until the block ends. The role is not asked."""
    ours = issuing()
    ours.revoked.append(issued_to(name).certificate)
    text = ours.crl() + (PKI / "ca.crl").read_text()
    before = {gateway.name: gateway.host.file(LIST).content_string for gateway in gateways}
    reload = ("sh", "-c", f"cat >{LIST} && systemctl reload nginx")
    try:
        for host in before:
            lab.run(host, *reload, stdin=text, check=True)
        yield
    finally:
        for host, old in before.items():
            lab.run(host, *reload, stdin=old, check=True)


def test_a_revoked_client_rides_nothing_old_in_the_other_modes(mode, gateways, keys, lab):
    key = keys["reader"] if mode == "both" else ""
    doors = [door(gateway, shown("reader", tls=tls)) for gateway in gateways for tls in TLS]
    with ExitStack() as stack:
        links = [stack.enter_context(one.open()) for one in doors]
        for _unused in range(2):
            assert [ask(link, key)[0] for link in links] == [200] * len(links)
        sessions = [link.sock.session for link in links]
        stack.enter_context(on_the_list(lab, gateways, "reader"))
        sockets = [link.sock for link in links]
        # The workers of before close them.
        wait_until(lambda: len(select.select(sockets, [], [], 0)[0]) == len(sockets))
        assert [ask(link, key)[0] for link in links] == [0] * len(links)
        for one, session in zip(doors, sessions, strict=True):
            with one.open(session) as link:
                assert not link.sock.session_reused
                assert ask(link, key)[0] == 403


@contextmanager
def load(gateways, contexts, requests=REQUESTS):
    """Requests on new connections, by each of these clients, while the block runs.

    Ten a second by each of them, which leaves the run its processor; what is missing comes faster.
    """
    seen = Counter()
    over = threading.Event()
    hurry = threading.Event()

    def keep_asking(gateway, context):
        while not over.is_set():
            try:
                seen[status(gateway, context)] += 1
            except OSError as error:
                seen[repr(error)] += 1
            over.wait(0.01 if hurry.is_set() else 0.1)

    pairs = [(gateway, context) for gateway in gateways for context in contexts]
    threads = [threading.Thread(target=keep_asking, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    try:
        yield seen
        hurry.set()
        deadline = time.monotonic() + 60
        while sum(seen.values()) < requests and time.monotonic() < deadline:
            time.sleep(0.1)
    finally:
        over.set()
        for thread in threads:
            thread.join()


def test_an_llm_server_on_another_machine(gateways, lab):
    """Debian 12's gateway has Debian 13's for its LLM server, and shows it a certificate."""
    near, far = gateways
    for name in ("client.crt", "client.key"):
        text = (PKI / "clients/batch1" / name).read_text()
        keep = f"umask 077; cat >/etc/llm-gateway/pki/backend-{name}"
        lab.run(near.name, "sh", "-c", keep, stdin=text, check=True)
    run = playbook.harden(
        near.name,
        "--tags=key_validator_configure,gateway_configure",
        harden_roles=["key_validator", "gateway"],
        gateway_backend=f"{far.address}:443",
        gateway_backend_tls=True,
        gateway_backend_name=far.server_name,
        gateway_backend_ca="/etc/llm-gateway/pki/ca.crt",
        gateway_backend_certificate="/etc/llm-gateway/pki/backend-client.crt",
        gateway_backend_certificate_key="/etc/llm-gateway/pki/backend-client.key",
    )
    assert run.code == 0, run.ending
    for path in ("/api/version", "/api/tags"):
        with door(near, shown("app" if path == "/api/version" else "batch1")).open() as link:
            link.request("GET", path)
            with link.getresponse() as answer:
                text = answer.read().decode()
                assert answer.status == 200, (path, text)
    assert [one["name"] for one in json.loads(text)["models"]] == ["tiny:latest"]
    assert audited(far)["user.id"] == "batch1"
    assert audited(far)["url.path"] == "/api/tags"


def test_servers_are_rotated_and_a_client_revoked_under_load(gateways):
    """`leaver` is revoked, and the servers get new certificates, with keys of another type."""
    run = playbook.harden("mtls", *TAGS, harden_roles=["key_validator", "gateway"])
    assert run.code == 0, run.ending
    app, reader = shown("app"), shown("reader")
    leavers = {tls: shown("leaver", tls=tls) for tls in TLS}
    doors = [door(gateway, leavers[tls]) for gateway in gateways for tls in TLS]
    with ExitStack() as stack, load(gateways, [app, reader]) as seen:
        links = [stack.enter_context(one.open()) for one in doors]
        assert [ask(link)[0] for link in links] == [200] * len(links)
        sessions = [link.sock.session for link in links]
        run = playbook.play(
            "rotate",
            rotate="server",
            rotate_hosts="mtls",
            pki_key_type="rsa-3072",
            pki_revoked=["leaver"],
        )
        assert run.code == 0, run.ending
        assert [ask(link)[0] for link in links] == [0] * len(links), "those of before are over"
    assert set(seen) == {200}, seen
    assert seen[200] >= REQUESTS
    for one, session in zip(doors, sessions, strict=True):
        with one.open(session) as link:
            assert not link.sock.session_reused
            assert ask(link)[0] == 403
    time.sleep(0.2)
    for gateway in gateways:
        assert audited(gateway)["event.reason"] == "certificate_revoked"
        key = served(gateway, app).public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        assert key.key_size == 3072
        assert {status(gateway, shown("app", tls=tls)) for tls in TLS} == {200}


def test_clients_are_rotated_while_their_old_certificates_go_on(gateways):
    one = gateways[0].name  # what is foretold of one is of the other, too
    old = shown("app")
    before = [served(gateway, old) for gateway in gateways]
    foretold = playbook.play("rotate", "--check", rotate="server", rotate_hosts=one)
    assert foretold.code == 0, foretold.ending
    assert "a new one was asked for" in foretold.text
    text = (PKI / "clients/app/client.crt").read_text()
    with load(gateways, [old]) as seen:
        foretold = playbook.play("rotate", "--check", rotate="clients", rotate_hosts=one)
        assert foretold.code == 0, foretold.ending
        assert (PKI / "clients/app/client.crt").read_text() == text, "only foretold"
        # With the servers' key type that they have
        run = playbook.play(
            "rotate", rotate="clients", rotate_hosts="mtls", pki_key_type="rsa-3072"
        )
        assert run.code == 0, run.ending
    assert set(seen) == {200}, seen
    assert seen[200] >= REQUESTS
    assert (PKI / "clients/app/client.crt").read_text() != text
    for gateway, certificate in zip(gateways, before, strict=True):
        assert status(gateway, shown("app")) == status(gateway, old) == 200
        assert served(gateway, old) == certificate, "only foretold"


def test_what_rotate_refuses():
    for rotate, message in (("all", "rotate must be server"), ("ca", "must be an absolute path")):
        run = playbook.play("rotate", rotate=rotate, rotate_ca_directory="here")
        assert run.code != 0
        assert message in run.text, run.ending


def test_another_ca_under_load(gateways):
    """Clients of the old one go on, once they know the new one's root as well."""
    shutil.rmtree(NEW_PKI, ignore_errors=True)
    # It changes no host, so one will do.
    asked = {"rotate": "ca", "rotate_hosts": gateways[0].name, "rotate_ca_directory": str(NEW_PKI)}
    foretold = playbook.play("rotate", "--check", **asked)
    assert foretold.code == 0, foretold.ending
    assert not (NEW_PKI / "ca.crt").exists()
    made = playbook.play("rotate", **asked)
    assert made.code == 0, made.ending
    refused("has the certificate of another CA", pki_ca_directory=str(NEW_PKI))
    roots = PKI / "ca.crt", NEW_PKI / "ca.crt"
    app = shown("app", *roots)
    before = [served(gateway, app).public_key() for gateway in gateways]
    with load(gateways, [app]) as seen:
        run = playbook.harden(
            "mtls",
            *TAGS,
            harden_roles=["pki", "key_validator"],
            pki_ca_directory=str(NEW_PKI),
            pki_previous_ca_directory=str(PKI),
            pki_clients=[{"name": "app"}],
            pki_key_type="rsa-3072",
            pki_rotate_key=True,
            pki_revoked=["batch1"],
        )
        assert run.code == 0, run.ending
    assert set(seen) == {200}, seen
    for gateway, key in zip(gateways, before, strict=True):
        assert isinstance(served(gateway, app).public_key(), rsa.RSAPublicKey)
        assert served(gateway, app).public_key() != key, "pki_rotate_key"
        assert status(gateway, shown("app", *roots, pki=NEW_PKI)) == 200
        assert status(gateway, shown("batch1", *roots)) == 403
        time.sleep(0.2)
        assert audited(gateway)["event.reason"] == "certificate_revoked"
        with pytest.raises(ssl.SSLCertVerificationError):
            status(gateway, shown("app"))


def test_the_old_ca_is_let_go(gateways):
    """The last step of the change: nobody of the old one is let in any more."""
    run = playbook.harden(
        "mtls",
        *TAGS,
        harden_roles=["pki", "key_validator"],
        pki_ca_directory=str(NEW_PKI),
        pki_clients=[{"name": "app"}],
    )
    assert run.code == 0, run.ending
    roots = PKI / "ca.crt", NEW_PKI / "ca.crt"
    for gateway in gateways:
        assert status(gateway, shown("app", *roots, pki=NEW_PKI)) == 200
        assert status(gateway, shown("app", *roots)) == 403
        time.sleep(0.2)
        assert audited(gateway)["event.reason"] == "certificate_refused"
