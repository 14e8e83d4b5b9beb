# SPDX-License-Identifier: GPL-3.0-or-later
"""The action posture_report: check, real, again; what it returns, and what it refuses."""

from __future__ import annotations

import json
import os
import stat
from types import SimpleNamespace

import pytest
import yaml
from ansible.errors import AnsibleActionFail
from ansible.parsing.dataloader import DataLoader
from ansible.template import Templar, trust_as_template
from ansible_collections.llmsec.hardening.plugins.action import posture_report
from ansible_collections.llmsec.hardening.plugins.modules import posture_report as documented

from tests.unit.plugins.module_utils.posture.build import RUN, WAIVER, check, host

HOSTS = {
    "llm1": host(check("tls.group", "fail", "medium"), check("mtls.a")),
    "llm2": {"unreachable": True},
}
NAMES = ["report.html", "report.json", "report.junit.xml", "report.md", "report.sarif"]


@pytest.fixture
def run(tmp_path):
    """Run the action with options; others than the defaults here are those of its caller."""

    def call(check=False, task_vars=None, **options):
        args = {"hosts": HOSTS, "run": RUN, "directory": str(tmp_path / "reports"), **options}
        loader = DataLoader()
        loader.set_basedir(str(tmp_path))
        task = SimpleNamespace(args=args, check_mode=check, async_val=0, diff=False)
        connection = SimpleNamespace(_shell=SimpleNamespace(tmpdir=None))
        action = posture_report.ActionModule(task, connection, None, loader, None, None)
        return action.run(task_vars=task_vars or {})

    return call


def written(tmp_path, folder="reports"):
    place = tmp_path / folder
    return {path.name: path.read_text() for path in place.iterdir()} if place.exists() else {}


def test_check_real_again(run, tmp_path):
    foretold = run(check=True)
    assert not (tmp_path / "reports").exists()
    done = run()
    assert done == foretold
    assert done["changed"] is True
    files = written(tmp_path)
    assert sorted(files) == NAMES
    for name in NAMES:
        assert stat.S_IMODE((tmp_path / "reports" / name).stat().st_mode) == 0o640
    for check_mode in (False, True):
        assert run(check=check_mode) == {**done, "changed": False}
    assert written(tmp_path) == files
    changed = run(check=True, fail_on="low")
    assert changed["changed"] is True
    assert written(tmp_path) == files


def test_what_it_returns(run, tmp_path):
    done = run()
    assert "failed" not in done
    assert done["gate"] == {
        "passed": False, "fail_on": "high",
        "reasons": ["1 not measured: llm2: assessment.reached"],
    }  # fmt: skip
    assert done["summary"]["outcomes"] == {
        "fail": 1, "error": 1, "waived": 0, "skip": 0, "pass": 2,
    }  # fmt: skip
    assert done["summary"]["hosts"]["llm1"]["failed"]["medium"] == 1
    assert done["summary"]["changes"] is None
    assert done["table"][-2] == "Gate (fails on high): FAILED"
    assert done["paths"] == {
        name: str(tmp_path / f"reports/report.{suffix}")
        for name, suffix in posture_report.formats.SUFFIXES.items()
    }
    json.dumps(done)


def test_names_and_formats(run, tmp_path):
    done = run(name="before", formats=["json", "junit"])
    assert sorted(written(tmp_path)) == ["before.json", "before.junit.xml"]
    assert set(done["paths"]) == {"json", "junit"}
    assert run(formats=[])["paths"] == {}


def test_a_relative_directory_begins_at_the_playbook(run, tmp_path):
    run(directory="out/reports", formats=["json"])
    assert list(written(tmp_path, "out/reports")) == ["report.json"]


def test_a_strict_umask_and_an_open_file_end_in_the_same_mode(run, tmp_path):
    run(formats=["json"])
    path = tmp_path / "reports/report.json"
    path.chmod(0o644)
    old = os.umask(0o077)
    try:
        assert run(formats=["json"])["changed"] is True
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_link_is_replaced_and_not_followed(run, tmp_path):
    (tmp_path / "reports").mkdir()
    victim = tmp_path / "victim"
    victim.write_text("mine")
    (tmp_path / "reports/report.json").symlink_to(victim)
    assert run(formats=["json"])["changed"] is True
    assert victim.read_text() == "mine"
    assert not (tmp_path / "reports/report.json").is_symlink()


def test_a_link_to_the_same_text_is_replaced_too(run, tmp_path):
    run(formats=["json"])
    path = tmp_path / "reports/report.json"
    path.rename(tmp_path / "elsewhere.json")
    path.symlink_to(tmp_path / "elsewhere.json")
    assert run(formats=["json"])["changed"] is True
    assert not path.is_symlink()


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(run, tmp_path, monkeypatch):
    run(formats=["json"])
    before = written(tmp_path)

    def full(*_names):
        raise OSError(28, "No space left on device", "report.json")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(AnsibleActionFail, match="No space left on device"):
        run(formats=["json"], fail_on="low")
    assert written(tmp_path) == before


