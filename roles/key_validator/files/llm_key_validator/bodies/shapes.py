# SPDX-License-Identifier: GPL-3.0-or-later
"""The shapes of request bodies, and the one way to read them.

What a shape does not say is refused rather than guessed: another content type, a missing model, a
model named twice. Operation names are OpenTelemetry's gen_ai.operation.name where it has one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

from . import structs
from .asked import NOTHING, Asked, read_asked
from .errors import BodyError
from .multipart import File, parse_form
from .names import canonical_name
from .prompt import Prompt, canonical_prompt
from .strict_json import parse_object
from .structs import Struct

_JSON_TYPE = re.compile(
    rb'application/json(?:[ \t]*;[ \t]*charset=(?:utf-8|"utf-8"))?', re.IGNORECASE
)


class Reading(NamedTuple):
    """What a body says: canonical names of every model in it, the operation ("" for none)."""

    models: tuple[str, ...]
    operation: str
    prompt: Prompt | None
    asked: Asked


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One route's body.

    `models` and `optional_models` are names: those of one tuple are spellings of one member.
    `conversation` is the member with the messages. `infers` tells whether a model reads the rest.
    """

    operation: str
    struct: Struct
    models: tuple[tuple[str, ...], ...] = (("model",),)
    optional_models: tuple[tuple[str, ...], ...] = ()
    conversation: str = "messages"
    infers: bool = True


_MODEL_OR_NAME = (("model", "name"),)

_JSON_SHAPES: Mapping[str, Shape] = MappingProxyType(
    {
        "ollama_generate": Shape(operation="text_completion", struct=structs.OLLAMA_GENERATE),
        "ollama_chat": Shape(operation="chat", struct=structs.OLLAMA_CHAT),
        "ollama_embed": Shape(operation="embeddings", struct=structs.OLLAMA_EMBED),
        "ollama_embeddings": Shape(operation="embeddings", struct=structs.OLLAMA_EMBEDDINGS),
        "ollama_create": Shape(
            operation="create",
            struct=structs.OLLAMA_CREATE,
            models=_MODEL_OR_NAME,
            optional_models=(("from",),),
        ),
        "ollama_show": Shape(
            operation="show", struct=structs.OLLAMA_SHOW, models=_MODEL_OR_NAME, infers=False
        ),
        "ollama_pull": Shape(
            operation="pull", struct=structs.OLLAMA_TRANSFER, models=_MODEL_OR_NAME, infers=False
        ),
        "ollama_push": Shape(
            operation="push", struct=structs.OLLAMA_TRANSFER, models=_MODEL_OR_NAME, infers=False
        ),
        "ollama_copy": Shape(
            operation="copy",
            struct=structs.OLLAMA_COPY,
            models=(("source",), ("destination",)),
            infers=False,
        ),
        "ollama_delete": Shape(
            operation="delete", struct=structs.OLLAMA_DELETE, models=_MODEL_OR_NAME, infers=False
        ),
        "openai_chat": Shape(operation="chat", struct=structs.OPENAI_CHAT),
        "openai_completions": Shape(operation="text_completion", struct=structs.OPENAI_COMPLETIONS),
        "openai_embeddings": Shape(operation="embeddings", struct=structs.OPENAI_EMBEDDINGS),
        "openai_responses": Shape(
            operation="chat", struct=structs.OPENAI_RESPONSES, conversation="input"
        ),
        "anthropic_messages": Shape(operation="chat", struct=structs.ANTHROPIC_MESSAGES),
    }
)

SHAPES = frozenset({"none", "opaque", "openai_audio", *_JSON_SHAPES})

_WITHOUT_BODY = Reading((), "", None, NOTHING)


def read_body(
    shape: str, content_type: bytes, body: bytes, *, only_standard: bool = False
) -> Reading:
    """Read ``body`` as a route of this ``shape`` does. Raises BodyError for all it does not take.

    `none` is a route without a body, `opaque` one whose body is not looked at. ``only_standard``
    takes no fields but the API's own.
    """
    if shape == "opaque":
        return _WITHOUT_BODY
    if shape == "none":
        if body:
            raise BodyError("This endpoint takes no body.")
        return _WITHOUT_BODY
    if shape not in SHAPES:
        raise BodyError("The gateway cannot read the body of this endpoint.")
    if not body:
        raise BodyError("The body is empty.")
    if shape == "openai_audio":
        form = parse_form(content_type, body)
        if only_standard:
            structs.check_standard(shape, structs.OPENAI_AUDIO, form)
        return _read_audio(form)
    if content_type != b"application/json" and _JSON_TYPE.fullmatch(content_type) is None:
        raise BodyError("The Content-Type must be application/json, in UTF-8.")
    request = parse_object(body)
    known = _JSON_SHAPES[shape]
    if only_standard:
        structs.check_standard(shape, known.struct, request)
    return _read_json(known, request)


def _read_json(shape: Shape, request: dict[str, object]) -> Reading:
    shape.struct.check(request)
    return Reading(
        models=_read_models(shape, request),
        operation=shape.operation,
        prompt=canonical_prompt(request) if shape.infers else None,
        asked=read_asked(request, shape.conversation) if shape.infers else NOTHING,
    )


def _read_models(shape: Shape, request: Mapping[str, object]) -> tuple[str, ...]:
    found = [_read_model(request, names) for names in shape.models]
    if None in found:
        raise BodyError("The body names no model.")
    found += [_read_model(request, names) for names in shape.optional_models]
    return tuple(name for name in found if name is not None)


def _read_model(request: Mapping[str, object], names: tuple[str, ...]) -> str | None:
    """Return the one model that members called ``names`` agree on.

    Ollama takes null and "" for not said there, and its own client sends `"name": ""` along.
    """
    found: set[str] = set()
    for name in names:
        value = request.get(name)
        if value is None or value == "":
            continue
        if not isinstance(value, str):
            raise BodyError(f"`{name}` must be a string.")
        found.add(canonical_name(value))
    if len(found) > 1:
        raise BodyError("The body names two different models.")
    return found.pop() if found else None


def _read_audio(form: dict[str, str | list[str] | File]) -> Reading:
    structs.OPENAI_AUDIO.check(form)
    if not isinstance(form.get("file"), File):
        raise BodyError("The form has no file.")
    if any(isinstance(value, File) for name, value in form.items() if name != "file"):
        raise BodyError("The form has a file where text is due.")
    request = {name: _plain(value) for name, value in form.items()}
    model = _read_model(request, ("model",))
    if model is None:
        raise BodyError("The form names no model.")
    return Reading((model,), "generate_content", canonical_prompt(request), NOTHING)


def _plain(value: str | list[str] | File) -> object:
    if isinstance(value, File):
        return {"bytes": value.size, "sha256": value.sha256}
    return value
