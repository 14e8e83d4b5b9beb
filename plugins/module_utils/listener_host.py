# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads who listens on a host: its sockets, systemd's units, NAT rules, other namespaces."""

from __future__ import annotations

import os
import pwd
import re
import typing as t
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import (
    FirewallError,
    Machine,
    all_saved,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.listener_checks import (
    Host,
    Listener,
    SocketUnit,
    parse_units,
    with_commands,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.packet_programs import (
    packet_programs,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.sockets import (
    Holder,
    KernelSocket,
    ProcReader,
    SocketTableError,
    build_listeners,
    parse_socket_units,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.translations import (
    Translation,
    TranslationError,
    iptables_translations,
    ipvs_translations,
    nft_translations,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.unread import Unread

__all__ = ("read_host",)

Holders = Mapping[int, Sequence[Holder]]

_UNIT_FACTS = "Id,Listen,ActiveState,UnitFileState,Triggers,WantedBy,RequiredBy"
# Programs that pass connections on, as the kernel names them (15 characters). What they serve is
# in their command lines.
_RELAYS = frozenset(
    {
        "autossh", "bore", "chisel", "cloudflared", "frpc", "gost", "nc",
        "nc.openbsd", "nc.traditional", "ncat", "ngrok", "rathole", "redir", "rinetd",
        "simpleproxy", "socat", "ssh", "stunnel", "stunnel4", "systemd-socket-",
    }
)  # fmt: skip
_MOST_COMMAND = 4096  # bytes of a command line that are looked at


def read_host(machine: Machine, *, is_root: bool, proc: str = "/proc") -> Host:
    """Return everything that the checks ask for; what cannot be read is Unread."""
    shown = _or_unread(lambda: _show_sockets(machine))
    units = {} if isinstance(shown, Unread) else parse_socket_units(shown)
    here: Sequence[Listener] | Unread
    elsewhere: Sequence[Listener] | Unread
    reader = _Sockets(Path(proc), units)
    try:
        here, elsewhere = reader.listeners()
    except (SocketTableError, OSError) as exc:
        here = elsewhere = Unread(f"the listening sockets cannot be read: {exc}")
    if not is_root:
        elsewhere = Unread("other users' processes are not seen without root")
    return Host(
        here, is_root,
        shown if isinstance(shown, Unread) else _or_unread(lambda: _socket_units(machine, shown)),
        _or_unread(lambda: _translations(machine, is_root)), elsewhere, reader.hidden,
        reader.relays(), programs=_or_unread(packet_programs),
    )  # fmt: skip


_T = t.TypeVar("_T")


def _or_unread(read: Callable[[], _T]) -> _T | Unread:
    try:
        return read()
    except _NoSystemdError:
        return Unread("systemd does not run here, so it holds no socket", harmless=True)
    except (FirewallError, TranslationError, OSError, ValueError) as exc:
        return Unread(str(exc))


# -- systemd ---------------------------------------------------------------------------------------


class _NoSystemdError(Exception):
    """There is no manager to ask."""


def _show_sockets(machine: Machine) -> str:
    """Return what systemd says of every socket unit, loaded or only in a file."""
    # sd_booted(3)
    if not machine.path("/run/systemd/system").is_dir():
        raise _NoSystemdError
    listed = machine.must(
        "systemctl", "list-unit-files", "--type=socket", "--plain", "--no-legend", "--no-pager"
    )
    names = [line.split()[0] for line in listed.splitlines() if line.strip()]
    # A template has nothing to show; its instances are loaded.
    files = [name for name in names if "@." not in name]
    return machine.must(
        "systemctl", "show", "--no-pager", f"--property={_UNIT_FACTS}", "--", "*.socket", *files
    )


def _socket_units(machine: Machine, shown: str) -> list[SocketUnit]:
    units = parse_units(shown)
    started = sorted({name for unit in units if unit.public for name in unit.triggers})
    if not started:
        return units
    command = ["systemctl", "show", "--no-pager", "--property=Id,ExecStart", "--", *started]
    return with_commands(units, machine.must(*command))


# -- Sockets ---------------------------------------------------------------------------------------


class _Sockets:
    """The listening sockets of all network namespaces in which a process lives."""

    def __init__(self, proc: Path, units: dict[tuple[str, str, int], str]) -> None:
        self._proc = proc
        self._units = units
        self.hidden = ""

    def listeners(self) -> tuple[list[Listener], list[Listener] | Unread]:
        """Return (those of this namespace, those of others). Raises SocketTableError, OSError."""
        here = ProcReader(self._proc).sockets(["tcp"])
        try:
            tables, why = self._elsewhere(), None
        except (SocketTableError, OSError) as exc:
            tables, why = [], Unread(f"another network namespace cannot be read: {exc}")
        inodes = {socket.inode for table in (here, *tables) for socket in table}
        holders = ProcReader(self._proc).holders(inodes)
        others = [each for table in tables for each in self._join(table, holders)]
        return self._join(here, holders), why or others

    def relays(self) -> list[str]:
        """Return the command lines of programs that pass connections on.

        Those of other network namespaces, such as containers, do not reach this one's loopback.
        """
        found = []
        own = self._namespace("self")
        for folder in self._proc.glob("[0-9]*"):
            with suppress(OSError):
                if self._namespace(folder.name) not in (own, ""):
                    continue
                name = (folder / "comm").read_text(errors="replace").rstrip("\n")
                command = self._command(int(folder.name)) if name in _RELAYS else ""
                # ssh as a client reaches nobody else's in but by a reverse tunnel.
                if command and (name != "ssh" or re.search(r" -[A-Za-z]*R", command)):
                    found.append(command.strip())
        return found

    def _namespace(self, pid: str) -> str:
        """Return which network namespace a process is in, "" where that is not told."""
        with suppress(OSError):
            return os.readlink(self._proc / pid / "ns/net")
        return ""

    def _elsewhere(self) -> list[list[KernelSocket]]:
        """Return the tables of the other network namespaces (network_namespaces(7)).

        `hidden` names a process that may not be looked at, and may be in one more.
        """
        own = os.readlink(self._proc / "self/ns/net")
        seen, tables = {own}, []
        for folder in self._proc.glob("[0-9]*"):
            # A process may end while it is looked at.
            with suppress(FileNotFoundError, ProcessLookupError):
                try:
                    name = os.readlink(folder / "ns/net")
                except PermissionError as exc:
                    self.hidden = str(exc)
                    continue
                if name not in seen:
                    tables.append(ProcReader(folder).sockets(["tcp"]))
                    seen.add(name)
        return tables

    def _join(self, sockets: Sequence[KernelSocket], holders: Holders) -> list[Listener]:
        return [
            Listener(
                address=found["address"], port=found["port"],
                version=4 if found["family"] == "ipv4" else 6, dual=found["dual_stack"],
                program=found["program"] or "", unit=found["unit"] or "",
                units=tuple(found["units"]), user=_user(found["uid"]),
                command=self._command(found["pid"]), held=found["pid"] is not None,
            )
            for found in build_listeners(sockets, holders, self._units)
        ]  # fmt: skip

    def _command(self, pid: int | None) -> str:
        # systemd's own says nothing of what it holds a socket for
        if pid in (None, 1):
            return ""
        with suppress(OSError), open(self._proc / str(pid) / "cmdline", "rb") as file:
            return file.read(_MOST_COMMAND).decode("utf-8", "replace").replace("\0", " ")
        return ""


def _user(number: int) -> str:
    with suppress(KeyError):
        return pwd.getpwuid(number).pw_name
    return str(number)


# -- Rules -----------------------------------------------------------------------------------------


def _translations(machine: Machine, is_root: bool) -> list[Translation]:
    """Return every rule that translates. Raises FirewallError, TranslationError."""
    if not is_root:
        raise FirewallError("the rules cannot be read without root")
    for family, tool in (("ip", "iptables"), ("ip6", "ip6tables")):
        # The kernel names legacy tables even where the program that shows them is missing.
        tables = machine.read(f"/proc/net/{family}_tables_names") or ""
        if tables.split() and not machine.has(f"{tool}-legacy-save"):
            raise FirewallError(f"{tool} holds legacy tables, and {tool}-legacy-save is missing")
    has_nft = machine.has("nft")
    if not has_nft and machine.holds_nft_tables():
        raise FirewallError("nft is not installed, so the rules in force cannot be read")
    # Containers have their own, and a kernel without IPVS has none.
    found = ipvs_translations(machine.read("/proc/net/ip_vs") or "")
    known = []
    for version, legacy, output in all_saved(machine):
        family, tool = ("ip", "iptables") if version == 4 else ("ip6", "ip6tables")
        known += [] if legacy else [family]
        found += iptables_translations(output, f"{tool}-legacy" if legacy else tool)
    if not has_nft:
        return found
    listed = machine.must("nft", "-j", "list", "ruleset")
    return [*found, *nft_translations(listed, known_elsewhere=known)]