def test_baseline_as_a_path_and_as_a_dictionary(run, tmp_path):
    run(name="before", fail_on="never")
    fixed = {"llm1": host(check("tls.group"), check("mtls.a")), "llm2": host(check("mtls.a"))}
    for baseline in ("reports/before.json", json.loads(written(tmp_path)["before.json"])):
        done = run(hosts=fixed, name="after", baseline=baseline)
        assert done["gate"]["passed"] is True
        assert done["summary"]["changes"] == {
            "new": 1, "fixed": 2, "unchanged": 2, "gone": 0, "newly_failing": 0,
        }  # fmt: skip
    assert run(baseline="")["summary"]["changes"] is None


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (None, "No such file"),
        ("", "Expecting value"),
        ("{", "Expecting property name"),
        ("\x00\xff", "codec can't decode"),
        ("[" * 100_000, "maximum recursion|nesting|recursion"),
        ("{}", "it is no report: schema_version"),
        ('{"schema_version": "2.0"}', "schema_version is 2.0, not 1.x"),
    ],
)
def test_a_broken_baseline_is_an_error_that_says_why(run, tmp_path, content, why):
    path = tmp_path / "before.json"
    if content is not None:
        path.write_bytes(content.encode("latin-1"))
    with pytest.raises(AnsibleActionFail, match=why) as failure:
        run(baseline=str(path))
    message = str(failure.value)
    assert message.startswith(f"baseline: {path}: ")
    assert message.count(str(path)) == 1


def test_a_baseline_of_another_kind(run):
    with pytest.raises(AnsibleActionFail, match="a path or a dictionary"):
        run(baseline=["before.json"])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"name": "../report"}, "name may hold"),
        ({"name": ".hidden"}, "name may hold"),
        ({"name": ""}, "name may hold"),
        ({"formats": ["pdf"]}, "value of formats must be one or more of"),
        ({"fail_on": "sometimes"}, "value of fail_on must be one of"),
        ({"colour": "red"}, "Unsupported parameters"),
        ({"hosts": {"llm1": {"finding": []}}}, "host llm1: unknown finding"),
        ({"run": {"begun": "now"}}, "run: unknown begun"),
        ({"waivers": [{**WAIVER, "expires": "soon"}]}, "waiver 1: expires must be"),
        ({"expected_controls": ["magic"]}, "expected_controls: unknown magic"),
        ({"repository_paths": {"tls": "/etc/x"}}, "repository_paths: tls"),
    ],
)
def test_wrong_options(run, tmp_path, options, why):
    with pytest.raises(AnsibleActionFail, match=why):
        run(**options)
    assert written(tmp_path) == {}


def test_a_directory_that_is_a_file(run, tmp_path):
    (tmp_path / "reports").write_text("mine")
    with pytest.raises(AnsibleActionFail, match="reports"):
        run()


@pytest.mark.parametrize(
    ("inventory", "path"),
    [
        ("inventory/hosts.yml", "inventory/hosts.yml"),
        ("../elsewhere/hosts.yml", "hosts.yml"),
        (None, "inventory"),
    ],
)
def test_results_point_at_the_inventory(run, tmp_path, monkeypatch, inventory, path):
    monkeypatch.chdir(tmp_path)
    known = {"inventory_file": inventory and os.path.normpath(tmp_path / inventory)}
    run(formats=["sarif"], task_vars=known)
    log = json.loads(written(tmp_path)["report.sarif"])
    place = log["runs"][0]["results"][0]["locations"][0]["physicalLocation"]
    assert place["artifactLocation"]["uri"] == path


def test_the_time_is_now_unless_it_is_given(run, tmp_path):
    run(run=None, formats=["json"])
    assert json.loads(written(tmp_path)["report.json"])["run"]["started"].startswith("20")


# --- as a playbook calls it


def test_options_are_those_that_are_documented():
    options = yaml.safe_load(documented.DOCUMENTATION)["options"]
    spec = posture_report.argument_spec()
    assert list(options) == [
        "hosts",
        "run",
        *(name for name in spec if name not in {"hosts", "run"}),
    ]
    for name, option in options.items():
        told = {key: value for key, value in option.items() if key != "description"}
        assert told == spec[name], name


def test_what_it_returns_is_documented(run):
    assert set(yaml.safe_load(documented.RETURN)) == set(run()) - {"changed"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_example_gathers_what_each_host_has_kept(run, tmp_path):
    """The expressions of EXAMPLES, as Ansible's own templates make values of them."""
    (task,) = (
        one for one in yaml.safe_load(documented.EXAMPLES)
        if "llmsec.hardening.posture_report" in one
    )  # fmt: skip
    kept = {"findings": [check("firewall.unit", "fail", control="network_isolation")], "failed": ""}
    variables = {
        "ansible_play_hosts_all": ["llm1", "llm2", "llm3"],
        "hostvars": {"llm1": {"assessed": kept}, "llm2": {"assessed": kept}, "llm3": {}},
        "all_assessed": trust_as_template(task["vars"]["all_assessed"]),
    }
    templar = Templar(DataLoader(), variables)
    options = task["llmsec.hardening.posture_report"]
    hosts = templar.template(trust_as_template(options["hosts"]))
    done = run(hosts=hosts, waivers=options["waivers"])
    outcomes = {name: one["outcomes"] for name, one in done["summary"]["hosts"].items()}
    assert outcomes["llm1"]["fail"] == 1
    assert outcomes["llm2"]["waived"] == 1
    assert outcomes["llm3"]["error"] == 1
    assert sorted(written(tmp_path)) == NAMES
