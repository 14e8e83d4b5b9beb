# SPDX-License-Identifier: GPL-3.0-or-later
"""Two namespaces and two wires between them: a judged host, and the world around it.

world: w0 ──────── t0 :host      10.0.0.0/8, fd00:a::/64, and whatever has no other route
       w1 ──────── t1            172.16.0.0/16, fd00:b::/64: what the host forwards to
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.iptables_save import (
    BUILT_IN,
)

from tests.lab.podman import PREFIX

HOST, WORLD = f"{PREFIX}-k-host", f"{PREFIX}-k-world"
MACS = {"t0": "02:00:00:00:00:10", "t1": "02:00:00:00:00:11"}
WIRES = {"t0": "w0", "t1": "w1"}
ADDRESSES = {"t0": ("10.0.0.1/8", "fd00:a::1/64"), "t1": ("172.16.0.1/16", "fd00:b::1/64")}
LOCAL = {"ip": ("10.0.0.1", "172.16.0.1"), "ip6": ("fd00:a::1", "fd00:b::1")}

# Sees every packet before and behind all rules, and remembers it by its identification.
_SETS = "".join(
    f"set {name}4 {{ typeof ip id; flags dynamic; size 65535; }}\n"
    f"set {name}6 {{ typeof ip6 flowlabel; flags dynamic; size 65535; }}\n"
    for name in ("came", "got", "left")
)
_CHAINS = "".join(
    f"chain {chain} {{ type filter hook {hook} priority {priority};\n"
    f"meta l4proto {{ tcp, udp }} add @{name}4 {{ ip id }}\n"
    f"meta l4proto {{ tcp, udp }} add @{name}6 {{ ip6 flowlabel }}\n}}\n"
    for chain, hook, priority, name in (
        ("came", "prerouting", -(1 << 31), "came"),
        ("sent", "output", -(1 << 31), "came"),
        ("got", "input", (1 << 31) - 1, "got"),
        ("left", "postrouting", (1 << 31) - 1, "left"),
    )
)
# The first table is there so that connections are tracked before the rules under test are loaded.
ORACLE = (
    "table inet conntrack { chain c {\nct state new\n}\n}\n"
    f"table inet oracle {{\n{_SETS}{_CHAINS}}}\n"
)


def _without_rules() -> str:
    """Return input of iptables-restore that empties all tables the tests use."""
    lines: list[str] = []
    for table in ("filter", "mangle", "raw", "security"):
        lines += [f"*{table}", *(f":{chain} ACCEPT [0:0]" for chain in BUILT_IN[table]), "COMMIT"]
    return "\n".join([*lines, ""])


_PATIENCE = 10.0  # seconds until a packet that left must have come


class Agent:
    """A process in a namespace."""

    def __init__(self, namespace: str) -> None:
        script = Path(__file__).with_name("agent.py")
        self._process = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, str(script)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ask(self, order: str, **words: Any) -> dict[str, Any]:
        self._process.stdin.write(json.dumps({"order": order, **words}) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the agent died of {order} {words}")
        return json.loads(answer)

    def run(self, *command: str, stdin: str | None = None) -> str:
        done = self.ask("run", command=command, stdin=stdin)
        if done["code"] != 0:
            raise RuntimeError(f"{' '.join(command)}: {done['stderr']}\n{stdin or ''}")
        return done["stdout"]

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True, text=True)


class Network:
    """The namespaces, from their making to their removal."""

    def __init__(self) -> None:
        remove()
        for namespace in (HOST, WORLD):
            _ip("netns", "add", namespace)
        self.host = self.world = None
        self._legacy_used: set[str] = set()
        try:
            self._wire()
            self.host, self.world = Agent(HOST), Agent(WORLD)
            self._routes()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        for agent in (self.host, self.world):
            if agent is not None:
                agent.close()
        remove()

    @staticmethod
    def _wire() -> None:
        for device, wire in WIRES.items():
            _ip(
                *("-n", HOST, "link", "add", device, "address", MACS[device], "type", "veth"),
                *("peer", "name", wire, "netns", WORLD),
            )
            _ip("-n", WORLD, "link", "set", wire, "up")
            for address in ADDRESSES[device]:
                flags = ["nodad"] if ":" in address else []
                _ip("-n", HOST, "address", "add", address, "dev", device, *flags)
            _ip("-n", HOST, "link", "set", device, "up")
        _ip("-n", HOST, "link", "set", "lo", "up")

    def _routes(self) -> None:
        settings = {
            "net/ipv4/ip_forward": 1,
            "net/ipv6/conf/all/forwarding": 1,
            # Answers of the kernel must not look like packets of the test.
            "net/ipv6/auto_flowlabels": 0,
            "net/ipv4/conf/all/rp_filter": 0,
            "net/ipv4/conf/t0/rp_filter": 0,
            "net/ipv4/conf/t1/rp_filter": 0,
        }
        for name, value in settings.items():
            self.host.run("sh", "-c", f"echo {value} > /proc/sys/{name}")
        self.host.run("ip", "route", "add", "default", "dev", "t0")
        self.host.run("ip", "-6", "route", "add", "default", "dev", "t0")

    def restore(self, command: str, text: str) -> None:
        """Load rules with iptables-nft, ip6tables-nft, iptables-legacy or ip6tables-legacy."""
        if command.endswith("-legacy"):
            self._legacy_used.add(command)
        self.host.run(f"{command}-restore", stdin=text)

    def has_legacy(self) -> bool:
        """Say whether this kernel has the legacy tables."""
        command = ["iptables-legacy", "-t", "security", "-S"]
        return self.host.ask("run", command=command)["code"] == 0

    # -- One rule set ------------------------------------------------------------------------------

    def fresh(self) -> None:
        """Take all rules away, and all connections."""
        self.host.run("nft", "flush", "ruleset")
        for command in self._legacy_used:
            self.host.run(f"{command}-restore", stdin=_without_rules())
        self._legacy_used.clear()
        self.host.run("nft", "-f", "-", stdin=ORACLE)
        if self.host.ask("forget")["error"] != 0:
            raise RuntimeError("the connection table was not emptied")

    def listings(self) -> tuple[str, str]:
        """Return `nft -j list ruleset` and `nft list ruleset`."""
        return self.host.run("nft", "-j", "list", "ruleset"), self.host.run(
            "nft", "list", "ruleset"
        )

    def seen(
        self, expected: set[tuple[str, int]], *, all_come: bool = True
    ) -> dict[str, set[tuple[str, int]]]:
        """Return {"came", "got", "left": {(family, id)}} once all expected packets came.

        Where some may never come, wait until nothing changes any more.
        """
        deadline = time.monotonic() + _PATIENCE
        before: dict[str, set[tuple[str, int]]] = {}
        while True:
            sets = self._sets()
            if expected <= sets["came"] or (not all_come and sets == before):
                return sets
            if time.monotonic() > deadline:
                raise RuntimeError(f"packets that never came: {expected - sets['came']}")
            before = sets
            time.sleep(0.01 if all_come else 0.2)

    def _sets(self) -> dict[str, set[tuple[str, int]]]:
        found: dict[str, set[tuple[str, int]]] = {"came": set(), "got": set(), "left": set()}
        listed = json.loads(self.host.run("nft", "-j", "list", "table", "inet", "oracle"))
        for each in listed["nftables"]:
            if "set" in each:
                name = each["set"]["name"]
                family = "ip" if name.endswith("4") else "ip6"
                found[name[:-1]] |= {(family, number) for number in each["set"].get("elem", [])}
        return found


def remove() -> None:
    """Remove this checkout's namespaces, those of a killed run as well."""
    listed = subprocess.run(["ip", "netns", "list"], check=True, capture_output=True, text=True)
    here = {line.split()[0] for line in listed.stdout.splitlines() if line}
    for namespace in (HOST, WORLD):
        if namespace in here:
            _ip("netns", "delete", namespace)
