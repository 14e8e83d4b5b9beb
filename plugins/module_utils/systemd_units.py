# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Read systemd units the way systemd does, and say which fragment decides a setting.

A hardening drop-in is worth nothing when a drop-in that sorts later, or an EnvironmentFile=,
quietly undoes it. This module computes what is in force when several fragments speak, and names
the line that would win over ours. Pure: it is given texts and returns data.

Sources: systemd.syntax(7), systemd.unit(5), systemd.exec(5), and where they are vague
src/shared/conf-parser.c, src/basic/extract-word.c, src/basic/env-file.c and
src/basic/unit-file.c of systemd 252. The unit tests compare with the installed systemd.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

__all__ = (
    "UNIT_PATHS",
    "Assignment",
    "Conflict",
    "Fragment",
    "UnitError",
    "Variable",
    "Wish",
    "dropin_directories",
    "effective_environment",
    "environment_file_patterns",
    "expand_specifiers",
    "explain",
    "find_conflicts",
    "holds",
    "in_force",
    "make_wish",
    "order_dropins",
    "parse_environment",
    "parse_environment_file",
    "parse_fragments",
    "parse_unit",
    "render",
    "split_words",
)

# systemd.unit(5), "Load path when running in system mode", highest precedence first.
UNIT_PATHS = (
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
)

# Directives whose assignments add up and that an empty assignment resets. We reset them before
# we set them, so that an earlier fragment cannot widen them.
# fmt: off
_LISTS = frozenset(
    {
        "AmbientCapabilities", "BindPaths", "BindReadOnlyPaths", "CacheDirectory",
        "CapabilityBoundingSet", "ConfigurationDirectory", "CPUAffinity", "DeviceAllow",
        "ExecCondition", "ExecPaths", "ExecReload", "ExecStart", "ExecStartPost",
        "ExecStartPre", "ExecStop", "ExecStopPost", "InaccessiblePaths", "IPAddressAllow",
        "IPAddressDeny", "LoadCredential", "LoadCredentialEncrypted", "LogExtraFields",
        "LogsDirectory", "NoExecPaths", "PassEnvironment", "ReadOnlyPaths", "ReadWritePaths",
        "RestrictAddressFamilies", "RestrictFileSystems", "RestrictNamespaces",
        "RestrictNetworkInterfaces", "RuntimeDirectory", "SetCredential",
        "SetCredentialEncrypted", "SocketBindAllow", "SocketBindDeny", "StateDirectory",
        "SupplementaryGroups", "SystemCallArchitectures", "SystemCallFilter", "SystemCallLog",
        "TemporaryFileSystem",
    }
)
# fmt: on

# Lists we only add to: others may add as well without taking anything away from us.
# fmt: off
_ADDITIVE = frozenset(
    {
        "After", "Before", "BindsTo", "Conflicts", "Documentation", "EnvironmentFile",
        "OnFailure", "OnSuccess", "PartOf", "Requires", "Requisite", "UnsetEnvironment",
        "Upholds", "Wants",
    }
)
# fmt: on

_WHOLE_LINE = re.compile(r"Exec[A-Z]")  # their values are command lines, not lists of words

_TRUE = frozenset({"1", "yes", "y", "true", "t", "on"})
_FALSE = frozenset({"0", "no", "n", "false", "f", "off"})

_WHITESPACE = " \t\n\r"
_COMMENTS = "#;"
_LINE_END = re.compile(r"\r\n|\n\r|[\r\n\0]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*\Z")
_SIMPLE_ESCAPES = {
    "a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v",
    "\\": "\\", '"': '"', "'": "'", "s": " ",
}  # fmt: skip
_NUMERIC_ESCAPE = re.compile(r"x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})")


class UnitError(ValueError):
    """Text that systemd would refuse, or that we refuse to write; says which part."""


@dataclass(frozen=True, slots=True)
class Assignment:
    """One `key=value`; `line` counts from 1 and is where the assignment begins."""

    section: str
    key: str
    value: str
    path: str
    line: int


