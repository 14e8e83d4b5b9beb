# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The vars file of the module ``api_key``: what is in it, and what a wish makes of it.

The file is YAML and holds one variable, ``key_validator_keys``, a list of key records with
hashes only, so that it can live in git. It is owned whole: comments by hand do not survive.

First the pure part, text and records to text and records; the few functions that touch the
file system stand at the end.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from ansible.module_utils.common.yaml import HAS_YAML, SafeLoader, yaml_load
from ansible_collections.llmsec.hardening.plugins.module_utils import own_files
from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import (
    DEFAULT_CLASSES,
    RecordError,
    is_key_id,
    parse_record,
)

VARIABLE = "key_validator_keys"
HEADER = """---
# The LLM gateway's API keys, hashes only. Written by llmsec.hardening.api_key,
# which rewrites the whole file: comments do not survive.
"""
# What a diff in check mode shows, where no key is made
UNISSUED = "(made when the key is issued)"
# The order of a record's fields in the file
_ORDER = (
    "id",
    "owner",
    "sha256",
    "not_before",
    "expires",
    "revoked",
    "networks",
    "certificate_sha256",
    "endpoint_classes",
    "models",
    "tier",
)
_DAYS = re.compile(r"([1-9][0-9]{0,4})d", re.ASCII)

Record = dict[str, Any]


class KeyFileError(ValueError):
    """The file, or what it would become, is not acceptable; the text says what and where."""


class KeyWishError(ValueError):
    """The wish itself cannot be fulfilled; the text is one sentence that says why."""


@dataclass(frozen=True)
class Wish:
    """What the user asks for. None: leave that field as it is."""

    id: str
    owner: str | None = None
    not_before: str | None = None
    expires: str | None = None
    networks: Sequence[str] | None = None
    certificate_sha256: Sequence[str] | None = None
    endpoint_classes: Sequence[str] | None = None
    models: Sequence[str] | None = None
    tier: str | None = None
    # False: a client without a key, known by its certificate. It only counts for a new record.
    with_key: bool = True


def parse_vars(text: str) -> list[Record]:
    """Return the key records in a vars file's text. Raises KeyFileError."""
    if text.startswith("$ANSIBLE_VAULT"):
        raise KeyFileError("is vault-encrypted: it holds hashes only and needs no vault")
    document = _load_yaml(text)
    if document is None:
        return []
    if not isinstance(document, dict) or set(document) != {VARIABLE}:
        raise KeyFileError(f"holds something else than the one variable {VARIABLE}")
    return _checked([_plain(raw) for raw in _list_of(document[VARIABLE])])


def render_vars(records: Sequence[Record]) -> str:
    """Return the vars file's text.

    Written by hand, for PyYAML's way to indent lists is what yamllint complains about by
    default. A JSON string of printable characters is a YAML string, and never a date or number.
    """
    if not records:
        return f"{HEADER}{VARIABLE}: []\n"
    lines = [f"{HEADER}{VARIABLE}:"]
    for raw in records:
        fields = [line for name in _ORDER if name in raw for line in _field_lines(name, raw[name])]
        lines += [f"  - {fields[0]}", *(f"    {line}" for line in fields[1:])]
    return "\n".join(lines) + "\n"


def _field_lines(name: str, value: object) -> list[str]:
    if isinstance(value, list) and value:
        return [f"{name}:", *(f"  - {_scalar(item)}" for item in value)]
    return [f"{name}: {_scalar(value)}"]


def _scalar(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)


def find(records: Sequence[Record], key_id: str) -> Record | None:
    """Return the record with this id."""
    return next((raw for raw in records if raw["id"] == key_id), None)


def with_present(
    records: Sequence[Record], wish: Wish, *, digest: str, now: datetime
) -> list[Record]:
    """Return the records with ``wish`` fulfilled; ``digest`` only counts for a new one."""
    old = find(records, wish.id)
    if old is not None and old.get("revoked"):
        raise KeyWishError(f"key {wish.id} is revoked for good: issue one with another id")
    base = old or {
        "id": wish.id,
        "owner": wish.id,
        "sha256": digest if wish.with_key else None,
        "endpoint_classes": list(DEFAULT_CLASSES),
    }
    new = {**base, **_wished_fields(wish, now)}
    new = {name: value for name, value in new.items() if value is not None}
    return _replaced(records, wish.id, new)


def with_revoked(records: Sequence[Record], key_id: str) -> list[Record]:
    """Return the records with this one revoked."""
    old = find(records, key_id)
    if old is None:
        raise KeyWishError(f"there is no key {key_id} to revoke")
    return _replaced(records, key_id, {**old, "revoked": True})


def without(records: Sequence[Record], key_id: str) -> list[Record]:
    """Return the records without this one."""
    return [raw for raw in records if raw["id"] != key_id]


def resolve_time(text: str, now: datetime) -> str | None:
    """Return the time to store: a date or RFC 3339 time as it is, ``90d`` as a date.

    Days count from the end of today (UTC), so that a key lives at least so long, and the
    same wish twice on one day is the same wish. ``never`` is None.
    """
    if text == "never":
        return None
    match = _DAYS.fullmatch(text)
    if match is None:
        return text
    try:
        return (now.date() + timedelta(days=int(match[1]) + 1)).isoformat()
    except OverflowError:
        raise KeyWishError(f"{text} is too far in the future") from None


def require_id(text: str) -> None:
    """Raise KeyWishError unless ``text`` can be a key's id."""
    if not is_key_id(text):
        raise KeyWishError("id must be 1 to 63 of a-z 0-9 . _ - and start with a letter or a digit")


