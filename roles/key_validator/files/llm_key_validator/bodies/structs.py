# SPDX-License-Identifier: GPL-3.0-or-later
"""The keys that LLM servers look for, and look-alikes of them.

Go's encoding/json takes `MODEL` for `model`, even `messages` with U+017F for one of its s: keys
match a struct's fields under Unicode's simple case folding. Keys of maps match exactly. The tables
hold the fields of the structs that Ollama 0.33 reads (api/types.go, openai/openai.go,
openai/responses.go, anthropic/anthropic.go), level by level, and those that other servers know
for the same (`max_completion_tokens`, `n`, `best_of`). What is read as a map, or not at all, is
left out: `format`, a tool's properties, a tool call's arguments, metadata.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from .errors import BodyError

# A name, and not whatever somebody may have put into a key
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
# Longer ones belong into maps, which are not looked through; folding them takes its time.
_LONGEST_KEY = 256


@dataclass(frozen=True, slots=True, eq=False)
class Struct:
    """Known fields of one object; `inner` are those that hold structs, or lists of them."""

    fields: frozenset[str]
    inner: Mapping[str, Struct]
    folded: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        # Full case folding finds all that simple folding does, and a few more.
        object.__setattr__(self, "folded", frozenset(name.casefold() for name in self.fields))

    def check(self, value: object) -> None:
        """Refuse look-alikes of known keys in ``value`` (an object or a list) and further in.

        Raises BodyError. Anything but objects and lists is no matter of keys.
        """
        if isinstance(value, list):
            for item in value:
                self.check(item)
        elif isinstance(value, dict):
            if not value.keys() <= self.fields:
                self._check_unknown(value)
            for name, struct in self.inner.items():
                if name in value:
                    struct.check(value[name])

    def _check_unknown(self, value: Mapping[str, object]) -> None:
        for key in value.keys() - self.fields:
            if len(key) > _LONGEST_KEY:
                raise BodyError("The body has a key of more than 256 characters.")
            if key.casefold() in self.folded:
                raise BodyError("The body has a key that differs from a known one only by case.")


def struct(fields: str, /, **inner: Struct) -> Struct:
    """Return a struct of blank-separated field names, and of ``inner`` ones with structs inside."""
    return Struct(frozenset(fields.split()) | inner.keys(), inner)


# api/types.go

OPTIONS = struct(
    "num_keep seed num_predict top_k top_p min_p typical_p repeat_last_n temperature repeat_penalty"
    " presence_penalty frequency_penalty stop num_ctx num_batch num_gpu main_gpu use_mmap"
    " num_thread draft_num_predict"
)
_TOOL = struct(
    "type items",
    function=struct("name description", parameters=struct("type $defs items required properties")),
)
_MESSAGE = struct(
    "role content thinking images tool_name tool_call_id",
    tool_calls=struct("id", function=struct("index name arguments")),
)
_OLLAMA_CONTROLS = "model stream keep_alive think truncate _debug_render_only logprobs top_logprobs"

OLLAMA_GENERATE = struct(
    f"{_OLLAMA_CONTROLS} prompt suffix system template context raw format images shift",
    options=OPTIONS,
)
OLLAMA_CHAT = struct(
    f"{_OLLAMA_CONTROLS} format shift", messages=_MESSAGE, tools=_TOOL, options=OPTIONS
)
OLLAMA_EMBED = struct("model input keep_alive truncate dimensions", options=OPTIONS)
OLLAMA_EMBEDDINGS = struct("model prompt keep_alive", options=OPTIONS)
OLLAMA_SHOW = struct("model name system template verbose", options=OPTIONS)
OLLAMA_TRANSFER = struct("model name insecure username password stream")
OLLAMA_CREATE = struct(
    "model name stream quantize quantization draft_quantize from remote_host files draft_files"
    " adapters template license system parameters renderer parser requires info",
    messages=_MESSAGE,
)
OLLAMA_COPY = struct("source destination")
OLLAMA_DELETE = struct("model name")

# openai/openai.go. Parts of a message's content are maps.

_OPENAI_CONTROLS = (
    "model stream max_tokens max_completion_tokens n best_of seed stop temperature"
    " frequency_penalty presence_penalty top_p logprobs _debug_render_only keep_alive"
)
_STREAM_OPTIONS = struct("include_usage")

OPENAI_CHAT = struct(
    f"{_OPENAI_CONTROLS} reasoning_effort top_logprobs",
    messages=struct(
        "role content reasoning name tool_call_id",
        tool_calls=struct("id index type", function=struct("name arguments")),
    ),
    stream_options=_STREAM_OPTIONS,
    response_format=struct("type", json_schema=struct("schema")),
    tools=_TOOL,
    reasoning=struct("effort"),
    options=OPTIONS,
)
OPENAI_COMPLETIONS = struct(
    f"{_OPENAI_CONTROLS} prompt suffix", stream_options=_STREAM_OPTIONS, options=OPTIONS
)
OPENAI_EMBEDDINGS = struct("model input dimensions encoding_format keep_alive", options=OPTIONS)

# openai/responses.go. What an item is depends on its `type`: the fields of all kinds are one table.

_RESPONSES_TOOLS: dict[str, Struct] = {}
_RESPONSES_TOOL = Struct(
    frozenset({"type", "name", "description", "strict", "parameters", "tools"}), _RESPONSES_TOOLS
)
# A namespace holds tools in its turn.
_RESPONSES_TOOLS["tools"] = _RESPONSES_TOOL
_RESPONSES_PART = struct("type text detail file_id image_url file_data file_url filename")

OPENAI_RESPONSES = struct(
    "model background conversation include instructions max_output_tokens temperature top_p"
    " truncation stream n best_of max_tokens max_completion_tokens keep_alive",
    input=struct(
        "type role id call_id name arguments encrypted_content status",
        content=_RESPONSES_PART,
        output=_RESPONSES_PART,
        summary=struct("type text"),
        action=struct("type query"),
    ),
    reasoning=struct("effort generate_summary summary"),
    text=struct("", format=struct("type name schema strict")),
    tools=_RESPONSES_TOOL,
    options=OPTIONS,
)

# anthropic/anthropic.go. `system` and a tool result's content are read as maps.

ANTHROPIC_MESSAGES = struct(
    "model max_tokens system stream temperature top_p top_k stop_sequences n best_of"
    " max_completion_tokens max_output_tokens keep_alive",
    messages=struct(
        "role",
        content=struct(
            "type text id name input tool_use_id content is_error thinking signature",
            source=struct("type media_type data url"),
            citations=struct("type url title encrypted_index cited_text"),
        ),
    ),
    tools=struct("type name description input_schema max_uses"),
    tool_choice=struct("type name disable_parallel_tool_use"),
    thinking=struct("type budget_tokens"),
    metadata=struct("user_id"),
    output_config=struct("effort"),
    options=OPTIONS,
)

# A form of Ollama's TranscriptionMiddleware and OpenAI's API: field names match exactly there,
# but a look-alike is no more welcome.
OPENAI_AUDIO = struct("model file response_format language prompt temperature stream")

# The fields of the APIs themselves (platform.openai.com/docs/api-reference, docs.anthropic.com/en/
# api/messages) by shape. Left out of those above is what is Ollama's own, and what is about things
# that a server keeps for later, which belong to no key (`conversation`, `previous_response_id`);
# and OpenAI's `metadata`, since LiteLLM takes orders from it.

_NOT_STANDARD = {"options", "keep_alive", "_debug_render_only", "background", "conversation"}
# The last line is no API's: how a token is chosen, as local servers know it
_SAMPLING = (
    "logit_bias user safety_identifier prompt_cache_key service_tier"
    " top_k min_p typical_p repeat_penalty repetition_penalty"
)
_TOOLS = "tool_choice parallel_tool_calls"


def _standard(known: Struct, further: str) -> frozenset[str]:
    return (known.fields - _NOT_STANDARD) | frozenset(further.split())


_STANDARD: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "openai_chat": _standard(
            OPENAI_CHAT,
            f"{_SAMPLING} {_TOOLS} audio function_call functions modalities prediction verbosity",
        ),
        "openai_completions": _standard(OPENAI_COMPLETIONS, f"{_SAMPLING} echo"),
        "openai_embeddings": _standard(OPENAI_EMBEDDINGS, "user"),
        "openai_responses": _standard(
            OPENAI_RESPONSES, f"{_SAMPLING} {_TOOLS} max_tool_calls stream_options top_logprobs"
        ),
        "openai_audio": _standard(OPENAI_AUDIO, "timestamp_granularities[]"),
        "anthropic_messages": _standard(ANTHROPIC_MESSAGES, "service_tier"),
    }
)


def check_standard(shape: str, known: Struct, request: Mapping[str, object]) -> None:
    """Refuse a body of this ``shape`` with fields that are not the API's own. Raises BodyError.

    Of tools only those pass that the client runs itself: the others have the server ask somebody.
    """
    odd = sorted(request.keys() - _STANDARD.get(shape, known.fields))
    metadata = request.get("metadata")
    if not odd and isinstance(metadata, dict):
        odd = sorted(metadata.keys() - known.inner["metadata"].fields)
    if odd:
        name = f": {odd[0]}" if _NAME.fullmatch(odd[0]) else ""
        raise BodyError(f"The body has a field that is not let through to this LLM server{name}.")
    tools = request.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict) and tool.get("type") not in (None, "function", "custom"):
            raise BodyError("The body has a tool that the LLM server would run: not let through.")
