# SPDX-License-Identifier: GPL-3.0-or-later
"""What bench gateway makes of its turns."""

from __future__ import annotations

from tests.bench.gateway import report
from tests.bench.gateway.load import Turn
from tests.bench.gateway.rows import BARE


def turn(row: str, connections: int, number: int, rate: float, **more: float) -> Turn:
    zeros = dict.fromkeys(Turn._fields, 0.0)
    given = {"row": row, "connections": connections, "round": number}
    return Turn(**{**zeros, **given, "requests_per_second": rate, **more})


def test_the_readme_table_has_medians_and_each_rounds_ratio() -> None:
    turns = [
        one
        for connections in (1, 16, 64)
        for number, (bare, full) in enumerate([(1000, 250), (2000, 400), (4000, 1200)])
        for one in (
            turn(BARE, connections, number, bare, p50_ms=1, p99_ms=2, nginx_us=58),
            turn("full", connections, number, full, p50_ms=1.5, p99_ms=9 + number,
                 nginx_us=137, python_us=217.4, records_per_second=2 * full),
        )
    ]  # fmt: skip
    rows = report.summary(turns, [BARE, "full"])
    head, _rule, bare, full = report.markdown({"rows": rows}).splitlines()
    assert head.count("|") == bare.count("|") == full.count("|")
    assert bare == (
        "| bare proxy_pass | 2,000 | 1 | 0.00 ms | 2.00 ms"
        " | 2,000 | 1 | 1.00 ms | 2.00 ms | 58 µs | 2,000 | 1 | 2.00 ms | - |"
    )
    assert full == (
        "| full | 400 | 0.25 | 0.50 ms | 10.00 ms"
        " | 400 | 0.25 | 1.50 ms | 10.00 ms | 137 + 217 µs | 400 | 0.25 | 10.00 ms | 800 |"
    )
