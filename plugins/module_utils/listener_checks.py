# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Who may listen where: sockets, socket units, translated ports and other namespaces, judged.

By what is bound, not by what answers through a packet filter. Pure: takes what was read of the
host, or why it could not be read.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ansible_collections.llmsec.hardening.plugins.module_utils.sockets import parse_socket_units
from ansible_collections.llmsec.hardening.plugins.module_utils.subjects import Finding, Subject
from ansible_collections.llmsec.hardening.plugins.module_utils.translations import Translation
from ansible_collections.llmsec.hardening.plugins.module_utils.unread import Unread

__all__ = (
    "ENGINES", "Allowed", "Host", "Listener", "Private", "SocketUnit", "Wanted",
    "is_loopback", "judge", "parse_units", "to_ask", "with_commands",
)  # fmt: skip

# Process names of LLM servers: whichever of them listens in public is open to everybody.
ENGINES = frozenset(
    {"ollama", "llama-server", "local-ai", "localai", "litellm", "vllm", "text-generation"}
)

_REBIND = (
    "Apply the role ollama (service_sandbox for other servers), which binds the server to "
    "loopback; see `systemctl cat` of its unit for the drop-in that says otherwise."
)
_STOP = "Stop it and remove what starts it, or list it in the option allowed."
_RULES = (
    "Remove the rule, and the program's setting that wrote it; then run llmsec.hardening.harden."
)
_AS_ROOT = "Run the assessment with become."


@dataclass(frozen=True, slots=True)
class Private:
    """A port that nobody may reach over the network, and the units that may hold it."""

    port: int
    title: str
    units: tuple[str, ...]
    is_server: bool = False


@dataclass(frozen=True, slots=True)
class Allowed:
    """What may listen on every address. Empty unit and program stand for any."""

    port: int
    unit: str = ""
    program: str = ""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is expected. The LLM server's own port is the first of `private`."""

    private: tuple[Private, ...]
    user: str
    gateway_port: int
    gateway_units: tuple[str, ...]
    allowed: tuple[Allowed, ...] = ()
    strict: bool = True

    @property
    def server(self) -> Private:
        return self.private[0]

    @property
    def private_ports(self) -> frozenset[int]:
        return frozenset(each.port for each in self.private)


@dataclass(frozen=True, slots=True)
class Listener:
    """A listening TCP socket. `command` is its process's command line, "" where not known.

    `units` are those of all processes that hold it, `unit` is whose it is; `held` says whether a
    process was found. `dual` sockets take IPv4 connections beside IPv6.
    """

    address: str
    port: int
    version: int
    dual: bool = False
    program: str = ""
    unit: str = ""
    units: tuple[str, ...] = ()
    user: str = ""
    command: str = ""
    held: bool = True

    @property
    def public(self) -> bool:
        return not is_loopback(self.address)

    def takes(self, version: int) -> bool:
        return self.version == version or (version == 4 and self.dual)

    def is_of(self, units: Sequence[str]) -> bool:
        return self.unit in units or bool(set(units) & set(self.units))

    def __str__(self) -> str:
        place = f"[{self.address}]" if self.version == 6 else self.address
        if not self.held:
            return f"{place}:{self.port}, user {self.user}, of a process that was not found"
        unit = self.unit or "no unit"
        return f"{place}:{self.port} {self.program or '?'} of {unit}, user {self.user}"


@dataclass(frozen=True, slots=True)
class SocketUnit:
    """A unit of systemd's that listens, or would. `commands` are those of what it starts."""

    name: str
    listens: tuple[tuple[str, int], ...]
    active: bool
    enabled: bool
    triggers: tuple[str, ...] = ()
    commands: tuple[str, ...] = ()

    @property
    def public(self) -> tuple[tuple[str, int], ...]:
        return tuple(each for each in self.listens if not is_loopback(each[0]))


@dataclass(frozen=True, slots=True)
class Host:
    """What was read. Without `owners_known`, processes of other users were not seen.

    `hidden` says why some of other namespaces may be missing. `relays` are the command lines of
    running programs that pass connections on, `answering` the (address, port) of listeners behind
    which the LLM server was heard. `programs` take packets before any rule does.
    """

    listeners: Sequence[Listener] | Unread
    owners_known: bool
    socket_units: Sequence[SocketUnit] | Unread
    translations: Sequence[Translation] | Unread
    elsewhere: Sequence[Listener] | Unread
    hidden: str = ""
    relays: Sequence[str] = ()
    answering: frozenset[tuple[str, int]] = frozenset()
    programs: Sequence[str] | Unread = ()


def is_loopback(address: str) -> bool:
    """Tell whether an address, perhaps with a zone, is reached from the host itself only."""
    found = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    return (mapped or found).is_loopback


