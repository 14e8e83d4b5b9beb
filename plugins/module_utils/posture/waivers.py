# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Waivers: failures that somebody answers for until a day.

A waiver names findings and hosts by globs, and says why, who and until when. It covers failures;
what could not be measured (`error`) only when it says so. Once it has expired it covers nothing,
and is a failure itself.
"""

from __future__ import annotations

import datetime
import typing as t
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from ansible_collections.llmsec.hardening.plugins.module_utils.posture.text import clean

__all__ = ("Waiver", "WaiverError", "covering", "parse_waivers")

_REQUIRED = ("id", "reason", "owner", "expires")
_OPTIONAL = ("hosts", "also_errors")


class WaiverError(ValueError):
    """A waiver that says too little, or something nobody knows."""


@dataclass(frozen=True, slots=True)
class Waiver:
    """One waiver. It holds through the day `expires`, in UTC."""

    id: str
    reason: str
    owner: str
    expires: datetime.date
    hosts: tuple[str, ...] = ("*",)
    also_errors: bool = False

    def concerns(self, host: str, finding: Mapping[str, t.Any]) -> bool:
        """Return whether it is about this finding, whether or not it has expired."""
        results = {"fail", "error"} if self.also_errors else {"fail"}
        return (
            finding["result"] in results
            and fnmatchcase(finding["id"], self.id)
            and any(fnmatchcase(host, glob) for glob in self.hosts)
        )

    def expired(self, today: datetime.date) -> bool:
        """Return whether its last day is over."""
        return today > self.expires

    def as_dict(self) -> dict[str, t.Any]:
        """Return the waiver as plain data, for reports."""
        return {
            "id": self.id, "hosts": list(self.hosts), "reason": self.reason, "owner": self.owner,
            "expires": self.expires.isoformat(), "also_errors": self.also_errors,
        }  # fmt: skip


def _text(raw: Mapping[str, t.Any], key: str, place: str) -> str:
    value = raw[key]
    if not isinstance(value, str) or not value.strip():
        raise WaiverError(f"{place}: {key} must be a text that is not empty")
    return clean(value.strip())


def _day(value: object, place: str) -> datetime.date:
    # YAML makes a date of 2027-01-31 when it stands there without quotes.
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        return value
    try:
        # strptime takes 2027-1-1 as well, fromisoformat 20270101: neither is what was asked for
        day = datetime.date.fromisoformat(str(value))
        if day.isoformat() == str(value):
            return day
    except ValueError:
        pass
    raise WaiverError(f"{place}: expires must be a day like 2027-01-31, not {value!r}")


def _hosts(value: object, place: str) -> tuple[str, ...]:
    if isinstance(value, Sequence) and not isinstance(value, str) and value:
        globs = tuple(value)
        if all(isinstance(glob, str) and glob for glob in globs):
            return globs
    raise WaiverError(f"{place}: hosts must be a list of names or globs that is not empty")


def _parse(raw: object, place: str) -> Waiver:
    if not isinstance(raw, Mapping):
        raise WaiverError(f"{place} must be a dictionary")
    missing = [key for key in _REQUIRED if key not in raw]
    if missing:
        raise WaiverError(f"{place}: {', '.join(missing)} missing")
    unknown = sorted(str(key) for key in raw if key not in _REQUIRED + _OPTIONAL)
    if unknown:
        raise WaiverError(f"{place}: unknown {', '.join(unknown)}")
    name = _text(raw, "id", place)
    if name[0] in "*?[":
        raise WaiverError(f"{place}: id must begin with the subject it waives, as firewall.*")
    errors = raw.get("also_errors", False)
    if not isinstance(errors, bool):
        raise WaiverError(f"{place}: also_errors must be true or false")
    return Waiver(
        name, _text(raw, "reason", place), _text(raw, "owner", place),
        _day(raw["expires"], place), _hosts(raw.get("hosts", ("*",)), place), errors,
    )  # fmt: skip


def parse_waivers(raw: object) -> list[Waiver]:
    """Return the waivers of a list of dictionaries. Raises WaiverError, which names the one."""
    if not isinstance(raw, Sequence) or isinstance(raw, str):
        raise WaiverError("waivers must be a list")
    return [_parse(one, f"waiver {number}") for number, one in enumerate(raw, 1)]


def covering(
    waivers: Sequence[Waiver], host: str, finding: Mapping[str, t.Any], today: datetime.date
) -> Waiver | None:
    """Return the waiver that is about a finding: one that still holds before one that expired."""
    found = [waiver for waiver in waivers if waiver.concerns(host, finding)]
    return min(found, key=lambda waiver: waiver.expired(today), default=None)
