# SPDX-License-Identifier: GPL-3.0-or-later
"""Who reaches which port of a host: real connections, and listeners to answer them."""

from __future__ import annotations

import ipaddress
import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

from tests.lab.hosts import Lab
from tests.lab.playbook import INVENTORY
from tests.lab.steps import ROOT

# Answers "open", "refused" or "silent" for each (address, port). All at once: silences are long.
_PROGRAM = """
import json, socket, sys
from concurrent.futures import ThreadPoolExecutor
def ask(target):
    try:
        socket.create_connection(tuple(target), timeout=2).close()
        return "open"
    except TimeoutError:
        return "silent"
    except OSError:
        return "refused"
targets = json.load(sys.stdin)
with ThreadPoolExecutor(len(targets)) as pool:
    json.dump(list(pool.map(ask, targets)), sys.stdout)
"""
# Accepts on each (address, port) until it is stopped.
_LISTENER = """
import json, selectors, socket, sys
chooser = selectors.DefaultSelector()
for address, port in json.loads(sys.argv[1]):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    chooser.register(socket.create_server((address, port), family=family), selectors.EVENT_READ)
while True:
    for key, _events in chooser.select():
        key.fileobj.accept()[0].close()
"""

# An echo request; "answered" or "silent".
_PING = """
import socket, sys
address = sys.argv[1]
if ":" in address:
    pinger = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
    request = bytes([128, 0, 0, 0, 0, 0, 0, 0])
else:
    pinger = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
    request = bytes([8, 0, 0xF7, 0xFF, 0, 0, 0, 0])
pinger.settimeout(5)
pinger.sendto(request, (address, 0))
try:
    while pinger.recvfrom(2000)[1][0] != address:
        pass
    print("answered")
except TimeoutError:
    print("silent")
"""

Targets = Sequence[tuple[str, int]]

ROLLBACK = "llm-firewall-rollback"  # the timer, and the service that it starts
MOST_SECONDS = 60  # until the old rules are back
ELSEWHERE = "192.0.2.0/24"  # where the controller is not

# In the place of a wrapper that hides from where a session comes, so that nobody can judge it.
_WRAPPER = """\
ForceCommand env SSH_CONNECTION="192.0.2.9 40000 192.0.2.1 22" sh -c "$SSH_ORIGINAL_COMMAND"
"""
# Of systemd: a unit was started, and one ended well.
_KINDS = {
    "timer": "39f53479d3a045ac8e11786248231fbf",
    "service": "7ad2d189f7e94e70a38c781354912448",
}
NEW_CONNECTIONS = "-o ControlMaster=no -o ControlPath=none"

METADATA = ("169.254.169.254", "fd00:ec2::254")  # clouds' own, of each IP version


def reach(lab: Lab, by: str, targets: Targets, user: str = "root") -> list[str]:
    """Connect from the host `by` as a user to each (address, port): open, refused or silent."""
    words = ["python3", "-c", _PROGRAM]
    if user != "root":
        words = ["runuser", "-u", user, "--", *words]
    done = lab.run(by, *words, stdin=json.dumps(targets), check=True)
    return json.loads(done.stdout)


def wait_until_open(lab: Lab, by: str, target: tuple[str, int]) -> None:
    """Give another firewall the time to load its rules."""
    for _attempt in range(30):
        if reach(lab, by, [target]) == ["open"]:
            return
        time.sleep(0.5)
    raise AssertionError(f"{target} does not open for {by}")


@contextmanager
def listening(lab: Lab, on: str, targets: Targets) -> Iterator[None]:
    """Have somebody answer on these addresses of a host, as root."""
    unit = "lab-listener.service"
    words = ["python3", "-c", _LISTENER, json.dumps(targets)]
    lab.run(on, "systemd-run", "--quiet", "--collect", f"--unit={unit}", *words, check=True)
    try:
        for _attempt in range(50):
            if set(reach(lab, on, targets)) == {"open"}:
                break
            time.sleep(0.1)
        else:
            raise AssertionError(f"nobody listens on {targets} of {on}")
        yield
    finally:
        lab.run(on, "systemctl", "stop", unit)


@contextmanager
def metadata_on(lab: Lab, neighbour: str, host: str) -> Iterator[None]:
    """Have a neighbour be METADATA for a host: no packet may leave for the real addresses."""
    ways = dict(zip(METADATA, lab.addresses()[neighbour], strict=True))
    places = {address: str(ipaddress.ip_interface(address)) for address in ways}
    try:
        for address, via in ways.items():
            # Looking for others that have the address would take a second.
            at_once = ["nodad"] if ":" in address else []
            place = [places[address], "dev", "eth0", *at_once]
            lab.run(neighbour, "ip", "address", "replace", *place, check=True)
            route = [places[address], "via", via, "dev", "eth0"]
            lab.run(host, "ip", "route", "replace", *route, check=True)
            found = lab.run(host, "ip", "route", "get", address, check=True).stdout
            assert f"via {via} " in found, f"{address} is not on {neighbour}: {found}"
        yield
    finally:
        for place in places.values():
            lab.run(host, "ip", "route", "del", place)
            lab.run(neighbour, "ip", "address", "del", place, "dev", "eth0")


