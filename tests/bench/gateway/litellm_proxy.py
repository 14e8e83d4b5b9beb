# SPDX-License-Identifier: GPL-3.0-or-later
"""LiteLLM's proxy, pinned by litellm.lock, in an environment of its own.

The lock is made anew with ``uv pip compile --universal --python-version 3.11 --generate-hashes
--no-annotate --no-header --no-emit-index-url`` from the one line ``litellm[proxy]``.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.bench.gateway.processes import Program, listens
from tests.lab.steps import CACHE, LabError, key_of, run, step
from tests.unit.gateway.stage import free_port

MASTER_KEY = "sk-0123456789abcdef0123456789abcdef"
# With 64 connections an answer takes seconds.
LEAST_SECONDS = 8.0
_LOCK = Path(__file__).with_name("litellm.lock")


def environment() -> Path:
    """The virtual environment. Raises LabError when it cannot be made."""
    path = CACHE / f"litellm-{key_of(_LOCK.read_text(), sys.version)}"
    if not path.exists():
        for stale in CACHE.glob("litellm-*"):
            shutil.rmtree(stale)
        half = path.with_suffix(".half")
        with step("Installing LiteLLM"):
            try:
                run([sys.executable, "-m", "venv", "--clear", half])
                run(
                    [half / "bin/python", "-m", "pip", "install", "--quiet", "--no-deps",
                     "--require-hashes", "-r", _LOCK]
                )  # fmt: skip
            except (LabError, subprocess.TimeoutExpired) as error:
                raise LabError(f"its packages cannot be installed here.\n{error}") from error
        half.rename(path)
    return path


def version() -> str:
    """The version that the lock pins."""
    pins = (line.split() for line in _LOCK.read_text().splitlines())
    return next(pin[0].partition("==")[2] for pin in pins if pin and pin[0].startswith("litellm=="))


def start(folder: Path, backend: int) -> tuple[Program, int]:
    """Start the proxy with one worker; return it and its port. Raises LabError."""
    port = free_port()
    upstream = {
        "model": "openai/tiny",
        "api_base": f"http://127.0.0.1:{backend}/v1",
        "api_key": "none",
    }
    settings = {
        "model_list": [{"model_name": "tiny", "litellm_params": upstream}],
        "general_settings": {"master_key": MASTER_KEY},
    }
    # YAML is what it reads, and JSON is YAML.
    (folder / "litellm.yaml").write_text(json.dumps(settings))
    with step("Starting LiteLLM"):
        # python -m: the scripts of an environment that was moved name a Python that is gone.
        program = Program(
            [environment() / "bin/python", "-c", "from litellm import run_server; run_server()",
             "--config", folder / "litellm.yaml", "--host", "127.0.0.1", "--port", str(port),
             "--num_workers", "1"],
            folder / "litellm.log",
            env={
                "PATH": os.environ["PATH"],
                "HOME": str(folder),
                # Nothing is fetched from outside, and nothing logged but errors.
                "LITELLM_LOCAL_MODEL_COST_MAP": "True",
                "LITELLM_MODE": "PRODUCTION",
                "LITELLM_LOG": "ERROR",
            },
        )  # fmt: skip
        program.wait_for(lambda: listens(port))
    return program, port
