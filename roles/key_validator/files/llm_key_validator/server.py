# SPDX-License-Identifier: GPL-3.0-or-later
"""The running service: sockets from systemd, signals, timers, and the way out."""

from __future__ import annotations

import asyncio
import os
import pwd
import signal
import socket
import time
import typing as t
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

from .audit.log import AuditLog, AuditSettings
from .audit.records import PromptDigester
from .authorize import Authorizer, Recorder, Rules, Unrecorded
from .config import Config, ConfigError
from .http_edge import Listener
from .in_flight import InFlight
from .journal import Journal, Level, RefusalLog
from .metrics import Metrics
from .peers import PROC_TABLES, owner_in_tables
from .quotas import Quotas
from .quotas.memory import MemoryQuotas
from .reports import Reports, ReportSource
from .service import Service
from .store import RegistryStore

_FIRST_SOCKET = 3  # SD_LISTEN_FDS_START, sd_listen_fds(3)
# Health checks and metrics. Each costs a look into the kernel's tables, and any local user may
# connect: what waits here must not keep nginx waiting at the socket.
_TCP_CONNECTIONS = 16
_BACKLOG = 4096
# How long connections with a request under way are waited for at the end (seconds)
_DRAIN_SECONDS = 2.0
# How long nginx's reports may gather (seconds)
_REPORTS_PAUSE = 0.005
# Timeouts are looked at this often (seconds): a little late is early enough
_SWEEP_SECONDS = 0.5

TableReader = Callable[[], tuple[bytes, bytes]]


def inherited_sockets(environment: dict[str, str], pid: int) -> list[socket.socket]:
    """Return the sockets that systemd hands over. Raises ConfigError when there are none.

    The service never opens a listening socket itself: it may not, and while it is down
    nobody else can take its place.
    """
    if environment.get("LISTEN_PID") != str(pid):
        raise ConfigError("no sockets were handed over: start llm-key-validator.socket")
    count = int(environment.get("LISTEN_FDS", "0"))
    sockets = [socket.socket(fileno=_FIRST_SOCKET + index) for index in range(count)]
    if not sockets:
        raise ConfigError("no sockets were handed over: start llm-key-validator.socket")
    for listening in sockets:
        listening.setblocking(False)
        listening.set_inheritable(False)
    return sockets


def trusted_uids(users: tuple[str, ...]) -> frozenset[int]:
    """Return the uids that may ask over TCP: root's and those of ``users``."""
    uids = {0}
    for user in users:
        try:
            uids.add(pwd.getpwnam(user).pw_uid)
        except KeyError:
            raise ConfigError(f"trusted_users: there is no user {user}") from None
    return frozenset(uids)


def read_tables() -> tuple[bytes, bytes]:
    """Return the kernel's tables of IPv4 and IPv6 TCP sockets; empty when unreadable."""
    tables = []
    for path in PROC_TABLES:
        try:
            with open(path, "rb") as file:
                tables.append(file.read())
        except OSError:
            # No IPv6, or no /proc: what is not listed is not trusted.
            tables.append(b"")
    return tables[0], tables[1]


class PeerCheck:
    """Tells whether the process at the other end of a TCP connection may ask."""

    def __init__(self, uids: frozenset[int], read: TableReader = read_tables) -> None:
        self._uids = uids
        self._read = read

    def __call__(self, transport: asyncio.Transport) -> bool:
        """Look the peer up. Twice if need be: the table is no snapshot, a line can be missed."""
        peer = transport.get_extra_info("peername")
        here = transport.get_extra_info("sockname")
        if not peer or not here:
            return False
        local = (ip_address(peer[0]), int(peer[1]))
        remote = (ip_address(here[0]), int(here[1]))
        for _unused in range(2):
            owner = owner_in_tables(*self._read(), local, remote)
            if owner is not None:
                return owner in self._uids
        return False


def always_trusted(_transport: asyncio.Transport) -> bool:
    """The unix socket's own mode decided who could connect."""
    return True


def credential(variables: dict[str, str], name: str) -> bytes:
    """Return a secret that the unit put into RuntimeDirectory=. Raises ConfigError."""
    try:
        content = _credential_path(variables, name).read_bytes().strip()
    except OSError:
        content = b""
    if not content:
        raise ConfigError(f"the credential {name} was not handed over")
    return content


def _credential_path(variables: dict[str, str], name: str) -> Path:
    return Path(variables.get("RUNTIME_DIRECTORY", "/nonexistent"), name)


