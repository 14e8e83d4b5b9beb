#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: nginx_config
short_description: Change nginx's configuration as one transaction
version_added: 0.1.0
description:
  - Writes whole files below C(/etc/nginx), has C(nginx -t) judge the whole tree, reloads nginx and
    waits until new workers serve the change. When any step fails, every file, link, mode and time
    is put back and the module fails with nginx's own message.
  - Finds out about changes which C(nginx -t) accepts and the reload then refuses, such as another
    key for an existing C(limit_req_zone) or a port that is taken.
  - Reloads also when the files are as wished but newer than the running workers, as after a run
    that was killed, or a renewed certificate.
  - Starts nginx when it does not run and there is a file to serve. Does not install or enable it.
  - Removing files works when nginx itself is gone already.
options:
  files:
    description: Files and links that are wholly ours. New files belong to root.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path below C(/etc/nginx).
        type: str
        required: true
      content:
        description: The whole content. Exactly one of O(files[].content) and O(files[].link).
        type: str
      link:
        description: Where a symbolic link at O(files[].path) points to.
        type: str
      mode:
        description: Quoted octal mode of a file.
        type: str
        default: "0640"
      state:
        description: Whether the file or link exists.
        type: str
        choices: [present, absent]
        default: present
      sensitive:
        description:
          - Keep the content, the old one too, out of diff, invocation, log and error messages.
        type: bool
        default: false
  directories:
    description: Directories that are wholly ours.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path below C(/etc/nginx).
        type: str
        required: true
      mode:
        description: Quoted octal mode.
        type: str
        default: "0750"
      state:
        description: Whether the directory exists. One that still holds other files is not removed.
        type: str
        choices: [present, absent]
        default: present
      purge:
        description: Remove everything inside that O(files) and O(directories) do not list.
        type: bool
        default: false
  watch:
    description:
      - Further files which nginx reads at a reload, such as certificates. When one is newer than
        the running workers, nginx is reloaded. Missing files are ignored.
    type: list
    elements: path
    default: []
  service:
    description: Systemd unit of nginx.
    type: str
    default: nginx
  error_log:
    description: Where nginx says why a reload failed.
    type: path
    default: /var/log/nginx/error.log
  timeout:
    description: Seconds to wait for new workers after a reload or start.
    type: int
    default: 10
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
    details: Works where nginx is not installed yet. Does not run C(nginx -t).
  diff_mode:
    support: full
  platform:
    platforms: linux
notes:
  - There is no test before the change. If nginx refuses the changed tree, the tree is restored and
    tested again, and the message says whether it was refused without the change as well.
  - File times in the future are ignored, because they would ask for a reload in every run.
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: Serve the gateway in place of the distribution's default site
  llmsec.hardening.nginx_config:
    directories:
      - {path: /etc/nginx/llm-gateway, purge: true}
    files:
      - path: /etc/nginx/conf.d/llm-gateway.conf
        content: "{{ lookup('ansible.builtin.template', 'llm-gateway.conf.j2') }}"
      - {path: /etc/nginx/sites-enabled/default, state: absent}
    watch: [/etc/llm-gateway/pki/server.crt]

- name: Serve a renewed certificate if nginx runs
  llmsec.hardening.nginx_config:
    watch: [/etc/llm-gateway/pki/server.crt]

- name: Remove the gateway
  llmsec.hardening.nginx_config:
    directories:
      - {path: /etc/nginx/llm-gateway, state: absent, purge: true}
    files:
      - {path: /etc/nginx/conf.d/llm-gateway.conf, state: absent}
      - {path: /etc/nginx/sites-enabled/default, link: /etc/nginx/sites-available/default}
"""

RETURN = r"""
paths:
  description: Paths that were changed, or would be in check mode.
  returned: success
  type: list
  elements: str
  sample: [/etc/nginx/conf.d/llm-gateway.conf]
reloaded:
  description: Whether nginx was reloaded, or would be.
  returned: success
  type: bool
started:
  description: Whether nginx was started, or would be.
  returned: success
  type: bool
"""

import copy
import os
import signal
import types
import typing as t

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_config import (
    NginxConfigError,
    converge,
    diff_of,
    parse_wishes,
    redact,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_host import SystemHost

STATE = {"type": "str", "choices": ["present", "absent"], "default": "present"}
FILE_OPTIONS: dict[str, t.Any] = {
    "path": {"type": "str", "required": True},
    "content": {"type": "str"},
    "link": {"type": "str"},
    "mode": {"type": "str", "default": "0640"},
    "state": STATE,
    "sensitive": {"type": "bool", "default": False},
}
DIRECTORY_OPTIONS: dict[str, t.Any] = {
    "path": {"type": "str", "required": True},
    "mode": {"type": "str", "default": "0750"},
    "state": STATE,
    "purge": {"type": "bool", "default": False},
}
ARGUMENTS: dict[str, t.Any] = {
    "files": {"type": "list", "elements": "dict", "default": [], "options": FILE_OPTIONS},
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": DIRECTORY_OPTIONS,
    },
    "watch": {"type": "list", "elements": "path", "default": []},
    "service": {"type": "str", "default": "nginx"},
    "error_log": {"type": "path", "default": "/var/log/nginx/error.log"},
    "timeout": {"type": "int", "default": 10},
}


class QuietModule(AnsibleModule):
    """A module that keeps its parameters, with all contents, out of the host's journal.

    C(no_log=True) would not do: the control node sends C(no_log) of the task, which replaces it.
    """

    def _log_invocation(self) -> None:
        """Say nothing."""


def stop_with_rollback(number: int, _frame: types.FrameType | None) -> None:
    """Turn the end of the SSH session or a kill into an error, so that the old files come back."""
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, signal.SIG_IGN)
    raise NginxConfigError(f"stopped by {signal.Signals(number).name}")


def shown_invocation(params: dict[str, t.Any]) -> dict[str, t.Any]:
    """Return the parameters as they may be shown."""
    shown = copy.deepcopy(params)
    for item in shown["files"]:
        if item["sensitive"] and item["content"] is not None:
            item["content"] = "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"
    return {"module_args": shown}


def live_host(module: AnsibleModule) -> SystemHost:
    # sd_booted(3): in an image that is only being built no service runs
    booted = os.path.isdir("/run/systemd/system")
    return SystemHost(
        run=lambda command: module.run_command(list(command), environ_update={"LC_ALL": "C"}),
        binary=module.get_bin_path("nginx", opt_dirs=["/usr/sbin", "/usr/local/sbin"]),
        systemctl=module.get_bin_path("systemctl") if booted else None,
        service=module.params["service"],
        error_log=module.params["error_log"],
    )


def main() -> None:
    module = QuietModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    params = module.params
    shown = shown_invocation(params)
    secrets = [item["content"] or "" for item in params["files"] if item["sensitive"]]
    for name in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(name, stop_with_rollback)
    try:
        wishes = parse_wishes(params["files"], params["directories"])
        host = live_host(module)
        outcome = converge(host, wishes, params["watch"], params["timeout"], module.check_mode)
    except (NginxConfigError, OSError) as exc:
        module.fail_json(msg=redact(str(exc), secrets), invocation=shown)
    module.exit_json(
        changed=outcome.changed,
        diff=diff_of(outcome.operations),
        paths=[step.path for step in outcome.operations],
        reloaded=outcome.reload,
        started=outcome.start,
        invocation=shown,
    )


if __name__ == "__main__":
    main()
