# SPDX-License-Identifier: GPL-3.0-or-later
"""./dev lab up|down|status|shell, ./dev clean"""

from __future__ import annotations

import os
import shutil
import sys

from tests.lab import scenarios
from tests.lab.podman import PREFIX, inspect, own_containers, podman, remove_containers
from tests.lab.steps import CACHE, ROOT, LabError, say

USAGE = "usage: ./dev lab up | down | status | shell HOST"


def clean() -> None:
    """Remove this checkout's hosts, networks, images and cache."""
    remove_containers(own_containers())
    networks = podman("network", "ls", "--format", "{{.Name}}").stdout.split()
    for name in networks:
        if name.startswith(f"{PREFIX}-"):
            podman("network", "rm", name)
    images = podman("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split()
    for name in images:
        if name.startswith("localhost/llmsec-lab-"):
            # Another checkout's hosts may run from it; podman then keeps it.
            podman("rmi", name, check=False)
    shutil.rmtree(ROOT / ".lab", ignore_errors=True)
    shutil.rmtree(CACHE, ignore_errors=True)


def status() -> None:
    """One line for each of this checkout's hosts."""
    for name in own_containers():
        state = inspect("container", name)
        print(f"{name}  {state['State']['Status'] if state else 'gone'}")


def shell(host: str) -> None:
    """Become a root shell on the host whose container name ends in `host`."""
    found = [name for name in own_containers() if name.endswith(f"-{host}")]
    if len(found) != 1:
        raise LabError(f"no single host of this name: {host} (./dev lab status lists them)")
    os.execvp("podman", ["podman", "exec", "--interactive", "--tty", found[0], "bash"])  # noqa: S606


def main(words: list[str]) -> int:
    match words:
        case ["up"]:
            lab = scenarios.up()
            say(f"The inventory is {lab.inventory.relative_to(ROOT)}")
        case ["down"]:
            scenarios.lab().down()
        case ["status"]:
            status()
        case ["shell", host]:
            shell(host)
        case ["clean"]:
            clean()
        case _:
            print(USAGE, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except LabError as error:
        sys.exit(f"./dev lab: {error}")
