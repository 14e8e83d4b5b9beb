# SPDX-License-Identifier: GPL-3.0-or-later
"""Images of hosts on which an open Ollama runs already, as open_ollama.yml installs it.

Most scenarios begin with such a host: it is made once for all of them, by the same playbook that
their prepare.yml imports.
"""

from __future__ import annotations

from pathlib import Path

from tests.lab import artifacts
from tests.lab.hosts import Host, Lab
from tests.lab.podman import inspect, podman
from tests.lab.steps import ROOT, key_of, run, step

_PLAYBOOK = Path(__file__).with_name("open_ollama.yml")
# What each host must have of its own, and systemd must write before anything else can start.
_FORGET = """\
systemctl stop ollama.service systemd-journald.service 2>/dev/null
rm -rf /etc/ssh/ssh_host_* /etc/ssh/lab_authorized_keys /var/log/journal/* /tmp/*
: >/etc/machine-id
"""


def name(debian: str) -> str:
    """Name of the image of a Debian host ("12" or "13") with an open Ollama."""
    made_from = (
        artifacts.image(debian),
        artifacts.ollama().parent.name,
        artifacts.model().parent.name,
        _PLAYBOOK.read_text(),
        _FORGET,
    )
    return f"localhost/llmsec-lab-ollama{debian}:{key_of(made_from)}"


def build() -> None:
    """Make the images that are missing, both at once."""
    missing = [debian for debian in artifacts.SUITES if not inspect("image", name(debian))]
    if not missing:
        return
    variables = {
        "lab_ollama_archive": str(artifacts.ollama()),
        "lab_model": str(artifacts.model()),
    }
    hosts = [Host(f"open-d{debian}", debian, groups=("llm_hosts",)) for debian in missing]
    lab = Lab("images", hosts, variables=variables)
    lab.down()
    try:
        lab.up()
        with step("Installing an open Ollama for the images of the scenarios' hosts"):
            run(["ansible-playbook", "-i", lab.inventory, _PLAYBOOK], cwd=ROOT)
            for host in hosts:
                lab.run(host.name, "sh", "-c", _FORGET)
                podman("commit", "--quiet", lab.container(host.name), name(host.debian))
    finally:
        lab.down()
