# SPDX-License-Identifier: GPL-3.0-or-later
"""A change that nginx or Ollama does not take: the run says why, and all is as it was."""

from __future__ import annotations

import datetime
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.lab import link, playbook, scenarios
from tests.lab.playbook import Counts

FOREIGN = "/etc/nginx/conf.d/foreign.conf"
DROP_IN = "/etc/systemd/system/ollama.service.d/50-llm-hardening.conf"
FAILED = dict.fromkeys(scenarios.gateways("recovery"), Counts(changed=0, failed=1))
UNCHANGED = dict.fromkeys(scenarios.gateways("recovery"), Counts(changed=0, failed=0))


def harden_gateway(**variables):
    return playbook.harden("recovery", harden_roles=["gateway"], **variables)


def nginx_files(gateway):
    """Content, owner, mode and time of all of nginx's files."""
    look = "find /etc/nginx -type f -printf '%p %u:%g %m %T@ ' -exec sha256sum {} ';' | sort"
    return gateway.host.check_output(look).splitlines()


def max_body_size(gateway):
    text = gateway.host.file("/etc/nginx/conf.d/llm-gateway.conf").content_string
    return re.search(r"client_max_body_size (\w+);", text)[1]


@pytest.fixture
def foreign(gateways):
    """Writes a file of somebody else's into nginx's configuration; it is gone afterwards."""

    def write(text):
        for gateway in gateways:
            gateway.lab.run(gateway.name, "sh", "-c", f"cat >{FOREIGN}", stdin=text, check=True)

    yield write
    for gateway in gateways:
        gateway.host.check_output(f"rm -f {FOREIGN} && systemctl reload nginx.service")


def assert_served(seen, doors):
    """During the run each gateway answered, and never otherwise than with 200."""
    assert set(seen) == {(name, 200) for name in doors}, seen
    assert min(seen.values()) > 5, seen


def test_nginx_refuses_the_configuration(gateways, doors, keys, foreign):
    foreign("no_such_directive on;\n")
    before = [nginx_files(gateway) for gateway in gateways]
    with link.asking(doors, keys["app"]) as seen:
        run = harden_gateway(gateway_max_body_size="3m")
    assert run.hosts == FAILED, run.ending
    assert re.search(rf'unknown directive "no_such_directive" in {FOREIGN}:1', run.text), run.ending
    assert [nginx_files(gateway) for gateway in gateways] == before
    assert_served(seen, doors)
    assert {door.ask("/api/tags", keys["app"]) for door in doors.values()} == {200}

    for gateway in gateways:
        gateway.host.check_output(f"rm {FOREIGN}")
    try:
        run = harden_gateway(gateway_max_body_size="3m")
        assert run.code == 0, run.ending
        assert {max_body_size(gateway) for gateway in gateways} == {"3m"}
    finally:
        run = harden_gateway()
    assert run.changed == dict.fromkeys(doors, 1), run.ending


def test_nginx_refuses_at_the_reload_only(gateways, doors, keys, foreign):
    """`nginx -t` knows nothing of the zones that the running nginx has."""
    zone = "limit_req_zone {} zone=foreign:1m rate=5r/s;\n"
    foreign(zone.format("$binary_remote_addr"))
    for gateway in gateways:
        gateway.host.check_output("systemctl reload nginx.service")
    foreign(zone.format("$request_uri"))
    assert {gateway.host.run("nginx -t").rc for gateway in gateways} == {0}

    before = [nginx_files(gateway) for gateway in gateways]
    with link.asking(doors, keys["app"]) as seen:
        run = harden_gateway(gateway_max_body_size="3m")
    assert run.hosts == FAILED, run.ending
    assert re.search(r'"foreign" uses the "\$request_uri" key while previously it used', run.text)
    assert [nginx_files(gateway) for gateway in gateways] == before
    assert_served(seen, doors)

    # What the run put back is served already.
    for gateway in gateways:
        gateway.host.check_output(f"rm {FOREIGN}")
    run = harden_gateway()
    assert run.hosts == UNCHANGED, run.ending


def test_ollama_does_not_live_in_the_sandbox(gateways, doors, keys):
    before = [gateway.host.file(DROP_IN).content_string for gateway in gateways]
    run = playbook.harden(
        "recovery",
        harden_roles=["ollama"],
        ollama_directives={"RestrictAddressFamilies": "AF_UNIX"},
        ollama_health_timeout=5,
    )
    assert {name: counts.failed for name, counts in run.hosts.items()} == dict.fromkeys(doors, 1)
    # Ollama's own words.
    assert re.search(r"journal ends with: .*address family not supported", run.text), run.ending
    assert "The state before is restored and the service answers again" in run.text, run.ending
    assert [gateway.host.file(DROP_IN).content_string for gateway in gateways] == before
    for gateway, door in zip(gateways, doors.values(), strict=True):
        assert gateway.host.file(DROP_IN).mode == 0o644
        assert door.ask("/api/tags", keys["app"]) == 200

    run = playbook.harden("recovery", harden_roles=["ollama"])
    assert run.hosts == UNCHANGED, run.ending


@pytest.fixture
def mismatched(doors, tmp_path):
    """A good certificate for each gateway, and the key of another one."""
    key, other = (ec.generate_private_key(ec.SECP256R1()) for _unused in range(2))
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "provided")])
    names = x509.SubjectAlternativeName([x509.DNSName(one.server_name) for one in doors.values()])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=90))
        .add_extension(names, critical=False)
        .sign(key, hashes.SHA256())
    )
    (tmp_path / "server.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (tmp_path / "server.key").write_bytes(
        other.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return {
        "pki_source": "provided",
        "pki_certificate_file": str(tmp_path / "server.crt"),
        "pki_private_key_file": str(tmp_path / "server.key"),
    }


def test_a_provided_certificate_without_its_key(doors, mismatched):
    before = [door.certificate()["serialNumber"] for door in doors.values()]
    run = playbook.harden("recovery", **mismatched)
    assert run.hosts == FAILED, run.ending
    assert re.search(r"server\.crt cannot serve recovery-d12: .*key", run.text), run.ending
    assert [door.certificate()["serialNumber"] for door in doors.values()] == before


@pytest.fixture
def full_disks(gateways):
    """No room for nginx's logs, nor for what it does not keep in memory."""
    places = ("/var/log/nginx", "/var/lib/nginx/body")
    for gateway in gateways:
        for place in places:
            gateway.host.check_output(f"mount -t tmpfs -o size=16k,mode=777 full {place}")
            gateway.host.run(f"dd if=/dev/zero of={place}/full bs=4k")
        gateway.host.check_output("nginx -s reopen")
    yield
    for gateway in gateways:
        for place in places:
            # Lazily: a worker may still write to the old log.
            gateway.host.check_output(f"umount --lazy {place}")
        gateway.host.check_output("nginx -s reopen")


@pytest.mark.usefixtures("full_disks")
def test_full_disks(gateways, doors, keys):
    large = b"x" * 1_500_000  # more than nginx keeps in memory
    for gateway, door in zip(gateways, doors.values(), strict=True):
        log = gateway.host.file("/var/log/nginx/llm-gateway.access.log")
        assert door.ask("/api/tags", keys["app"]) == 200
        assert door.ask("/api/tags", "llmk_wrong") == 401
        assert log.exists
        assert gateway.host.run("echo >>%s", log.path).rc != 0, "the disk is not full"
        assert door.ask("/api/generate", keys["app"], large) == 503
