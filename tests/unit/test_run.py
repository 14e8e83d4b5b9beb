# SPDX-License-Identifier: GPL-3.0-or-later
"""In which order ./dev test starts its parts, and what becomes of those whose hosts are missing."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from tests import run
from tests.lab import scenarios
from tests.lab.steps import LabError
from tests.parts import floor


@pytest.fixture
def logs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Each part only says its name; one worker, so that the order of the logs is the queue's."""
    monkeypatch.setattr(run, "LOGS", tmp_path)
    monkeypatch.setattr(run, "WORKERS", 1)
    monkeypatch.setattr(run, "PARTS", {name: partial(_said, name) for name in ("lint", "unit")})
    monkeypatch.setattr(run, "_molecule", lambda name: _said(name, []))
    monkeypatch.setattr(run, "_remove_hosts", lambda: None)
    monkeypatch.setattr(floor, "commands_on_hosts", lambda: _said("floor", []))
    monkeypatch.setattr(scenarios, "reset", lambda names: None)
    return tmp_path


def _said(name: str, _words: list[str]) -> list[list[str]]:
    return [["echo", name], ["test", name, "!=", "unit"]]


def test_the_order_lists_every_scenario_once() -> None:
    assert sorted(run.LONGEST) == scenarios.names()


def test_the_floor_leaves_out_what_there_is() -> None:
    unit = Path(__file__).parent
    assert [name for name in floor.NOT_ANSIBLE if not (unit / name).exists()] == []


def test_every_part_runs_once_in_the_order_of_the_queue(logs: Path) -> None:
    outcomes = run.everything()
    names = [f"molecule {name}" for name in run.LONGEST]
    assert [one.name for one in outcomes] == ["lint", "unit", *names, "floor on hosts"]
    assert [one.name for one in outcomes if one.returncode] == ["unit"]
    started = sorted(logs.iterdir(), key=lambda log: log.stat().st_mtime_ns)
    assert [log.stem.replace("-", " ") for log in started] == [one.name for one in outcomes]


def test_without_hosts_the_scenarios_fail_and_say_why(
    logs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reset(names: list[str]) -> None:
        raise LabError(f"no hosts for {names}")

    monkeypatch.setattr(scenarios, "reset", reset)
    (outcome,) = run.only_scenarios(["mtls"])
    assert outcome.returncode == 1
    assert (logs / "molecule-mtls.log").read_text() == "no hosts for ['mtls']\n"
    assert {one.name: one.returncode for one in run.everything()}["lint"] == 0