@dataclass(frozen=True, slots=True)
class Fragment:
    """A unit file or drop-in with its text."""

    path: str
    text: str


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable in force and where it comes from.

    `value` still holds systemd's specifiers (`%h`, `%%`) unless it is from an EnvironmentFile.
    """

    name: str
    value: str
    path: str
    line: int
    from_file: bool = False


@dataclass(frozen=True, slots=True)
class Wish:
    """What our drop-in sets.

    `sections`: section → directive → values, an empty list meaning "set to nothing".
    `environment`: variables and their literal values. `forbidden`: variables nobody may set.
    """

    sections: Mapping[str, Mapping[str, Sequence[str]]] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)
    forbidden: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """A line elsewhere that would win over ours; `what` shows no forbidden variable's value."""

    path: str
    line: int
    what: str

    def __str__(self) -> str:
        return f"{self.what} from {self.path} (line {self.line})"


def explain(conflicts: Sequence[Conflict]) -> str:
    """Return one sentence that says what to remove where, and why."""
    they = "it" if len(conflicts) == 1 else "they"
    places = ", ".join(map(str, conflicts))
    return f"remove {places}: {they} would win over llmsec.hardening"


# -- Reading ---------------------------------------------------------------------------------------


def _logical_lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield (number of the first line, text) with continuations joined and comments left out."""
    held: str | None = None
    start = 0
    for number, line in enumerate(_LINE_END.split(text.removeprefix("\ufeff")), start=1):
        # A comment is skipped even in the middle of a continued line.
        if line.lstrip(_WHITESPACE)[:1] in tuple(_COMMENTS):
            continue
        if held is None:
            start = number
        joined = (held or "") + line
        backslashes = len(joined) - len(joined.rstrip("\\"))
        if backslashes % 2:
            held = joined[:-1] + " "
            continue
        held = None
        yield start, joined.strip(_WHITESPACE)
    if held is not None:
        yield start, held.strip(_WHITESPACE)


def parse_unit(text: str, path: str) -> list[Assignment]:
    """Return the assignments of a unit file or drop-in, in order.

    As in systemd, a line without `=` and anything before the first section are ignored, and a
    broken section header ends the reading of that file.
    """
    section = ""
    found = []
    for number, line in _logical_lines(text):
        if line.startswith("["):
            if not line.endswith("]"):
                break
            section = line[1:-1]
            continue
        key, equals, value = line.partition("=")
        key = key.strip(_WHITESPACE)
        if equals and key and section:
            found.append(Assignment(section, key, value.strip(_WHITESPACE), path, number))
    return found


def _unescape(text: str, position: int) -> tuple[str, int]:
    """Decode the escape whose backslash is before `position`; return it and the next position."""
    simple = _SIMPLE_ESCAPES.get(text[position : position + 1])
    if simple is not None:
        return simple, position + 1
    numeric = _NUMERIC_ESCAPE.match(text, position)
    if numeric is None:
        raise UnitError(f"unknown escape in {text!r}")
    base = 8 if numeric[4] else 16
    code = int(next(group for group in numeric.groups() if group), base)
    is_byte = numeric[1] is not None or numeric[4] is not None
    if code == 0 or code > (0xFF if is_byte else 0x10FFFF):
        raise UnitError(f"unknown escape in {text!r}")
    if is_byte and code > 0x7F:  # a byte, not a character: put together with its neighbours later
        code += 0xDC00
    return chr(code), numeric.end()


def _words(value: str) -> Iterator[str]:
    """Yield the words of a value; raise UnitError at the first that is malformed."""
    position = 0
    while True:
        while position < len(value) and value[position] in _WHITESPACE:
            position += 1
        if position == len(value):
            return
        word, position = _next_word(value, position)
        yield word


def _next_word(value: str, position: int) -> tuple[str, int]:
    """Read one word from `position`; quotes may begin and end anywhere in it."""
    word, quote = "", ""
    while position < len(value):
        char = value[position]
        position += 1
        if char == "\\":
            decoded, position = _unescape(value, position)
            word += decoded
        elif char == quote:
            quote = ""
        elif not quote and char in "'\"":
            quote = char
        elif not quote and char in _WHITESPACE:
            break
        else:
            word += char
    if quote:
        raise UnitError(f"quote without an end in {value!r}")
    return _join_bytes(word), position


def _join_bytes(word: str) -> str:
    """Turn bytes written as escapes into the characters they spell, where they spell any."""
    return word.encode("utf-8", "surrogateescape").decode("utf-8", "surrogateescape")


def split_words(value: str) -> list[str]:
    """Split a value into words as systemd does, quotes and C escapes undone.

    Raises UnitError for an unbalanced quote or an unknown escape.
    """
    return list(_words(value))


def parse_environment(value: str) -> list[tuple[str, str]]:
    """Return the (name, value) pairs of one Environment= line.

    What systemd ignores with a warning is ignored: words that are no assignment, and everything
    from the first malformed word on.
    """
    pairs = []
    words = _words(value)
    while True:
        try:
            name, equals, content = next(words).partition("=")
        except (StopIteration, UnitError):
            return pairs
        if equals and _NAME.match(name) and _is_clean(content):
            pairs.append((name, content))


def _is_clean(value: str) -> bool:
    """Tell whether systemd takes a variable's value: UTF-8, of control characters tab and LF."""
    return not any(
        char == "\x7f" or (char < " " and char not in "\t\n") or "\ud800" <= char <= "\udfff"
        for char in value
    )


