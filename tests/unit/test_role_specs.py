# SPDX-License-Identifier: GPL-3.0-or-later
"""Every role says everything once: defaults, argument specs, README and metadata hold together.

A default that contains a template has no default in the spec (its description says what it is);
all others are equal by value. check_role() is itself tried on a small bad role.
"""

from __future__ import annotations

import re
import typing as t
from pathlib import Path

import pytest
import yaml

TREE = Path(__file__).parents[2]
ROLES = TREE / "roles"
PLATFORMS = [{"name": "Debian", "versions": ["bookworm", "trixie"]}]
MARKERS = ("<!-- variables -->", "<!-- /variables -->")

Values = dict[str, t.Any]


def load(path: Path) -> t.Any:
    """Return a YAML file's content, {} when there is none."""
    return yaml.safe_load(path.read_text()) or {} if path.exists() else {}


def has_template(value: t.Any) -> bool:
    if isinstance(value, dict):
        return any(map(has_template, [*value, *value.values()]))
    if isinstance(value, list):
        return any(map(has_template, value))
    return isinstance(value, str) and "{{" in value


def same(one: t.Any, other: t.Any) -> bool:
    """Compare value and type: in Python 1 == True, in Ansible they differ."""
    return repr(one) == repr(other)


def check_defaults(defaults: Values, options: Values) -> t.Iterator[str]:
    for name in sorted({*defaults, *options}):
        option = options.get(name)
        if option is None:
            yield f"{name} has a default and no argument spec"
        elif not option.get("description") or "type" not in option:
            yield f"{name} has no description or no type in the argument spec"
        elif name not in defaults:
            if not option.get("required"):
                yield f"{name} has an argument spec and no default"
        elif has_template(defaults[name]):
            if "default" in option:
                yield f"{name} has a templated default, so the spec may not have another"
        elif defaults[name] is None and "default" not in option:
            continue  # null stands for: not set
        elif not same(option.get("default"), defaults[name]):
            yield f"{name}: {defaults[name]!r} by default and {option.get('default')!r} in the spec"


def check_prefix(role: str, defaults: Values, internal: Values) -> t.Iterator[str]:
    yield from (f"{name} lacks the prefix {role}_" for name in defaults if role_of(name) != role)
    yield from (
        f"{name} lacks the prefix __{role}_" for name in internal if f"__{role}_" not in name
    )


def role_of(variable: str) -> str | None:
    """Return the role whose prefix a variable has: the longest of all roles' names."""
    known = sorted((path.name for path in ROLES.iterdir() if path.is_dir()), key=len, reverse=True)
    known = [*known, *(name for name in (variable.partition("_")[0],) if name not in known)]
    return next((name for name in known if variable.startswith(f"{name}_")), None)


def used_variables(role: Path, prefix: str) -> set[str]:
    """Return what tasks, handlers, templates, vars and defaults read of the role's variables.

    Only what stands inside a template or a bare expression: names of files, tags and messages in
    plain text are left out.
    """
    found: set[str] = set()
    for folder in ("tasks", "handlers", "templates", "vars", "defaults"):
        for path in (role / folder).rglob("*") if (role / folder).exists() else []:
            if path.is_file():
                found |= names_in(path, prefix)
    return found


EXPRESSION = re.compile(r"\{\{.*?\}\}|\{%.*?%\}", re.DOTALL)
BARE = ("when", "that", "until", "failed_when", "changed_when", "loop")


def names_in(path: Path, prefix: str) -> set[str]:
    text = path.read_text(errors="replace")
    parts = EXPRESSION.findall(text)
    if path.suffix in (".yml", ".yaml"):
        parts += list(bare_expressions(yaml.safe_load(text)))
    # neither attributes (x.ollama_y) nor parts of longer words nor text in quotes
    word = re.compile(rf"(?<![\w.])({prefix}\w+)")
    quoted = re.compile(r"'[^']*'|\"[^\"]*\"")
    return {name for part in parts for name in word.findall(quoted.sub("''", part))}


def bare_expressions(node: t.Any, key: str = "") -> t.Iterator[str]:
    if isinstance(node, dict):
        for name, value in node.items():
            yield from bare_expressions(value, str(name))
    elif isinstance(node, list):
        for value in node:
            yield from bare_expressions(value, key)
    elif isinstance(node, str) and key in BARE:
        yield node