# -- Socket units ----------------------------------------------------------------------------------

_ACTIVE = ("active", "activating", "reloading")
_ENABLED = ("enabled", "enabled-runtime", "linked", "linked-runtime", "generated", "alias")


def parse_units(text: str) -> list[SocketUnit]:
    """Return the units in `systemctl show -p Id,Listen,ActiveState,…` that listen on TCP."""
    found = {}
    for block in text.split("\n\n"):
        lines = (line.partition("=") for line in block.splitlines())
        facts = {key: value for key, _equals, value in lines if key != "Listen"}
        listens = [
            (address, port) for kind, address, port in parse_socket_units(block) if kind == "tcp"
        ]
        if not listens or "Id" not in facts:
            continue
        wanted = facts.get("WantedBy") or facts.get("RequiredBy")
        found[facts["Id"]] = SocketUnit(
            facts["Id"], tuple(listens), facts.get("ActiveState") in _ACTIVE,
            facts.get("UnitFileState") in _ENABLED or bool(wanted),
            tuple(facts.get("Triggers", "").split()),
        )  # fmt: skip
    return list(found.values())


def with_commands(units: Sequence[SocketUnit], shown: str) -> list[SocketUnit]:
    """Add what the units start, from `systemctl show -p Id,ExecStart` of those.

    systemd prints a unit's properties in an order of its own.
    """
    commands: dict[str, list[str]] = {}
    for block in shown.split("\n\n"):
        lines = [line.partition("=") for line in block.splitlines()]
        name = next((value for key, _equals, value in lines if key == "Id"), "")
        commands[name] = [value for key, _equals, value in lines if key == "ExecStart"]
    return [
        SocketUnit(
            unit.name, unit.listens, unit.active, unit.enabled, unit.triggers,
            tuple(each for started in unit.triggers for each in commands.get(started, ())),
        )
        for unit in units
    ]  # fmt: skip


# -- Findings --------------------------------------------------------------------------------------


def judge(wanted: Wanted, host: Host) -> list[Finding]:
    """Return all findings."""
    found = [*_ports(wanted, host), *_owners(wanted, host)]
    for check in (
        _server, _relay, _unexpected, _socket_units, _redirected, _published, _programs, _elsewhere,
    ):  # fmt: skip
        found.append(check(wanted, host))
    return found


def _control(private: Private) -> tuple[str, str]:
    """Return (control, severity) of a private port that is open."""
    return ("loopback", "critical") if private.is_server else ("network_isolation", "high")


def _ports(wanted: Wanted, host: Host) -> Iterator[Finding]:
    for private in wanted.private:
        control, severity = _control(private)
        for version in (4, 6):
            subject = Subject(
                f"listeners.port.{private.port}.ipv{version}", control,
                f"nobody over the network reaches port {private.port} over IPv{version} "
                f"({private.title})",
                severity, _REBIND,
            )  # fmt: skip
            yield _port(subject, private, version, host.listeners)


def _port(
    subject: Subject, private: Private, version: int, listeners: Sequence[Listener] | Unread
) -> Finding:
    if isinstance(listeners, Unread):
        return subject.not_measured(listeners.why)
    on_port = [each for each in listeners if each.port == private.port]
    if not on_port:
        return subject.not_measured(f"nothing listens on port {private.port} ({private.title})")
    mine = [each for each in on_port if each.takes(version)]
    return subject.judged(
        [str(each) for each in mine if each.public], expected="bound to loopback only",
        found=", ".join(map(str, mine)) or f"nothing listens over IPv{version}",
    )  # fmt: skip


def _owners(wanted: Wanted, host: Host) -> Iterator[Finding]:
    gateway = Private(wanted.gateway_port, "gateway", wanted.gateway_units)
    for private in (*wanted.private, gateway):
        if not private.units:
            continue
        subject = Subject(
            f"listeners.owner.{private.port}",
            "loopback" if private.is_server else "authentication",
            f"nobody else holds port {private.port} ({private.title})", "high",
            f"Stop the program that holds the port, then start {private.units[0]}.",
        )  # fmt: skip
        yield _owner(subject, private, host)


def _owner(subject: Subject, private: Private, host: Host) -> Finding:
    if isinstance(host.listeners, Unread):
        return subject.not_measured(host.listeners.why)
    mine = [each for each in host.listeners if each.port == private.port]
    if not mine:
        return subject.not_measured(f"nothing listens on port {private.port} ({private.title})")
    others = [each for each in mine if each.held and not each.is_of(private.units)]
    if not others and not all(each.held for each in mine):
        hint = "" if host.owners_known else f"; {_AS_ROOT}"
        return subject.not_measured(f"{mine[0]}{hint}")
    return subject.judged(
        [str(each) for each in others], expected=" or ".join(private.units),
        found=", ".join(map(str, mine)),
    )  # fmt: skip


