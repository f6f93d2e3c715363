"""Failures: the first failures of a run, a bounded number of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from prefect_dask_core.runners.digests import FailureText

#: Failures that a run keeps of a task, and at all. With those of all tasks beyond that
#: it keeps fewer of each task, so that every task that fails is seen.
MOST_FAILURES: Final = 20
MOST_KEPT: Final = 500


class Failure(NamedTuple):
    """One failure: the node, the worker, and what was told of it."""

    node: int
    mapped: bool
    worker: str
    text: FailureText

    @property
    def place(self) -> tuple[int, int]:
        """Node and index of what failed: there is one failure at each place."""
        return self.node, self.text.child


class Failures:
    """The failures that are kept of one run; the same in any order of messages.

    Examples
    --------
    >>> found = Failures()
    >>> text = FailureText(0, 3, 1, 5.0, "no", "", "")
    >>> for child in range(30):
    ...     found.add(0, [Failure(7, True, "", text._replace(child=child))])
    >>> [failure.text.child for failure in found][-2:]
    [18, 19]
    """

    def __init__(self) -> None:
        self._of_task: dict[int, list[Failure]] = {}
        self._most = MOST_FAILURES
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Failure]:
        """By node and index."""
        found = [failure for kept in self._of_task.values() for failure in kept]
        return iter(sorted(found, key=lambda failure: failure.place))

    def add(self, task: int, found: Sequence[Failure]) -> None:
        """Keep failures of a task, if they are among the first."""
        kept = self._of_task.setdefault(task, [])
        before = len(kept)
        kept += found
        kept.sort(key=lambda failure: failure.place)
        del kept[self._most :]
        self._count += len(kept) - before
        while self._count > MOST_KEPT and self._most > 1:
            self._most //= 2
            for some in self._of_task.values():
                del some[self._most :]
            self._count = sum(map(len, self._of_task.values()))
        if self._count > MOST_KEPT:
            last = max(self._of_task, key=lambda n: self._of_task[n][0].place)
            self._count -= len(self._of_task.pop(last))
