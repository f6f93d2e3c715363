"""Layouts: which blocks of a fan-out hold which children, and which elements.

The elements of a fan-out that is flattened are counted through: those of its first
block come first. So a reader of some of them needs only the blocks they lie in.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

from prefect_dask_core.engine.children import Children


class Layout(NamedTuple):
    """The blocks of a fan-out, in the order of their children.

    Parameters
    ----------
    blocks : sequence of int
        Their numbers.
    spans : sequence of (int, int)
        Children that each of them holds.
    elements : sequence of (int, int)
        Elements that each of them holds, once flattened. Those of blocks of which
        nobody has counted them are none.
    """

    blocks: Sequence[int]
    spans: Sequence[tuple[int, int]]
    elements: Sequence[tuple[int, int]]

    def holding(self, span: tuple[int, int]) -> range:
        """Positions of the blocks that hold some children.

        Examples
        --------
        >>> layout = Layout([4, 9, 5], [(0, 6), (6, 8), (8, 10)], [(0, 0)] * 3)
        >>> layout.holding((7, 9)), layout.holding((0, 1))
        (range(1, 3), range(0, 1))
        """
        return _overlapping(self.spans, span)

    def giving(self, span: tuple[int, int]) -> list[int]:
        """Positions of the blocks that give some elements.

        Examples
        --------
        >>> elements = [(0, 3), (3, 3), (3, 9)]
        >>> layout = Layout([4, 9, 5], [(0, 6), (6, 8), (8, 9)], elements)
        >>> layout.giving((2, 4)), layout.giving((3, 4))
        ([0, 2], [2])
        """
        found = _overlapping(self.elements, span)
        return [n for n in found if self.elements[n][0] < self.elements[n][1]]


def _overlapping(spans: Sequence[tuple[int, int]], other: tuple[int, int]) -> range:
    """Positions of the spans that share something with another; ordered both ways."""
    first = bisect_right(spans, other[0], key=_stop_of)
    last = bisect_left(spans, other[1], lo=first, key=_start_of)
    return range(first, last)


def _start_of(span: tuple[int, int]) -> int:
    return span[0]


def _stop_of(span: tuple[int, int]) -> int:
    return span[1]


def lay_out(
    children: Children, blocks: Iterable[tuple[int, tuple[int, int]]]
) -> Layout:
    """The layout of a fan-out.

    Parameters
    ----------
    children : Children
        What is known of its children.
    blocks : iterable of (int, (int, int))
        Number and children of each of its blocks, in any order.
    """
    ordered = sorted(blocks, key=lambda block: block[1])
    spans = [span for _, span in ordered]
    ends = list(accumulate((_count(children, span) for span in spans), initial=0))
    elements = list(pairwise(ends))
    return Layout([number for number, _ in ordered], spans, elements)


def _count(children: Children, span: tuple[int, int]) -> int:
    """Elements of a block's children, as they were counted for their readers."""
    found = children.locate(span[0])
    return 0 if found is None else found[0].flat_length or 0
