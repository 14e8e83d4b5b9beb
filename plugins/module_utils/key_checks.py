# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateway's keys at rest: the registry as it should be, and each key in it.

Pure: texts, records and facts in, findings out. The registry's rules are those of the service
itself (`llm_key_validator/registry.py`), which has its own, incremental reader; a unit test holds
the two together.
"""

from __future__ import annotations

import hashlib
import json
import re
import typing as t
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import (
    BASE62,
    KEY_PREFIX,
    RANDOM_LENGTH,
    KeyRecord,
    RecordError,
    checksum,
    key_digest,
    parse_record,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.plain_text_keys import (
    Search,
    describe,
    keys_in,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.subjects import Finding, Subject

__all__ = (
    "REGISTRY", "RegistryFormatError", "Use", "age_findings", "expected_findings",
    "format_finding", "guessable_digests", "is_active", "last_uses", "loaded_finding",
    "never_hardened", "parse_records", "parse_registry", "plain_text_findings",
    "registered_digests", "tier_finding", "unused_finding", "weak_finding",
)  # fmt: skip

_SECRETS = "secrets_at_rest"
_ENTRY = "authentication"
_HARDEN = "Run llmsec.hardening.harden, which writes the registry from key_validator_keys."
_ISSUE = "Revoke the key in key_validator_keys and issue another: llmsec.hardening.issue_key."
_SECONDS_A_DAY = 86400
# What people type where a key is asked for, and what software ships with
_WORDS = (
    "", "test", "key", "apikey", "api-key", "changeme", "secret", "password", "admin", "token",
    "none", "null", "dummy", "example", "demo", "default", "ollama", "sk-1234", "sk-test",
    "sk-no-key-required", "EMPTY", "not-needed", "lm-studio", "1234", "12345678",
)  # fmt: skip
_DIGEST = re.compile(rb'"sha256": ?"([0-9a-f]{64})"')
_USER = re.compile(rb'"user\.id":"([a-z0-9._-]{1,63})"')

REGISTRY = Subject(
    "keys.registry", _ENTRY, "the registry says who gets in, and root alone writes it", "high",
    "Apply the role key_validator.",
)  # fmt: skip
_FORMAT = Subject(
    "keys.format", _SECRETS, "the registry holds SHA-256 digests only, and can be used", "high",
    _HARDEN,
)  # fmt: skip
_LOADED = Subject(
    "keys.loaded", _ENTRY, "the service uses the registry that is on the disk", "high",
    "systemctl reload llm-key-validator; its journal says why a registry was refused.",
)  # fmt: skip
_UNKNOWN = Subject(
    "keys.unknown", _ENTRY, "no key gets in that the inventory does not have", "high", _HARDEN
)
_STALE = Subject(
    "keys.stale", _ENTRY, "every key is registered as the inventory has it", "high", _HARDEN
)
_WEAK = Subject(
    "keys.weak", _ENTRY, "no registered key can be guessed", "critical", _ISSUE
)  # fmt: skip
_EXPIRING = Subject(
    "keys.expiring", _ENTRY, "no key is about to expire", "low",
    "Issue the next key, or set a later expires: llmsec.hardening.issue_key.",
)  # fmt: skip
_EXPIRED = Subject("keys.expired", _ENTRY, "expired and revoked keys in the registry", "info", "")
_ENDLESS = Subject("keys.endless", _ENTRY, "keys that never expire", "info", "")
_TIER = Subject(
    "keys.tier", "budget", "every key has a tier that exists", "low",
    "Set tier of the key to one of key_validator_tiers.",
)  # fmt: skip
_UNUSED = Subject(
    "keys.unused", _ENTRY, "every key is used", "low",
    "Take keys that nobody needs out of key_validator_keys.",
)  # fmt: skip
_PLAIN = Subject(
    "keys.plain_text", _SECRETS, "no registered key lies about in plain text", "high",
    f"{_ISSUE} Then remove the text.",
)  # fmt: skip
_OTHER = Subject(
    "keys.plain_text_other", _SECRETS, "no other key lies about in plain text", "low",
    "Remove the text; another gateway may take this key.",
)  # fmt: skip
_BOUNDED = Subject(
    "keys.plain_text.bounded", _SECRETS, "all places were searched for keys", "info",
    "Raise max_bytes and max_seconds.",
)  # fmt: skip
_COPIES = Subject(
    "keys.copies", _SECRETS, "no copy of the registry can be read by everybody", "medium",
    "Remove the copy, or take the right to read it from others.",
)  # fmt: skip


class RegistryFormatError(ValueError):
    """The service would refuse this registry; the text repeats no value of it."""


@dataclass(frozen=True, slots=True)
class Use:
    """Which keys were seen in the audit log since when (Unix time)."""

    seen: frozenset[str] = field(default_factory=frozenset)
    since: float = 0.0


def never_hardened(path: str) -> Finding:
    """Return the one finding about a host that has no registry."""
    return REGISTRY.judged(
        [f"there is no registry at {path}: nobody is asked for a key"],
        expected="a registry", found="",
    )  # fmt: skip


def parse_registry(content: bytes) -> list[KeyRecord]:
    """Return the records of keys.json. Raises RegistryFormatError."""
    try:
        document = json.loads(content, object_pairs_hook=_unique, parse_constant=_refuse)
    except RegistryFormatError:
        raise
    except (ValueError, RecursionError):
        raise RegistryFormatError("is not JSON in UTF-8") from None
    if not isinstance(document, dict) or document.keys() - {"version", "keys"}:
        raise RegistryFormatError("is not one object with version and keys only")
    version = document.get("version")
    if isinstance(version, bool) or not isinstance(version, int) or version != 1:
        raise RegistryFormatError("version: must be 1")
    if not isinstance(document.get("keys"), list):
        raise RegistryFormatError("keys: must be a list")
    return parse_records(document["keys"], "keys")


def parse_records(raw: Sequence[object], name: str) -> list[KeyRecord]:
    """Return the records, which must differ in id, digest and certificates."""
    records: list[KeyRecord] = []
    taken: set[object] = set()
    for index, item in enumerate(raw):
        try:
            record = parse_record(item, f"{name}[{index}]")
        except RecordError as error:
            raise RegistryFormatError(str(error)) from None
        for value in (("id", record.id), ("sha256", record.digest), *_prints(record)):
            if value in taken:
                raise RegistryFormatError(f"{name}[{index}].{value[0]}: is used twice")
            if value[1] is not None:
                taken.add(value)
        records.append(record)
    return records


def registered_digests(content: bytes) -> frozenset[str]:
    """Return the digests in a registry, also in one that the service would refuse."""
    return frozenset(found.decode() for found in _DIGEST.findall(content))


def _prints(record: KeyRecord) -> Iterator[tuple[str, str]]:
    for text in record.certificates:
        yield "certificate_sha256", text


def _unique(pairs: list[tuple[str, t.Any]]) -> dict[str, t.Any]:
    if len(dict(pairs)) != len(pairs):
        raise RegistryFormatError("an object holds the same field twice")
    return dict(pairs)


def _refuse(_name: str) -> None:
    raise RegistryFormatError("NaN and Infinity are not JSON")


def format_finding(content: bytes) -> Finding:
    """Return whether the service takes this registry, and whether it holds digests only."""
    problems = []
    if any(keys_in(content)):
        problems.append("a key stands in it in plain text")
    count = 0
    try:
        count = len(parse_registry(content))
    except RegistryFormatError as error:
        problems.append(f"the service refuses it: {error}")
    return _FORMAT.judged(
        problems, expected="records with digests, each once", found=f"{count} records"
    )


def loaded_finding(content: bytes, in_use: str | Exception) -> Finding:
    """Return whether the service's registry, by its SHA-256, is the file's content."""
    if isinstance(in_use, Exception):
        return _LOADED.not_measured(in_use)
    same = in_use == hashlib.sha256(content).hexdigest()
    problem = "it uses another one" if in_use else "it uses none"
    return _LOADED.judged([] if same else [problem], expected="this file", found="this file")


def expected_findings(
    records: Sequence[KeyRecord], expected: Sequence[KeyRecord] | None
) -> Iterator[Finding]:
    """Yield whether the registry holds the inventory's records, and no others."""
    if expected is None:
        for subject in (_UNKNOWN, _STALE):
            yield subject.skipped("the inventory's keys (expected_keys) were not given")
        return
    wanted = {record.id: record for record in expected}
    ways_in = {way for record in expected for way in _ways_in(record)}
    unknown, stale = [], []
    for record in records:
        same = wanted.get(record.id)
        if same is None or not ways_in.issuperset(_ways_in(record)):
            unknown.append(f"{record.id}: the inventory does not have this key")
        elif same != record:
            stale.append(f"{record.id}: differs in {', '.join(_differing(same, record))}")
    present = {record.id for record in records}
    stale += [f"{name}: is missing" for name in wanted if name not in present]
    number = f"{len(records)} keys"
    yield _UNKNOWN.judged(unknown, expected="the inventory's keys only", found=number)
    yield _STALE.judged(stale, expected="the inventory's records", found=number)


