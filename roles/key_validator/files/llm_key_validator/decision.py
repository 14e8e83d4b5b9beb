# SPDX-License-Identifier: GPL-3.0-or-later
"""Identity: who sends this request, and may they, as a function of clock, request, registry.

The order of the checks is the point. Everything before the look-up depends on the request
alone, and so does the checksum of a key that is not there; everything else after it is only
reached with a key that really exists, or a certificate that does. So somebody without one gets
one answer, `unknown`, whatever the registry holds.

What is asked for is the mode's to say: a key (`api_key`), a certificate that nginx has verified
(`mtls`, keys are not looked at), both of one record, or either of them. In `either` all that is
shown must lead to one record, and key and certificate of a bound record go together only.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from .keys import ENDPOINT_CLASSES, Address, KeyRecord, has_key_shape, is_well_formed
from .registry import Registry

# What nginx says of a request: its id; then client address, endpoint class, method and path
_REQUEST_ID = re.compile(rb"[0-9a-f]{32}")
_ID_LENGTH = 32
_PLACE = re.compile(rb" ([0-9A-Fa-f.:]{2,45}) ([a-z]{1,20}) ([A-Z]{1,20}) (/[\x21-\x7e]{0,8191})")
# RFC 9110, 11.4: a scheme, spaces, and what we read as one token. Any second word is no key.
_BEARER = re.compile(rb"bearer +([^ \t]+)", re.IGNORECASE)
_PEM = re.compile(rb"\s*-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]+)-----END CERTIFICATE-----\s*")
_CLASSES = {name.encode(): name for name in ENDPOINT_CLASSES}
# Longer than any key: hashing or comparing more would only be work for an attacker
_MAX_CREDENTIAL = 4096


class Reason(Enum):
    """Why: the closed vocabulary of X-Auth-Reason, each with its HTTP status."""

    OK = ("ok", 204)
    MISSING = ("missing", 401)
    MALFORMED = ("malformed", 401)
    CONFLICT = ("conflict", 401)
    UNKNOWN = ("unknown", 401)
    EXPIRED = ("expired", 401)
    REVOKED = ("revoked", 401)
    NOT_YET_VALID = ("not_yet_valid", 401)
    NETWORK = ("network", 403)
    ENDPOINT_CLASS = ("endpoint_class", 403)
    CERTIFICATE = ("certificate", 403)
    CERTIFICATE_MISSING = ("certificate_missing", 403)
    CERTIFICATE_UNKNOWN = ("certificate_unknown", 403)
    CERTIFICATE_CONFLICT = ("certificate_conflict", 403)
    PEER = ("peer", 403)
    CONTEXT = ("context", 403)

    def __init__(self, word: str, status: int) -> None:
        self.word = word
        self.status = status


# As nginx words them for what /validate refuses (roles/gateway, $llm_auth_message)
MESSAGES = {
    Reason.MISSING: "An API key is required: Authorization: Bearer, or X-API-Key.",
    Reason.MALFORMED: "This is not an API key of this gateway.",
    Reason.CONFLICT: "Two different API keys were sent.",
    Reason.UNKNOWN: "A valid API key is required.",
    Reason.EXPIRED: "The API key has expired.",
    Reason.REVOKED: "The API key was revoked.",
    Reason.NOT_YET_VALID: "The API key is not valid yet.",
    Reason.NETWORK: "The API key may not be used from this address.",
    Reason.ENDPOINT_CLASS: "The API key may not use this endpoint.",
    Reason.CERTIFICATE: "The API key needs the client certificate that it is bound to.",
    Reason.CERTIFICATE_MISSING: "A client certificate is required.",
    Reason.CERTIFICATE_UNKNOWN: "The client certificate is not known here.",
    Reason.CERTIFICATE_CONFLICT: "The API key does not belong to this client certificate.",
    Reason.CONTEXT: "The request's headers cannot be read.",
}
# Whose record it is that is not good, or not for this
_HOLDERS = (
    *(Reason.EXPIRED, Reason.REVOKED, Reason.NOT_YET_VALID),
    *(Reason.NETWORK, Reason.ENDPOINT_CLASS),
)


def messages(auth: str) -> dict[Reason, str]:
    """Return the words for this mode: with certificates a client need not have a key."""
    if auth == "api_key":
        return MESSAGES
    words = dict(MESSAGES)
    for reason in _HOLDERS:
        words[reason] = words[reason].replace("The API key", "The client's record")
    if auth == "either":
        words[Reason.MISSING] = "An API key or a client certificate is required."
    return words


class Decision(NamedTuple):
    """A verdict. The record is there as soon as the client is one of ours, allowed or not."""

    reason: Reason
    record: KeyRecord | None = None

    @property
    def allowed(self) -> bool:
        """Only one reason lets a request through."""
        return self.reason is Reason.OK


@dataclass(slots=True)
class RequestHeaders:
    """What one request says that matters here, each header with all its occurrences."""

    authorization: Sequence[bytes] = ()
    x_api_key: Sequence[bytes] = ()
    # The ones that nginx sets, and overwrites if a client sent them. First the request as nginx
    # sees it, in one line: id, client address, endpoint class, method, path
    gateway_request: Sequence[bytes] = ()
    # What nginx counted the request under, in angle brackets: it may be empty or end in a space
    limit_key: Sequence[bytes] = ()
    # The client's certificate, if nginx verified one: percent-encoded PEM, a space, its subject
    client_certificate: Sequence[bytes] = ()
    # What the body is, and what it is packed in, as the client says
    content_type: Sequence[bytes] = ()
    content_encoding: Sequence[bytes] = ()


class Context(NamedTuple):
    """The request as nginx describes it, checked. A plain tuple: one is made for each."""

    request_id: str
    client: Address
    # The same as text, for records
    client_ip: str
    endpoint_class: str
    method: str
    path: str
    # SHA-256 of the client's certificate (DER), lower-case hex
    certificate: str | None = None
    # Its subject, for records: it decides nothing
    subject: str | None = None


class RefusalError(Exception):
    """Ends the judgement of one request with this reason."""

    def __init__(self, reason: Reason, record: KeyRecord | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.record = record


def decide(
    headers: RequestHeaders, registry: Registry | None, now: float, auth: str = "api_key"
) -> Decision:
    """Judge who sends a request at ``now`` (seconds since the epoch), without its body.

    Without a registry nobody is known. Never raises for anything a client can send.
    """
    try:
        context = parse_context(headers)
    except RefusalError as refusal:
        return _REFUSED[refusal.reason]
    return identify(headers, context, registry, now, auth)


def identify(
    headers: RequestHeaders,
    context: Context,
    registry: Registry | None,
    now: float,
    auth: str = "api_key",
) -> Decision:
    """Judge who sends the request that ``context`` describes. Never raises either."""
    try:
        record = _find(headers, context, registry, auth)
    except RefusalError as refusal:
        if refusal.record is None:
            return _REFUSED[refusal.reason]
        return Decision(refusal.reason, refusal.record)
    return Decision(judge_record(record, context, now), record)


def _find(
    headers: RequestHeaders, context: Context, registry: Registry | None, auth: str
) -> KeyRecord:
    """Return the one record that leads from all that counts in this mode. Raises RefusalError."""
    certificate = context.certificate
    if auth == "mtls":
        return _find_by_certificate(certificate, registry)
    if auth == "either" and certificate and not (headers.authorization or headers.x_api_key):
        record = _find_by_certificate(certificate, registry)
        if record.digest is not None and record.bound:
            raise RefusalError(Reason.MISSING, record)
        return record
    if auth == "both" and certificate is None:
        raise RefusalError(Reason.CERTIFICATE_MISSING)
    record = _find_by_key(headers, registry)
    if auth != "api_key" and certificate and certificate not in record.certificates:
        own = bool(record.certificates)
        raise RefusalError(Reason.CERTIFICATE if own else Reason.CERTIFICATE_CONFLICT, record)
    return record


def _find_by_certificate(certificate: str | None, registry: Registry | None) -> KeyRecord:
    if certificate is None:
        raise RefusalError(Reason.CERTIFICATE_MISSING)
    record = registry.find_certificate(certificate) if registry is not None else None
    if record is None:
        raise RefusalError(Reason.CERTIFICATE_UNKNOWN)
    return record


def _find_by_key(headers: RequestHeaders, registry: Registry | None) -> KeyRecord:
    key = read_credential(headers)
    check_limit_key(headers, key)
    if not has_key_shape(key):
        raise RefusalError(Reason.MALFORMED)
    record = registry.find(hashlib.sha256(key).digest()) if registry is not None else None
    if record is None:
        # Only now: a key of the registry's needs no checksum to be told from a typing error.
        raise RefusalError(Reason.UNKNOWN if is_well_formed(key) else Reason.MALFORMED)
    return record


def judge_record(record: KeyRecord, context: Context, now: float) -> Reason:
    """Say what the client that this record stands for may do here and now."""
    if record.revoked:
        return Reason.REVOKED
    if record.not_before is not None and now < record.not_before:
        return Reason.NOT_YET_VALID
    if record.expires is not None and now >= record.expires:
        return Reason.EXPIRED
    return _judge_place(record, context)


def _judge_place(record: KeyRecord, context: Context) -> Reason:
    if record.networks and not any(context.client in network for network in record.networks):
        return Reason.NETWORK
    if context.endpoint_class not in record.endpoint_classes:
        return Reason.ENDPOINT_CLASS
    if record.bound and record.certificates and context.certificate not in record.certificates:
        return Reason.CERTIFICATE
    return Reason.OK


def request_id_of(line: bytes) -> str:
    """Return the request id that a context line begins with, empty when there is none."""
    request_id = line[:_ID_LENGTH]
    return request_id.decode() if _REQUEST_ID.fullmatch(request_id) else ""


def parse_context(headers: RequestHeaders) -> Context:
    """Return what nginx says about the request; refuse when any of it is missing or odd."""
    line = only(headers.gateway_request)
    request_id = line[:_ID_LENGTH]
    place = _read_place(line[_ID_LENGTH:])
    if place is None or _REQUEST_ID.fullmatch(request_id) is None:
        raise RefusalError(Reason.CONTEXT)
    if not headers.client_certificate or headers.client_certificate == (b"",):
        return Context(request_id.decode(), *place)
    return Context(request_id.decode(), *place, *read_certificate(only(headers.client_certificate)))


@lru_cache(maxsize=512)
def _read_place(text: bytes) -> tuple[Address, str, str, str, str] | None:
    """Return client (twice), class, method and path; None when they are not what nginx writes."""
    match = _PLACE.fullmatch(text)
    if match is None:
        return None
    client = read_client(match[1])
    endpoint_class = _CLASSES.get(match[2])
    if client is None or endpoint_class is None:
        return None
    return *client, endpoint_class, match[3].decode(), match[4].decode()


def only(values: Sequence[bytes]) -> bytes:
    """Return the one value of a header that nginx sets; refuse none and several."""
    if len(values) != 1:
        raise RefusalError(Reason.CONTEXT)
    return values[0]


@lru_cache(maxsize=1024)
def read_certificate(shown: bytes) -> tuple[str, str | None]:
    """Return fingerprint and subject ($ssl_client_escaped_cert and $ssl_client_s_dn in nginx)."""
    escaped, _space, subject = shown.partition(b" ")
    match = _PEM.fullmatch(unquote_to_bytes(escaped))
    try:
        der = b64decode(b"".join(match[1].split()), validate=True)  # type: ignore[index]
        return hashlib.sha256(der).hexdigest(), subject.decode("ascii") or None
    except (TypeError, ValueError):
        raise RefusalError(Reason.CONTEXT) from None


@lru_cache(maxsize=4096)
def read_client(text: bytes) -> tuple[Address, str] | None:
    """Return a client's address and how it is written in records; None if it is none."""
    address = parse_address(text)
    return (address, str(address)) if address is not None else None


