# SPDX-License-Identifier: GPL-3.0-or-later
"""Who reaches which port of a host: real connections, and listeners to answer them."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from tests.lab.hosts import Lab
from tests.lab.playbook import INVENTORY
from tests.lab.steps import ROOT

# Answers "open", "refused" or "silent" for each (address, port).
_PROGRAM = """
import json, socket, sys
answers = []
for address, port in json.load(sys.stdin):
    try:
        socket.create_connection((address, port), timeout=2).close()
        answers.append("open")
    except TimeoutError:
        answers.append("silent")
    except OSError:
        answers.append("refused")
json.dump(answers, sys.stdout)
"""
# Accepts on each (address, port) until it is stopped.
_LISTENER = """
import json, selectors, socket, sys
chooser = selectors.DefaultSelector()
for address, port in json.loads(sys.argv[1]):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    chooser.register(socket.create_server((address, port), family=family), selectors.EVENT_READ)
while True:
    for key, _events in chooser.select():
        key.fileobj.accept()[0].close()
"""

Targets = Sequence[tuple[str, int]]


def reach(lab: Lab, by: str, targets: Targets, user: str = "root") -> list[str]:
    """Connect from the host `by` as a user to each (address, port): open, refused or silent."""
    words = ["python3", "-c", _PROGRAM]
    if user != "root":
        words = ["runuser", "-u", user, "--", *words]
    done = lab.run(by, *words, stdin=json.dumps(targets), check=True)
    return json.loads(done.stdout)


@contextmanager
def listening(lab: Lab, on: str, targets: Targets) -> Iterator[None]:
    """Have somebody answer on these addresses of a host, as root."""
    unit = "lab-listener.service"
    words = ["python3", "-c", _LISTENER, json.dumps(targets)]
    lab.run(on, "systemd-run", "--quiet", "--collect", f"--unit={unit}", *words, check=True)
    try:
        for _attempt in range(50):
            if set(reach(lab, on, targets)) == {"open"}:
                break
            time.sleep(0.1)
        else:
            raise AssertionError(f"nobody listens on {targets} of {on}")
        yield
    finally:
        lab.run(on, "systemctl", "stop", unit)


def module(host: str, name: str, **options: Any) -> dict[str, Any]:
    """Run one module of the collection on a host, as a playbook would, and return its result."""
    done = subprocess.run(
        ["ansible", "-i", INVENTORY, host, "--become", "-m", f"llmsec.hardening.{name}",
         "-a", json.dumps(options)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        env=_json_output(),
    )  # fmt: skip
    start = done.stdout.index("{")
    return json.loads(done.stdout[start:])


def _json_output() -> dict[str, str]:
    return {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"}
