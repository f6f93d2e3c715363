"""Spans: which children of a node were told of, in few numbers."""

from __future__ import annotations

from bisect import bisect_left


class Spans:
    """Disjoint ranges of indices; those that touch are one.

    Examples
    --------
    >>> spans = Spans()
    >>> spans.add(0, 10), spans.add(20, 30), spans.add(10, 20), spans.add(5, 6)
    (True, True, True, False)
    >>> spans.ranges
    [(0, 30)]
    """

    __slots__ = ("ranges",)

    def __init__(self) -> None:
        self.ranges: list[tuple[int, int]] = []

    def add(self, start: int, stop: int) -> bool:
        """Add a range; whether none of it was there before.

        A range that overlaps is not added: what is told of it is not known apart.
        """
        ranges = self.ranges
        at = bisect_left(ranges, (start, start))
        if at and ranges[at - 1][1] > start:
            return False
        if at < len(ranges) and ranges[at][0] < stop:
            return False
        begin, end = at, at
        if at and ranges[at - 1][1] == start:
            begin, start = at - 1, ranges[at - 1][0]
        if at < len(ranges) and ranges[at][0] == stop:
            end, stop = at + 1, ranges[at][1]
        ranges[begin:end] = [(start, stop)]
        return True
