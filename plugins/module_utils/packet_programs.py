# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What takes packets before the kernel's own rules see them: XDP programs, filters of tc.

They may send a packet anywhere, and nobody can judge what they do. Names and layout are those of
if_link.h and rtnetlink.h in linux. A program that was attached as a link of tcx is not among them.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

from ansible_collections.llmsec.hardening.plugins.module_utils.netlink import attributes, dump

__all__ = ("packet_programs",)

_NETLINK_ROUTE = 0
_NEW_LINK, _GET_LINK = 16, 18
_NEW_QDISC, _GET_QDISC = 36, 38
_NEW_FILTER, _GET_FILTER = 44, 46
_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change
_TC = struct.Struct("=B3xiIII")  # tcmsg: family, index, handle, parent, info
_NAME, _XDP, _XDP_ATTACHED = 3, 43, 2
_KIND = 1
# Where these queues have filters: on the way in, clsact on the way out as well (pkt_sched.h)
_PARENTS = {"ingress": (0xFFFF0000,), "clsact": (0xFFFFFFF2, 0xFFFFFFF3)}


def packet_programs() -> list[str]:
    """Return one line for each. Raises OSError when the kernel does not say."""
    names, found = {}, []
    for kind, body in dump(_NETLINK_ROUTE, _GET_LINK, _LINK.pack(0, 0, 0, 0, 0)):
        if kind != _NEW_LINK:
            continue
        index = _LINK.unpack_from(body)[2]
        facts = attributes(body[_LINK.size :])
        names[index] = _text(facts.get(_NAME, b""))
        if any(attributes(facts.get(_XDP, b"")).get(_XDP_ATTACHED, b"")):
            found.append(f"an XDP program on {names[index]}")
    for kind, body in dump(_NETLINK_ROUTE, _GET_QDISC, _TC.pack(0, 0, 0, 0, 0)):
        index = _TC.unpack_from(body)[1]
        queue = _text(attributes(body[_TC.size :]).get(_KIND, b""))
        if kind == _NEW_QDISC and _has_filters(index, _PARENTS.get(queue, ())):
            found.append(f"filters of tc on {names.get(index, index)} ({queue})")
    return found


def _has_filters(index: int, parents: Iterable[int]) -> bool:
    questions = [_TC.pack(0, index, 0, parent, 0) for parent in parents]
    return any(
        kind == _NEW_FILTER
        for question in questions
        for kind, _body in dump(_NETLINK_ROUTE, _GET_FILTER, question)
    )


def _text(value: bytes) -> str:
    return value.rstrip(b"\0").decode("utf-8", "replace")