class Notifier:
    """Tells systemd how the service is doing: sd_notify(3). Silent without systemd."""

    def __init__(self, environment: dict[str, str]) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_seconds = int(environment.get("WATCHDOG_USEC", "0")) / 1e6

    def tell(self, state: str) -> None:
        """Send one message; losing it is no reason to fail."""
        if not self._address:
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as out:
            try:
                out.sendto(state.encode(), self._address)
            except OSError:
                return


class Server:
    """Wires the parts together and runs until SIGTERM."""

    def __init__(
        self, config: Config, journal: Journal, notifier: Notifier, variables: dict[str, str]
    ) -> None:
        self._config = config
        self._journal = journal
        self._notifier = notifier
        self._metrics = Metrics()
        self._refusals = RefusalLog(journal, config.log_refusals_per_second)
        self._in_flight = InFlight(config.lease_seconds)
        self._quotas = make_quotas(config, variables)
        self._audit = self._make_audit() if config.audit_enabled else None
        self._recorder: Recorder = self._audit or Unrecorded()
        self._store = RegistryStore(
            config.registry_path,
            config.registry_max_bytes,
            journal=journal,
            metrics=self._metrics,
            clock=time.time,
        )
        self._service = self._make_service(make_digester(config, variables))
        self._check_peer = PeerCheck(trusted_uids(config.trusted_users))
        self._listeners: list[Listener] = []
        self._report_sources: list[ReportSource] = []
        self._stop = asyncio.Event()
        self._reload = asyncio.Event()

    def _make_audit(self) -> AuditLog:
        config, loop = self._config, asyncio.get_running_loop()
        settings = AuditSettings(
            directory=config.audit_directory,
            state_directory=config.audit_state_directory,
            fsync=config.audit_fsync,
            max_file_bytes=config.audit_max_file_bytes,
            keep_files=config.audit_keep_files,
            sinks=config.audit_sinks,
            seal_records=config.audit_seal_records,
            seal_seconds=config.audit_seal_seconds,
            refusals_per_second=config.audit_refusals_per_second,
        )
        return AuditLog(
            settings,
            journal=self._journal,
            metrics=self._metrics.audit,
            clock=time.time,
            defer=loop.call_soon,
            sync_in_thread=in_thread,
        )

    def _make_service(self, digester: PromptDigester) -> Service:
        config = self._config
        rules = Rules(
            config.llm_server, config.routes, config.tiers, config.default_tier, config.auth
        )
        authorizer = Authorizer(
            self._store,
            rules,
            quotas=self._quotas,
            audit=self._recorder,
            digester=digester,
            in_flight=self._in_flight,
            metrics=self._metrics,
            refusals=self._refusals,
            journal=self._journal,
            clock=time.time,
            catch_up=self._catch_up,
        )
        return Service(
            self._store,
            authorizer=authorizer,
            metrics=self._metrics,
            refusals=self._refusals,
            journal=self._journal,
            clock=time.time,
            auth=config.auth,
        )

    async def run(self, sockets: list[socket.socket]) -> None:
        """Serve until told to stop."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(self._on_loop_error)
        loop.add_signal_handler(signal.SIGTERM, self._stop.set)
        loop.add_signal_handler(signal.SIGINT, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload.set)
        if self._audit is not None:
            loop.add_signal_handler(signal.SIGUSR1, self._audit.rotate)
            self._audit.open()
        # Before the first request: a moment of `unknown` for everybody would look like an
        # attack. Requests wait in the sockets' backlog meanwhile.
        await self._store.refresh()
        servers = [
            await self._listen(listening)
            for listening in sockets
            if not self._reads_reports(listening)
        ]
        # Whatever is left at the end, asyncio.Runner cancels.
        jobs = [asyncio.create_task(job()) for job in (self._watch, self._sweep, self._beat)]
        self._journal.say(Level.INFO, "started", sockets=len(sockets))
        self._notifier.tell("READY=1")
        await self._finish_when_told(jobs)
        for server in servers:
            server.close()
        await self._drain()
        self._catch_up()
        if self._audit is not None:
            self._audit.close()
        await self._quotas.close()
        self._journal.say(Level.INFO, "stopped")

    async def _finish_when_told(self, jobs: list[asyncio.Task[None]]) -> None:
        """Wait for the signal, or for a job that broke: then fail, systemd starts us anew."""
        stop = asyncio.create_task(self._stop.wait())
        done, _unused = await asyncio.wait([stop, *jobs], return_when=asyncio.FIRST_COMPLETED)
        self._notifier.tell("STOPPING=1")
        for finished in done:
            finished.result()

    def _on_loop_error(self, _loop: object, context: dict[str, object]) -> None:
        self._service.note_failure(type(context.get("exception")).__name__)

    def _reads_reports(self, source: socket.socket) -> bool:
        """Take the socket for nginx's reports, if it is that one."""
        if source.type != socket.SOCK_DGRAM:
            return False
        reports = Reports(self._recorder, self._in_flight, self._quotas, self._metrics)
        # A store elsewhere hears of a request's end later still: it is told at once.
        pause = _REPORTS_PAUSE if isinstance(self._quotas, MemoryQuotas) else 0
        loop = asyncio.get_running_loop()
        self._report_sources.append(ReportSource(source, reports.read, loop, pause))
        return True

    def _catch_up(self) -> None:
        for source in self._report_sources:
            source.catch_up()

    async def _listen(self, listening: socket.socket) -> asyncio.AbstractServer:
        loop = asyncio.get_running_loop()
        local = listening.family == socket.AF_UNIX
        check = always_trusted if local else self._check_peer
        config = self._config if local else replace(self._config, max_connections=_TCP_CONNECTIONS)
        listener = Listener(self._service, config, check, local=local)
        self._listeners.append(listener)
        options: dict[str, t.Any] = {"sock": listening, "backlog": _BACKLOG}
        if not local:
            return await loop.create_server(listener.make_connection, **options)
        try:
            # The socket's path is systemd's, not ours to remove at the end.
            return await loop.create_unix_server(
                listener.make_connection, **options, cleanup_socket=False
            )
        except TypeError:  # Debian 12's uvloop never removes it, and does not know the option
            return await loop.create_unix_server(listener.make_connection, **options)

    async def _watch(self) -> None:
        """Look at the registry's file now and then, and load it anew on SIGHUP."""
        while True:
            forced = await _set_within(self._reload, self._config.registry_poll_seconds)
            self._reload.clear()
            await self._store.refresh(force=forced)

    async def _sweep(self) -> None:
        """Drop what is over: connections, and once a second all the rest."""
        loop = asyncio.get_running_loop()
        second = loop.time() + 1
        while True:
            await asyncio.sleep(_SWEEP_SECONDS)
            for listener in self._listeners:
                listener.expire(loop.time())
            if loop.time() >= second:
                second = loop.time() + 1
                self._tick()

    def _tick(self) -> None:
        self._refusals.next_second()
        self._in_flight.sweep(time.time())
        self._metrics.in_flight = len(self._in_flight)
        self._quotas.sweep(time.time())
        if self._audit is not None:
            self._audit.tick()

    async def _beat(self) -> None:
        """Tell systemd's watchdog that the loop still turns."""
        interval = self._notifier.watchdog_seconds / 3
        while True:
            await asyncio.sleep(interval or 3600)
            self._notifier.tell("WATCHDOG=1")

    async def _drain(self) -> None:
        for listener in self._listeners:
            listener.drain()
        end = asyncio.get_running_loop().time() + _DRAIN_SECONDS
        while any(listener.connections for listener in self._listeners):
            if asyncio.get_running_loop().time() >= end:
                return
            await asyncio.sleep(0.02)


def make_digester(config: Config, variables: dict[str, str]) -> PromptDigester:
    """Return what turns prompts into digests."""
    keyed = config.audit_enabled and config.audit_prompt_digest == "hmac-sha256"
    return PromptDigester(credential(variables, "prompt-pepper") if keyed else None)


def make_quotas(config: Config, variables: dict[str, str]) -> Quotas:
    """Return the counters: this process's own, or the ones that gateways share."""
    if not config.counters_url:
        return MemoryQuotas(config.lease_seconds)
    # Late: the library is there only where it is wanted.
    from .quotas.shared import SharedQuotas  # noqa: PLC0415

    handed_over = _credential_path(variables, "counters-password").exists()
    password = credential(variables, "counters-password").decode() if handed_over else ""
    return SharedQuotas(config.counters_url, password, config.lease_seconds)


def in_thread(work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
    """Run ``work`` in a thread; call ``done`` in the event loop with what it raised."""
    waiting = asyncio.get_running_loop().run_in_executor(None, work)
    waiting.add_done_callback(lambda future: done(future.exception()))


async def _set_within(event: asyncio.Event, seconds: float) -> bool:
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        return False
    return True


def environment() -> dict[str, str]:
    """Return the environment as it is now."""
    return dict(os.environ)