def parse_environment_file(text: str) -> list[tuple[str, str, int]]:
    """Return (name, value, line) for each assignment of an EnvironmentFile=.

    A comment that ends in a backslash swallows the next line before systemd 254 and not since;
    we read that line, since to overlook an assignment is the worse mistake.
    """
    reader = _EnvironmentFileReader()
    for char in text:
        reader.feed(char)
    reader.finish()
    return reader.found


class _EnvironmentFileReader:
    """The character machine of env-file.c; every state is a method that takes one character."""

    def __init__(self) -> None:
        self.found: list[tuple[str, str, int]] = []
        self._state = self._before_key
        self._key = ""
        self._value = ""
        self._kept = 0  # so much of the value stays when trailing white space is cut off
        self._line = self._start = 1

    def feed(self, char: str) -> None:
        """Take the next character."""
        self._state(char)
        if char == "\n":
            self._line += 1

    def finish(self) -> None:
        """Take the end of the file, which ends a value wherever it stands."""
        if self._state not in (self._before_key, self._in_key, self._in_comment):
            self._push()

    def _push(self) -> None:
        key = self._key.rstrip(_WHITESPACE)
        value = self._value[: self._kept] + self._value[self._kept :].rstrip(_WHITESPACE)
        if _NAME.match(key) and _is_clean(value):
            self.found.append((key, value, self._start))
        self._state = self._before_key
        self._key, self._value, self._kept = "", "", 0

    def _keep(self, text: str) -> None:
        """Add to the value what is quoted or escaped, and so stays as it is."""
        self._value += text
        self._kept = len(self._value)

    def _before_key(self, char: str) -> None:
        if char in _COMMENTS:
            self._state = self._in_comment
        elif char not in _WHITESPACE:
            self._state, self._key, self._start = self._in_key, char, self._line

    def _in_comment(self, char: str) -> None:
        if char in "\n\r":
            self._state = self._before_key

    def _in_key(self, char: str) -> None:
        if char in "\n\r":
            self._state, self._key = self._before_key, ""
        elif char == "=":
            self._state = self._before_value
        else:
            self._key += char

    def _before_value(self, char: str) -> None:
        states = {"'": self._in_single, '"': self._in_double, "\\": self._escaped}
        if char in "\n\r":
            self._push()
        elif char in states:
            self._state = states[char]
        elif char not in _WHITESPACE:
            self._state = self._in_value
            self._value += char

    def _in_value(self, char: str) -> None:
        if char in "\n\r":
            self._push()
        elif char == "\\":
            self._keep("")  # white space before an escape is not at the end
            self._state = self._escaped
        else:
            self._value += char

    def _escaped(self, char: str) -> None:
        self._state = self._in_value
        # An escaped line end is eaten up entirely.
        self._keep("" if char in "\n\r" else char)

    def _in_single(self, char: str) -> None:
        if char == "'":
            self._state = self._before_value
        else:
            self._keep(char)

    def _in_double(self, char: str) -> None:
        if char == '"':
            self._state = self._before_value
        elif char == "\\":
            self._state = self._double_escaped
        else:
            self._keep(char)

    def _double_escaped(self, char: str) -> None:
        self._state = self._in_double
        if char in '"\\`$':
            self._keep(char)
        elif char != "\n":
            self._keep("\\" + char)


