# SPDX-License-Identifier: GPL-3.0-or-later
"""Checking files from the command line, in an interpreter without uvloop and httptools."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from llm_key_validator.keys import generate_key

from .conftest import FILES, record, registry_text

# Found by name before the real ones: importing either fails the run
_NO_EDGE = "import sys; sys.modules.update(uvloop=None, httptools=None); "


def check(*arguments: str, text: str) -> subprocess.CompletedProcess[str]:
    code = f"{_NO_EDGE}sys.path.insert(0, {str(FILES)!r}); "
    code += "from llm_key_validator.main import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-I", "-B", "-c", code, *arguments]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def test_good_files_pass_in_silence() -> None:
    registry = registry_text(record(generate_key()))
    for arguments, text in (
        (["--check-config", "-"], "{}"),
        (["--check-registry", "-"], registry),
        (["--check-input"], json.dumps({"config": {}, "registry": json.loads(registry)})),
    ):
        done = check(*arguments, text=text)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


WITH_UNKNOWN_TIER = json.dumps(
    {
        "config": {},
        "registry": {"version": 1, "keys": [record(generate_key(), tier="gold")]},
    }
)


@pytest.mark.parametrize(
    ("arguments", "text", "named"),
    [
        (["--check-config", "-"], '{"max_headers": 1}', "max_headers"),
        (["--check-registry", "-"], '{"version": 1, "keys": [{}]}', "keys[0].id"),
        (
            ["--check-input"],
            '{"config": {}, "registry": {"version": 1, "keys": [{"id": "a"}]}}',
            "keys[0].sha256",
        ),
        (["--check-input"], WITH_UNKNOWN_TIER, "keys[0].tier"),
        (["--check-config", "/nonexistent"], "", "cannot be read"),
    ],
)
def test_a_bad_file_is_one_line_that_names_the_fault(
    arguments: list[str], text: str, named: str
) -> None:
    done = check(*arguments, text=text)
    assert done.returncode == 1
    assert done.stdout.startswith(named)
    assert done.stdout.count("\n") == 1
    assert done.stderr == ""
