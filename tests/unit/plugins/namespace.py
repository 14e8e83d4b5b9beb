# SPDX-License-Identifier: GPL-3.0-or-later
"""A machine with a firewall of its own: programs run in a network namespace, files below a root."""

from __future__ import annotations

import contextlib
import subprocess
import time
from pathlib import Path

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall_host import Machine


class Namespace(Machine):
    """A machine whose programs run in a namespace, and whose timer only remembers its command."""

    def __init__(self, process, root):
        super().__init__(self._run, str(root))
        self.root = str(root)
        self.timer = None
        self._process = process
        self._enter = ["nsenter", f"--target={process}", "--net", "--mount", "--"]

    def path(self, path):
        if path.startswith("/proc/net/"):
            return Path(f"/proc/{self._process}{path.removeprefix('/proc')}")
        return super().path(path)

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


# What `update-alternatives --set iptables …` does, for the namespace alone.
_LEGACY = """
cp -a /etc/alternatives "$0" && for tool in iptables ip6tables; do
    for name in $tool $tool-save $tool-restore; do
        ln -sf "/usr/sbin/$tool-legacy${name#"$tool"}" "$0/alternatives/$name"
    done
done && mount --bind "$0/alternatives" /etc/alternatives
"""


@contextlib.contextmanager
def namespace(root, *, legacy=False):
    """Give a machine; with `legacy` its iptables is iptables-legacy."""
    script = f'{_LEGACY if legacy else ""}\n: >"$0/ready" && exec sleep 600'
    command = ["unshare", "--net", "--mount", "sh", "-euc", script, str(root)]
    with subprocess.Popen(command) as process:
        try:
            for _attempt in range(200):
                if (root / "ready").exists():
                    break
                time.sleep(0.02)
            yield Namespace(process.pid, root)
        finally:
            process.terminate()