# -- Which files count -----------------------------------------------------------------------------


def _dashed(unit: str) -> list[str]:
    """Return the unit's name and its truncations: a-b.service, a-.service (systemd.unit(5))."""
    stem, dot, kind = unit.rpartition(".")
    names = [unit]
    while "-" in stem.rstrip("-"):
        stem = stem.rstrip("-").rpartition("-")[0] + "-"
        names.append(stem + dot + kind)
    return names


def dropin_directories(unit: str, aliases: Sequence[str] = ()) -> list[str]:
    """Return the directories that may hold drop-ins of `unit`, highest precedence first.

    For a name, all places of the load path come before the next name; the directories of the
    type (`service.d`) come last.
    """
    kind = unit.rpartition(".")[2]
    directories = []
    for name in (unit, *aliases):
        template = re.sub(r"@[^@]+\.", "@.", name)
        names = _dashed(name) + ([template] if template != name else [])
        directories += [f"{place}/{each}.d" for place in UNIT_PATHS for each in names]
    directories += [f"{place}/{kind}.d" for place in UNIT_PATHS]
    return list(dict.fromkeys(directories))


def order_dropins(paths: Iterable[str]) -> list[str]:
    """Put drop-ins in the order systemd reads them in: the last one has the last word.

    `paths` come in the order of `dropin_directories`. Of two with one file name the first hides
    the other, whatever it holds; what remains is sorted by file name, byte by byte.
    """
    by_name: dict[str, str] = {}
    for path in paths:
        name = posixpath.basename(path)
        if name.endswith(".conf") and not name.startswith("."):
            by_name.setdefault(name, path)
    return [by_name[name] for name in sorted(by_name, key=lambda name: name.encode())]


def expand_specifiers(text: str, unit: str) -> str:
    """Expand the specifiers that depend on nothing but the unit's name and the system manager.

    Raises UnitError for any other, since we could not tell what it stands for.
    """
    stem = unit.rpartition(".")[0]
    prefix, _at, instance = stem.partition("@")
    known = {
        "%": "%", "n": unit, "N": stem, "p": prefix, "i": instance,
        "E": "/etc", "S": "/var/lib", "C": "/var/cache", "L": "/var/log", "t": "/run", "h": "/root",
    }  # fmt: skip

    def replace(found: re.Match[str]) -> str:
        if found[1] not in known:
            raise UnitError(f"cannot tell what {found[0]} stands for in {text!r}")
        return known[found[1]]

    return re.sub(r"%(.?)", replace, text, flags=re.DOTALL)


# -- What is in force ------------------------------------------------------------------------------


def _is_list(key: str, wished: Sequence[str] = ()) -> bool:
    """Tell whether assignments of `key` add up; a wish of several values says so too."""
    return key in _LISTS or key in _ADDITIVE or len(wished) > 1


