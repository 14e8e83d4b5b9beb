# SPDX-License-Identifier: GPL-3.0-or-later
"""Forward-secure seals: keys that evolve and are erased (Schneier and Kelsey 1998).

The control node makes the first key K_0 and keeps it. A seal at the end of epoch i is an HMAC
under K_i over the chain so far; then K_{i+1} = HMAC(K_i, label) takes K_i's place, and K_i is
erased. Whoever takes the host holds K_i and can forge from epoch i on, never what was sealed.

Order of one seal: seal record in the log, fsync of the log, next key durably in a file beside
the present one, present key overwritten with zeros, next key renamed into its place. Each epoch
is sealed at most once. What a crash or a restored backup leaves, and what becomes of it when
the log is opened:

==============================  =============================================================
Epoch in the key file           What becomes of it
==============================  =============================================================
last seal's + 1                 The usual: goes on.
last seal's                     Crash between seal and key step: the step is made now. The
                                verifier finds nothing, nothing is amiss.
below                           A backup of the key file was restored: the key is stepped
                                forward to the log's epoch. The journal warns, and ``open``
                                says how many steps (``llm.audit.key.stepped``). The seals
                                verify; but a copy of an old key existed.
above last seal's + 1           Seals, and the records they covered, are gone from the log
                                (cut, or restored from a backup). The journal warns, the log
                                goes on with the key's epoch; the verifier reports that seals
                                are missing, for ever.
epoch 0 of another key id       The state was lost, and the control node handed over a new first
                                key: goes on with that. The verifier says where, and whoever
                                has no such first key there sees that it is not the control
                                node's.
another key id, or a key that   No more seals. The journal warns; ``open`` has no key id, only
does not fit the last seal      the one the log had (``llm.audit.expected.key.id``). The
                                verifier reports that the seals end there.
no key file, or a broken one    The same; in a log that never was sealed the verifier reports
                                nothing, unless it was given a first key.
==============================  =============================================================
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from dataclasses import dataclass
from typing import NamedTuple

from .chain import is_count, is_hex
from .files import Files

KEY_FILE = "seal.json"
# The next key, from before the old one is overwritten until it takes the old one's name
_NEXT_FILE = "seal.json.next"
_MAX_KEY_FILE_BYTES = 4096
# Stepping a key this often takes about a second. More is no restored backup.
_MAX_STEPS = 1_000_000
_MAX_EPOCH = 2**63


class SealError(ValueError):
    """The key cannot be used; the text says why."""


def next_key(key: bytes) -> bytes:
    """Return K_{i+1} for K_i (32 bytes)."""
    return hmac.digest(key, b"llm-audit-seal-key-v1", "sha256")


def key_id_of(first_key: bytes) -> str:
    """Return what names a chain of keys: 16 hex digits from K_0."""
    return hashlib.sha256(b"llm-audit-key-id-v1" + first_key).hexdigest()[:16]


def seal_mac(key: bytes, epoch: int, sequence: int, head: bytes) -> bytes:
    """Return a seal's HMAC: ``sequence`` is its own, ``head`` the hash before it."""
    message = b"llm-audit-seal-v1" + epoch.to_bytes(8, "big") + sequence.to_bytes(8, "big") + head
    return hmac.digest(key, message, "sha256")


@dataclass(frozen=True, slots=True)
class SealKey:
    """The key of one epoch."""

    key_id: str
    epoch: int
    key: bytes  # 32 bytes

    def __repr__(self) -> str:
        """Leave the key out: representations end in tracebacks and journals."""
        return f"SealKey({self.key_id}, epoch {self.epoch})"

    def next(self) -> SealKey:
        """Return the next epoch's key."""
        return SealKey(self.key_id, self.epoch + 1, next_key(self.key))

    def render(self) -> bytes:
        """Return the key file's content."""
        values = {"version": 1, "key_id": self.key_id, "epoch": self.epoch, "key": self.key.hex()}
        return json.dumps(values).encode() + b"\n"


def first_key(text: str) -> SealKey:
    """Return epoch 0's key from the control node's key file. Raises SealError."""
    if re.fullmatch(r"[0-9a-f]{64}\n?", text) is None:
        raise SealError("the first key is not one line of 64 hex digits")
    key = bytes.fromhex(text.strip())
    return SealKey(key_id_of(key), 0, key)


