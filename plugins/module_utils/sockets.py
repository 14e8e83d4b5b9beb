# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who listens where, read from the kernel's own tables instead of from configuration files.

The functions take the text of files under /proc and return plain values; only ProcReader touches
the host. Formats: proc_pid_fd(5), cgroups(7), the kernel's networking/proc_net_tcp.rst.
"""

from __future__ import annotations

import ipaddress
import os
import re
import sys
import typing as t
from dataclasses import dataclass, field
from pathlib import Path

__all__ = (
    "Holder",
    "KernelSocket",
    "ProcReader",
    "SocketTableError",
    "build_listeners",
    "parse_parent",
    "parse_socket_units",
    "parse_table",
    "parse_unit",
)

PROTOCOLS = ("tcp", "udp")

# include/net/tcp_states.h: TCP_LISTEN, and TCP_CLOSE, which is what an unconnected UDP socket shows
_LISTENING_STATE = {"tcp": "0A", "udp": "07"}
_ADDRESS_DIGITS = {8: ipaddress.IPv4Address, 32: ipaddress.IPv6Address}
_SYSTEMD_STREAM = {"Stream": "tcp", "Datagram": "udp"}
_LISTEN_LINE = re.compile(
    r"Listen=(?:\[(?P<v6>[^\]%]+)[^\]]*\]|(?P<v4>[0-9.]+)):(?P<port>\d+) \((?P<type>\w+)\)"
)


class SocketTableError(ValueError):
    """A table of the kernel does not look the way we know it: nothing may be concluded from it."""


@dataclass(frozen=True)
class KernelSocket:
    """One listening socket as the kernel tells it; uid is that of its creator."""

    protocol: str
    address: str
    port: int
    family: str
    v4_mapped: bool
    uid: int
    inode: int


@dataclass(frozen=True)
class Holder:
    """A process that has the socket open; several may (a server's workers, socket activation)."""

    pid: int
    parent: int
    program: str | None
    unit: str | None


def _decode_address(digits: str, byteorder: t.Literal["little", "big"]) -> tuple[str, str, bool]:
    """Return (address, family, v4_mapped) of the hex digits in /proc/net/{tcp,udp}[6].

    The kernel prints 32-bit words in the machine's byte order, each word of an IPv6 address alone.
    """
    kind = _ADDRESS_DIGITS[len(digits)]
    words = [bytes.fromhex(digits[i : i + 8]) for i in range(0, len(digits), 8)]
    packed = b"".join(word[::-1] if byteorder == "little" else word for word in words)
    address = kind(packed)
    mapped = getattr(address, "ipv4_mapped", None)
    if mapped is not None:
        return str(mapped), "ipv4", True
    return str(address), f"ipv{address.version}", False


def _parse_row(
    line: str, protocol: str, byteorder: t.Literal["little", "big"]
) -> KernelSocket | None:
    columns = line.split()
    try:
        digits, port = columns[1].split(":")
        if columns[3] != _LISTENING_STATE[protocol]:
            return None
        address, family, mapped = _decode_address(digits, byteorder)
        return KernelSocket(
            protocol=protocol,
            address=address,
            port=int(port, 16),
            family=family,
            v4_mapped=mapped,
            uid=int(columns[7]),
            inode=int(columns[9]),
        )
    except (IndexError, KeyError, ValueError) as exc:
        raise SocketTableError(f"unknown {protocol} socket row {line!r}") from exc


def parse_table(
    text: str, protocol: str, byteorder: t.Literal["little", "big"] = sys.byteorder
) -> list[KernelSocket]:
    """Return the listening sockets of a /proc/net/{tcp,tcp6,udp,udp6} text.

    Raises SocketTableError when the header or a row has another shape, because a listener that we
    failed to read must never look like a closed port.
    """
    header, *rows = text.splitlines() or [""]
    if header.split()[:2] != ["sl", "local_address"]:
        raise SocketTableError(f"unknown {protocol} socket table header {header!r}")
    sockets = (_parse_row(row, protocol, byteorder) for row in rows)
    return [found for found in sockets if found is not None]


def _systemd_path(cgroup: str) -> str:
    """Return systemd's path in a /proc/PID/cgroup text; name=systemd rules in v1 and hybrid."""
    paths = {}
    for line in cgroup.splitlines():
        _number, controllers, path = [*line.split(":", 2), "", ""][:3]
        paths[controllers] = path
    return paths.get("name=systemd", paths.get("", ""))


def parse_unit(cgroup: str, init_cgroup: str = "") -> str | None:
    """Return the system unit of a process from its /proc/PID/cgroup text and that of pid 1.

    The first component below pid 1's root which is not a slice, as systemd's cg_path_get_unit does
    it: a user's own ollama.service therefore counts as user@1000.service, not as the system's.
    """
    path = _systemd_path(cgroup)
    root = _systemd_path(init_cgroup).removesuffix("/init.scope").rstrip("/")
    if root and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    for component in path.strip("/").split("/"):
        # systemd escapes names that would clash with kernel files by one underscore
        name = component.removeprefix("_")
        if name.endswith((".service", ".scope", ".socket", ".mount", ".swap")):
            return name
        if not name.endswith(".slice"):
            return None
    return None


def parse_parent(status: str) -> int:
    """Return the parent's pid from a /proc/PID/status text (0 when it has none)."""
    match = re.search(r"^PPid:\s*(\d+)$", status, re.MULTILINE)
    return int(match.group(1)) if match else 0


def parse_socket_units(text: str) -> dict[tuple[str, str, int], str]:
    """Return {(protocol, address, port): unit} from `systemctl show -p Id,Listen '*.socket'`."""
    units: dict[tuple[str, str, int], str] = {}
    for block in text.split("\n\n"):
        name = re.search(r"^Id=(.+)$", block, re.MULTILINE)
        for match in _LISTEN_LINE.finditer(block):
            protocol = _SYSTEMD_STREAM.get(match["type"])
            if name is None or protocol is None:
                continue
            units[protocol, match["v6"] or match["v4"], int(match["port"])] = name.group(1)
    return units


def _primary(holders: t.Sequence[Holder]) -> Holder | None:
    """Return who answers for a socket: systemd itself, else the process that handed it down."""
    pids = {holder.pid for holder in holders}
    roots = [holder for holder in holders if holder.parent not in pids or holder.pid == 1]
    return min(roots or holders, key=lambda holder: holder.pid, default=None)


def _unit_of(
    holder: Holder, socket: KernelSocket, socket_units: t.Mapping[tuple[str, str, int], str]
) -> str | None:
    if holder.pid == 1:
        return socket_units.get((socket.protocol, socket.address, socket.port))
    return holder.unit


def _is_dual_stack(socket: KernelSocket, sockets: t.Sequence[KernelSocket]) -> bool:
    """Say whether a :: socket takes IPv4 as well.

    The table does not show IPV6_V6ONLY. Without it bind(2) refuses 0.0.0.0 on the same port, so a
    separate IPv4 wildcard means that the flag is set; in doubt the wider answer.
    """
    wildcard = (socket.protocol, "0.0.0.0", socket.port)  # noqa: S104 - compared, not bound
    return socket.address == "::" and not any(
        (other.protocol, other.address, other.port) == wildcard for other in sockets
    )


def build_listeners(
    sockets: t.Sequence[KernelSocket],
    holders: t.Mapping[int, t.Sequence[Holder]],
    socket_units: t.Mapping[tuple[str, str, int], str],
    ports: t.Collection[int] = (),
) -> list[dict[str, t.Any]]:
    """Join sockets with the processes that hold them (by inode), sorted by port and address.

    Empty ports means all. A socket nobody visible holds keeps None for pid, program and unit.
    """
    listeners = []
    for socket in sockets:
        if ports and socket.port not in ports:
            continue
        mine = holders.get(socket.inode, ())
        first = _primary(mine)
        units = {_unit_of(holder, socket, socket_units) for holder in mine} - {None}
        listeners.append(
            {
                "protocol": socket.protocol,
                "address": socket.address,
                "port": socket.port,
                "family": socket.family,
                "v4_mapped": socket.v4_mapped,
                "dual_stack": _is_dual_stack(socket, sockets),
                "uid": socket.uid,
                "pid": first.pid if first else None,
                "program": first.program if first else None,
                "unit": _unit_of(first, socket, socket_units) if first else None,
                "units": sorted(t.cast("set[str]", units)),
            }
        )
    return sorted(listeners, key=lambda found: (found["port"], found["protocol"], found["address"]))


@dataclass
class ProcReader:
    """Reads the tables and the open files of all processes below root (normally /proc)."""

    root: Path = Path("/proc")
    _cgroup_of_init: str = field(default="", init=False)

    def sockets(self, protocols: t.Iterable[str]) -> list[KernelSocket]:
        """Return the listening sockets of this network namespace, IPv4 first."""
        found: list[KernelSocket] = []
        for protocol in protocols:
            found += parse_table((self.root / "net" / protocol).read_text(), protocol)
            table6 = self.root / "net" / f"{protocol}6"
            # the file is missing only when the kernel runs without IPv6
            if table6.exists():
                found += parse_table(table6.read_text(), protocol)
        return found

    def holders(self, inodes: t.Collection[int]) -> dict[int, list[Holder]]:
        """Return {inode: processes}; a process that ends while we look is left out."""
        self._cgroup_of_init = self._text("1", "cgroup")
        found: dict[int, list[Holder]] = {}
        for directory in sorted(self.root.glob("[0-9]*"), key=lambda path: int(path.name)):
            held = self._socket_inodes(directory).intersection(inodes)
            if held:
                holder = self._holder(directory.name)
                for inode in held:
                    found.setdefault(inode, []).append(holder)
        return found

    def _text(self, pid: str, name: str) -> str:
        try:
            return (self.root / pid / name).read_text(errors="replace")
        except OSError:
            return ""

    def _socket_inodes(self, directory: Path) -> set[int]:
        """Return the inodes behind /proc/PID/fd/* links of the form socket:[123]."""
        inodes = set()
        try:
            for entry in os.scandir(directory / "fd"):
                match = re.fullmatch(r"socket:\[(\d+)\]", _readlink(entry.path))
                if match:
                    inodes.add(int(match.group(1)))
        except OSError:
            # gone, or somebody else's while we are not root: the module warns about the latter
            pass
        return inodes

    def _holder(self, pid: str) -> Holder:
        return Holder(
            pid=int(pid),
            parent=parse_parent(self._text(pid, "status")),
            program=self._text(pid, "comm").rstrip("\n") or None,
            unit=parse_unit(self._text(pid, "cgroup"), self._cgroup_of_init),
        )


def _readlink(path: str) -> str:
    try:
        return os.readlink(path)
    except OSError:
        return ""
