# SPDX-License-Identifier: GPL-3.0-or-later
"""What ends when: real certificates and lists, read by the host's openssl."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.expiry import days_left
from ansible_collections.llmsec.hardening.plugins.modules import verify_certificates

from tests.lab.certificates import DAY, Authority, now

ISSUING = Authority("Issuing", Authority("Root"))


def pem(days):
    return ISSUING.issue("app", start=now() - 30 * DAY, end=now() + days * DAY).pem(chain=False)


@pytest.fixture
def verify(run_module, tmp_path):
    def run(text, least_days=14):
        path = tmp_path / "some.pem"
        if text is not None:
            path.write_text(text)
        result = run_module(verify_certificates.main, paths=[str(path)], least_days=least_days)
        assert result["changed"] is False
        return [(one["result"], one["severity"], one["actual"]) for one in result["findings"]]

    return run


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (pem(20.5), [("pass", "medium", "20 days left")]),
        (pem(13.5), [("fail", "medium", "13 days left")]),
        (pem(-1), [("fail", "high", "it has expired")]),
        (ISSUING.crl(end=now() + 3.5 * DAY), [("fail", "medium", "3 days left")]),
        (
            pem(99.5) + ISSUING.pem + ISSUING.crl(end=now() - 2 * DAY),
            [
                ("pass", "medium", "99 days left"),
                ("fail", "medium", "8 days left"),
                ("fail", "high", "it has expired"),
            ],
        ),
    ],
)
def test_each_one_in_a_file_is_judged(verify, text, found):
    assert verify(text) == found


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (None, "no such file"),
        ("", "no certificate or list"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "openssl"),
    ],
)
def test_what_cannot_be_read_is_no_pass(verify, text, why):
    ((result, severity, actual),) = verify(text)
    assert (result, severity) == ("error", "high")
    assert why in actual


@pytest.mark.parametrize(
    ("printed", "days"),
    [
        ("notAfter=Jan  2 00:00:00 1970 GMT", 1),
        ("subject=CN = x\nnotAfter=Dec 31 12:00:00 1969 GMT", -0.5),
        ("nextUpdate=Jun 10 00:00:00 1970 GMT", 160),
    ],
)
def test_openssls_way_to_write_a_time(printed, days):
    assert days_left(printed, 0) == days


@pytest.mark.parametrize("printed", ["", "nextUpdate=NONE", "notAfter=soon GMT"])
def test_no_end_is_an_error(printed):
    with pytest.raises(ValueError):
        days_left(printed, 0)


def test_one_more_ca_is_found(verify, run_module, tmp_path):
    file = tmp_path / "client-ca.crt"
    file.write_text(pem(90))
    put = hashlib.sha256(file.read_bytes()).hexdigest()

    def unchanged():
        found = run_module(verify_certificates.main, paths=[str(file)], unchanged={str(file): put})[
            "findings"
        ]
        return {one["id"]: one["result"] for one in found}[f"certificates.{file}.unchanged"]

    assert unchanged() == "pass"
    file.write_text(pem(90) + pem(90))
    assert unchanged() == "fail"
    file.unlink()
    assert unchanged() == "error"
