# SPDX-License-Identifier: GPL-3.0-or-later
"""The examples that readers copy: they parse, and name only what the collection has.

Every `ansible-playbook` line in them, in docs/ and in the READMEs is read as the shell would; its
playbooks must exist, its variables be those of a role's argument spec or of the playbook's header.
"""

from __future__ import annotations

import json
import re
import shlex
import typing as t
from pathlib import Path

import pytest
import yaml
from ansible_collections.llmsec.hardening.plugins.module_utils.posture.formats import SUFFIXES
from ansible_collections.llmsec.hardening.plugins.module_utils.systemd_units import parse_unit

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "docs" / "examples" / "ci"
GITOPS = ROOT / "docs" / "gitops.md"
PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "roles").glob("*/README.md")),
]

_FENCE = re.compile(r"^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_WITH_VALUE = {"-i", "--inventory", "-l", "--limit", "-t", "--tags", "--vault-password-file"}
_REPORT = re.compile(r"(?<![\w-])report\.(?:junit\.xml|[a-z]+)\b")
_VARIABLE = re.compile(
    r"(?:posture|gateway|key_validator|pki|firewall|litellm|localai|ollama|service_sandbox)_"
)
_OURS = re.compile(r"llmsec\.hardening\.(\w+)")


def role_variables() -> set[str]:
    """Return the variables of all roles, by their argument specs."""
    found: set[str] = set()
    for path in (ROOT / "roles").glob("*/meta/argument_specs.yml"):
        found |= set(yaml.safe_load(path.read_text())["argument_specs"]["main"]["options"])
    return found


def header_words(playbook: str) -> set[str]:
    """Return the words of a playbook's leading comment, which tells its own variables."""
    path = ROOT / "playbooks" / f"{playbook}.yml"
    lines = path.read_text().splitlines() if path.exists() else []
    return set(re.findall(r"\w+", "\n".join(line for line in lines if line.startswith("#"))))


def playbooks() -> set[str]:
    return {path.stem for path in (ROOT / "playbooks").glob("*.yml")}


def commands(text: str) -> t.Iterator[list[str]]:
    """Yield the words behind `ansible-playbook` of each line of shell that calls it.

    What the shell or a CI system puts in place of a variable stays as it stands.
    """
    for line in text.replace("\\\n", " ").splitlines():
        if re.search(r"(?:^|[\s/])ansible-playbook\s", line):
            words = shlex.split(line, comments=True)
            names = [word.rpartition("/")[2] for word in words]
            if "ansible-playbook" in names:
                yield words[names.index("ansible-playbook") + 1 :]


def problems(words: list[str]) -> list[str]:
    """Return what an `ansible-playbook` line names that the collection does not have."""
    names, variables = [], []
    rest = iter(words)
    for word in rest:
        if word in ("-e", "--extra-vars"):
            variables += extra_variables(next(rest, ""))
        elif word in _WITH_VALUE:
            next(rest, None)
        elif not word.startswith("-"):
            names.append(word)
    ours = [found[1] for name in names if (found := _OURS.fullmatch(name))]
    known = role_variables().union(*(header_words(name) for name in ours))
    return [
        *(["no playbook"] if not names else []),
        *(f"no playbook {name}" for name in names if not _OURS.fullmatch(name)),
        *(f"no playbook {name}" for name in ours if name not in playbooks()),
        *(f"no variable {name}" for name in variables if name not in known),
    ]


def extra_variables(word: str) -> list[str]:
    """Return the names that one `-e` sets."""
    if word.startswith("{"):
        return list(json.loads(word))
    return [part.partition("=")[0] for part in shlex.split(word)]


def shell_of(node: t.Any) -> t.Iterator[str]:
    """Yield the texts of a CI file that a shell runs."""
    if isinstance(node, dict):
        for key, value in node.items():
            if key in ("run", "script", "before_script", "after_script"):
                yield from [value] if isinstance(value, str) else value if value else []
            if not isinstance(value, str):
                yield from shell_of(value)
    elif isinstance(node, list):
        for value in node:
            yield from shell_of(value)


def shell_texts(path: Path) -> list[str]:
    """Return what a file of any kind has a shell, or systemd, run."""
    text = path.read_text()
    if path.suffix == ".yml":
        return list(shell_of(yaml.safe_load(text)))
    if path.suffix == ".md":
        return [block["text"] for block in _FENCE.finditer(text) if block["kind"] == "sh"]
    return [each.value for each in parse_unit(text, path.name) if each.key.startswith("Exec")]


def yaml_blocks(text: str) -> list[t.Any]:
    """Return what the YAML examples of a page say."""
    return [strict(block["text"]) for block in _FENCE.finditer(text) if block["kind"] == "yaml"]


def report_files() -> set[str]:
    """Return the report's files as docs/report.md tells them."""
    rows = re.findall(r"^\| `\w+` \| `([^`]+)` \|", (ROOT / "docs/report.md").read_text(), re.M)
    return set(rows)


def wrong_files(text: str) -> set[str]:
    return set(_REPORT.findall(text)) - report_files()


def examples() -> list[Path]:
    return sorted(EXAMPLES.iterdir())


def test_report_md_tells_the_files_that_are_written() -> None:
    assert report_files() == {f"report.{suffix}" for suffix in SUFFIXES.values()}


@pytest.mark.parametrize(
    "path", [*examples(), *PAGES], ids=lambda path: str(path.relative_to(ROOT))
)
def test_commands_name_what_there_is(path: Path) -> None:
    found = [words for text in shell_texts(path) for words in commands(text)]
    assert [fault for words in found for fault in problems(words)] == []
    if path.parent == EXAMPLES and path.suffix != ".timer":
        assert [word for words in found for word in words].count("llmsec.hardening.assess") == 1


@pytest.mark.parametrize("path", [*examples(), GITOPS], ids=lambda path: path.name)
def test_files_are_those_of_the_report(path: Path) -> None:
    assert wrong_files(path.read_text()) == set()


@pytest.mark.parametrize(
    "path", [path for path in examples() if path.suffix == ".yml"], ids=lambda path: path.name
)
def test_ci_files_are_yaml_without_a_key_twice(path: Path) -> None:
    assert isinstance(strict(path.read_text()), dict)


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_yaml_in_pages_parses_and_names_variables(path: Path) -> None:
    for block in yaml_blocks(path.read_text()):
        names = block if isinstance(block, dict) else {}
        assert [n for n in names if _VARIABLE.match(n) and n not in role_variables()] == []


def test_the_readmes_client_certificates_are_on_hosts() -> None:
    """The scenario `mtls` has what the README says; it runs the README's command, too."""
    (said,) = (
        block
        for block in yaml_blocks((ROOT / "README.md").read_text())
        if isinstance(block, dict) and "pki_clients" in block
    )
    done = strict((ROOT / "molecule/mtls/variables.yml").read_text())
    assert said["gateway_auth"] == done["gateway_auth"]
    for name, key in (("pki_clients", "name"), ("key_validator_clients", "id")):
        for item in said[name]:
            (there,) = (one for one in done[name] if one[key] == item[key])
            assert item.items() <= there.items()


def test_the_gitops_page_names_each_example_and_known_variables() -> None:
    text = GITOPS.read_text()
    assert [path.name for path in examples() if f"(examples/ci/{path.name})" not in text] == []
    said = set(re.findall(r"\b((?:posture|gateway|key_validator|pki|firewall)_\w+)", text))
    assert said - role_variables() == set()
    assert set(_OURS.findall(text)) <= playbooks()


class _Strict(yaml.SafeLoader):
    """PyYAML takes the last of two equal keys without a word."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[t.Any, t.Any]:
    pairs = [
        (loader.construct_object(k, True), loader.construct_object(v, True)) for k, v in node.value
    ]
    if len(dict(pairs)) != len(pairs):
        raise yaml.constructor.ConstructorError(problem="a key twice", problem_mark=node.start_mark)
    return dict(pairs)


_Strict.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def strict(text: str) -> t.Any:
    return yaml.load(text, Loader=_Strict)  # noqa: S506 - made from the safe loader


def unit_problems(text: str, name: str) -> list[str]:
    """Return the lines that systemd would not read, unknown sections, and settings that lack."""
    read = parse_unit(text, name)
    wanted = {"service": {"Unit", "Service"}, "timer": {"Unit", "Timer", "Install"}}
    kind = name.rpartition(".")[2]
    lines = [
        line
        for line in text.replace("\\\n", " ").splitlines()
        if line.strip() and line[0] not in "#;["
    ]
    return [
        *(f"not read: {line}" for line in lines if "=" not in line),
        *(f"no section {each.section}" for each in read if each.section not in wanted[kind]),
        *(
            f"{key} is not set"
            for key in {"service": ["ExecStart"], "timer": ["OnCalendar", "WantedBy"]}[kind]
            if [each.key for each in read].count(key) != 1
        ),
    ]


@pytest.mark.parametrize("name", ["llm-assess.service", "llm-assess.timer"])
def test_units(name: str) -> None:
    assert unit_problems((EXAMPLES / name).read_text(), name) == []


def test_the_unit_runs_one_program_by_its_whole_path() -> None:
    [command] = shell_texts(EXAMPLES / "llm-assess.service")
    assert command.startswith("/")
    assert "$" not in command
    assert "%" not in command


def test_no_key_goes_into_an_artefact() -> None:
    github = strict((EXAMPLES / "github-assess.yml").read_text())
    steps = github["jobs"]["assess"]["steps"]
    [kept] = [
        step["with"]["path"].split() for step in steps if "upload-artifact" in step.get("uses", "")
    ]
    gitlab = strict((EXAMPLES / "gitlab-ci.yml").read_text())["assess"]
    for path in [*kept, *gitlab["artifacts"]["paths"], *gitlab["cache"]["paths"]]:
        assert path in ("report/", "before/report.json", "audit/*/head.json")


def test_what_the_github_example_may_do() -> None:
    github = strict((EXAMPLES / "github-assess.yml").read_text())
    job = github["jobs"]["assess"]
    assert github["permissions"] == {}
    assert job["permissions"] == {"contents": "read", "actions": "read", "security-events": "write"}
    text = (EXAMPLES / "github-assess.yml").read_text()
    uses = re.findall(r"uses: (\S+)@(\S+) # pin: @<digest of (\S+)>", text)
    assert len(uses) == text.count("uses: ") == 3
    assert all(tag == named for _action, tag, named in uses)


# The checks themselves, each with a fault

_GOOD = "ansible-playbook -i inventory llmsec.hardening.assess -e posture_report_dir=/x"


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        (_GOOD, ""),
        (f"venv/bin/{_GOOD} -e 'assess_hosts=llm_hosts[0:19]' # comment", ""),
        (_GOOD.replace("assess", "asses"), "no playbook asses"),
        (_GOOD.replace("llmsec.hardening.", ""), "no playbook assess"),
        (_GOOD.replace("llmsec.hardening.assess ", ""), "no playbook"),
        (_GOOD.replace("report_dir", "report_directory"), "no variable posture_report_directory"),
        (_GOOD.replace("posture_report_dir", "rotate"), "no variable rotate"),
        (f"{_GOOD} \\\n  -e '{{\"posture_activ\": true}}'", "no variable posture_activ"),
    ],
)
def test_wrong_names_are_found(line: str, fault: str) -> None:
    [words] = commands(line)
    assert problems(words) == ([fault] if fault else [])


def test_wrong_files_are_found() -> None:
    assert wrong_files("report/report.xml, report/report.junit.xml report.md") == {"report.xml"}


@pytest.mark.parametrize(
    ("old", "new", "fault"),
    [
        ("User=llm-assess", "User llm-assess", "not read: User llm-assess"),
        ("[Service]", "[Servce]", "no section Servce"),
        ("ExecStart=", "ExecStrt=", "ExecStart is not set"),
    ],
)
def test_wrong_units_are_found(old: str, new: str, fault: str) -> None:
    text = (EXAMPLES / "llm-assess.service").read_text()
    assert old in text
    assert fault in unit_problems(text.replace(old, new), "llm-assess.service")


def test_wrong_variables_in_yaml_are_found(tmp_path: Path) -> None:
    (tmp_path / "page.md").write_text("```yaml\npki_cleints: []\n```\n")
    with pytest.raises(AssertionError, match="pki_cleints"):
        test_yaml_in_pages_parses_and_names_variables(tmp_path / "page.md")


def test_a_key_twice_is_found() -> None:
    with pytest.raises(yaml.YAMLError, match="a key twice"):
        strict("a: 1\nb: {c: 1, c: 2}\n")
