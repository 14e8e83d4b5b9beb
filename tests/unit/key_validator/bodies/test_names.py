# SPDX-License-Identifier: GPL-3.0-or-later
"""One model, one name; and which names a glob means."""

from __future__ import annotations

import string
import time

import pytest
from ansible_collections.llmsec.hardening.plugins.module_utils.gateway_backends import (
    canonical_model,
)
from hypothesis import given
from hypothesis import strategies as st
from llm_key_validator.bodies.errors import BodyError
from llm_key_validator.bodies.names import ModelNameError, canonical_name, compile_globs

PART = st.from_regex(r"\A[A-Za-z0-9_][A-Za-z0-9_-]{0,20}\Z")


@pytest.mark.parametrize(
    ("spelling", "name"),
    [
        # The spellings that real Ollama runs as one model
        ("secret", "secret:latest"),
        ("SECRET", "secret:latest"),
        ("secret:latest", "secret:latest"),
        ("library/secret", "secret:latest"),
        ("registry.ollama.ai/library/secret:latest", "secret:latest"),
        ("Registry.Ollama.ai/Library/Secret:Latest", "secret:latest"),
        # Others stay apart
        ("llama3.2:3B-instruct-q4_K_M", "llama3.2:3b-instruct-q4_k_m"),
        ("user/x", "user/x:latest"),
        ("registry.ollama.ai/user/x", "user/x:latest"),
        ("hf.co/library/x:Q4", "hf.co/library/x:q4"),
        ("localhost:5000/user/x", "localhost:5000/user/x:latest"),
        ("gpt-oss:20b-cloud", "gpt-oss:20b-cloud"),
        ("x:locally", "x:locally"),
        ("local", "local:latest"),
    ],
)
def test_canonical_name(spelling, name):
    assert canonical_name(spelling) == name
    assert canonical_name(name) == name


@pytest.mark.parametrize(
    "text",
    [
        " secret ",
        "secret\n",
        "\u00a0secret",
        "https://registry.ollama.ai/library/secret",
        "secret:local",
        "user/secret:LOCAL",
        "secret:latest:local",
        "",
        ":latest",
        "secret:",
        "/secret",
        "secret/",
        "a//secret",
        "a/b/c/secret",
        "../secret",
        ".secret",
        "-secret",
        "name.space/secret",
        "secret@sha256:00",
        "sec\u017fret",
        "\u212aey",
        "s\u0435cret",
        "sec ret",
        "secret\0",
        "x" * 81,
        "x:" + "y" * 81,
        "x" * 1_000_000,
    ],
)
def test_no_plain_name(text):
    with pytest.raises(ModelNameError, match="model name"):
        canonical_name(text)
    assert issubclass(ModelNameError, BodyError)


@given(PART, PART, PART)
def test_case_and_defaults_never_matter(namespace, model, tag):
    if tag.lower() == "local":
        return
    name = canonical_name(f"{namespace}/{model}:{tag}")
    assert canonical_name(f"registry.ollama.ai/{namespace}/{model}:{tag}".upper()) == name
    assert name == name.lower()
    assert canonical_name(model) == canonical_name(f"library/{model}:latest")


@pytest.mark.parametrize(
    ("globs", "matching", "others"),
    [
        (["*"], ["tiny:latest", "a/b:c", "h:1/a/b:c"], []),
        (["tiny"], ["tiny:latest"], ["tiny:2", "a/tiny:latest", "tinyx:latest"]),
        (["TINY:Latest"], ["tiny:latest"], ["tiny:2"]),
        (["library/tiny"], ["tiny:latest"], ["library2/tiny:latest"]),
        (["registry.ollama.ai/library/tiny"], ["tiny:latest"], ["a/tiny:latest"]),
        (["llama*"], ["llama3.2:1b", "llama:latest"], ["a/llama3:1b", "xllama:1b"]),
        (["llama?.2"], ["llama3.2:1b"], ["llama.2:1b", "llama33.2:1b", "llama3x2:1b"]),
        (["llama*:*b"], ["llama3:1b", "llama3:70b"], ["llama3:latest"]),
        (["library/*"], ["tiny:latest", "tiny:2"], ["a/tiny:latest"]),
        (["registry.ollama.ai/library/*"], ["tiny:2"], ["a/tiny:latest", "h/a/b:c"]),
        (["a/*"], ["a/x:latest"], ["x:latest", "h/a/x:latest", "b/x:latest"]),
        (["*/x"], ["a/x:1"], ["x:1", "h/a/x:1"]),
        (["h:5000/*/x:1"], ["h:5000/a/x:1"], ["h:5000/a/x:2", "h5000/a/x:1"]),
        (["a*b*c"], ["abc:1", "axbxbxc:1", "aXbc:1".lower()], ["acb:1"]),
        (["tiny", "b?"], ["tiny:latest", "b1:x"], ["b:latest"]),
        (["a.b"], ["a.b:latest"], ["axb:latest"]),
        ([], [], ["tiny:latest", ""]),
    ],
)
def test_globs(globs, matching, others):
    matches = compile_globs(globs)
    assert [name for name in matching if not matches(name)] == []
    assert [name for name in others if matches(name)] == []


@pytest.mark.parametrize(
    "glob",
    ["", " ", "a b", "a//b", "a/b/c/d", "tiny:", "[a]", "a\n", "\u212a*", "a" * 300, "x.y/*", 5,
     "a:b:c", "/*"],
)  # fmt: skip
def test_bad_globs(glob):
    with pytest.raises(ValueError, match="glob"):
        compile_globs(["tiny", glob])


@given(PART, st.data())
def test_a_glob_made_of_a_name_matches_it(model, data):
    name = canonical_name(model)
    start = data.draw(st.integers(1, len(model)))
    assert compile_globs([f"{model[:start]}*"])(name)
    assert compile_globs([model])(name)
    assert not compile_globs([f"{model}x*"])(name)


def test_many_stars_take_no_time():
    matches = compile_globs(["a*" * 35 + "b:1"])
    started = time.process_time()
    assert not matches("a" * 80 + "c:1")
    assert time.process_time() - started < 0.1


def test_letters_of_the_grammar():
    for character in map(chr, range(128)):
        allowed = character in string.ascii_letters + string.digits + "_-."
        try:
            canonical_name(f"a{character}b")
        except ModelNameError:
            assert not allowed
        else:
            assert allowed or character in "/:"


@pytest.mark.parametrize(
    "text",
    [
        "tiny", "TINY:latest", "registry.ollama.ai/library/tiny", "team/tiny:v1.5", "tiny:local",
        "hf.co/a/b:q4", "", "a b", "a/b/c/d", "\u212aelvin", "..", "-x", "tiny:", "x\n", "gpt-4.1",
    ],
)  # fmt: skip
def test_the_gateway_reads_names_of_its_servers_models_alike(text: str) -> None:
    try:
        ours = canonical_name(text)
    except ModelNameError:
        ours = None
    assert canonical_model(text) == ours
