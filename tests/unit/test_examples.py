# SPDX-License-Identifier: GPL-3.0-or-later
"""The inventories in docs/examples: Ansible reads them, and every variable is one of a role's.

A value with a template is known on the host only; all others are held against the argument specs.
"""

from __future__ import annotations

import re
import subprocess
import sys
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible.module_utils.common.arg_spec import ArgumentSpecValidator

from tests.unit.test_role_specs import ROLES, TREE, has_template, load

EXAMPLES = sorted((TREE / "docs/examples").glob("*/inventory.yml"))
# Of the playbooks
PLAYBOOK_VARIABLES = {"harden_roles"}


def options() -> dict[str, t.Any]:
    """Return every variable of a role with its spec."""
    specs = (load(role / "meta/argument_specs.yml") for role in ROLES.iterdir())
    return {
        name: spec
        for one in specs
        for name, spec in one["argument_specs"]["main"]["options"].items()
    }


def problems(variables: dict[str, t.Any]) -> list[str]:
    """Return what is wrong with a group's variables."""
    known = options()
    odd = [f"{name} is no role's" for name in variables.keys() - known.keys() - PLAYBOOK_VARIABLES]
    given = {
        name: value
        for name, value in variables.items()
        if name in known and not has_template(value)
    }
    # What preflight asks of the host, and no spec can say
    odd += [
        f"gateway_backends: {one['address']} is no IP address"
        for one in given.get("gateway_backends", ())
        if not re.match(r"(\d+\.){3}\d+:|\[", one["address"])
    ]
    spec = {name: known[name] for name in given}
    return sorted(odd) + ArgumentSpecValidator(spec).validate(given).error_messages


def test_what_is_wrong_is_found() -> None:
    bad = {
        "gateway_backends": [{"address": "gpu1:443"}],
        "gateway_prot": 443,
        "gateway_port": "https",
        "gateway_auth": "none",
        "harden_roles": [],
    }
    found = " ".join(problems(bad))
    for name in ("gateway_backends", "gateway_prot", "gateway_port", "gateway_auth"):
        assert name in found
    assert "harden_roles" not in found


def test_there_are_three() -> None:
    assert len(EXAMPLES) == 3


@pytest.mark.parametrize("inventory", EXAMPLES, ids=lambda path: path.parent.name)
def test_every_variable_is_a_roles_own(inventory: Path) -> None:
    files = sorted(inventory.parent.glob("group_vars/*/*.yml"))
    assert files
    for file in files:
        assert problems(yaml.safe_load(file.read_text())) == []


def test_ansible_reads_them() -> None:
    words = [word for inventory in EXAMPLES for word in ("-i", str(inventory))]
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", *words, "--syntax-check",
         "llmsec.hardening.harden", "llmsec.hardening.assess"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "[WARNING]" not in done.stderr
