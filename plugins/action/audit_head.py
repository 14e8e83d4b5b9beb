# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Action of the module audit_head: it keeps the head on the control node.

An action, because the host whose head it is must have no hand in it, and a module that is run on
the control node for each host of a fleet costs it a second each. The options are documented in
modules/audit_head.py.
"""

from __future__ import annotations

import json
import os
import re
import typing as t
from collections.abc import Mapping

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.llmsec.hardening.plugins.module_utils import own_files

_HASH = re.compile(r"[0-9a-f]{64}", re.ASCII)
_FILE_MODE, _FOLDER_MODE = 0o600, 0o700


def argument_spec() -> dict[str, dict[str, t.Any]]:
    """Return the options."""
    return {
        "path": {"type": "path", "required": True},
        "head": {"type": "dict", "required": True},
    }


def problem(head: object) -> str:
    """Return why this is no head, "" if it is one."""
    if not isinstance(head, Mapping):
        return "it is no dictionary"
    sequence = head.get("sequence")
    if not isinstance(sequence, int) or isinstance(sequence, bool) or sequence < 0:
        return "sequence must be a whole number that is not negative"
    if not isinstance(head.get("hash"), str) or not _HASH.fullmatch(head["hash"]):
        return "hash must be 64 hexadecimal digits"
    return ""


def read(path: str) -> dict[str, t.Any] | None:
    """Return the head in this file, None without a file. Raises AnsibleActionFail."""
    try:
        with open(path, encoding="utf-8") as file:
            head = json.load(file)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AnsibleActionFail(f"{path}: {error.strerror}.") from None
    except (ValueError, RecursionError):
        raise AnsibleActionFail(f"{path} holds no head: it is not JSON.") from None
    if why := problem(head):
        raise AnsibleActionFail(f"{path} holds no head: {why}.")
    return head


class ActionModule(ActionBase):
    """Notes a head that is ahead of the one noted last."""

    TRANSFERS_FILES = False
    _requires_connection = False

    def run(
        self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None
    ) -> dict[str, t.Any]:
        """Return the module's result."""
        result = super().run(tmp, task_vars)
        _validation, params = self.validate_argument_spec(argument_spec())
        path, head = self._loader.path_dwim(params["path"]), params["head"]
        if why := problem(head):
            raise AnsibleActionFail(f"head: {why}.")
        noted = read(path)
        result |= {"changed": False, "noted": noted}
        if noted is None or head["sequence"] > noted["sequence"]:
            try:
                result["changed"] = own_files.store(
                    {path: json.dumps(head) + "\n"},
                    mode=_FILE_MODE, folder_mode=_FOLDER_MODE, check=self._task.check_mode,
                )  # fmt: skip
            except OSError as error:
                where = error.filename or os.path.dirname(path)
                raise AnsibleActionFail(f"{where}: {error.strerror}.") from None
        return result
