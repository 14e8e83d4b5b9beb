# SPDX-License-Identifier: GPL-3.0-or-later
"""The tables of suites and groups, held against those of the host's openssl."""

from __future__ import annotations

import re
import subprocess

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.numbers import (
    GROUPS,
    OTHER_GROUPS,
    POST_QUANTUM,
    PROFILE_12,
    PROFILE_13,
    PROFILE_GROUPS,
    SUITE_CLASSES,
    SUITES,
    TLS13_OTHERS,
    WEAK_GROUPS,
    group_name,
    suite_class,
    suite_name,
)

# 0xC0,0x2C - TLS_ECDHE_… - ECDHE-… TLSv1.2 Kx=ECDH Au=ECDSA Enc=AESGCM(256) Mac=AEAD
ROW = re.compile(
    r"0x(\w\w),0x(\w\w) - (\S+) +- \S+ +(\S+) +Kx=(\S+) +Au=(\S+) +Enc=(\S+)", re.MULTILINE
)


@pytest.fixture(scope="module")
def rows():
    command = ["openssl", "ciphers", "-V", "-stdname", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [(int(one[0] + one[1], 16), *one[2:]) for one in ROW.findall(shown)]
    assert len(found) > 100
    return found


def test_openssls_suites_have_openssls_names(rows):
    named = {number: name.replace("_CCM8", "_CCM_8") for number, name, *_rest in rows}
    assert {number: suite_name(number) for number in named} == named


def test_openssls_suites_are_in_a_class_that_says_what_openssl_says(rows):
    expected = {}
    for number, _name, version, exchange, authentication, encryption in rows:
        if number in PROFILE_12 or version == "TLSv1.3":
            continue
        expected[number] = next(
            found
            for found, holds in (
                ("null", encryption == "None"),
                ("anonymous", authentication == "None"),
                ("psk", "PSK" in exchange + authentication or exchange == "SRP"),
                ("static", exchange == "RSA"),
                ("dhe", exchange == "DH"),
                ("rare", re.match(r"CAMELLIA|ARIA|AESCCM", encryption, re.IGNORECASE)),
                ("cbc", True),
            )
            if holds
        )
    classes = {number: name for name, numbers in SUITE_CLASSES.items() for number in numbers}
    # SRP without a certificate is both; a shared key is what OpenSSL does not call one.
    found = {number: classes[number] for number in expected}
    differing = {suite_name(n) for n in expected if found[n] != expected[n]}
    assert all("SRP" in name for name in differing), differing


def test_each_suite_is_in_one_class_or_in_the_profile():
    listed = [*PROFILE_12, *PROFILE_13, *TLS13_OTHERS]
    for numbers in SUITE_CLASSES.values():
        listed += numbers
    assert sorted(listed) == sorted(SUITES)
    assert all(SUITE_CLASSES.values())


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("DH_anon_EXPORT_WITH_RC4_40_MD5", "anonymous"),
        ("RSA_EXPORT1024_WITH_DES_CBC_SHA", "export"),
        ("ECDHE_RSA_WITH_RC4_128_SHA", "rc4"),
        ("RSA_WITH_DES_CBC_SHA", "des"),
        ("RSA_WITH_3DES_EDE_CBC_SHA", "triple_des"),
        ("ECDH_RSA_WITH_AES_128_GCM_SHA256", "static"),
        ("DHE_RSA_WITH_AES_128_GCM_SHA256", "dhe"),
        ("ECDHE_ECDSA_WITH_AES_128_CCM", "rare"),
        ("ECDHE_RSA_WITH_AES_128_CBC_SHA", "cbc"),
    ],
)
def test_the_worst_of_a_suite_is_its_class(name, found):
    assert suite_class(name) == found


def test_each_group_is_judged_once():
    listed = [*PROFILE_GROUPS, POST_QUANTUM, *OTHER_GROUPS, *WEAK_GROUPS]
    assert sorted(listed) == sorted(GROUPS)
    assert [group_name(n) for n in (*PROFILE_GROUPS, POST_QUANTUM)] == [
        "X25519", "prime256v1", "secp384r1", "X25519MLKEM768",
    ]  # fmt: skip
    assert {group_name(n) for n in (0x0016, 0x001A, 0x0100, 0x0001)} <= {
        group_name(n) for n in WEAK_GROUPS
    }
    assert group_name(0x0019) == "secp521r1"


def test_numbers_without_a_name_are_shown_as_numbers():
    assert (suite_name(0xFAFA), group_name(0xFAFA)) == ("0xFAFA", "0xFAFA")
