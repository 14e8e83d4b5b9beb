# SPDX-License-Identifier: GPL-3.0-or-later
"""Hosts of the lab: containers that boot systemd, joined by one network with IPv4 and IPv6.

A `Lab` is a named set of hosts with an inventory. Ansible and the tests reach them as users
reach theirs: over SSH, as an unprivileged user with sudo.
"""

from __future__ import annotations

import fcntl
import ipaddress
import itertools
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.lab import artifacts
from tests.lab.podman import PREFIX, inspect, own_containers, podman, remove_containers
from tests.lab.steps import ROOT, LabError, put, run, step

STATE = ROOT / ".lab"
BOOT_TIMEOUT = 60  # seconds
INOTIFY_INSTANCES = 2048
MOST_LEAKS = 50  # addresses that podman may have lost
FIRST_ADDRESS = 10  # of the subnet; podman's own DNS and gateway live below


def _allow_many_hosts() -> None:
    """Raise the kernel's limit of inotify instances, until the next reboot of this machine.

    Each host's systemd needs several, and containers share one limit: with the usual 128 about
    twenty hosts boot, and the next one ends with 255.
    """
    limit = Path("/proc/sys/fs/inotify/max_user_instances")
    if int(limit.read_text()) < INOTIFY_INSTANCES:
        limit.write_text(str(INOTIFY_INSTANCES))


def _mac_address(v4: str) -> str:
    """The host's own hardware address: a reboot keeps it, so that neighbours' caches stay true."""
    return ":".join(["02", "00", *(f"{byte:02x}" for byte in ipaddress.ip_address(v4).packed)])


@dataclass(frozen=True)
class Host:
    """One host of a lab: a Debian release ("12", "13"), groups, names for the lab's DNS, mounts.

    `open_ollama` says that it begins with an open Ollama instead of bare.
    """

    name: str
    debian: str = "12"
    groups: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    mounts: tuple[tuple[Path, str], ...] = ()
    open_ollama: bool = False


def _has_mounts(container: Any, host: Host) -> bool:
    """Tell whether a container has what the host mounts: a folder's name is its content's key."""
    mounted = {(mount["Source"], mount["Destination"]) for mount in container["Mounts"]}
    return {(str(source), target) for source, target in host.mounts} <= mounted


