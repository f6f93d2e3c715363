"""Bars: when blocks ran, as a bounded number of bars.

A bar is a block, or several short ones close together: as soon as there are too many
bars, those that are shorter than a grid are joined within each cell of it, and the grid
doubles until few enough are left. If there are too many rows, threads of a worker, then
workers, then tasks share one. The result does not depend on the order in which blocks
are told.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

#: The finest grid, in seconds: a power of two, so that halves are exact.
FINEST: Final = 2.0**-10
#: Bars that are kept at least: two rows, work and waits, on both sides of an edge of
#: the grid. With fewer the grid would double without end.
LEAST: Final = 4


class Row(NamedTuple):
    """Where a bar is drawn, and what it shows.

    Parameters
    ----------
    worker : str
        Address of the worker.
    thread : int
        Thread of the worker.
    task : int
        Number of the task in its run; -1 if it is not known.
    position, of : int
        Which of how many nodes that take turns in one block; 0 and 1 where a block
        runs one node after the other, 0 and 0 of a wait.
    """

    worker: str
    thread: int
    task: int
    position: int
    of: int


class Bar(NamedTuple):
    """One bar.

    Parameters
    ----------
    begin, end : float
        Seconds since the epoch.
    blocks, children : int
        How many it stands for.
    retries, failures : int
        Attempts beyond the first; children that failed.
    busy : float
        Seconds of work.
    """

    begin: float
    end: float
    blocks: int
    children: int
    retries: int
    failures: int
    busy: float

    def joined(self, other: Bar) -> Bar:
        """Both bars as one."""
        # Plain nodes are joined one by one: `min` and `max` would take twice as long.
        return Bar(
            self.begin if self.begin < other.begin else other.begin,
            self.end if self.end > other.end else other.end,
            self.blocks + other.blocks,
            self.children + other.children,
            self.retries + other.retries,
            self.failures + other.failures,
            self.busy + other.busy,
        )


#: What is told apart of rows, less and less.
_FOLDS: Final[tuple[Callable[[Row], Row], ...]] = (
    lambda row: row,
    lambda row: row._replace(thread=0),
    lambda row: row._replace(worker="", thread=0),
    lambda row: Row("", 0, 0, 0, min(row.of, 1)),
)
#: Marks a key of joined bars.
_JOINED: Final = -1.0


class Bars:
    """The bars of one run.

    Parameters
    ----------
    most : int
        Bars that are kept; at least `LEAST`.

    Examples
    --------
    >>> bars = Bars(most=4)
    >>> row = Row("tcp://10.0.0.1:1", 7, 0, 0, 1)
    >>> for second in range(8):
    ...     bars.add(row, Bar(second, second + 0.5, 1, 10, 0, 0, 0.5))
    >>> [(bar.begin, bar.end, bar.blocks) for _, bar in bars]
    [(0, 1.5, 2), (2, 3.5, 2), (4, 5.5, 2), (6, 7.5, 2)]
    """

    def __init__(self, most: int) -> None:
        self.most = max(LEAST, most)
        self.grid = FINEST
        self._fold = 0
        self._rows: set[Row] = set()
        self._bars: dict[tuple[Row, float, float], Bar] = {}

    def __len__(self) -> int:
        return len(self._bars)

    def __iter__(self) -> Iterator[tuple[Row, Bar]]:
        for (row, _, _), bar in self._bars.items():
            yield row, bar

    def add(self, row: Row, bar: Bar) -> None:
        """Add a bar."""
        row = _FOLDS[self._fold](row)
        if row not in self._rows:
            self._rows.add(row)
            self._fold_rows()
            row = _FOLDS[self._fold](row)
        if bar.end - bar.begin < self.grid:
            self._put((row, math.floor(bar.begin / self.grid), _JOINED), bar)
        else:
            self._put((row, bar.begin, bar.end), bar)
        while len(self._bars) > self.most:
            self._coarsen()

    def _put(self, key: tuple[Row, float, float], bar: Bar) -> None:
        known = self._bars.get(key)
        self._bars[key] = bar if known is None else known.joined(bar)

    def _fold_rows(self) -> None:
        """Let more share a row, until every row has room for two bars."""
        while len(self._rows) > self.most // 2 and self._fold + 1 < len(_FOLDS):
            self._fold += 1
            fold = _FOLDS[self._fold]
            self._rows = set(map(fold, self._rows))
            before, self._bars = self._bars, {}
            for (row, begin, end), bar in before.items():
                self._put((fold(row), begin, end), bar)

    def _coarsen(self) -> None:
        self.grid *= 2
        before, self._bars = self._bars, {}
        for (row, begin, end), bar in before.items():
            if end == _JOINED:
                # Stays in the cell of its first begin, however long it has grown.
                self._put((row, math.floor(begin / 2), _JOINED), bar)
            elif end - begin < self.grid:
                self._put((row, math.floor(begin / self.grid), _JOINED), bar)
            else:
                self._put((row, begin, end), bar)
