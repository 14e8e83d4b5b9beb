# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read of a certificate (DER) what a check of it needs: RFC 5280 4.1, X.690.

No more than that, and without openssl: a control node may have none. Signatures are not verified
here. Takes bytes, and never raises anything but CertificateReadError.
"""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ("Certificate", "CertificateReadError", "read_certificate")

_INTEGER, _BITS, _OCTETS, _OID, _SEQUENCE = 0x02, 0x03, 0x04, 0x06, 0x30
_UTC_TIME, _GENERALIZED_TIME = 0x17, 0x18
_VERSION, _EXTENSIONS = 0xA0, 0xA3
_DNS_NAME, _IP_ADDRESS = 0x82, 0x87
_SAN = "2.5.29.17"
_PSS = "1.2.840.113549.1.1.10"
_RSA, _EC = "1.2.840.113549.1.1.1", "1.2.840.10045.2.1"

# RFC 3279, 4055, 5758, 8410, 9881; OIW's name of SHA-1 with RSA
_HASHES = {
    "1.3.14.3.2.26": "SHA-1", "2.16.840.1.101.3.4.2.1": "SHA-256",
    "2.16.840.1.101.3.4.2.2": "SHA-384", "2.16.840.1.101.3.4.2.3": "SHA-512",
}  # fmt: skip
_SIGNATURES = {
    "1.2.840.113549.1.1.2": "RSA with MD2", "1.2.840.113549.1.1.3": "RSA with MD4",
    "1.2.840.113549.1.1.4": "RSA with MD5", "1.2.840.113549.1.1.5": "RSA with SHA-1",
    "1.3.14.3.2.29": "RSA with SHA-1", "1.2.840.10040.4.3": "DSA with SHA-1",
    "1.2.840.10045.4.1": "ECDSA with SHA-1", "1.2.840.113549.1.1.14": "RSA with SHA-224",
    "1.2.840.113549.1.1.11": "RSA with SHA-256", "1.2.840.113549.1.1.12": "RSA with SHA-384",
    "1.2.840.113549.1.1.13": "RSA with SHA-512", "1.2.840.10045.4.3.1": "ECDSA with SHA-224",
    "1.2.840.10045.4.3.2": "ECDSA with SHA-256", "1.2.840.10045.4.3.3": "ECDSA with SHA-384",
    "1.2.840.10045.4.3.4": "ECDSA with SHA-512", "1.3.101.112": "Ed25519",
    "1.3.101.113": "Ed448", "2.16.840.1.101.3.4.3.17": "ML-DSA-44",
    "2.16.840.1.101.3.4.3.18": "ML-DSA-65", "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
}  # fmt: skip
# RFC 5480, 5639, 8410, 9881: (type, bits)
_CURVES = {
    "1.2.840.10045.3.1.1": ("EC", 192), "1.3.132.0.33": ("EC", 224),
    "1.3.132.0.10": ("EC secp256k1", 256), "1.2.840.10045.3.1.7": ("EC", 256),
    "1.3.132.0.34": ("EC", 384), "1.3.132.0.35": ("EC", 521),
    "1.3.36.3.3.2.8.1.1.7": ("EC brainpool", 256),
    "1.3.36.3.3.2.8.1.1.11": ("EC brainpool", 384),
    "1.3.36.3.3.2.8.1.1.13": ("EC brainpool", 512),
}  # fmt: skip
_KEYS = {
    "1.2.840.10040.4.1": "DSA", "1.3.101.112": "Ed25519", "1.3.101.113": "Ed448",
    "2.16.840.1.101.3.4.3.17": "ML-DSA-44", "2.16.840.1.101.3.4.3.18": "ML-DSA-65",
    "2.16.840.1.101.3.4.3.19": "ML-DSA-87",
}  # fmt: skip


class CertificateReadError(ValueError):
    """Not a certificate in a form that we know."""


@dataclass(frozen=True)
class Certificate:
    """What was read. `names` as OpenSSL writes them (DNS:…, IP:…), times in UTC."""

    names: tuple[str, ...]
    start: datetime.datetime
    end: datetime.datetime
    # "RSA", "EC" (the NIST curves), or another name; 0 bits where the type says it all
    key: str
    bits: int
    # "RSA with SHA-256"; the object identifier when it is not known
    signature: str
    self_issued: bool

    @property
    def days(self) -> float:
        """For how long it is valid in all."""
        return (self.end - self.start) / datetime.timedelta(days=1)


def read_certificate(der: bytes) -> Certificate:
    """Return what is in a certificate. Raises CertificateReadError."""
    try:
        return _certificate(der)
    except CertificateReadError:
        raise
    except (ValueError, IndexError, OverflowError) as exc:
        raise CertificateReadError(f"a certificate that cannot be read: {exc}") from exc


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield (tag, content) of what stands one after the other."""
    at = 0
    while at < len(data):
        tag, size, start = data[at], data[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            if not 1 <= count <= 3:
                raise CertificateReadError("a length that DER does not have")
            size = int.from_bytes(data[start : start + count], "big")
            start += count
        if start + size > len(data):
            raise CertificateReadError("a part of the certificate is shorter than it says")
        yield tag, data[start : start + size]
        at = start + size


def _parts(data: bytes) -> list[tuple[int, bytes]]:
    return [*_elements(data)]


def _expect(element: tuple[int, bytes], *tags: int) -> bytes:
    if element[0] not in tags:
        raise CertificateReadError(f"tag 0x{element[0]:02X} in an unexpected place")
    return element[1]


def _certificate(der: bytes) -> Certificate:
    whole = _parts(_expect(_parts(der)[0], _SEQUENCE))
    body = _parts(_expect(whole[0], _SEQUENCE))
    if body[0][0] == _VERSION:
        del body[0]
    _serial, _algorithm, issuer, validity, subject, key = body[:6]
    start, end = (_time(*one) for one in _parts(_expect(validity, _SEQUENCE))[:2])
    kind, bits = _key(_expect(key, _SEQUENCE))
    return Certificate(
        tuple(_names(body[6:])), start, end, kind, bits,
        _signature(_expect(whole[1], _SEQUENCE)), issuer == subject,
    )  # fmt: skip


def _oid(data: bytes) -> str:
    """Return an object identifier in numbers (X.690 8.19)."""
    arcs, value = [], 0
    for byte in data:
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(value)
            value = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


def _time(tag: int, data: bytes) -> datetime.datetime:
    """Return the time of UTCTime or GeneralizedTime (RFC 5280 4.1.2.5)."""
    text = data.decode("ascii")
    if tag == _UTC_TIME:
        text = ("19" if int(text[:2]) >= 50 else "20") + text
    elif tag != _GENERALIZED_TIME:
        raise CertificateReadError(f"tag 0x{tag:02X} is no time")
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)


