#!/usr/bin/python
# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: verify_keys
short_description: Say whether the gateway's keys are what they should be, and lie nowhere else
version_added: 0.2.0
description:
  - Judges the registry of the key validator on a host, its records, the files with secrets, and
    looks for API keys in plain text in files, logs and processes.
  - Changes nothing and never fails for what it finds. What could not be looked at has the result
    V(error).
options:
  registry:
    description: The registry that the service reads.
    type: path
    default: /etc/llm-key-validator/keys.json
  group:
    description: The service's user and group, which may read the registry.
    type: str
    default: llm-validator
  socket:
    description:
      - Unix socket on which the service says which registry it uses. Empty means not to ask.
    type: str
    default: /run/llm-key-validator.sock
  audit_log:
    description: Folder of the audit log, which tells which keys are used. Empty means not to look.
    type: str
    default: /var/log/llm-gateway
  expected_keys:
    description:
      - The records that the inventory has, as in the variable C(key_validator_keys), certificates'
        fingerprints put in. Any other key on the host is a finding, and so is a changed one.
      - Without it the two are not compared.
    type: list
    elements: dict
  warn_days:
    description: Days that each key must be good for.
    type: int
    default: 14
  unused_days:
    description: Days after which a key that nobody used is a finding.
    type: int
    default: 90
  private_keys:
    description:
      - Files, and folders with files. Those that hold a private key must be root's alone.
    type: list
    elements: path
    default: [/etc/llm-gateway/pki]
  search_paths:
    description:
      - Where to look for keys in plain text, as globs. A folder is searched with all that is in it,
        unless a wildcard ends its name. Links are not followed. Words and variables of all
        processes are always looked at. Of compressed files those in gzip are read.
      - By default the configuration of nginx, of the gateway, of units, of the environment and of
        cron, files in home folders and C(.env) files below C(/opt) and C(/srv), C(/tmp),
        C(/var/tmp), C(/run) and C(/var/log).
    type: list
    elements: str
  max_bytes:
    description: How much to read in this search, in bytes.
    type: int
    default: 268435456
  max_seconds:
    description: How long to search.
    type: float
    default: 5
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
    details: Reads only, so it does the same in check mode.
  diff_mode:
    support: none
  platform:
    platforms: linux
notes:
  - Run it as root. What other users may not read has the result V(error).
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: Judge the keys on the gateway
  llmsec.hardening.verify_keys:
    expected_keys: "{{ key_validator_keys }}"
    private_keys: [/etc/llm-gateway/pki, /etc/ssl/private/llm.key]
  register: keys

- name: Stop when something is wrong
  ansible.builtin.assert:
    that: keys.findings | rejectattr('result', 'in', ['pass', 'skip']) | length == 0
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
    evidence: {description: "Where, without the keys themselves.", type: list}
    remediation: {description: What to do about it., type: str}
