"""Progress rows: how far each task of a running flow is."""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Final

from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.codes import STATE_BY_CODE
from prefect_dask_core.engine.views import RunView
from prefect_dask_core.monitor.watching import News

#: Seconds over which the present rate is taken.
WINDOW: Final = 10.0


@dataclass(slots=True)
class ProgressRow:
    """How far one task is.

    Parameters
    ----------
    name : str
        Name of the task.
    total : int
        Runs that are known of.
    unknown : int
        Mapped nodes of which the number of children is not known yet.
    done : int
        Runs that have ended.
    counts : Counter of str
        Ended runs by the name of their state's class.
    """

    name: str
    total: int = 0
    unknown: int = 0
    done: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    #: When how many had ended, lately.
    marks: deque[tuple[float, int]] = field(default_factory=deque)

    def is_over(self) -> bool:
        """Whether all that is known of has ended."""
        return self.done >= self.total and not self.unknown

    def mark(self, now: float) -> None:
        """Note how many have ended at a time, in seconds."""
        self.marks.append((now, self.done))
        while len(self.marks) > 2 and self.marks[1][0] <= now - WINDOW:
            self.marks.popleft()

    def rate(self) -> float | None:
        """Runs per second that ended lately; `None` while that cannot be told.

        Examples
        --------
        >>> row = ProgressRow("load", total=100)
        >>> row.mark(0.0); row.done = 30; row.mark(2.0)
        >>> row.rate(), row.seconds_left()
        (15.0, 4.666666666666667)
        """
        if len(self.marks) < 2:
            return None
        (since, before), (now, done) = self.marks[0], self.marks[-1]
        return (done - before) / (now - since) if now > since else None

    def seconds_left(self) -> float | None:
        """Seconds until the end at the present rate; `None` if that cannot be told."""
        rate = self.rate()
        if self.unknown or not rate:
            return None
        return (self.total - self.done) / rate


class ProgressRows:
    """Adds up what watchers are told, task by task.

    What the package made itself (lists of arguments) is left out.
    """

    def __init__(self) -> None:
        self._rows: dict[str, ProgressRow] = {}
        # Row by node; mapped nodes of which it is not known how many children.
        self._row_of: dict[int, ProgressRow] = {}
        self._open: set[int] = set()

    @property
    def rows(self) -> list[ProgressRow]:
        """One per task, in the order in which they came."""
        return list(self._rows.values())

    def take(self, view: RunView, news: News, now: float) -> None:
        """Take in what is new.

        Parameters
        ----------
        view : RunView
            The run.
        news : News
            What is new of it.
        now : float
            Seconds, of any clock that does not go back.
        """
        for node in news.nodes:
            if node.helper:
                continue
            row = self._rows.setdefault(node.name, ProgressRow(node.name))
            self._row_of[node.number] = row
            if node.mapped:
                row.unknown += 1
                self._open.add(node.number)
            else:
                row.total += 1
        for number in news.fan_outs:
            self._expand(number, view.children(number))
        for number, segment in news.segments:
            known = self._row_of.get(number)
            if known is None:
                continue
            if number in self._open:  # it could not be mapped, and ended as one run
                self._expand(number, None)
            known.done += len(segment)
            for code in set(segment.codes):
                name = STATE_BY_CODE[code].__name__
                known.counts[name] += segment.codes.count(code)
        for row in self._rows.values():
            if not row.is_over() or not row.marks or row.marks[-1][1] != row.done:
                row.mark(now)

    def _expand(self, number: int, children: Children | None) -> None:
        row = self._row_of.get(number)
        if row is None:
            return
        if number in self._open:
            self._open.discard(number)
            row.unknown -= 1
            row.total += 1 if children is None else len(children)
