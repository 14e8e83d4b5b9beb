# SPDX-License-Identifier: GPL-3.0-or-later
"""The unit-file reader, held against the installed systemd wherever that can be asked."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.systemd_units import (
    Conflict,
    Fragment,
    UnitError,
    Wish,
    dropin_directories,
    effective_environment,
    environment_file_patterns,
    expand_specifiers,
    explain,
    find_conflicts,
    in_force,
    make_wish,
    order_dropins,
    parse_environment,
    parse_environment_file,
    parse_fragments,
    parse_unit,
    render,
    split_words,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

OWN = "/etc/systemd/system/x.service.d/50-llm-hardening.conf"
MAIN = "/usr/lib/systemd/system/x.service"
OVERRIDE = "/etc/systemd/system/x.service.d/override.conf"

SYSTEMD = Path("/usr/lib/systemd/systemd")
ENVIRONMENT_GENERATOR = Path(
    "/usr/lib/systemd/user-environment-generators/30-systemd-environment-d-generator"
)


# -- Reading ---------------------------------------------------------------------------------------


def values(text: str) -> list[tuple[str, str, str, int]]:
    return [(a.section, a.key, a.value, a.line) for a in parse_unit(text, "p")]


def test_assignments_carry_section_and_line():
    text = "# c\n[Unit]\nA = 1 \n\n; c\n[Service]\n B=x=y\n"
    assert values(text) == [("Unit", "A", "1", 3), ("Service", "B", "x=y", 7)]


def test_what_systemd_ignores_is_ignored():
    assert values("A=1\n[S]\nno equals sign\n=2\nB=3\n") == [("S", "B", "3", 5)]


def test_a_broken_section_header_ends_the_file():
    assert values("[S]\nA=1\n[T\nB=2\n") == [("S", "A", "1", 2)]


def test_a_continued_line_counts_from_its_first_line_and_skips_comments():
    text = "[S]\nA=one \\\n# not this\n  two\\\nthree\nB=4\n"
    assert values(text) == [("S", "A", "one    two three", 2), ("S", "B", "4", 6)]


def test_an_even_number_of_backslashes_continues_nothing():
    assert values("[S]\nA=x\\\\\nB=2\n") == [("S", "A", "x\\\\", 2), ("S", "B", "2", 3)]


def test_a_continuation_at_the_end_of_the_file_still_counts():
    assert values("[S]\nA=1\\") == [("S", "A", "1", 2)]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_every_line_end_is_understood(end):
    assert values(f"[S]{end}A=1{end}B=2{end}") == [("S", "A", "1", 2), ("S", "B", "2", 3)]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("", []),
        ("  a  b ", ["a", "b"]),
        ("'a b' \"c d\"", ["a b", "c d"]),
        ('a"b c"d', ["ab cd"]),
        ('""', [""]),
        (r"a\sb\x41\101\u00e9", ["a bAAé"]),
        (r"\xc3\xa9", ["é"]),
        ("\"a'b\" 'c\"d'", ["a'b", 'c"d']),
        (r"'a\'b'", ["a'b"]),
    ],
)
def test_words_are_split_and_unescaped(value, words):
    assert split_words(value) == words


@pytest.mark.parametrize("value", ["'open", r"\q", r"a\x0", "end\\", r"\x00", r"\U00110000"])
def test_malformed_words_are_errors(value):
    with pytest.raises(UnitError):
        split_words(value)


def test_environment_keeps_what_comes_before_a_malformed_word():
    assert parse_environment('A=1 2B=2 plain "C=3 4" D=\'x') == [("A", "1"), ("C", "3 4")]


def test_environment_file_syntax():
    text = (
        "A=\"b c\"\n# comment\n; comment\nB=x\\ y  \nC='q\nr'\nD= a  \nexport E=1\n"
        'F="x\\y\\"z"\nG=one\\\ntwo\nH=\nno equals\n'
    )
    assert parse_environment_file(text) == [
        ("A", "b c", 1),
        ("B", "x y", 4),
        ("C", "q\nr", 5),
        ("D", "a", 7),
        ("F", 'x\\y"z', 9),
        ("G", "onetwo", 10),
        ("H", "", 12),
    ]


def test_environment_file_needs_no_last_line_end():
    assert parse_environment_file("A=1 ") == [("A", "1", 1)]
    assert parse_environment_file("A='1 ") == [("A", "1 ", 1)]
    assert parse_environment_file("A=1 \\") == [("A", "1 ", 1)]


def test_a_comment_cannot_hide_the_next_line():
    assert parse_environment_file("# c \\\nA=1\n") == [("A", "1", 2)]


@given(st.text())
def test_no_text_breaks_the_readers(text):
    parse_unit(text, "p")
    parse_environment(text)
    parse_environment_file(text)


# -- Which files count -----------------------------------------------------------------------------


def test_drop_ins_are_ordered_by_name_and_the_first_place_hides_the_others():
    found = [
        "/etc/systemd/system/x.service.d/b.conf",
        "/etc/systemd/system/x.service.d/README",
        "/run/systemd/system/x.service.d/b.conf",
        "/run/systemd/system/x.service.d/C.conf",
        "/usr/lib/systemd/system/service.d/a.conf",
    ]
    assert order_dropins(found) == [found[3], found[4], found[0]]


def test_directories_of_dashes_templates_aliases_and_types():
    here = [
        path.removeprefix("/etc/systemd/system/")
        for path in dropin_directories("a-b@c.service", ["z.service"])
        if path.startswith("/etc/systemd/system/")
    ]
    assert here == ["a-b@c.service.d", "a-.service.d", "a-b@.service.d", "z.service.d", "service.d"]


def test_specifiers():
    assert expand_specifiers("%E/%N-%p.%i%%", "a@b.service") == "/etc/a@b-a.b%"
    with pytest.raises(UnitError, match="%v"):
        expand_specifiers("/x/%v", "a.service")


# -- What is in force ------------------------------------------------------------------------------


def assignments(*texts: str):
    return parse_fragments(
        Fragment(f"{number}", f"[Service]\n{text}\n") for number, text in enumerate(texts)
    )


def test_scalars_override_lists_add_up_and_both_reset():
    found = assignments("User=a\nIPAddressAllow=any", "User=b\nIPAddressAllow=::1", "User=")
    assert in_force(found, "Service", "User") == []
    assert [a.value for a in in_force(found, "Service", "IPAddressAllow")] == ["any", "::1"]
    found = assignments("IPAddressAllow=any", "IPAddressAllow=", "IPAddressAllow=::1")
    assert [a.value for a in in_force(found, "Service", "IPAddressAllow")] == ["::1"]


def test_environment_is_merged_reset_overridden_by_files_and_unset():
    found = assignments("Environment=A=0", "Environment=\nEnvironment=B=1 C=2 D=3 E=4")
    found += assignments("UnsetEnvironment=D E=other\nEnvironmentFile=-/f")
    assert environment_file_patterns(found) == ["-/f"]
    effective = effective_environment(found, [Fragment("/f", "B=9\n")])
    assert {name: v.value for name, v in effective.items()} == {"B": "9", "C": "2", "E": "4"}
    assert effective["B"].path == "/f"


# -- Who would win over us -------------------------------------------------------------------------

WISH = make_wish(
    {"Service": {"IPAddressDeny": "any", "IPAddressAllow": "localhost", "LimitCORE": 0}},
    {"HOST": "127.0.0.1:1"},
    ["REMOTES"],
)


def conflicts(main: str = "", later: str = "", files: dict | None = None, wish: Wish = WISH):
    fragments = [Fragment(MAIN, f"[Service]\n{main}\n"), Fragment(OWN, render(wish, "h"))]
    fragments += [Fragment(OVERRIDE, f"[Service]\n{later}\n")] if later else []
    environment_files = [Fragment(path, text) for path, text in (files or {}).items()]
    return [explain([each]) for each in find_conflicts(fragments, OWN, wish, environment_files)]


def test_a_clean_unit_has_no_conflict():
    assert conflicts(main="ExecStart=/x\nEnvironment=HOST=0.0.0.0 OTHER=1") == []


def test_what_earlier_fragments_allow_is_reset():
    assert conflicts(main="IPAddressAllow=any\nIPAddressDeny=\nLimitCORE=infinity") == []


@pytest.mark.parametrize(
    ("later", "what"),
    [
        ("Environment=HOST=0.0.0.0", "HOST=0.0.0.0"),
        ('Environment="SECRET=s" "HOST=0.0.0.0"', "HOST=0.0.0.0"),
        ("Environment=", "the empty Environment="),
        ("UnsetEnvironment=HOST", "UnsetEnvironment=HOST"),
        ("UnsetEnvironment=", "the empty UnsetEnvironment="),
        ("IPAddressAllow=10.0.0.0/8", "IPAddressAllow=10.0.0.0/8"),
        ("IPAddressDeny=", "IPAddressDeny="),
        ("LimitCORE=infinity", "LimitCORE=infinity"),
        ("LimitCORE=", "LimitCORE="),
        ("PassEnvironment=REMOTES", "PassEnvironment=REMOTES"),
    ],
)
def test_a_later_drop_in_that_would_win_is_named(later, what):
    assert conflicts(later=later) == [
        f"remove {what} from {OVERRIDE} (line 2): it would win over llmsec.hardening"
    ]


@pytest.mark.parametrize(
    "later",
    [
        "Environment=HOST=127.0.0.1:1",
        "Environment=OTHER=1",
        "IPAddressAllow=localhost",
        "LimitCORE=0",
        "MemoryMax=1G",
        "UnsetEnvironment=OTHER",
        "Environment=REMOTES=x\nEnvironment=\nEnvironment=HOST=127.0.0.1:1",
    ],
)
def test_the_same_value_or_another_setting_is_no_conflict(later):
    found = conflicts(later=later)
    # A reset takes our variables away even when the same value follows for one of them.
    assert found == [] or "empty Environment=" in found[0]
    assert ("Environment=\n" in later) == bool(found)


@pytest.mark.parametrize("place", ["main", "later"])
def test_a_forbidden_variable_is_a_conflict_anywhere_and_its_value_stays_hidden(place):
    found = conflicts(**{place: "Environment=REMOTES=evil.example"})
    assert len(found) == 1
    assert "the variable REMOTES" in found[0]
    assert "evil" not in found[0]


def test_an_environment_file_beats_everything():
    assert conflicts(files={"/etc/default/x": "A=1\nHOST=0.0.0.0\n"}) == [
        "remove HOST=0.0.0.0 from /etc/default/x (line 2): it would win over llmsec.hardening"
    ]
    assert conflicts(files={"/etc/default/x": "HOST=127.0.0.1:1\n"}) == []
    assert "the variable REMOTES" in conflicts(files={"/etc/default/x": "REMOTES=a"})[0]


def test_several_conflicts_make_one_sentence():
    assert explain([Conflict("/a", 1, "A=1"), Conflict("/b", 2, "B=2")]) == (
        "remove A=1 from /a (line 1), B=2 from /b (line 2): they would win over llmsec.hardening"
    )


def test_a_hidden_drop_in_is_a_conflict():
    hiding = f"/etc/systemd/system.control/x.service.d/{OWN.rpartition('/')[2]}"
    assert find_conflicts([Fragment(hiding, "")], OWN, WISH) == [
        Conflict(hiding, 1, "the whole file")
    ]


def test_the_order_of_an_inverted_filter_is_part_of_its_meaning():
    wish = make_wish({"Service": {"SystemCallFilter": ["@system-service", "~@privileged"]}}, {}, [])
    assert conflicts(later="SystemCallFilter=@system-service", wish=wish) != []
    again = "SystemCallFilter=\nSystemCallFilter=@system-service\nSystemCallFilter=~@privileged"
    assert conflicts(later=again, wish=wish) == []


def test_booleans_are_compared_by_meaning():
    wish = make_wish({"Service": {"PrivateTmp": True, "NoNewPrivileges": True}}, {}, [])
    assert conflicts(later="PrivateTmp=true", wish=wish) == []
    assert conflicts(later="PrivateTmp=off", wish=wish) != []


def test_dependencies_of_others_are_left_alone():
    wish = make_wish({"Unit": {"After": "a.service"}}, {}, [])
    assert "After=\n" not in render(wish, "h")
    later = Fragment(OVERRIDE, "[Unit]\nAfter=b.service\n")
    assert find_conflicts([Fragment(OWN, render(wish, "h")), later], OWN, wish) == []


# -- Writing ---------------------------------------------------------------------------------------


def test_render_resets_lists_and_quotes_variables():
    wish = make_wish(
        {"Service": {"CapabilityBoundingSet": "", "DeviceAllow": ["a rw", "b"], "User": None}},
        {"A": 'x "y" %h \\', "B": True, "C": None},
        ["D"],
    )
    assert render(wish, "Head").splitlines() == [
        "# Head",
        "",
        "[Service]",
        'Environment="A=x \\"y\\" %%h \\\\"',
        'Environment="B=true"',
        "UnsetEnvironment=D",
        "CapabilityBoundingSet=",
        "DeviceAllow=",
        "DeviceAllow=a rw",
        "DeviceAllow=b",
    ]


@pytest.mark.parametrize(
    ("content", "environment", "forbidden", "part"),
    [
        ({"Service": {"A": "1\nExecStart=/x"}}, {}, [], "A"),
        ({"Service": {"A": "1\\"}}, {}, [], "A"),
        ({"Service": {"A B": "1"}}, {}, [], "A B"),
        ({"Service": {"A": {"b": 1}}}, {}, [], "A"),
        ({"Service": "A=1"}, {}, [], "Service"),
        ({"Ser]vice": {"A": 1}}, {}, [], "Ser]vice"),
        ({"Service": {"Environment": "A=1"}}, {}, [], "environment option"),
        ({}, {"A B": "1"}, [], "A B"),
        ({}, {"A": "1\nB=2"}, [], "A"),
        ({}, {}, ["A-B"], "A-B"),
        ({}, {"A": "1"}, ["A"], "both set and forbidden"),
    ],
)
def test_what_would_not_survive_is_refused(content, environment, forbidden, part):
    with pytest.raises(UnitError, match=re.escape(part)):
        render(make_wish(content, environment, forbidden), "h")


SOUND = st.text(st.characters(blacklist_categories=("Cc", "Cs")), max_size=30)


@given(SOUND)
def test_a_variable_comes_back_as_it_went_in(value):
    text = render(Wish(environment={"A": value}), "h")
    found = effective_environment(parse_unit(text, OWN))["A"].value
    assert found.replace("%%", "%") == value


# -- The real thing --------------------------------------------------------------------------------


def as_nobody() -> list[str]:
    """The user manager refuses to run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


