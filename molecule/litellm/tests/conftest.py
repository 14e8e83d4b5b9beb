# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenario's tests share."""

from __future__ import annotations

import pytest
from chain import Inside


@pytest.fixture(scope="session")
def ask(gateway, keys):
    """Ask through the gateway, from the application server; the answers in that order."""
    return lambda key, *questions: gateway.ask_all(questions, key=keys[key])


@pytest.fixture
def inside(gateway) -> Inside:
    return Inside(gateway.host)
