# SPDX-License-Identifier: GPL-3.0-or-later
"""The role installs every file of the service."""

from __future__ import annotations

import yaml

from .conftest import FILES


def test_every_package_is_on_the_roles_list() -> None:
    text = (FILES.parent / "vars" / "main.yml").read_text()
    folders = {str(path.parent.relative_to(FILES)) for path in FILES.rglob("*/*.py")}
    assert set(yaml.safe_load(text)["__key_validator_folders"]) == folders
