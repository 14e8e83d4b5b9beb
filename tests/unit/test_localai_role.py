# SPDX-License-Identifier: GPL-3.0-or-later
"""The role localai: what it refuses to install."""

from __future__ import annotations

import hashlib
import typing as t

import pytest

from tests.unit.refusals import refusals

PROGRAM = b"a program"
DIGEST = hashlib.sha256(PROGRAM).hexdigest()
# The host has an installation of this role's, so that its link is not looked at.
USUAL = {"__localai_owned": True, "localai_binary": "local-ai"}
# What is wrong -> a word of the one sentence that says so; "" for what is not wrong.
CASES: dict[str, tuple[dict[str, t.Any], str]] = {
    "good": ({}, ""),
    "with_hash": ({"localai_sha256": DIGEST.upper()}, ""),
    "download": ({"localai_binary": "", "localai_sha256": DIGEST}, ""),
    "version": ({"localai_version": "latest"}, "must be a release such as 4.9.0, not latest"),
    "no_hash": ({"localai_binary": ""}, "only with localai_binary may it be empty"),
    "short_hash": ({"localai_sha256": "ab"}, "in 64 hexadecimal digits"),
    "missing": ({"localai_binary": "nowhere"}, "nowhere does not exist on the control node"),
    "another": ({"localai_sha256": "0" * 64}, f"has the SHA-256 {DIGEST}, not localai_sha256"),
}


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("cases")
    (folder / "local-ai").write_bytes(PROGRAM)
    hosts = {name: {**USUAL, **variables} for name, (variables, _word) in CASES.items()}
    return refusals(folder, "localai", {"preflight_install": True}, hosts)[0]


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_refused_in_one_sentence(said: dict[str, str], case: str) -> None:
    word, text = CASES[case][1], said[case]
    assert word in text if word else text == ""
