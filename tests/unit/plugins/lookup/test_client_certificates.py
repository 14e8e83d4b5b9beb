# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import hashlib
from base64 import encodebytes
from pathlib import Path

import pytest
from ansible.errors import AnsibleLookupError
from ansible_collections.llmsec.hardening.plugins.lookup.client_certificates import LookupModule


def pem(der: bytes) -> str:
    lines = encodebytes(der).decode()
    return f"-----BEGIN CERTIFICATE-----\n{lines}-----END CERTIFICATE-----\n"


def sha256(der: bytes) -> str:
    return hashlib.sha256(der).hexdigest()


def test_the_present_one_and_the_one_before(tmp_path: Path) -> None:
    for name, files in {
        "app": {"client.crt": pem(b"new") + pem(b"its CA"), "previous.crt": pem(b"old")},
        "batch": {"client.crt": pem(b"batch"), "client.key": "no certificate"},
        "empty": {},
    }.items():
        (tmp_path / name).mkdir()
        for file, text in files.items():
            (tmp_path / name / file).write_text(text)
    another = tmp_path / "another"
    (another / "batch").mkdir(parents=True)
    (another / "batch/client.crt").write_text(pem(b"of another CA"))
    lookup = LookupModule()
    assert lookup.run([str(another), str(tmp_path), str(tmp_path / "nowhere")]) == [
        {
            "app": [sha256(b"new"), sha256(b"old")],
            "batch": [sha256(b"of another CA"), sha256(b"batch")],
        }
    ]


@pytest.mark.parametrize("text", ["", "nonsense", "-----BEGIN CERTIFICATE-----"])
def test_a_file_that_is_no_certificate_is_an_error(tmp_path: Path, text: str) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app/client.crt").write_text(text)
    with pytest.raises(AnsibleLookupError, match="cannot be read"):
        LookupModule().run([str(tmp_path)])