def _judged_listeners(
    subject: Subject, host: Host, wrong: Callable[[Listener], bool], expected: str
) -> Finding:
    """Judge the public listeners; without their owners nothing passes."""
    if isinstance(host.listeners, Unread):
        return subject.not_measured(host.listeners.why)
    found = [str(each) for each in host.listeners if each.public and wrong(each)]
    if not found and not host.owners_known:
        return subject.not_measured(f"whose sockets they are was not seen; {_AS_ROOT}")
    return subject.judged(found, expected=expected, found="none")


def _is_server(wanted: Wanted, listener: Listener) -> bool:
    """Tell whether a socket belongs to an LLM server, by unit, user or name."""
    is_users = wanted.user not in ("", "root") and listener.user == wanted.user
    return is_users or listener.is_of(wanted.server.units) or listener.program in ENGINES


def _server(wanted: Wanted, host: Host) -> Finding:
    subject = Subject(
        "listeners.server", "loopback", "no LLM server listens on another port in public",
        "critical", _REBIND,
    )  # fmt: skip
    return _judged_listeners(
        subject, host,
        lambda each: each.port != wanted.server.port and _is_server(wanted, each),
        "no public socket of an LLM server",
    )  # fmt: skip


def _names_private(wanted: Wanted, command: str, own_port: int = 0) -> bool:
    """Tell whether a command line names a private port as a number of its own."""
    # Docker's leads to a port of a container's own, where only a second LLM server is one of ours.
    ours = {wanted.server.port} if "docker-proxy" in command else wanted.private_ports
    return any(re.search(rf"(?<![0-9.]){port}(?![0-9.])", command) for port in ours - {own_port})


def _leading_words(wanted: Wanted, command: str) -> str:
    """Return a command with only the words that lead to a private port: others may be secret."""
    program, *words = command.split()
    return " ".join([program, *(each for each in words if _names_private(wanted, each))])


def _relay(wanted: Wanted, host: Host) -> Finding:
    subject = Subject(
        "listeners.relay", "loopback", "no public listener passes requests on to a private port",
        "critical", _STOP,
    )  # fmt: skip
    # A tunnel to the outside, or one over UDP, has no listener here.
    tunnels = [_leading_words(wanted, each) for each in host.relays if _names_private(wanted, each)]
    expected = "none that names a private port, or answers as the LLM server"
    finding = _judged_listeners(
        subject, host,
        lambda each: _names_private(wanted, each.command, each.port)
        or (each.address, each.port) in host.answering,
        expected,
    )  # fmt: skip
    if finding["result"] == "fail" or not tunnels:
        return finding
    return subject.judged(tunnels, expected=expected, found="")


def to_ask(wanted: Wanted, listeners: Sequence[Listener]) -> list[Listener]:
    """Return the public listeners that nobody expects, and that may be relays.

    What the gateway listens on is judged by its configuration.
    """
    return [
        each
        for each in listeners
        if each.public and not _is_allowed(wanted, each) and not _is_server(wanted, each)
        and not each.is_of(wanted.gateway_units)
    ]  # fmt: skip


def _is_allowed(wanted: Wanted, listener: Listener) -> bool:
    """Tell whether a listener is expected. Where its owner was not seen, by its port."""
    if listener.port in wanted.private_ports:
        return True  # has findings of its own
    gateway = [Allowed(wanted.gateway_port, unit) for unit in wanted.gateway_units]
    return any(
        allowed.port == listener.port
        and (not listener.held or not allowed.unit or listener.is_of((allowed.unit,)))
        and (not listener.held or allowed.program in ("", listener.program))
        for allowed in (*gateway, *wanted.allowed)
    )


def _is_stray(listener: Listener) -> bool:
    """Tell whether no service of the system's stands behind a listener: somebody started it."""
    return not listener.unit.endswith((".service", ".socket")) or listener.unit.startswith("user@")


def _unexpected(wanted: Wanted, host: Host) -> Finding:
    subject = Subject(
        "listeners.unexpected", "network_isolation", "nothing else listens in public", "medium",
        _STOP,
    )  # fmt: skip
    if not wanted.strict:
        return subject.skipped("other listeners are not judged: strict is off")
    finding = _judged_listeners(
        subject, host, lambda each: not _is_allowed(wanted, each),
        "the gateway, and what the option allowed lists",
    )  # fmt: skip
    if finding["result"] == "fail" and not isinstance(host.listeners, Unread):
        others = [
            each for each in host.listeners if each.public and not _is_allowed(wanted, each)
        ]  # fmt: skip
        if host.owners_known and any(_is_stray(each) for each in others):
            finding["severity"] = "high"
    return finding


