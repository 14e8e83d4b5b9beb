#!/usr/bin/python

# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: api_key
short_description: Issue, change, revoke and remove API keys of the LLM gateway
version_added: 0.1.0
description:
  - Keeps the list of API keys in a vars file on the control node. The file holds hashes only
    and can live in git; role P(llmsec.hardening.key_validator#role) hands it to the gateway.
  - A new key's secret text exists once. It is written to O(secret_file), or returned.
  - Runs where the vars file is, so usually with C(delegate_to=localhost) and without C(become).
extends_documentation_fragment:
  - llmsec.hardening.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - The difference is that of the vars file, which holds no secrets.
  platform:
    platforms: posix
options:
  path:
    description:
      - The vars file. It is owned whole by this module and holds the one variable
        C(key_validator_keys). Its folder is made when it is missing.
      - A file that holds anything else, is vault-encrypted or invalid is refused.
    type: path
    required: true
  id:
    description:
      - The key's name in logs and records. 1 to 63 lower-case letters, digits, dots,
        underscores and hyphens, starting with a letter or a digit.
    type: str
    required: true
  state:
    description:
      - V(present) issues a key, or changes the record of an existing one. An existing key never
        gets a new secret, and a revoked one stays revoked.
      - V(revoked) keeps the record, so that its user is told C(revoked) and the log says who.
      - V(absent) removes the record. Whoever uses the key is a stranger from then on.
    type: str
    choices: [present, revoked, absent]
    default: present
  owner:
    description:
      - Who uses the key, up to 128 printable characters. A new key's default is its O(id).
    type: str
  not_before:
    description:
      - When the key starts to be good, as a date V(2027-01-31) or UTC time
        V(2027-01-31T00:00:00Z). V(never) removes the limit.
    type: str
  expires:
    description:
      - When the key ends to be good, as a date (its first second), a UTC time, or a number of
        days such as V(90d) from the end of today. V(never) removes the limit.
      - A number of days counts from the day the task runs, so repeating it on a later day
        prolongs the key.
    type: str
  networks:
    description:
      - Networks that requests with this key may come from. An empty list means any.
    type: list
    elements: str
  certificate_sha256:
    description:
      - SHA-256 fingerprint of the client certificate that this key only works with, in
        hexadecimal digits, with or without colons as C(openssl x509 -fingerprint -sha256) prints
        it. Several, up to 8, while one certificate replaces another. Empty text means that no
        certificate is needed.
      - A gateway that does not ask clients for certificates (C(gateway_auth=api_key)) refuses
        such a key.
    type: list
    elements: str
  with_key:
    description:
      - Whether a new record gets a key. With V(false) it stands for a client that is known by its
        certificate alone, so O(certificate_sha256) is needed and no secret is made.
      - An existing record stays what it is.
    type: bool
    default: true
  endpoint_classes:
    description:
      - Classes of routes this key is good for. A new key's default is V(inference) and
        V(read).
    type: list
    elements: str
    choices: [inference, read, inspect, management]
  models:
    description:
      - Models this key may use, as V(model), V(model:tag), V(namespace/model:tag) or
        V(host/namespace/model:tag). V(*) stands for any characters but V(/), V(?) for one of them;
        V(*) alone is every model. Upper and lower case are the same.
      - A plain name without a tag means its V(latest), one with wildcards any tag.
      - An empty list means any model.
    type: list
    elements: str
  tier:
    description:
      - The tier whose limits hold for this key, one of the gateway's C(key_validator_tiers).
        Empty text means the gateway's default tier.
    type: str
  secret_file:
    description:
      - Where to write a new key's secret, mode 0600. The file must not exist. It is written
        before the vars file, so that no key is recorded whose secret is lost.
      - Without it the secret is returned, and Ansible's output and logs will hold it unless the
        task says C(no_log=true).
    type: path
requirements:
  - PyYAML
notes:
  - Give absolute paths. What relative ones start from depends on where the playbook is.
author:
  - llmsec.hardening contributors (@llmsec)
seealso:
  - module: llmsec.hardening.listeners_info
"""

EXAMPLES = r"""
- name: Issue a key for the application server
  llmsec.hardening.api_key:
    path: "{{ inventory_dir }}/group_vars/llm_hosts/api_keys.yml"
    id: app1
    owner: Team Search
    expires: 90d
    networks: [10.0.1.0/24]
    models: ["llama3.2:*", nomic-embed-text]
    tier: standard
    secret_file: "{{ inventory_dir }}/app1.key"
  delegate_to: localhost
  become: false

- name: Let a client in that has a certificate and no key
  llmsec.hardening.api_key:
    path: "{{ inventory_dir }}/group_vars/llm_hosts/api_keys.yml"
    id: batch1
    with_key: false
    certificate_sha256: "{{ certificate.fingerprints.sha256 }}"
  vars:
    certificate: "{{ lookup('file', 'batch1.crt') | community.crypto.x509_certificate_info }}"
  delegate_to: localhost
  become: false

- name: Revoke it
  llmsec.hardening.api_key:
    path: "{{ inventory_dir }}/group_vars/llm_hosts/api_keys.yml"
    id: app1
    state: revoked
  delegate_to: localhost
  become: false
"""

RETURN = r"""
vars_file:
  description: The vars file, absolute.
  type: str
  returned: always
created:
  description: Whether a new key was made, or would be in check mode.
  type: bool
  returned: always
key:
  description: The key's record as it stands in the vars file, without the secret.
  type: dict
  returned: when there is one
  sample:
    id: app1
    owner: Team Search
    sha256: 5c1a6d26b9b8e0f0a1f5f3f6b1b8a8cf2f5a0f5f6b5dbb7a0a5e7a3a2e7c9d10
    expires: "2027-05-02"
    networks: [10.0.1.0/24]
    endpoint_classes: [inference, read]
    models: ["llama3.2:*", nomic-embed-text]
    tier: standard
secret:
  description: The new key's text. Not kept anywhere else.
  type: str
  returned: when a key was made and O(secret_file) is not given
secret_file:
  description: Where the new key's text was written, absolute.
  type: str
  returned: when a key was made and O(secret_file) is given
"""

import os
from dataclasses import fields
from datetime import UTC, datetime
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.llmsec.hardening.plugins.module_utils.api_key_file import (
    UNISSUED,
    KeyFileError,
    KeyWishError,
    Record,
    Wish,
    find,
    locked,
    parse_vars,
    read_text,
    render_vars,
    require_id,
    with_present,
    with_revoked,
    without,
    write_atomically,
    write_secret,
)
from ansible_collections.llmsec.hardening.plugins.module_utils.api_keys import (
    GRANTABLE_CLASSES,
    generate_key,
    key_digest,
)


def argument_spec() -> dict[str, dict[str, Any]]:
    """Return the module's options."""
    return {
        "path": {"type": "path", "required": True},
        "id": {"type": "str", "required": True},
        "state": {
            "type": "str",
            "choices": ["present", "revoked", "absent"],
            "default": "present",
        },
        "owner": {"type": "str"},
        "not_before": {"type": "str"},
        "expires": {"type": "str"},
        "networks": {"type": "list", "elements": "str"},
        "certificate_sha256": {"type": "list", "elements": "str"},
        "with_key": {"type": "bool", "default": True},
        "endpoint_classes": {
            "type": "list",
            "elements": "str",
            "choices": list(GRANTABLE_CLASSES),
        },
        "models": {"type": "list", "elements": "str"},
        "tier": {"type": "str"},
        # What is secret is in the file, not in its name.
        "secret_file": {"type": "path", "no_log": False},
    }


def plan(records: list[Record], params: dict[str, Any], digest: str) -> list[Record]:
    """Return the records as the task wants them."""
    if params["state"] == "absent":
        return without(records, params["id"])
    if params["state"] == "revoked":
        return with_revoked(records, params["id"])
    wish = Wish(**{field.name: params[field.name] for field in fields(Wish)})
    return with_present(records, wish, digest=digest, now=datetime.now(UTC))


def apply(params: dict[str, Any], path: str, *, check_mode: bool) -> dict[str, Any]:
    """Bring the vars file into the wished state and return the module's result."""
    text = read_text(path)
    records = parse_vars(text)
    created = params["state"] == "present" and find(records, params["id"]) is None
    target = params["secret_file"]
    issued = created and params["with_key"]
    if created and not issued and not any(params["certificate_sha256"] or ()):
        raise KeyWishError("a client without a key needs certificate_sha256")
    if issued and target and os.path.lexists(target):
        raise KeyWishError(f"secret_file {target} exists: it may hold a secret in use")
    secret = generate_key() if issued and not check_mode else ""
    after = plan(records, params, key_digest(secret) if secret else UNISSUED)
    # Not `path`: Ansible would add that file's mode and owner to the result.
    result: dict[str, Any] = {
        "changed": after != records,
        "vars_file": path,
        "created": created,
    }
    record = find(after, params["id"])
    if record is not None:
        result["key"] = record
    if result["changed"]:
        after_text = render_vars(after)
        result["diff"] = {
            "before": text,
            "after": after_text,
            "before_header": path,
            "after_header": path,
        }
        result.update(store(path, after_text, secret, target, check_mode))
    return result


def store(
    path: str, text: str, secret: str, secret_file: str | None, check_mode: bool
) -> dict[str, Any]:
    """Write the secret, then the vars file. Return what became of the secret."""
    if check_mode:
        return {}
    target = os.path.abspath(secret_file) if secret and secret_file else ""
    if target:
        write_secret(target, secret)
    try:
        write_atomically(path, text)
    except OSError:
        if target:
            # Without its hash on record the secret is good for nothing, and in the way.
            os.unlink(target)
        raise
    if target:
        return {"secret_file": target}
    return {"secret": secret} if secret else {}


def run(module: AnsibleModule) -> dict[str, Any]:
    """Do the work under the lock. Raises KeyFileError, KeyWishError and OSError."""
    path = os.path.realpath(module.params["path"])
    require_id(module.params["id"])
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        if module.check_mode or module.params["state"] != "present":
            return apply(module.params, path, check_mode=module.check_mode)
        os.makedirs(directory, exist_ok=True)
    with locked(path):
        return apply(module.params, path, check_mode=module.check_mode)


def main() -> None:
    """Run the module."""
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    try:
        result = run(module)
    except KeyWishError as error:
        module.fail_json(msg=f"{error}")
    except KeyFileError as error:
        module.fail_json(msg=f"{module.params['path']}: {error}")
    except OSError as error:
        module.fail_json(msg=f"{error.filename or module.params['path']}: {error.strerror}")
    module.exit_json(**result)


if __name__ == "__main__":
    main()
