# SPDX-License-Identifier: GPL-3.0-or-later
"""Puts the service's package on the path, and makes keys, requests and registries for tests."""

from __future__ import annotations

import json
import sys
import typing as t
from pathlib import Path

import pytest

FILES = Path(__file__).parents[3] / "roles" / "key_validator" / "files"
sys.path.insert(0, str(FILES))

from llm_key_validator import keys  # noqa: E402
from llm_key_validator.decision import RequestHeaders  # noqa: E402

# 2026-11-23T00:00:00Z
NOW = 1795392000.0


def record(key: str, key_id: str = "app1", **fields: t.Any) -> dict[str, t.Any]:
    """A key record as it stands in keys.json."""
    return {"id": key_id, "sha256": keys.key_digest(key), "owner": "Team", **fields}


def registry_text(*records: dict[str, t.Any]) -> str:
    """A whole keys.json."""
    return json.dumps({"version": 1, "keys": list(records)})


def gateway_request(**changes: bytes) -> bytes:
    """The line in which nginx describes an ordinary request, with changes to its words."""
    words = {
        "request_id": b"0123456789abcdef" * 2,
        "client_address": b"10.0.1.5",
        "endpoint_class": b"inference",
        "method": b"POST",
        "path": b"/api/chat",
    }
    return b" ".join({**words, **changes}.values())


def headers(**changes: t.Any) -> RequestHeaders:
    """What nginx sends for an ordinary request, with changes; single values may be bare."""
    words = ("request_id", "client_address", "endpoint_class", "method", "path")
    line = gateway_request(**{name: changes.pop(name) for name in words if name in changes})
    values: dict[str, t.Any] = {"gateway_request": line, **changes}
    return RequestHeaders(
        **{name: (value,) if isinstance(value, bytes) else value for name, value in values.items()}
    )


@pytest.fixture(scope="session")
def key() -> str:
    """A well-formed key."""
    return keys.generate_key()
