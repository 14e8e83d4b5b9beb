# SPDX-License-Identifier: GPL-3.0-or-later
"""All key records: a strict, incremental loader of keys.json, and the look-up by digest.

The file is ``{"version": 1, "keys": [record, ...]}``. It is read record by record, so that an
event loop can load a hundred thousand keys in slices and answer requests between them:
``json.loads`` of the whole text would hold the interpreter for a fifth of a second.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Generator, Iterator
from typing import Any

from .keys import KeyRecord, RecordError, parse_record

# Records between two yields: about 2 ms on a slow core
SLICE = 100

_SPACE = re.compile(r"[ \t\r\n]*")


class RegistryError(ValueError):
    """The registry cannot be used. The text names record and field, and repeats no value."""


class Registry:
    """A set of key records that does not change while it is in use."""

    __slots__ = ("_by_certificate", "_by_digest", "_by_id")

    def __init__(
        self,
        records: dict[bytes, KeyRecord],
        by_id: dict[str, KeyRecord],
        by_certificate: dict[str, KeyRecord],
    ) -> None:
        self._by_digest = records
        self._by_id = by_id
        self._by_certificate = by_certificate

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[KeyRecord]:
        return iter(self._by_id.values())

    def dismantle(self) -> Iterator[None]:
        """Forget the records, yielding after each SLICE of them. Nobody may ask any more.

        A hundred thousand of them set free at once would hold the interpreter for as long as
        many requests take.
        """
        for table in (self._by_digest, self._by_certificate, self._by_id):
            while table:
                for _unused in range(min(SLICE, len(table))):
                    table.popitem()
                yield

    def find(self, digest: bytes) -> KeyRecord | None:
        """Return the record whose key has this SHA-256.

        The dictionary compares digests, not keys: how long it takes says nothing that helps
        to find a key's preimage. The final comparison is in constant time all the same.
        """
        record = self._by_digest.get(digest)
        if record is None or not hmac.compare_digest(record.digest or b"", digest):
            return None
        return record

    def find_certificate(self, sha256: str) -> KeyRecord | None:
        """Return the record that names a certificate with this fingerprint. It is no secret."""
        return self._by_certificate.get(sha256)


def load_registry(text: str) -> Registry:
    """Return the registry in ``text``. Raises RegistryError."""
    loader = load_in_slices(text)
    while True:
        try:
            next(loader)
        except StopIteration as end:
            return end.value


def load_in_slices(text: str) -> Generator[None, None, Registry]:
    """Load ``text``; yield after each SLICE of records; return the registry at the end.

    Raises RegistryError for text that is not JSON, not of this version, or holds a record
    that is not acceptable or not unique.
    """
    reader = _Reader(text)
    registry: Registry | None = None
    version: object = None
    for name in reader.members():
        if name == "keys":
            registry = yield from _load_records(reader)
        elif name == "version":
            version = reader.value()
        else:
            raise RegistryError("unknown field beside version and keys")
    if not isinstance(version, int) or isinstance(version, bool) or version != 1:
        raise RegistryError("version: must be 1")
    if registry is None:
        raise RegistryError("keys: is missing")
    return registry


def _load_records(reader: _Reader) -> Generator[None, None, Registry]:
    records: dict[bytes, KeyRecord] = {}
    ids: dict[str, KeyRecord] = {}
    certificates: dict[str, KeyRecord] = {}
    for index, raw in enumerate(reader.items()):
        where = f"keys[{index}]"
        try:
            record = parse_record(raw, where)
        except RecordError as error:
            raise RegistryError(str(error)) from None
        if record.id in ids:
            raise RegistryError(f"{where}.id: is used by an earlier record, too")
        if record.digest in records:
            raise RegistryError(f"{where}.sha256: is used by an earlier record, too")
        # Whose request would it be?
        if not certificates.keys().isdisjoint(record.certificates):
            problem = "is used by an earlier record, too"
            raise RegistryError(f"{where}.certificate_sha256: {problem}")
        ids[record.id] = record
        if record.digest is not None:
            records[record.digest] = record
        certificates.update(dict.fromkeys(record.certificates, record))
        if index % SLICE == SLICE - 1:
            yield
    return Registry(records, ids, certificates)


def _unique_members(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse what JSON readers disagree about: a name that occurs twice in one object."""
    members = dict(pairs)
    if len(members) != len(pairs):
        raise RegistryError("an object holds the same field twice")
    return members


def _refuse_constant(_name: str) -> None:
    raise RegistryError("NaN and Infinity are not JSON")


class _Reader:
    """Reads one JSON object member by member, and arrays in it item by item."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._decoder = json.JSONDecoder(
            object_pairs_hook=_unique_members, parse_constant=_refuse_constant
        )

    def members(self) -> Iterator[str]:
        """Yield each member's name; the caller then takes ``value()`` or ``items()``."""
        self._expect("{")
        seen: set[str] = set()
        more = not self._skip("}")
        while more:
            if self._peek() != '"':
                raise self._error()
            name = self.value()
            if name in seen:
                raise RegistryError("an object holds the same field twice")
            seen.add(name)
            self._expect(":")
            yield name
            more = self._skip(",")
            if not more:
                self._expect("}")
        if self._peek():
            raise self._error()

    def items(self) -> Iterator[object]:
        """Yield the items of the array that comes next."""
        self._expect("[", "keys: must be a list")
        more = not self._skip("]")
        while more:
            yield self.value()
            more = self._skip(",")
            if not more:
                self._expect("]")

    def value(self) -> Any:  # noqa: ANN401 - JSON is any type
        """Return the value that comes next, whole."""
        self._peek()
        try:
            value, self._at = self._decoder.raw_decode(self._text, self._at)
        except RegistryError as error:
            raise RegistryError(f"{self._place()}: {error}") from None
        except json.JSONDecodeError as error:
            self._at = error.pos
            raise self._error() from None
        except (ValueError, RecursionError):
            raise self._error() from None
        return value

    def _peek(self) -> str:
        """Skip white space and return the next character, empty at the end."""
        match = _SPACE.match(self._text, self._at)
        self._at = match.end() if match else self._at
        return self._text[self._at : self._at + 1]

    def _skip(self, character: str) -> bool:
        if self._peek() != character:
            return False
        self._at += 1
        return True

    def _expect(self, character: str, problem: str = "") -> None:
        if not self._skip(character):
            raise RegistryError(problem) if problem and self._peek() else self._error()

    def _place(self) -> str:
        line = self._text.count("\n", 0, self._at) + 1
        return f"line {line}, column {self._at - self._text.rfind(chr(10), 0, self._at)}"

    def _error(self) -> RegistryError:
        return RegistryError(f"{self._place()}: not valid JSON")
