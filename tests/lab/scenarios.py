# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of the Molecule scenarios: one lab for all, two gateways (Debian 12 and 13) each."""

from __future__ import annotations

from functools import partial

from tests.lab import artifacts
from tests.lab.hosts import Host, Lab
from tests.lab.podman import remove_containers
from tests.lab.steps import ROOT

CLIENTS = "/opt/llm-clients"


def names() -> list[str]:
    """The scenarios, as the folders of molecule/ name them; `default` only owns the lab."""
    return sorted(
        path.parent.name
        for path in (ROOT / "molecule").glob("*/molecule.yml")
        if path.parent.name != "default"
    )


def neighbours() -> list[Host]:
    """Who talks to the gateways: an application server with the official clients, a stranger."""
    clients = ((artifacts.clients(), CLIENTS),)
    return [
        Host("app-server", groups=("app_servers",), mounts=clients),
        Host("stranger", groups=("strangers",)),
    ]


def lab() -> Lab:
    """The lab of all scenarios. Host `<scenario>-d12` is Debian 12, `<scenario>-d13` Debian 13."""
    gateways = [
        Host(f"{name.replace('_', '-')}-d{debian}", debian, groups=(name, "llm_hosts"))
        for name in names()
        for debian in artifacts.SUITES
    ]
    variables = {
        "lab_ollama_archive": str(artifacts.ollama()),
        "lab_model": str(artifacts.model()),
        "lab_clients": CLIENTS,
    }
    return Lab("molecule", neighbours() + gateways, variables=variables)


def up() -> Lab:
    """Build what is missing, side by side, and boot the hosts."""
    images = [partial(artifacts.image, debian) for debian in artifacts.SUITES]
    artifacts.build(artifacts.ollama, artifacts.model, artifacts.clients, *images)
    booted = lab()
    booted.up()
    return booted


def reset(wanted: list[str]) -> None:
    """Give these scenarios hosts that nothing was done to yet."""
    current = lab()
    stale = [host.name for host in current.hosts if set(host.groups) & set(wanted)]
    remove_containers([current.container(name) for name in stale])
    up()
