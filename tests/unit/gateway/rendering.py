# SPDX-License-Identifier: GPL-3.0-or-later
"""The role's files as Ansible renders them, by one process of Ansible for all tests.

To start ansible-playbook takes many times as long as to render what one test needs.
"""

from __future__ import annotations

import atexit
import functools
import json
import subprocess
import sys
import typing as t
from pathlib import Path

ROLE = Path(__file__).resolve().parents[3] / "roles" / "gateway"
NAME = "llm.test"
FACTS = {"fqdn": NAME, "distribution": "Debian", "distribution_major_version": "12"}
USUAL = {
    "ansible_facts": FACTS,
    "__gateway_if_inet6": {"stat": {"exists": False}},
    "__gateway_ocsp": {"stdout": ""},
    "gateway_server_names": [NAME],
}
Files = dict[str, str]


def rendered(**variables: t.Any) -> Files:
    """Return {path: text} of the role's files on a host with these variables."""
    process = _ansible()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps({**USUAL, **variables}) + "\n")
    process.stdin.flush()
    answer = process.stdout.readline()
    assert answer, "Ansible has ended; what it said is in the test's standard error"
    return t.cast("Files", json.loads(answer))


@functools.cache
def _ansible() -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    atexit.register(process.communicate)
    return process


def _answer() -> None:
    """Render what each line of standard input asks for."""
    from ansible.parsing.dataloader import DataLoader
    from ansible.plugins.loader import init_plugin_loader
    from ansible.template import Templar, trust_as_template

    init_plugin_loader()
    loader, role = DataLoader(), {"ansible_search_path": [str(ROLE)]}
    for folder in ("defaults", "vars"):
        file = str(ROLE / folder / "main.yml")
        role |= loader.load_from_file(file, trusted_as_template=True)
    for line in sys.stdin:
        templar = Templar(loader, {**role, **json.loads(line)})
        wanted = "{{ __gateway_files + __gateway_secret_files }}"
        files = templar.template(trust_as_template(wanted))
        print(json.dumps({one["path"]: one["content"] for one in files}), flush=True)


if __name__ == "__main__":
    _answer()
