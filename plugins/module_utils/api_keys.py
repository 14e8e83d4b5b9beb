# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""API keys of the gateway: their text, their checksum, and the record that stands for a client.

One file serves two programs, so that both judge alike: the module ``api_key`` on the control
node, and the key validator on the host, where it is installed as ``llm_key_validator/keys.py``
(a symbolic link in the role). Standard library only; no input or output.

A key is ``llmk_`` + 40 random base62 characters (238 bits) + 6 base62 digits of CRC-32 over
everything before them. The checksum tells a typing error from a stranger without a look-up,
and lets secret scanners find keys without false alarms. It is no protection against forgery.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
import secrets
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Union

# `X | Y` outside annotations is more than ansible-test's pylint understands.
Address = Union[IPv4Address, IPv6Address]  # noqa: UP007
Network = Union[IPv4Network, IPv6Network]  # noqa: UP007

KEY_PREFIX = "llmk_"
BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
RANDOM_LENGTH = 40
CHECKSUM_LENGTH = 6  # 62**6 > 2**32: every CRC-32 fits
# All pairs of digits, in order: a checksum is three of them.
_PAIRS = tuple(first + second for first in BASE62 for second in BASE62)
_BODY_LENGTH = len(KEY_PREFIX) + RANDOM_LENGTH
KEY_LENGTH = _BODY_LENGTH + CHECKSUM_LENGTH

# What a key may be good for. `account` exists as a class of routes, never as a permission.
GRANTABLE_CLASSES = ("inference", "read", "inspect", "management")
ENDPOINT_CLASSES = (*GRANTABLE_CLASSES, "account")
DEFAULT_CLASSES = ("inference", "read")

_KEY_SHAPE = re.compile(rb"llmk_[0-9A-Za-z]{46}")
_ID_SHAPE = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_SHA256_SHAPE = re.compile(r"[0-9a-f]{64}")
# RFC 3339, UTC, whole seconds; `+00:00` is what YAML loaders make of an unquoted `...Z`.
_INSTANT_SHAPE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:T(\d\d):(\d\d):(\d\d)(?:Z|\+00:00))?", re.ASCII
)
# Models as Ollama names them, any part with wildcards. What this takes, the validator can compile.
_GLOB_SHAPE = re.compile(
    r"(?=.{1,256}\Z)(?:(?:[a-z0-9_*?][a-z0-9_.:*?-]{0,349}/)?[a-z0-9_*?][a-z0-9_*?-]{0,79}/)?"
    r"[a-z0-9_*?][a-z0-9_.*?-]{0,79}(?::[a-z0-9_*?][a-z0-9_.*?-]{0,79})?",
    re.ASCII | re.IGNORECASE,
)
_GLOB_RULE = "must be [[host/]namespace/]model[:tag], 1 to 256 characters with * and ? as wildcards"
_OWNER_LENGTH = 128
_MAX_NETWORKS = 256
# One in use, the next one, and some that were forgotten
_MAX_CERTIFICATES = 8
_MAX_GLOBS = 256
_FIELDS = frozenset(
    (
        *("id", "sha256", "owner", "not_before", "expires", "revoked"),
        *("networks", "certificate_sha256", "bound", "endpoint_classes", "models", "tier"),
    )
)


class RecordError(ValueError):
    """A key record is not acceptable.

    ``where`` names the record (``keys[3]``), ``field`` the offending part. The text never
    repeats a value: people paste whole keys into the wrong field.
    """

    def __init__(self, where: str, field_name: str, problem: str) -> None:
        self.where = where
        self.field = field_name
        self.problem = problem
        path = f"{where}.{field_name}" if field_name else where
        super().__init__(f"{path}: {problem}")


@dataclass(frozen=True, slots=True)
class KeyRecord:
    """One client as the validator knows it. Instants are seconds since the epoch, UTC."""

    id: str
    # SHA-256 of the whole key text: 238 random bits need no slow hash; None: it has no key
    digest: bytes | None = field(repr=False)
    owner: str
    # First second in which the key is good; None: always was
    not_before: int | None = None
    # First second in which it is no longer good; None: never ends
    expires: int | None = None
    revoked: bool = False
    # Where requests may come from; empty: anywhere
    networks: tuple[Network, ...] = ()
    endpoint_classes: frozenset[str] = frozenset(DEFAULT_CLASSES)
    # Which limits hold; None: those of the gateway's default tier
    tier: str | None = None
    # Names of models, with * and ?; empty: any model
    models: tuple[str, ...] = ()
    # SHA-256 of the client's certificates (DER), lower-case hex; empty: none is asked for
    certificates: tuple[str, ...] = ()
    # Whether key and certificate are good together only, also where one would do
    bound: bool = True


def generate_key() -> str:
    """Return a new key from the operating system's random source."""
    body = KEY_PREFIX + "".join(secrets.choice(BASE62) for _place in range(RANDOM_LENGTH))
    return body + checksum(body)


