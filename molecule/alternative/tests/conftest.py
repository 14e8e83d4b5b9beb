# SPDX-License-Identifier: GPL-3.0-or-later
"""What the scenario's tests share."""

from __future__ import annotations

import pytest

from tests.lab import batch

PORT = 8443


@pytest.fixture(scope="session")
def ask(gateway, keys):
    """Asks the gateway, on one connection, with the key of this id."""

    def ask(key, *questions):
        base = gateway.url("", PORT)
        return batch.ask_all(
            gateway.lab, "app-server", base, questions, key=keys[key], ca_file=gateway.ca_file
        )

    return ask
