# SPDX-License-Identifier: GPL-3.0-or-later
"""Policy: may the key do what this body asks for, as a function of key, tier and body alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from .bodies import Asked, BodyError, Prompt, Reading
from .bodies.names import canonical_name, compile_globs
from .tiers import Tier

# Tells whether a model's canonical name is allowed
Matcher = Callable[[str], bool]

# Each ceiling: the tier's limit, what of the request it bounds, and in words
_CEILINGS = (
    ("max_output_tokens", "output_tokens", "more output tokens"),
    ("max_context_tokens", "context_tokens", "a larger context"),
    ("max_keep_alive_seconds", "keep_alive_seconds", "a longer keep_alive"),
    ("max_choices", "choices", "more choices"),
    ("max_messages", "messages", "more messages"),
    ("max_images", "images", "more images"),
)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request goes no further: a word for logs and metrics, and the client's answer."""

    reason: str
    status: int
    message: str
    headers: tuple[tuple[str, str], ...] = ()


# One answer whichever model it is: whether the host has it is not said.
_MODEL = Refusal("model", 403, "The API key may not use this model.")


@lru_cache(maxsize=4096)
def matcher(globs: tuple[str, ...]) -> Matcher:
    """Return what tells whether a key with these globs may use a model; none allow any."""
    return compile_globs(globs) if globs else _any_model


def _any_model(_name: str) -> bool:
    return True


def judge_size(tier: Tier, body_bytes: int) -> Refusal | None:
    """Refuse a body that is larger than the tier allows."""
    limit = tier.max_body_bytes
    if limit is None or body_bytes <= limit:
        return None
    message = f"The key's tier allows bodies of {limit} bytes at most (max_body_bytes {limit})."
    return Refusal("body_size", 413, message)


def judge_model(globs: tuple[str, ...], name: str) -> Refusal | None:
    """Refuse a model that the key may not use; ``name`` is as the client wrote it.

    Whoever may use any model may write any name: the LLM server knows what it is.
    """
    if not globs:
        return None
    try:
        allowed = matcher(globs)(canonical_name(name))
    except BodyError:
        allowed = False
    return None if allowed else _MODEL


def judge_reading(globs: tuple[str, ...], tier: Tier, reading: Reading) -> Refusal | None:
    """Refuse what the key or its tier does not allow."""
    if globs and not all(map(matcher(globs), reading.models)):
        return _MODEL
    return _judge_prompt(tier, reading.prompt) or _judge_asked(tier, reading.asked)


def _judge_prompt(tier: Tier, prompt: Prompt | None) -> Refusal | None:
    limit = tier.max_prompt_characters
    if limit is None or prompt is None or prompt.length <= limit:
        return None
    words = f"prompts of {limit} characters at most (max_prompt_characters {limit})"
    return Refusal("prompt_size", 400, f"The key's tier allows {words}.")


def _judge_asked(tier: Tier, asked: Asked) -> Refusal | None:
    for limit_name, name, words in _CEILINGS:
        limit, value = getattr(tier, limit_name), getattr(asked, name)
        # Not `value > limit`: what cannot be compared is refused.
        if limit is None or value is None or value <= limit:
            continue
        message = f"The request asks for {words} than the key's tier allows ({limit_name} {limit})."
        return Refusal("limit", 400, message)
    return None
