# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine with a firewall of its own: programs run in a network namespace, files below a root."""

from __future__ import annotations

import contextlib
import subprocess
import time

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import Machine


class Namespace(Machine):
    """A machine whose programs run in a namespace, and whose timer only remembers its command."""

    def __init__(self, process, root):
        super().__init__(self._run, str(root))
        self.root = str(root)
        self.timer = None
        self._enter = ["nsenter", f"--net=/proc/{process}/ns/net", "--"]
        (root / "proc/net").mkdir(parents=True)
        (root / "proc/net/if_inet6").touch()

    def _run(self, command, stdin):
        if command[0] == "systemd-run":
            self.timer = [word for word in command if word.startswith("/")]
            return 0, "", ""
        if command[0] == "systemctl":
            armed, verb = self.timer is not None, command[1]
            if verb == "stop":
                self.timer = None
            return (0 if armed or verb == "stop" else 3), "", ""
        places = [
            self.root + word if word.startswith(("/run", "/etc")) else word for word in command
        ]
        done = subprocess.run(
            [*self._enter, *places], input=stdin, capture_output=True, text=True, check=False
        )
        return done.returncode, done.stdout, done.stderr

    def fire(self):
        self.must("sh", *self.timer[1:])
        self.timer = None


@contextlib.contextmanager
def namespace(root):
    with subprocess.Popen(["unshare", "--net", "sleep", "600"]) as process:
        try:
            time.sleep(0.2)
            yield Namespace(process.pid, root)
        finally:
            process.terminate()
