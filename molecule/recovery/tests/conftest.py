# SPDX-License-Identifier: GPL-3.0-or-later
"""The gateways as a client on the control node sees them, while playbooks run over them."""

from __future__ import annotations

import ssl

import pytest

from tests.lab.hosts import STATE
from tests.lab.link import Door


@pytest.fixture(scope="session")
def doors(gateways, scenario):
    """The gateways' HTTPS ports by host."""
    ca = STATE / "molecule/pki" / scenario / "ca.crt"
    trust = ssl.create_default_context(cafile=ca)
    return {one.name: Door(one.address, one.server_name, trust) for one in gateways}
