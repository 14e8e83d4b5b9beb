#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: systemd_dropin
short_description: Write a systemd drop-in that has the last word
version_added: 0.1.0
description:
  - Writes a drop-in below C(/etc/systemd/system) for a unit and reloads the manager.
  - Reads every other fragment of the unit first, and its environment files. When one of them would
    give anything this drop-in sets another value, the module fails before it writes, and names
    file, line and remedy.
  - Lists that systemd adds up, such as C(IPAddressAllow), are reset before they are set, so that
    what earlier fragments put into them is gone.
  - The unit itself is neither restarted nor required to exist.
options:
  unit:
    description: Name of the unit with its suffix.
    type: str
    required: true
  name:
    description: File name of the drop-in.
    type: str
    default: 50-llm-hardening.conf
  content:
    description:
      - Sections, each a dictionary of directives. A list sets a directive several times, an empty
        text or list sets it to nothing, V(null) leaves it out.
      - The directive C(Environment) has an option of its own, O(environment).
    type: dict
    default: {}
  environment:
    description:
      - Environment variables with their literal values; V(null) leaves a variable out.
      - The file is readable for all users, so nothing secret belongs here.
    type: dict
    default: {}
  forbidden_environment:
    description:
      - Variables that must not be set anywhere. Whoever sets one is a conflict.
      - They are unset as well (C(UnsetEnvironment=)), which covers what comes later.
    type: list
    elements: str
    default: []
  inspect_environment:
    description: Variables whose value in force shall be returned, this drop-in's included.
    type: list
    elements: str
    default: []
  state:
    description: Whether the drop-in is there.
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
  platform:
    platforms: linux
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: Bind Ollama to loopback and keep it off the network
  llmsec.hardening.systemd_dropin:
    unit: ollama.service
    environment:
      OLLAMA_HOST: 127.0.0.1:11434
    forbidden_environment: [OLLAMA_REMOTES]
    content:
      Service:
        IPAddressDeny: any
        IPAddressAllow: localhost
        SystemCallFilter: ["@system-service", "~@privileged"]

- name: Find out whether anything would win over it, and change nothing
  llmsec.hardening.systemd_dropin:
    unit: ollama.service
    environment:
      OLLAMA_HOST: 127.0.0.1:11434
  check_mode: true
"""

RETURN = r"""
path:
  description: The drop-in.
  returned: success
  type: str
  sample: /etc/systemd/system/ollama.service.d/50-llm-hardening.conf
previous:
  description: The drop-in's text before, V(null) when there was none.
  returned: success
  type: str
text:
  description: The drop-in's text now, in check mode as it would be, V(null) when there is none.
  returned: success
  type: str
restart_required:
  description:
    - Whether the unit's process runs without what is in the drop-in now. Either the drop-in was
      changed, or the process is older than it, as after a run that was interrupted.
  returned: success
  type: bool
unit_file:
  description: Facts about the unit as its files have it, this drop-in included.
  returned: success
  type: dict
  contains:
    path:
      description: The unit file, or V(null) when there is none.
      type: str
    user:
      description: C(User=), or V(null).
      type: str
    group:
      description: C(Group=), or V(null).
      type: str
    program:
      description: The program of the last C(ExecStart=), or V(null).
      type: str
    environment:
      description: The variables of O(inspect_environment), V(null) where not set.
      type: dict
"""

import os
import re
import tempfile
import typing as t
from pathlib import Path

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.systemd_units import (
    Fragment,
    UnitError,
    Wish,
    explain,
    find_conflicts,
    make_wish,
    parse_fragments,
    render,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.unit_files import (
    OWN_PLACE,
    UNIT_NAME,
    UnitFiles,
    describe_unit,
)

HEADER = "Managed by Ansible (llmsec.hardening): changes to this file are overwritten."
FILE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]*\.conf\Z")


def show(module: AnsibleModule, unit: str) -> dict[str, str]:
    """Ask the manager about the unit; empty when there is no manager to ask."""
    properties = "ActiveState,ExecMainStartTimestamp,NeedDaemonReload"
    command = ["systemctl", "show", "--timestamp=unix", f"--property={properties}", "--", unit]
    if module.get_bin_path("systemctl") is None:
        return {}
    code, out, _err = module.run_command(command, environ_update={"LC_ALL": "C"})
    pairs = [line.partition("=") for line in out.splitlines()] if code == 0 else []
    return {key: value for key, _equals, value in pairs}


def is_running(state: dict[str, str]) -> bool:
    """Tell whether the unit has a process, or waits to have one again."""
    return state.get("ActiveState", "inactive") not in ("inactive", "failed")


def is_stale(state: dict[str, str], path: str) -> bool:
    """Tell whether the unit's process began before the drop-in was last put in place."""
    started = state.get("ExecMainStartTimestamp", "").removeprefix("@")
    if not started.isdecimal() or not os.path.exists(path):
        return False
    # One that was moved away and back keeps the time of its text.
    found = os.stat(path)
    return int(started) < int(max(found.st_mtime, found.st_ctime))


