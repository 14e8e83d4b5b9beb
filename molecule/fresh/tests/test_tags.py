# SPDX-License-Identifier: GPL-3.0-or-later
"""Each step of each role can be run alone, and none of them skips the checks."""

from __future__ import annotations

import json
import subprocess

import pytest

from tests.lab import playbook
from tests.lab.steps import ROOT

# Tags and control nodes do not ask which release a host has: the other one is left alone.
HOST = "fresh-d12"
ROLES = ("ollama", "pki", "key_validator", "gateway")


@pytest.mark.parametrize("step", ["install", "configure", "verify"])
def test_one_step_of_all_roles_alone(step):
    run = playbook.harden(HOST, "--tags", ",".join(f"{role}_{step}" for role in ROLES))
    assert run.code == 0, run
    assert run.changed == {HOST: 0}, run


@pytest.mark.parametrize("role", ROLES)
def test_configure_alone(role):
    run = playbook.harden(HOST, "--tags", f"{role}_configure", harden_roles=[role])
    assert run.code == 0, run
    assert run.changed == {HOST: 0}, run


def test_a_control_node_without_the_ca_issues_nothing(tmp_path):
    variables = {"harden_roles": ["pki"], "pki_ca_directory": str(tmp_path / "pki")}
    run = playbook.harden(HOST, "--tags", "pki_configure", **variables)
    assert run.code != 0
    assert "restore the CA from its backup" in run.text, run
    assert not (tmp_path / "pki").exists()


def test_keys_that_a_host_should_not_have_are_found():
    """The verify step of a control node that knows other keys than the host."""
    key = {"id": "other", "sha256": "0" * 64, "owner": "nobody"}
    variables = {"harden_roles": ["key_validator"], "key_validator_keys": [key]}
    run = playbook.harden(HOST, "--tags", "key_validator_verify", **variables)
    assert run.code != 0, run


@pytest.mark.parametrize(("source", "expected"), [("inventory", "pki"), ("hosts.yml", "pki")])
def test_ca_beside_the_inventory_as_in_the_readme(tmp_path, source, expected):
    """Ansible reads every file in an inventory folder: the CA's must not be among them."""
    path = tmp_path / source
    file = path if path.suffix else path / "hosts.yml"
    file.parent.mkdir(exist_ok=True)
    file.write_text("llm_hosts: {hosts: {llm1: }}\n")
    role = ROOT / "roles/pki"
    play = {
        "hosts": "llm1",
        "gather_facts": False,
        "vars_files": [f"{role}/defaults/main.yml", f"{role}/vars/main.yml"],
        "tasks": [{"ansible.builtin.debug": {"msg": "<{{ pki_ca_directory }}>"}}],
    }
    (tmp_path / "show.yml").write_text(json.dumps([play]))
    command = ["ansible-playbook", "-i", path, tmp_path / "show.yml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert f"<{tmp_path / expected}>" in done.stdout
    assert "Unable to parse" not in done.stderr
