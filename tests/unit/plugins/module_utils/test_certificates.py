# SPDX-License-Identifier: GPL-3.0-or-later
"""Facts have the shape that community.crypto returns; the role's results are judged by openssl."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import typing as t

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.certificates import (
    CertificateError,
    certificate_problems,
    covers,
    crl_problems,
    request_problems,
    subject_alt_names,
)
from hypothesis import given
from hypothesis import strategies as st

NOW = datetime.datetime(2026, 11, 23, 12, tzinfo=datetime.UTC)

CERTIFICATE: dict[str, t.Any] = {
    "not_before": "20261123110000Z",
    "not_after": "20271123120000Z",
    "subject_alt_name": ["DNS:llm.example.org", "IP:10.0.0.5"],
    "public_key_type": "ECC",
    "public_key_data": {"curve": "secp256r1", "exponent_size": 256},
    "public_key_fingerprints": {"sha256": "aa:bb"},
    "extended_key_usage": ["TLS Web Server Authentication"],
    "basic_constraints": ["CA:FALSE"],
    "signature_algorithm": "ecdsa-with-SHA256",
    "authority_key_identifier": "01:02",
}
RSA_1024 = {"public_key_type": "RSA", "public_key_data": {"size": 1024}}


class TestNames:
    def test_canonical_and_once_each(self) -> None:
        names = ["LLM.example.org", "10.0.0.5", "FD00:0::1", "llm.example.org", "*.b.example"]
        assert subject_alt_names(names) == [
            "DNS:llm.example.org",
            "IP:10.0.0.5",
            "IP:fd00::1",
            "DNS:*.b.example",
        ]

    @pytest.mark.parametrize(
        "name",
        [
            "",
            "a b",
            "a..b",
            "-a.b",
            "a-.b",
            "https://a.b",
            "a.b:443",
            "10.0.0",
            "10.0.0.256",
            "a.*.b",
            "*",
            "a_b.c",
            "a,IP:1.2.3.4",
            "a\n",
            "x" * 64,
            ".".join(["abc"] * 64),
            "[::1]",
            "müller.example",
        ],
    )
    def test_neither_name_nor_address(self, name: str) -> None:
        with pytest.raises(CertificateError, match="neither a host name nor an address"):
            subject_alt_names([name])
        assert subject_alt_names([name, "a.b"], strict=False) == ["DNS:a.b"]

    @given(st.text())
    def test_what_passes_cannot_change_a_command_or_a_request(self, name: str) -> None:
        with contextlib.suppress(CertificateError):
            (entry,) = subject_alt_names([name])
            assert not set(entry) & set(" ,;/\\\n\"'$=\0")

    @given(st.ip_addresses())
    def test_every_address_is_one(self, address: ipaddress.IPv4Address) -> None:
        assert subject_alt_names([str(address)]) == [f"IP:{address}"]

    @pytest.mark.parametrize(
        ("entry", "names", "covered"),
        [
            ("DNS:a.b.c", ["DNS:A.B.C"], True),
            ("DNS:a.b.c", ["DNS:*.b.c"], True),
            ("DNS:a.b.c", ["DNS:*.c"], False),
            ("DNS:b.c", ["DNS:*.b.c"], False),
            ("DNS:*.b.c", ["DNS:*.b.c"], True),
            ("IP:10.0.0.5", ["IP:10.0.0.5"], True),
            ("IP:10.0.0.5", ["DNS:*.0.0.5", "DNS:10.0.0.5"], False),
        ],
    )
    def test_a_wildcard_stands_for_one_label(
        self, entry: str, names: list[str], covered: bool
    ) -> None:
        assert covers(entry, names) is covered


class TestCertificate:
    def problems(self, changes: dict[str, t.Any] | None = None, **wanted: t.Any) -> list[str]:
        settings = {"names": ["llm.example.org"], "now": NOW, **wanted}
        return certificate_problems({**CERTIFICATE, **(changes or {})}, **settings)

    def test_a_good_one_has_none(self) -> None:
        names = ["llm.example.org", "10.0.0.5"]
        wanted = {"public_key": "aa:bb", "issuer_key_id": "01:02", "key_type": "ecdsa-p256"}
        assert self.problems(names=names, exact=True, days=30, **wanted) == []

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"not_before": "20261124000000Z"}, "not valid before 2026-11-24 00:00"),
            ({"not_after": "20261123120000Z"}, "expired on 2026-11-23"),
            ({"subject_alt_name": None}, "does not name DNS:llm.example.org (only nothing)"),
            ({"subject_alt_name": ["DNS:x.org"]}, "does not name DNS:llm.example.org"),
            (RSA_1024, "RSA key of 1024 bits is too weak"),
            ({"public_key_data": {"exponent_size": 192}}, "ECC key of 192 bits is too weak"),
            ({"public_key_type": "DSA"}, "type DSA cannot serve"),
            ({"extended_key_usage": ["TLS Web Client Authentication"]}, "not for TLS servers"),
            ({"basic_constraints": ["CA:TRUE", "pathlen:0"]}, "certificate of a CA"),
            ({"signature_algorithm": "sha1WithRSAEncryption"}, "signature"),
        ],
    )
    def test_each_fault_is_told_alone(self, changes: dict[str, t.Any], problem: str) -> None:
        (told,) = self.problems(changes)
        assert problem in told

    @pytest.mark.parametrize(
        ("wanted", "problem"),
        [
            ({"public_key": "cc:dd"}, "does not belong to the private key"),
            ({"issuer_key_id": "09:09"}, "does not come from this CA"),
            ({"key_type": "ecdsa-p384"}, "ECC with 256 bits and not ecdsa-p384"),
            ({"key_type": "rsa-3072"}, "and not rsa-3072"),
            ({"exact": True}, "names IP:10.0.0.5 as well"),
            ({"days": 365}, "expires on 2027-11-23, in less than 365 days"),
        ],
    )
    def test_each_wish_counts(self, wanted: dict[str, t.Any], problem: str) -> None:
        (told,) = self.problems(**wanted)
        assert problem in told

    def test_it_is_renewed_on_the_day_and_not_before(self) -> None:
        assert self.problems(days=364) == []
        assert self.problems(days=365) != []

    def test_without_an_extended_key_usage_any_use_is_allowed(self) -> None:
        assert self.problems({"extended_key_usage": None}) == []


REQUEST: dict[str, t.Any] = {
    "signature_valid": True,
    "subject": {"commonName": "llm.example.org"},
    "subject_alt_name": ["DNS:llm.example.org", "IP:10.0.0.5"],
    "key_usage": ["Digital Signature"],
    "extended_key_usage": ["TLS Web Server Authentication"],
    "basic_constraints": ["CA:FALSE"],
    "extensions_by_oid": {"2.5.29.17": {}, "2.5.29.15": {}, "2.5.29.37": {}, "2.5.29.19": {}},
}


class TestRequest:
    NAMES: t.ClassVar = ["llm.example.org", "10.0.0.5"]

    def test_what_is_due_is_signed(self) -> None:
        assert request_problems(REQUEST, self.NAMES) == []
        assert request_problems({**REQUEST, "subject": {}}, self.NAMES) == []

    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"signature_valid": False}, "signature is wrong"),
            ({"subject_alt_name": [*REQUEST["subject_alt_name"], "DNS:evil"]}, "DNS:evil"),
            ({"subject_alt_name": ["DNS:llm.example.org"]}, "asks for DNS:llm.example.org"),
            ({"subject_alt_name": None}, "no name"),
            ({"subject": {"commonName": "evil"}}, "subject"),
            ({"subject": {"organizationName": "llm.example.org"}}, "subject"),
            ({"basic_constraints": ["CA:TRUE"]}, "asks for a CA"),
            ({"basic_constraints": None}, "asks for a CA"),
            ({"key_usage": ["Digital Signature", "Certificate Sign"]}, "key usage"),
            ({"extended_key_usage": ["Code Signing"]}, "purpose"),
            ({"extensions_by_oid": {"2.5.29.30": {}}}, "not asked for (2.5.29.30)"),
        ],
    )
    def test_a_host_gets_nothing_else(self, changes: dict[str, t.Any], problem: str) -> None:
        (told,) = request_problems({**REQUEST, **changes}, self.NAMES)
        assert problem in told


class TestPurpose:
    @pytest.mark.parametrize(
        ("use", "good_for"),
        [
            ("TLS Web Server Authentication", "server"),
            ("TLS Web Client Authentication", "client"),
        ],
    )
    def test_a_certificate_of_the_other_side_is_refused(self, use: str, good_for: str) -> None:
        one = {**CERTIFICATE, "extended_key_usage": [use]}
        for purpose in ("server", "client"):
            problems = certificate_problems(one, purpose=purpose, now=NOW)
            expected = [] if purpose == good_for else [f"it is not for TLS {purpose}s"]
            assert problems == expected


class TestLists:
    @pytest.mark.parametrize(
        ("next_update", "problem"),
        [
            ("20261123120000Z", "it expired on 2026-11-23"),
            ("20261123120001Z", "it expires on 2026-11-23, in its last 34%"),
            ("20261208000000Z", "it expires on 2026-12-08, in its last 34%"),
            ("20261210000000Z", ""),
        ],
    )
    def test_the_last_third(self, next_update: str, problem: str) -> None:
        crl = {"last_update": "20261025120000Z", "next_update": next_update}
        assert crl_problems(crl, part_left=0.34, now=NOW) == ([problem] if problem else [])
        expired = [problem] if "expired" in problem else []
        assert crl_problems(crl, now=NOW) == expired
