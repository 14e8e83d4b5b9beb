# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters, and their text for Prometheus (exposition format 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from .audit.metrics import AuditMetrics
from .decision import Reason

_PREFIX = "llm_key_validator"
# Every reason is there from the start: a counter that appears late hides its first step.
_AUTHORIZATIONS = (
    *("ok", "body", "body_size", "prompt_size", "model", "limit", "rate", "day", "parallel"),
    *("audit", "counters", "busy", "route", "tier"),
    *(reason.word for reason in Reason if reason is not Reason.OK),
)


@dataclass(slots=True)
class Metrics:
    """What happened since the service started."""

    # Answers of /validate
    decisions: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    # Answers of /authorize
    authorizations: Counter[str] = field(
        default_factory=lambda: Counter(dict.fromkeys(_AUTHORIZATIONS, 0))
    )
    audit: AuditMetrics = field(default_factory=AuditMetrics)
    # Requests that went on to the LLM server and have not ended
    in_flight: int = 0
    reloads_ok: int = 0
    reloads_failed: int = 0
    # When the registry in use was loaded (seconds since the epoch), 0: none yet
    loaded_at: float = 0.0
    keys: int = 0
    # SHA-256 of the registry file in use, to prove that what is on disk is what counts
    registry_sha256: str = ""
    connections_refused: int = 0
    requests_unreadable: int = 0
    reports_unreadable: int = 0

    def render(self) -> str:
        """Return everything as Prometheus reads it."""
        decisions = {reason.word: count for reason, count in self.decisions.items()}
        reloads = {"ok": self.reloads_ok, "failed": self.reloads_failed}
        lines = [
            *_counter("decisions_total", "Answers of /validate by reason.", "reason", decisions),
            *_counter(
                "authorizations_total",
                "Answers of /authorize by reason.",
                "reason",
                self.authorizations,
            ),
            *_counter("registry_reloads_total", "Loads of the key registry.", "result", reloads),
            *_counter("audit_records_total", "Audit records.", "action", self.audit.records),
            *_counter(
                "audit_sink_failures_total",
                "Audit records that a sink did not take.",
                "sink",
                self.audit.failures,
            ),
        ]
        for name, kind, text, value in self._singles():
            lines += [*_head(name, kind, text), f"{_PREFIX}_{name} {value}"]
        if self.registry_sha256:
            lines += _head("registry_info", "gauge", "The registry file in use.")
            lines.append(f'{_PREFIX}_registry_info{{sha256="{self.registry_sha256}"}} 1')
        return "\n".join(lines) + "\n"

    def _singles(self) -> Iterable[tuple[str, str, str, int | str]]:
        audit = self.audit
        gauge, counter = "gauge", "counter"
        loaded = f"{self.loaded_at:.3f}"
        refused, unreadable = self.connections_refused, self.requests_unreadable
        return (
            ("keys", gauge, "Keys in the registry in use.", self.keys),
            ("registry_loaded_timestamp_seconds", gauge, "When it was loaded.", loaded),
            ("connections_refused_total", counter, "Connections over the limit.", refused),
            ("requests_unreadable_total", counter, "Requests that break a limit.", unreadable),
            ("reports_unreadable_total", counter, "Odd datagrams.", self.reports_unreadable),
            ("requests_in_flight", gauge, "Requests let through, not ended.", self.in_flight),
            ("audit_writable", gauge, "Whether requests can be recorded.", int(audit.writable)),
            ("audit_sealed", gauge, "Whether the log is sealed.", int(audit.sealed)),
            ("audit_epoch", gauge, "Epoch of the next seal.", audit.epoch),
            ("audit_sequence", gauge, "The last record's number.", audit.sequence),
            ("audit_fsyncs_total", counter, "Times the log was synced.", audit.fsyncs),
            ("audit_bytes_total", counter, "Bytes of records in the file.", audit.bytes),
            ("audit_refused_total", counter, "Records that no sink took.", audit.refused),
            ("audit_suppressed_total", counter, "Refusals only counted.", audit.suppressed),
            ("audit_seals_total", counter, "Seals set.", audit.seals),
            ("audit_rotations_total", counter, "Files put aside.", audit.rotations),
            ("audit_repairs_total", counter, "Torn ends cut off.", audit.repairs),
        )


def _counter(name: str, text: str, label: str, counts: Mapping[str, int]) -> list[str]:
    lines = _head(name, "counter", text)
    lines += [f'{_PREFIX}_{name}{{{label}="{value}"}} {count}' for value, count in counts.items()]
    return lines


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {_PREFIX}_{name} {text}", f"# TYPE {_PREFIX}_{name} {kind}"]
