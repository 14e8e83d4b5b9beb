# SPDX-License-Identifier: GPL-3.0-or-later
"""The link that makes control node and host judge alike; the rest is tested as a module util."""

from __future__ import annotations

from llm_key_validator import keys

from .conftest import FILES


def test_keys_is_the_collections_own_module_util() -> None:
    """A copy would drift: a record accepted here and refused there locks somebody out."""
    util = FILES.parents[2] / "plugins" / "module_utils" / "api_keys.py"
    assert (FILES / "llm_key_validator" / "keys.py").resolve() == util.resolve()


def test_the_installed_file_needs_nothing_from_ansible() -> None:
    assert "ansible" not in {name.split(".")[0] for name in vars(keys)}
    assert "import ansible" not in (FILES / "llm_key_validator" / "keys.py").read_text()
