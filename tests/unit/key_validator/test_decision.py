# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may pass: each reason once, then what a stranger must not be able to find out."""

from __future__ import annotations

import hashlib
import typing as t

import pytest
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator import keys
from llm_key_validator.config import AUTH_MODES
from llm_key_validator.decision import Reason, RequestHeaders, decide, parse_address
from llm_key_validator.registry import Registry, load_registry

from .conftest import NOW, gateway_request, headers, record, registry_text

KEY = keys.generate_key()
OTHER = keys.generate_key()
BEARER = b"Bearer " + KEY.encode()
LAST_CHARACTER = "A" if KEY[-1] != "A" else "B"


def registry(**fields: t.Any) -> Registry:
    return load_registry(registry_text(record(KEY, **fields)))


def reason(request: RequestHeaders, known: Registry | None = None, now: float = NOW) -> Reason:
    return decide(request, registry() if known is None else known, now).reason


@pytest.mark.parametrize(
    "credentials",
    [
        {"authorization": BEARER},
        {"authorization": b"bEaReR   " + KEY.encode() + b" "},
        {"x_api_key": KEY.encode()},
        {"x_api_key": b" " + KEY.encode() + b"\t"},
        {"authorization": BEARER, "x_api_key": KEY.encode()},
        {"x_api_key": (KEY.encode(), KEY.encode())},
    ],
)
def test_a_good_key_passes_wherever_it_stands(credentials: dict[str, t.Any]) -> None:
    decision = decide(headers(**credentials), registry(), NOW)
    assert decision.allowed
    assert decision.record is not None
    assert decision.record.id == "app1"


@pytest.mark.parametrize(
    ("credentials", "expected"),
    [
        ({}, Reason.MISSING),
        ({"authorization": b"Basic dXNlcjpwYXNz"}, Reason.MALFORMED),
        ({"authorization": b"Basic dXNlcjpwYXNz", "x_api_key": KEY.encode()}, Reason.MALFORMED),
        ({"authorization": KEY.encode()}, Reason.MALFORMED),
        ({"authorization": b""}, Reason.MALFORMED),
        ({"authorization": b"Bearer"}, Reason.MALFORMED),
        ({"authorization": b"Bearer "}, Reason.MALFORMED),
        ({"authorization": BEARER + b", " + BEARER}, Reason.MALFORMED),
        ({"authorization": b"Bearer " + b"a" * 9000}, Reason.MALFORMED),
        ({"x_api_key": b""}, Reason.MALFORMED),
        ({"x_api_key": b"llmk_"}, Reason.MALFORMED),
        ({"x_api_key": (KEY[:-1] + LAST_CHARACTER).encode()}, Reason.MALFORMED),
        ({"x_api_key": KEY.encode() + b"\n"}, Reason.MALFORMED),
        ({"x_api_key": b"\xff\xfe\x00"}, Reason.MALFORMED),
        ({"authorization": BEARER, "x_api_key": OTHER.encode()}, Reason.CONFLICT),
        ({"x_api_key": (KEY.encode(), OTHER.encode())}, Reason.CONFLICT),
        ({"authorization": (BEARER, b"Bearer " + OTHER.encode())}, Reason.CONFLICT),
        ({"x_api_key": OTHER.encode()}, Reason.UNKNOWN),
    ],
)
def test_credentials_that_do_not_pass(credentials: dict[str, t.Any], expected: Reason) -> None:
    assert reason(headers(**credentials)) is expected


