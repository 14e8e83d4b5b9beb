# SPDX-License-Identifier: GPL-3.0-or-later
"""The role installs every file of the service."""

from __future__ import annotations

from ansible_collections.llmsec.hardening.plugins.lookup.source_tree import LookupModule

from .conftest import FILES


def test_every_file_of_the_service_is_found() -> None:
    found = {file["path"]: file["content"] for file in LookupModule().run([str(FILES)])}
    assert found == {str(path.relative_to(FILES)): path.read_text() for path in FILES.rglob("*.py")}
    assert {"__main__.py", "llm_key_validator/keys.py", "llm_key_validator/audit/cli.py"} <= set(
        found
    )