"""

import time
import typing as t
from collections.abc import Callable

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils import key_checks
from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import KeyRecord
from ansible_collections.llmsec.hardening.plugins.module_utils.host_view import HostView
from ansible_collections.llmsec.hardening.plugins.module_utils.key_checks import (
    RegistryFormatError,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.key_files import (
    file_findings,
    last_use,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.plain_text_keys import (
    SEARCH_PATHS,
    Budget,
    search,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.subjects import Finding
from ansible_collections.llmsec.hardening.plugins.module_utils.validator_service import (
    parse_config,
    read_metrics,
)

# The service takes no larger one by default.
MOST_REGISTRY = 1 << 26
# How much of the audit log's end is read for the keys in it
MOST_LOG = 1 << 26

Options = dict[str, t.Any]
Result = t.TypeVar("Result")


def attempt(look: Callable[[], Result]) -> Result | Exception:
    """Return what was found, or why it could not be looked at."""
    try:
        return look()
    except (OSError, ValueError) as error:
        return error


def registry_findings(
    host: HostView, options: Options, content: bytes, expected: list[KeyRecord] | None
) -> t.Iterator[Finding]:
    """Yield what is said of the registry, its files and each key in it."""
    path, now = options["registry"], time.time()
    yield key_checks.REGISTRY.judged([], expected="a registry", found=f"{len(content)} bytes")
    yield key_checks.format_finding(content)
    if options["socket"]:
        in_use = attempt(lambda: read_metrics(host, options["socket"]).registry)
        yield key_checks.loaded_finding(content, in_use)
    yield from file_findings(host, path, options["group"], options["private_keys"])
    records = usable(content)
    if records is None:
        return
    yield from key_checks.expected_findings(records, expected)
    yield key_checks.weak_finding(records)
    yield from key_checks.age_findings(records, now, options["warn_days"])
    folder = path.rpartition("/")[0]
    config = attempt(lambda: parse_config(host.read(f"{folder}/config.json", MOST_REGISTRY)))
    yield key_checks.tier_finding(
        records, {"tiers": None} if isinstance(config, Exception) else config
    )
    if options["audit_log"]:
        use = attempt(lambda: last_use(host, options["audit_log"], MOST_LOG))
        yield key_checks.unused_finding(records, use, now, options["unused_days"])


def usable(content: bytes) -> list[KeyRecord] | None:
    """Return the registry's records, None when the service would refuse it."""
    try:
        return key_checks.parse_registry(content)
    except RegistryFormatError:
        return None


def search_findings(host: HostView, options: Options, content: bytes) -> t.Iterator[Finding]:
    """Yield where keys lie in plain text."""
    records = usable(content) or []
    digests = [record.digest.hex() for record in records if record.digest is not None]
    budget = Budget(options["max_bytes"], time.monotonic() + options["max_seconds"])
    paths = SEARCH_PATHS if options["search_paths"] is None else options["search_paths"]
    found = search(host, paths, digests, budget)
    yield from key_checks.plain_text_findings(found, records, time.time())


def findings_of(
    host: HostView, options: Options, expected: list[KeyRecord] | None
) -> list[Finding]:
    """Return all findings; of a host without a registry that one."""
    try:
        content = host.read(options["registry"], MOST_REGISTRY)
    except OSError as error:
        facts = attempt(lambda: host.facts(options["registry"]))
        kind = getattr(facts, "kind", "")
        if kind in ("", "a file"):
            return [key_checks.REGISTRY.not_measured(error)]
        problems = [f"{options['registry']} is {kind}"]
        return [key_checks.REGISTRY.judged(problems, expected="a regular file", found="")]
    if content is None:
        return [key_checks.never_hardened(options["registry"])]
    return [
        *registry_findings(host, options, content, expected),
        *search_findings(host, options, content),
    ]


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "registry": {"type": "path", "default": "/etc/llm-key-validator/keys.json"},
            "group": {"type": "str", "default": "llm-validator"},
            "socket": {"type": "str", "default": "/run/llm-key-validator.sock"},
            "audit_log": {"type": "str", "default": "/var/log/llm-gateway"},
            # Digests only: they open nothing.
            "expected_keys": {"type": "list", "elements": "dict", "no_log": False},
            "warn_days": {"type": "int", "default": 14},
            "unused_days": {"type": "int", "default": 90},
            "private_keys": {
                "type": "list",
                "elements": "path",
                "default": ["/etc/llm-gateway/pki"],
                "no_log": False,
            },
            "search_paths": {"type": "list", "elements": "str"},
            "max_bytes": {"type": "int", "default": 1 << 28},
            "max_seconds": {"type": "float", "default": 5},
        },
        supports_check_mode=True,
    )
    raw = module.params["expected_keys"]
    try:
        expected = None if raw is None else key_checks.parse_records(raw, "expected_keys")
    except RegistryFormatError as exc:
        module.fail_json(msg=f"{exc}.")
    module.exit_json(changed=False, findings=findings_of(HostView(), module.params, expected))


if __name__ == "__main__":
    main()
