# SPDX-License-Identifier: GPL-3.0-or-later
"""Reads request bodies as the LLM servers do, or not at all.

A policy is fooled when it reads one model and the server runs another. So whatever two readers
could take in two ways is refused with a BodyError, and only the rest is judged. Pure functions of
bytes; strict_json and multipart read the syntax, structs knows the servers' fields, names, asked
and prompt take out what policy and audit need, shapes puts it together.
"""

from .asked import Asked
from .errors import BodyError
from .prompt import Prompt
from .shapes import SHAPES, Reading, read_body

__all__ = ("SHAPES", "Asked", "BodyError", "Prompt", "Reading", "read_body")
