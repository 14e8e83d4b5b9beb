# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What must hold of a TLS server: the list of checks, each with its finding.

Pure. The answers come from tls_probe.survey, what they mean is in tls_probe.verdicts.
"""

from __future__ import annotations

import typing as t
from collections.abc import Iterator
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.findings import (
    finding,
    not_measured,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe import verdicts
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.client_hello import (
    EXTENDED_MASTER_SECRET,
    RENEGOTIATION_INFO,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.numbers import (
    group_name,
    suite_name,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.survey import (
    FOREIGN_NAME,
    Answers,
    NotMeasuredError,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.verdicts import (
    Judge,
    Wishes,
)

__all__ = ("Check", "tls_findings")

_PROFILE = "Set gateway_tls_profile to intermediate or modern and apply the role gateway."
_GATEWAY = "Apply the role gateway, and look for other files that change TLS in /etc/nginx."
_CLIENTS = "Set gateway_auth to mtls, both or either and apply the roles pki and gateway."
_CERTIFICATE = "Run llmsec.hardening.harden, which renews certificates that are due, or bring new."


@dataclass(frozen=True)
class Check:
    """One promise: `title` says what must hold, `severity` what its absence weighs."""

    id: str
    title: str
    severity: str
    judge: Judge
    expected: str
    remediation: str = _GATEWAY
    control: str = "tls"

    def finding(self, answers: Answers, wishes: Wishes) -> dict[str, t.Any]:
        """Return what it comes to; what was not measured is an error."""
        try:
            verdict = self.judge(answers, wishes)
        except NotMeasuredError as exc:
            return not_measured(self.id, self.control, self.title, exc, self.remediation)
        return finding(
            self.id, self.control, self.title, verdict.severity or self.severity, verdict.result,
            expected=self.expected, actual=verdict.actual[:500],
            evidence=[line[:300] for line in verdict.evidence][:20], remediation=self.remediation,
        )  # fmt: skip


_OLD_VERSIONS = (
    ("ssl2", "SSL 2", "high"), ("ssl3", "SSL 3", "high"),
    ("tls10", "TLS 1.0", "medium"), ("tls11", "TLS 1.1", "medium"),
)  # fmt: skip
_BAD_SUITES = (
    ("null", "without encryption", "high"), ("anonymous", "without a certificate", "high"),
    ("export", "of export strength", "high"), ("rc4", "with RC4", "high"),
    ("des", "with DES, RC2 or IDEA", "high"), ("triple_des", "with 3DES", "medium"),
    ("psk", "with a shared key, SRP or Kerberos", "medium"),
    ("static", "without forward secrecy", "medium"),
    ("dhe", "with DHE", "low"), ("cbc", "with CBC", "medium"),
    ("rare", "with CAMELLIA, ARIA, SEED, CCM or GOST", "low"),
    ("other", "that never became a standard", "low"),
)  # fmt: skip


def _version_checks() -> Iterator[Check]:
    yield Check(
        "tls.handshake", "the server speaks TLS 1.2 or 1.3", "high", verdicts.handshake, "it does",
        "Apply the roles pki and gateway.",
    )  # fmt: skip
    for name, title, severity in _OLD_VERSIONS:
        yield Check(
            f"tls.version.{name}", f"{title} is off", severity, verdicts.refused_version(name),
            "refused", _PROFILE,
        )  # fmt: skip
    yield Check(
        "tls.version.tls12", "TLS 1.2 is as the profile says", "low", verdicts.tls12,
        "accepted (intermediate) or refused (modern)", _PROFILE,
    )  # fmt: skip
    yield Check(
        "tls.version.tls13", "TLS 1.3 is on", "medium", verdicts.tls13, "accepted", _PROFILE
    )  # fmt: skip


def _suite_checks() -> Iterator[Check]:
    for name, title, severity in _BAD_SUITES:
        yield Check(
            f"tls.suites.{name}", f"no cipher suite {title}", severity,
            verdicts.none_taken(f"suites.{name}", name_of=suite_name), "none is accepted", _PROFILE,
        )  # fmt: skip
    yield Check(
        "tls.suites.tls12_profile", "TLS 1.2 has suites of the profile", "low",
        verdicts.only_tls12(verdicts.suites12), "ECDHE with AES-GCM or ChaCha20-Poly1305", _PROFILE,
    )  # fmt: skip
    yield Check(
        "tls.suites.tls13_profile", "TLS 1.3 has suites of the profile", "low",
        verdicts.only_tls13(verdicts.suites13), "AES-GCM or ChaCha20-Poly1305", _PROFILE,
    )  # fmt: skip
    yield Check(
        "tls.suites.tls13_other", "TLS 1.3 has no suite beyond the profile", "low",
        verdicts.none_taken("suites.tls13_other", name_of=suite_name), "none is accepted", _PROFILE,
    )  # fmt: skip
    yield Check(
        "tls.suites.order", "clients choose among the suites", "info",
        verdicts.only_tls13(verdicts.order), "the client's order counts", _PROFILE,
    )  # fmt: skip


def _group_checks() -> Iterator[Check]:
    yield Check(
        "tls.groups.profile", "TLS 1.3 has the groups of the profile", "low",
        verdicts.only_tls13(verdicts.profile_groups), "X25519, prime256v1, secp384r1", _PROFILE,
    )  # fmt: skip
    yield Check(
        "tls.groups.post_quantum", "keys are exchanged safe from quantum computers", "low",
        verdicts.only_tls13(verdicts.post_quantum), "X25519MLKEM768", _PROFILE,
    )  # fmt: skip
    for name, title, severity in (
        ("weak", "no weak group", "medium"), ("other", "no group beyond the profile", "low"),
    ):  # fmt: skip
        names = (f"groups.{name}12", f"groups.{name}13")
        yield Check(
            f"tls.groups.{name}", title, severity, verdicts.none_taken(*names, name_of=group_name),
            "none is accepted", _PROFILE,
        )  # fmt: skip


def _handshake_checks() -> Iterator[Check]:
    yield Check("tls.compression", "compression is off", "medium", verdicts.compression, "off")
    yield Check(
        "tls.renegotiation", "TLS 1.2 renegotiates in the secure way only (RFC 5746)", "medium",
        verdicts.only_tls12(verdicts.has_extension(RENEGOTIATION_INFO)), "it does",
    )  # fmt: skip
    yield Check(
        "tls.extended_master_secret", "TLS 1.2 binds its keys to the handshake (RFC 7627)", "low",
        verdicts.only_tls12(verdicts.has_extension(EXTENDED_MASTER_SECRET)), "it does",
    )  # fmt: skip
    yield Check(
        "tls.heartbeat", "heartbeats are off", "low", verdicts.only_tls12(verdicts.heartbeat), "off"
    )  # fmt: skip
    yield Check(
        "tls.fallback", "a fallback to TLS 1.2 is refused (RFC 7507)", "low",
        verdicts.only_tls12(verdicts.fallback), "refused",
    )  # fmt: skip
    yield Check("tls.http2", "HTTP/2 is off", "medium", verdicts.http2, "h2 is not picked")
    yield Check(
        "tls.sessions.tickets", "no session tickets, whose key nobody changes", "low",
        verdicts.tickets, "none are issued",
    )  # fmt: skip
    yield Check(
        "tls.sessions.resumption", "no sessions outlive a client certificate", "high",
        verdicts.resumption, "no session is offered or resumed", control="mtls",
    )  # fmt: skip
    yield Check(
        "tls.early_data", "no early data, which can be replayed", "medium",
        verdicts.only_tls13(verdicts.early_data), "off",
    )  # fmt: skip


def _certificate_checks(wishes: Wishes) -> Iterator[Check]:
    ours = _CERTIFICATE
    yield Check(
        "tls.certificate.name", "the certificate names the server", "high",
        verdicts.each_certificate(verdicts.wrong_name, lambda one: ", ".join(one.names)),
        wishes.server_name, "Set gateway_server_names and apply the role pki.",
    )  # fmt: skip
    yield Check(
        "tls.certificate.expiry", f"the certificate is good for {wishes.least_days} days more",
        "high",
        verdicts.each_certificate(
            verdicts.ends, lambda one: f"until {one.end:%Y-%m-%d}", whole=True
        ),
        f"at least {wishes.least_days} days", ours,
    )  # fmt: skip
    yield Check(
        "tls.certificate.lifetime", "the certificate is not issued for long", "low",
        verdicts.each_certificate(verdicts.lasts_too_long, lambda one: f"{one.days:.0f} days"),
        f"at most {wishes.most_days} days", "Set pki_server_days and apply the role pki.",
    )  # fmt: skip
    yield Check(
        "tls.certificate.key", "keys of certificates are strong", "high",
        verdicts.each_certificate(verdicts.weak_key, verdicts.key_name, whole=True),
        "RSA of 2048 bits, a NIST curve of 256, or better",
        "Set pki_key_type and apply the role pki.",
    )  # fmt: skip
    yield Check(
        "tls.certificate.ecdsa", "the certificate's key is as the profile says", "low",
        verdicts.modern_key, "ECDSA or EdDSA (modern)", "Set pki_key_type to ecdsa-p256.",
    )  # fmt: skip
    yield Check(
        "tls.certificate.signature", "certificates are signed without SHA-1 and MD5", "high",
        verdicts.each_certificate(verdicts.weak_signature, lambda one: one.signature, whole=True),
        "SHA-256 or better", ours,
    )  # fmt: skip
    yield Check(
        "tls.certificate.self_signed", "the certificate comes from a CA", "medium",
        verdicts.each_certificate(verdicts.self_signed, lambda one: "another issuer"),
        "another issuer", "Apply the role pki, which makes a CA, or bring a CA's certificate.",
    )  # fmt: skip
    yield Check(
        "tls.certificate.chain", "the chain ends at the CA of the clients", "high", verdicts.chain,
        "it does", "Apply the role pki, or give the right pki_chain_file.",
    )  # fmt: skip


def _access_checks() -> Iterator[Check]:
    silent = "Apply the role gateway, whose default server refuses them; look for other servers."
    yield Check(
        "tls.unknown_name", f"who calls {FOREIGN_NAME} gets no answer", "medium",
        verdicts.stranger("unknown_name"), "refused, without an answer", silent,
    )  # fmt: skip
    yield Check(
        "tls.no_name", "who calls no name gets no answer", "medium", verdicts.stranger("no_name"),
        "refused, without an answer", silent,
    )  # fmt: skip
    yield Check(
        "tls.plain_http", "a request without TLS is refused", "high", verdicts.plain_http,
        "400, or no answer",
    )  # fmt: skip
    yield Check(
        "tls.http_port", "nothing is served without TLS", "high", verdicts.http_port,
        "no answer, or a redirect to https",
        "Keep gateway_disable_default_site on, and take other servers off that port.",
    )  # fmt: skip
    yield Check(
        "tls.client_certificate.asked", "client certificates are asked for as configured", "high",
        verdicts.asked, "asked for (required, optional) or not (none)", _CLIENTS, "mtls",
    )  # fmt: skip
    yield Check(
        "tls.client_certificate.required", "nobody gets in without a client certificate", "high",
        verdicts.required, "an alert, or a refusal that speaks of the certificate", _CLIENTS,
        "mtls",
    )  # fmt: skip
    yield Check(
        "tls.hsts", "browsers are told to use TLS only", "low", verdicts.hsts,
        f"Strict-Transport-Security with max-age of {verdicts.LEAST_HSTS} or more",
        "Set gateway_hsts and apply the role gateway.",
    )  # fmt: skip


def tls_findings(answers: Answers, wishes: Wishes) -> list[dict[str, t.Any]]:
    """Return one finding for each check, always of the same ids."""
    checks = (
        *_version_checks(), *_suite_checks(), *_group_checks(), *_handshake_checks(),
        *_certificate_checks(wishes), *_access_checks(),
    )  # fmt: skip
    return [check.finding(answers, wishes) for check in checks]
