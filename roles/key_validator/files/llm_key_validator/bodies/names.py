# SPDX-License-Identifier: GPL-3.0-or-later
"""Model names: one canonical form of each, and globs over them.

The grammar is Ollama 0.33's (types/model/name.go): [[host/]namespace/]model[:tag]. Ollama also
takes blanks around a name and a scheme before it; those are refused here, as no client needs
them. So is the tag `local`: the inference routes take it for "not in the cloud" and run the model
of the name without it (internal/modelref), other routes take it for a tag.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache

from .errors import BodyError

Matcher = Callable[[str], bool]

_NAME = re.compile(
    r"(?:(?:(?P<host>[a-z0-9_][a-z0-9_.:-]{0,349})/)?(?P<namespace>[a-z0-9_][a-z0-9_-]{0,79})/)?"
    r"(?P<model>[a-z0-9_][a-z0-9_.-]{0,79})(?::(?P<tag>[a-z0-9_][a-z0-9_.-]{0,79}))?"
)
# Before lower(): U+212A, the Kelvin sign, is no letter of a name, but its lower case is `k`
_LONGEST = 600
_HOST, _NAMESPACE, _TAG = "registry.ollama.ai", "library", "latest"

_GLOB_SEGMENT = re.compile(r"[a-z0-9_.:?*-]+")
_LONGEST_GLOB = 256


class ModelNameError(BodyError):
    """Text that is no plain model name."""


@lru_cache(maxsize=1024)
def canonical_name(text: str) -> str:
    """Return the one form of a model's name: lower case, always a tag, no default host and
    namespace.

    `tiny`, `TINY:latest` and `registry.ollama.ai/library/tiny` are all `tiny:latest`.
    Raises ModelNameError for anything that Ollama's grammar has not, and for the tag `local`.
    """
    if len(text) > _LONGEST or not text.isascii():
        raise _not_a_name()
    match = _NAME.fullmatch(text.lower())
    if match is None:
        raise _not_a_name()
    host, namespace, model, tag = match.groups()
    if tag == "local":
        raise ModelNameError("The model name must not have the tag `local`.")
    name = f"{model}:{tag or _TAG}"
    if host not in (None, _HOST):
        return f"{host}/{namespace}/{name}"
    if namespace not in (None, _NAMESPACE):
        return f"{namespace}/{name}"
    return name


def _not_a_name() -> ModelNameError:
    return ModelNameError("The model name is not of the form [[host/]namespace/]model[:tag].")


def compile_globs(globs: Sequence[str]) -> Matcher:
    """Return a function that tells whether a canonical name matches one of ``globs``.

    `*` alone is every model. Elsewhere `*` stands for any characters but `/`, `?` for one of
    them. A glob without a tag means `latest` when it is a plain name, any tag when it has
    wildcards. Case does not count. No globs match no model. Raises ValueError for a bad glob.
    """
    return _compile(tuple(globs))


@lru_cache(maxsize=1024)
def _compile(globs: tuple[str, ...]) -> Matcher:
    patterns = [_pattern(glob) for glob in globs]
    if None in patterns:
        return _every
    matches = re.compile("|".join(f"(?:{one})" for one in patterns) or r"(?!)").fullmatch
    return lambda name: matches(name) is not None


def _every(_name: str) -> bool:
    return True


def _pattern(glob: str) -> str | None:
    """Return a regular expression for canonical names, None for all of them."""
    if not isinstance(glob, str) or len(glob) > _LONGEST_GLOB:
        raise ValueError(f"a glob is text of at most {_LONGEST_GLOB} characters")
    if glob == "*":
        return None
    segments = glob.lower().split("/")
    if len(segments) > 3 or not glob.isascii() or not all(map(_GLOB_SEGMENT.fullmatch, segments)):
        raise ValueError("not a glob over names of the form [[host/]namespace/]model[:tag]")
    if ":" not in segments[-1]:
        segments[-1] += ":*" if "*" in glob or "?" in glob else f":{_TAG}"
    if len(segments) == 3 and segments[0] == _HOST:
        del segments[0]
    if len(segments) == 2 and segments[0] == _NAMESPACE:
        del segments[0]
    if not _could_match(segments):
        raise ValueError("no model name can match this glob")
    return "/".join(map(_segment_pattern, segments))


def _could_match(segments: Sequence[str]) -> bool:
    """Whether some name is of this form. A glob that never matches is surely a mistake."""
    plainest = "/".join(segments).replace("*", "a").replace("?", "a")
    return _NAME.fullmatch(plainest) is not None


def _segment_pattern(segment: str) -> str:
    """Translate one segment. Every star but the last takes as little as it can and never tries
    again (as in CPython's fnmatch), so many stars do not multiply the time.
    """
    first, *others = [
        "".join("[^/]" if character == "?" else re.escape(character) for character in piece)
        for piece in re.split(r"\*+", segment)
    ]
    if not others:
        return first
    middle = "".join(f"(?>[^/]*?{piece})" for piece in others[:-1])
    return f"{first}{middle}[^/]*{others[-1]}"
