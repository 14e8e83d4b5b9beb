# SPDX-License-Identifier: GPL-3.0-or-later
"""The hosts of the Molecule scenarios: one lab for all, gateways of Debian 12 and 13 for each."""

from __future__ import annotations

import os
import shutil
from functools import partial

from tests.lab import artifacts, open_image
from tests.lab.hosts import STATE, Host, Lab
from tests.lab.podman import remove_containers
from tests.lab.steps import ROOT, put

CLIENTS = "/opt/llm-clients"
LOCALAI_STAND_IN = "tests/lab/localai_stand_in.py"
# Scenarios about what does not differ between the releases have one host, which halves their time:
# what they configure is on both in others.
ONE_RELEASE = {"alternative": "13", "llama_cpp": "13", "recovery": "12"}
# What one scenario needs beside the lab, and takes so long that no other waits for it
PROVIDED = {"litellm": artifacts.litellm}
# Of each gateway, a folder with the first seal key and the last known head of its audit log
AUDIT = STATE / "molecule/audit"


def names() -> list[str]:
    """The scenarios, as the folders of molecule/ name them; `default` only owns the lab."""
    return sorted(
        path.parent.name
        for path in (ROOT / "molecule").glob("*/molecule.yml")
        if path.parent.name != "default"
    )


def gateways(scenario: str) -> dict[str, str]:
    """The scenario's hosts: name → Debian release. Most have one of each."""
    releases = [ONE_RELEASE[scenario]] if scenario in ONE_RELEASE else list(artifacts.SUITES)
    return {f"{scenario.replace('_', '-')}-d{debian}": debian for debian in releases}


def _wants_open_ollama(scenario: str) -> bool:
    """Whether it prepares its hosts with open_ollama.yml, which an image has done already."""
    return "open_ollama.yml" in (ROOT / "molecule" / scenario / "prepare.yml").read_text()


def server_name(host: str) -> str:
    """By which name clients call the gateway on this host; the lab's DNS knows it."""
    return f"{host}.llm.example.com"


def neighbours() -> list[Host]:
    """Who talks to the gateways: an application server with the official clients, a stranger."""
    clients = ((artifacts.clients(), CLIENTS),)
    return [
        Host("app-server", groups=("app_servers",), mounts=clients),
        Host("stranger", groups=("strangers",)),
    ]


def lab() -> Lab:
    """The lab of all scenarios. Host `<scenario>-d12` is Debian 12, `<scenario>-d13` Debian 13."""
    hosts = [
        Host(
            host,
            debian,
            groups=(name, "llm_hosts"),
            aliases=(server_name(host),),
            open_ollama=_wants_open_ollama(name),
        )
        for name in names()
        for host, debian in gateways(name).items()
    ]
    variables = {
        "lab_ollama_archive": str(artifacts.ollama()),
        "lab_model": str(artifacts.model()),
        "lab_localai": os.environ.get("LOCALAI_BINARY") or str(ROOT / LOCALAI_STAND_IN),
        "lab_litellm": str(artifacts.litellm_path()),
        "lab_embedding_model": str(artifacts.embedding_model()),
        "lab_tools_template": str(ROOT / "tests/lab/tools.template"),
        "lab_clients": CLIENTS,
        "lab_server_name": "{{ inventory_hostname }}.llm.example.com",
        "lab_state": "{{ inventory_dir }}/..",
        # The scenario `posture` looks at assessments.
        "harden_assess": False,
    }
    return Lab("molecule", neighbours() + hosts, variables=variables, open_image=open_image.name)


def up() -> Lab:
    """Build what is missing, side by side, and boot the hosts."""
    images = [partial(artifacts.image, debian) for debian in artifacts.SUITES]
    artifacts.build(artifacts.ollama, artifacts.model, artifacts.clients, *images)
    open_image.build()
    booted = lab()
    booted.up()
    _write_variables(booted)
    return booted


def _write_variables(booted: Lab) -> None:
    """Each scenario's variables.yml becomes its group's, in the lab's inventory."""
    for name in names():
        source = ROOT / "molecule" / name / "variables.yml"
        if source.exists():
            put(booted.inventory / "group_vars" / name / "scenario.yml", source.read_text())


def reset(wanted: list[str]) -> None:
    """Give these scenarios hosts that nothing was done to yet."""
    current = lab()
    stale = [host.name for host in current.hosts if set(host.groups) & set(wanted)]
    remove_containers([current.container(name) for name in stale])
    for name in stale:
        # What is known here of their audit logs: a new host begins a new one.
        shutil.rmtree(AUDIT / name, ignore_errors=True)
    up()
