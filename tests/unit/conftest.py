# SPDX-License-Identifier: GPL-3.0-or-later
"""Shared by the unit tests: running a module in this process the way Ansible would."""

from __future__ import annotations

import json
import typing as t

import pytest
from ansible.module_utils.common.parameters import PASS_VARS
from ansible.module_utils.testing import patch_module_args


@pytest.fixture
def run_module(
    capsys: pytest.CaptureFixture[str],
) -> t.Callable[..., dict[str, t.Any]]:
    """Call a module's main() with parameters; return its JSON result (see C(failed) in it)."""

    def run(main: t.Callable[[], None], check: bool = False, **params: t.Any) -> dict[str, t.Any]:
        settings = {"_ansible_check_mode": check, "_ansible_diff": True}
        if "inject_invocation" in PASS_VARS:
            # ansible-core 2.19 always returns the invocation, newer ones only for -vvv
            settings["_ansible_inject_invocation"] = True
        with patch_module_args({**params, **settings}), pytest.raises(SystemExit):
            main()
        return t.cast("dict[str, t.Any]", json.loads(capsys.readouterr().out))

    return run
