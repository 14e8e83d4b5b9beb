# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What every module of this collection says about check mode, diff and platform.

A module extends the fragment and fills in C(support) itself, because no default is true for all::

    extends_documentation_fragment: [llmsec.hardening.attributes]
    attributes:
      check_mode: {support: full}
      diff_mode: {support: none}
      platform: {platforms: linux}
"""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and foretell changes without modifying the host.
  diff_mode:
    description: Returns what has changed, or would change in C(check_mode), when in diff mode.
  platform:
    description: Target operating systems the module works on.
    support: full
"""
