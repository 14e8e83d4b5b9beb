# SPDX-License-Identifier: GPL-3.0-or-later
"""The canonical form of a prompt: what is digested, and measured in code points.

1. Members of the request without content (null, false, 0, "", [], {}) are left out, and so are
   the pure controls of a closed list (CONTROLS): they steer, and no model reads them. A control
   counts as one only while its value is plain: a number, true, a string of at most 128
   characters, or two levels of lists and objects of at most 64 of those each (keys count).
   `options` is one only while all of its keys are known. So nothing hides in an unknown member,
   or in a control that became a text.
2. When one member is left and all it holds is one piece of text, that text is the canonical form:
   form "text". So the digest of a plain question is the digest of its words. A message's role and
   the type of a part of it do not count as text.
3. Otherwise it is the JSON of all members that are left: form "json". Keys are sorted by code
   point, no blanks, characters as they are (only `"`, `\\` and controls escaped, as in Python's
   json with ensure_ascii off), numbers as Python prints them. Of a file in a form its size and
   SHA-256 stand there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

from .structs import OPTIONS

_REQUEST = """
    model name from stream stream_options options keep_alive max_tokens
    max_completion_tokens max_output_tokens num_predict n_predict num_ctx n best_of dimensions
    encoding_format response_format
"""
_SAMPLING = """
    seed temperature top_p top_k min_p frequency_penalty presence_penalty repeat_penalty stop
    stop_sequences logit_bias logprobs top_logprobs think thinking reasoning reasoning_effort
    verbosity output_config truncate truncation shift _debug_render_only
"""
_BOOK_KEEPING = """
    user metadata store service_tier background include parallel_tool_calls safety_identifier
    prompt_cache_key
"""
_CREATE = "quantize quantization draft_quantize files draft_files adapters requires"
_FORM = "timestamp_granularities[] chunking_strategy"
CONTROLS = frozenset(f"{_REQUEST} {_SAMPLING} {_BOOK_KEEPING} {_CREATE} {_FORM}".split())
# Of older versions; clients still send them.
_OLD_OPTIONS = (
    "numa low_vram f16_kv vocab_only use_mlock logits_all embedding_only penalize_newline tfs_z"
    " mirostat mirostat_tau mirostat_eta num_gqa rope_frequency_base rope_frequency_scale"
)
_KNOWN_OPTIONS = OPTIONS.fields | frozenset(_OLD_OPTIONS.split())

_LONGEST_PLAIN = 128
_MOST_PLAIN = 64
_TEXT_PARTS = ("text", "input_text", "output_text", "message")

# No circles: the value comes from a text.
_encode = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, sort_keys=True, separators=(",", ":")
).encode


class Prompt(NamedTuple):
    """The canonical form, which form it is ("text" or "json"), and its length in code points."""

    text: str
    form: str
    length: int


def canonical_prompt(request: Mapping[str, object]) -> Prompt | None:
    """Return the prompt of a request (decoded strict JSON); None when it carries none."""
    members = {
        name: value
        for name, value in request.items()
        if value and not (name in CONTROLS and _is_control(name, value))
    }
    if not members:
        return None
    text = _only_text(*members.values()) if len(members) == 1 else None
    if text is not None:
        return Prompt(text, "text", len(text))
    text = _encode(members)
    return Prompt(text, "json", len(text))


def _is_control(name: str, value: object) -> bool:
    if name == "options" and not (isinstance(value, dict) and value.keys() <= _KNOWN_OPTIONS):
        return False
    return _is_plain(value)


def _is_plain(value: object, levels: int = 2) -> bool:
    """Two levels, for `stop` in `options` is a list."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_PLAIN
    if not isinstance(value, (dict, list)):
        return True
    if isinstance(value, dict):
        value = [*value, *value.values()]
    return (
        bool(levels)
        and len(value) <= _MOST_PLAIN
        and all(_is_plain(item, levels - 1) for item in value)
    )


def _only_text(value: object) -> str | None:
    """Return the one piece of text that ``value`` holds, None when it holds anything else."""
    while not isinstance(value, str):
        if isinstance(value, dict):
            value = _only_content(value)
        elif isinstance(value, list) and len(value) == 1:
            value = value[0]
        else:
            return None
    return value


def _only_content(part: Mapping[str, object]) -> object:
    """Return what a message or a part of one holds beside its role and type."""
    rest = {name: value for name, value in part.items() if value}
    if rest.pop("type", "text") not in _TEXT_PARTS or not _is_plain(rest.pop("role", ""), 0):
        return None
    if len(rest) != 1:
        return None
    return rest.get("content") or rest.get("text")