def in_force(
    assignments: Iterable[Assignment], section: str, key: str, *, is_list: bool | None = None
) -> list[Assignment]:
    """Return the assignments that decide `key`: those since the last reset, or the last one.

    A scalar set to nothing is back at its default, which is an empty answer.
    """
    accumulates = _is_list(key) if is_list is None else is_list
    found: list[Assignment] = []
    for each in assignments:
        if (each.section, each.key) != (section, key):
            continue
        if not each.value or not accumulates:
            found.clear()
        if each.value:
            found.append(each)
    return found


def parse_fragments(fragments: Iterable[Fragment]) -> list[Assignment]:
    """Return the assignments of all fragments in the order given."""
    return [each for fragment in fragments for each in parse_unit(fragment.text, fragment.path)]


def environment_file_patterns(assignments: Sequence[Assignment]) -> list[str]:
    """Return the EnvironmentFile= values in force, in order: a path or glob, `-` before it."""
    return [each.value for each in in_force(assignments, "Service", "EnvironmentFile")]


def effective_environment(
    assignments: Sequence[Assignment], files: Sequence[Fragment] = ()
) -> dict[str, Variable]:
    """Return the variables that Environment= and EnvironmentFile= set, by name.

    `files` are the environment files in the order they are read; they beat Environment=
    (systemd.exec(5)). What UnsetEnvironment= removes in the end is left out.
    """
    variables: dict[str, Variable] = {}
    for each in assignments:
        if (each.section, each.key) != ("Service", "Environment"):
            continue
        if not each.value:
            variables.clear()
        for name, value in parse_environment(each.value):
            variables[name] = Variable(name, value, each.path, each.line)
    for file in files:
        for name, value, line in parse_environment_file(file.text):
            variables[name] = Variable(name, value, file.path, line, from_file=True)
    for name in _unset_names(assignments, variables):
        variables.pop(name, None)
    return variables


def _unset_names(
    assignments: Sequence[Assignment], variables: Mapping[str, Variable]
) -> Iterator[str]:
    """Yield the variables that UnsetEnvironment= takes away, by name or by exact assignment."""
    for each in in_force(assignments, "Service", "UnsetEnvironment"):
        for word in each.value.split():
            name, equals, value = word.partition("=")
            if name in variables and (not equals or variables[name].value == value):
                yield name


# -- Who would win over us -------------------------------------------------------------------------


def find_conflicts(
    fragments: Sequence[Fragment], own_path: str, wish: Wish, files: Sequence[Fragment] = ()
) -> list[Conflict]:
    """Return every line that would keep our drop-in from having its way, each once.

    `fragments`: the unit and its drop-ins in reading order, ours among them with the text it is
    to have. `files`: the environment files in force, in order.
    """
    if all(fragment.path != own_path for fragment in fragments):
        return _masking(fragments, own_path)
    assignments = parse_fragments(fragments)
    conflicts = [
        conflict
        for section, directives in wish.sections.items()
        for key, values in directives.items()
        for conflict in _directive_conflicts(assignments, own_path, (section, key), values)
    ]
    conflicts += _unset_conflicts(assignments, own_path, wish)
    conflicts += _environment_conflicts(assignments, files, own_path, wish)
    conflicts += _forbidden_conflicts(assignments, files, own_path, wish)
    return list(dict.fromkeys(conflicts))


def _masking(fragments: Sequence[Fragment], own_path: str) -> list[Conflict]:
    """Find the drop-in of the same name in a place of higher precedence, which hides ours."""
    name = posixpath.basename(own_path)
    return [
        Conflict(fragment.path, 1, "the whole file")
        for fragment in fragments
        if posixpath.basename(fragment.path) == name
    ]


def holds(assignments: Sequence[Assignment], place: tuple[str, str], values: Sequence[str]) -> bool:
    """Tell whether what is in force for a (section, directive) means the same as `values`."""
    section, key = place
    effective = in_force(assignments, section, key, is_list=_is_list(key, values))
    wanted = [value for value in values if value]
    return _same(key, [each.value for each in effective], wanted)


