# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Our firewall on a live host: read it, try a candidate, change it with a way back, keep it.

Everything goes through `Machine`, programs and files alike; the tests have one in a network
namespace of its own. Candidates are tried in a scratch namespace, which touches nothing.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import typing as t
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from ansible_collections.llmsec.hardening.plugins.module_utils import nft_tables
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.combine import combine
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.iptables_save import (
    parse_iptables,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.nft_json import parse_nft
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.policy import Policy
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.render_iptables import (
    CHAINS,
    WINDOW_CHAIN,
    own_part,
    render_iptables,
    with_candidate,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.render_nft import (
    REMOVAL,
    TABLE,
    WINDOW,
    render_nft,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import Ruleset

__all__ = (
    "KEPT",
    "PENDING",
    "TIMER",
    "Backend",
    "FirewallError",
    "IptablesBackend",
    "Machine",
    "NftBackend",
    "absent",
    "all_saved",
    "apply",
    "confirm",
    "kept",
    "own_rules",
    "policy_rules",
    "whole_rules",
)

KEPT = "/etc/llm-firewall"
PENDING = "/run/llm-firewall"
TIMER = "llm-firewall-rollback"

Files = Mapping[str, str]
_EMPTY_NFT = '{"nftables": [{"metainfo": {"json_schema_version": 1}}]}'
_VERSIONS = {4: ("iptables", "ip"), 6: ("ip6tables", "ip6")}

_LOAD_NFT = """\
#!/bin/sh
# Managed by Ansible (llmsec.hardening): changes to this file are overwritten.
# load DIRECTORY: put the firewall that is kept there in force.
exec /usr/sbin/nft -f "$1/ruleset.nft"
"""
_LOAD_IPTABLES = """\
#!/bin/sh
# Managed by Ansible (llmsec.hardening): changes to this file are overwritten.
# load DIRECTORY: put the firewall that is kept there in force, or take ours away if none is.
# One transaction for each IP version; the rules of others stay as they are.
set -eu
PATH=/usr/sbin:/usr/bin:/sbin:/bin

transaction() {
    saved=$("$1-save" -t filter)
    echo '*filter'
    if [ -e "$2" ]; then grep '^:' "$2"; fi
    for chain in INPUT OUTPUT; do
        printf '%s\\n' "$saved" | grep -Fx -e "-A $chain -j LLM-HARDENING-$chain" | sed 's/^-A/-D/'
        if [ -e "$2" ]; then echo "-I $chain 1 -j LLM-HARDENING-$chain"; fi
    done
    if [ -e "$2" ]; then
        grep '^-A' "$2" || true
    else
        ours=$(printf '%s\\n' "$saved" | sed -n 's/^:\\(LLM-HARDENING-[A-Z]*\\) .*/\\1/p')
        for chain in $ours; do echo "-F $chain"; done
        for chain in $ours; do echo "-X $chain"; done
    fi
    echo COMMIT
}

transaction iptables "$1/rules.v4" | iptables-restore --noflush --wait
if [ -e /proc/net/if_inet6 ]; then
    transaction ip6tables "$1/rules.v6" | ip6tables-restore --noflush --wait
fi
"""


class FirewallError(Exception):
    """The host did not do what it should; the message says what, in its own words."""


class Machine:
    """The programs and files of a host."""

    def __init__(
        self, run: Callable[[Sequence[str], str], tuple[int, str, str]], root: str = ""
    ) -> None:
        """`run` takes a command and its standard input, and gives status, output and errors."""
        self.run = run
        self._root = root

    def has(self, program: str) -> bool:
        return shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin") is not None

    def holds_nft_tables(self) -> bool:
        """Ask the kernel itself. Raises FirewallError when it does not say."""
        try:
            return nft_tables.holds_tables()
        except OSError as error:
            raise FirewallError(f"the kernel does not list nftables' tables: {error}") from error

    def must(self, *command: str, stdin: str = "") -> str:
        """Return a program's output. Raises FirewallError when it fails."""
        status, output, errors = self.run(command, stdin)
        if status != 0:
            said = "; ".join(line.strip() for line in errors.splitlines() if line.strip())
            raise FirewallError(f"{command[0]} failed: {said or f'status {status}'}")
        return output

    def path(self, path: str) -> Path:
        return Path(self._root + path)

    def read(self, path: str) -> str | None:
        try:
            return self.path(path).read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None

    def store(self, directory: str, files: Files) -> None:
        """Make the directory hold these files and no others, each put in place in one step."""
        place = self.path(directory)
        if place.is_symlink():
            place.unlink()
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.chmod(0o700)
        if os.geteuid() == 0:
            os.chown(place, 0, 0)
        for name, text in files.items():
            temporary = place / f".{name}.new"
            with open(
                os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w"
            ) as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            temporary.chmod(0o600)
            temporary.rename(place / name)
        for entry in place.iterdir():
            if entry.name not in files and not entry.is_dir():
                entry.unlink()

    def discard(self, directory: str) -> None:
        shutil.rmtree(self.path(directory), ignore_errors=True)


class Backend(t.Protocol):
    """What nftables and iptables have in common here."""

    name: str
    packages: tuple[str, ...]
    load: str  # text of the program that loads a directory of files

    def installed(self) -> bool: ...

    def render(self, policy: Policy) -> dict[str, str]:
        """Return the files of a policy by name."""

    def live(self) -> str:
        """Return our rules in force, in a form to compare and to read; "" when there are none."""

    def listed(self, files: Files) -> str:
        """Return what live() would say after a load. Raises FirewallError if they do not load."""

    def check(self, files: Files) -> None:
        """Have the files checked against the live host. Raises FirewallError."""

    def snapshot(self) -> dict[str, str]:
        """Return the files that bring back what is in force now."""

    def open_window(self, user: int, seconds: int) -> bool:
        """Let a user's processes out for a while; whether there was a rule to make that."""

    def close_window(self) -> bool:
        """Close the window again; whether one was open."""


class NftBackend:
    name = "nftables"
    packages = ("nftables",)
    load = _LOAD_NFT

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def installed(self) -> bool:
        return self._machine.has("nft")

    def render(self, policy: Policy) -> dict[str, str]:
        return {"ruleset.nft": render_nft(policy)}

    def live(self) -> str:
        status, output, _errors = self._machine.run(
            ["nft", "-s", "list", "table", "inet", TABLE], ""
        )
        return _without_window(output) if status == 0 else ""

    def listed(self, files: Files) -> str:
        listing = f"nft -f - && nft -s list table inet {TABLE}"
        return self._machine.must(
            "unshare", "--net", "sh", "-c", listing, stdin=files["ruleset.nft"]
        )

    def check(self, files: Files) -> None:
        self._machine.must("nft", "-c", "-f", "-", stdin=files["ruleset.nft"])

    def snapshot(self) -> dict[str, str]:
        status, output, _errors = self._machine.run(["nft", "list", "table", "inet", TABLE], "")
        return {"ruleset.nft": REMOVAL + (output if status == 0 else "")}

    def open_window(self, user: int, seconds: int) -> bool:
        if WINDOW not in self.live():
            return False
        element = f"{{ {user} timeout {seconds}s }}"
        self._machine.must("nft", "flush", "set", "inet", TABLE, WINDOW)
        self._machine.must("nft", "add", "element", "inet", TABLE, WINDOW, element)
        return True

    def close_window(self) -> bool:
        if WINDOW not in self.live():
            return False
        held = self._machine.must("nft", "list", "set", "inet", TABLE, WINDOW)
        self._machine.must("nft", "flush", "set", "inet", TABLE, WINDOW)
        return "elements" in held


def _without_window(listing: str) -> str:
    """Drop the elements of the window's set, which come and go."""
    return re.sub(rf"(set {WINDOW} {{[^{{}}]*?)\n\s*elements = {{[^}}]*}}", r"\1", listing, count=1)


class IptablesBackend:
    """Whichever of iptables-nft and iptables-legacy the host has chosen for its `iptables`."""

    name = "iptables"
    # nft to read what else is in force.
    packages = ("iptables", "nftables")
    load = _LOAD_IPTABLES

    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def installed(self) -> bool:
        return self._machine.has("iptables-restore") and self._machine.has("nft")

    def legacy(self) -> bool:
        return "legacy" in self._machine.must("iptables", "-V")

    def saved(self) -> dict[int, str]:
        """Return the output of iptables-save and ip6tables-save by IP version."""
        return {
            version: self._machine.must(f"{tool}-save")
            for version, (tool, _restore) in self._versions()
        }

    def _versions(self) -> list[tuple[int, tuple[str, str]]]:
        six = self._machine.path("/proc/net/if_inet6").exists()
        return [pair for pair in _VERSIONS.items() if pair[0] == 4 or six]

    def render(self, policy: Policy) -> dict[str, str]:
        return {f"rules.v{version}": render_iptables(policy, version) for version in _VERSIONS}

    def live(self) -> str:
        return _both({version: own_part(text) for version, text in self.saved().items()})

    def listed(self, files: Files) -> str:
        parts = {}
        for version, (tool, _family) in self._versions():
            script = f"{tool}-restore --noflush && {tool}-save -t filter"
            stdin = with_candidate("", files[f"rules.v{version}"])
            text = self._machine.must("unshare", "--net", "sh", "-c", script, stdin=stdin)
            parts[version] = own_part(text)
        return _both(parts)

    def check(self, files: Files) -> None:
        for version, (tool, _family) in self._versions():
            rules = files[f"rules.v{version}"]
            self._machine.must(f"{tool}-restore", "--test", "--noflush", stdin=rules)

    def snapshot(self) -> dict[str, str]:
        files = {}
        for version, text in self.saved().items():
            lines = [line for line in text.splitlines() if _in_own_chain(line)]
            if lines:
                files[f"rules.v{version}"] = "\n".join(["*filter", *lines, "COMMIT", ""])
        return files

    def open_window(self, user: int, seconds: int) -> bool:
        del user  # the chain is reached by one user's packets only
        stop = self._machine.must("date", "-u", "-d", f"+{seconds} seconds", "+%Y-%m-%dT%H:%M:%S")
        return self._window("-A", "-m", "time", "--datestop", stop.strip(), "-j", "ACCEPT")

    def close_window(self) -> bool:
        was_open = any(f"-A {WINDOW_CHAIN}" in text for text in self.saved().values())
        return self._window() and was_open

    def _window(self, *rule: str) -> bool:
        if WINDOW_CHAIN not in self.live():
            return False
        for _version, (tool, _family) in self._versions():
            self._machine.must(tool, "-w", "-F", WINDOW_CHAIN)
            if rule:
                self._machine.must(tool, "-w", rule[0], WINDOW_CHAIN, *rule[1:])
        return True


def _in_own_chain(line: str) -> bool:
    words = line.split()
    name = words[0][1:] if line.startswith(":") else words[1] if line.startswith("-A") else ""
    return name in CHAINS


def _both(parts: Mapping[int, Sequence[str]]) -> str:
    """Put the rules of both IP versions into one text; "" when there are none."""
    if not any(parts.values()):
        return ""
    return "\n".join(
        line for version, lines in parts.items() for line in (f"# IPv{version}", *lines, "")
    )


def kept(machine: Machine, backend: Backend, directory: str = KEPT) -> dict[str, str]:
    """Return the files of the backend that are loaded at boot."""
    names = ("ruleset.nft",) if backend.name == "nftables" else ("rules.v4", "rules.v6")
    found = {name: machine.read(f"{directory}/{name}") for name in names}
    return {name: text for name, text in found.items() if text is not None}


def pending(machine: Machine) -> bool:
    """Tell whether the timer of a change that nobody has confirmed yet is running."""
    status, _output, _errors = machine.run(
        ["systemctl", "is-active", "--quiet", f"{TIMER}.timer"], ""
    )
    return status == 0


def _go_back(machine: Machine) -> None:
    machine.must("sh", f"{PENDING}/load", f"{PENDING}/previous")


def _disarm(machine: Machine) -> None:
    """Stop the timer, and what it may have started a moment ago. Raises FirewallError."""
    # The status says nothing: either may be gone by now.
    machine.run(["systemctl", "stop", f"{TIMER}.timer", f"{TIMER}.service"], "")
    if pending(machine):
        raise FirewallError(f"{TIMER}.timer could not be stopped")


def apply(machine: Machine, backend: Backend, files: Files, seconds: int) -> None:
    """Put the files in force, with a timer that brings back what is in force now.

    A change that is still waiting for its confirmation is taken back first. Raises FirewallError;
    the old rules are in force then.
    """
    if pending(machine):
        _go_back(machine)
        _disarm(machine)
    backend.check(files)
    machine.store(f"{PENDING}/previous", backend.snapshot())
    machine.store(f"{PENDING}/candidate", files)
    machine.store(PENDING, {"load": backend.load})
    machine.must(
        "systemd-run", "--quiet", "--collect", f"--unit={TIMER}", f"--on-active={seconds}s",
        "--timer-property=AccuracySec=1s", "/bin/sh", f"{PENDING}/load", f"{PENDING}/previous",
    )  # fmt: skip
    try:
        machine.must("sh", f"{PENDING}/load", f"{PENDING}/candidate")
    except FirewallError:
        _go_back(machine)
        _disarm(machine)
        raise


def confirm(machine: Machine, backend: Backend, other: Backend, files: Files) -> None:
    """Stop the timer, and keep the files for the next boot.

    Raises FirewallError when other rules are in force by now: the timer was faster.
    """
    # Also a timer that is over: its service may not have loaded the old rules yet.
    _disarm(machine)
    if backend.live() != backend.listed(files):
        raise FirewallError(
            "the run did not come back in time under the new rules, and "
            "the timer has brought the old ones back"
        )
    machine.store(KEPT, {**files, "load": backend.load})
    machine.discard(PENDING)
    if other.installed() and other.live():
        _unload(machine, other)


def absent(machine: Machine, backends: Sequence[Backend]) -> None:
    """Take our rules away, those in force and those kept."""
    _disarm(machine)
    for backend in backends:
        if backend.installed() and backend.live():
            _unload(machine, backend)
    machine.discard(PENDING)
    machine.discard(KEPT)


def _unload(machine: Machine, backend: Backend) -> None:
    nothing = {"ruleset.nft": REMOVAL} if backend.name == "nftables" else {}
    machine.store(f"{PENDING}/nothing", nothing)
    machine.store(PENDING, {"load": backend.load})
    machine.must("sh", f"{PENDING}/load", f"{PENDING}/nothing")
    machine.discard(PENDING)


def own_rules(machine: Machine, backend: Backend, files: Files) -> Ruleset:
    """Return only what the files hold, to be judged."""
    if isinstance(backend, IptablesBackend):
        return combine(parse_nft(_EMPTY_NFT), _parsed_candidates(files, {}))
    return parse_nft(_scratch_json(machine, files))


def policy_rules(policy: Policy) -> Ruleset:
    """Return what a policy would hold, where no program is there yet to try it with."""
    files = {f"rules.v{version}": render_iptables(policy, version) for version in _VERSIONS}
    return combine(parse_nft(_EMPTY_NFT), _parsed_candidates(files, {}))


def _scratch_json(machine: Machine, files: Files) -> str:
    script = "nft -f - && nft -j list ruleset"
    return machine.must("unshare", "--net", "sh", "-c", script, stdin=files["ruleset.nft"])


def _parsed_candidates(
    files: Files, saved: Mapping[int, str], legacy: bool = False
) -> list[Ruleset]:
    return [
        parse_iptables(
            with_candidate(saved.get(version, ""), files.get(f"rules.v{version}")),
            family,
            legacy=legacy,
        )
        for version, (_tool, family) in _VERSIONS.items()
    ]


def whole_rules(machine: Machine, backend: Backend, files: Files | None = None) -> Ruleset:
    """Return everything in force on the host; with files, as it would be with them in force."""
    text, listing = _EMPTY_NFT, ""
    if machine.has("nft"):
        text = machine.must("nft", "-j", "list", "ruleset")
        listing = machine.must("nft", "list", "ruleset")
    saved = all_saved(machine)
    legacy = False
    if files is not None and isinstance(backend, IptablesBackend):
        legacy = backend.legacy()
        if not legacy:
            # iptables-nft makes a built-in chain only when it needs it: take its own word for it.
            text = _without_tables(
                text, lambda table: table in (("ip", "filter"), ("ip6", "filter"))
            )
    elif files is not None:
        ours = json.loads(_scratch_json(machine, files))["nftables"]
        text = _without_tables(text, lambda table: table == ("inet", TABLE), ours)
    rulesets = []
    for version, is_legacy, output in saved:
        family, shown = _VERSIONS[version][1], output
        if files is not None and isinstance(backend, IptablesBackend) and is_legacy == legacy:
            shown = with_candidate(output, files[f"rules.v{version}"])
        rulesets.append(parse_iptables(shown, family, legacy=is_legacy))
    return combine(parse_nft(text, listing), rulesets)


def _without_tables(
    text: str, unwanted: Callable[[tuple[str, str]], bool], more: Sequence[t.Any] = ()
) -> str:
    document = json.loads(text)

    def table_of(entry: Mapping[str, t.Any]) -> tuple[str, str]:
        kind, body = next(iter(entry.items()))
        return str(body.get("family")), str(body.get("name" if kind == "table" else "table"))

    objects = [entry for entry in document["nftables"] if not unwanted(table_of(entry))]
    added = [entry for entry in more if "metainfo" not in entry]
    return json.dumps({"nftables": [*objects, *added]})


def all_saved(machine: Machine) -> list[tuple[int, bool, str]]:
    """Return (IP version, legacy, output) of every iptables-save that has something to say.

    Both kinds, whichever the host's `iptables` is: Docker may have been told to use the other.
    """
    found = []
    for version, (tool, family) in _VERSIONS.items():
        names = machine.read(f"/proc/net/{family}_tables_names")
        if machine.has(f"{tool}-nft-save"):
            found.append((version, False, machine.must(f"{tool}-nft-save")))
        # The kernel lists legacy tables even where the program that shows them is missing.
        if names and machine.has(f"{tool}-legacy-save"):
            found.append((version, True, machine.must(f"{tool}-legacy-save")))
    return found
