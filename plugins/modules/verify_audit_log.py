#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: verify_audit_log
short_description: Say whether the gateway's audit log is kept, whole and goes on from where it was
version_added: 0.2.0
description:
  - Judges the audit log on the gateway and the key validator that writes it. Sends one request
    without a key to the gateway and looks for its record on the disk, checks the chain over all
    files, and that it goes on from the head noted last.
  - Never fails for what it finds. What could not be looked at has the result V(error).
  - Seals are not checked here, for their first key stays on the control node. The
    playbook C(verify_audit) checks them there, on a copy of the log.
options:
  log:
    description: The file that is written to. Those that were put aside lie beside it.
    type: path
    default: /var/log/llm-gateway/audit.jsonl
  owner:
    description: User whose files they are.
    type: str
    default: llm-validator
  group:
    description: Group that may read them.
    type: str
    default: adm
  mode:
    description: Highest mode of the files, octal.
    type: str
    default: "0640"
  directory_mode:
    description: Highest mode of their folder, octal.
    type: str
    default: "02750"
  config:
    description: The service's settings.
    type: path
    default: /etc/llm-key-validator/config.json
  settings:
    description:
      - What O(config) must say, by the inventory. Without it the settings are not compared.
    type: dict
  registry:
    description: The service's registry, to know keys in the log by.
    type: path
    default: /etc/llm-key-validator/keys.json
  unit:
    description: The service's unit.
    type: str
    default: llm-key-validator.service
  socket:
    description: Unix socket on which the service says how it is.
    type: path
    default: /run/llm-key-validator.sock
  report_socket:
    description: Unix socket on which nginx tells it how requests ended.
    type: path
    default: /run/llm-key-validator-log.sock
  code_directory:
    description: Folder of the service's code.
    type: path
    default: /usr/local/lib/llm-key-validator
  code:
    description:
      - What must be in that folder, and nothing else. SHA-256 by relative path, made from
        P(llmsec.hardening.source_tree#lookup).
      - Without it the code is not checked, and what it says of the log is believed.
    type: dict
  verifier:
    description: The command that reads the log.
    type: path
    default: /usr/local/bin/llm-audit
  verifier_sha256:
    description: SHA-256 of that file. Empty means that it is not known.
    type: str
    default: ""
  anchor:
    description:
      - The head that an earlier run returned, or C(llm-audit head --json) printed, and that was
        kept off the host.
    type: dict
    suboptions:
      sequence: {description: Number of its record., type: int, required: true}
      hash: {description: Hash of its record., type: str, required: true}
      epoch: {description: Epoch that it belongs to., type: int}
      file: {description: File that it stood in., type: str}
      time: {description: Its time., type: str}
  probe:
    description: Whether to send the request. In check mode it is not sent.
    type: bool
    default: true
  address:
    description: Where the gateway listens.
    type: str
    default: 127.0.0.1
  port:
    description: Its port.
    type: int
    default: 443
  server_name:
    description: Its name, for TLS and the request. Its certificate is not verified.
    type: str
    default: localhost
  wait:
    description: Seconds within which the record must be on the disk.
    type: float
    default: 5
  records:
    description: How many of the last records are searched for prompts and keys.
    type: int
    default: 1000
  chain_seconds:
    description: How long checking the chain may take. A longer log has the result V(error).
    type: int
    default: 60
  least_free_bytes:
    description: Bytes that must be free on the log's file system.
    type: int
    default: 100000000
  least_free_percent:
    description: The same as a share.
    type: float
    default: 5
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
    details: Reads only, apart from the request, which is not sent in check mode.
  diff_mode:
    support: none
  platform:
    platforms: linux
notes:
  - Run it as root on the gateway. What other users may not read has the result V(error).
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: Judge the audit log
  llmsec.hardening.verify_audit_log:
    server_name: llm.internal.example.com
    code: "{{ dict(sources | map(attribute='path')
              | zip(sources | map(attribute='content') | map('hash', 'sha256'))) }}"
    anchor: "{{ (lookup('ansible.builtin.file', noted) | from_json)
                if noted is ansible.builtin.exists else omit }}"
  vars:
    sources: "{{ query('llmsec.hardening.source_tree', 'roles/key_validator/files') }}"
    noted: "{{ inventory_dir }}/../audit/{{ inventory_hostname }}/head.json"
  register: audit_log