def check_used(role: Path, declared: t.Iterable[str]) -> t.Iterator[str]:
    known = {*declared, *assigned(role)}
    for name in sorted(used_variables(role, f"(?:__)?{role.name}_")):
        if name not in known:
            yield f"{name} is used and declared nowhere"


def assigned(role: Path) -> set[str]:
    """Return what tasks and templates set themselves: register, set_fact, vars, loop_var, set."""
    found: set[str] = set()
    for path in role.rglob("*.yml"):
        found |= set(assignments(load(path)))
    for path in role.rglob("*.j2"):
        found |= set(re.findall(r"\{%-?\s*(?:set|for|macro)\s+(\w+)", path.read_text()))
    return found


def assignments(node: t.Any) -> t.Iterator[str]:
    if isinstance(node, list):
        for item in node:
            yield from assignments(item)
    elif isinstance(node, dict):
        for key, value in node.items():
            if key in ("register", "loop_var", "index_var") and isinstance(value, str):
                yield value
            elif key in ("vars", "set_fact", "ansible.builtin.set_fact") and isinstance(
                value, dict
            ):
                yield from value
            yield from assignments(value)


def check_metadata(role: Path) -> t.Iterator[str]:
    info = load(role / "meta" / "main.yml").get("galaxy_info", {})
    wanted = {
        "role_name": role.name,
        "author": "llmsec.hardening contributors",
        "license": "GPL-3.0-or-later",
        "min_ansible_version": "2.19",
        "platforms": PLATFORMS,
    }
    for key, value in wanted.items():
        if not same(info.get(key), value):
            yield f"meta/main.yml: {key} is {info.get(key)!r} and not {value!r}"
    if not info.get("description"):
        yield "meta/main.yml has no description"


def check_documents(role: Path, defaults: Values) -> t.Iterator[str]:
    readme = role / "README.md"
    text = readme.read_text() if readme.exists() else ""
    if [text.count(marker) for marker in MARKERS] != [1, 1]:
        yield f"README.md lacks the markers {' and '.join(MARKERS)}"
    comments = (role / "defaults" / "main.yml").read_text() if defaults else ""
    paragraphs = comments.split("\n\n")
    for name in defaults:
        # one comment may stand above two that belong together
        if not any(
            re.search(rf"^#(?! SPDX)(?s:.*)^{name}:", part, re.MULTILINE) for part in paragraphs
        ):
            yield f"{name} has no comment above its default"


def check_role(role: Path) -> list[str]:
    """Return everything that does not hold together in a role."""
    defaults = load(role / "defaults" / "main.yml")
    internal = load(role / "vars" / "main.yml")
    specs = load(role / "meta" / "argument_specs.yml").get("argument_specs", {})
    options = specs.get("main", {}).get("options", {})
    return [
        *check_defaults(defaults, options),
        *check_prefix(role.name, defaults, internal),
        *check_used(role, [*defaults, *internal, *options]),
        *check_metadata(role),
        *check_documents(role, defaults),
    ]


def all_roles() -> list[str]:
    return sorted(path.name for path in ROLES.iterdir() if path.is_dir())


def test_there_are_roles() -> None:
    assert {"firewall", "gateway", "key_validator", "ollama", "pki", "service_sandbox"} <= set(
        all_roles()
    )


@pytest.mark.parametrize("role", all_roles())
def test_role_holds_together(role: str) -> None:
    assert check_role(ROLES / role) == []


# The checker itself, on a role that is good and on one that has a single fault.

