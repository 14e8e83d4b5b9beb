# SPDX-License-Identifier: GPL-3.0-or-later
"""CAs that issue whatever a test wants, also what no CA should."""

from __future__ import annotations

import datetime
import hashlib
import ipaddress
import ssl
from base64 import encodebytes
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import (
    AuthorityInformationAccessOID,
    ExtendedKeyUsageOID,
    NameOID,
)

DAY = datetime.timedelta(days=1)


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


@dataclass
class Pair:
    """A certificate with its key, and what a client sends beside it."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey
    chain: list[x509.Certificate] = field(default_factory=list)

    @classmethod
    def from_files(cls, certificate: Path, key: Path) -> Pair:
        """A certificate with its chain, and its key, that somebody else made."""
        shown, *chain = x509.load_pem_x509_certificates(certificate.read_bytes())
        return cls(shown, _elliptic(key.read_bytes()), chain)

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.certificate.public_bytes(Encoding.DER)).hexdigest()

    def pem(self, *, chain: bool = True) -> str:
        shown = [self.certificate, *(self.chain if chain else [])]
        return "".join(one.public_bytes(Encoding.PEM).decode() for one in shown)

    def key_pem(self) -> str:
        return self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()

    def load(self, trust: ssl.SSLContext, folder: Path, *, chain: bool = True) -> None:
        """Show this certificate to whoever asks."""
        file = folder / "shown.pem"
        file.write_text(self.pem(chain=chain) + self.key_pem())
        trust.load_cert_chain(file)

    def in_foreign_hands(self) -> Pair:
        """The certificate as somebody shows it who does not have its key."""
        return _Foreign(self.certificate, self.key, self.chain)


class _Foreign(Pair):
    """Certificate and key are of two. OpenSSL loads them, for it compares public halves only."""

    def key_pem(self) -> str:
        """Another private half beside the certificate's public one."""
        der = self.key.private_bytes(Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption())
        other = ec.generate_private_key(self.key.curve)
        mixed = der.replace(*(_private_half(key) for key in (self.key, other)))
        text = encodebytes(mixed).decode()
        return f"-----BEGIN EC PRIVATE KEY-----\n{text}-----END EC PRIVATE KEY-----\n"


def _private_half(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")


def _elliptic(pem: bytes, passphrase: str | None = None) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem, passphrase.encode() if passphrase else None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


class Authority:
    """A CA; ``parent`` makes it an intermediate one."""

    def __init__(
        self,
        name: str = "Test CA",
        parent: Authority | None = None,
        *,
        path_length: int | None = None,
        end: datetime.datetime | None = None,
    ) -> None:
        self.name = _name(name)
        self.parent = parent
        self.revoked: list[x509.Certificate] = []
        self.key = ec.generate_private_key(ec.SECP256R1())
        signer = parent or self
        self.certificate = (
            self._builder(self.name, signer, self.key, now() - DAY, end or now() + 9 * DAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
            .sign(signer.key, hashes.SHA256())
        )

    @classmethod
    def from_files(cls, certificate: Path, key: Path, passphrase: str) -> Authority:
        """An intermediate CA that somebody else made."""
        authority = cls.__new__(cls)
        authority.certificate = x509.load_pem_x509_certificate(certificate.read_bytes())
        authority.name = authority.certificate.subject
        authority.key = _elliptic(key.read_bytes(), passphrase)
        authority.parent = authority
        authority.revoked = []
        return authority

    @property
    def pem(self) -> str:
        return self.certificate.public_bytes(Encoding.PEM).decode()

    def issue(
        self,
        name: str = "client",
        *,
        start: datetime.datetime | None = None,
        end: datetime.datetime | None = None,
        usage: x509.ObjectIdentifier = ExtendedKeyUsageOID.CLIENT_AUTH,
        host: str = "",
        addresses: Sequence[str] = (),
        ocsp: str = "",
    ) -> Pair:
        key = ec.generate_private_key(ec.SECP256R1())
        builder = self._builder(_name(name), self, key, start or now() - DAY, end or now() + DAY)
        names: list[x509.GeneralName] = [x509.DNSName(host)] if host else []
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
        if ocsp:
            access = x509.AccessDescription(
                AuthorityInformationAccessOID.OCSP, x509.UniformResourceIdentifier(ocsp)
            )
            builder = builder.add_extension(x509.AuthorityInformationAccess([access]), False)
        certificate = builder.add_extension(x509.ExtendedKeyUsage([usage]), critical=False).sign(
            self.key, hashes.SHA256()
        )
        return Pair(certificate, key, [self.certificate] if self.parent else [])

    def crl(self, *, end: datetime.datetime | None = None) -> str:
        """The list of what was revoked."""
        end = end or now() + DAY
        builder = (
            x509.CertificateRevocationListBuilder()
            .issuer_name(self.name)
            .last_update(min(now(), end) - DAY)
            .next_update(end)
        )
        for one in self.revoked:
            entry = x509.RevokedCertificateBuilder().serial_number(one.serial_number)
            builder = builder.add_revoked_certificate(entry.revocation_date(now()).build())
        return builder.sign(self.key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    @staticmethod
    def _builder(
        subject: x509.Name,
        signer: Authority,
        key: ec.EllipticCurvePrivateKey,
        start: datetime.datetime,
        end: datetime.datetime,
    ) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(signer.name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(start)
            .not_valid_after(end)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.key.public_key()), False
            )
        )
