# SPDX-License-Identifier: GPL-3.0-or-later
"""What a request costs on its way through the gateway, beside a bare proxy and beside LiteLLM.

Everything runs on loopback of this machine, in processes and folders of its own, and is gone
afterwards. The client is ``wrk`` with one thread: it posts the same chat request (about 300
bytes, with a key) over kept-alive TLS connections, as fast as the answers come. The LLM server is
an nginx that answers every request with the same small completion, so that what is left is the
path. The rows:

- *bare*: nginx with ``proxy_pass``, the gateway's TLS settings, and no access log.
- *validate*: the role's nginx configuration, but straight on to the LLM server once ``/validate``
  has said who asks: no policy, no audit.
- *full*: the role's nginx configuration with its defaults, access log, audit datagrams and rate
  limits (out of reach) included, with a validator of 10 keys and of 100,000, each without and with
  ``audit_fsync``. The validators are the real service, run by the distribution's Python with the
  role's default settings: audit on, sealed, no quotas.
- *litellm*: LiteLLM's proxy, one worker, in front of the same LLM server, without a database and
  without TLS, which is in its favour.

Every row has its turn for a few seconds (LiteLLM for 8, its answers take seconds), one after the
other, and so on for three rounds, with 1, 16 and 64 connections. A figure is the median of the
rounds; ÷ bare is the median of each round's ratio. Requests/s and latencies are wrk's. The CPU
times are what the kernel accounted to the row's nginx (the LLM server's is another) and to its
Python while wrk ran, over wrk's requests. An answer other than 2xx or 3xx, or any other error,
ends the benchmark: fast refusals are no result. Whatever else runs on the machine shows in all of
it, least in the ratios and the CPU times; how much that was is said.

Records/s counts what was added to the audit log (by its own sequence numbers), with the disk's
fsync rate for one writer measured beside it. The reload: while wrk holds 4 connections busy, a
client asks one request after the other; its longest wait without and with a new registry of
100,000 keys being loaded is what is reported.

``--quick`` measures each turn for one second. Nothing here passes or fails for being slow.
"""

from __future__ import annotations

import json
import signal
import statistics
import sys
import tempfile
import typing as t
from contextlib import ExitStack
from pathlib import Path

from tests.bench.gateway import litellm_proxy, load, machine, report, rows, stall
from tests.lab.steps import CACHE, ROOT, LabError, put, say, scratch_directory, step

RESULT = CACHE / "bench" / "gateway.json"
CONNECTIONS = (1, 16, 64)
ROUNDS = 3
SECONDS = 5.0
QUICK_SECONDS = 1.0
RELOADS = 3


def measure(built: list[rows.Row], folder: Path, seconds: float) -> list[load.Turn]:
    """Every row's turns, interleaved; no row has the same place in every round."""
    turns = []
    for row in built:
        load.take_turn(row, folder, connections=16, seconds=min(1.0, seconds))  # warm
    for connections in CONNECTIONS:
        with step(f"{ROUNDS} rounds with {connections} connection(s)"):
            for number in range(ROUNDS):
                for row in built[number:] + built[:number]:
                    turn = load.take_turn(row, folder, connections=connections, seconds=seconds)
                    turns.append(turn._replace(round=number))
    return turns


def run(seconds: float) -> tuple[dict[str, t.Any], list[str]]:
    """Build everything, measure it and end it; return the result, and what is missing in it."""
    with ExitStack() as stack:
        # The audit logs belong on a real disk; a socket's path must be short.
        folder = stack.enter_context(scratch_directory())
        sockets = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="llmsec-bench-")))
        built = rows.build(stack, folder, sockets)
        turns = measure(built.rows, folder, seconds)
        memory = {row.name: row.memory() for row in built.rows if row.has_own_python}
        with step("Reloading 100,000 keys under load"):
            reload = stall.measure(built.many_keys, folder, reloads=RELOADS, seconds=seconds)
        described = {
            **machine.describe(),
            "litellm": litellm_proxy.version(),
            "fsyncs_per_second": machine.fsyncs_per_second(folder),
            "others_cores": statistics.median(turn.others_cores for turn in turns),
        }
    result = {
        "machine": described,
        "settings": {"connections": CONNECTIONS, "rounds": ROUNDS, "seconds": seconds},
        "rows": report.summary(turns, [row.name for row in built.rows]),
        "memory": memory,
        "reload": reload,
        "turns": [turn._asdict() for turn in turns],
    }
    return result, built.missing


def main(words: list[str]) -> None:
    """./dev bench gateway [--quick]"""
    if words not in ([], ["--quick"]):
        raise LabError("bench gateway takes only --quick")
    # Ended from outside, it still ends what it started.
    signal.signal(signal.SIGTERM, lambda *_unused: sys.exit(143))
    machine.install_packages()
    result, missing = run(QUICK_SECONDS if words else SECONDS)
    put(RESULT, json.dumps(result, indent=2) + "\n")
    print("\n".join([report.text(result), *missing, "", report.markdown(result)]))
    say(f"All figures are in {RESULT.relative_to(ROOT)}")