def _wished_fields(wish: Wish, now: datetime) -> Record:
    """The fields the wish sets; None takes the field away."""
    fields: Record = {}
    if wish.owner is not None:
        fields["owner"] = wish.owner
    for name in ("not_before", "expires"):
        text = getattr(wish, name)
        if text is not None:
            fields[name] = resolve_time(text, now)
    if wish.networks is not None:
        fields["networks"] = list(wish.networks) or None
    if wish.certificate_sha256 is not None:
        # As openssl x509 -fingerprint writes it, too; empty text is none
        prints = [text.replace(":", "").lower() for text in wish.certificate_sha256 if text]
        fields["certificate_sha256"] = prints if len(prints) > 1 else next(iter(prints), None)
    if wish.endpoint_classes is not None:
        fields["endpoint_classes"] = list(wish.endpoint_classes)
    if wish.models is not None:
        fields["models"] = list(wish.models) or None
    if wish.tier is not None:
        fields["tier"] = wish.tier or None
    return fields


def _replaced(records: Sequence[Record], key_id: str, new: Record) -> list[Record]:
    result = [new if raw["id"] == key_id else raw for raw in records]
    if find(records, key_id) is None:
        result.append(new)
    return _checked(result)


def _checked(records: list[Record]) -> list[Record]:
    """Return ``records`` if the key validator would take them all."""
    seen: dict[str, set[object]] = {"id": set(), "sha256": set()}
    certificates: set[str] = set()
    for index, raw in enumerate(records):
        where = f"{VARIABLE}[{index}]"
        # A key that is not made yet has no digest; everything else is judged as it will be.
        judged = {**raw, "sha256": "0" * 64} if raw.get("sha256") == UNISSUED else raw
        try:
            record = parse_record(judged, where)
        except RecordError as error:
            raise KeyFileError(str(error)) from None
        if not certificates.isdisjoint(record.certificates):
            raise KeyFileError(f"{where}.certificate_sha256: is used by an earlier record, too")
        certificates.update(record.certificates)
        for name, values in seen.items():
            if name not in raw:
                continue
            if raw[name] in values:
                raise KeyFileError(f"{where}.{name}: is used by an earlier record, too")
            values.add(raw[name])
    return records


def _list_of(value: object) -> list[object]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise KeyFileError(f"{VARIABLE}: must be a list")
    return value


def _plain(raw: object) -> Record:
    """Return the record with times as text: YAML reads an unquoted 2027-01-31 as a date."""
    if not isinstance(raw, Mapping):
        raise KeyFileError(f"{VARIABLE}: every item must be a key record")
    return {name: _time_text(value) for name, value in raw.items()}


def _time_text(value: object) -> object:
    if isinstance(value, datetime):
        zoned = value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
        return zoned.strftime("%Y-%m-%dT%H:%M:%SZ")
    return value.isoformat() if isinstance(value, date) else value


if HAS_YAML:

    class _UniqueLoader(SafeLoader):
        """Refuses what YAML readers disagree about: a name twice in one mapping."""

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:  # noqa: ANN401
            """Construct one mapping. Raises KeyFileError for a name that occurs twice."""
            names = [self.construct_object(key, deep=True) for key, _value in node.value]
            if len(set(map(repr, names))) != len(names):
                raise KeyFileError("is not usable: a mapping holds the same name twice")
            return super().construct_mapping(node, deep=deep)


def _load_yaml(text: str) -> Any:  # noqa: ANN401 - YAML is any type
    """Return the one YAML document in ``text``. Raises KeyFileError without quoting it."""
    if not HAS_YAML:
        raise KeyFileError("cannot be read: PyYAML is missing in this Python")
    try:
        return yaml_load(text, Loader=_UniqueLoader)
    except KeyFileError:
        raise
    except (ValueError, RecursionError, TypeError) as error:
        raise KeyFileError(f"is not valid YAML ({type(error).__name__})") from None
    except Exception as error:  # yaml.YAMLError; its module may be missing at import time
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark is not None else ""
        raise KeyFileError(f"is not valid YAML{place}") from None


# The file system


@contextmanager
def locked(path: str, *, seconds: float = 30.0) -> Iterator[None]:
    """Hold the lock of ``path``'s folder: two runs at once would lose one of two keys.

    The folder itself is locked, no lock file is left in a checkout. Raises KeyFileError when
    another run keeps the lock for so many seconds, OSError when there is no such folder.
    """
    descriptor = os.open(os.path.dirname(path), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        end = time.monotonic() + seconds
        while not _try_lock(descriptor):
            if time.monotonic() >= end:
                raise KeyFileError("is being changed by another run")
            time.sleep(0.1)
        yield
    finally:
        os.close(descriptor)


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_text(path: str) -> str:
    """Return the file's text, empty when there is none. Raises KeyFileError, OSError."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8")
    except FileNotFoundError:
        return ""
    except UnicodeDecodeError:
        raise KeyFileError("is not UTF-8 text") from None


def write_secret(path: str, secret: str) -> None:
    """Write a new file that only its owner can read. Raises FileExistsError, OSError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(descriptor, 0o600)
        file.write(secret + "\n")
        file.flush()
        os.fsync(descriptor)


def write_atomically(path: str, text: str) -> None:
    """Replace the file in one step, keeping its mode and owner; 0644 when it is new."""
    own_files.replace(path, text, lambda descriptor: _take_over(descriptor, path))


def _take_over(descriptor: int, path: str) -> None:
    """Give the open file the mode and, where we may, the owner of ``path``."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        os.fchmod(descriptor, 0o644)
        return
    with suppress(PermissionError):
        os.fchown(descriptor, status.st_uid, status.st_gid)
    os.fchmod(descriptor, status.st_mode & 0o777)
