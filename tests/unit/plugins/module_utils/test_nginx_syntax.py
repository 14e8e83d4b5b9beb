# SPDX-License-Identifier: GPL-3.0-or-later
"""nginx's configuration as text: read as nginx reads it, or refused."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.nginx_syntax import (
    NginxSyntaxError,
    assemble,
    parse,
    split_dump,
    walk,
)
from hypothesis import given
from hypothesis import strategies as st

NGINX = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")


def words(text):
    """Return the directives as nested lists of words."""

    def plain(directives):
        return [
            [one.name, *one.args] + ([] if one.block is None else [plain(one.block)])
            for one in directives
        ]

    return plain(parse(text))


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("", []),
        ("a;", [["a"]]),
        ("a b  c ;\n d;", [["a", "b", "c"], ["d"]]),
        ("a { b; } c;", [["a", [["b"]]], ["c"]]),
        ("a{b c;}", [["a", [["b", "c"]]]]),
        ("a {}", [["a", []]]),
        ("# a { ;\nb; # c", [["b"]]),
        ("a b#c;", [["a", "b#c"]]),
        ("a b}c;", [["a", "b}c"]]),
        ('a "b ; { # c" d;', [["a", "b ; { # c", "d"]]),
        ("a 'b \"c\"' ;", [["a", 'b "c"']]),
        (r'a "b\"c" d\;e;', [["a", 'b"c', r"d\;e"]]),
        (r"a '\t' \\ \. ;", [["a", "\t", "\\", r"\."]]),
        ("a ${b}c $d{ e; }", [["a", "${b}c", "$d", [["e"]]]]),
        ('if ($a = "") { b; }', [["if", "($a", "=", "", ")", [["b"]]]]),
        ("a\tb\r\nc;", [["a", "b", "c"]]),
        ('a "b\nc";', [["a", "b\nc"]]),
        ('map $a $b { "" $c; default ""; }', [["map", "$a", "$b", [["", "$c"], ["default", ""]]]]),
    ],
)
def test_words_are_read_as_nginx_reads_them(text, read):
    assert words(text) == read


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (";", "1: unexpected ;"),
        ("a;\n{ b; }", "2: unexpected {"),
        ("a }", "unexpected }"),
        ("}", "unexpected }"),
        ("a { b }", "unexpected }"),
        ("a { b;", "ends within"),
        ("a b", "ends within"),
        ('a "b', "a quote or a backslash"),
        ("a 'b", "a quote or a backslash"),
        ("a b\\", "a quote or a backslash"),
        ('a "b"c;', "no blank after a closing quote"),
        ("content_by_lua_block { return }", "holds a program"),
        ("a { " * 40, "blocks within each other"),
    ],
)
def test_what_nginx_refuses_is_an_error_with_its_line(text, why):
    with pytest.raises(NginxSyntaxError, match=why):
        parse(text, "x.conf")


def test_a_directive_knows_where_it_is():
    (outer,) = parse("\n\na {\n  b\n   c;\n}", "x.conf")
    assert (outer.where, outer.block[0].where, outer.block[0].text) == (
        "x.conf:3",
        "x.conf:4",
        "b c",
    )


@given(st.text(alphabet="ab;{}\"'\\$# \n\t)", max_size=60))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(NginxSyntaxError):
        parse(text)


@given(st.text(max_size=200))
def test_any_dump_is_read_or_refused(text):
    with contextlib.suppress(NginxSyntaxError):
        assemble(split_dump(text, lambda path: text))
    with contextlib.suppress(NginxSyntaxError):
        assemble({"/n/nginx.conf": text})


WORD = st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)


@given(st.lists(st.lists(WORD, min_size=1, max_size=4), max_size=4))
def test_what_was_quoted_is_read_back(lines):
    def quoted(word):
        # nginx turns \t, \r and \n into blanks, so a backslash is always doubled
        return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'

    text = "".join(" ".join(map(quoted, line)) + ";\n" for line in lines)
    assert [[one.name, *one.args] for one in parse(text)] == lines


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed here")
@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ('set $a "b";', True),
        ("set $a b}c;", True),
        ("set $a b#c;", True),
        ('set $a "b"c;', False),
        ('set $a "b;', False),
        ("set $a ${b}x; set $b y;", True),
        ('if ($uri = "") { return 404; }', True),
        ("if ($uri = a) { return 404;", False),
        ("}", False),
        (r'set $a "\"";', True),
    ],
)
def test_nginx_agrees_on_what_can_be_read(tmp_path, text, taken):
    (tmp_path / "a.conf").write_text(text)
    main = tmp_path / "nginx.conf"
    main.write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}}\n"
        f"http {{ access_log off; client_body_temp_path {tmp_path}/b; proxy_temp_path {tmp_path}/p;"
        f"fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u;"
        f"scgi_temp_path {tmp_path}/s;"
        f"server {{ listen unix:{tmp_path}/x; include a.conf; }} }}"
    )
    command = [str(NGINX), "-t", "-p", str(tmp_path), "-c", str(main)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ("test is successful" in done.stderr) == taken, done.stderr
    try:
        parse(text)
    except NginxSyntaxError:
        assert not taken
    else:
        assert taken


FILES = {"/n/nginx.conf": "include a/*.conf;\n", "/n/a/b.conf": "b;"}


class TestDump:
    def dump(self, files):
        return "".join(f"# configuration file {path}:\n{text}\n" for path, text in files.items())

    def split(self, text, on_disk):
        def read(path):
            if path not in on_disk:
                raise FileNotFoundError(2, "No such file or directory")
            return on_disk[path]

        return split_dump(text, read)

    def test_files_are_told_apart(self):
        assert self.split(self.dump(FILES), FILES) == FILES

    def test_a_comment_is_not_the_next_file(self):
        """Or else what follows it would belong to a file that nobody includes."""
        trap = "x;\n# configuration file /n/none.conf:\nserver { }\n"
        on_disk = {**FILES, "/n/a/c.conf": trap}
        files = self.split(self.dump(on_disk), on_disk)
        assert files["/n/a/c.conf"] == trap
        assert [one.name for one in walk(assemble(files))] == ["b", "x", "server"]

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("nonsense", "between two files"),
            ("# configuration file /n/a/b.conf:\nc;\n", "not what nginx has read"),
            ("# configuration file /n/a/b.conf:\nb;\n" * 2, "not what nginx has read"),
            ("# configuration file /n/gone:\n\n", "/n/gone cannot be read again"),
        ],
    )
    def test_another_shape_is_refused(self, text, why):
        with pytest.raises(NginxSyntaxError, match=why):
            self.split(text, FILES)


class TestIncludes:
    def names(self, files, main=None):
        return [one.text for one in walk(assemble(files, main))]

    def test_they_stand_in_their_places_in_order(self):
        files = {
            "/n/main": "a; include x/*.conf; h { include y; } z;",
            "/n/x/2.conf": "two;",
            "/n/x/1.conf": "one;",
            "/n/y": "why;",
        }
        assert self.names(files) == ["a", "one", "two", "h", "why", "z"]

    @pytest.mark.parametrize(
        ("pattern", "found"),
        [
            ("/n/x/*", ["a", "b"]),
            ("/n/x/[ab].conf", ["a", "b"]),
            ("/n/x/[!a].conf", ["b"]),
            ("/n/x/?.conf", ["a", "b"]),
            ("/n/*.conf", []),
            ("/n/x/.*", ["hidden"]),
        ],
    )
    def test_a_pattern_means_what_it_means_to_glob(self, pattern, found):
        files = {
            "/n/x/a.conf": "a;", "/n/x/b.conf": "b;", "/n/x/.h.conf": "hidden;",
            "/n/x/y/c.conf": "deep;",
        }  # fmt: skip
        # The rest is included by name, since nobody's file is an error.
        rest = "".join(f"k {{ include {path}; }}" for path in files)
        assert self.names({"/n/main": f"{rest} g {{ include {pattern}; }}", **files})[9:] == found

    @pytest.mark.parametrize(
        ("files", "why"),
        [
            ({}, "no configuration"),
            ({"/n/a": "include /n/a;"}, "includes itself"),
            ({"/n/a": "include b;"}, "not in the dump"),
            ({"/n/a": "include;"}, "takes one file"),
            ({"/n/a": "x;", "/n/b": "y;"}, "nothing includes it"),
            ({"/n/a": "include [z-a]*;"}, "a pattern that is not read here"),
        ],
    )
    def test_what_is_not_whole_is_refused(self, files, why):
        with pytest.raises(NginxSyntaxError, match=why):
            assemble(files)


@pytest.mark.skipif(NGINX is None, reason="nginx is not installed here")
def test_what_nginx_prints_is_read(tmp_path: Path) -> None:
    for name, text in {
        "nginx.conf": (
            f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n include mime;\n"
            f" client_body_temp_path {tmp_path}/b; proxy_temp_path {tmp_path}/p;\n"
            f" fastcgi_temp_path {tmp_path}/f; uwsgi_temp_path {tmp_path}/u;\n"
            f" scgi_temp_path {tmp_path}/s; access_log off;\n include c/*.conf;\n}}"
        ),
        "mime": "types { text/html html; }\n",
        "c/a.conf": f"server {{ listen unix:{tmp_path}/a; include mime; }}\n\n",
        "c/b.conf": "# configuration file /etc/nginx/x:\n# \xff\r\n",
    }.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode("latin-1"))
    command = [str(NGINX), "-T", "-p", str(tmp_path), "-c", f"{tmp_path}/nginx.conf"]
    done = subprocess.run(command, capture_output=True, check=True)
    output = done.stdout.decode(errors="surrogateescape")

    def read(path):
        with open(path, encoding="utf-8", errors="surrogateescape", newline="") as file:
            return file.read()

    files = split_dump(output, read)
    assert [Path(path).name for path in files] == ["nginx.conf", "mime", "a.conf", "b.conf"]
    names = [one.name for one in walk(assemble(files))]
    assert names.count("types") == 2
