# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Asks the kernel whether it holds any nf_tables table, on a host without the program nft.

Names and layout are those of nfnetlink.h and nf_tables.h in linux/netfilter. Needs CAP_NET_ADMIN.
"""

from __future__ import annotations

from ansible_collections.llmsec.hardening.plugins.module_utils.netlink import dump

__all__ = ("holds_tables",)

_NETLINK_NETFILTER = 12
_NEW_TABLE, _GET_TABLE = 10 << 8, 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES
_ALL_FAMILIES = bytes(4)  # nfgenmsg: family, version, resource


def holds_tables() -> bool:
    """Say whether there is a table of any family. Raises OSError when the kernel does not say."""
    tables = dump(_NETLINK_NETFILTER, _GET_TABLE, _ALL_FAMILIES)
    return _NEW_TABLE in [kind for kind, _body in tables]
