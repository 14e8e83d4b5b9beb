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

# Answers "open", "refused" or "silent" for each (address, port).
_PROGRAM = """
import json, socket, sys
answers = []
for address, port in json.load(sys.stdin):
    try:
        socket.create_connection((address, port), timeout=2).close()
        answers.append("open")
    except TimeoutError:
        answers.append("silent")
    except OSError:
        answers.append("refused")
json.dump(answers, sys.stdout)
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


def module(host: str, name: str, **options: Any) -> dict[str, Any]:
    """Run one module of the collection on a host, as a playbook would, and return its result."""
    done = subprocess.run(
        ["ansible", "-i", INVENTORY, host, "--become", "-m", f"llmsec.hardening.{name}",
         "-a", json.dumps(options)],
        cwd=ROOT, capture_output=True, text=True, check=False, timeout=120,
        env=_json_output(),
    )  # fmt: skip
    start = done.stdout.index("{")
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
