"""Runs: what the scheduler knows of flow runs, from what workers and clients tell.

Plain counting, without clock and without Dask: reports go in, in any order, and numbers
come out. What a run takes does not grow with the number of its children; a plain node
takes a few bytes.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from prefect_dask_core.engine.columns import COMPLETED, STATE_BY_CODE
from prefect_dask_core.monitor.bars import Bar, Bars, Row
from prefect_dask_core.monitor.spans import Spans
from prefect_dask_core.runners.digests import (
    Digest,
    FailureText,
    ReportDigest,
    duration_power,
)
from prefect_dask_core.runners.telling import OPEN, Begin, Death, End, NodeInfo
from prefect_dask_core.states import Crashed, Failed

NAMES: Final = tuple(cls.__name__ for cls in STATE_BY_CODE)
UNSUCCESSFUL: Final = frozenset(
    code for code, cls in enumerate(STATE_BY_CODE) if issubclass(cls, Failed | Crashed)
)
#: Nodes of which a run keeps what they read, and failures that it keeps of a task.
MOST_NODES, MOST_FAILURES = 1_000, 20
#: Failures that it keeps at all, and deaths of workers.
MOST_KEPT, MOST_DEATHS = 500, 200
#: Seconds over which the present rate is taken, and for which ends are counted.
RECENT, COUNTED = 10, 30


class Failure(NamedTuple):
    """One failure: the node, the worker, and what was told of it."""

    node: int
    mapped: bool
    worker: str
    text: FailureText


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
        """Runs that failed, crashed, or were refused by their trigger."""
        return sum(self.counts[code] for code in UNSUCCESSFUL)

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


class Run:
    """One flow run.

    Parameters
    ----------
    run_id : str
        Its id.
    most_bars : int
        Bars that are kept of it.

    Notes
    -----
    `version` grows with everything that is taken in, so that pages need not look
    where nothing is new.
    """

    def __init__(self, run_id: str, most_bars: int = 2_000) -> None:
        self.id = run_id
        self.begun: Begin | None = None
        self.ended: End | None = None
        self.version = 0
        self.tasks: list[TaskTally] = []
        self.bars = Bars(most_bars)
        self.deaths: set[Death] = set()
        self.fan_outs: dict[int, FanOut] = {}
        self.upstream: dict[int, tuple[int, ...]] = {}
        self._number_of: dict[str, int] = {}
        self._task_of = array("i")
        self._mapped = bytearray()
        self.codes = bytearray()
        self._failures: dict[int, list[Failure]] = {}
        # Digests of nodes that the client has not told of yet.
        self._early: dict[int, list[tuple[str, ReportDigest, int]]] = {}

    # -- what the client tells -----------------------------------------------------

    def begin(self, begin: Begin) -> None:
        """Take in that it has begun."""
        self.version += 1
        self.begun = begin

    def add_nodes(self, nodes: Iterable[NodeInfo]) -> None:
        """Take in nodes that were added."""
        self.version += 1
        early: list[tuple[str, ReportDigest, int]] = []
        for node in nodes:
            self._make_room(node.number)
            if self._task_of[node.number] != -1:
                continue
            self._add(node)
            early += self._early.pop(node.number, ())
        for worker, report, position in early:
            self._take(worker, report, position)

    def _make_room(self, index: int) -> None:
        more = index + 1 - len(self._task_of)
        if more > 0:
            self._task_of.extend([-1] * more)
            self._mapped.extend(bytes(more))
            self.codes.extend(bytes([OPEN]) * more)

    def _add(self, node: NodeInfo) -> None:
        number = self._number_of.get(node.name)
        if number is None:
            number = self._number_of[node.name] = len(self.tasks)
            self.tasks.append(TaskTally(node.name))
        tally = self.tasks[number]
        self._task_of[node.number] = -2 - number if node.constant else number
        if len(self.upstream) < MOST_NODES:
            self.upstream[node.number] = tuple(node.upstream)
        if node.constant:
            return
        tally.nodes += 1
        if node.mapped:
            self._mapped[node.number] = 1
            known = self.fan_outs.setdefault(node.number, FanOut())
            if known.length is None:
                tally.unknown += 1
            else:
                tally.length += known.length
        else:
            tally.length += 1

    def set_lengths(self, lengths: Iterable[tuple[int, int]]) -> None:
        """Take in how many children some nodes have."""
        self.version += 1
        for node, length in lengths:
            fan_out = self.fan_outs.setdefault(node, FanOut())
            if fan_out.length is None:
                fan_out.length = length
                tally = self._tally(node)
                if tally is not None:
                    tally.unknown -= 1
                    tally.length += length

    def lose(self, death: Death) -> None:
        """Take in that a worker died, or that a block was lost."""
        self.version += 1
        if len(self.deaths) < MOST_DEATHS:
            self.deaths.add(death)

    def end(self, end: End) -> None:
        """Take in how it has ended: from now on these numbers stand."""
        self.version += 1
        self.ended = end
        self._early.clear()
        for tally in self.tasks:
            tally.counts.clear()
            tally.length = tally.unknown = 0
        self.codes[: len(end.plain)] = end.plain
        for node, code in enumerate(self.codes):
            plain = self._tally(node)
            if plain is not None and code != OPEN:
                plain.counts[code] += 1
                plain.length += 1
        for node, length, counts in end.mapped:
            fan_out = self.fan_outs.setdefault(node, FanOut())
            fan_out.length = length
            fan_out.counts = Counter(dict(counts))
            tally_of_node = self._tally(node)
            if tally_of_node is not None:
                tally_of_node.counts.update(fan_out.counts)
                tally_of_node.length += length

    # -- what workers tell ---------------------------------------------------------

    def take(self, worker: str, report: ReportDigest) -> None:
        """Take in what became of a block.

        Parameters
        ----------
        worker : str
            Address of the worker; empty if the states were not made on one.
        report : ReportDigest
            What it told.
        """
        if self.ended is not None:
            return
        self.version += 1
        for position in range(len(report.digests)):
            self._take(worker, report, position)
        if report.waits:
            task = self._task(report.digests[0].node) if report.digests else None
            row = Row(worker, report.thread, -1 if task is None else task, 0, 0)
            for begin, end in report.waits:
                self.bars.add(row, Bar(begin, end, 1, 0, 0, 0, 0.0))

    def take_plain(
        self, worker: str, thread: int, block: int, node: int, begin: float, end: float
    ) -> None:
        """Take in that a plain node completed at its first attempt.

        As `take` with a digest of it, in a third of the time: there are many of them.
        """
        task = self._task(node)
        if (
            task is None
            or self._mapped[node]
            or self.codes[node] != OPEN
            or self.ended is not None
        ):
            digest = Digest.of_completed(node, begin, end)
            self.take(worker, ReportDigest(thread, block, (), (digest,)))
            return
        self.version += 1
        self.codes[node] = COMPLETED
        self.tasks[task].take_completed(begin, end)
        row = Row(worker, thread, task, 0, 1)
        self.bars.add(row, Bar(begin, max(begin, end), 1, 1, 0, 0, end - begin))

    def _take(self, worker: str, report: ReportDigest, position: int) -> None:
        digest = report.digests[position]
        task = self._task(digest.node)
        if task is None:
            self._early.setdefault(digest.node, []).append((worker, report, position))
            return
        if not self._is_new(digest, self.tasks[task]):
            return
        self.tasks[task].take(digest)
        self._keep_failures(task, digest, worker)
        if worker and digest.begin:
            turns = (position, len(report.digests)) if digest.mapped else (0, 1)
            self.bars.add(
                Row(worker, report.thread, task, *turns),
                Bar(
                    digest.begin,
                    max(digest.begin, digest.end),
                    1,
                    digest.stop - digest.start,
                    digest.attempts,
                    sum(n for code, n in digest.counts if code in UNSUCCESSFUL),
                    digest.busy,
                ),
            )

    def _is_new(self, digest: Digest, tally: TaskTally) -> bool:
        """Whether these runs were not told of before; notes that they were."""
        node = digest.node
        if not digest.mapped:
            if self.codes[node] != OPEN:
                return False
            self.codes[node] = digest.counts[0][0]
            fan_out = self.fan_outs.get(node)
            if fan_out is not None and fan_out.length is None:
                # It could not be mapped, and has no children.
                del self.fan_outs[node]
                tally.unknown -= 1
                tally.length += 1
            return True
        fan_out = self.fan_outs.setdefault(node, FanOut())
        if not fan_out.seen.add(digest.start, digest.stop):
            return False
        fan_out.counts.update(dict(digest.counts))
        return True

    def _keep_failures(self, task: int, digest: Digest, worker: str) -> None:
        if not digest.failures:
            return
        kept = self._failures.setdefault(task, [])
        kept += [
            Failure(digest.node, digest.mapped, worker, f) for f in digest.failures
        ]
        kept.sort(key=lambda failure: (failure.node, failure.text.child))
        del kept[MOST_FAILURES:]

    # -- what is known -------------------------------------------------------------

    def _task(self, node: int) -> int | None:
        if node >= len(self._task_of) or self._task_of[node] < 0:
            return None
        return self._task_of[node]

    def _tally(self, node: int) -> TaskTally | None:
        task = self._task(node)
        return None if task is None else self.tasks[task]

    def name_of(self, node: int) -> str:
        """Name of the task of a node; also of a constant."""
        number = self._task_of[node] if node < len(self._task_of) else -1
        if number == -1:
            return f"node {node}"
        return self.tasks[number if number >= 0 else -2 - number].name

    def is_constant(self, node: int) -> bool:
        """Whether a node never runs."""
        return node < len(self._task_of) and self._task_of[node] < -1

    @property
    def node_count(self) -> int:
        """Nodes that were told of."""
        return len(self._task_of)

    def task_number(self, node: int) -> int | None:
        """Number of the task of a node; `None` of a constant."""
        return self._task(node)

    def counts(self) -> dict[str, int]:
        """Ended task runs by the name of their state; each child is one."""
        found: Counter[int] = Counter()
        for tally in self.tasks:
            found.update(tally.counts)
        return {NAMES[code]: found[code] for code in sorted(found) if found[code]}

    def final_counts(self) -> tuple[bytes, tuple[Any, ...]]:
        """What is counted so far, as the last two fields of an `End`."""
        mapped = tuple(
            (node, fan_out.length or 0, tuple(fan_out.counts.items()))
            for node, fan_out in self.fan_outs.items()
        )
        return bytes(self.codes), mapped

    @property
    def done(self) -> int:
        """Task runs that have ended."""
        return sum(tally.done for tally in self.tasks)

    @property
    def length(self) -> int:
        """Task runs there are, as far as lengths are known."""
        return sum(tally.length for tally in self.tasks)

    @property
    def is_whole(self) -> bool:
        """Whether all lengths are known."""
        return not any(tally.unknown for tally in self.tasks)

    def failures(self) -> Iterator[Failure]:
        """Failures that were kept, by node and index."""
        found = (failure for kept in self._failures.values() for failure in kept)
        ordered = sorted(found, key=lambda failure: (failure.node, failure.text.child))
        yield from ordered[:MOST_KEPT]


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
