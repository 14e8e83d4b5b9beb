# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations

import os
import shutil
import typing as t

import pytest

from .stage import Stage

NGINX = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> t.Iterator[Stage]:
    """One nginx with all the routes there can be, for all tests."""
    if NGINX is None:
        pytest.skip("nginx is not installed here: its configuration was rendered, not run")
    stage = Stage(
        tmp_path_factory.mktemp("stage"),
        gateway_route_classes=["inference", "read", "inspect", "management"],
    )
    yield stage
    stage.close()


@pytest.fixture
def stage(running: Stage) -> Stage:
    running.reset()
    return running