def _directive_conflicts(
    assignments: Sequence[Assignment], own_path: str, place: tuple[str, str], values: Sequence[str]
) -> list[Conflict]:
    """Compare what is in force for one directive with what we set."""
    if holds(assignments, place, values):
        return []
    later = _after_ours(assignments, own_path)
    culprits = [each for each in later if (each.section, each.key) == place]
    return [Conflict(each.path, each.line, f"{each.key}={each.value}") for each in culprits]


def _after_ours(assignments: Sequence[Assignment], own_path: str) -> list[Assignment]:
    """Return the assignments read after our drop-in."""
    last = max((i for i, each in enumerate(assignments) if each.path == own_path), default=-1)
    return list(assignments[last + 1 :])


def _same(key: str, effective: Sequence[str], wanted: Sequence[str]) -> bool:
    """Tell whether two sets of values mean the same for `key`."""
    if key in _ADDITIVE:
        return set(_flat(wanted)) <= set(_flat(effective))
    if not _is_list(key, wanted) or _WHOLE_LINE.match(key):
        return [_normal(value) for value in effective] == [_normal(value) for value in wanted]
    inverted = any(value.startswith("~") for value in (*effective, *wanted))
    if inverted:  # `~` takes away from what came before: the order is part of the meaning
        return list(effective) == list(wanted)
    return set(map(_normal, _flat(effective))) == set(map(_normal, _flat(wanted)))


def _flat(values: Sequence[str]) -> list[str]:
    """Return the words of all values."""
    return [word for value in values for word in value.split()]


def _normal(value: str) -> str:
    """Write booleans one way, so that `true` and `yes` are no conflict."""
    lower = value.lower()
    if lower in _TRUE:
        return "yes"
    return "no" if lower in _FALSE else value


def _unset_conflicts(
    assignments: Sequence[Assignment], own_path: str, wish: Wish
) -> list[Conflict]:
    """Find what takes our variables away: UnsetEnvironment=, or a reset after us."""
    conflicts = []
    for each in in_force(assignments, "Service", "UnsetEnvironment"):
        taken = {word.partition("=")[0] for word in each.value.split()} & set(wish.environment)
        if taken and each.path != own_path:
            what = f"UnsetEnvironment={' '.join(sorted(taken))}"
            conflicts.append(Conflict(each.path, each.line, what))
    resets = {"Environment": wish.environment, "UnsetEnvironment": wish.forbidden}
    for each in _after_ours(assignments, own_path):
        if each.section == "Service" and not each.value and resets.get(each.key):
            conflicts.append(Conflict(each.path, each.line, f"the empty {each.key}="))
    return conflicts


def _environment_conflicts(
    assignments: Sequence[Assignment], files: Sequence[Fragment], own_path: str, wish: Wish
) -> list[Conflict]:
    """Find what gives one of our variables another value."""
    effective = effective_environment(assignments, files)
    conflicts = []
    for name, value in wish.environment.items():
        found = effective.get(name)
        if found is None or found.path == own_path:
            continue
        if found.value != (value if found.from_file else _escape_specifiers(value)):
            conflicts.append(Conflict(found.path, found.line, f"{name}={found.value}"))
    return conflicts


def _forbidden_conflicts(
    assignments: Sequence[Assignment], files: Sequence[Fragment], own_path: str, wish: Wish
) -> list[Conflict]:
    """Find who sets a forbidden variable, even though our UnsetEnvironment= takes it away again.

    Somebody wants it set: to overrule that in silence would be as wrong as to let it pass.
    """
    others = [
        each
        for each in assignments
        if not (each.path == own_path and each.key == "UnsetEnvironment")
    ]
    effective = effective_environment(others, files)
    conflicts = [
        Conflict(found.path, found.line, f"the variable {name}")
        for name, found in effective.items()
        if name in wish.forbidden
    ]
    for each in in_force(assignments, "Service", "PassEnvironment"):
        for name in sorted(set(each.value.split()) & set(wish.forbidden)):
            conflicts.append(Conflict(each.path, each.line, f"PassEnvironment={name}"))
    return conflicts


