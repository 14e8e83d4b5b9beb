# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Put the views of one kernel together: nft's, and those of the iptables commands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.rulesets import (
    Ruleset,
    Table,
)

__all__ = ("combine",)


def combine(nft: Ruleset, iptables: Iterable[Ruleset]) -> Ruleset:
    """Return one rule set of `nft list ruleset` and any number of iptables-save outputs.

    nft shows the tables of iptables-nft with matches it cannot read: their rules are taken from
    iptables-save, hook and priority from nft. Legacy tables, which nft does not show, are added: a
    packet must pass them as well. The gap that an iptables-save warned of ("legacy tables present")
    closes when legacy tables of its family are given.
    """
    given = list(iptables)
    saved = [table for ruleset in given for table in ruleset.tables]
    native = {(table.family, table.name): table for table in nft.tables}
    for table in saved:
        if table.tool == "iptables" and (table.family, table.name) in native:
            key = table.family, table.name
            native[key] = _merge(native[key], table)
    beside = [
        table
        for table in saved
        if table.tool == "iptables-legacy" or (table.family, table.name) not in native
    ]
    seen = {table.family for table in saved if table.tool == "iptables-legacy"}
    gaps = [gap for ruleset in (nft, *given) for gap in ruleset.gaps]
    closed = {f"legacy tables of family {family}" for family in seen}
    return Ruleset(
        (*native.values(), *beside), tuple(gap for gap in dict.fromkeys(gaps) if gap not in closed)
    )


def _merge(native: Table, saved: Table) -> Table:
    """Return nft's table with the rules of iptables-save; chains it does not show stay as nft's."""
    chains = dict(native.chains)
    for name, chain in saved.chains.items():
        place = native.chains.get(name)
        if place is None:
            # A built-in chain without rules: iptables-save shows it, the kernel has no hook for it.
            chains[name] = replace(chain, hook=None)
        else:
            chains[name] = replace(
                chain,
                hook=place.hook,
                priority=place.priority,
                kind=place.kind,
                policy=place.policy,
            )
    return replace(native, chains=chains, tool="iptables")