@dataclass
class Lab:
    """A set of hosts on a network of their own, and the inventory that names them."""

    name: str
    hosts: list[Host]
    variables: dict[str, Any] = field(default_factory=dict)
    inventory_directory: Path | None = None
    # Name of the image of an open Ollama's host, by Debian release
    open_image: Callable[[str], str] = artifacts.image

    @property
    def network(self) -> str:
        return f"{PREFIX}-{self.name}"

    @property
    def inventory(self) -> Path:
        return self.inventory_directory or STATE / self.name / "inventory"

    def container(self, host: str) -> str:
        return f"{PREFIX}-{self.name}-{host}"

    def up(self) -> None:
        """Boot what is missing; hosts that run are left as they are."""
        images = {
            (debian, opened): (self.open_image if opened else artifacts.image)(debian)
            for debian, opened in sorted({(host.debian, host.open_ollama) for host in self.hosts})
        }
        if not self._places_file.exists():
            self.down()  # what an interrupted run left has no addresses that anybody remembers
        with (
            self._no_restart_meanwhile(fcntl.LOCK_EX),
            step(f"Booting {len(self.hosts)} hosts of the lab `{self.name}`"),
        ):
            _allow_many_hosts()
            self._network_up()
            self._key()
            with ThreadPoolExecutor(4) as pool:
                wanted = [images[host.debian, host.open_ollama] for host in self.hosts]
                list(pool.map(self._host_up, self.hosts, wanted))
            self._deliver_multicast()
            self._write_names()
        self._write_inventory(self.addresses())

    def down(self) -> None:
        """Remove the hosts and the network, also when only half of them were made."""
        mine = [name for name in own_containers() if name.startswith(f"{self.network}-")]
        remove_containers(mine)
        if inspect("network", self.network):
            podman("network", "rm", self.network)
        shutil.rmtree(self.inventory, ignore_errors=True)
        shutil.rmtree(STATE / self.name, ignore_errors=True)

    def reboot(self, name: str) -> None:
        """Stop a host and start it again, until it has booted and answers on its SSH port."""
        with self._no_restart_meanwhile(fcntl.LOCK_SH):
            podman("restart", self.container(name))
            self._wait_for_boot(self.container(name))
            self._wait_for_ssh(self.container(name), self.addresses()[name][0])

    @contextmanager
    def _no_restart_meanwhile(self, kind: int) -> Iterator[None]:
        """Wait for each other: a host that restarts looks half-made to another scenario's `up`.

        Tests restart hosts side by side (shared), and none while hosts are looked at (exclusive).
        """
        file = STATE / self.name / "restarts.lock"
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("w") as lock:
            fcntl.flock(lock, kind)
            yield

    def addresses(self) -> dict[str, tuple[str, str]]:
        """Host name → (IPv4, IPv6); fixed, so that a host keeps its address over a restart."""
        network = inspect("network", self.network)
        if network is None:
            raise LabError(f"the lab `{self.name}` is not up")
        subnets = [ipaddress.ip_network(subnet["subnet"]) for subnet in network["subnets"]]
        v4 = next(subnet for subnet in subnets if subnet.version == 4)
        v6 = next(subnet for subnet in subnets if subnet.version == 6)
        return {
            name: (str(v4[FIRST_ADDRESS + place]), str(v6[FIRST_ADDRESS + place]))
            for name, place in self._places().items()
        }

    @property
    def _places_file(self) -> Path:
        return STATE / self.name / "places.json"

    def _places(self, move: str = "") -> dict[str, int]:
        """Host name → its number on the network, remembered so that new hosts move nobody.

        The host `move` gets a new number.
        """
        file = self._places_file
        file.parent.mkdir(parents=True, exist_ok=True)
        # Several scenarios and their tests ask at once, each in a process of its own.
        with file.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            known: dict[str, int] = json.loads(file.read_text()) if file.exists() else {}
            places = {name: place for name, place in known.items() if name != move}
            free = itertools.count(max(known.values(), default=-1) + 1)
            for host in self.hosts:
                if host.name not in places:
                    places[host.name] = next(free)
            put(file, json.dumps(places))
        return places

    def run(
        self, host: str, *command: str, stdin: str = "", check: bool = False, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command as root on a host, the way a person at its console would."""
        words = ["exec", "--interactive", self.container(host), *command]
        return podman(*words, stdin=stdin, check=check, timeout=timeout)

    def _network_up(self) -> None:
        if inspect("network", self.network) is None:
            podman("network", "create", "--ipv6", self.network)

    def _deliver_multicast(self) -> None:
        """Have the bridge deliver all multicast: IPv6 finds its neighbours with it, and a bridge
        that keeps lists of who listens forgets hosts that rebooted."""
        bridge = inspect("network", self.network)["network_interface"]
        Path(f"/sys/class/net/{bridge}/bridge/multicast_snooping").write_text("0")

    @property
    def _ssh(self) -> Path:
        return STATE / self.name / "ssh"

    def _key(self) -> None:
        """A login key of this lab alone."""
        self._ssh.mkdir(parents=True, exist_ok=True)
        self._ssh.chmod(0o700)
        key = self._ssh / "id_ed25519"
        if not key.exists():
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", self.network, "-f", key])

    def _host_up(self, host: Host, image: str) -> None:
        name = self.container(host.name)
        known = inspect("container", name)
        if known and (known["State"]["Status"] != "running" or not _has_mounts(known, host)):
            remove_containers([name])  # half-made, the machine was restarted, or made for others
            known = None
        if known is None:
            self._start(host, image)
        self._wait_for_boot(name)
        self._authorize(host.name)
        self._wait_for_ssh(name, self.addresses()[host.name][0])

    def _start(self, host: Host, image: str) -> None:
        name = self.container(host.name)
        mounts = [f"--volume={source}:{target}:ro" for source, target in host.mounts]
        aliases = [f"--network-alias={alias}" for alias in (host.name, *host.aliases)]
        for _attempt in range(MOST_LEAKS):
            v4, v6 = self.addresses()[host.name]
            done = podman(
                "run", "--detach", "--systemd=always", "--privileged", f"--name={name}",
                f"--hostname={host.name}", f"--network={self.network}", f"--ip={v4}",
                f"--ip6={v6}", f"--mac-address={_mac_address(v4)}", *aliases, *mounts, image,
                "/sbin/init", check=False,
            )  # fmt: skip
            if done.returncode == 0:
                return
            # A container that was killed together with podman keeps its address for ever.
            if "already allocated" not in done.stderr:
                break
            remove_containers([name])
            self._places(move=host.name)
        raise LabError(f"{name} does not start: {done.stderr.strip()}")

    def _wait_for_boot(self, container: str) -> None:
        deadline = time.monotonic() + BOOT_TIMEOUT
        state = ""
        while time.monotonic() < deadline:
            done = podman("exec", container, "systemctl", "is-system-running", check=False)
            state = (done.stdout or done.stderr).strip()
            if state in {"running", "degraded"}:
                return
            time.sleep(0.3)
        raise LabError(f"{container} did not boot within {BOOT_TIMEOUT} s (systemd says: {state})")

    def _wait_for_ssh(self, container: str, address: str) -> None:
        """Wait until the host answers from here: a bridge that lost a port learns for a while."""
        deadline = time.monotonic() + BOOT_TIMEOUT
        while time.monotonic() < deadline:
            try:
                with socket.create_connection((address, 22), timeout=2) as link:
                    if link.recv(4) == b"SSH-":
                        return
            except OSError:
                time.sleep(0.3)
        raise LabError(f"{container} ({address}) does not answer on its SSH port")

    def _authorize(self, host: str) -> None:
        public = (self._ssh / "id_ed25519.pub").read_text()
        write = "cat >/etc/ssh/lab_authorized_keys && chmod 0644 /etc/ssh/lab_authorized_keys"
        self.run(host, "sh", "-c", write, stdin=public, check=True)

    def _host_key(self, host: Host, addresses: dict[str, tuple[str, str]]) -> str:
        """The host's key for known_hosts, read from inside: nobody on the network can lie."""
        text = self.run(host.name, "cat", "/etc/ssh/ssh_host_ed25519_key.pub", check=True)
        kind, key = text.stdout.split()[:2]
        return f"{','.join(addresses[host.name])} {kind} {key}\n"

    def _write_names(self) -> None:
        """Tell each host the names of all: podman's own DNS may be away for a while when the
        networks of another checkout come and go."""
        addresses = self.addresses()
        lines = ["127.0.0.1 localhost", "::1 localhost ip6-localhost"]
        for host in self.hosts:
            names = " ".join((host.name, *host.aliases))
            lines += [f"{address} {names}" for address in addresses[host.name]]
        text = "\n".join(lines) + "\n"
        for host in self.hosts:
            self.run(host.name, "sh", "-c", "cat >/etc/hosts", stdin=text, check=True)

    def _write_inventory(self, addresses: dict[str, tuple[str, str]]) -> None:
        keys = "".join(self._host_key(host, addresses) for host in self.hosts)
        put(self._ssh / "known_hosts", keys)
        groups: dict[str, dict[str, Any]] = {}
        for host in self.hosts:
            for group in host.groups:
                groups.setdefault(group, {"hosts": {}})["hosts"][host.name] = None
        ssh = f"{{{{ inventory_dir }}}}/{os.path.relpath(self._ssh, self.inventory)}"
        # Not variables of `all`: those would reach the control node as well.
        lab = {
            "hosts": {
                host.name: {
                    "ansible_host": addresses[host.name][0],
                    "lab_ipv6": addresses[host.name][1],
                    "lab_container": self.container(host.name),
                }
                for host in self.hosts
            },
            "vars": {
                "ansible_user": "ansible",
                "ansible_ssh_private_key_file": f"{ssh}/id_ed25519",
                "ansible_ssh_common_args": f"-o UserKnownHostsFile={ssh}/known_hosts",
                **self.variables,
            },
        }
        content = {"all": {"children": {"lab": lab, **groups}}}
        # JSON is YAML: the file needs no library to write and any tool can read it.
        put(self.inventory / "hosts.yml", json.dumps(content, indent=2) + "\n")
