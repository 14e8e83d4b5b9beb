# SPDX-License-Identifier: GPL-3.0-or-later
"""./dev docs: the variable tables of the roles' READMEs, from their argument specs.

`./dev docs --check` only says whether they are up to date; the unit tests ask it as well.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.lab.steps import ROOT

BEGIN, END = "<!-- variables -->", "<!-- /variables -->"
_MARKUP = re.compile(r"[A-Z]+\((?P<text>[^()]*)\)")


def _plain(text: str | list[str]) -> str:
    """Ansible's markup as Markdown: V(x), C(x), O(x) and the like become `x`."""
    joined = text if isinstance(text, str) else " ".join(text)
    return _MARKUP.sub(lambda found: f"`{found['text'].partition('#')[0]}`", joined)


def _default(option: dict[str, Any]) -> str:
    if "default" not in option:
        return "required" if option.get("required") else ""
    value = option["default"]
    return f"`{value if isinstance(value, str) and value else json.dumps(value)}`"


def _rows(options: dict[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for name, option in options.items():
        kind = option.get("type", "str")
        if kind == "list":
            kind = f"list of {option.get('elements', 'str')}"
        text = _plain(option["description"])
        if "choices" in option:
            text += f" One of {', '.join(f'`{choice}`' for choice in option['choices'])}."
        rows.append((f"`{name}`", kind, _default(option), text))
    return rows


def table(spec: dict[str, Any]) -> str:
    """The Markdown table of an argument spec's `main` entry."""
    rows = [("Variable", "Type", "Default", "What it does"), ("---",) * 4]
    rows += _rows(spec["argument_specs"]["main"]["options"])
    cells = [[cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def rendered(readme: str, spec: dict[str, Any]) -> str:
    """The README with its table renewed."""
    head, begin, rest = readme.partition(BEGIN)
    _unused, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"no {BEGIN} … {END}")
    return f"{head}{BEGIN}\n\n{table(spec)}\n\n{END}{tail}"


def stale() -> list[tuple[Path, str]]:
    """READMEs whose tables are not what the specs say, with what they should hold."""
    found = []
    for file in sorted((ROOT / "roles").glob("*/meta/argument_specs.yml")):
        readme = file.parents[1] / "README.md"
        text = readme.read_text()
        wanted = rendered(text, yaml.safe_load(file.read_text()))
        if wanted != text:
            found.append((readme, wanted))
    return found


def main(words: list[str]) -> int:
    outdated = stale()
    for readme, text in outdated:
        print(f"{readme.relative_to(ROOT)}: {'out of date' if words else 'written'}")
        if not words:
            readme.write_text(text)
    return 1 if words and outdated else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