def parse_address(text: bytes) -> Address | None:
    """Return the address, IPv4 in IPv6's clothes (::ffff:10.0.0.1) as IPv4; None if none."""
    try:
        address = ipaddress.ip_address(text.decode("ascii"))
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.scope_id is not None:
            return None
        return address.ipv4_mapped or address
    return address


def read_credential(headers: RequestHeaders) -> bytes:
    """Return the one key text the request carries.

    Two different ones are refused, wherever they stand: which of them counts would be for
    this service and the one behind it to disagree about.
    """
    if not headers.x_api_key and len(headers.authorization) == 1:
        return _bearer_token(headers.authorization[0])
    if not headers.authorization and not headers.x_api_key:
        raise RefusalError(Reason.MISSING)
    found = {_bearer_token(value) for value in headers.authorization}
    found.update(value.strip(b" \t") for value in headers.x_api_key)
    if len(found) > 1:
        raise RefusalError(Reason.CONFLICT)
    return found.pop()


def check_limit_key(headers: RequestHeaders, key: bytes) -> None:
    """Refuse a spelling of the key under which nginx would count it anew.

    nginx limits by the text of the header. `Bearer  KEY`, a tab or a repeated header would each
    have an allowance of their own.
    """
    spellings = (b"<%b>" % key, b"<Bearer %b>" % key, b"<bearer %b>" % key)
    if headers.limit_key and only(headers.limit_key) not in spellings:
        raise RefusalError(Reason.MALFORMED)


def _bearer_token(value: bytes) -> bytes:
    value = value.strip(b" \t")
    match = _BEARER.fullmatch(value) if len(value) <= _MAX_CREDENTIAL else None
    if match is None:
        raise RefusalError(Reason.MALFORMED)
    return match[1]


# A refusal before the look-up carries nothing but its reason: one object each is enough.
_REFUSED = {reason: Decision(reason) for reason in Reason if reason is not Reason.OK}
