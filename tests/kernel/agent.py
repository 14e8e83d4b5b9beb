# SPDX-License-Identifier: GPL-3.0-or-later
"""Runs inside a namespace for the whole test: takes one JSON order per line, answers one line.

Only the standard library, and nothing of this project but frames: started by its path.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
import frames

_LIBC = ctypes.CDLL(None)
_SO_MARK = 36
_NETLINK_NETFILTER = 12
_CT_DELETE = (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_REQUEST_ACK = 1 | 4


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Run a command, such as nft, in this namespace."""
    done = subprocess.run(
        order["command"], input=order.get("stdin"), capture_output=True, text=True, check=False
    )
    return {"code": done.returncode, "stdout": done.stdout, "stderr": done.stderr}


_links: dict[str, socket.socket] = {}
_senders: dict[tuple[Any, ...], socket.socket] = {}


def inject(order: dict[str, Any]) -> dict[str, Any]:
    """Put packets on a wire, past this namespace's own firewall."""
    for packet in order["packets"]:
        device = packet["wire"]
        if device not in _links:
            _links[device] = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            _links[device].bind((device, 0))
        target = bytes.fromhex(packet["mac"].replace(":", ""))
        head = target + b"\x02\0\0\0\0\x99" + struct.pack("!H", frames.ETHERTYPES[packet["family"]])
        _links[device].send(head + frames.build(packet))
    return {}


def _sender(packet: dict[str, Any]) -> socket.socket:
    """Return a raw socket that belongs to the packet's user: the kernel asks its file's owner."""
    key = packet["family"], packet["user_id"], packet["group_id"]
    if key not in _senders:
        _LIBC.setfsgid(packet["group_id"])
        _LIBC.setfsuid(packet["user_id"])
        try:
            _senders[key] = frames.raw_socket(packet["family"])
        finally:
            _LIBC.setfsuid(0)
            _LIBC.setfsgid(0)
    return _senders[key]


def send(order: dict[str, Any]) -> dict[str, Any]:
    """Send packets from local sockets, through this namespace's firewall."""
    for packet in order["packets"]:
        sender = _sender(packet)
        sender.setsockopt(socket.SOL_SOCKET, _SO_MARK, packet["mark"])
        with contextlib.suppress(PermissionError):  # dropped at the output hook
            sender.sendto(frames.build(packet), (packet["destination"], 0))
    return {}


def greet(order: dict[str, Any]) -> dict[str, Any]:
    """Send the first packet of connections, so that what is injected next is an answer."""
    for packet in order["packets"]:
        turned = {
            **packet,
            "source": packet["destination"],
            "destination": packet["source"],
            "source_port": packet["destination_port"],
            "destination_port": packet["source_port"],
            "tcp_flags": 2,
            "user_id": 0,
            "group_id": 0,
            "mark": 0,
        }
        send({"packets": [turned]})
    return {}


def forget(_order: dict[str, Any]) -> dict[str, Any]:
    """Empty the connection table."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        body = struct.pack("BBH", 0, 0, 0)
        netlink.send(struct.pack("IHHII", 16 + len(body), _CT_DELETE, _REQUEST_ACK, 1, 0) + body)
        (error,) = struct.unpack_from("i", netlink.recv(4096), 16)
    return {"error": error}


ORDERS = {"run": run, "inject": inject, "send": send, "greet": greet, "forget": forget}


def main() -> None:
    for line in sys.stdin:
        order = json.loads(line)
        print(json.dumps(ORDERS[order["order"]](order)), flush=True)


if __name__ == "__main__":
    main()
