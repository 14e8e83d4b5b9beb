# SPDX-License-Identifier: GPL-3.0-or-later
"""A good host is green, each way to open it turns its finding red, and what was not seen errs."""

from __future__ import annotations

from dataclasses import replace

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.listener_checks import (
    Allowed,
    Host,
    Listener,
    Private,
    SocketUnit,
    Wanted,
    is_loopback,
    judge,
    parse_units,
    to_ask,
    with_commands,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.translations import Translation
from ansible_collections.llmsec.hardening.plugins.module_utils.unread import Unread

from tests.unit.plugins.guarded import by_id, red

ANY = "0.0.0.0"  # noqa: S104 - compared, never bound
VALIDATOR = ("llm-key-validator.socket", "llm-key-validator.service")
WANTED = Wanted(
    (
        Private(11434, "ollama", ("ollama.service",), is_server=True),
        Private(8081, "key validator", VALIDATOR),
    ),
    "ollama", 443, ("nginx.service",), (Allowed(22, program="sshd"), Allowed(22, "ssh.socket")),
)  # fmt: skip


def of(program, unit, address=ANY, port=0, **facts):
    version = 6 if ":" in address else 4
    facts = {"user": "root", "units": (unit,), **facts}
    return Listener(address, port, version, program=program, unit=unit, **facts)


def ollama(address="127.0.0.1", port=11434, **facts):
    facts = {"user": "ollama", "command": "/usr/local/bin/ollama serve", **facts}
    return of("ollama", "ollama.service", address, port, **facts)


SSHD = of("sshd", "ssh.service", port=22)
NGINX = [
    of("nginx", "nginx.service", port=443),
    of("nginx", "nginx.service", "::", 443, command="nginx: master process"),
]
KEYS = of("systemd", "llm-key-validator.socket", "127.0.0.1", 8081, units=VALIDATOR[::-1])
RESOLVED = of("systemd-resolve", "systemd-resolved.service", "127.0.0.53", 53)
GOOD = (SSHD, *NGINX, KEYS, ollama(), RESOLVED)
UNITS = (
    SocketUnit("llm-key-validator.socket", (("127.0.0.1", 8081),), True, True, (VALIDATOR[1],)),
    SocketUnit("ssh.socket", (("::", 22),), False, False, ("ssh.service",), ("sshd -D",)),
)


def host(*listeners, **facts):
    facts = {
        "listeners": listeners or GOOD, "owners_known": True, "socket_units": UNITS,
        "translations": (), "elsewhere": (), **facts,
    }  # fmt: skip
    return Host(**facts)


def findings(*listeners, wanted=WANTED, **facts):
    return by_id(judge(wanted, host(*listeners, **facts)))


def reds(*listeners, wanted=WANTED, **facts):
    return red(judge(wanted, host(*listeners, **facts)))


def test_a_hardened_host_is_green():
    found = findings()
    assert {one["result"] for one in found.values()} == {"pass"}
    assert sorted(found) == [
        "listeners.namespaces",
        "listeners.owner.11434",
        "listeners.owner.443",
        "listeners.owner.8081",
        "listeners.port.11434.ipv4",
        "listeners.port.11434.ipv6",
        "listeners.port.8081.ipv4",
        "listeners.port.8081.ipv6",
        "listeners.programs",
        "listeners.published",
        "listeners.redirected",
        "listeners.relay",
        "listeners.server",
        "listeners.socket_units",
        "listeners.unexpected",
    ]


def without(*listeners):
    return [each for each in GOOD if each not in listeners]


@pytest.mark.parametrize(
    ("bound", "versions"),
    [
        (ollama(ANY), ["ipv4"]),
        (ollama("192.0.2.7"), ["ipv4"]),
        (ollama("::", dual=True), ["ipv4", "ipv6"]),
        (ollama("::"), ["ipv6"]),
        (ollama("2001:db8::1"), ["ipv6"]),
    ],
)
def test_the_server_bound_in_public(bound, versions):
    found = findings(*without(ollama()), bound)
    assert red(list(found.values())) == {
        f"listeners.port.11434.{version}": "fail" for version in versions
    }
    for version in versions:
        one = found[f"listeners.port.11434.{version}"]
        assert (one["severity"], one["control"]) == ("critical", "loopback")
        assert one["actual"] == str(bound)


def test_the_key_validator_bound_in_public():
    found = findings(*without(KEYS), replace(KEYS, address=ANY))
    one = found["listeners.port.8081.ipv4"]
    assert (one["result"], one["severity"], one["control"]) == ("fail", "high", "network_isolation")


def test_a_server_that_is_down_is_not_measured():
    assert reds(*without(ollama())) == {
        "listeners.port.11434.ipv4": "error",
        "listeners.port.11434.ipv6": "error",
        "listeners.owner.11434": "error",
    }


@pytest.mark.parametrize(
    ("squatter", "port", "control"),
    [
        (of("python3", "session-3.scope", "127.0.0.1", 11434), 11434, "loopback"),
        (of("python3", "", "::1", 11434), 11434, "loopback"),
        (of("docker-proxy", "docker.service", "127.0.0.1", 11434), 11434, "loopback"),
        (of("python3", "evil.service", "127.0.0.1", 8081), 8081, "authentication"),
        (of("apache2", "apache2.service", ANY, 443), 443, "authentication"),
    ],
)
def test_somebody_else_on_a_port(squatter, port, control):
    rest = [each for each in GOOD if each.port != port or each.address != squatter.address]
    one = findings(*rest, squatter)[f"listeners.owner.{port}"]
    assert (one["result"], one["control"], one["severity"]) == ("fail", control, "high")
    assert str(squatter) in [one["actual"], *one["evidence"]]


def test_an_owner_that_was_not_found_is_not_measured():
    blind = [replace(each, held=False, program="", unit="", units=()) for each in GOOD]
    found = findings(*blind, owners_known=False, translations=Unread("no"), elsewhere=Unread("no"))
    results = {name: one["result"] for name, one in found.items()}
    # Where sockets are bound is seen without root, whose they are is not.
    assert {name for name in results if results[name] == "pass"} == {
        *(name for name in found if name.startswith("listeners.port.")), "listeners.programs",
        "listeners.socket_units",
    }  # fmt: skip
    assert {results[name] for name in results if results[name] != "pass"} == {"error"}
    assert "become" in found["listeners.owner.443"]["actual"]


def test_without_root_what_is_wrong_by_its_port_or_user_is_red_all_the_same():
    stranger = Listener(ANY, 5432, 4, user="postgres", held=False)
    second = Listener(ANY, 11500, 4, user="ollama", held=False)
    found = reds(*GOOD, stranger, second, owners_known=False)
    assert (found["listeners.unexpected"], found["listeners.server"]) == ("fail", "fail")
    assert found["listeners.relay"] == "error"


@pytest.mark.parametrize(
    "second",
    [
        of("ollama", "user@1000.service", ANY, 11500, user="alice"),
        of("llama-server", "ollama.service", ANY, 40001, user="ollama"),
        of("renamed", "session-1.scope", "::", 11500, user="ollama"),
        of("renamed", "ollama.service", "192.0.2.1", 11500),
        of("vllm", "vllm.service", ANY, 8000),
        # taking the gateway's place
        ollama(port=443, address=ANY),
    ],
)
def test_an_llm_server_on_another_port(second):
    one = findings(*GOOD, second)["listeners.server"]
    assert (one["result"], one["severity"]) == ("fail", "critical")


def test_what_the_server_does_on_loopback_is_its_own_affair():
    assert reds(*GOOD, of("llama-server", "ollama.service", "127.0.0.1", 40001)) == {}


@pytest.mark.parametrize(
    "command",
    [
        "socat TCP-LISTEN:8434,fork,reuseaddr TCP:127.0.0.1:11434",
        "/lib/systemd/systemd-socket-proxyd 127.0.0.1:8081",
        "ssh -N -L 0.0.0.0:8434:localhost:11434 x",
    ],
)
def test_a_relay(command):
    relay = of("x", "x.service", ANY, 8434, command=command)
    found = findings(*GOOD, relay)
    assert red(list(found.values())) == {
        "listeners.relay": "fail", "listeners.unexpected": "fail"
    }  # fmt: skip
    assert found["listeners.relay"]["severity"] == "critical"
    allowed = replace(WANTED, allowed=(*WANTED.allowed, Allowed(8434)))
    assert reds(*GOOD, relay, wanted=allowed) == {"listeners.relay": "fail"}


@pytest.mark.parametrize("command", ["x --id 114340", "x 10.11434.1", "x --port 18081"])
def test_a_number_that_only_looks_like_the_port_is_no_relay(command):
    allowed = replace(WANTED, allowed=(*WANTED.allowed, Allowed(9000)))
    assert reds(*GOOD, of("x", "x.service", ANY, 9000, command=command), wanted=allowed) == {}


@pytest.mark.parametrize(
    ("other", "severity"),
    [
        (of("postgres", "postgresql@15-main.service", ANY, 5432), "medium"),
        (of("sshd", "ssh.service", ANY, 2222), "medium"),
        (of("dropbear", "dropbear.service", ANY, 22), "medium"),
        (of("python3", "session-7.scope", ANY, 8434, user="alice"), "high"),
        (of("python3", "user@1000.service", "::", 8434, user="alice"), "high"),
        (of("python3", "", "10.0.0.1", 8434), "high"),
    ],
)
def test_anybody_else_in_public(other, severity):
    found = findings(*GOOD, other)
    assert red(list(found.values())) == {"listeners.unexpected": "fail"}
    one = found["listeners.unexpected"]
    assert (one["severity"], one["control"]) == (severity, "network_isolation")
    lax = findings(*GOOD, other, wanted=replace(WANTED, strict=False))
    assert lax["listeners.unexpected"]["result"] == "skip"
    named = Allowed(other.port, other.unit, other.program)
    listed = replace(WANTED, allowed=(*WANTED.allowed, named))
    assert reds(*GOOD, other, wanted=listed) == {}


@pytest.mark.parametrize(
    ("unit", "what"),
    [
        (SocketUnit("x.socket", ((ANY, 11434),), True, False), "on 0.0.0.0 port 11434"),
        (SocketUnit("x.socket", (("::", 8081),), False, True), "on :: port 8081"),
        (SocketUnit("x.socket", ((ANY, 8434),), False, True, ("ollama.service",)), "LLM server"),
        (
            SocketUnit(
                "proxy.socket", ((ANY, 8434),), True, True, ("proxy.service",),
                ("{ path=/x ; argv[]=/x/systemd-socket-proxyd 127.0.0.1:11434 ; ignore=no }",),
            ),
            "systemd-socket-proxyd 127.0.0.1:11434",
        ),
    ],
)  # fmt: skip
def test_a_socket_unit_that_leads_to_a_private_port(unit, what):
    found = findings(socket_units=(*UNITS, unit))
    assert red(list(found.values())) == {"listeners.socket_units": "fail"}
    assert what in found["listeners.socket_units"]["actual"]
    asleep = replace(unit, active=False, enabled=False)
    assert reds(socket_units=(*UNITS, asleep)) == {}


SHOWN = """\
Id=proxy.socket
Listen=0.0.0.0:8434 (Stream)
Listen=[::]:8434 (Stream)
Triggers=proxy.service
ActiveState=inactive
UnitFileState=enabled
WantedBy=
RequiredBy=

Id=llm-key-validator.socket
Listen=/run/llm-key-validator.sock (Stream)
Listen=127.0.0.1:8081 (Stream)
Listen=/run/llm-key-validator-log.sock (Datagram)
Triggers=llm-key-validator.service
ActiveState=active
UnitFileState=static
RequiredBy=llm-key-validator.service

Id=dbus.socket
Listen=/run/dbus/system_bus_socket (Stream)
ActiveState=active
UnitFileState=static
"""


def test_socket_units_as_systemd_shows_them():
    proxy, validator = parse_units(SHOWN)
    assert proxy.listens == ((ANY, 8434), ("::", 8434))
    assert (proxy.active, proxy.enabled, proxy.triggers) == (False, True, ("proxy.service",))
    assert validator.listens == (("127.0.0.1", 8081),)
    # static, and a unit needs it
    assert (validator.active, validator.enabled, validator.public) == (True, True, ())
    # In the order of systemd 252
    started = "ExecStart={ path=/a ; argv[]=/a 127.0.0.1:11434 ; x }\nId=proxy.service\n"
    (proxy, _validator) = with_commands([proxy, validator], f"{started}\nExecStart=c\nId=b\n")
    assert [command.split(" ; ")[1] for command in proxy.commands] == ["argv[]=/a 127.0.0.1:11434"]
    assert reds(socket_units=(proxy,)) == {"listeners.socket_units": "fail"}


@pytest.mark.parametrize(
    ("rule", "name"),
    [
        (Translation("r", ((8434, 8434),), ((11434, 11434),)), "listeners.redirected"),
        (Translation("r", ((8434, 8434),), ((8081, 8081),)), "listeners.redirected"),
        (Translation("r", ((11434, 11434),), ((80, 80),)), "listeners.redirected"),
        (Translation("r", ((11000, 12000),), None), "listeners.redirected"),
        (Translation("r", None, None), "listeners.redirected"),
        (Translation("r", ((8080, 8080),), ((80, 80),)), "listeners.published"),
    ],
)
def test_a_rule_that_translates(rule, name):
    assert reds(translations=(rule,)) == {name: "fail"}
    critical = findings(translations=(rule,))["listeners.redirected"]["severity"]
    assert critical == "critical"


def test_a_published_port_may_be_allowed():
    rule = Translation("r", ((8080, 8080),), ((80, 80),))
    listed = replace(WANTED, allowed=(*WANTED.allowed, Allowed(8080)))
    assert reds(translations=(rule,), wanted=listed) == {}
    lax = findings(translations=(rule,), wanted=replace(WANTED, strict=False))
    assert lax["listeners.published"]["result"] == "skip"


def test_a_program_that_takes_packets_first():
    assert reds(programs=["an XDP program on eth0"]) == {"listeners.programs": "fail"}
    assert reds(programs=Unread("denied")) == {"listeners.programs": "error"}


def test_a_server_in_a_container_and_a_rule_that_leads_to_it():
    inside = of("ollama", "docker-0123.scope", ANY, 80)
    rule = Translation("dnat to 172.17.0.2:80", ((8434, 8434),), ((80, 80),))
    assert reds(elsewhere=(inside,), translations=(rule,)) == {
        "listeners.namespaces": "fail", "listeners.redirected": "fail",
    }  # fmt: skip
    for harmless in (replace(inside, address="127.0.0.1"), replace(inside, program="nginx")):
        found = findings(elsewhere=(harmless,))["listeners.namespaces"]
        assert (found["result"], found["evidence"]) == ("pass", [str(harmless)])


def test_a_process_that_may_not_be_looked_at_is_no_pass():
    assert reds(hidden="/proc/7/ns/net: denied") == {"listeners.namespaces": "error"}
    inside = of("ollama", "x.scope", ANY, 80)
    assert reds(hidden="denied", elsewhere=(inside,)) == {"listeners.namespaces": "fail"}


def test_what_could_not_be_read_is_an_error_and_what_cannot_be_there_is_skipped():
    found = reds(
        listeners=Unread("broken"), socket_units=Unread("broken"), translations=Unread("broken"),
        elsewhere=Unread("broken"), programs=Unread("broken"),
    )  # fmt: skip
    assert set(found.values()) == {"error"}
    assert len(found) == len(findings())
    skipped = findings(socket_units=Unread("systemd does not run here", harmless=True))
    assert skipped["listeners.socket_units"]["result"] == "skip"


def test_a_host_without_anything_passes_nothing_about_ports():
    found = findings(listeners=())
    assert {
        found[name]["result"] for name in found if ".port." in name or ".owner." in name
    } == {"error"}  # fmt: skip


@pytest.mark.parametrize(
    ("address", "is_it"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("::ffff:127.0.0.1", True),
     (ANY, False), ("::", False), ("fe80::1%eth0", False), ("::ffff:10.0.0.1", False)],
)  # fmt: skip
def test_loopback(address, is_it):
    assert is_loopback(address) is is_it


def test_a_relay_that_does_not_say_what_it_does():
    relay = of("python3", "helper.service", port=9999, command="python3 /opt/helper.py")
    heard = frozenset({(ANY, 9999)})
    found = findings(*GOOD, relay, answering=heard)["listeners.relay"]
    assert (found["result"], found["severity"], found["control"]) == (
        "fail",
        "critical",
        "loopback",
    )
    assert to_ask(WANTED, [*GOOD, relay]) == [relay]
    # nginx on another port is judged by its configuration
    assert to_ask(WANTED, [of("nginx", "nginx.service", port=8443)]) == []


@pytest.mark.parametrize(
    "command",
    [
        "ssh -N -R 0.0.0.0:8080:127.0.0.1:11434 far.example",
        "socat UNIX-LISTEN:/srv/o.sock,fork TCP:127.0.0.1:11434",
        "cloudflared tunnel --url http://localhost:8081",
    ],
)
def test_a_tunnel_without_a_listener(command):
    assert reds(relays=[command]) == {"listeners.relay": "fail"}
    assert reds(relays=["socat - TCP:198.51.100.7:114344"]) == {}


def test_a_tunnels_password_is_not_shown():
    command = "chisel client --auth me:hush https://far.example R:8080:127.0.0.1:11434"
    found = findings(relays=[command])["listeners.relay"]
    assert found["actual"] == "chisel R:8080:127.0.0.1:11434"


def test_a_container_that_publishes_a_port_of_its_own():
    command = "/usr/bin/docker-proxy -host-port 3000 -container-ip 172.17.0.2 -container-port {}"
    for port, expected in ((8081, False), (11434, True)):
        proxy = of("docker-proxy", "docker.service", port=3000, command=command.format(port))
        assert ("listeners.relay" in reds(*GOOD, proxy)) is expected
