# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import pytest

from tests import docs

SPEC = {
    "argument_specs": {
        "main": {
            "options": {
                "demo_state": {
                    "description": ["V(present) makes it, C(x|y) too."],
                    "choices": ["present", "absent"],
                    "default": "present",
                },
                "demo_names": {"description": "Names.", "type": "list", "elements": "str"},
            }
        }
    }
}


def test_readmes_are_what_the_specs_say() -> None:
    assert [str(path) for path, _unused in docs.stale()] == [], "run ./dev docs"


def test_table() -> None:
    text = docs.table(SPEC)
    assert "| `demo_state` | str | `present` | `present` makes it, `x\\|y` too. One of" in text
    assert "| `demo_names` | list of str |  | Names. |" in text


def test_only_the_table_changes() -> None:
    before = f"# Role\n\n{docs.BEGIN}\nold\n{docs.END}\n\nMore.\n"
    after = docs.rendered(before, SPEC)
    assert after.startswith("# Role\n")
    assert after.endswith("\n\nMore.\n")
    assert "old" not in after
    assert docs.rendered(after, SPEC) == after


def test_a_readme_without_the_markers_is_an_error() -> None:
    with pytest.raises(ValueError, match="variables"):
        docs.rendered("# Role\n", SPEC)
