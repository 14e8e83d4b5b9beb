# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The report in every format, as texts by the ending of their file's name."""

from __future__ import annotations

import json
import typing as t
from collections.abc import Collection, Mapping

from ansible_collections.llmsec.hardening.plugins.module_utils.posture import (
    html,
    junit,
    markdown,
    sarif,
)

__all__ = ("SUFFIXES", "PathError", "render", "repository_paths")

# GitLab takes JUnit reports only from files whose names end with .xml.
SUFFIXES = {
    "json": "json", "html": "html", "sarif": "sarif", "junit": "junit.xml", "markdown": "md",
}  # fmt: skip

Record = Mapping[str, t.Any]


class PathError(ValueError):
    """A path that is not one of a file below the repository's root."""


def repository_paths(wished: Mapping[str, t.Any], default: str) -> dict[str, str]:
    """Return the files that SARIF results point at, by control. Raises PathError."""
    paths = {str(control): str(path) for control, path in {"default": default, **wished}.items()}
    for control, path in paths.items():
        if not path or path.startswith("/") or "\\" in path or ".." in path.split("/"):
            raise PathError(f"{control}: {path!r} is not relative to the repository's root")
    return paths


def _json(data: object) -> str:
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def render(
    report: Record, formats: Collection[str], paths: Mapping[str, str]
) -> tuple[Record, dict[str, str]]:
    """Return the report with the notes that rendering adds, and the texts by suffix."""
    texts = {}
    if "sarif" in formats:
        log, notes = sarif.render(report, paths)
        report = {**report, "notes": [*report["notes"], *notes]}
        texts["sarif"] = _json(log)
    writers: dict[str, t.Callable[[Record], str]] = {
        "json": _json, "html": html.render, "junit": junit.render, "markdown": markdown.render,
    }  # fmt: skip
    for name, write in writers.items():
        if name in formats:
            texts[SUFFIXES[name]] = write(report)
    return report, texts
