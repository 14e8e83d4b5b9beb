# SPDX-License-Identifier: GPL-3.0-or-later
"""ansible-test sanity, on a copy of what is released: it wants real files at .../llmsec/hardening.

The tests are not released, and are more than half of all Python: ruff looks at them.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from tests.lab.steps import CACHE, ROOT, run

WORK = CACHE / "sanity"
TREE = WORK / "ansible_collections/llmsec/hardening"
SETTINGS = "tests/config.yml"  # of ansible-test

# ansible-test downloads this script to put pip into its own environments; ensurepip does the same
# without a download.
_GET_PIP = "import ensurepip\nensurepip.bootstrap()\n"


def _copy_tree() -> None:
    """Copy what git would commit, as it is in the working tree, without the tests."""
    shutil.rmtree(TREE, ignore_errors=True)
    listed = run(["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"], cwd=ROOT)
    for name in filter(None, listed.stdout.split("\0")):
        source = ROOT / name
        left_out = name.startswith(("molecule/", "tests/")) and name != SETTINGS
        if source.is_file() and not left_out:
            (TREE / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, TREE / name)
    # A repository of its own: ansible-test asks git which files there are, and .cache/ is ignored.
    run(["git", "init", "--quiet"], cwd=TREE)
    run(["git", "add", "--all"], cwd=TREE)


def _provide_get_pip() -> None:
    directory = Path.home() / ".ansible/test/cache"
    directory.mkdir(parents=True, exist_ok=True)
    for version in ("24_2", "25_2", "25_3", "26_0"):
        script = directory / f"get_pip_{version}.py"
        if not script.exists():
            script.write_text(_GET_PIP)


def commands(words: list[str]) -> list[list[str]]:
    """The whole of sanity for this Python's ansible-core."""
    _copy_tree()
    _provide_get_pip()
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    test = ["ansible-test", "sanity", "--venv", "--python", version, "--color", "no", *words]
    # "All targets skipped" is a green run that tested nothing.
    script = 'cd "$1" && shift && "$@" 2>&1 | tee /dev/stderr | (! grep -q "All targets skipped")'
    return [["bash", "-o", "pipefail", "-c", script, "sanity", str(TREE), *test]]