- name: Note the head for the next time
  llmsec.hardening.audit_head:
    path: "{{ inventory_dir }}/../audit/{{ inventory_hostname }}/head.json"
    head: "{{ audit_log.head }}"
  when: audit_log.head | length > 0
"""

RETURN = r"""
findings:
  description: One dictionary for each check.
  returned: success
  type: list
  elements: dict
  contains:
    id: {description: Stable name of the check., type: str}
    control: {description: The control that it is about., type: str}
    title: {description: What must hold., type: str}
    severity: {description: "V(critical), V(high), V(medium), V(low) or V(info).", type: str}
    result: {description: "V(pass), V(fail), V(skip), or V(error): not measured.", type: str}
    expected: {description: What must be found., type: str}
    actual: {description: What was found., type: str}
    evidence: {description: Where it was found., type: list}
    remediation: {description: What to do about it., type: str}
head:
  description:
    - Where the log ends, to be kept off the host as the next O(anchor). Empty when the log is not
      whole or does not go on from the present anchor, which must be kept then.
  returned: success
  type: dict
  sample: {sequence: 1024, hash: 5c1a, epoch: 3, file: audit.jsonl, time: "2026-11-23T20:31:20Z"}
"""

import json
import sys
import time
import typing as t
from collections.abc import Callable
from contextlib import suppress

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils import (
    audit_checks,
    audit_probe,
    validator_code,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.host_view import (
    FILE,
    Facts,
    HostView,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.http_probe import (
    Endpoint,
    NoConnectionError,
    Sources,
    tls_context,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.key_checks import (
    registered_digests,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.subjects import Finding, Subject
from ansible_collections.llmsec.hardening.plugins.module_utils.validator_service import (
    Run,
    Service,
    find_service,
    parse_config,
    read_metrics,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.validator_settings import (
    settings_findings,
)

MOST_CONFIG = 1 << 22
MOST_REGISTRY = 1 << 26
# The last records are longer than 200 bytes each, and shorter than this.
TAIL = 1 << 22
# Where somebody else may say what becomes of files below /var/log
JANITORS = (
    "/etc/logrotate.d", "/etc/tmpfiles.d", "/run/tmpfiles.d", "/usr/local/lib/tmpfiles.d",
    "/usr/lib/tmpfiles.d", "/etc/cron.d", "/etc/cron.hourly", "/etc/cron.daily",
    "/etc/cron.weekly", "/var/spool/cron/crontabs",
)  # fmt: skip
# Without site: nothing of the host's may run before the code that was just checked.
START = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); "
    "from llm_key_validator.audit.cli import main; raise SystemExit(main())"
)

Options = dict[str, t.Any]
Result = t.TypeVar("Result")


def attempt(look: Callable[[], Result]) -> Result | Exception:
    """Return what was found, or why it could not be looked at."""
    try:
        return look()
    except (OSError, ValueError) as error:
        return error


def guarded(subject: Subject, look: Callable[[], Finding]) -> Finding:
    """Return the finding, or that it could not be measured."""
    try:
        return look()
    except (OSError, ValueError) as error:
        return subject.not_measured(error)


class Check:
    """One assessment of one host."""

    def __init__(self, host: HostView, run: Run, options: Options, *, active: bool) -> None:
        self.host = host
        self.run = run
        self.options = options
        self.active = active
        self.log: str = options["log"]
        self.folder = self.log.rpartition("/")[0]
        self.head: dict[str, t.Any] = {}

    def findings(self) -> list[Finding]:
        """Return all findings; of a host that records nothing that one, and about the code."""
        path = self.options["config"]
        try:
            config = parse_config(self.host.read(path, MOST_CONFIG))
        except (OSError, ValueError) as error:
            return [audit_checks.ENABLED.not_measured(error)]
        enabled = audit_checks.enabled_finding(config, path)
        if config is None:
            return [enabled]
        service = attempt(lambda: find_service(self.host, self.run, self.options["unit"]))
        code = [*self._code(service), *settings_findings(config, self.options["settings"])]
        if enabled["result"] != "pass":
            return [enabled, *code]
        return [
            enabled, *code, *self._settings(config, trusted=code[0]["result"] != "fail"),
            *self._file(service), *self._probe(service),
            *self._records(config, trusted=code[0]["result"] in ("pass", "skip")),
            *self._surroundings(config),
        ]  # fmt: skip

    def _code(self, service: Service | Exception | None) -> t.Iterator[Finding]:
        folder, config = self.options["code_directory"], self.options["config"]
        yield validator_code.code_finding(self.host, folder, self.options["code"])
        yield validator_code.verifier_finding(
            self.host, self.options["verifier"], self.options["verifier_sha256"]
        )
        yield validator_code.interpreter_finding(self.host)
        yield validator_code.process_finding(service, folder, config)
        yield validator_code.force_finding(service, self.host, (folder, config))

    def _settings(self, config: dict[str, t.Any], *, trusted: bool) -> t.Iterator[Finding]:
        def refusal() -> str:
            if not trusted:
                raise ValueError("the service's code was changed, and is not asked")
            place = self.host.place(self.options["config"])
            code = self.host.place(self.options["code_directory"])
            command = [sys.executable, "-I", "-S", "-B", code, "--check-config", place]
            status, output, errors = self.run(command, "")
            if status not in (0, 1):
                raise ValueError(
                    f"the service's check ended with {status}: {errors.strip()[-200:]}"
                )
            return output.strip() if status else ""

        yield from audit_checks.config_findings(config, self.folder, attempt(refusal))

    def _file(self, service: Service | Exception | None) -> t.Iterator[Finding]:
        facts = attempt(lambda: self.host.facts(self.log))
        above = attempt(self._above)
        if isinstance(facts, Exception) or isinstance(above, Exception):
            yield audit_checks.FILES.not_measured(facts)
            return
        yield audit_checks.file_finding(self.log, facts, above)
        owner = f"{self.options['owner']}:{self.options['group']}"
        modes = (int(self.options["directory_mode"], 8), int(self.options["mode"], 8))
        yield guarded(
            audit_checks.PERMISSIONS,
            lambda: audit_checks.permissions_finding(
                self.host.facts(self.folder),
                self._files(),
                above[:-1],
                owner=owner,
                modes=modes,
                path=self.folder,
            ),
        )
        yield audit_checks.open_finding(service, self.log, facts)

    def _above(self) -> list[Facts]:
        """Return the folders that lead to the log, its own last."""
        names = self.folder.split("/")[1:]
        paths = ["/" + "/".join(names[: end + 1]) for end in range(len(names))]
        return [facts for facts in map(self.host.facts, paths) if facts is not None]

    def _files(self) -> list[Facts]:
        """Return the log's files, the one in use last."""
        names = self.host.names(self.folder) or ()
        found = [self.host.facts(f"{self.folder}/{name}") for name in names if _is_log(name)]
        return [facts for facts in found if facts is not None]

    def _probe(self, service: Service | Exception | None) -> t.Iterator[Finding]:
        subjects = (audit_probe.LIVE, audit_probe.CLIENT, audit_probe.LEAK)
        if not self.active:
            yield from (one.skipped("no request was sent") for one in subjects)
            return
        growth = audit_probe.Growth((self.host.place("/var/log"),))
        growth.begin(self._open_logs(service))
        endpoint = Endpoint(
            address=self.options["address"], port=self.options["port"], context=tls_context(),
            server_name=self.options["server_name"],
        )  # fmt: skip
        source = Sources(endpoint.address).take()
        try:
            tail = audit_probe.LogTail(self.host, self.log)
            sent = audit_probe.probe(endpoint, source, tail, self.options["wait"])
        except (NoConnectionError, OSError) as error:
            yield from (one.not_measured(error) for one in subjects)
            return
        own = self.host.place(self.folder)
        places = [one for one in growth.holding(sent.secret.encode()) if not one.startswith(own)]
        journal = attempt(lambda: self._journal(sent))
        yield from audit_probe.live_findings(sent, places, journal)

    def _open_logs(self, service: Service | Exception | None) -> list[str]:
        """Return what nginx and the service write to, where that is not below /var/log."""
        pids = [one.pid for one in self.host.processes() if one.name == "nginx"]
        if isinstance(service, Service):
            pids.append(service.process.pid)
        paths: set[str] = set()
        for pid in pids:
            with suppress(OSError):
                paths |= {one.path for one in self.host.open_files(pid) if one.writable}
        return sorted(path for path in paths if not path.startswith("/var/log/"))

    def _journal(self, sent: audit_probe.Sent) -> list[str]:
        """Return whose messages hold the request's secret word. Raises OSError."""
        command = [
            "journalctl", "--quiet", "--no-pager", f"--since=@{int(sent.at) - 1}", "--output=json",
            "--output-fields=SYSLOG_IDENTIFIER,MESSAGE", "--lines=20000",
        ]  # fmt: skip
        try:
            status, output, errors = self.run(command, "")
        except FileNotFoundError:
            return []
        # Without a word: there is no journal.
        if status != 0 and errors.strip():
            raise OSError(f"journalctl: {errors.strip()}")
        names: dict[str, None] = {}
        for line in output.splitlines():
            if sent.secret in line:
                with suppress(ValueError):
                    names[f"the journal of {json.loads(line).get('SYSLOG_IDENTIFIER')}"] = None
        return list(names)

    def _records(self, config: dict[str, t.Any], *, trusted: bool) -> t.Iterator[Finding]:
        verdict = attempt(lambda: self._verdict(trusted=trusted))
        files = attempt(self._files)
        lines = attempt(self._last_lines)
        if isinstance(files, Exception) or isinstance(lines, Exception):
            why = files if isinstance(files, Exception) else lines
            for subject in (audit_checks.CHAIN, audit_checks.CONTENT, audit_checks.SEALED):
                yield subject.not_measured(why)
            return
        rotated = sum(facts.path != self.log for facts in files)
        last = _last_sequence(lines)
        found = [
            *audit_checks.chain_findings(verdict, self.options["anchor"], config, last, rotated)
        ]
        yield from found
        if not isinstance(verdict, Exception) and not _broken(found):
            self.head = audit_checks.head_of(lines, verdict, self.log.rpartition("/")[2])
        registry = attempt(lambda: self.host.read(self.options["registry"], MOST_REGISTRY))
        digests = registered_digests(registry) if isinstance(registry, bytes) else frozenset()
        yield audit_checks.content_finding(lines[-self.options["records"] :], digests)
        metrics = attempt(lambda: read_metrics(self.host, self.options["socket"]))
        yield audit_checks.sealed_finding(metrics, config, lines, time.time())

    def _verdict(self, *, trusted: bool) -> audit_checks.Verdict:
        """Let the service's own code check the chain. Raises ValueError."""
        if not trusted:
            raise ValueError("the code that would check the chain was changed")
        anchor = self.options["anchor"]
        command = [
            "timeout", str(self.options["chain_seconds"]), sys.executable, "-I", "-S", "-B",
            "-c", START, self.host.place(self.options["code_directory"]), "verify", "--json",
            *(["--anchor", "/dev/stdin"] if anchor else []), self.host.place(self.folder),
        ]  # fmt: skip
        status, output, errors = self.run(command, json.dumps(anchor) if anchor else "")
        if status == 124:
            seconds = self.options["chain_seconds"]
            raise ValueError(f"it takes more than {seconds} seconds (chain_seconds)")
        return audit_checks.parse_verdict(status, output, errors)

    def _last_lines(self) -> list[bytes]:
        """Return the last whole records, those of the file before where there are few."""
        lines: list[bytes] = []
        for facts in reversed(self._files()):
            if facts.kind == FILE:
                start = max(0, facts.size - TAIL)
                data = self.host.read(facts.path, 2 * TAIL, start) or b""
                lines = data.split(b"\n")[1 if start else 0 : -1] + lines
            if len(lines) >= self.options["records"]:
                break
        return lines

    def _surroundings(self, config: dict[str, t.Any]) -> t.Iterator[Finding]:
        path = self.options["report_socket"]
        sinks = ("/run/systemd/journal/socket", "/dev/log")
        yield guarded(
            audit_checks.REPORTS,
            lambda: audit_checks.reports_finding(
                path, self.host.facts(path), config, [one for one in sinks if self._is_there(one)]
            ),
        )
        space = attempt(lambda: self.host.space(self.folder))
        yield audit_checks.space_finding(
            space, self.options["least_free_bytes"], self.options["least_free_percent"]
        )
        yield guarded(audit_checks.ROTATION, lambda: self._rotation(config))

    def _is_there(self, path: str) -> bool:
        return self.host.facts(path) is not None

    def _rotation(self, config: dict[str, t.Any]) -> Finding:
        texts = {}
        paths = ["/etc/logrotate.conf", "/etc/crontab"]
        for folder in JANITORS:
            paths += [f"{folder}/{name}" for name in self.host.names(folder) or ()]
        for path in paths:
            with suppress(OSError):  # links, such as to /dev/null, say nothing
                texts[path] = (self.host.read(path, MOST_CONFIG) or b"").decode("utf-8", "replace")
        facts = self.host.facts(self.log)
        return audit_checks.rotation_finding(config, facts.size if facts else 0, self.folder, texts)


