# SPDX-License-Identifier: GPL-3.0-or-later
"""How long llm-audit takes to read a million records, and how much memory.

The log is one of a busy gateway: requests and their responses of 50 keys, sealed every 10,000
records, in files of 100,000. The distribution's Python reads it. Figures are processor time, of one
core: what else runs on the machine does not count; the file system has the log in memory.
"""

from __future__ import annotations

import json
import subprocess
import typing as t
from pathlib import Path

from tests.lab.steps import CACHE, ROOT, LabError, put, run, say, scratch_directory, step
from tests.unit.key_validator.audit.reference_log import FIRST_KEY, ReferenceLog

RECORDS = 1_000_000
RESULT = CACHE / "bench" / "audit.json"
SYSTEM_PYTHON = "/usr/bin/python3"
_FILES = ROOT / "roles/key_validator/files"
_KEYS = 50
_RECORDS_A_FILE, _RECORDS_A_SEAL = 100_000, 10_000
# What llm-audit runs, and what the kernel then says of the process. Not by wait4(2): a child's
# ru_maxrss begins with what its parent had.
_PROGRAM = """
import json, re, sys, time
sys.path.insert(0, sys.argv.pop(1))
from llm_key_validator.audit.cli import main
status = main(sys.argv[1:])
peak = re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]
print(json.dumps({"seconds": time.process_time(), "bytes": int(peak) * 1024}), file=sys.stderr)
sys.exit(status)
"""


class Figures(t.NamedTuple):
    """Of one command."""

    seconds: float
    bytes: int  # at its peak


def commands(key_file: Path) -> dict[str, list[str]]:
    """What is measured: each reads the whole log."""
    return {
        "verify": ["verify", "--first-key", str(key_file)],
        "query": ["query", "--key", "app1", "--json"],
        "stats": ["stats"],
    }


def write_log(folder: Path, records: int) -> None:
    """Write a log and its first key (first.key, beside the folder)."""
    folder.mkdir()
    (folder.parent / "first.key").write_text(f"{FIRST_KEY.hex()}\n")
    log = ReferenceLog()
    while log.sequence < records:
        number = log.sequence
        log.request(f"{number:032x}", key=f"app{number % _KEYS}")
        log.response(f"{number:032x}", key=f"app{number % _KEYS}")
        if number // _RECORDS_A_SEAL < log.sequence // _RECORDS_A_SEAL:
            log.seal()
        if number // _RECORDS_A_FILE < log.sequence // _RECORDS_A_FILE:
            _put_aside(log, folder)
    log.write(folder)


def _put_aside(log: ReferenceLog, folder: Path) -> None:
    """Write the file that is full, and forget it: this process need not hold all of them."""
    (lines,) = log.files
    first = json.loads(lines[0])["event.sequence"]
    (folder / f"audit-{first:020d}.jsonl").write_bytes(b"".join(lines))
    log.files.clear()
    log.open()


def measure(words: list[str], folder: Path, python: str = SYSTEM_PYTHON) -> Figures:
    """Run llm-audit over the log. Raises LabError when it does not say that all is well."""
    command = [python, "-I", "-B", "-c", _PROGRAM, _FILES, *words, folder]
    done = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise LabError(f"llm-audit {' '.join(words)}: {done.returncode}: {done.stderr}")
    return Figures(**json.loads(done.stderr.splitlines()[-1]))


def main(_words: list[str]) -> None:
    """./dev bench audit"""
    with scratch_directory() as scratch:
        log = scratch / "log"
        with step(f"Writing {RECORDS:,} records"):
            write_log(log, RECORDS)
        size = sum(file.stat().st_size for file in log.iterdir())
        found = {
            name: measure(words, log) for name, words in commands(scratch / "first.key").items()
        }
    python = run([SYSTEM_PYTHON, "-V"]).stdout.split()[1]
    print(f"{RECORDS:,} records, {size / 1e6:,.0f} MB; Python {python}")
    for name, figures in found.items():
        print(f"  {name:8} {figures.seconds:6.1f} s {figures.bytes / 1024**2:6.0f} MiB")
    seen = {name: figures._asdict() for name, figures in found.items()}
    result = {"python": python, "records": RECORDS, "log_bytes": size, "commands": seen}
    put(RESULT, json.dumps(result, indent=2) + "\n")
    say(f"All figures are in {RESULT.relative_to(ROOT)}")
