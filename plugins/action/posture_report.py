# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of the module posture_report: all of it happens on the control node.

An action, because the findings of a fleet would make a large module argument, and the page has a
style sheet and a script beside its code. The options are documented in modules/posture_report.py.
"""

from __future__ import annotations

import json
import os
import re
import typing as t
from collections.abc import Mapping
from datetime import UTC, datetime

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.llmsec.hardening.plugins.module_utils import own_files
from ansible_collections.llmsec.hardening.plugins.module_utils.posture import formats, table
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.baseline import (
    Baseline,
    BaselineError,
    parse_baseline,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.gate import FAIL_ON
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.report import (
    ReportError,
    assemble,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.waivers import (
    WaiverError,
    parse_waivers,
)

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", re.ASCII)
# A report tells attackers where to go.
_FILE_MODE, _FOLDER_MODE = 0o640, 0o750


def argument_spec() -> dict[str, dict[str, t.Any]]:
    """Return the options."""
    return {
        "hosts": {"type": "dict", "required": True},
        "run": {"type": "dict"},
        "directory": {"type": "path", "required": True},
        "name": {"type": "str", "default": "report"},
        "formats": {
            "type": "list", "elements": "str", "choices": list(formats.SUFFIXES),
            "default": list(formats.SUFFIXES),
        },
        "fail_on": {"type": "str", "choices": list(FAIL_ON), "default": "high"},
        "waivers": {"type": "list", "elements": "dict", "default": []},
        "baseline": {"type": "raw"},
        "expected_controls": {"type": "list", "elements": "str", "default": []},
        "repository_paths": {"type": "dict", "default": {}},
    }  # fmt: skip


def read_baseline(wish: object, resolve: t.Callable[[str], str]) -> Baseline | None:
    """Return the earlier report, given as a path or as its content. Raises BaselineError."""
    if wish is None or wish == "":
        return None
    if isinstance(wish, Mapping):
        return parse_baseline(wish)
    if not isinstance(wish, str):
        raise BaselineError("it must be a path or a dictionary")
    path = resolve(wish)
    try:
        with open(path, encoding="utf-8") as file:
            return parse_baseline(json.load(file))
    except OSError as error:
        raise BaselineError(f"{path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise BaselineError(f"{path}: {error}") from error


def inventory_path(inventory: object, here: str) -> str:
    """Return the inventory's path relative to the repository's root, where Ansible was started."""
    if isinstance(inventory, str) and os.path.isabs(inventory):
        relative = os.path.relpath(inventory, here)
        return os.path.basename(inventory) if relative.startswith("..") else relative
    return "inventory"


def summary(report: Mapping[str, t.Any]) -> dict[str, t.Any]:
    """Return the counts of all findings, of each host and of what has changed."""
    changes = report["changes"]
    return {
        "outcomes": report["summary"]["outcomes"],
        "failed": report["summary"]["failed"],
        "hosts": {host["name"]: host["summary"] for host in report["hosts"]},
        "changes": changes["counts"] if changes else None,
    }


class ActionModule(ActionBase):
    """Assembles, judges, renders and writes the report."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Return the module's result. Findings are no reason to fail, wrong options are."""
        result = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(argument_spec())
        if not _NAME.fullmatch(params["name"]):
            raise AnsibleActionFail("name may hold letters, digits, dots, dashes and underscores.")
        try:
            report = self._report(params)
            default = inventory_path((task_vars or {}).get("inventory_file"), os.getcwd())
            paths = formats.repository_paths(params["repository_paths"], default)
            report, texts = formats.render(report, params["formats"], paths)
            folder = self._loader.path_dwim(params["directory"])
            named = {suffix: os.path.join(folder, f"{params['name']}.{suffix}") for suffix in texts}
            files = {named[suffix]: text for suffix, text in texts.items()}
            result["changed"] = own_files.store(
                files, mode=_FILE_MODE, folder_mode=_FOLDER_MODE, check=self._task.check_mode
            )
        # from None: Ansible adds the text of a cause to that of the error, which holds it already
        except BaselineError as error:
            raise AnsibleActionFail(f"baseline: {error}.") from None
        except formats.PathError as error:
            raise AnsibleActionFail(f"repository_paths: {error}.") from None
        except (ReportError, WaiverError) as error:
            raise AnsibleActionFail(f"{error}.") from None
        except OSError as error:
            raise AnsibleActionFail(f"{error.filename}: {error.strerror}.") from None
        result |= {
            "summary": summary(report), "gate": report["gate"], "notes": report["notes"],
            "table": table.render(report),
            "paths": {
                name: named[suffix] for name, suffix in formats.SUFFIXES.items() if suffix in named
            },
        }  # fmt: skip
        return result

    def _report(self, params: Mapping[str, t.Any]) -> dict[str, t.Any]:
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return assemble(
            params["hosts"],
            run={"started": now, **(params["run"] or {})},
            waivers=parse_waivers(params["waivers"]),
            baseline=read_baseline(params["baseline"], self._loader.path_dwim),
            fail_on=params["fail_on"],
            expected_controls=params["expected_controls"],
        )
