# SPDX-License-Identifier: GPL-3.0-or-later
"""The machine that is measured on: what it needs, and what it is."""

from __future__ import annotations

import os
import platform
import re
import shutil
import time
from pathlib import Path

from tests.lab.steps import run, step

SYSTEM_PYTHON = "/usr/bin/python3"
_PACKAGES = ("nginx", "wrk", "openssl", "python3-uvloop", "python3-httptools")
# About one audit record
_WRITE = b"x" * 700


def install_packages() -> None:
    """Install what is missing from the distribution. No service of it is started."""
    missing = [name for name in _PACKAGES if not _is_installed(name)]
    if not missing:
        return
    arguments = (
        f"name={','.join(missing)} install_recommends=false update_cache=true lock_timeout=300"
        " policy_rc_d=101"
    )
    with step(f"Installing Debian packages: {' '.join(missing)}"):
        run(["ansible", "localhost", "-m", "ansible.builtin.apt", "-a", arguments])


def _is_installed(name: str) -> bool:
    status = run(["dpkg-query", "-W", "-f", "${db:Status-Status}", name], check=False)
    return status.stdout == "installed"


def nginx() -> str:
    """Where nginx is: Debian keeps it out of users' PATH."""
    return shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin") or "nginx"


def describe() -> dict[str, object]:
    """What a reader must know to read the figures."""
    model = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    said = run([nginx(), "-v"]).stderr
    code = (
        "import platform, uvloop, httptools; print(platform.python_version(), uvloop.__version__)"
    )
    python, uvloop = run([SYSTEM_PYTHON, "-I", "-c", code]).stdout.split()
    return {
        "cpu": model[1] if model else platform.machine(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "nginx": said.strip().rpartition("/")[2],
        "python": python,
        "uvloop": uvloop,
    }


def fsyncs_per_second(folder: Path, *, seconds: float = 1.0) -> float:
    """How often one writer can append to a file in ``folder`` and have it on the disk."""
    path = folder / "fsync"
    count, start = 0, time.monotonic()
    with path.open("ab", buffering=0) as file:
        while (now := time.monotonic()) < start + seconds:
            file.write(_WRITE)
            os.fsync(file.fileno())
            count += 1
    path.unlink()
    return round(count / (now - start), 1)
