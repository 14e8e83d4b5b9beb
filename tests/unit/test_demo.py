# SPDX-License-Identifier: GPL-3.0-or-later
"""What ./dev demo makes of the audit log."""

from __future__ import annotations

from subprocess import CompletedProcess
from typing import Any

import pytest

from tests.lab.demo import audit_log


class Gateway:
    """A lab whose llm-audit answers as it is told."""

    def __init__(self, **said: tuple[int, str]) -> None:
        self.said = {"query": (0, "a request\n"), "tail": (0, ""), "verify": (0, "whole"), **said}

    def run(self, _host: str, *words: str) -> CompletedProcess[str]:
        status, text = self.said[words[1]]
        return CompletedProcess(words, status, text, "a warning\n")


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, []),
        ({"query": (0, "\n")}, ["llm-audit query --key demo found nothing"]),
        ({"query": (2, "a request")}, ["llm-audit query --key demo ended with 2"]),
        ({"verify": (1, "broken")}, ["llm-audit verify ended with 1"]),
        ({"verify": (2, "whole")}, ["llm-audit verify ended with 2"]),
    ],
)
def test_what_is_wrong_with_the_log(said: dict[str, Any], expected: list[str]) -> None:
    lab: Any = Gateway(**said)
    shown, wrong = audit_log(lab)
    assert wrong == expected
    assert "$ sudo llm-audit verify" in shown