def checksum(body: str) -> str:
    """Return six base62 digits of CRC-32 over ``body``, most significant first."""
    rest, last = divmod(zlib.crc32(body.encode("ascii")), len(_PAIRS))
    first, middle = divmod(rest, len(_PAIRS))
    return _PAIRS[first] + _PAIRS[middle] + _PAIRS[last]


def has_key_shape(key: bytes) -> bool:
    """Tell whether ``key`` has the shape of a key, whatever its checksum."""
    return _KEY_SHAPE.fullmatch(key) is not None


def is_well_formed(key: bytes) -> bool:
    """Tell whether ``key`` has the shape of a key and its checksum fits."""
    if not has_key_shape(key):
        return False
    text = key.decode("ascii")
    return checksum(text[:_BODY_LENGTH]) == text[_BODY_LENGTH:]


def key_digest(key: str) -> str:
    """Return what is stored in place of a key: its SHA-256 in lower-case hex."""
    return hashlib.sha256(key.encode("ascii")).hexdigest()


def parse_instant(text: str) -> int:
    """Return the epoch seconds of an RFC 3339 UTC time or of a date's first second.

    Raises ValueError without repeating ``text``.
    """
    match = _INSTANT_SHAPE.fullmatch(text)
    if match is None:
        raise ValueError("must be a UTC time such as 2027-01-31T00:00:00Z or a date 2027-01-31")
    parts = [int(part) for part in match.groups(default="0")]
    try:
        return int(datetime(*parts, tzinfo=UTC).timestamp())  # type: ignore[arg-type,misc]
    except ValueError:
        raise ValueError("is not a day or time that exists") from None


@lru_cache(maxsize=4096)
def parse_network(text: str) -> Network:
    """Return the network that ``text`` (CIDR, or one address) names. Raises ValueError."""
    try:
        network = ipaddress.ip_network(text)
    except ValueError:
        raise ValueError("must be a network such as 10.0.1.0/24 without host bits") from None
    if isinstance(network, IPv6Network):
        if "%" in text:
            raise ValueError("must not name an interface")
        # The validator compares IPv4 clients as IPv4, so such an entry would never match.
        if network.network_address.ipv4_mapped is not None:
            raise ValueError("must be written as an IPv4 network")
    return network


def is_key_id(text: object) -> bool:
    """Tell whether ``text`` is a usable key id."""
    return isinstance(text, str) and _ID_SHAPE.fullmatch(text) is not None


def is_tier_name(text: object) -> bool:
    """Tell whether ``text`` can name a tier: the form is that of a key's id."""
    return is_key_id(text)


def parse_record(raw: object, where: str) -> KeyRecord:
    """Return the record that ``raw`` (a decoded JSON or YAML object) describes.

    Strict: an unknown field is an error, for a misspelt ``expire`` would otherwise be a key
    that never ends. Raises RecordError that names ``where`` and the field.
    """
    if not isinstance(raw, Mapping):
        raise RecordError(where, "", "must be an object")
    if not raw.keys() <= _FIELDS:
        unknown = sorted(str(name) for name in raw.keys() - _FIELDS)[0]
        raise RecordError(where, "", f"has an unknown field {_shown(unknown)}")
    record = KeyRecord(
        id=_parse_id(raw, where),
        digest=_parse_digest(raw, where),
        owner=_parse_owner(raw, where),
        not_before=_parse_time(raw, "not_before", where),
        expires=_parse_time(raw, "expires", where),
        revoked=_parse_flag(raw, "revoked", where, default=False),
        networks=_parse_networks(raw, where),
        endpoint_classes=_parse_classes(raw, where),
        tier=_parse_tier(raw, where),
        models=_parse_models(raw, where),
        certificates=_parse_certificates(raw, where),
        bound=_parse_flag(raw, "bound", where, default=True),
    )
    if None not in (record.not_before, record.expires) and record.expires <= record.not_before:  # type: ignore[operator]
        raise RecordError(where, "expires", "must be later than not_before")
    return record


def _shown(name: str) -> str:
    """A field's name fit for a message; anything odd stays unshown, it may be a pasted key."""
    return repr(name) if re.fullmatch(r"[a-z0-9_-]{1,32}", name) else "(name not shown)"


def _parse_id(raw: Mapping[str, object], where: str) -> str:
    value = raw.get("id")
    if not is_key_id(value):
        raise RecordError(
            where, "id", "must be 1 to 63 of a-z 0-9 . _ - and start with a letter or digit"
        )
    return str(value)


def _parse_digest(raw: Mapping[str, object], where: str) -> bytes | None:
    if "sha256" not in raw and "certificate_sha256" in raw:
        return None
    value = raw.get("sha256")
    if not isinstance(value, str) or _SHA256_SHAPE.fullmatch(value) is None:
        raise RecordError(where, "sha256", "must be 64 lower-case hexadecimal digits")
    return bytes.fromhex(value)


