#!/usr/bin/python

# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: file_tree
short_description: Own a folder with everything in it
version_added: 0.2.0
description:
  - Makes a folder hold exactly the given files, all of them in one call. Everything else below it
    is removed.
  - Folders are root's with mode 0755, and so are the files with the mode of each. A file is
    replaced in one step.
  - No symbolic link below the folder is followed. One that is in the way is replaced itself.
options:
  path:
    description:
      - The folder, an absolute path. The folder that holds it must exist, but for check mode.
      - A link, or a folder right below C(/), is refused.
    type: path
    required: true
  files:
    description:
      - All files below the folder. With O(state=present), at least one.
    type: list
    elements: dict
    suboptions:
      path:
        description: Where the file is, relative to the folder. The folders on the way are made.
        type: str
        required: true
      content:
        description: The text of the file. For secrets there is M(llmsec.hardening.secret_file).
        type: str
        required: true
      mode:
        description: Octal mode with a leading zero, quoted.
        type: str
        default: "0644"
  state:
    description: Whether the folder is there.
    type: str
    choices: [present, absent]
    default: present
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Names what is written and removed, and does not show the text of the files.
  platform:
    platforms: posix
author:
  - llmsec.hardening contributors (@llmsec)
seealso:
  - plugin: llmsec.hardening.source_tree
    plugin_type: lookup
"""

EXAMPLES = r"""
- name: Install a Python package, and remove what older versions left
  llmsec.hardening.file_tree:
    path: /usr/local/lib/example
    files: "{{ query('llmsec.hardening.source_tree', role_path ~ '/files') }}"

- name: Keep a folder with two files
  llmsec.hardening.file_tree:
    path: /usr/local/lib/example
    files:
      - {path: bin/run, content: "#!/bin/sh\n", mode: "0755"}
      - {path: README, content: "An example\n"}

- name: Remove the folder
  llmsec.hardening.file_tree:
    path: /usr/local/lib/example
    state: absent
"""

RETURN = r"""
written:
  description:
    - Files and folders that were made or changed, or would be in check mode, relative to O(path).
    - Folders end in a slash; V(./) is O(path) itself.
  returned: success
  type: list
  elements: str
  sample: [example/, example/__init__.py]
removed:
  description: What was removed, likewise. A folder stands for everything below it.
  returned: success
  type: list
  elements: str
  sample: [example/__pycache__/]
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.file_tree import (
    Owner,
    TreeError,
    apply_plan,
    diff_of,
    make_plan,
    parse_files,
    parse_path,
    scan,
    show,
)

ROOT: Owner = (0, 0)
FILE_OPTIONS: dict[str, Any] = {
    "path": {"type": "str", "required": True},
    "content": {"type": "str", "required": True},
    "mode": {"type": "str", "default": "0644"},
}
ARGUMENTS: dict[str, Any] = {
    "path": {"type": "path", "required": True},
    "files": {"type": "list", "elements": "dict", "options": FILE_OPTIONS},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
}


class TreeModule(AnsibleModule):
    """Leaves the files' text out of the host's system log, where every call is written down."""

    def log(self, msg: str, log_args: dict[str, Any] | None = None) -> None:
        """Write a message, with the number of files in place of their text."""
        if log_args and "files" in log_args:
            log_args = {**log_args, "files": f"({len(self.params['files'] or [])} files)"}
            msg = "Invoked with " + " ".join(f"{name}={value}" for name, value in log_args.items())
        super().log(msg, log_args=log_args)


def run(params: dict[str, Any], *, check_mode: bool) -> dict[str, Any]:
    """Bring the folder into the wished state. Raises TreeError and OSError."""
    path = parse_path(params["path"])
    tree = parse_files(params["files"]) if params["state"] == "present" else {}
    found = scan(path, tree)
    plan = make_plan(tree, found, ROOT)
    if not check_mode:
        apply_plan(path, tree, plan, ROOT)
    return {
        "changed": bool(plan.removed or plan.written),
        "written": [show(name, tree[name].kind) for name in plan.written],
        "removed": [show(name, found[name].kind) for name in plan.removed],
        "diff": diff_of(path, tree, found, plan, ROOT),
    }


def main() -> None:
    """Run the module."""
    module = TreeModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", ["files"])],
        supports_check_mode=True,
    )
    path = module.params["path"]
    try:
        result = run(module.params, check_mode=module.check_mode)
    except (TreeError, OSError) as error:
        module.fail_json(msg=f"{path}: {error}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
