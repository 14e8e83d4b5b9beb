# SPDX-License-Identifier: GPL-3.0-or-later
"""Tiers: named sets of limits that keys refer to. Read strictly, for a misspelt limit is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from .keys import is_tier_name


class TierError(ValueError):
    """A tier is not acceptable. The text names tier and limit, and repeats no value."""


@dataclass(frozen=True, slots=True)
class Tier:
    """What the holder of a key may ask for. None: no limit.

    The ceilings judge what a request says. What it leaves unsaid is for the LLM server's own
    defaults to bound.
    """

    name: str
    # The steady pace, and how many more may come at once (nginx: burst with nodelay)
    requests_per_minute: int | None = None
    burst: int | None = None
    # Requests under way at a time
    parallel_requests: int | None = None
    # From midnight to midnight, UTC
    requests_per_day: int | None = None
    max_body_bytes: int | None = None
    # Code points of everything in the body that the model reads
    max_prompt_characters: int | None = None
    # Tokens of one answer (Ollama: num_predict), and of prompt and answer together (num_ctx)
    max_output_tokens: int | None = None
    max_context_tokens: int | None = None
    # How long the model may stay in memory afterwards
    max_keep_alive_seconds: int | None = None
    # Answers to one prompt
    max_choices: int | None = None
    max_messages: int | None = None
    max_images: int | None = None


# Smallest and largest sensible value. The bounds keep a typing error from turning a limit off;
# what may be 0 forbids something without making the tier useless.
_BOUNDS: Mapping[str, tuple[int, int]] = {
    # 10,000 a second: one more would be lost in the rounding to whole microseconds
    "requests_per_minute": (1, 600_000),
    "burst": (0, 1_000_000),
    "parallel_requests": (1, 100_000),
    "requests_per_day": (1, 1_000_000_000),
    "max_body_bytes": (1, 1024**3),
    "max_prompt_characters": (1, 1024**3),
    "max_output_tokens": (1, 1_000_000_000),
    "max_context_tokens": (1, 1_000_000_000),
    "max_keep_alive_seconds": (0, 366 * 86400),
    "max_choices": (1, 1_000_000),
    "max_messages": (1, 1_000_000),
    "max_images": (0, 1_000_000),
}
LIMITS = tuple(field.name for field in fields(Tier) if field.name != "name")


def parse_tiers(raw: object) -> Mapping[str, Tier]:
    """Return the tiers that ``raw`` ({name: {limit: number or null}}) describes.

    Raises TierError.
    """
    if not isinstance(raw, Mapping) or not raw:
        raise TierError("must be an object with at least one tier")
    for name in raw:
        if not is_tier_name(name):
            raise TierError(
                "a tier's name must be 1 to 63 of a-z 0-9 . _ - and start with a letter or digit"
            )
    return {str(name): _parse_tier(str(name), limits) for name, limits in raw.items()}


def _parse_tier(name: str, raw: object) -> Tier:
    if not isinstance(raw, Mapping):
        raise TierError(f"{name}: must be an object of limits")
    if not raw.keys() <= set(LIMITS):
        raise TierError(f"{name}: has an unknown limit; there are {', '.join(LIMITS)}")
    tier = Tier(name, **{limit: _parse_limit(name, limit, raw[limit]) for limit in raw})
    if tier.burst is not None and tier.requests_per_minute is None:
        raise TierError(f"{name}.burst: is nothing without requests_per_minute")
    return tier


def _parse_limit(name: str, limit: str, value: object) -> int | None:
    low, high = _BOUNDS[limit]
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise TierError(f"{name}.{limit}: must be a whole number from {low} to {high}, or null")
    return int(value)