def parse_key(content: bytes) -> SealKey:
    """Return the key in a key file's content. Raises SealError, which repeats no value."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        raise SealError("the key file is not JSON") from None
    if not isinstance(values, dict) or values.keys() != {"version", "key_id", "epoch", "key"}:
        raise SealError("the key file has not the fields of version 1")
    key_id, epoch, key = values["key_id"], values["epoch"], values["key"]
    if values["version"] != 1 or not is_count(epoch) or epoch >= _MAX_EPOCH:
        raise SealError("the key file's version or epoch is not valid")
    if not is_hex(key_id, 16) or not is_hex(key, 64):
        raise SealError("the key file's key or key id is not valid")
    return SealKey(key_id, epoch, bytes.fromhex(key))


class LastSeal(NamedTuple):
    """The last seal in the log, to hold a key against."""

    sequence: int
    head: bytes
    mac: bytes


class Expected(NamedTuple):
    """What the log says of its keys: which chain, and which epoch comes next."""

    key_id: str
    epoch: int
    seal: LastSeal | None = None


def expected_by(fields: dict[str, object]) -> Expected | None:
    """Return what an ``open`` or ``seal`` record says of the keys, None when nothing."""
    if fields.get("event.action") == "seal":
        return _expected_by_seal(fields)
    for prefix in ("llm.audit.key", "llm.audit.expected.key"):
        key_id, epoch = fields.get(f"{prefix}.id"), fields.get(f"{prefix}.epoch")
        if isinstance(key_id, str) and is_count(epoch):
            return Expected(key_id, epoch)
    return None


def _expected_by_seal(fields: dict[str, object]) -> Expected | None:
    key_id, epoch = fields.get("llm.audit.key.id"), fields.get("llm.audit.seal.epoch")
    sequence, head = fields.get("llm.audit.seal.count"), fields.get("llm.audit.seal.head")
    mac = fields.get("llm.audit.seal.mac")
    if not isinstance(key_id, str) or not is_hex(mac, 64) or not is_hex(head, 64):
        return None
    if not is_count(epoch) or not is_count(sequence) or sequence >= _MAX_EPOCH:
        return None
    seal = LastSeal(sequence, bytes.fromhex(head), bytes.fromhex(mac))
    return Expected(key_id, epoch + 1, seal)


def catch_up(found: SealKey, expected: Expected | None) -> SealKey:
    """Return the key to go on with: see the table above. Raises SealError when there is none."""
    if expected is None:
        return found
    if found.key_id != expected.key_id and found.epoch == 0:
        return found
    if found.key_id != expected.key_id:
        raise SealError("the key file belongs to another first key than the log")
    if expected.epoch - found.epoch > _MAX_STEPS:
        raise SealError("the key file is too many epochs behind the log")
    key = found
    while key.epoch < expected.epoch:
        if key.epoch == expected.epoch - 1 and expected.seal is not None:
            _check_seal(key, expected.seal)
        key = key.next()
    return key


def _check_seal(key: SealKey, seal: LastSeal) -> None:
    wanted = seal_mac(key.key, key.epoch, seal.sequence, seal.head)
    if not hmac.compare_digest(wanted, seal.mac):
        raise SealError("the key does not fit the log's last seal")


class KeyFile:
    """The present key on disk."""

    def __init__(self, files: Files, directory: str) -> None:
        self._files = files
        self._directory = directory
        self._path = f"{directory}/{KEY_FILE}"
        self._next_path = f"{directory}/{_NEXT_FILE}"

    def load(self) -> SealKey:
        """Return the present key; end a key step that a crash cut short.

        Raises SealError when there is no usable key, OSError when the disk fails.
        """
        coming = self._read_next()
        try:
            present = parse_key(self._files.read_file(self._path, _MAX_KEY_FILE_BYTES))
        except (FileNotFoundError, SealError) as error:
            # Overwritten already, and its successor not yet in its place?
            if coming is None:
                missing = isinstance(error, FileNotFoundError)
                raise SealError("there is no key file" if missing else str(error)) from None
        else:
            if coming is None or coming != present.next():
                return present
        self._take_place(coming)
        return coming

    def replace(self, key: SealKey) -> None:
        """Put ``key`` in the present one's place and erase that. May be tried again."""
        # Made once only: after a failure further down, this may be the only copy.
        if self._read_next() != key:
            self._write(self._files.create_secret(self._next_path), key.render())
        self._take_place(key)

    def _take_place(self, key: SealKey) -> None:
        """Overwrite the old key, which a mere rename would leave on the disk.

        First of all the next one is made durable, over itself: whoever wrote it may have been
        killed before the fsync, or had it fail, behind which the kernel may drop what it reads.
        """
        self._write(self._files.open_secret(self._next_path), key.render())
        self._files.sync_directory(self._directory)
        try:
            descriptor = self._files.open_secret(self._path)
        except FileNotFoundError:
            pass
        else:
            self._write(descriptor, None)
        self._files.rename(self._next_path, self._path)
        self._files.sync_directory(self._directory)

    def _write(self, descriptor: int, data: bytes | None) -> None:
        """Write durably, and close; None: zeros over all that is there."""
        try:
            rest = bytes(self._files.status(descriptor).size) if data is None else data
            while rest:
                rest = rest[self._files.write(descriptor, rest) :]
            self._files.sync(descriptor)
        finally:
            self._files.close(descriptor)

    def _read_next(self) -> SealKey | None:
        try:
            return parse_key(self._files.read_file(self._next_path, _MAX_KEY_FILE_BYTES))
        except (FileNotFoundError, SealError):
            return None
