# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: posture_report
short_description: Write one report of the findings of many hosts, and say whether it is good enough
version_added: 0.2.0
description:
  - Puts the findings of the C(verify_*) modules of all hosts into one report, compares it with an
    earlier one, applies waivers, and judges it.
  - Writes the report as JSON, as a page for the browser, as SARIF, JUnit and Markdown, each of mode
    C(0640), and returns a short table for the terminal.
  - Never fails for a finding. Whoever wants to stop asserts RV(gate.passed).
  - Runs on the control node, whatever the task's host is. Give it C(run_once=true).
options:
  hosts:
    description:
      - What was found, by host. Each is a dictionary of C(findings) (those of several modules one
        after the other), C(address), C(facts) (V(distribution), V(distribution_version),
        V(architecture) and V(kernel) are shown), C(unreachable) (V(true) when nobody got in) and
        C(failed) (why a module failed). All of them are optional, others are refused. Null instead
        of a dictionary stands for a host that was not reached.
      - A host that was not reached or where a module failed, a finding that cannot be understood,
        and a control that is expected but not measured are findings of their own, with the result
        V(error).
    type: dict
    required: true
  run:
    description:
      - About the assessment as a whole, C(title), C(started) (ISO 8601 with an offset, by default
        now), C(collection_version).
      - Waivers expire by C(started). Without it each run writes the files anew.
    type: dict
  directory:
    description: The folder for the files. A relative path begins at the playbook's folder.
    type: path
    required: true
  name:
    description: The files' name without their endings.
    type: str
    default: report
  formats:
    description:
      - Which files to write, V(json) (C(.json)), V(html) (C(.html)), V(sarif) (C(.sarif)), V(junit)
        (C(.junit.xml)), V(markdown) (C(.md)).
    type: list
    elements: str
    choices: [json, html, sarif, junit, markdown]
    default: [json, html, sarif, junit, markdown]
  fail_on:
    description:
      - The least severity of a failure that the gate does not let pass. What could not be measured
        is never let pass.
      - With V(never) the gate lets everything pass but a report without a host or a measurement.
    type: str
    choices: [critical, high, medium, low, info, never]
    default: high
  waivers:
    description:
      - Failures that somebody answers for, each with C(id) (of the finding, or a glob that begins
        with its subject, such as V(firewall.*)), C(reason), C(owner), C(expires) (its last day, as
        V(2027-01-31)), and, if need be, C(hosts) (a list of globs, by default all) and
        C(also_errors) (V(true) when it is also about what could not be measured). Others are
        refused.
      - One that has expired and is still needed is a failure itself.
    type: list
    elements: dict
    default: []
  baseline:
    description:
      - An earlier report to compare with, the path of its JSON file or its content. Each finding is
        then V(new), V(fixed) or V(unchanged).
    type: raw
  expected_controls:
    description: Controls that must have been looked at on each host.
    type: list
    elements: str
    default: []
  repository_paths:
    description:
      - The files that SARIF results point at, by control, relative to the repository's root.
        V(default) is for all others, and is the inventory if it is not given.
    type: dict
    default: {}
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
    details: Writes no file, and returns the same.
  diff_mode:
    support: none
  platform:
    platforms: posix
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: Assess the firewall
  llmsec.hardening.verify_firewall:
    policy:
      guards:
        - {port: 11434, title: nobody but loopback}
  register: firewall
  ignore_errors: true

- name: Keep what was found
  ansible.builtin.set_fact:
    assessed:
      findings: "{{ firewall.findings | default([]) }}"
      failed: "{{ firewall.msg | default('') }}"

- name: Write the report
  llmsec.hardening.posture_report:
    hosts: "{{ dict(ansible_play_hosts_all | zip(all_assessed)) }}"
    directory: "{{ playbook_dir }}/reports"
    waivers:
      - id: firewall.unit
        hosts: [llm2]
        reason: The image of this host loads its rules by other means.
        owner: Team Platform
        expires: "2027-01-31"
  vars:
    # A host that nobody got into has kept nothing.
    all_assessed: "{{ ansible_play_hosts_all | map('extract', hostvars) |
      map(attribute='assessed', default={'unreachable': true}) }}"
  run_once: true
  register: posture

- name: Show it
  ansible.builtin.debug:
    var: posture.table
  run_once: true

- name: Stop unless it is good enough
  ansible.builtin.assert:
    that: posture.gate.passed
    fail_msg: "{{ posture.gate.reasons | join('; ') }}"
  run_once: true
"""

RETURN = r"""
summary:
  description: How many findings there are.
  returned: success
  type: dict
  contains:
    outcomes:
      description: By outcome, V(fail), V(error), V(waived), V(skip), V(pass).
      type: dict
    failed:
      description: Failures that are not waived, by severity.
      type: dict
    hosts:
      description: The same two, by host.
      type: dict
    changes:
      description: V(new), V(fixed), V(unchanged) and V(gone), when there is a baseline.
      type: dict
gate:
  description: The verdict.
  returned: success
  type: dict
  contains:
    passed:
      description: Whether the report is good enough.
      type: bool
    fail_on:
      description: The option.
      type: str
    reasons:
      description: Why it is not.
      type: list
  sample:
    passed: false
    fail_on: high
    reasons: ["1 failed, critical: llm1: listeners.llm_server"]
notes:
  description: What else somebody should know, such as waivers that nothing needs.
  returned: success
  type: list
table:
  description: Lines for the terminal, printable ASCII, at most 100 columns.
  returned: success
  type: list
paths:
  description: The files by format, also in check mode.
  returned: success
  type: dict
  sample: {html: /srv/infra/reports/report.html}
"""
