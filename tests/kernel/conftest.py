# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
from dataclasses import dataclass, field

import pytest

from tests.kernel.network import Network


def pytest_addoption(parser):
    group = parser.getgroup("kernel")
    group.addoption("--nightly", action="store_true", help="thousands of cases, new ones each time")


@dataclass
class Tally:
    """What the runs of this session came to; printed at the end."""

    lines: list[str] = field(default_factory=list)


_TALLY = pytest.StashKey[Tally]()


def pytest_configure(config):
    config.stash[_TALLY] = Tally()


def pytest_terminal_summary(terminalreporter, config):
    lines = config.stash[_TALLY].lines
    if lines:
        terminalreporter.section("kernel")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture(scope="session")
def tally(request) -> Tally:
    return request.config.stash[_TALLY]


@pytest.fixture(scope="session")
def nightly(request) -> bool:
    return request.config.getoption("--nightly")


@pytest.fixture(scope="session")
def network():
    if os.geteuid() != 0:
        pytest.fail("network namespaces need root: run it as ./dev test kernel")
    made = Network()
    yield made
    made.close()
