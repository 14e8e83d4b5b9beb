# SPDX-License-Identifier: GPL-3.0-or-later
"""Counters, and their text for Prometheus (exposition format 0.0.4)."""

from __future__ import annotations

from dataclasses import dataclass, field

from .decision import Reason

_PREFIX = "llm_key_validator"


@dataclass(slots=True)
class Metrics:
    """What happened since the service started."""

    # Every reason is there from the start: a counter that appears late hides its first step.
    decisions: dict[Reason, int] = field(default_factory=lambda: dict.fromkeys(Reason, 0))
    reloads_ok: int = 0
    reloads_failed: int = 0
    # When the registry in use was loaded (seconds since the epoch), 0: none yet
    loaded_at: float = 0.0
    keys: int = 0
    # SHA-256 of the registry file in use, to prove that what is on disk is what counts
    registry_sha256: str = ""
    connections_refused: int = 0
    requests_unreadable: int = 0

    def render(self) -> str:
        """Return everything as Prometheus reads it."""
        lines = _head("decisions_total", "counter", "Answers of /validate by reason.")
        for reason, count in self.decisions.items():
            lines.append(f'{_PREFIX}_decisions_total{{reason="{reason.word}"}} {count}')
        lines += _head("registry_reloads_total", "counter", "Loads of the key registry.")
        lines.append(f'{_PREFIX}_registry_reloads_total{{result="ok"}} {self.reloads_ok}')
        lines.append(f'{_PREFIX}_registry_reloads_total{{result="failed"}} {self.reloads_failed}')
        for name, kind, text, value in self._singles():
            lines += _head(name, kind, text)
            lines.append(f"{_PREFIX}_{name} {value}")
        if self.registry_sha256:
            lines += _head("registry_info", "gauge", "The registry file in use.")
            lines.append(f'{_PREFIX}_registry_info{{sha256="{self.registry_sha256}"}} 1')
        return "\n".join(lines) + "\n"

    def _singles(self) -> list[tuple[str, str, str, str]]:
        return [
            ("keys", "gauge", "Keys in the registry in use.", str(self.keys)),
            (
                "registry_loaded_timestamp_seconds",
                "gauge",
                "When the registry in use was loaded.",
                f"{self.loaded_at:.3f}",
            ),
            (
                "connections_refused_total",
                "counter",
                "Connections over the limit.",
                str(self.connections_refused),
            ),
            (
                "requests_unreadable_total",
                "counter",
                "Requests that broke a limit or HTTP itself.",
                str(self.requests_unreadable),
            ),
        ]


def _head(name: str, kind: str, text: str) -> list[str]:
    return [f"# HELP {_PREFIX}_{name} {text}", f"# TYPE {_PREFIX}_{name} {kind}"]
