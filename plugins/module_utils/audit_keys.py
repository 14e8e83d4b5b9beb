# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Secrets of the audit log: the first sealing key of a host, and files that hold one secret.

The first key K_0 seals the log's first epoch; the host derives each next key from the one before
and erases that, so K_0 exists on the control node only. The key validator has the same formula
for its name, in ``llm_key_validator/audit/seals.py``; a unit test holds them together.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat

from ansible_collections.llmsec.hardening.plugins.module_utils.api_key_file import write_secret

__all__ = ("SecretError", "first_state", "key_id_of", "make_first_key", "new_secret", "read_secret")

_HEX = re.compile(r"[0-9a-f]{64}\Z")
# Longer than any secret here
_MAX_BYTES = 4096


class SecretError(ValueError):
    """The file that should hold a secret cannot be one; the text repeats nothing of it."""


def new_secret() -> str:
    """Return 32 random bytes as 64 hex digits."""
    return secrets.token_hex(32)


def key_id_of(first_key: str) -> str:
    """Return the public name, 16 hex digits, of a first key (64 hex digits)."""
    if not _HEX.match(first_key):
        raise SecretError("a first key is 64 hex digits")
    label = b"llm-audit-key-id-v1"
    return hashlib.sha256(label + bytes.fromhex(first_key)).hexdigest()[:16]


def first_state(first_key: str) -> str:
    """Return the text of the host's seal.json at epoch 0."""
    state = {"version": 1, "key_id": key_id_of(first_key), "epoch": 0, "key": first_key}
    return json.dumps(state) + "\n"


def make_first_key(directory: str) -> tuple[str, str]:
    """Write a new first key to ``<directory>/<its id>.key``, 0600; return the path and the key.

    Raises OSError.
    """
    key = new_secret()
    path = os.path.join(directory, f"{key_id_of(key)}.key")
    write_secret(path, key)
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return path, key


def read_secret(path: str) -> str | None:
    """Return the one line in a secret's file, None when there is no file.

    Raises SecretError for what is no file of ours (a link, a folder, empty), and OSError.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise SecretError("is a symbolic link") from None
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SecretError("is no regular file")
        content = file.read(_MAX_BYTES + 1)
    if not content.strip() or len(content) > _MAX_BYTES:
        raise SecretError("is empty or too large: it was never written whole")
    try:
        return content.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise SecretError("is not text") from None