GOOD = {
    "defaults/main.yml": (
        "---\n\n# State.\ndemo_state: present\n\n# Name.\ndemo_name: '{{ inventory_hostname }}'\n\n"
        "# Limit.\ndemo_limit:\n"
    ),
    "vars/main.yml": "__demo_path: /etc/demo\n",
    "meta/argument_specs.yml": (
        "argument_specs:\n  main:\n    options:\n"
        "      demo_state: {description: State., type: str, default: present}\n"
        "      demo_name: {description: Name., type: str}\n"
        "      demo_limit: {description: Limit., type: int}\n"
    ),
    "meta/main.yml": (
        "galaxy_info:\n  role_name: demo\n  author: llmsec.hardening contributors\n"
        "  description: x\n  license: GPL-3.0-or-later\n  min_ansible_version: '2.19'\n"
        "  platforms:\n    - {name: Debian, versions: [bookworm, trixie]}\n"
    ),
    "tasks/main.yml": (
        "- name: Write demo_file\n  ansible.builtin.copy:\n    dest: '{{ __demo_path }}/demo_x'\n"
        "    content: '{{ demo_name }}'\n  when: demo_state == 'present'\n  register: __demo_done\n"
        "- name: Tell\n  ansible.builtin.debug: {msg: '{{ __demo_done.demo_y }}'}\n"
    ),
    "templates/x.j2": "{% set demo_line = 1 %}{{ demo_line }} {{ demo_name }} demo_z\n",
    "README.md": "<!-- variables -->\n<!-- /variables -->\n",
}


@pytest.fixture
def demo(tmp_path: Path) -> t.Callable[..., Path]:
    def build(changed: str = "", old: str = "", new: str = "") -> Path:
        for name, text in GOOD.items():
            path = tmp_path / "demo" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            assert name != changed or old in text
            path.write_text(text.replace(old, new) if name == changed else text)
        return tmp_path / "demo"

    return build


def test_a_good_role_passes(demo: t.Callable[..., Path]) -> None:
    assert check_role(demo()) == []


@pytest.mark.parametrize(
    ("changed", "old", "new", "fault"),
    [
        ("meta/argument_specs.yml", "default: present", "default: absent", "'absent' in the spec"),
        ("meta/argument_specs.yml", ", default: present", "", "None in the spec"),
        ("meta/argument_specs.yml", "type: str}", "type: str, default: x}", "templated default"),
        ("meta/argument_specs.yml", "description: Limit., ", "", "no description"),
        ("meta/argument_specs.yml", "demo_limit", "demo_limits", "no argument spec"),
        ("defaults/main.yml", "# Limit.\ndemo_limit:\n", "", "and no default"),
        ("defaults/main.yml", "present", "true", "demo_state: True by default"),
        ("defaults/main.yml", "# Limit.", "", "no comment"),
        ("defaults/main.yml", "# Limit.", "# X.\nother_x: 1\n# Limit.", "lacks the prefix"),
        ("vars/main.yml", "__demo_path", "__path", "lacks the prefix __demo_"),
        ("tasks/main.yml", "{{ demo_name }}", "{{ demo_nam }}", "demo_nam is used"),
        ("tasks/main.yml", "demo_state ==", "demo_stat ==", "demo_stat is used"),
        ("tasks/main.yml", "register: __demo_done", "register: done", "__demo_done is used"),
        ("templates/x.j2", "{{ demo_name }}", "{{ demo_nama }}", "demo_nama is used"),
        ("vars/main.yml", "/etc/demo", "'{{ demo_root }}'", "demo_root is used"),
        ("README.md", "<!-- variables -->", "", "lacks the markers"),
        ("meta/main.yml", "bookworm, ", "", "platforms is"),
        ("meta/main.yml", "'2.19'", "2.19", "min_ansible_version is 2.19"),
        ("meta/main.yml", "  description: x\n", "", "no description"),
    ],
)
def test_each_fault_is_found(
    demo: t.Callable[..., Path], changed: str, old: str, new: str, fault: str
) -> None:
    found = check_role(demo(changed, old, new))
    assert any(fault in message for message in found), found


def test_a_role_without_files_is_no_good_role(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert len(check_role(tmp_path / "empty")) > 5


# Ansible's set filters forget the order, another at each run: a chain of certificates, a list in
# a file that must not change, a sentence.
_UNORDERED = re.compile(r"\|\s*(?:difference|intersect|symmetric_difference|union)\b")


@pytest.mark.parametrize("folder", ["roles", "playbooks"])
def test_no_list_loses_its_order(folder: str) -> None:
    files = [path for path in (TREE / folder).rglob("*") if path.suffix in {".yml", ".j2"}]
    assert files
    found = [str(path.relative_to(TREE)) for path in files if _UNORDERED.search(path.read_text())]
    assert not found, f"{', '.join(found)}: use reject('in', …) or select('in', …)"
