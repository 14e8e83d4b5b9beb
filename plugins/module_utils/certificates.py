# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What makes a certificate, a request for one, or a revocation list unfit for our server.

Pure: takes the dictionaries which community.crypto's x509_certificate_info, openssl_csr_info and
x509_crl_info return, so that library reads and we judge. Names follow RFC 1123, RFC 5280 and
RFC 9525.
"""

from __future__ import annotations

import datetime
import ipaddress
import re
import typing as t

__all__ = (
    "CertificateError",
    "certificate_problems",
    "covers",
    "crl_problems",
    "request_problems",
    "subject_alt_names",
)

_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_HOST = re.compile(rf"(?:\*\.)?(?:{_LABEL}\.)*{_LABEL}\Z")

# RFC 5280 4.2: what a host may ask for. Anything else in a request is refused.
_SAN, _KEY_USAGE, _EXTENDED = "2.5.29.17", "2.5.29.15", "2.5.29.37"
_ALLOWED = {_SAN, _KEY_USAGE, _EXTENDED, "2.5.29.19", "2.5.29.14"}
_SERVER_AUTH = "TLS Web Server Authentication"
_PURPOSES = {"server": _SERVER_AUTH, "client": "TLS Web Client Authentication"}

# name of our option: (type and size as community.crypto tells them)
_KEY_TYPES = {"ecdsa-p256": ("ECC", 256), "ecdsa-p384": ("ECC", 384), "rsa-3072": ("RSA", 3072)}
_LEAST_BITS = {"RSA": 2048, "ECC": 256}


class CertificateError(ValueError):
    """A name that no certificate can carry."""


def _is_wellformed(name: str) -> bool:
    """Say whether it is a host name; with a last label of digits only it is a mistyped address."""
    return (
        len(name) <= 253 and _HOST.match(name) is not None and not name.rpartition(".")[2].isdigit()
    )


def subject_alt_names(names: t.Iterable[str], *, strict: bool = True) -> list[str]:
    """Return names and addresses as OpenSSL writes them (DNS:…, IP:…), canonical, once each.

    Raises CertificateError for what is neither; without strict it is left out.
    """
    entries = []
    for name in map(str, names):
        try:
            entries.append(f"IP:{ipaddress.ip_address(name)}")
        except ValueError:
            if _is_wellformed(name.lower()):
                entries.append(f"DNS:{name.lower()}")
            elif strict:
                raise CertificateError(f"{name!r} is neither a host name nor an address") from None
    return list(dict.fromkeys(entries))


def covers(entry: str, certificate_names: t.Iterable[str]) -> bool:
    """Say whether a certificate with these names serves the entry; * stands for one label."""
    known = {name.lower() for name in certificate_names}
    host = entry.removeprefix("DNS:")
    wildcard = f"dns:*.{host.partition('.')[2]}".lower()
    return entry.lower() in known or (entry.startswith("DNS:") and wildcard in known)


def _bits(certificate: t.Mapping[str, t.Any]) -> tuple[str, int]:
    data = certificate.get("public_key_data") or {}
    return str(certificate.get("public_key_type")), data.get("size") or data.get("exponent_size", 0)


def _time(text: str) -> datetime.datetime:
    """Return the time of community.crypto's YYYYMMDDHHMMSSZ."""
    return datetime.datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=datetime.UTC)


def _period_problems(
    certificate: t.Mapping[str, t.Any], days: int, now: datetime.datetime
) -> list[str]:
    start, end = _time(certificate["not_before"]), _time(certificate["not_after"])
    if now < start:
        return [f"it is not valid before {start:%Y-%m-%d %H:%M} UTC"]
    if now >= end:
        return [f"it expired on {end:%Y-%m-%d}"]
    if days and now + datetime.timedelta(days=days) >= end:
        return [f"it expires on {end:%Y-%m-%d}, in less than {days} days"]
    return []


def _name_problems(
    certificate: t.Mapping[str, t.Any], names: t.Iterable[str], exact: bool
) -> list[str]:
    has = certificate.get("subject_alt_name") or []
    wanted = subject_alt_names(names)
    missing = [entry for entry in wanted if not covers(entry, has)]
    if missing:
        return [f"it does not name {', '.join(missing)} (only {', '.join(has) or 'nothing'})"]
    surplus = [entry for entry in has if entry.lower() not in {name.lower() for name in wanted}]
    return [f"it names {', '.join(surplus)} as well"] if exact and surplus else []