def _parse_owner(raw: Mapping[str, object], where: str) -> str:
    value = raw.get("owner")
    if not isinstance(value, str) or not 1 <= len(value) <= _OWNER_LENGTH:
        raise RecordError(where, "owner", f"must be text of 1 to {_OWNER_LENGTH} characters")
    if not value.isprintable():
        raise RecordError(where, "owner", "must not contain control characters")
    return value


def _parse_time(raw: Mapping[str, object], name: str, where: str) -> int | None:
    if name not in raw:
        return None
    value = raw[name]
    if not isinstance(value, str):
        raise RecordError(where, name, "must be text, a UTC time or a date")
    try:
        return parse_instant(value)
    except ValueError as error:
        raise RecordError(where, name, str(error)) from None


def _parse_flag(raw: Mapping[str, object], name: str, where: str, *, default: bool) -> bool:
    value = raw.get(name, default)
    if not isinstance(value, bool):
        raise RecordError(where, name, "must be true or false")
    return value


def _parse_networks(raw: Mapping[str, object], where: str) -> tuple[Network, ...]:
    value = raw.get("networks", ())
    if not isinstance(value, (list, tuple)) or len(value) > _MAX_NETWORKS:
        raise RecordError(where, "networks", f"must be a list of at most {_MAX_NETWORKS} networks")
    return tuple(_parse_list_item(item, index, where) for index, item in enumerate(value))


def _parse_list_item(item: object, index: int, where: str) -> Network:
    name = f"networks[{index}]"
    if not isinstance(item, str):
        raise RecordError(where, name, "must be text such as 10.0.1.0/24")
    try:
        return parse_network(str(item))
    except ValueError as error:
        raise RecordError(where, name, str(error)) from None


@lru_cache(maxsize=64)
def _class_set(names: tuple[str, ...]) -> frozenset[str]:
    """One shared set for the many records that allow the same classes."""
    return frozenset(names)


def _parse_classes(raw: Mapping[str, object], where: str) -> frozenset[str]:
    value = raw.get("endpoint_classes", DEFAULT_CLASSES)
    # An empty list would be a key that opens nothing: surely a mistake, revoke says it better.
    if not isinstance(value, (list, tuple)) or not value:
        raise RecordError(where, "endpoint_classes", "must be a list of at least one class")
    for item in value:
        if item not in GRANTABLE_CLASSES:
            raise RecordError(
                where, "endpoint_classes", f"may only hold {', '.join(GRANTABLE_CLASSES)}"
            )
    return _class_set(tuple(sorted(set(value))))


def _parse_tier(raw: Mapping[str, object], where: str) -> str | None:
    if "tier" not in raw:
        return None
    value = raw["tier"]
    if not is_tier_name(value):
        raise RecordError(
            where, "tier", "must be 1 to 63 of a-z 0-9 . _ - and start with a letter or digit"
        )
    # One text for the many records of a tier; Ansible's own kinds of text cannot be interned.
    return sys.intern(str(value))


def _parse_models(raw: Mapping[str, object], where: str) -> tuple[str, ...]:
    if "models" not in raw:
        return ()
    value = raw["models"]
    # An empty list reads like no model to one and like any model to another.
    if not isinstance(value, (list, tuple)) or not 1 <= len(value) <= _MAX_GLOBS:
        raise RecordError(where, "models", f"must be a list of 1 to {_MAX_GLOBS} names of models")
    # Whatever is no text becomes text that is no name.
    globs = tuple(str(item) if isinstance(item, str) else "" for item in value)
    try:
        return _checked_globs(globs)
    except ValueError as error:
        raise RecordError(where, f"models[{error}]", _GLOB_RULE) from None


@lru_cache(maxsize=4096)
def _checked_globs(globs: tuple[str, ...]) -> tuple[str, ...]:
    """Return one tuple for the many records with the same; ValueError holds the bad one's place."""
    for index, glob in enumerate(globs):
        if _GLOB_SHAPE.fullmatch(glob) is None:
            raise ValueError(index)
    return globs


def _parse_certificates(raw: Mapping[str, object], where: str) -> tuple[str, ...]:
    if "certificate_sha256" not in raw:
        return ()
    value = raw["certificate_sha256"]
    values = value if isinstance(value, (list, tuple)) else [value]
    if not 1 <= len(values) <= _MAX_CERTIFICATES:
        problem = f"must be one fingerprint, or a list of 1 to {_MAX_CERTIFICATES}"
        raise RecordError(where, "certificate_sha256", problem)
    for item in values:
        if not isinstance(item, str) or _SHA256_SHAPE.fullmatch(item) is None:
            raise RecordError(
                where, "certificate_sha256", "must be 64 lower-case hexadecimal digits"
            )
    return tuple(dict.fromkeys(map(str, values)))
