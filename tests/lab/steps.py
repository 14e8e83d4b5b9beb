# SPDX-License-Identifier: GPL-3.0-or-later
"""Commands and progress: what runs, how long it took, and its output when it fails."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache"

HEARTBEAT = 20  # seconds

_print_lock = threading.Lock()


class LabError(Exception):
    """Something the lab needs did not work; the message says what, for a person."""


def say(text: str) -> None:
    """One whole line on standard error, also when several threads speak."""
    with _print_lock:
        sys.stderr.write(f"{time.strftime('%H:%M:%S')}  {text}\n")
        sys.stderr.flush()


@contextmanager
def step(title: str) -> Iterator[None]:
    """Announce a step, say now and then that it goes on, and at the end how long it took."""
    say(f"{title} …")
    start = time.monotonic()
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(HEARTBEAT):
            say(f"{title} … {time.monotonic() - start:.0f} s so far")

    threading.Thread(target=go_on, daemon=True).start()
    try:
        yield
    finally:
        over.set()
    say(f"{title}: {time.monotonic() - start:.1f} s")


def run(
    command: Sequence[str | Path],
    *,
    env: dict[str, str] | None = None,
    cwd: Path | None = None,
    stdin: str | None = None,
    check: bool = True,
    timeout: float = 900,
) -> subprocess.CompletedProcess[str]:
    """Run a command quietly; a failure raises LabError with the end of its output."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words,
        env={**os.environ, **(env or {})},
        cwd=cwd,
        input=stdin if stdin is not None else "",
        capture_output=True,
        text=True,
        errors="replace",
        timeout=timeout,
        check=False,
    )
    if check and done.returncode != 0:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-25:])
        raise LabError(f"{shlex.join(words)[:300]}\nexited with {done.returncode}:\n{tail}")
    return done


def wait_until(question: Callable[[], Any], seconds: float = 15) -> Any:
    """Ask until the answer is true; the last answer otherwise."""
    deadline = time.monotonic() + seconds
    while not (answer := question()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return answer


def put(path: Path, text: str) -> None:
    """Write a file whole, and only when it changes: others may be reading it just now."""
    if path.exists() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", dir=path.parent, prefix=f".{path.name}.", delete=False
    ) as new:
        new.write(text)
    os.chmod(new.name, 0o644)
    os.replace(new.name, path)


def key_of(*parts: object) -> str:
    """A short key of what something is made from: equal parts, equal key."""
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:12]


@contextmanager
def scratch_directory() -> Iterator[Path]:
    """A directory beside the cache, on the same file system, removed afterwards."""
    CACHE.mkdir(exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix="build-", dir=CACHE))
    path.chmod(0o755)  # mmdebstrap's apt reads it as another user
    try:
        yield path
    finally:
        # Go makes its module cache read-only.
        run(["chmod", "-R", "u+w", path], check=False)
        shutil.rmtree(path, ignore_errors=True)