def _ways_in(record: KeyRecord) -> set[object]:
    return {*record.certificates, *([] if record.digest is None else [record.digest])}


def _differing(one: KeyRecord, other: KeyRecord) -> list[str]:
    names = [name for name in KeyRecord.__slots__ if getattr(one, name) != getattr(other, name)]
    return ["sha256" if name == "digest" else name for name in names]


def guessable_digests() -> frozenset[bytes]:
    """Return the digests of keys that somebody could think of."""
    bodies = [KEY_PREFIX + one * RANDOM_LENGTH for one in BASE62]
    bodies += [KEY_PREFIX + (BASE62 * 2)[start:][:RANDOM_LENGTH] for start in range(len(BASE62))]
    for word in ("0123456789", "1234567890", "abcdefghij", "test", "example0", "changeme"):
        bodies.append(KEY_PREFIX + (word * RANDOM_LENGTH)[:RANDOM_LENGTH])
    texts = [body + checksum(body) for body in bodies]
    return frozenset(bytes.fromhex(key_digest(text)) for text in (*texts, *_WORDS))


def weak_finding(records: Sequence[KeyRecord]) -> Finding:
    """Return whether a registered key is one that somebody could think of."""
    guessed = guessable_digests()
    weak = [
        f"{record.id}: its key can be guessed" for record in records if record.digest in guessed
    ]
    return _WEAK.judged(weak, expected="random keys", found=f"{len(records)} keys, none known")


