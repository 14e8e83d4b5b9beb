# SPDX-License-Identifier: GPL-3.0-or-later
"""Each check with the answers of a good server, of a bad one, and without an answer."""

from __future__ import annotations

import dataclasses
import datetime

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.controls import CONTROLS
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_checks import tls_findings
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe import verdicts
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.client_hello import (
    ALPN,
    EXTENDED_MASTER_SECRET,
    HEARTBEAT,
    RENEGOTIATION_INFO,
    SESSION_TICKET,
    TLS12,
    TLS13,
    alpn,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.numbers import (
    PROFILE_12,
    PROFILE_13,
    PROFILE_GROUPS,
    SUITE_CLASSES,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.server_reply import Reply
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.survey import (
    VERSIONS,
    Answers,
    NotMeasuredError,
    Stranger,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.verdicts import Wishes
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.visit import Visit
from ansible_collections.llmsec.hardening.plugins.module_utils.tls_probe.x509 import Certificate

NOW = datetime.datetime(2026, 11, 25, 12, tzinfo=datetime.UTC)
WISHES = Wishes("llm.test", "intermediate", "none", NOW)
HSTS = {"strict-transport-security": "max-age=63072000"}
REFUSED = Reply(alert=40)
LEAF = Certificate(
    ("DNS:llm.test",), NOW - datetime.timedelta(hours=1), NOW + datetime.timedelta(days=365),
    "EC", 256, "ECDSA with SHA-256", False,
)  # fmt: skip
# What the certificates of the pretended server hold, by their DER
SHOWN: dict[bytes, Certificate] = {}


@pytest.fixture(autouse=True)
def _certificates(monkeypatch):
    SHOWN.clear()
    SHOWN[b"leaf"] = LEAF
    monkeypatch.setattr(verdicts, "read_certificate", SHOWN.__getitem__)


def features(**changes):
    wanted = {RENEGOTIATION_INFO: b"\x00", EXTENDED_MASTER_SECRET: b""}
    return Reply(**{"version": TLS12, "extensions": wanted, **changes})


def extended(*numbers):
    return features(extensions={**features().extensions, **dict.fromkeys(numbers, b"")})


def visit(**changes):
    seen = {"version": "TLSv1.3", "chain": (b"leaf",), "asks_certificate": False, "status": 404}
    return Visit(**{**seen, "headers": HSTS, **changes})


def good():
    """Return the answers of a hardened gateway."""
    told = visit()
    accepted = Reply(version=TLS12, certificates=(b"leaf",))
    answers = {
        "handshake": Reply(version=TLS13),
        "visit.tls12": (told, False),
        "visit.tls13": (told, False),
        "groups.profile": [*PROFILE_GROUPS],
        "order": [0x1301, 0x1302],
        "suites.tls13_profile": [*PROFILE_13],
        "features": features(),
        "fallback": Reply(alert=86),
        "compression": Reply(version=TLS12),
        "alpn": Visit(),
        "plain_http": 400,
        "unknown_name": Stranger(Reply(alert=112)),
        "no_name": Stranger(Reply(alert=112)),
        "verified": "",
        "http_port": (None, "Connection refused"),
    }
    empty = ("suites.tls13_other", "groups.weak12", "groups.weak13", "groups.other12",
             "groups.other13", "groups.post_quantum")  # fmt: skip
    answers |= {name: [] for name in empty}
    answers |= {f"suites.{name}": [] for name in SUITE_CLASSES}
    answers |= {f"version.{name}": name in ("tls12", "tls13") for name in VERSIONS}
    answers |= {f"suite12.{number:04X}": REFUSED for number in PROFILE_12}
    return answers | {"suite12.C02B": accepted}


def modern():
    """Return the answers of a gateway of the profile modern."""
    off = dict.fromkeys(("features", "fallback", "compression"), REFUSED)
    off |= {f"suite12.{number:04X}": REFUSED for number in PROFILE_12}
    return good() | off | {"version.tls12": False, "visit.tls12": (Visit(refusal="x"), False)}


def found(answers, **wishes):
    return {
        one["id"]: one
        for one in tls_findings(Answers(answers), dataclasses.replace(WISHES, **wishes))
    }


def results(answers, **wishes):
    return {name: one["result"] for name, one in found(answers, **wishes).items()}


def both(**changes):
    """Return the visits of both versions with these changes."""
    return {name: (visit(**changes), False) for name in ("visit.tls12", "visit.tls13")}


def certificate(**changes):
    return dataclasses.replace(LEAF, **changes)


def test_a_hardened_gateway_is_green():
    told = results(good())
    skipped = {
        "tls.groups.post_quantum", "tls.sessions.resumption", "tls.certificate.ecdsa",
        "tls.client_certificate.required",
    }  # fmt: skip
    assert {name for name, result in told.items() if result == "skip"} == skipped
    assert {result for name, result in told.items() if name not in skipped} == {"pass"}


def test_so_is_one_of_the_profile_modern():
    lifetime = {"end": NOW + datetime.timedelta(days=90)}
    SHOWN[b"leaf"] = certificate(**lifetime)
    told = results(modern(), profile="modern")
    assert {*told.values()} == {"pass", "skip"}
    assert told["tls.version.tls12"] == told["tls.certificate.ecdsa"] == "pass"


def test_and_one_with_client_certificates():
    refusal = b'{"error":{"message":"A client certificate is required."}}'
    asked = both(asks_certificate=True, status=403, body=refusal)
    answers = good() | asked | {"features": features(asks_certificate=True)}
    told = found(answers, client_certificate="required")
    assert {one["result"] for one in told.values()} == {"pass", "skip"}
    for name in ("client_certificate.asked", "client_certificate.required", "sessions.resumption"):
        assert told[f"tls.{name}"]["result"] == "pass"
        assert told[f"tls.{name}"]["control"] == "mtls"


def test_what_is_not_wanted_is_skipped_with_a_reason():
    answers = good()
    del answers["verified"], answers["http_port"]
    told = found(answers | both(headers={}), hsts=False)
    for name in ("tls.certificate.chain", "tls.http_port", "tls.hsts"):
        assert told[name]["result"] == "skip"
        assert told[name]["actual"]


def test_findings_have_known_controls_and_stable_ids():
    told = found(good())
    assert len(told) == len(tls_findings(Answers(good()), WISHES))
    assert {one["control"] for one in told.values()} <= {*CONTROLS}
    assert [*told] == [*found(modern(), profile="modern", client_certificate="required")]
    assert all(name.startswith("tls.") for name in told)


# Check, what changes in the answers, in the wishes, in the certificate
RED = [
    ("handshake", {"version.tls12": False, "version.tls13": False}, {}, {}),
    ("version.ssl2", {"version.ssl2": True}, {}, {}),
    ("version.ssl3", {"version.ssl3": True}, {}, {}),
    ("version.tls10", {"version.tls10": True}, {}, {}),
    ("version.tls11", {"version.tls11": True}, {}, {}),
    ("version.tls12", {"version.tls12": False}, {}, {}),
    ("version.tls12", {}, {"profile": "modern"}, {}),
    ("version.tls13", {"version.tls13": False}, {}, {}),
    *(
        (f"suites.{name}", {f"suites.{name}": [numbers[0]]}, {}, {})
        for name, numbers in SUITE_CLASSES.items()
    ),
    ("suites.tls12_profile", {"suite12.C02B": REFUSED}, {}, {}),
    ("suites.tls13_profile", {"suites.tls13_profile": []}, {}, {}),
    ("suites.tls13_other", {"suites.tls13_other": [0x1305]}, {}, {}),
    ("suites.order", {"order": [0x1302, 0x1302]}, {}, {}),
    ("groups.profile", {"groups.profile": [0x0017, 0x0018]}, {}, {}),
    ("groups.post_quantum", {}, {"post_quantum": True}, {}),
    ("groups.weak", {"groups.weak12": [0x0016]}, {}, {}),
    ("groups.weak", {"groups.weak13": [0x0100]}, {}, {}),
    ("groups.other", {"groups.other12": [0x0019]}, {}, {}),
    ("groups.other", {"groups.other13": [0x11EB]}, {}, {}),
    ("compression", {"compression": Reply(version=TLS12, compression=1)}, {}, {}),
    ("renegotiation", {"features": features(extensions={})}, {}, {}),
    ("extended_master_secret", {"features": features(extensions={})}, {}, {}),
    ("heartbeat", {"features": extended(HEARTBEAT)}, {}, {}),
    ("fallback", {"fallback": Reply(version=TLS12)}, {}, {}),
    ("http2", {"alpn": Visit(alpn="h2")}, {}, {}),
    ("http2", {"features": features(extensions={ALPN: alpn("h2")})}, {}, {}),
    ("sessions.tickets", {"features": extended(SESSION_TICKET)}, {}, {}),
    ("sessions.tickets", {"visit.tls13": (visit(ticket=200), False)}, {}, {}),
    *(
        ("sessions.resumption", changes, {"client_certificate": how}, {})
        for how in ("required", "optional")
        for changes in (
            {"features": extended(SESSION_TICKET)},
            {"features": features(session_id=b"id")},
            {"visit.tls12": (visit(), True)},
            {"visit.tls13": (visit(), True)},
        )
    ),
    ("early_data", {"visit.tls13": (visit(early_data=16384), False)}, {}, {}),
    ("certificate.name", {}, {}, {"names": ("DNS:other.test",)}),
    ("certificate.name", {}, {}, {"names": ()}),
    ("certificate.name", {}, {"server_name": "192.0.2.1"}, {}),
    ("certificate.expiry", {}, {}, {"end": NOW + datetime.timedelta(days=13)}),
    ("certificate.expiry", {}, {}, {"end": NOW - datetime.timedelta(days=1)}),
    ("certificate.expiry", {}, {}, {"start": NOW + datetime.timedelta(days=1)}),
    ("certificate.lifetime", {}, {}, {"end": NOW + datetime.timedelta(days=397)}),
    ("certificate.lifetime", {}, {"profile": "modern"}, {}),
    ("certificate.lifetime", {}, {"certificate_days": 30}, {}),
    ("certificate.key", {}, {}, {"key": "RSA", "bits": 1024}),
    ("certificate.key", {}, {}, {"bits": 224}),
    ("certificate.key", {}, {}, {"key": "EC secp256k1"}),
    ("certificate.key", {}, {}, {"key": "DSA", "bits": 0}),
    ("certificate.ecdsa", {}, {"profile": "modern"}, {"key": "RSA", "bits": 3072}),
    ("certificate.signature", {}, {}, {"signature": "ECDSA with SHA-1"}),
    ("certificate.signature", {}, {}, {"signature": "RSA with MD5"}),
    ("certificate.signature", {}, {}, {"signature": "RSA-PSS with SHA-1"}),
    ("certificate.self_signed", {}, {}, {"self_issued": True}),
    ("certificate.chain", {"verified": "unable to get local issuer certificate"}, {}, {}),
    ("unknown_name", {"unknown_name": Stranger(Reply(version=TLS13), visit())}, {}, {}),
    ("no_name", {"no_name": Stranger(Reply(version=TLS13), visit(status=None))}, {}, {}),
    ("no_name", {"no_name": Stranger(Reply(version=TLS13), visit())}, {"refuses_names": False}, {}),
    ("plain_http", {"plain_http": 200}, {}, {}),
    ("plain_http", {"plain_http": 301}, {}, {}),
    ("http_port", {"http_port": (200, "")}, {}, {}),
    ("http_port", {"http_port": (301, "http://llm.test/")}, {}, {}),
    ("http_port", {"http_port": (0, "something that is no HTTP")}, {}, {}),
    ("client_certificate.asked", {}, {"client_certificate": "required"}, {}),
    ("client_certificate.asked", {}, {"client_certificate": "optional"}, {}),
    (
        "client_certificate.asked", {"features": features(asks_certificate=True)},
        {"client_certificate": "optional"}, {},
    ),
    ("client_certificate.asked", both(asks_certificate=True), {}, {}),
    ("client_certificate.required", {}, {"client_certificate": "required"}, {}),
    (
        "client_certificate.required", both(status=403, body=b"no such key"),
        {"client_certificate": "required"}, {},
    ),
    ("hsts", both(headers={}), {}, {}),
    ("hsts", both(headers={"strict-transport-security": "max-age=300"}), {}, {}),
]  # fmt: skip


@pytest.mark.parametrize(("check", "answers", "wishes", "shown"), RED)
def test_each_fault_turns_its_own_check_red(check, answers, wishes, shown):
    SHOWN[b"leaf"] = certificate(**shown)
    one = found(good() | answers, **wishes)[f"tls.{check}"]
    assert one["result"] == "fail"
    assert one["remediation"]
    assert one["actual"]


def test_every_check_is_among_those_that_turn_red():
    assert {f"tls.{check}" for check, *_rest in RED} == {*found(good())}


@pytest.mark.parametrize("name", [name for name in good() if name != "visit.tls12"])
def test_an_answer_that_is_not_there_is_an_error_and_never_a_pass(name):
    before = results(good(), client_certificate="required")
    answers = good() | {name: NotMeasuredError("it went away")}
    told = found(answers, client_certificate="required")
    errors = [one for one in told.values() if one["result"] == "error"]
    assert errors
    assert all("it went away" in one["actual"] for one in errors)
    others = {one["id"]: one["result"] for one in told.values() if one["result"] != "error"}
    assert others == {check: before[check] for check in others}


def test_no_answer_at_all_is_no_pass():
    gone = dict.fromkeys(good(), NotMeasuredError("Connection refused"))
    told = found(gone, client_certificate="required", profile="modern", post_quantum=True)
    assert {one["result"] for one in told.values()} == {"error"}


def test_a_certificate_that_cannot_be_read_is_an_error(monkeypatch):
    monkeypatch.undo()
    told = results(good())
    for name in ("name", "expiry", "lifetime", "key", "signature", "self_signed"):
        assert told[f"tls.certificate.{name}"] == "error"


@pytest.mark.parametrize("signature", ["1.2.3.4", "RSA-PSS with 1.2.3"])
def test_an_unknown_signature_is_an_error(signature):
    SHOWN[b"leaf"] = certificate(signature=signature)
    assert results(good())["tls.certificate.signature"] == "error"


@pytest.mark.parametrize("answers", [both(status=None), both(status=429), both(status=503)])
def test_whoever_does_not_answer_properly_has_not_refused(answers):
    told = found(good() | answers, client_certificate="required")
    assert told["tls.client_certificate.required"]["result"] == "error"


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_busy_server_has_not_refused_plain_http(status):
    assert results(good() | {"plain_http": status})["tls.plain_http"] == "error"


def test_hsts_without_an_answer_is_not_measured():
    assert results(good() | both(status=None, headers={}))["tls.hsts"] == "error"


def test_a_python_that_shows_no_messages_measures_less():
    told = results(good() | {"visit.tls13": (visit(asks_certificate=None), False)})
    assert told["tls.client_certificate.asked"] == told["tls.early_data"] == "error"


@pytest.mark.parametrize(
    ("answers", "wishes", "check"),
    [
        ({"plain_http": None}, {}, "plain_http"),
        ({"http_port": (301, "https://llm.test/")}, {}, "http_port"),
        (
            {"no_name": Stranger(Reply(version=TLS13), visit(status=None))},
            {"refuses_names": False}, "no_name",
        ),
        (
            {"unknown_name": Stranger(Reply(version=TLS13), Visit(refusal="TLSV1_ALERT"))},
            {}, "unknown_name",
        ),
        ({"groups.post_quantum": [0x11EC]}, {"post_quantum": True}, "groups.post_quantum"),
        (
            both(refusal="TLSV13_ALERT_CERTIFICATE_REQUIRED"),
            {"client_certificate": "required"}, "client_certificate.required",
        ),
        (
            both(status=400, body=b"<center>No required SSL certificate was sent</center>"),
            {"client_certificate": "required"}, "client_certificate.required",
        ),
    ],
)  # fmt: skip
def test_other_ways_to_be_green(answers, wishes, check):
    assert results(good() | answers, **wishes)[f"tls.{check}"] == "pass"


def test_both_certificates_of_a_server_are_looked_at():
    SHOWN[b"rsa"] = certificate(key="RSA", bits=1024)
    second = {"suite12.C02F": Reply(version=TLS12, certificates=(b"rsa",))}
    one = found(good() | second)["tls.certificate.key"]
    assert (one["result"], one["actual"]) == ("fail", "RSA of 1024 bits")


@pytest.mark.parametrize(
    ("check", "changes"),
    [
        ("signature", {"signature": "RSA with SHA-1"}),
        ("key", {"key": "RSA", "bits": 1024}),
        ("expiry", {"end": NOW}),
    ],
)
def test_the_chain_is_looked_at_without_its_root(check, changes):
    chain = {"suite12.C02B": Reply(version=TLS12, certificates=(b"leaf", b"issuer"))}
    SHOWN[b"issuer"] = certificate(**changes)
    one = found(good() | chain)[f"tls.certificate.{check}"]
    assert one["result"] == "fail"
    assert one["actual"].startswith("certificate 2 of the chain: ")
    SHOWN[b"issuer"] = certificate(**changes, self_issued=True)
    assert results(good() | chain)[f"tls.certificate.{check}"] == "pass"


@pytest.mark.parametrize("days", [366, 366 + 1 / 24])
def test_certificates_may_be_dated_back_by_an_hour(days):
    SHOWN[b"leaf"] = certificate(end=LEAF.start + datetime.timedelta(days=days))
    assert results(good())["tls.certificate.lifetime"] == "pass"


def test_a_wildcard_names_the_server():
    SHOWN[b"leaf"] = certificate(names=("DNS:*.llm.test",))
    assert results(good(), server_name="a.llm.test")["tls.certificate.name"] == "pass"
    assert results(good(), server_name="a.b.llm.test")["tls.certificate.name"] == "fail"


def test_a_name_that_no_certificate_can_carry_is_an_error():
    assert results(good(), server_name="a b")["tls.certificate.name"] == "error"


def test_asking_without_need_is_a_small_fault():
    one = found(good() | both(asks_certificate=True))["tls.client_certificate.asked"]
    assert (one["result"], one["severity"]) == ("fail", "low")
