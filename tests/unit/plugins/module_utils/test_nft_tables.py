# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says of its tables, in network namespaces with and without them."""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils import nft_tables

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


def message(kind, status=0, flags=0):
    return struct.pack("=IHHIIi", 20, kind, flags, 1, 0, status)


@pytest.mark.parametrize("code", [errno.EPERM, errno.EINVAL, 0])
def test_an_error_is_no_empty_list(code):
    with pytest.raises(OSError, match=r"\[Errno") as raised:
        nft_tables._table_in(message(2, -code))
    assert raised.value.errno == code


def test_an_interrupted_list_is_not_believed():
    with pytest.raises(InterruptedError):
        nft_tables._table_in(message(3, flags=0x10))
    assert nft_tables._table_in(message(3)) is False
    assert nft_tables._table_in(message(10 << 8) + message(3)) is True
    assert nft_tables._table_in(b"") is None
