# SPDX-License-Identifier: GPL-3.0-or-later
"""docs/audit-log.md has every field and action that the code writes, and no other."""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from llm_key_validator.audit.metrics import ACTIONS

from ..conftest import FILES

DOCUMENT = Path(__file__).parents[4] / "docs" / "audit-log.md"
TEXT = DOCUMENT.read_text(encoding="utf-8")
WRITERS = ("chain", "records", "log", "sealer")
FIELD = re.compile(r'"(@timestamp|(?:event|http|url|client|user|tls|gen_ai|llm)\.[a-z_0-9.]+)\\?"')


def test_all_fields_and_actions_are_documented() -> None:
    package = FILES / "llm_key_validator" / "audit"
    sources = "".join((package / f"{name}.py").read_text(encoding="utf-8") for name in WRITERS)
    # The first column of the table of fields
    documented = set(re.findall(r"^\| `(@timestamp|[a-z_]+\.[a-z_0-9.]+)` \|", TEXT, re.M))
    assert documented == set(FIELD.findall(sources))
    for action in ACTIONS:
        assert f"\n| `{action}` |" in TEXT


def test_the_examples_are_yaml() -> None:
    examples = re.findall(r"```yaml\n(.*?)```", TEXT, re.S)
    assert len(examples) == 3
    for example in examples:
        assert "/var/log/llm-gateway/audit" in str(yaml.safe_load(example))
