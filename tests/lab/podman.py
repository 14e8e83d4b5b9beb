# SPDX-License-Identifier: GPL-3.0-or-later
"""Containers with systemd as their first process, through podman's command line.

Everything this checkout makes carries its prefix, so that two checkouts never meet
and `./dev clean` can remove its own things and nothing else.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from pathlib import Path
from typing import Any

from tests.lab.steps import CACHE, ROOT, LabError, put, run

PREFIX = "llmsec-" + hashlib.sha256(str(ROOT).encode()).hexdigest()[:8]
_REMOVAL_ATTEMPTS = 5

# runc and cgroupfs also work in virtual machines with hybrid cgroups or without CAP_SYS_RESOURCE,
# where podman's defaults do not. Given by CONTAINERS_CONF: the user's own file stays as it is.
_CONTAINERS_CONF = """\
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
[containers]
default_ulimits = ["nofile=8192:8192", "nproc=8192:8192"]
[network]
network_backend = "netavark"
"""


def podman(
    *words: str | Path, check: bool = True, stdin: str | None = None, timeout: float = 300
) -> subprocess.CompletedProcess[str]:
    """Run podman with the lab's settings."""
    conf = CACHE / "containers.conf"
    put(conf, _CONTAINERS_CONF)
    env = {"CONTAINERS_CONF": str(conf)}
    return run(["podman", *words], env=env, check=check, stdin=stdin, timeout=timeout)


def inspect(kind: str, name: str) -> dict[str, Any] | None:
    """What podman knows of a container, network or image; None when there is none."""
    done = podman(kind, "inspect", name, check=False)
    if done.returncode != 0:
        return None
    return json.loads(done.stdout)[0]


def own_containers() -> list[str]:
    """Names of this checkout's containers, running or not."""
    done = podman("ps", "--all", "--format", "{{.Names}}", "--filter", f"name=^{PREFIX}-")
    return done.stdout.split()


def remove_containers(names: list[str]) -> None:
    """Remove containers by name, half-made ones too.

    podman gives up on a container that ends by itself between its look and its SIGKILL ("container
    state improper: stopped"), more often the more are removed at once: what is left is asked again.
    """
    left = list(names)
    for attempt in range(_REMOVAL_ATTEMPTS):
        if not left:
            return
        time.sleep(attempt)
        done = podman("rm", "--force", "--time", "1", *left, check=False)
        here = set(own_containers())
        left = [name for name in left if name in here]
    if left:
        raise LabError(f"podman does not remove {', '.join(left)}: {done.stderr.strip()}")
