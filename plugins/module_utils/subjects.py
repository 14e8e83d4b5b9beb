# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Findings from lists of problems: none is a pass, some are a fail, and evidence stays short."""

from __future__ import annotations

import typing as t
from collections.abc import Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils import findings
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.text import (
    clean,
    clean_lines,
)

__all__ = ("Finding", "Subject")

Finding = dict[str, t.Any]


class Subject(t.NamedTuple):
    """What is judged: the finding's name, control, title, severity and what repairs it."""

    id: str
    control: str
    title: str
    severity: str
    remediation: str

    def judged(
        self, problems: Sequence[str], *, expected: str, found: str, severity: str = ""
    ) -> Finding:
        """Return a fail with the problems, or a pass with what was found."""
        if not problems:
            return self._made("pass", expected, found, (), severity)
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        evidence = problems if len(problems) > 1 else ()
        return self._made("fail", expected, problems[0] + more, evidence, severity)

    def passed(self, found: str, evidence: Sequence[str] = ()) -> Finding:
        """Return a fact that needs nothing done."""
        return self._made("pass", "as it is", found, evidence)

    def skipped(self, reason: str) -> Finding:
        """Return what was left out, and why."""
        return self._made("skip", "measured", reason, ())

    def not_measured(self, why: object) -> Finding:
        """Return what could not be looked at, which is no pass."""
        return findings.not_measured(
            self.id, self.control, self.title, clean(why), self.remediation
        )

    def _made(
        self, result: str, expected: str, actual: str, evidence: Sequence[str], severity: str = ""
    ) -> Finding:
        return findings.finding(
            self.id, self.control, self.title, severity or self.severity, result,
            expected=expected, actual=clean(actual), evidence=clean_lines(list(evidence)),
            remediation=self.remediation,
        )  # fmt: skip
