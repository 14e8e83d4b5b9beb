# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Judge live firewall rule sets without sending a packet: accepted, dropped, or not known.

Parsers of `nft -j list ruleset` and `iptables-save` build one model (rulesets); `combine` puts the
two views of one kernel together; `evaluate` follows a packet through it. Nothing here touches a
host. The kernel is the oracle of the tests (tests/kernel).
"""
