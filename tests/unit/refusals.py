# SPDX-License-Identifier: GPL-3.0-or-later
"""What a role's checks say of bad input: each case is a host of one run of Ansible."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import typing as t
from pathlib import Path

import yaml

_SAY = "{{ ansible_failed_result.msg | default('not said') }}"


def refusals(
    folder: Path, role: str, parts: dict[str, t.Any], hosts: dict[str, dict[str, t.Any]]
) -> tuple[dict[str, str], str]:
    """Run a role's task files over hosts with these variables.

    ``parts``: each file with the condition under which it is run. Returns what the first failing
    task of each host said ("" for none), and everything that Ansible showed.
    """
    usual = {"ansible_python_interpreter": sys.executable}
    with_usual = {name: {**usual, **variables} for name, variables in hosts.items()}
    (folder / "hosts.json").write_text(json.dumps({"all": {"hosts": with_usual}}))
    name = f"llmsec.hardening.{role}"
    checks = [
        {"ansible.builtin.include_role": {"name": name, "tasks_from": part}, "when": when}
        for part, when in parts.items()
    ]
    task = {
        "block": [*checks, {"ansible.builtin.debug": {"msg": "SAID "}}],
        "rescue": [{"ansible.builtin.debug": {"msg": f"SAID {_SAY}"}}],
    }
    play = {"hosts": "all", "connection": "local", "gather_facts": False, "tasks": [task]}
    (folder / "play.yml").write_text(yaml.safe_dump([play], sort_keys=False))
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.json", "play.yml"],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "ANSIBLE_NOCOLOR": "1", "ANSIBLE_CALLBACK_RESULT_FORMAT": "json"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    found = re.findall(r'^ok: \[(\w+)\] => \{\s*"msg": "SAID (.*)"$', done.stdout, re.MULTILINE)
    assert {name for name, _text in found} == set(hosts), done.stdout
    return dict(found), done.stdout + done.stderr