def _key(data: bytes) -> tuple[str, int]:
    """Return type and size in bits of a SubjectPublicKeyInfo."""
    algorithm, bits = _parts(data)[:2]
    words = _parts(_expect(algorithm, _SEQUENCE))
    name = _oid(_expect(words[0], _OID))
    if name == _RSA:
        numbers = _parts(_expect(_parts(_expect(bits, _BITS)[1:])[0], _SEQUENCE))
        return "RSA", int.from_bytes(_expect(numbers[0], _INTEGER), "big").bit_length()
    if name == _EC:
        curve = _oid(_expect(words[1], _OID))
        return _CURVES.get(curve, (f"EC {curve}", 0))
    return _KEYS.get(name, name), 0


def _signature(data: bytes) -> str:
    words = _parts(data)
    name = _oid(_expect(words[0], _OID))
    return f"RSA-PSS with {_pss_hash(words[1:])}" if name == _PSS else _SIGNATURES.get(name, name)


def _pss_hash(parameters: list[tuple[int, bytes]]) -> str:
    """Return the hash of RSASSA-PSS-params, which is SHA-1 when they name none (RFC 4055 3.1)."""
    for tag, content in _parts(_expect(parameters[0], _SEQUENCE)) if parameters else []:
        if tag == 0xA0:
            algorithm = _parts(_expect(_parts(content)[0], _SEQUENCE))
            name = _oid(_expect(algorithm[0], _OID))
            return _HASHES.get(name, name)
    return "SHA-1"


def _names(rest: list[tuple[int, bytes]]) -> Iterator[str]:
    """Yield the alternative names among the extensions."""
    for extensions in (content for tag, content in rest if tag == _EXTENSIONS):
        for _sequence, extension in _elements(_parts(extensions)[0][1]):
            words = _parts(extension)
            if _oid(_expect(words[0], _OID)) == _SAN:
                yield from _general_names(_parts(_expect(words[-1], _OCTETS))[0][1])


def _general_names(data: bytes) -> Iterator[str]:
    for tag, content in _elements(data):
        if tag == _DNS_NAME:
            yield f"DNS:{content.decode('ascii').lower()}"
        elif tag == _IP_ADDRESS:
            yield f"IP:{ipaddress.ip_address(content)}"