@pytest.fixture(scope="module")
def manager_dump():
    """Return a function: {path in a load path: text} → what systemd makes of a unit."""
    if not SYSTEMD.exists() or not shutil.which("setpriv"):
        pytest.skip("no systemd here to compare with")

    def dump(files: dict[str, str], unit: str = "x.service") -> str:
        with tempfile.TemporaryDirectory() as top:
            Path(top).chmod(0o755)
            for name, text in files.items():
                path = Path(top) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(text)
            runtime = Path(top) / "runtime"
            runtime.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(runtime, 65534, 65534)
            places = [f"{top}/etc", f"{top}/run", f"{top}/usr", "/usr/lib/systemd/user"]
            environment = {
                "HOME": top,
                "XDG_RUNTIME_DIR": str(runtime),
                "SYSTEMD_UNIT_PATH": ":".join(places),
                "PATH": os.environ["PATH"],
            }
            command = [*as_nobody(), str(SYSTEMD), "--user", "--test", "--log-target=console"]
            done = subprocess.run(
                [*command, "--log-level=crit", f"--unit={unit}"],
                env=environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            found = re.search(rf"-> Unit {re.escape(unit)}:\n((?:\t\t.*\n)*)", done.stdout)
            if found is None:
                pytest.skip(f"systemd cannot run in test mode here: {done.stderr[-300:]}")
            return found[1].replace(f"{top}/", "")

    return dump


def dumped(dump: str, key: str) -> list[str]:
    return re.findall(rf"^\t\t{key}: (.*)$", dump, re.MULTILINE)


def test_systemd_reads_drop_ins_in_our_order(manager_dump):
    """Every kind of directory, same names across places, a mask: the order is systemd's."""
    names = {
        "usr/x.service": "[Service]\nExecStart=/bin/true\n",
        "etc/x.service.d/50-a.conf": "",
        "run/x.service.d/50-a.conf": "[Service]\nUMask=0001\n",
        "usr/x.service.d/50-A.conf": "[Service]\nUMask=0002\n",
        "usr/service.d/60-t.conf": "[Service]\nUMask=0003\n",
        "etc/service.d/70-t.conf": "[Service]\nUMask=0004\n",
        "run/x.service.d/70-t.conf": "[Service]\nUMask=0005\n",
        "etc/x.service.d/9-last.conf": "[Service]\nUMask=0006\n",
        "etc/x.service.d/no-suffix": "[Service]\nUMask=0007\n",
    }
    directories = ["etc/x.service.d", "run/x.service.d", "usr/x.service.d"]
    directories += ["etc/service.d", "run/service.d", "usr/service.d"]
    found = [name for place in directories for name in names if name.rpartition("/")[0] == place]
    dump = manager_dump(names)
    ours = order_dropins(found)
    assert dumped(dump, "DropIn Path") == ours
    effective = in_force(
        parse_fragments(Fragment(name, names[name]) for name in ours), "Service", "UMask"
    )
    assert dumped(dump, "UMask") == [effective[-1].value]


def test_systemd_finds_directories_of_dashes_in_our_order(manager_dump):
    names = {
        "usr/a-b-c.service": "[Service]\nExecStart=/bin/true\n",
        "etc/a-.service.d/p.conf": "",
        "usr/a-b-.service.d/p.conf": "",
        "usr/a-b-c.service.d/p.conf": "",
        "etc/a-b-.service.d/q.conf": "",
        "etc/a-b-c.service.d/q.conf": "",
        "usr/a-.service.d/r.conf": "",
    }
    short = {"/etc/systemd/system": "etc", "/usr/lib/systemd/system": "usr"}
    found = []
    for directory in dropin_directories("a-b-c.service"):
        place, _slash, last = directory.rpartition("/")
        found += [name for name in names if name.rpartition("/")[0] == f"{short.get(place)}/{last}"]
    assert len(found) == len(names) - 1
    assert dumped(manager_dump(names, "a-b-c.service"), "DropIn Path") == order_dropins(found)


# A lone `%` begins a specifier, which is left to systemd.
ODD = st.sampled_from([*"AB=1 \\\"'s\t#;x", "%%"])
LINES = st.lists(st.lists(ODD, max_size=12).map("".join), min_size=1, max_size=4)


@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
@given(LINES)
def test_systemd_reads_environment_as_we_do(manager_dump, lines):
    """Odd quotes, escapes and continuations: the variables in force are systemd's."""
    text = "[Service]\nExecStart=/bin/true\n" + "".join(f"Environment=A=0 {x}\n" for x in lines)
    ours = {
        name: variable.value
        for name, variable in effective_environment(parse_unit(text, MAIN)).items()
    }
    theirs = dumped(manager_dump({"usr/x.service": text}), "Environment")
    assert sorted(theirs) == sorted(f"{k}={v.replace('%%', '%')}" for k, v in ours.items())


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(alphabet="AB= \\\"'\t#;x\n", max_size=14), max_size=4))
def test_systemd_reads_environment_files_as_we_do(tmp_path, pieces):
    if not ENVIRONMENT_GENERATOR.exists():
        pytest.skip("no systemd here to compare with")
    text = "\n".join(f"A{n}={piece}" for n, piece in enumerate(pieces))
    # A comment that ends in a backslash is read differently by systemd 252 and 254.
    if re.search(r"^[ \t]*[#;].*\\", text, re.MULTILINE):
        return
    place = tmp_path / "environment.d"
    place.mkdir(exist_ok=True)
    (place / "a.conf").write_text(text)
    done = subprocess.run(
        [str(ENVIRONMENT_GENERATOR)],
        env={"XDG_CONFIG_HOME": str(tmp_path), "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    theirs = {}
    for line in done.stdout.splitlines():
        name, _equals, value = line.partition("=")
        theirs[name] = unquote(value)
    ours = {name: value for name, value, _line in parse_environment_file(text)}
    # The generator also reads the host's own environment.d, and drops most empty values, even
    # where they would replace another.
    theirs = {name: value for name, value in theirs.items() if ours.get(name)}
    assert theirs == {name: value for name, value in ours.items() if value}


def unquote(text: str) -> str:
    """Undo the generator's quoting: C escapes in double quotes."""
    words = shlex.split(text.replace("\\n", "\0").replace("\\t", "\1"))
    return (words[0] if words else "").replace("\0", "\n").replace("\1", "\t")