def _is_log(name: str) -> bool:
    return name == "audit.jsonl" or (name.startswith("audit-") and name.endswith(".jsonl"))


def _broken(findings: list[Finding]) -> bool:
    return any(one["result"] not in ("pass", "skip") for one in findings)


def _last_sequence(lines: list[bytes]) -> int:
    for line in reversed(lines):
        with suppress(ValueError, RecursionError, AttributeError, TypeError):
            return int(json.loads(line).get("event.sequence"))
    return 0


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "log": {"type": "path", "default": "/var/log/llm-gateway/audit.jsonl"},
            "owner": {"type": "str", "default": "llm-validator"},
            "group": {"type": "str", "default": "adm"},
            "mode": {"type": "str", "default": "0640"},
            "directory_mode": {"type": "str", "default": "02750"},
            "config": {"type": "path", "default": "/etc/llm-key-validator/config.json"},
            "settings": {"type": "dict"},
            "registry": {"type": "path", "default": "/etc/llm-key-validator/keys.json"},
            "unit": {"type": "str", "default": "llm-key-validator.service"},
            "socket": {"type": "path", "default": "/run/llm-key-validator.sock"},
            "report_socket": {"type": "path", "default": "/run/llm-key-validator-log.sock"},
            "code_directory": {"type": "path", "default": "/usr/local/lib/llm-key-validator"},
            "code": {"type": "dict"},
            "verifier": {"type": "path", "default": "/usr/local/bin/llm-audit"},
            "verifier_sha256": {"type": "str", "default": ""},
            "anchor": {
                "type": "dict",
                "options": {
                    "sequence": {"type": "int", "required": True},
                    "hash": {"type": "str", "required": True},
                    "epoch": {"type": "int"},
                    "file": {"type": "str"},
                    "time": {"type": "str"},
                },
            },
            "probe": {"type": "bool", "default": True},
            "address": {"type": "str", "default": "127.0.0.1"},
            "port": {"type": "int", "default": 443},
            "server_name": {"type": "str", "default": "localhost"},
            "wait": {"type": "float", "default": 5},
            "records": {"type": "int", "default": 1000},
            "chain_seconds": {"type": "int", "default": 60},
            "least_free_bytes": {"type": "int", "default": 100_000_000},
            "least_free_percent": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    for name in ("mode", "directory_mode"):
        if not module.params[name].isdecimal() or set(module.params[name]) & set("89"):
            module.fail_json(msg=f"{name} must be an octal number such as '0640'.")

    def run(command: list[str], stdin: str) -> tuple[int, str, str]:
        # A program that is not there is an OSError here, and a finding later.
        return module.run_command(
            command, data=stdin, environ_update={"LC_ALL": "C"}, handle_exceptions=False
        )

    active = module.params["probe"] and not module.check_mode
    check = Check(HostView(), run, module.params, active=active)
    module.exit_json(changed=False, findings=check.findings(), head=check.head)


if __name__ == "__main__":
    main()