def is_active(record: KeyRecord, now: float) -> bool:
    """Tell whether the record lets somebody in, now or later."""
    return not record.revoked and (record.expires is None or record.expires > now)


def age_findings(records: Sequence[KeyRecord], now: float, warn_days: int) -> Iterator[Finding]:
    """Yield which keys end soon, have ended, or never do."""
    active = [record for record in records if is_active(record, now)]
    soon = now + warn_days * _SECONDS_A_DAY
    ending = [
        f"{record.id}: expires in {int((record.expires - now) // _SECONDS_A_DAY)} days"
        for record in active
        if record.expires is not None and record.expires < soon
    ]
    yield _EXPIRING.judged(ending, expected=f"good for {warn_days} days", found="none is")
    revoked = sum(record.revoked for record in records)
    expired = len(records) - len(active) - revoked
    yield _EXPIRED.passed(f"{expired} expired, {revoked} revoked: all of them are refused")
    endless = [record.id for record in active if record.expires is None]
    yield _ENDLESS.passed(f"{len(endless)} of {len(active)} keys", endless)


def tier_finding(records: Sequence[KeyRecord], config: Mapping[str, t.Any] | None) -> Finding:
    """Return whether each key's tier is one that the service knows."""
    tiers = (config or {}).get("tiers", {"standard": {}})
    if not isinstance(tiers, dict):
        return _TIER.not_measured("the settings hold no tiers")
    unknown = [
        f"{record.id}: there is no tier {record.tier}"
        for record in records
        if record.tier is not None and record.tier not in tiers
    ]
    without = sum(record.tier is None for record in records)
    found = f"{without} of {len(records)} keys have the default tier"
    return _TIER.judged(unknown, expected="a tier of the settings", found=found)


def last_uses(data: bytes) -> frozenset[str]:
    """Return the ids of keys and clients that stand in records of the audit log."""
    return frozenset(found.decode() for found in set(_USER.findall(data)))


def unused_finding(
    records: Sequence[KeyRecord], use: Use | Exception | None, now: float, days: int
) -> Finding:
    """Return which keys nobody has used for so many days; None: there is no log."""
    if isinstance(use, Exception):
        return _UNUSED.not_measured(use)
    if use is None:
        return _UNUSED.skipped("there is no audit log that would tell")
    start = now - days * _SECONDS_A_DAY
    if use.since > start:
        return _UNUSED.skipped(f"what was read of the audit log does not reach {days} days back")
    unused = [
        f"{record.id}: not used for {days} days"
        for record in records
        if is_active(record, now) and record.id not in use.seen
        and (record.not_before is None or record.not_before < start)
    ]  # fmt: skip
    return _UNUSED.judged(unused, expected=f"used within {days} days", found="all of them")


def plain_text_findings(
    search: Search, records: Sequence[KeyRecord], now: float
) -> Iterator[Finding]:
    """Yield where keys lie about, those that let somebody in apart from all others."""
    ids = {record.digest.hex(): record.id for record in records if record.digest is not None}
    active = {
        record.digest.hex()
        for record in records
        if record.digest is not None and is_active(record, now)
    }
    looked = f"none in {search.files} files and in no process"
    if search.unreadable:
        why = f"{len(search.unreadable)} places may not be read, such as {search.unreadable[0]}"
        found = [hit for hit in search.hits if hit.digest in active]
        yield (
            _PLAIN.not_measured(why)
            if not found
            else _PLAIN.judged(describe(found, ids), expected="nowhere", found="")
        )
    else:
        found = [hit for hit in search.hits if hit.digest in active]
        yield _PLAIN.judged(describe(found, ids), expected="nowhere", found=looked)
    others = [hit for hit in search.hits if hit.digest not in active]
    yield _OTHER.judged(describe(others, ids), expected="nowhere", found=looked)
    yield _COPIES.judged(
        [f"{path}: everybody may read it" for path in search.copies], expected="none", found="none"
    )
    if search.ended:
        yield _BOUNDED.skipped(f"not all: {search.ended}, after {search.files} files")
    else:
        yield _BOUNDED.passed(f"{search.files} files and all processes")
