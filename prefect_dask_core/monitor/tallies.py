"""Tallies: what became of the runs of one task, and how fast they end.

Plain counting, without clock and without Dask.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from prefect_dask_core.engine.codes import COMPLETED, STATE_BY_CODE
from prefect_dask_core.monitor.spans import Spans
from prefect_dask_core.runners.digests import UNSUCCESSFUL, Digest, duration_power
from prefect_dask_core.states import TriggerFailed

#: Name of each state by its code.
NAMES: Final = tuple(cls.__name__ for cls in STATE_BY_CODE)
#: Code of what its trigger refused, and codes of what failed or crashed by itself.
REFUSED: Final = STATE_BY_CODE.index(TriggerFailed)
FAILED: Final = UNSUCCESSFUL - {REFUSED}
#: Seconds over which the present rate is taken, and for which ends are counted.
RECENT, COUNTED = 10, 30


@dataclass(slots=True)
class TaskTally:
    """What became of the nodes and children of one task.

    Parameters
    ----------
    name : str
        Name of the task.
    nodes : int
        Nodes, constants left out.
    length : int
        Task runs there are, as far as lengths are known.
    unknown : int
        Fan-outs whose length is not known yet.
    counts : Counter
        Ended runs by the code of their state.
    retried, attempts : int
        Runs with more than one attempt; attempts beyond the first.
    begin, end : float
        First begin and last end; 0.0 if nothing has run.
    busy : float
        Seconds of work.
    durations : Counter
        Runs by the power of two in seconds that their duration stays below.
    recent : Counter
        Runs by the second of their end, the last `COUNTED` seconds.
    """

    name: str
    nodes: int = 0
    length: int = 0
    unknown: int = 0
    counts: Counter[int] = field(default_factory=Counter)
    retried: int = 0
    attempts: int = 0
    begin: float = 0.0
    end: float = 0.0
    busy: float = 0.0
    durations: Counter[int] = field(default_factory=Counter)
    recent: Counter[int] = field(default_factory=Counter)

    @property
    def done(self) -> int:
        """Runs that have ended."""
        return self.counts.total()

    @property
    def failed(self) -> int:
        """Runs that failed or crashed by themselves; not what its trigger refused."""
        return sum(self.counts[code] for code in FAILED)

    def take(self, digest: Digest) -> None:
        """Add what became of some runs."""
        self.counts.update(dict(digest.counts))
        self.retried += digest.retried
        self.attempts += digest.attempts
        self.durations.update(dict(digest.durations))
        self.busy += digest.busy
        if digest.begin:
            self.begin = min(self.begin or digest.begin, digest.begin)
        if digest.end:
            self.end = max(self.end, digest.end)
            self._count_end(digest.end, digest.stop - digest.start)

    def take_completed(self, begin: float, end: float) -> None:
        """Add a run that completed at its first attempt."""
        self.counts[COMPLETED] += 1
        self.durations[duration_power(end - begin)] += 1
        self.busy += end - begin
        if not self.begin or begin < self.begin:
            self.begin = begin
        if end > self.end:
            self.end = end
        self._count_end(end, 1)

    def _count_end(self, end: float, count: int) -> None:
        second = int(end)
        if second in self.recent:
            self.recent[second] += count
            return
        self.recent[second] = count
        oldest = max(self.recent) - COUNTED
        for second in [s for s in self.recent if s <= oldest]:
            del self.recent[second]


@dataclass(slots=True)
class FanOut:
    """What became of the children of one node.

    Parameters
    ----------
    length : int or None
        Children there are; `None` if not known yet.
    counts : Counter
        Ended children by the code of their state.
    seen : Spans
        Children that were told of.
    """

    length: int | None = None
    counts: Counter[int] = field(default_factory=Counter)
    seen: Spans = field(default_factory=Spans)


def rate_of(tallies: Sequence[TaskTally], now: float) -> float | None:
    """Task runs that end per second, at present.

    Parameters
    ----------
    tallies : sequence of TaskTally
        Of the tasks that are looked at.
    now : float
        Seconds since the epoch.

    Returns
    -------
    float or None
        That of the last seconds; if hardly any ended in them, that since the first
        began. `None` if nothing has ended.
    """
    begin = min((t.begin for t in tallies if t.begin), default=0.0)
    done = sum(t.done for t in tallies)
    if not begin or not done:
        return None
    second = int(now)
    recent = sum(
        count
        for tally in tallies
        for when, count in tally.recent.items()
        if second - RECENT < when <= second
    )
    if recent >= RECENT / 2:
        # The first of these seconds counts whole, the present one as far as it went.
        return recent / max(0.1, min(now - begin, RECENT - 1 + now - second))
    return done / max(0.1, now - begin)


def seconds_left(tallies: Sequence[TaskTally], now: float) -> float | None:
    """Seconds until all known runs have ended, at the present rate.

    Returns
    -------
    float or None
        `None` if a length or the rate is not known. 0.0 if nothing is left.
    """
    if any(tally.unknown for tally in tallies):
        return None
    left = sum(tally.length - tally.done for tally in tallies)
    if left <= 0:
        return 0.0
    rate = rate_of(tallies, now)
    return left / rate if rate else None


def typical_seconds(tally: TaskTally) -> float | None:
    """Duration that half of the runs stay below, to a factor of about 1.4.

    Examples
    --------
    >>> tally = TaskTally("load", durations=Counter({-3: 5, 2: 4}))
    >>> round(typical_seconds(tally), 3)
    0.088
    """
    half = tally.durations.total() / 2
    if not half:
        return None
    seen = 0
    for power in sorted(tally.durations):
        seen += tally.durations[power]
        if seen >= half:
            break
    return float(2.0 ** (power - 0.5))
