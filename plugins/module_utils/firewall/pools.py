# Copyright: (c) 2026, llmsec.hardening contributors
# GNU General Public License v3.0+ (see COPYING or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Elements of sets and maps, indexed so that a look-up among 100,000 of them costs a bisection."""

from __future__ import annotations

import typing as t
from bisect import bisect_right
from collections.abc import Iterable, Sequence

from ansible_collections.llmsec.hardening.plugins.module_utils.firewall.numbers import Region

__all__ = ("ANYTHING", "Hits", "Pool")

# A look-up: the indices of the elements that hold the value
_Finder = t.Callable[[t.Any], Sequence[int]]
Value = int | None | tuple[int | None, ...]  # None: not known


class Hits(t.NamedTuple):
    """What a look-up may find: the data of every element it may hit, and whether it may miss."""

    data: tuple[t.Any, ...]
    may_miss: bool


class Pool:
    """An immutable set (data is None) or map of ranges, in one dimension or several.

    `catchall` holds the data of the element `*` (an empty tuple: there is none). With
    `incomplete`, there are elements we could not read: whatever is not found may be among those.
    """

    def __init__(
        self,
        elements: Iterable[tuple[Region, ...]],
        data: Sequence[t.Any] | None = None,
        catchall: tuple[t.Any, ...] = (),
        incomplete: bool = False,
    ) -> None:
        boxes = list(elements)
        self._data = data
        self._catchall = catchall
        self.incomplete = incomplete
        self._size = len(boxes)
        self._find: _Finder
        if all(len(box) == 1 for box in boxes):
            self._boxes = None
            self._find = _line([box[0] for box in boxes], mergeable=data is None)
        else:
            self._boxes = boxes
            self._find = _space(boxes)

    def __len__(self) -> int:
        return self._size

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
            all(part is None or low <= part <= high for part, (low, high) in zip(parts, box, strict=False))
            for box in self._boxes
        )
        return None if fits else False


def _line(ranges: list[Region], *, mergeable: bool) -> _Finder:
    """Index ranges of one dimension."""
    order = sorted(range(len(ranges)), key=ranges.__getitem__)
    starts: list[int] = []
    ends: list[int] = []
    indices: list[tuple[int]] = []
    for index in order:
        low, high = ranges[index]
        if ends and low <= ends[-1]:
            if not mergeable:
                return _scan([(each,) for each in ranges])
            ends[-1] = max(ends[-1], high)
            continue
        starts.append(low)
        ends.append(high)
        indices.append((index,))

    def find(value: int) -> Sequence[int]:
        at = bisect_right(starts, value) - 1
        return indices[at] if at >= 0 and value <= ends[at] else ()

    return find


def _scan(boxes: list[tuple[Region, ...]]) -> _Finder:
    def find(value: t.Any) -> Sequence[int]:
        parts = value if isinstance(value, tuple) else (value,)
        return [index for index, box in enumerate(boxes) if _inside(parts, box)]

    return find


def _inside(parts: Sequence[int], box: Sequence[Region]) -> bool:
    return len(parts) == len(box) and all(
        low <= part <= high for part, (low, high) in zip(parts, box, strict=False)
    )


def _space(boxes: list[tuple[Region, ...]]) -> _Finder:
    """Index boxes: a dictionary for points, buckets along the axis with the most single values.

    Boxes may overlap, and which of them the kernel takes is not ours to say: all are returned.
    """
    dimensions = min(len(box) for box in boxes)
    singles = [sum(box[d][0] == box[d][1] for box in boxes) for d in range(dimensions)]
    axis = max(range(dimensions), key=singles.__getitem__)
    points: dict[tuple[int, ...], list[int]] = {}
    buckets: dict[int, list[int]] = {}
    ranged: list[int] = []
    for index, box in enumerate(boxes):
        if all(low == high for low, high in box):
            points.setdefault(tuple(low for low, _high in box), []).append(index)
        elif box[axis][0] == box[axis][1]:
            buckets.setdefault(box[axis][0], []).append(index)
        else:
            ranged.append(index)

    def find(parts: tuple[int, ...]) -> Sequence[int]:
        found = list(points.get(parts, ()))
        if buckets:
            found += [i for i in buckets.get(parts[axis], ()) if _inside(parts, boxes[i])]
        return found + [i for i in ranged if _inside(parts, boxes[i])]

    return find


ANYTHING = Pool([], catchall=(None,))