def _socket_units(wanted: Wanted, host: Host) -> Finding:
    subject = Subject(
        "listeners.socket_units", "loopback",
        "no unit of systemd's takes a private port, or leads to one", "critical",
        "Disable and stop the socket unit (systemctl disable --now), and remove its file.",
    )  # fmt: skip
    if isinstance(host.socket_units, Unread):
        return _unread(subject, host.socket_units)
    armed = [each for each in host.socket_units if each.active or each.enabled]
    problems = [line for unit in armed for line in _unit_problems(wanted, unit)]
    return subject.judged(
        problems, expected="no public address on a private port, no way to the LLM server",
        found=f"{len(armed)} of {len(host.socket_units)} are active or enabled, none of them does",
    )  # fmt: skip


def _unit_problems(wanted: Wanted, unit: SocketUnit) -> Iterator[str]:
    state = "active" if unit.active else "enabled"
    for address, port in unit.public:
        place = f"{unit.name} ({state}) listens on {address} port {port}"
        if port in wanted.private_ports:
            yield place
        elif set(unit.triggers) & set(wanted.server.units):
            yield f"{place} for the LLM server"
        else:
            leads = [each for each in unit.commands if _names_private(wanted, each, port)]
            yield from (f"{place} for {_argv(each)}" for each in leads)


def _argv(value: str) -> str:
    """Return the command in systemd's `{ path=… ; argv[]=… ; … }`."""
    found = re.search(r"argv\[\]=(.*?) ;", value)
    return found[1] if found else value


def _unread(subject: Subject, unread: Unread) -> Finding:
    return subject.skipped(unread.why) if unread.harmless else subject.not_measured(unread.why)


def _leads_inside(wanted: Wanted, host: Host, rule: Translation) -> bool:
    """Tell whether a rule takes a private port, or ends on one, or on an LLM server elsewhere."""
    elsewhere = [] if isinstance(host.elsewhere, Unread) else host.elsewhere
    servers = {each.port for each in elsewhere if _is_server(wanted, each)}
    return any(rule.takes(port) for port in wanted.private_ports) or any(
        rule.leads_to(port) for port in wanted.private_ports | servers
    )


def _redirected(wanted: Wanted, host: Host) -> Finding:
    subject = Subject(
        "listeners.redirected", "loopback",
        "no rule translates a port to the LLM server's or another private one", "critical", _RULES,
    )  # fmt: skip
    if isinstance(host.translations, Unread):
        return _unread(subject, host.translations)
    problems = [each.text for each in host.translations if _leads_inside(wanted, host, each)]
    return subject.judged(
        problems, expected="no such rule",
        found=f"none among {len(host.translations)} rules that translate",
    )  # fmt: skip


def _published(wanted: Wanted, host: Host) -> Finding:
    subject = Subject(
        "listeners.published", "network_isolation", "no rule translates another port", "medium",
        _RULES,
    )  # fmt: skip
    if not wanted.strict:
        return subject.skipped("other translated ports are not judged: strict is off")
    if isinstance(host.translations, Unread):
        return _unread(subject, host.translations)
    ports = [each.port for each in wanted.allowed]
    problems = [
        each.text
        for each in host.translations
        if not _leads_inside(wanted, host, each) and not each.only_takes(ports)
    ]
    return subject.judged(problems, expected="none, or listed in the option allowed", found="none")


def _programs(_wanted: Wanted, host: Host) -> Finding:
    subject = Subject(
        "listeners.programs", "network_isolation",
        "no XDP program or filter of tc takes packets before the kernel's rules do", "high",
        "Detach it (ip link set dev … xdp off, tc filter del), or have a waiver say whose it is.",
    )  # fmt: skip
    if isinstance(host.programs, Unread):
        return _unread(subject, host.programs)
    return subject.judged(
        [f"{each}, and nobody can say where it sends packets" for each in host.programs],
        expected="none", found="none; links of tcx and programs of sk_lookup were not looked for",
    )  # fmt: skip


def _elsewhere(wanted: Wanted, host: Host) -> Finding:
    subject = Subject(
        "listeners.namespaces", "loopback",
        "no LLM server listens in another network namespace", "high",
        "Have the container listen on its loopback address, or stop it.",
    )  # fmt: skip
    if isinstance(host.elsewhere, Unread):
        return _unread(subject, host.elsewhere)
    problems = [
        str(each)
        for each in host.elsewhere
        if each.public and (each.port == wanted.server.port or _is_server(wanted, each))
    ]
    if problems:
        return subject.judged(problems, expected="no public listener of one", found="")
    if host.hidden:
        return subject.not_measured(f"a process's namespace cannot be read: {host.hidden}")
    number = len(host.elsewhere)
    return subject.passed(f"{number} other listeners, no LLM server", [*map(str, host.elsewhere)])
