# SPDX-License-Identifier: GPL-3.0-or-later
"""Are the log's seals complete, in order and genuine?

Without a first key only their order and what they seal can be checked. With it, a seal that is
right proves that whoever wrote it held the key of that epoch, which the host erased at its end.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping

from .chain import is_count, is_hex
from .findings import Level, Place
from .reading import printable
from .seals import next_key, seal_mac

Fields = Mapping[str, object]

# Steps from a first key that are worth their time (about a minute), over the whole log: a forger
# may claim any epoch, and another one in each seal
_MOST_STEPS = 50_000_000


class _Keys:
    """The keys of all epochs, derived from the first one as they are needed."""

    def __init__(self, first: bytes) -> None:
        self._first = first
        self._epoch, self._key = 0, first
        self._steps_left = _MOST_STEPS

    def key(self, epoch: int) -> bytes | None:
        """Return an epoch's key; None when it is too far to get there."""
        if epoch < self._epoch:
            self._epoch, self._key = 0, self._first
        if epoch - self._epoch > self._steps_left:
            return None
        self._steps_left -= epoch - self._epoch
        while self._epoch < epoch:
            self._key = next_key(self._key)
            self._epoch += 1
        return self._key


class SealCheck:
    """Follows the log's own records: which key seals, which epoch is next."""

    def __init__(self, place: Place, first_keys: Mapping[str, bytes], *, from_start: bool) -> None:
        self._place = place
        self._keys = {key_id: _Keys(key) for key_id, key in first_keys.items()}
        self._from_start = from_start
        # Whose seals were last seen, and whether there should be more of them
        self._key_id: str | None = None
        self._sealing = False
        # The epoch that comes next. None: not known, whatever comes is taken
        self._epoch: int | None = 0
        self._sealed_up_to: int | None = None
        self._older_removed = False

    def begin(self, *, older_removed: bool) -> None:
        """The log begins here; what older files held is not known."""
        self._older_removed = older_removed
        if older_removed and not self._from_start:
            self._epoch = None

    def opened(self, fields: Fields, sequence: int) -> None:
        """An open record says which key and epoch the service goes on with."""
        key_id, epoch = fields.get("llm.audit.key.id"), fields.get("llm.audit.key.epoch")
        if key_id is None:
            self._stopped(sequence)
            return
        if not is_hex(key_id, 16) or not is_count(epoch):
            self._break("the open record's key is malformed", sequence)
            return
        self._use(key_id, sequence)
        self._expect(epoch, sequence)
        self._epoch = epoch
        steps = fields.get("llm.audit.key.stepped")
        if is_count(steps) and steps > 1:  # a single one is what a crash leaves
            text = f"an older key was restored and stepped {steps} epochs forward: a copy existed"
            self._place.say(Level.INFO, text, sequence)

    def _stopped(self, sequence: int) -> None:
        """No key, or not the log's: a fault of the host, or somebody who wants no seals."""
        if self._sealing:
            level = Level.BREAK if self._keys else Level.INFO
            self._place.say(level, "no more seals from here: the key is gone", sequence)
        self._sealing = False

    def _use(self, key_id: str, sequence: int) -> None:
        self._sealing = True
        if key_id == self._key_id:
            return
        if self._keys and key_id not in self._keys:
            text = f"sealed under key {key_id}, whose first key was not given"
            self._place.say(Level.UNCHECKED, text, sequence)
        if self._key_id is not None:
            text = f"sealed under a new key from here: {key_id} after {self._key_id}"
            # Nothing shows how many seals of the old key there were: whoever takes the key away
            # may have taken records, too. Only a head that was noted off the host can tell.
            self._place.say(Level.UNCHECKED if self._keys else Level.INFO, text, sequence)
            self._epoch = 0
        self._key_id = key_id

    def sealed(self, fields: Fields, sequence: int, before: bytes) -> None:
        """Check one seal; ``before`` is the hash of the record before it, empty if not known."""
        epoch, mac = fields.get("llm.audit.seal.epoch"), fields.get("llm.audit.seal.mac")
        key_id, head = fields.get("llm.audit.key.id"), fields.get("llm.audit.seal.head")
        if not (is_hex(key_id, 16) and is_count(epoch) and is_hex(mac, 64) and is_hex(head, 64)):
            self._break("the seal is malformed", sequence)
            return
        self._use(key_id, sequence)
        self._expect(epoch, sequence)
        self._epoch = epoch + 1
        self._count_seal(fields, sequence)
        if fields.get("llm.audit.seal.count") != sequence:
            self._break("the seal is for another sequence", sequence)
        if before and bytes.fromhex(head) != before:
            self._break("the seal is for another chain", sequence)
        self._check_mac(epoch, sequence, bytes.fromhex(head), mac)

    def _count_seal(self, fields: Fields, sequence: int) -> None:
        self._place.result.seals += 1
        self._place.result.last_seal = printable(fields.get("@timestamp"))
        self._sealed_up_to = sequence

    def _check_mac(self, epoch: int, sequence: int, head: bytes, mac: str) -> None:
        keys = self._keys.get(self._key_id or "")
        if keys is None:
            return
        key = keys.key(epoch)
        if key is None:
            self._place.say(Level.UNCHECKED, f"epoch {epoch} is too far to check", sequence)
        elif not hmac.compare_digest(seal_mac(key, epoch, sequence, head), bytes.fromhex(mac)):
            self._break("the seal is forged: its code does not fit the epoch's key", sequence)

    def _expect(self, epoch: int, sequence: int) -> None:
        """Report epochs that are missing or come again."""
        expected = self._epoch
        if expected is None or epoch == expected:
            return
        if epoch < expected:
            text = f"epoch {epoch} comes again ({expected} was expected): an old key was restored"
        else:
            text = f"seals are missing: epoch {epoch} follows where {expected} was expected"
        self._break(text, sequence)

    def skipped(self, fields: Fields) -> None:
        """A record was changed, and that reported: its epoch is not to be missed as well."""
        if self._epoch is not None and fields.get("event.action") == "seal":
            self._epoch += 1

    def finish(self, last: int) -> None:
        """All was read, up to this sequence."""
        if self._keys and self._key_id is None:
            self._break("a first key was given, but the log is not sealed", None)
        elif self._keys and self._sealed_up_to is None:
            # A young log has none yet. One that has lost its beginning is older, or made up.
            level = Level.UNCHECKED if self._older_removed else Level.INFO
            self._place.say(level, f"no seal to check: none of {last:,} records is sealed yet")
        if self._sealed_up_to is not None and last > self._sealed_up_to:
            text = f"records after the last seal, not sealed yet: {last - self._sealed_up_to:,}"
            self._place.say(Level.INFO, text)

    def _break(self, text: str, sequence: int | None) -> None:
        self._place.say(Level.BREAK, text, sequence)
