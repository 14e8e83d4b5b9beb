# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Are the key validator's settings those of the inventory? By the control that each belongs to.

The service takes any settings that make sense, a limit of a million requests as well, so they are
held against what the control node would write. Pure.
"""

from __future__ import annotations

import re
import typing as t
from collections.abc import Iterator, Mapping

from ansible_collections.llmsec.hardening.plugins.module_utils.subjects import Finding, Subject

__all__ = ("settings_findings",)

_HARDEN = "Find out who changed config.json, then run llmsec.hardening.harden."
_ABOUT = (
    ("", "audit_log", "the log is kept as the inventory says"),
    ("_access", "authentication", "who gets in where is decided as the inventory says"),
    ("_limits", "rate_limit", "requests are limited as the inventory says"),
    ("_budget", "budget", "what a key may use ends where the inventory says"),
)
_SUBJECTS = {
    control: Subject(f"audit_log.settings{end}", control, title, "high", _HARDEN)
    for end, control, title in _ABOUT
}
# Limits on requests in a short time; the tiers' others are on what a key may use.
_LIMITS = ("requests_per_minute", "burst", "parallel_requests")
_ABSENT = object()
_SHOWN = 60

Settings = Mapping[str, t.Any]


def settings_findings(found: Settings, wanted: Settings | None) -> Iterator[Finding]:
    """Yield for each control whether its settings are the wanted ones; None: they are not known."""
    if wanted is None:
        for subject in _SUBJECTS.values():
            yield subject.skipped("the inventory's settings (settings) were not given")
        return
    problems: dict[str, list[str]] = {control: [] for control in _SUBJECTS}
    for path, one, other in _differences(found, wanted):
        problems[_control(path)].append(_text(".".join(path), one, other))
    for control, subject in _SUBJECTS.items():
        yield subject.judged(
            problems[control], expected="the inventory's settings", found="they are"
        )


def _differences(
    found: Settings, wanted: Settings, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], object, object]]:
    """Yield (names that lead there, value found, value wanted) of all that differ."""
    for name in dict.fromkeys((*wanted, *found)):
        one, other = found.get(name, _ABSENT), wanted.get(name, _ABSENT)
        path = (*above, str(name))
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from _differences(one, other, path)
        elif path[0] == "tiers" and len(path) == 2 and isinstance(one, Mapping):
            # Of a tier that nobody asked for, each limit belongs to a control.
            yield path, one, other
            yield from _differences(one, {}, path)
        elif one != other:
            yield path, one, other


def _control(path: tuple[str, ...]) -> str:
    if path[0].startswith("audit_"):
        return "audit_log"
    if path[0] == "tiers" and len(path) > 2:
        return "rate_limit" if path[2] in _LIMITS else "budget"
    return (
        "rate_limit" if path[0] in ("tiers", "default_tier", "counters_url") else "authentication"
    )


def _text(name: str, found: object, wanted: object) -> str:
    if found is _ABSENT:
        return f"{name} is not set, and should be {_short(wanted)}"
    if wanted is _ABSENT:
        return f"{name} is {_short(found)}, and should not be set"
    if isinstance(found, list) and isinstance(wanted, list):
        first = next((i for i, pair in enumerate(zip(found, wanted, strict=False))
                      if pair[0] != pair[1]), min(len(found), len(wanted)))  # fmt: skip
        return f"{name} differs from its entry {first + 1} on"
    return f"{name} is {_short(found)}, and should be {_short(wanted)}"


def _short(value: object) -> str:
    # Somebody may have put a password into an address.
    text = re.sub(r"//[^/@\s]*@", "//...@", str(value))
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
