# SPDX-License-Identifier: GPL-3.0-or-later
"""From turns to figures, and from figures to a table for people."""

from __future__ import annotations

import math
import statistics
import typing as t
from collections.abc import Callable, Sequence

from tests.bench.gateway.load import Turn
from tests.bench.gateway.rows import BARE

_HEAD = (
    f"{'':<26} {'requests/s':>10} {'÷ bare':>7} {'p50 ms':>8} {'+ bare':>7} {'p99 ms':>8}"
    f" {'nginx µs':>9} {'Python µs':>10} {'records/s':>10}"
)

# What the README's table shows, by the number of connections
_COLUMNS = {
    1: ("requests/s", "÷ bare", "+ p50", "p99"),
    16: ("requests/s", "÷ bare", "p50", "p99", "nginx + Python per request"),
    64: ("requests/s", "÷ bare", "p99", "records/s"),
}


def summary(turns: Sequence[Turn], names: Sequence[str]) -> list[dict[str, t.Any]]:
    """One object for each row and number of connections."""
    return [
        _one([turn for turn in turns if (turn.row, turn.connections) == (name, connections)], turns)
        for connections in sorted({turn.connections for turn in turns})
        for name in names
    ]


def _one(mine: Sequence[Turn], turns: Sequence[Turn]) -> dict[str, t.Any]:
    """The medians of one row's rounds, and their ratios to the bare proxy of the same round."""
    bare = {turn.round: turn for turn in turns if _is_bare(turn, mine[0].connections)}
    each = [(turn, bare[turn.round]) for turn in mine]

    def median(figure: Callable[[Turn], float]) -> float:
        return statistics.median(map(figure, mine))

    return {
        "row": mine[0].row,
        "connections": mine[0].connections,
        "requests_per_second": median(lambda turn: turn.requests_per_second),
        "of_bare": round(
            statistics.median(a.requests_per_second / b.requests_per_second for a, b in each), 4
        ),
        "p50_ms": median(lambda turn: turn.p50_ms),
        "p50_added_ms": round(statistics.median(a.p50_ms - b.p50_ms for a, b in each), 3),
        "p99_ms": median(lambda turn: turn.p99_ms),
        "nginx_us": median(lambda turn: turn.nginx_us),
        "python_us": median(lambda turn: turn.python_us),
        "records_per_second": median(lambda turn: turn.records_per_second),
        "records_per_request": median(lambda turn: turn.records_per_request),
    }


def _is_bare(turn: Turn, connections: int) -> bool:
    return turn.row == BARE and turn.connections == connections


def text(result: dict[str, t.Any]) -> str:
    """The whole result, readable."""
    machine, settings = result["machine"], result["settings"]
    lines = [
        "",
        f"{machine['cpu']}, {machine['cores']} cores; Linux {machine['kernel']},"
        f" nginx {machine['nginx']}, Python {machine['python']}, uvloop {machine['uvloop']},"
        f" LiteLLM {machine['litellm']}",
        f"Medians of {settings['rounds']} interleaved rounds of {settings['seconds']:g} s each;"
        f" others kept {machine['others_cores']:.2f} cores busy meanwhile",
    ]
    for connections in settings["connections"]:
        lines += ["", f"{connections} connection(s)", _HEAD]
        lines += [_line(row) for row in result["rows"] if row["connections"] == connections]
    return "\n".join([*lines, "", *_rest(result)])


def _line(row: dict[str, t.Any]) -> str:
    names = ("nginx_us", "python_us", "records_per_second")
    nginx, python, records = (f"{row[name]:,.0f}" if row[name] else "-" for name in names)
    return (
        f"{row['row']:<26} {row['requests_per_second']:>10,.0f} {row['of_bare']:>7.3f}"
        f" {row['p50_ms']:>8.2f} {row['p50_added_ms']:>7.2f} {row['p99_ms']:>8.2f}"
        f" {nginx:>9} {python:>10} {records:>10}"
    )


def markdown(result: dict[str, t.Any]) -> str:
    """The README's table."""
    heads = [
        f"{connections}: {name}" if name == names[0] else name
        for connections, names in _COLUMNS.items()
        for name in names
    ]
    lines = [["", *heads], ["---"] * (len(heads) + 1)]
    for row in dict.fromkeys(row["row"] for row in result["rows"]):
        cells = {one["connections"]: _cells(one) for one in result["rows"] if one["row"] == row}
        lines.append([row, *(cells[count][name] for count in _COLUMNS for name in _COLUMNS[count])])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cells(row: dict[str, t.Any]) -> dict[str, str]:
    """All that the table can show of one row with one number of connections."""
    spent = [f"{row[name]:,.0f}" for name in ("nginx_us", "python_us") if row[name]]
    return {
        "requests/s": f"{row['requests_per_second']:,.0f}",
        "÷ bare": f"{row['of_bare']:.2g}",
        "+ p50": f"{row['p50_added_ms']:.2f} ms",
        "p50": f"{row['p50_ms']:.2f} ms",
        "p99": f"{row['p99_ms']:.2f} ms",
        "nginx + Python per request": f"{' + '.join(spent)} µs",
        "records/s": f"{row['records_per_second']:,.0f}" if row["records_per_second"] else "-",
    }


def _rest(result: dict[str, t.Any]) -> list[str]:
    reload, fsync = result["reload"], result["machine"]["fsyncs_per_second"]
    memory = [
        f"{name} {_mebibytes(used['now'])} (peak {_mebibytes(used['peak'])})"
        for name, used in result["memory"].items()
    ]
    loads = statistics.median(one["load_seconds"] for one in reload["with"])
    return [
        f"Resident memory of Python: {'; '.join(memory)}",
        f"Reloading {reload['keys']:,} keys under load ({loads:.1f} s): longest request"
        f" {reload['longest_with_ms']:.1f} ms, {reload['longest_without_ms']:.1f} ms without",
        f"One writer's fsyncs on this disk: {fsync:,.0f}/s",
    ]


def _mebibytes(number: int) -> str:
    return f"{math.ceil(number / 1024**2)} MiB"
