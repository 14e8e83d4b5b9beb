# SPDX-License-Identifier: GPL-3.0-or-later
"""One row's turn under wrk: what the client saw, and what the servers spent."""

from __future__ import annotations

import json
import math
import subprocess
import typing as t
from pathlib import Path

from tests.bench.gateway.processes import cpu_seconds, settle
from tests.lab.steps import LabError

if t.TYPE_CHECKING:
    from tests.bench.gateway.rows import Row

PATH = "/v1/chat/completions"
# wrk gives up on an answer after so long (seconds). LiteLLM needs some of it.
_PATIENCE = 60
# A script without a request() function: wrk makes the request once, and no Lua runs in between.
_SCRIPT = """\
wrk.method = "POST"
wrk.body = [==[%(body)s]==]
wrk.headers["Content-Type"] = "application/json"
wrk.headers["Authorization"] = "Bearer %(key)s"
function done(summary, latency)
    local errors, all = summary.errors, 0
    for kind, number in pairs(errors) do all = all + number end
    io.write(string.format(
        '\\nRESULT{"requests":%%d,"seconds":%%.6f,"p50":%%d,"p99":%%d,"max":%%d,"errors":%%d}\\n',
        summary.requests, summary.duration / 1e6,
        latency:percentile(50), latency:percentile(99), latency.max, all))
end
"""


def chat(text: str) -> str:
    """A chat request as clients send it."""
    system = "You are a helpful assistant. Answer briefly and in plain words."
    messages = [{"role": "system", "content": system}, {"role": "user", "content": text}]
    return json.dumps({"model": "tiny", "messages": messages, "temperature": 0.2, "max_tokens": 64})


BODY = chat(
    "Which three things should an administrator look at first when a service that ran for years"
    " is suddenly slow?"
)


class Turn(t.NamedTuple):
    """What one turn showed. Latencies in milliseconds, CPU in microseconds a request."""

    row: str
    connections: int
    round: int
    requests: int
    requests_per_second: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    nginx_us: float
    python_us: float
    # Audit records; 0 where there is no audit log
    records_per_second: float
    records_per_request: float
    # How many cores others kept busy right afterwards
    others_cores: float


def command(row: Row, folder: Path, *, connections: int, seconds: float) -> list[str]:
    """How wrk is called for a row."""
    whole_seconds = math.ceil(max(seconds, row.least_seconds))
    script = folder / f"{row.word}.lua"
    script.write_text(_SCRIPT % {"body": BODY, "key": row.key})
    return [
        "wrk", "--threads", "1", "--connections", str(connections),
        "--duration", f"{whole_seconds}s", "--timeout", f"{_PATIENCE}s",
        "--script", str(script), row.url + PATH,
    ]  # fmt: skip


def read(output: str, row: Row) -> dict[str, float]:
    """What wrk measured. Raises LabError when there was any error, or no answer at all."""
    _unused, found, rest = output.partition("RESULT")
    if not found:
        raise LabError(f"wrk said nothing about {row.name}:\n{output[-500:]}")
    result = json.loads(rest)
    if result["errors"] or not result["requests"]:
        raise LabError(
            f"{row.name}: {result['errors']} of {result['requests']} requests failed\n{row.said()}"
        )
    return result


def take_turn(row: Row, folder: Path, *, connections: int, seconds: float) -> Turn:
    """Load one row, and wait until it is idle again."""
    words = command(row, folder, connections=connections, seconds=seconds)
    records, nginx, python = row.records(), cpu_seconds(row.nginx), cpu_seconds(row.python)
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    nginx, python = cpu_seconds(row.nginx) - nginx, cpu_seconds(row.python) - python
    seen = read(done.stdout + done.stderr, row)
    requests = seen["requests"]
    others = settle([*row.nginx, *row.python])
    recorded = row.records() - records
    return Turn(
        row=row.name,
        connections=connections,
        round=0,
        requests=int(requests),
        requests_per_second=round(requests / seen["seconds"], 1),
        p50_ms=seen["p50"] / 1000,
        p99_ms=seen["p99"] / 1000,
        max_ms=seen["max"] / 1000,
        nginx_us=round(nginx / requests * 1e6, 1),
        python_us=round(python / requests * 1e6, 1),
        records_per_second=round(recorded / seen["seconds"], 1),
        records_per_request=round(recorded / requests, 3),
        others_cores=round(others, 2),
    )