def _key_problems(
    certificate: t.Mapping[str, t.Any], public_key: str | None, key_type: str | None
) -> list[str]:
    problems = []
    kind, bits = _bits(certificate)
    if kind in _LEAST_BITS and bits < _LEAST_BITS[kind]:
        problems.append(f"its {kind} key of {bits} bits is too weak")
    if kind not in (*_LEAST_BITS, "Ed25519", "Ed448"):
        problems.append(f"its key of type {kind} cannot serve TLS")
    if key_type is not None and (kind, bits) != _KEY_TYPES[key_type]:
        problems.append(f"its key is {kind} with {bits} bits and not {key_type}")
    if public_key is not None and certificate["public_key_fingerprints"]["sha256"] != public_key:
        problems.append("it does not belong to the private key")
    return problems


def _use_problems(certificate: t.Mapping[str, t.Any], purpose: str) -> list[str]:
    problems = []
    uses = certificate.get("extended_key_usage")
    of_a_ca = "CA:TRUE" in (certificate.get("basic_constraints") or [])
    if purpose == "issuer":
        if not of_a_ca:
            problems.append("it is not the certificate of a CA")
    else:
        if uses and _PURPOSES[purpose] not in uses and "Any Extended Key Usage" not in uses:
            problems.append(f"it is not for TLS {purpose}s")
        if of_a_ca:
            problems.append("it is the certificate of a CA")
    algorithm = str(certificate.get("signature_algorithm")).lower()
    if "sha1" in algorithm or "md5" in algorithm:
        problems.append(f"its signature ({algorithm}) is too weak")
    return problems


def certificate_problems(
    certificate: t.Mapping[str, t.Any],
    *,
    names: t.Iterable[str] = (),
    public_key: str | None = None,
    issuer_key_id: str | None = None,
    key_type: str | None = None,
    days: int = 0,
    exact: bool = False,
    purpose: str = "server",
    now: datetime.datetime | None = None,
) -> list[str]:
    """Return what is wrong with a certificate, as halves of a sentence; empty if nothing.

    public_key: SHA-256 fingerprint of the key it must belong to. issuer_key_id: subject key
    identifier of the CA it must come from. days: how long it must still be valid. exact: names
    beyond the wanted ones are a problem too. purpose: server, client or issuer (of certificates).
    """
    now = now or datetime.datetime.now(datetime.UTC)
    problems = _period_problems(certificate, days, now)
    problems += _name_problems(certificate, names, exact)
    problems += _key_problems(certificate, public_key, key_type)
    problems += _use_problems(certificate, purpose)
    if issuer_key_id is not None and certificate.get("authority_key_identifier") != issuer_key_id:
        problems.append("it does not come from this CA")
    return problems


def crl_problems(
    crl: t.Mapping[str, t.Any],
    *,
    part_left: float = 0.0,
    now: datetime.datetime | None = None,
) -> list[str]:
    """Return what is wrong with a revocation list's period, as halves of a sentence.

    part_left: of its whole period, how much must be left (1/3: renewed in the last third).
    """
    now = now or datetime.datetime.now(datetime.UTC)
    start, end = _time(crl["last_update"]), _time(crl["next_update"])
    if now >= end:
        return [f"it expired on {end:%Y-%m-%d}"]
    if end - now < (end - start) * part_left:
        return [f"it expires on {end:%Y-%m-%d}, in its last {part_left:.0%}"]
    return []


def request_problems(request: t.Mapping[str, t.Any], names: t.Iterable[str]) -> list[str]:
    """Return why a CA must not sign this request: it asks for more than, or not for, what is due.

    The request is made by the host, which may be in other hands; the CA signs what the inventory
    says and nothing else.
    """
    problems = []
    wanted = subject_alt_names(names)
    subject = request.get("subject") or {}
    if not request.get("signature_valid"):
        problems.append("its signature is wrong")
    if set(request.get("subject_alt_name") or []) != set(wanted):
        problems.append(f"it asks for {', '.join(request.get('subject_alt_name') or ['no name'])}")
    bare = [entry.partition(":")[2] for entry in wanted]
    if subject and (set(subject) != {"commonName"} or subject["commonName"] not in bare):
        problems.append(f"its subject is {subject}")
    unknown = sorted(set(request.get("extensions_by_oid") or {}) - _ALLOWED)
    if unknown:
        problems.append(f"it has extensions that were not asked for ({', '.join(unknown)})")
    if request.get("key_usage") != ["Digital Signature"]:
        problems.append("its key usage is not digital signature alone")
    if request.get("extended_key_usage") != [_SERVER_AUTH]:
        problems.append("its purpose is not TLS servers alone")
    if request.get("basic_constraints") != ["CA:FALSE"]:
        problems.append("it asks for a CA")
    return problems
