# SPDX-License-Identifier: GPL-3.0-or-later
"""llm-audit reads logs of any length in the memory that a short one takes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.bench import audit

SHORT, LONG = 5_000, 50_000
# Bytes for each record that the long one has more. A list that remembers one number each takes 40.
NEXT_TO_NOTHING = 16


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    made = [tmp_path_factory.mktemp("memory") / "log" for _unused in (SHORT, LONG)]
    for folder, records in zip(made, (SHORT, LONG), strict=True):
        audit.write_log(folder, records)
    return made


@pytest.mark.parametrize("name", ["verify", "query", "stats"])
def test_memory_does_not_grow_with_the_log(folders: list[Path], name: str) -> None:
    short, long = (
        audit.measure(audit.commands(log.parent / "first.key")[name], log, sys.executable).bytes
        for log in folders
    )
    assert long - short < NEXT_TO_NOTHING * (LONG - SHORT)