@contextmanager
def hidden_controller(lab: Lab, hosts: Sequence[str]) -> Iterator[None]:
    """Have the hosts take the controller for somebody in ELSEWHERE, over NEW_CONNECTIONS."""
    path = "/etc/ssh/sshd_config.d/zz-wrapper.conf"
    try:
        for host in hosts:
            write = f"cat >{path}; systemctl reload ssh"
            lab.run(host, "sh", "-c", write, stdin=_WRAPPER, check=True)
        yield
    finally:
        for host in hosts:
            lab.run(host, "sh", "-c", f"rm {path}; systemctl reload ssh")


def is_armed(lab: Lab, host: str) -> bool:
    """Tell whether the rollback's timer runs."""
    return lab.run(host, "systemctl", "is-active", f"{ROLLBACK}.timer").returncode == 0


def armed_for(lab: Lab, host: str) -> str:
    """Return how long the rollback's timer waits, in systemd's words: "1min"."""
    words = ["systemctl", "show", "--property=TimersMonotonic", "--value", f"{ROLLBACK}.timer"]
    shown = lab.run(host, *words, check=True).stdout
    return shown.partition("OnActiveUSec=")[2].split()[0]


def wait_for_the_rollback(lab: Lab, host: str) -> float:
    """Return the seconds from the timer's start to the end of its service, as systemd counts."""
    for _attempt in range(MOST_SECONDS * 2):
        if not is_armed(lab, host):
            break
        time.sleep(0.5)
    words = ["--boot", "--output=json", *(f"--unit={ROLLBACK}.{kind}" for kind in _KINDS)]
    said = lab.run(host, "journalctl", *words, check=True).stdout.splitlines()
    ends = dict.fromkeys(_KINDS, 0)
    for entry in map(json.loads, said):
        for kind, message in _KINDS.items():
            unit = entry.get("UNIT") == f"{ROLLBACK}.{kind}"
            if unit and entry.get("MESSAGE_ID") == message:
                ends[kind] = int(entry["__MONOTONIC_TIMESTAMP"])
    assert 0 < ends["timer"] < ends["service"], f"the timer of {host} did not fire: {said}"
    return (ends["service"] - ends["timer"]) / 1e6


def module(host: str, name: str, *, ssh_args: str = "", **options: Any) -> dict[str, Any]:
    """Run one module of the collection on a host, as a playbook would, and return its result."""
    done = subprocess.run(
        ["ansible", "-i", INVENTORY, host, "--become", "-m", f"llmsec.hardening.{name}",
         "-a", json.dumps(options)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        env={**_json_output(), **({"ANSIBLE_SSH_ARGS": ssh_args} if ssh_args else {})},
    )  # fmt: skip
    start = done.stdout.index("=> {") + 3  # an error before it may hold braces
    return json.loads(done.stdout[start:])


def controllers(lab: Lab) -> list[str]:
    """Return the control node's addresses, as the lab's hosts see them."""
    some_host = lab.addresses()["stranger"]
    lengths = (24, 64)
    return [
        str(ipaddress.ip_network(f"{address}/{length}", strict=False)[1])
        for address, length in zip(some_host, lengths, strict=True)
    ]


def assert_default_is_to_drop(lab: Lab, host: str) -> None:
    """Nothing comes in but what is named, replies and ICMP."""
    own = [(address, 9999) for address in lab.addresses()[host]]
    with listening(lab, host, own):
        assert reach(lab, "app-server", own) == ["silent", "silent"]
    for address in lab.addresses()[host]:
        answer = lab.run("stranger", "python3", "-c", _PING, address, check=True).stdout
        assert answer.strip() == "answered", f"{address} does not answer a ping"
        assert reach(lab, "stranger", [(address, 22)]) == ["silent"]
    outside = [(address, 22) for address in lab.addresses()["app-server"]]
    assert reach(lab, host, outside) == ["open", "open"]


def shell_everywhere(lab: Lab, hosts: Sequence[str], script: str) -> None:
    """Run a script on several hosts at once; all must succeed."""

    def one(host: str) -> None:
        lab.run(host, "sh", "-euc", script, check=True)

    with ThreadPoolExecutor() as pool:
        list(pool.map(one, hosts))


@contextmanager
def installed(lab: Lab, hosts: Sequence[str], package: str, script: str) -> Iterator[None]:
    """Have another firewall on the hosts, set up by a script, and nothing of it afterwards."""
    quietly = "DEBIAN_FRONTEND=noninteractive apt-get -qq"
    # netbase: names of protocols, which a small host does not have and firewalld wants
    install = f"apt-get -qq update; {quietly} install -y --no-install-recommends netbase {package}"
    try:
        shell_everywhere(lab, hosts, f"({install}) >/dev/null 2>&1; {script}")
        yield
    finally:
        shell_everywhere(lab, hosts, f"{quietly} purge -y {package} >/dev/null 2>&1")


def _json_output() -> dict[str, str]:
    return {**os.environ, "ANSIBLE_CALLBACK_RESULT_FORMAT": "json", "ANSIBLE_NOCOLOR": "1"}
