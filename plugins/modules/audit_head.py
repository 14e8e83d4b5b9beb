# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

DOCUMENTATION = r"""
module: audit_head
short_description: Note the head of a host's audit log on the control node
version_added: 0.2.0
description:
  - Keeps the number and the hash of the last record of an audit log in a file on the control node.
    A chain cannot show that its end was cut off; a head that was noted off the host can.
  - A head that is not ahead of the one noted last is not written, because it may be what somebody
    left of the log. Whoever notes heads compares RV(noted) with the head.
  - Runs on the control node, whatever the task's host is.
options:
  path:
    description:
      - The file. It gets mode C(0600), folders that it makes get C(0700). A relative path begins at
        the playbook's folder.
    type: path
    required: true
  head:
    description:
      - What C(llm-audit head --json) printed, or P(llmsec.hardening.verify_audit_log#module)
        returned, with at least C(sequence) and C(hash) (SHA-256, in hexadecimal digits).
    type: dict
    required: true
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: none
  platform:
    platforms: posix
author:
  - llmsec.hardening contributors (@llmsec)
"""

EXAMPLES = r"""
- name: Look at the audit log
  llmsec.hardening.verify_audit_log:
  register: audit_log

- name: Note its head for the next time
  llmsec.hardening.audit_head:
    path: "{{ inventory_dir }}/../audit/{{ inventory_hostname }}/head.json"
    head: "{{ audit_log.head }}"
  when: audit_log.head | length > 0
"""

RETURN = r"""
noted:
  description: The head that was noted before, null if there was none.
  returned: success
  type: dict
  sample:
    sequence: 42
    hash: 0a3f8d0d6b3a4c56ee0e4a1c1d8a2a38a3a7f1b0e5a4d4b5f4bb8f7b0c7a9d11
"""
