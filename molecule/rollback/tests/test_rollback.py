# SPDX-License-Identifier: GPL-3.0-or-later
"""After harden and rollback the host is what it was before: files, users, units, packages."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest

from tests.lab import curl
from tests.lab.steps import ROOT

SNAPSHOT = Path(ROOT / "tests/lab/snapshot.sh").read_text()


@pytest.fixture(scope="module", autouse=True)
def after(lab, scenario):
    for name in ("rollback-d12", "rollback-d13"):
        lab.run(name, "sh", "-s", "/root/after", stdin=SNAPSHOT, check=True)


@pytest.mark.parametrize(
    "what", ["files", "contents", "users", "groups", "units", "packages", "listening"]
)
def test_the_host_is_what_it_was(gateway, what):
    before = gateway.host.file(f"/root/before/{what}").content_string.splitlines()
    now = gateway.host.file(f"/root/after/{what}").content_string.splitlines()
    assert before, "an empty snapshot proves nothing"
    changes = list(difflib.unified_diff(before, now, "before", "after", n=0))
    assert changes == []


def test_ollama_is_open_again(gateway, lab):
    url = f"http://{gateway.address}:11434/api/generate"
    answer = curl.request(lab, "stranger", url, *curl.generate("tiny", stream=False))
    assert answer.status == 200
    assert answer.json()["done"] is True
