# SPDX-License-Identifier: GPL-3.0-or-later
"""What the kernel says of programs that take packets, in a network namespace that has some."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

ASK = """
from ansible_collections.llmsec.hardening.plugins.module_utils.packet_programs import (
    packet_programs,
)
print(packet_programs())
"""
# Loads a program that lets everything pass (bpf(2)), and attaches it to lo (RTM_SETLINK).
XDP = """
import ctypes, os, platform, socket, struct
code = struct.pack("=BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0)
text, licence = ctypes.create_string_buffer(code), ctypes.create_string_buffer(b"GPL")
places = ctypes.addressof(text), ctypes.addressof(licence)
wish = struct.pack("=IIQQ", 6, 2, *places) + bytes(96)
number = {"x86_64": 321, "aarch64": 280}[platform.machine()]
program = ctypes.CDLL(None).syscall(number, 5, ctypes.create_string_buffer(wish), len(wish))
assert program >= 0, "the kernel loads no program"
nested = struct.pack("=HHiHHI", 8, 1, program, 8, 3, 2)
link = struct.pack("=BxHiII", 0, 0, socket.if_nametoindex("lo"), 0, 0)
body = link + struct.pack("=HH", 4 + len(nested), 43 | 0x8000) + nested
asked = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
asked.send(struct.pack("=IHHII", 16 + len(body), 19, 5, 1, 0) + body)
assert struct.unpack_from("=i", asked.recv(4096), 16) == (0,)
"""
FILTER = "tc filter add dev lo {} protocol ip u32 match u32 0 0"


@pytest.mark.parametrize(
    ("before", "said"),
    [
        ("tc qdisc add dev lo clsact", []),
        (
            "tc qdisc add dev lo clsact; " + FILTER.format("egress"),
            ["filters of tc on lo (clsact)"],
        ),
        (
            "tc qdisc add dev lo ingress; " + FILTER.format("parent ffff:"),
            ["filters of tc on lo (ingress)"],
        ),
        ('"$0" -c "$2"', ["an XDP program on lo"]),
    ],
)
def test_of_its_own_namespace(before, said):
    script = f'{before}; exec "$0" -c "$1"'
    done = subprocess.run(
        ["unshare", "--net", "sh", "-euc", script, sys.executable, ASK, XDP],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    assert done.stdout.strip() == str(said), done.stderr
