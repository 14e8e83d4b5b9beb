# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The options that say what the firewall of an LLM host does."""

from __future__ import annotations


class ModuleDocFragment:
    DOCUMENTATION = r"""
options:
  backend:
    description: What the rules are made with.
    type: str
    choices: [nftables, iptables]
    default: nftables
  policy:
    description:
      - What the rules do, or must do. M(llmsec.hardening.firewall_ruleset) needs none to remove
        them.
    type: dict
    suboptions:
      guards:
        description: TCP ports that only some may reach over the network.
        type: list
        elements: dict
        default: []
        suboptions:
          port:
            description: The port.
            type: int
            required: true
          title:
            description: What stands in the rule's comment.
            type: str
            required: true
          sources:
            description: Addresses and networks, of IPv4 and IPv6. None means nobody.
            type: list
            elements: str
            default: []
      default:
        description:
          - What becomes of all else that comes over the network. V(accept) leaves it to the host's
            other rules. With V(drop) only replies, ICMP and answers of DHCPv6 come in.
        type: str
        choices: [accept, drop]
        default: accept
      loopback:
        description: TCP ports that only some local users may reach from the host itself.
        type: list
        elements: dict
        default: []
        suboptions:
          port:
            description: The port.
            type: int
            required: true
          title:
            description: What stands in the rule's comment.
            type: str
            required: true
          users:
            description: Names of users. Those that the host does not have are left out.
            type: list
            elements: str
            default: []
      egress:
        description: What processes of one user may reach.
        type: dict
        suboptions:
          user:
            description: Name of the user.
            type: str
            required: true
          restrict:
            description: Allow nothing but loopback, replies, and what O(policy.egress.allow) names.
            type: bool
            default: true
          metadata:
            description: Allow no link-local and no cloud metadata address.
            type: bool
            default: true
          allow:
            description: Destinations that stay open.
            type: list
            elements: dict
            default: []
            suboptions:
              destination:
                description: Address or network.
                type: str
                required: true
              port:
                description: The port.
                type: int
                required: true
              protocol:
                description: The protocol.
                type: str
                choices: [tcp, udp]
                default: tcp
"""
