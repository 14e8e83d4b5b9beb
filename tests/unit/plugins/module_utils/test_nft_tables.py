# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says of its tables, in network namespaces with and without them."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

ASK = """
from ansible_collections.llmsec.hardening.plugins.module_utils.nft_tables import holds_tables
print(holds_tables())
"""


def ask(*enter, before="true"):
    """What it prints, or the last line of its error."""
    done = subprocess.run(
        [*enter, "sh", "-euc", f'{before}; exec "$0" -c "$1"', sys.executable, ASK],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    return (done.stdout or done.stderr).strip().splitlines()[-1]


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("true", "False"),
        ("nft add table ip6 one", "True"),
        ("nft add table netdev one", "True"),
        ("nft add table inet one; nft delete table inet one", "False"),
    ],
)
def test_of_its_own_namespace(before, said):
    assert ask("unshare", "--net", before=before) == said


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_without_the_capability_it_is_an_error():
    enter = ("unshare", "--net", "setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin")
    assert ask(*enter).startswith("PermissionError")
