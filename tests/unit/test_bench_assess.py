# SPDX-License-Identifier: GPL-3.0-or-later
"""What bench assess reads out of an output of ansible-playbook -vvv."""

from __future__ import annotations

from tests.bench import assess

OUTPUT = """\
PLAY [Look at the LLM hosts] ****

TASK [llmsec.hardening.posture : See what kind of host it is] ****
task path: /x/roles/posture/tasks/host.yml:5
Using module file /x/setup.py
<10.0.0.10> ESTABLISH SSH CONNECTION FOR USER: ansible
<10.0.0.10> SSH: EXEC ssh -C 10.0.0.10 '/bin/sh -c sudo'
<10.0.0.11> SSH: EXEC ssh -C 10.0.0.11 '/bin/sh -c sudo'
<10.0.0.10> (0, b'{"x": "<10.0.0.10> SSH: EXEC no"}', b'')
ok: [assess-1]

TASK [llmsec.hardening.posture : Write the head] ****
<localhost> EXEC /bin/sh -c 'echo ~'
<10.0.0.10> SSH: EXEC ssh one
<10.0.0.10> SSH: EXEC ssh two

PLAY [Report] ****
<10.0.0.11> SSH: EXEC ssh outside of a task

PLAY RECAP ****
"""


def test_ssh_commands_are_counted_by_host_and_task() -> None:
    first, head = (
        f"llmsec.hardening.posture : {name}"
        for name in ("See what kind of host it is", "Write the head")
    )
    assert assess.executions(OUTPUT) == {
        "10.0.0.10": {first: 1, head: 2},
        "10.0.0.11": {first: 1, "": 1},
    }


def test_an_output_without_ssh_has_no_counts() -> None:
    assert assess.executions("PLAY [x] ***\n\nTASK [y] ***\nok: [localhost]\n") == {}


def test_the_table_says_a_range_when_hosts_differ() -> None:
    seconds = {"median_seconds": 9.04, "cpu_seconds": 5.16, "outcomes": {"pass": 90}}
    one = {"hosts": 1, "executions": {"a": 11}, **seconds}
    four = {"hosts": 4, "executions": {"a": 11, "b": 12, "c": 13}, **seconds}
    header, first, second, fleet = assess.table([one, four, {"hosts": 20, **seconds}])
    assert "SSH commands per host" in header
    assert first.split() == ["1", "9.0", "s", "5.2", "s", "11", "90", "pass"]
    assert second.split() == ["4", "9.0", "s", "5.2", "s", "11-13", "90", "pass"]
    assert fleet.split() == ["20", "9.0", "s", "5.2", "s", "90", "pass"]


def test_outcomes_that_nothing_has_are_left_out() -> None:
    assert assess.outcomes({"summary": {"outcomes": {"pass": 3, "error": 0}}}) == {"pass": 3}