def test_a_password_is_no_key_even_if_its_digest_is_in_the_registry() -> None:
    weak = load_registry(registry_text({**record(KEY), "sha256": keys.key_digest("secret")}))
    assert reason(headers(x_api_key=b"secret"), weak) is Reason.MALFORMED


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"revoked": True}, Reason.REVOKED),
        ({"revoked": True, "expires": "2020-01-01"}, Reason.REVOKED),
        ({"expires": "2026-11-23"}, Reason.EXPIRED),
        ({"expires": "2026-11-23T00:00:01Z"}, Reason.OK),
        ({"not_before": "2026-11-23"}, Reason.OK),
        ({"not_before": "2026-11-23T00:00:01Z"}, Reason.NOT_YET_VALID),
        ({"networks": ["10.0.2.0/24", "2001:db8::/32"]}, Reason.NETWORK),
        ({"networks": ["10.0.2.0/24", "10.0.1.5"]}, Reason.OK),
        ({"networks": ["10.0.2.0/24"], "endpoint_classes": ["read"]}, Reason.NETWORK),
        ({"endpoint_classes": ["read"]}, Reason.ENDPOINT_CLASS),
    ],
)
def test_records_are_enforced(fields: dict[str, t.Any], expected: Reason) -> None:
    decision = decide(headers(authorization=BEARER), registry(**fields), NOW)
    assert decision.reason is expected
    assert decision.record is not None


@pytest.mark.parametrize(
    ("address", "network", "allowed"),
    [
        (b"::ffff:10.0.1.5", "10.0.1.0/24", True),
        (b"10.0.1.5", "::/0", False),
        (b"2001:db8::1", "2001:db8::/32", True),
        (b"2001:db8::1", "0.0.0.0/0", False),
    ],
)
def test_networks_across_address_families(address: bytes, network: str, allowed: bool) -> None:
    request = headers(authorization=BEARER, client_address=address)
    assert decide(request, registry(networks=[network]), NOW).allowed is allowed


def test_no_key_opens_account_routes() -> None:
    everything = registry(endpoint_classes=list(keys.GRANTABLE_CLASSES))
    request = headers(authorization=BEARER, endpoint_class=b"account")
    assert reason(request, everything) is Reason.ENDPOINT_CLASS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gateway_request", ()),
        ("gateway_request", b""),
        ("gateway_request", (gateway_request(), gateway_request())),
        ("gateway_request", gateway_request() + b" "),
        ("gateway_request", gateway_request().replace(b" ", b"  ", 1)),
        ("gateway_request", gateway_request()[1:]),
        ("gateway_request", gateway_request().partition(b" ")[2]),
        ("request_id", b"0123"),
        ("request_id", b"a" * 33),
        ("client_address", b"unix:"),
        ("client_address", b"10.0.1"),
        ("client_address", b"fe80::1%eth0"),
        ("client_address", b""),
        ("endpoint_class", b"admin"),
        ("endpoint_class", b""),
        ("method", b"post"),
        ("method", b""),
        ("path", b"api/chat"),
        ("path", b"/a\r\nb"),
        ("path", b"/a b"),
        ("path", b""),
    ],
)
def test_without_nginx_context_even_a_good_key_is_refused(name: str, value: t.Any) -> None:
    assert reason(headers(authorization=BEARER, **{name: value})) is Reason.CONTEXT


def test_without_a_registry_everybody_is_unknown() -> None:
    assert decide(headers(authorization=BEARER), None, NOW).reason is Reason.UNKNOWN


def test_addresses_are_not_read_generously() -> None:
    assert parse_address(b"010.0.0.1") is None
    assert parse_address(b"1") is None
    assert parse_address(b"10.0.0.1\n") is None


VALUES = st.lists(
    st.one_of(st.binary(max_size=80), st.sampled_from([BEARER, OTHER.encode(), b"Bearer x"])),
    max_size=3,
)
STATES = st.sampled_from(
    [
        {},
        {"revoked": True},
        {"expires": "2020-01-01"},
        {"not_before": "2030-01-01"},
        {"networks": ["192.0.2.0/24"]},
    ]
)


