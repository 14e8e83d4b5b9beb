# SPDX-License-Identifier: GPL-3.0-or-later
"""assess.yml where no host answers: a report says so, and nothing but the gate ends the run."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

INVENTORY = """\
llm_hosts:
  hosts:
    gone: {ansible_host: 127.0.0.1, ansible_port: 1}
"""


def test_a_host_that_is_gone_is_in_the_report(tmp_path: Path) -> None:
    (tmp_path / "hosts.yml").write_text(INVENTORY)
    wishes = {"posture_report_dir": str(tmp_path), "posture_report_formats": ["json"]}
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "playbook", "-i", "hosts.yml",
         "llmsec.hardening.assess", "-e", json.dumps(wishes)],
        cwd=tmp_path, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode != 0
    assert "The gate is red" in done.stdout + done.stderr
    (host,) = json.loads((tmp_path / "report.json").read_text())["hosts"]
    assert host["name"] == "gone"
    found = {one["id"]: one["outcome"] for one in host["findings"]}
    assert found["assessment.reached"] == "error"
