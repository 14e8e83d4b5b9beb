# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Texts that come from assessed hosts, made fit for a report.

A host may be hostile, and a report is read in a terminal, a browser, a merge request and by XML
parsers. So each text is cleaned once, before anything is rendered: no secrets, no characters that
are invisible or steer a terminal, no endless lines. Escaping is the renderers' own affair.
"""

from __future__ import annotations

import re
import unicodedata

__all__ = ("EVIDENCE_LINES", "LINE", "clean", "clean_lines", "cut", "one_line", "printable")

# Longest text of one field, and of one line of evidence, in characters.
LINE = 300
_FIELD = 2000
EVIDENCE_LINES = 20

_SECRETS = (
    (re.compile(r"llmk_[0-9A-Za-z]{8,}"), "llmk_(redacted)"),
    (
        re.compile(r"(?i)(authorization\s*[:=]\s*[\"']?(?:bearer|basic)?\s*)[^\s\"',;]{4,}"),
        r"\1(redacted)",
    ),
    (re.compile(r"(?i)(x-api-key\s*[:=]\s*[\"']?)[^\s\"',;]{4,}"), r"\1(redacted)"),
    (
        re.compile(r"(-----BEGIN [A-Z ]*PRIVATE KEY-----).*?(-----END|\Z)", re.DOTALL),
        r"\1 (redacted) \2",
    ),
)


def _visible(character: str) -> str:
    # Cc: escape sequences; Cf: direction overrides and zero-width characters, which make a text
    # read differently from what it is; Cs, Co, Cn: what XML and UTF-8 encoders refuse.
    if character in "\n\t" or unicodedata.category(character) not in {"Cc", "Cf", "Cs", "Co", "Cn"}:
        return character
    return "\N{REPLACEMENT CHARACTER}"


def cut(text: str, limit: int) -> str:
    """Return at most `limit` characters, the last three of them dots when some are missing."""
    return text if len(text) <= limit else text[: limit - 3] + "..."


def clean(value: object, limit: int = _FIELD) -> str:
    """Return any value as text without secrets, control characters and excess length."""
    # What is cut off anyway is not looked at, but a secret must not begin before the cut.
    text = ("" if value is None else str(value))[: 4 * limit]
    text = text.replace("\r\n", "\n")
    for pattern, replacement in _SECRETS:
        text = pattern.sub(replacement, text)
    if not text.isascii() or not text.isprintable():
        text = "".join(map(_visible, text))
    return cut(text, limit)


def clean_lines(value: object) -> list[str]:
    """Return evidence, a text or a list of texts, as a bounded list of lines."""
    lines = value if isinstance(value, list | tuple) else [] if value is None else [value]
    # As one text, because a private key takes several lines.
    whole = clean("\n".join(map(str, lines)), 4 * LINE * EVIDENCE_LINES)
    found = [cut(line, LINE) for line in whole.split("\n")] if whole else []
    if len(found) > EVIDENCE_LINES:
        more = len(found) - EVIDENCE_LINES + 1
        found[EVIDENCE_LINES - 1 :] = [f"({more} more lines)"]
    return found


def one_line(text: str) -> str:
    """Return the text with all white space as single spaces."""
    return " ".join(text.split())


def printable(text: str) -> str:
    """Return the text in one line of printable ASCII; what is not is written as an escape."""
    return one_line(text).encode("ascii", "backslashreplace").decode("ascii")
