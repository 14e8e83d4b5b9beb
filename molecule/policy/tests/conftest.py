# SPDX-License-Identifier: GPL-3.0-or-later
"""What the policy scenario's tests share."""

from __future__ import annotations

import pytest

from tests.lab.audit import Audit


@pytest.fixture(scope="session")
def audit(gateway):
    """The gateway's audit log."""
    return Audit(gateway.lab, gateway.name)


@pytest.fixture(scope="session")
def ask(gateway, keys):
    """Asks the gateway, from the application server, with the key of this id ("" is none)."""

    def ask(key, *questions):
        return gateway.ask_all(questions, keys[key] if key else "")

    return ask
