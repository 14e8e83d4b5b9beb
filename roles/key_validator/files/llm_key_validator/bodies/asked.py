# SPDX-License-Identifier: GPL-3.0-or-later
"""How much a request asks for: tokens, context, time in memory, choices, messages, images.

Each figure is the largest that any of its names says: which of them counts is the LLM server's
business. Ollama treats null as not said for all of them. A figure that no policy can take as a
number is refused, even where Ollama would not look at it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

from .errors import BodyError

# Every name of a figure; the first ones also count in `options`
_TOKENS = {
    "max_tokens": "output_tokens",
    "max_completion_tokens": "output_tokens",
    "max_output_tokens": "output_tokens",
    "num_predict": "output_tokens",
    # llama.cpp's server, which takes it before all others
    "n_predict": "output_tokens",
    "num_ctx": "context_tokens",
}
_FIGURES = {**_TOKENS, "n": "choices", "best_of": "choices"}
# What carries an image or a sound; each becomes one of api.Message's images in Ollama.
_IMAGE_PARTS = ("image_url", "input_image", "image", "input_audio")

# Go's time.ParseDuration; both signs for micro (U+00B5, U+03BC) are units there.
_UNITS = {
    "ns": 1e-9, "us": 1e-6, "\u00b5s": 1e-6, "\u03bcs": 1e-6, "ms": 1e-3, "s": 1, "m": 60, "h": 3600
}  # fmt: skip
_SPAN = r"([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)"
_DURATION = re.compile(rf"(?P<sign>[+-]?)(?:0|(?P<spans>(?:{_SPAN})+))")
_LONGEST_DURATION = 64
# Go counts nanoseconds in 64 bits with a sign, and options in as many.
_MOST_SECONDS = 2**63 / 1e9
_MOST = 2.0**63


class Asked(NamedTuple):
    """What the request asks for; None is not said, unlimited is math.inf.

    `messages` counts the entries of a conversation, `images` those of the whole request.
    """

    output_tokens: float | None = None
    context_tokens: float | None = None
    keep_alive_seconds: float | None = None
    choices: float | None = None
    messages: int = 0
    images: int = 0


NOTHING = Asked()


def read_asked(request: Mapping[str, object], conversation: str) -> Asked:
    """Return what ``request`` asks for; ``conversation`` names the member with the messages.

    Raises BodyError for a member of the wrong type.
    """
    most: dict[str, float] = {}
    _note_figures(most, request, _FIGURES)
    options = request.get("options")
    if isinstance(options, dict):
        _note_figures(most, options, _TOKENS)
    elif options is not None:
        raise BodyError("`options` must be an object.")
    messages = _messages(request, conversation)
    return Asked(
        output_tokens=most.get("output_tokens"),
        context_tokens=most.get("context_tokens"),
        keep_alive_seconds=_keep_alive(request.get("keep_alive")),
        choices=most.get("choices"),
        messages=len(messages),
        images=_own_images(request) + sum(map(_images, messages)),
    )


def _note_figures(
    most: dict[str, float], source: Mapping[str, object], figures: Mapping[str, str]
) -> None:
    """Raise each figure in ``most`` to what ``source`` says of it."""
    for name, value in source.items():
        figure = figures.get(name)
        if figure is not None and value is not None:
            number = _choices(name, value) if figure == "choices" else _tokens(name, value)
            most[figure] = max(number, most.get(figure, number))


def _tokens(name: str, value: object) -> float:
    """Return a number of tokens; none and less than none are unlimited.

    A negative one is so in Ollama; 0 is in its MLX engine, and in others.
    """
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise BodyError(f"`{name}` must be a number.")
    # A fraction is cut off in Go, and what overflows there may turn out negative.
    return math.inf if value < 1 or float(value) >= _MOST else math.floor(value)


def _choices(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise BodyError(f"`{name}` must be an integer above zero.")
    return value


def _keep_alive(value: object) -> float | None:
    """Return the seconds that api.Duration reads: a number of them, or a Go duration."""
    if value is None:
        return None
    if isinstance(value, str):
        seconds = _duration(value)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        seconds = float(value)
    else:
        raise BodyError("`keep_alive` must be a duration or a number of seconds.")
    return math.inf if seconds < 0 or seconds >= _MOST_SECONDS else seconds


def _duration(text: str) -> float:
    match = _DURATION.fullmatch(text) if len(text) <= _LONGEST_DURATION else None
    if match is None:
        raise BodyError("`keep_alive` must be a duration such as 5m or 1h30m.")
    spans = re.findall(_SPAN, match["spans"] or "")
    seconds = math.fsum(float(number) * _UNITS[unit] for number, unit in spans)
    return -seconds if match["sign"] == "-" else seconds


def _messages(request: Mapping[str, object], conversation: str) -> list[dict[str, object]]:
    value = request.get(conversation)
    # The Responses API takes one message as plain text.
    if value is None or (conversation == "input" and isinstance(value, str)):
        return []
    if not isinstance(value, list) or any(not isinstance(item, dict) for item in value):
        raise BodyError(f"`{conversation}` must be a list of objects.")
    return value


def _own_images(holder: Mapping[str, object]) -> int:
    images = holder.get("images")
    if images is None:
        return 0
    if not isinstance(images, list) or any(not isinstance(image, str) for image in images):
        raise BodyError("`images` must be a list of strings.")
    return len(images)


def _images(message: Mapping[str, object]) -> int:
    """Count the images of a message, also those in the result of a tool."""
    count = _own_images(message)
    for parts in (message.get("content"), message.get("output")):
        if isinstance(parts, list):
            for part in parts:
                if isinstance(part, dict):
                    count += (part.get("type") in _IMAGE_PARTS) + _images(part)
    return count
