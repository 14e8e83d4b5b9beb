# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elements of sets and maps, indexed so that a look-up among 100,000 of them costs a bisection."""

from __future__ import annotations

import typing as t
from bisect import bisect_right
from collections.abc import Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.numbers import Region

__all__ = ("ANYTHING", "Hits", "Pool")

# A look-up: the indices of the elements that hold the value
_Finder = t.Callable[[t.Any], Sequence[int]]
Value = t.Union[int, None, tuple[t.Optional[int], ...]]  # noqa: UP007, UP045 - None: not known


class Hits(t.NamedTuple):
    """What a look-up may find: the data of every element it may hit, and whether it may miss."""

    data: tuple[t.Any, ...]
    may_miss: bool


class Pool:
    """An immutable set (data is None) or map of ranges, in one dimension or several.

    Elements are ranges, or in several dimensions tuples of ranges. `catchall` holds the data of the
    element `*` (an empty tuple: there is none). With `incomplete`, there are elements we could not
    read: whatever is not found may be among those.
    """

    __slots__ = ("_boxes", "_catchall", "_data", "_find", "_size", "incomplete")

    def __init__(
        self,
        elements: Sequence[t.Any],
        *,
        dimensions: int = 1,
        data: Sequence[t.Any] | None = None,
        catchall: tuple[t.Any, ...] = (),
        incomplete: bool = False,
    ) -> None:
        self._data = data
        self._catchall = catchall
        self._size = len(elements)
        self.incomplete = incomplete
        self._find: _Finder
        if dimensions == 1:
            self._boxes = None
            self._find = _line(elements, mergeable=data is None)
        else:
            self._boxes = elements
            self._find = _space(elements)

    def contains(self, value: Value) -> bool | None:
        """Say whether the value is an element; None when that is not known."""
        if self._catchall:
            return True
        if value is None or (isinstance(value, tuple) and None in value):
            return self._contains_unknown(value)
        if self._find(value):
            return True
        return None if self.incomplete else False

    def look_up(self, value: Value) -> Hits:
        """Return the data the value may be mapped to."""
        data = self._data or ()
        if value is None or (isinstance(value, tuple) and None in value):
            return Hits((*data, *self._catchall), not self._catchall)
        found = self._find(value)
        if found:
            return Hits(tuple(data[index] for index in found), False)
        return Hits(self._catchall, self.incomplete or not self._catchall)

    def _contains_unknown(self, value: Value) -> bool | None:
        """Say no where even the known parts of a concatenation fit no element."""
        if self.incomplete:
            return None
        if self._boxes is None:
            return None if self._size else False
        parts = t.cast("tuple[int | None, ...]", value)
        fits = any(
            all(
                part is None or low <= part <= high
                for part, (low, high) in zip(parts, box, strict=False)
            )
            for box in self._boxes
        )
        return None if fits else False


def _line(ranges: Sequence[Region], *, mergeable: bool) -> _Finder:
    """Index ranges of one dimension."""
    if len(ranges) == 1:
        ((first, last),) = ranges
        return lambda value: (0,) if first <= value <= last else ()
    order = sorted(range(len(ranges)), key=ranges.__getitem__)
    starts: list[int] = []
    ends: list[int] = []
    for index in order:
        low, high = ranges[index]
        if ends and low <= ends[-1]:
            if not mergeable:
                return lambda value: [i for i, (a, z) in enumerate(ranges) if a <= value <= z]
            ends[-1] = max(ends[-1], high)
            # Of a set, only the number of elements found is ever asked.
            continue
        starts.append(low)
        ends.append(high)

    def find(value: int) -> Sequence[int]:
        at = bisect_right(starts, value) - 1
        return (order[at],) if at >= 0 and value <= ends[at] else ()

    return find


def _space(boxes: Sequence[tuple[Region, ...]]) -> _Finder:
    """Index boxes: a dictionary for points, buckets along the axis with the most single values.

    Boxes may overlap, and which of them the kernel takes is not ours to say: all are returned.
    """
    points: dict[tuple[int, ...], list[int]] = {}
    wide: list[int] = []
    for index, box in enumerate(boxes):
        lows, highs = zip(*box, strict=True)
        if lows == highs:
            points.setdefault(lows, []).append(index)
        else:
            wide.append(index)
    axis = _best_axis([boxes[index] for index in wide])
    buckets: dict[int, list[int]] = {}
    ranged: list[int] = []
    for index in wide:
        low, high = boxes[index][axis]
        (buckets.setdefault(low, []) if low == high else ranged).append(index)

    def find(parts: tuple[int, ...]) -> Sequence[int]:
        found = list(points.get(parts, ()))
        if wide:
            found += [i for i in buckets.get(parts[axis], ()) if _inside(parts, boxes[i])]
            found += [i for i in ranged if _inside(parts, boxes[i])]
        return found

    return find


def _best_axis(boxes: Sequence[tuple[Region, ...]]) -> int:
    """Return the dimension in which most of the boxes have a single value."""
    if not boxes:
        return 0
    singles = [sum(box[axis][0] == box[axis][1] for box in boxes) for axis in range(len(boxes[0]))]
    return max(range(len(singles)), key=singles.__getitem__)


def _inside(parts: Sequence[int], box: Sequence[Region]) -> bool:
    return all(low <= part <= high for part, (low, high) in zip(parts, box, strict=True))


ANYTHING = Pool([], catchall=(None,))