@pytest.mark.parametrize(
    ("counted", "expected"),
    [
        (b"<Bearer KEY>", Reason.OK),
        (b"<bearer KEY>", Reason.OK),
        (b"<KEY>", Reason.OK),
        (b"<BEARER KEY>", Reason.MALFORMED),
        (b"<Bearer  KEY>", Reason.MALFORMED),
        (b"<Bearer KEY\t>", Reason.MALFORMED),
        (b"<\tKEY>", Reason.MALFORMED),
        (b"<KEY, KEY>", Reason.MALFORMED),
        (b"<>", Reason.MALFORMED),
        (b"KEY", Reason.MALFORMED),
    ],
)
def test_a_spelling_that_nginx_counts_anew(counted: bytes, expected: Reason) -> None:
    counted = counted.replace(b"KEY", KEY.encode())
    assert reason(headers(authorization=BEARER, limit_key=counted)) is expected


@given(st.fixed_dictionaries(dict.fromkeys(RequestHeaders.__slots__, VALUES)))
def test_whatever_is_sent_there_is_one_verdict(values: dict[str, list[bytes]]) -> None:
    decision = decide(RequestHeaders(**values), registry(), NOW)
    assert decision.reason in Reason
    assert not decision.allowed or BEARER in values["authorization"]


CERTIFICATE = hashlib.sha256(b"abc").hexdigest()
PEM = b"-----BEGIN%20CERTIFICATE-----%0AYWJj%0A-----END%20CERTIFICATE-----%0A"
SHOWN = PEM + b" CN=client"
CLIENT = {"id": "client", "owner": "Team", "certificate_sha256": CERTIFICATE}


@given(
    st.sampled_from(AUTH_MODES),
    st.fixed_dictionaries(
        {"authorization": VALUES, "x_api_key": VALUES, "client_certificate": VALUES}
    ),
    st.sampled_from([(), (SHOWN,), (b"",), (SHOWN, SHOWN)]),
)
def test_nobody_gets_in_with_less_than_the_mode_asks_for(
    auth: str, values: dict[str, list[bytes]], certificate: tuple[bytes, ...]
) -> None:
    """One record has the key and another one the certificate."""
    known = load_registry(registry_text(record(KEY), CLIENT))
    request = headers(**{**values, "client_certificate": certificate})
    decision = decide(request, known, NOW, auth)
    if decision.allowed:
        keyed, certified = BEARER in values["authorization"], certificate == (SHOWN,)
        assert {
            "api_key": keyed,
            "mtls": certified,
            "both": False,
            "either": keyed != certified,
        }[auth]


@pytest.mark.parametrize(
    ("auth", "bound", "let_in"),
    [
        ("api_key", True, {"key and certificate"}),
        ("api_key", False, {"key", "key and certificate"}),
        ("mtls", False, {"certificate", "key and certificate"}),
        ("both", True, {"key and certificate"}),
        ("both", False, {"key and certificate"}),
        ("either", True, {"key and certificate"}),
        ("either", False, {"key", "certificate", "key and certificate"}),
    ],
)
def test_a_client_with_a_key_and_a_certificate(auth: str, bound: bool, let_in: set[str]) -> None:
    known = registry(certificate_sha256=CERTIFICATE, bound=bound)
    shown = {
        "nothing": headers(),
        "key": headers(authorization=BEARER),
        "certificate": headers(client_certificate=SHOWN),
        "key and certificate": headers(authorization=BEARER, client_certificate=SHOWN),
    }
    allowed = {name for name, request in shown.items() if decide(request, known, NOW, auth).allowed}
    assert allowed == let_in


@given(authorization=VALUES, x_api_key=VALUES, state=STATES)
def test_a_stranger_learns_nothing_about_keys(
    authorization: list[bytes], x_api_key: list[bytes], state: dict[str, t.Any]
) -> None:
    """Without the key, the answer is the same whatever is registered, even nothing."""
    authorization = [value for value in authorization if value != BEARER]
    request = headers(authorization=authorization, x_api_key=x_api_key)
    assert reason(request, registry(**state)) is reason(request, load_registry(registry_text()))


@given(st.binary(max_size=60))
def test_only_real_keys_are_well_formed(noise: bytes) -> None:
    assert not keys.is_well_formed(noise)
    assert not keys.is_well_formed(KEY.encode() + noise) or noise == b""
