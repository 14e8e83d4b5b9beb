#!/usr/bin/python

# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: secret_file
short_description: Keep a file that holds one secret
version_added: 0.2.0
description:
  - Makes a file with 32 random bytes, as 64 hex digits, where there is none, and leaves an
    existing one as it is. The secret never leaves the host.
  - With O(content) the file holds that instead.
  - The file is its owner's alone (0600). No result or difference shows what is in it.
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - Says that the secret changes, never from what or to what.
  platform:
    platforms: posix
options:
  path:
    description:
      - The file. Its folder must exist, but for check mode.
      - A link, or a file that is empty, is refused.
    type: path
    required: true
  content:
    description:
      - The secret, one line.
    type: str
author:
  - llmsec.hardening contributors (@llmsec)
seealso:
  - module: llmsec.hardening.audit_seal_key
"""

EXAMPLES = r"""
- name: Make a pepper on the host, once
  llmsec.hardening.secret_file:
    path: /etc/llm-key-validator/credentials/prompt-pepper
"""

RETURN = r"""
created:
  description: Whether there was no file.
  type: bool
  returned: always
"""

import os
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.api_key_file import (
    write_atomically,
    write_secret,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.audit_keys import (
    SecretError,
    new_secret,
    read_secret,
)


def run(path: str, content: str | None, *, check_mode: bool) -> dict[str, Any]:
    """Bring the file into the wished state. Raises SecretError and OSError."""
    present = read_secret(path)
    if present is None:
        if not check_mode:
            write_secret(path, content or new_secret())
        return _result(path, created=True, text="another secret")
    loose = stat.S_IMODE(os.stat(path).st_mode) != 0o600
    other = content is not None and content != present
    if loose and not check_mode:
        os.chmod(path, 0o600)
    if other and not check_mode:
        write_atomically(path, f"{content}\n")
    return _result(path, text="another secret" if other else "mode 0600" if loose else "")


def _result(path: str, *, text: str, created: bool = False) -> dict[str, Any]:
    """Return the result; ``text`` says what changes, empty when nothing does."""
    result: dict[str, Any] = {"changed": bool(text), "created": created}
    if text:
        result["diff"] = {
            "before": "" if created else "a secret\n",
            "after": f"{'a secret' if created else text}\n",
            "before_header": path,
            "after_header": path,
        }
    return result


def main() -> None:
    """Run the module."""
    spec = {
        # What is secret is in the file, not in its name.
        "path": {"type": "path", "required": True, "no_log": False},
        "content": {"type": "str", "no_log": True},
    }
    module = AnsibleModule(argument_spec=spec, supports_check_mode=True)
    path, content = module.params["path"], module.params["content"]
    try:
        if content is not None and (not content.strip() or content.strip() != content):
            raise SecretError("content is empty, or begins or ends with white space")
        result = run(path, content, check_mode=module.check_mode)
    except SecretError as error:
        module.fail_json(msg=f"{path}: {error}")
    except OSError as error:
        module.fail_json(msg=f"{error.filename or path}: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
