# SPDX-License-Identifier: GPL-3.0-or-later
"""What the audit log counts; ``llm_key_validator.metrics`` renders it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

ACTIONS = (
    *("request", "response", "refusal", "suppressed"),
    *("open", "seal", "repair", "resume", "close"),
)
SINKS = ("file", "journald", "syslog")


@dataclass(slots=True)
class AuditMetrics:
    """Since the service started, except where a present state is said."""

    # Records that were taken, by event.action
    records: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(ACTIONS, 0)))
    # Times that a sink failed: the file once an outage, the others once a record
    failures: Counter[str] = field(default_factory=lambda: Counter(dict.fromkeys(SINKS, 0)))
    # Present: whether requests can be recorded, and so be answered
    writable: bool = False
    # Present: whether the log is sealed
    sealed: bool = False
    # Present: the epoch of the next seal, 0 when unsealed
    epoch: int = 0
    # Present: the last record's number
    sequence: int = 0
    fsyncs: int = 0
    # Bytes of records in the file
    bytes: int = 0
    # Records that could not be taken
    refused: int = 0
    # Refusals that were counted only
    suppressed: int = 0
    seals: int = 0
    rotations: int = 0
    repairs: int = 0
