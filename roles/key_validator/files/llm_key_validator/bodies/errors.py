# SPDX-License-Identifier: GPL-3.0-or-later
"""The one error of this package."""

from __future__ import annotations


class BodyError(ValueError):
    """A body that is not read. The text is one sentence fit for the client; it repeats no value."""
