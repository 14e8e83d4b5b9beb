# SPDX-License-Identifier: GPL-3.0-or-later
"""The module's reader of the registry takes and refuses what the service's takes and refuses."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.key_checks import (
    RegistryFormatError,
    guessable_digests,
    parse_registry,
    registered_digests,
)

from tests.unit.plugins.hardened_host import FILES

ONE = {"id": "a", "owner": "b", "sha256": "ab" * 32}
OTHER = {"id": "c", "owner": "d", "certificate_sha256": ["cd" * 32, "ef" * 32]}


def text(*records, **more):
    return json.dumps({"version": 1, "keys": list(records), **more})


CASES = [
    (text(), True),
    (text(ONE, OTHER), True),
    (" " + text(ONE) + "\n", True),
    (text(ONE, ONE), False),
    (text(ONE, {**ONE, "id": "e"}), False),
    (text(OTHER, {**OTHER, "id": "e"}), False),
    (text({**ONE, "colour": 1}), False),
    (text({**ONE, "sha256": "AB" * 32}), False),
    (text(ONE, more=1), False),
    (text(ONE).replace('"version": 1', '"version": true'), False),
    (text(ONE).replace('"version": 1, ', ""), False),
    ('{"version": 1}', False),
    ('{"version": 1, "keys": {}}', False),
    ('{"version": 1, "version": 1, "keys": []}', False),
    ('{"version": 1, "keys": [{"id": "a", "id": "a"}]}', False),
    ('{"version": NaN, "keys": []}', False),
    (text(ONE) + "x", False),
    ("[]", False),
    ("", False),
    ("[" * 100_000, False),
]


@pytest.mark.parametrize(("content", "good"), CASES)
def test_what_is_a_registry(content, good):
    if good:
        assert len(parse_registry(content.encode())) == len(json.loads(content)["keys"])
        return
    with pytest.raises(RegistryFormatError):
        parse_registry(content.encode())


def test_the_service_judges_alike():
    """In one process: it is started once for all of them."""
    program = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\n"
        "from llm_key_validator.registry import RegistryError, load_registry\n"
        "def good(text):\n"
        "    try:\n        load_registry(text)\n    except RegistryError:\n        return False\n"
        "    return True\n"
        "print(json.dumps([good(text) for text in json.load(sys.stdin)]))"
    )
    command = [sys.executable, "-I", "-B", "-c", program, str(FILES)]
    texts = json.dumps([content for content, _good in CASES])
    done = subprocess.run(command, input=texts, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == [good for _content, good in CASES]


def test_text_that_is_no_utf8_is_refused():
    with pytest.raises(RegistryFormatError):
        parse_registry(b'{"version": 1, "keys": ["\xff"]}')


def test_digests_are_found_in_any_layout():
    for indent in (None, 1):
        content = json.dumps({"keys": [ONE, OTHER]}, indent=indent).encode()
        assert registered_digests(content) == {"ab" * 32}


def test_no_two_guesses_are_the_same_and_there_are_some():
    assert len(guessable_digests()) > 100
