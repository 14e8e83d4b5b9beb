# SPDX-License-Identifier: GPL-3.0-or-later
"""Certificates as we read them, held against what openssl and cryptography made."""

from __future__ import annotations

import contextlib
import datetime
import subprocess

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.x509 import (
    CertificateReadError,
    read_certificate,
)
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import given
from hypothesis import strategies as st

from tests.lab.certificates import DAY, Authority, now

ISSUED = Authority("Issuing", Authority("Root")).issue("app", host="llm.test")
DER = ISSUED.certificate.public_bytes(Encoding.DER)


def made(folder, *words, names="DNS:llm.test"):
    """Return the DER of a certificate that openssl makes and signs by itself."""
    path = folder / "made.der"
    subprocess.run(
        ["openssl", "req", "-x509", "-nodes", "-keyout", folder / "key", "-outform", "DER",
         "-out", path, "-subj", "/CN=x", "-addext", f"subjectAltName={names}", "-days", "30",
         *words],
        capture_output=True, check=True,
    )  # fmt: skip
    return path.read_bytes()


def curve(name):
    return ["-newkey", "ec", "-pkeyopt", f"ec_paramgen_curve:{name}"]


@pytest.mark.parametrize(
    ("words", "key", "bits", "signature"),
    [
        (["-newkey", "rsa:2048"], "RSA", 2048, "RSA with SHA-256"),
        (["-newkey", "rsa:1024", "-sha1"], "RSA", 1024, "RSA with SHA-1"),
        (["-newkey", "rsa:1024", "-md5"], "RSA", 1024, "RSA with MD5"),
        (["-newkey", "rsa:2048", "-sha512"], "RSA", 2048, "RSA with SHA-512"),
        (
            ["-newkey", "rsa:2048", "-sha384", "-sigopt", "rsa_padding_mode:pss"],
            "RSA", 2048, "RSA-PSS with SHA-384",
        ),
        (
            ["-newkey", "rsa:2048", "-sha1", "-sigopt", "rsa_padding_mode:pss"],
            "RSA", 2048, "RSA-PSS with SHA-1",
        ),
        (curve("P-256"), "EC", 256, "ECDSA with SHA-256"),
        ([*curve("P-384"), "-sha1"], "EC", 384, "ECDSA with SHA-1"),
        (curve("secp224r1"), "EC", 224, "ECDSA with SHA-256"),
        (curve("secp256k1"), "EC secp256k1", 256, "ECDSA with SHA-256"),
        (curve("brainpoolP256r1"), "EC brainpool", 256, "ECDSA with SHA-256"),
        (["-newkey", "ed25519"], "Ed25519", 0, "Ed25519"),
    ],
)  # fmt: skip
def test_keys_and_signatures(tmp_path, words, key, bits, signature):
    one = read_certificate(made(tmp_path, *words))
    assert (one.key, one.bits, one.signature, one.self_issued) == (key, bits, signature, True)


def test_names_are_written_as_openssl_writes_them(tmp_path):
    names = "DNS:LLM.test,DNS:*.llm.test,IP:192.0.2.1,IP:2001:db8::1,email:a@b.test,URI:http://x/"
    found = read_certificate(made(tmp_path, *curve("P-256"), names=names)).names
    assert found == ("DNS:llm.test", "DNS:*.llm.test", "IP:192.0.2.1", "IP:2001:db8::1")


def test_issuer_and_dates():
    one = read_certificate(DER)
    assert not one.self_issued
    assert one.names == ("DNS:llm.test",)
    assert (one.start, one.end) == (
        ISSUED.certificate.not_valid_before_utc, ISSUED.certificate.not_valid_after_utc,
    )  # fmt: skip
    assert one.days == 2


@pytest.mark.parametrize("year", [1960, 1999, 2049, 2050, 2120])
def test_times_of_both_forms(year):
    end = datetime.datetime(year, 3, 4, 5, 6, 7, tzinfo=datetime.UTC)
    pair = Authority().issue("app", start=end - DAY, end=end)
    assert read_certificate(pair.certificate.public_bytes(Encoding.DER)).end == end


def test_a_certificate_without_names_has_none():
    pair = Authority().issue("app", end=now() + DAY)
    assert read_certificate(pair.certificate.public_bytes(Encoding.DER)).names == ()


@pytest.mark.parametrize("data", [b"", b"\x30", b"\x30\x00", b"\x30\x80\x00", b"no", DER[:200]])
def test_what_is_no_certificate_is_an_error(data):
    with pytest.raises(CertificateReadError):
        read_certificate(data)


@given(st.binary(max_size=120))
def test_anything_is_a_certificate_or_an_error(data):
    with contextlib.suppress(CertificateReadError):
        read_certificate(data)


@given(st.integers(0, len(DER) - 1), st.integers(0, 255))
def test_one_wrong_byte_is_a_certificate_or_an_error(place, byte):
    changed = bytearray(DER)
    changed[place] = byte
    with contextlib.suppress(CertificateReadError):
        read_certificate(bytes(changed))


def test_a_byte_more_at_the_end_changes_nothing():
    assert read_certificate(DER + b"\x00\x00") == read_certificate(DER)
    assert x509.load_der_x509_certificate(DER).not_valid_after_utc == read_certificate(DER).end
