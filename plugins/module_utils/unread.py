# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What stands in the place of a fact that could not be read."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("Unread",)


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands for something that could not be read. `harmless` where it cannot be there at all."""

    why: str
    harmless: bool = False