def store(module: AnsibleModule, path: str, text: str) -> None:
    """Put the text in place in one step, readable for all and writable for root."""
    Path(path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=module.tmpdir)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    module.atomic_move(temporary, path)


def discard(path: str) -> None:
    """Remove the drop-in, and its directory when nothing else is in it."""
    Path(path).unlink(missing_ok=True)
    directory = Path(path).parent
    if directory.is_dir() and not any(directory.iterdir()):
        directory.rmdir()


def fix_attributes(module: AnsibleModule, path: str) -> bool:
    """Give the file to root with mode 0644; return whether that was needed."""
    if not os.path.exists(path):
        return False
    changed = module.set_mode_if_different(path, 0o644, False)
    changed = module.set_owner_if_different(path, "root", changed)
    return bool(module.set_group_if_different(path, "root", changed))


def check_names(params: dict[str, t.Any]) -> None:
    """Raise UnitError for a unit or file name that is none."""
    if not UNIT_NAME.match(params["unit"]):
        raise UnitError(f"not a unit name with its suffix: {params['unit']!r}")
    if not FILE_NAME.match(params["name"]):
        raise UnitError(f"not a file name ending in .conf: {params['name']!r}")


def plan(params: dict[str, t.Any], path: str, files: UnitFiles) -> tuple[str | None, dict]:
    """Return the text to write (None to remove) and the facts; raise UnitError on a conflict."""
    wish = make_wish(params["content"], params["environment"], params["forbidden_environment"])
    text = render(wish, HEADER) if params["state"] == "present" else None
    fragments = files.fragments(path, text)
    assignments = parse_fragments(fragments)
    environment_files = files.environment_files(assignments)
    if text is not None:
        refuse_conflicts(fragments, path, wish, environment_files)
    names = params["inspect_environment"]
    return text, describe_unit(assignments, environment_files, files.unit_file(), names)


def refuse_conflicts(
    fragments: list[Fragment], path: str, wish: Wish, environment_files: list[Fragment]
) -> None:
    """Raise UnitError that names everything that would win over the drop-in."""
    conflicts = find_conflicts(fragments, path, wish, environment_files)
    if conflicts:
        raise UnitError(explain(conflicts))


def apply(module: AnsibleModule, path: str, text: str | None, before: str | None) -> bool:
    """Make the file what it should be, unless in check mode; return whether that is a change."""
    changed = text != before
    if changed and not module.check_mode:
        if text is None:
            discard(path)
        else:
            store(module, path, text)
    return (fix_attributes(module, path) if text is not None else False) or changed


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "unit": {"type": "str", "required": True},
            "name": {"type": "str", "default": "50-llm-hardening.conf"},
            "content": {"type": "dict", "default": {}},
            "environment": {"type": "dict", "default": {}},
            "forbidden_environment": {"type": "list", "elements": "str", "default": []},
            "inspect_environment": {"type": "list", "elements": "str", "default": []},
            "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
        },
        supports_check_mode=True,
    )
    unit = module.params["unit"]
    path = f"{OWN_PLACE}/{unit}.d/{module.params['name']}"
    files = UnitFiles(unit)
    try:
        check_names(module.params)
        text, facts = plan(module.params, path, files)
        before = files.read(path) if os.path.exists(path) else None
        changed = apply(module, path, text, before)
    except (UnitError, OSError) as exc:
        module.fail_json(msg=f"{unit}: {exc}")
    state = show(module, unit)
    if not module.check_mode and (changed or state.get("NeedDaemonReload") == "yes"):
        module.run_command(["systemctl", "daemon-reload"], check_rc=True)
    module.exit_json(
        changed=changed,
        path=path,
        previous=before,
        text=text,
        restart_required=is_running(state) and (changed or is_stale(state, path)),
        unit_file=facts,
        diff={
            "before": before or "",
            "after": text or "",
            "before_header": path,
            "after_header": path,
        },
    )


if __name__ == "__main__":
    main()