# -- Writing ---------------------------------------------------------------------------------------


def make_wish(
    content: Mapping[str, Mapping[str, object]],
    environment: Mapping[str, object],
    forbidden: Sequence[str],
) -> Wish:
    """Build a Wish from playbook data: numbers and booleans become text, null is left out.

    Raises UnitError for a section or value of another kind.
    """
    sections = {}
    for section, directives in content.items():
        if not isinstance(directives, Mapping):
            raise UnitError(f"section {section} is not a dictionary of directives")
        sections[section] = {
            key: tuple(_text(key, each) for each in _as_list(value))
            for key, value in directives.items()
            if value is not None
        }
    variables = {
        name: _text(name, value, yes="true", no="false")
        for name, value in environment.items()
        if value is not None
    }
    return Wish(sections, variables, tuple(forbidden))


def _as_list(value: object) -> list[object]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _text(name: str, value: object, *, yes: str = "yes", no: str = "no") -> str:
    """Write one value as systemd's configuration has it."""
    if isinstance(value, bool):
        return yes if value else no
    if isinstance(value, str | int | float):
        return str(value)
    raise UnitError(f"the value of {name} is neither text, number nor boolean")


def render(wish: Wish, header: str) -> str:
    """Return the text of our drop-in; `header` becomes its first comment.

    Lists are reset first, so that what earlier fragments put into them is gone; forbidden
    variables are unset, which also catches those set after we looked. Raises UnitError for a
    name or value that would not survive the way through systemd's parser.
    """
    sections = {name: dict(directives) for name, directives in wish.sections.items()}
    if wish.environment or wish.forbidden:
        sections.setdefault("Service", {})
    blocks = [f"# {header}"]
    for section, directives in sections.items():
        if not _WORD.match(section):
            raise UnitError(f"not a section name: {section!r}")
        lines = [f"[{section}]"]
        if section == "Service":
            lines += _environment_lines(wish)
        for key, values in directives.items():
            lines += _directive_lines(key, values)
        blocks.append("\n".join(lines))
    return "\n\n".join(blocks) + "\n"


def _environment_lines(wish: Wish) -> list[str]:
    """Return the Environment= and UnsetEnvironment= lines."""
    lines = [_environment_line(name, value) for name, value in wish.environment.items()]
    for name in wish.forbidden:
        _check_name(name)
        if name in wish.environment:
            raise UnitError(f"the variable {name} is both set and forbidden")
        lines.append(f"UnsetEnvironment={name}")
    return lines


def _check_name(name: str) -> None:
    if not _NAME.match(name):
        raise UnitError(f"not a name of an environment variable: {name!r}")


def _environment_line(name: str, value: str) -> str:
    """Return one Environment= line that systemd reads back as exactly `value`."""
    _check_name(name)
    if any(ord(char) < 0x20 or ord(char) == 0x7F for char in value):
        raise UnitError(f"the value of the variable {name} has a control character")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'Environment="{name}={_escape_specifiers(escaped)}"'


def _escape_specifiers(value: str) -> str:
    """Protect `%`, which begins a specifier in unit files."""
    return value.replace("%", "%%")


def _directive_lines(key: str, values: Sequence[str]) -> list[str]:
    """Return the lines of one directive, the reset of a list included."""
    if not _WORD.match(key):
        raise UnitError(f"not the name of a directive: {key!r}")
    if key == "Environment":
        raise UnitError("the directive Environment is set through the environment option")
    for value in values:
        if any(ord(char) < 0x20 for char in value) or value.endswith("\\"):
            raise UnitError(f"the value of {key} has a control character or ends in a backslash")
    filled = [value for value in values if value]
    reset = key not in _ADDITIVE and (_is_list(key, filled) or not filled)
    return ([f"{key}="] if reset else []) + [f"{key}={value}" for value in filled]
