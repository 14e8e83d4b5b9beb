# SPDX-License-Identifier: GPL-3.0-or-later
"""The lookup hands the catalogue to templates: asked through Ansible itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.lookup import llm_server

# .../ansible_collections/llmsec/hardening/plugins/lookup/llm_server.py
COLLECTIONS = Path(llm_server.__file__).parents[5]


def ansible(expression: str) -> subprocess.CompletedProcess[str]:
    """Template an expression on the control node."""
    environment = {
        # Whatever the machine's own settings say about output.
        "ANSIBLE_CALLBACK_RESULT_FORMAT": "json",
        "ANSIBLE_COLLECTIONS_PATH": str(COLLECTIONS),
        "ANSIBLE_LOCALHOST_WARNING": "false",
        "ANSIBLE_INVENTORY_UNPARSED_WARNING": "false",
    }
    message = f"msg={{{{ {expression} | to_json }}}}"
    command = [sys.executable, "-m", "ansible", "adhoc", "localhost", "-m", "debug", "-a", message]
    return subprocess.run(
        command, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def lookup(arguments: str) -> dict:
    done = ansible(f"lookup('llmsec.hardening.llm_server', {arguments})")
    assert done.returncode == 0, done.stdout + done.stderr
    message = json.loads(done.stdout.partition("=> ")[2])["msg"]
    return json.loads(message) if isinstance(message, str) else message


def test_contract_of_the_dictionary():
    server = lookup("'ollama'")
    wanted = {"name", "unit", "user", "group", "home", "address", "port", "host_header"}
    wanted |= {"health_path", "environment", "forbidden_environment", "writable_paths", "devices"}
    assert wanted | {"routes", "version_floors"} <= set(server)
    assert server["environment"]["OLLAMA_HOST"] == f"{server['address']}:{server['port']}"
    assert "missed_floors" not in server


def test_an_old_version_misses_floors():
    server = lookup("'ollama', installed_version='0.17.0'")
    cves = [cve for floor in server["missed_floors"] for cve in floor["cves"]]
    assert "CVE-2026-7482" in cves
    assert "CVE-2024-37032" not in cves


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("'vlm'", "known: litellm, llama_cpp, localai, ollama, vllm"),
        ("'ollama', installed_version='new'", "not a version number"),
    ],
)
def test_errors_name_what_is_wrong(arguments, message):
    done = ansible(f"lookup('llmsec.hardening.llm_server', {arguments})")
    assert done.returncode != 0
    assert message in done.stdout + done.stderr
