# SPDX-License-Identifier: GPL-3.0-or-later
"""Messages for the journal."""

from __future__ import annotations

import json

from llm_key_validator.journal import Journal, Level, RefusalLog


def test_levels_only_where_journald_reads_them() -> None:
    lines: list[str] = []
    Journal(lines.append, with_levels=True).say(Level.ERROR, "x", keys=1)
    Journal(lines.append, with_levels=False).say(Level.INFO, "y")
    assert lines[0].startswith("<3>{")
    assert json.loads(lines[0][3:]) == {"event": "x", "level": "error", "keys": 1}
    assert json.loads(lines[1]) == {"event": "y", "level": "info"}


def test_a_message_is_one_line_whatever_is_in_it() -> None:
    lines: list[str] = []
    Journal(lines.append, with_levels=False).say(Level.INFO, "x", problem="a\n<0>b\u2028")
    assert lines[0].count("\n") == 1
    assert lines[0].isascii()


def test_a_flood_of_refusals_is_counted_not_written() -> None:
    lines: list[str] = []
    refusals = RefusalLog(Journal(lines.append, with_levels=False), 2)
    for _unused in range(5):
        refusals.refused("unknown", None)
    refusals.next_second()
    refusals.refused("revoked", "app1")
    events = [json.loads(line) for line in lines]
    assert [event["event"] for event in events] == [
        "refused",
        "refused",
        "refusals_not_logged",
        "refused",
    ]
    assert events[2]["count"] == 3
    assert events[3]["key_id"] == "app1"
    refusals.next_second()
    assert len(lines) == 4
