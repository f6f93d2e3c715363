"""Runs: what the scheduler knows of flow runs, from what workers and clients tell.

Plain counting, without clock and without Dask: reports go in, in any order, and numbers
come out. What a run takes does not grow with the number of its children; a plain node
takes a few bytes.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable
from typing import Any, Final

from prefect_dask_core.engine.codes import COMPLETED
from prefect_dask_core.monitor.bars import Bar, Bars, Row
from prefect_dask_core.monitor.failures import Failure, Failures
from prefect_dask_core.monitor.tallies import FAILED, NAMES, FanOut, TaskTally
from prefect_dask_core.runners.digests import (
    UNSUCCESSFUL,
    Digest,
    PlainDigest,
    ReportDigest,
)
from prefect_dask_core.runners.telling import OPEN, Begin, Death, End, NodeInfo

#: Nodes of which a run keeps what they read, and deaths of workers that it keeps.
MOST_NODES: Final = 1_000
MOST_DEATHS: Final = 200


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
        self.failures = Failures()
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
            if node.number >= len(self._task_of):
                self._make_room(node.number)
            if self._task_of[node.number] != -1:
                continue
            self._add(node)
            early += self._early.pop(node.number, ())
        for worker, report, position in early:
            self._take(worker, report, position)

    def _make_room(self, index: int) -> None:
        more = index + 1 - len(self._task_of)
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
        # Counted in C: there may be a hundred thousand nodes.
        ends = Counter(zip(self._task_of, self.codes, strict=False))
        for (task, code), count in ends.items():
            if task >= 0 and code != OPEN:
                self.tasks[task].counts[code] += count
                self.tasks[task].length += count
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
        for position, digest in enumerate(report.digests):
            if isinstance(digest, PlainDigest):
                self.take_plain(worker, report.thread, report.block, *digest)
            else:
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
        assert isinstance(digest, Digest)  # others are taken by `take_plain`
        task = self._task(digest.node)
        if task is None:
            self._early.setdefault(digest.node, []).append((worker, report, position))
            return
        if not self._is_new(digest, self.tasks[task]):
            return
        self.tasks[task].take(digest)
        if digest.failures:
            self.failures.add(
                task,
                [
                    Failure(digest.node, digest.mapped, worker, text)
                    for text in digest.failures
                ],
            )
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
                    sum(n for code, n in digest.counts if code in FAILED),
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
    def unsuccessful(self) -> int:
        """Task runs that failed, crashed, or were refused because of that."""
        return sum(tally.counts[code] for tally in self.tasks for code in UNSUCCESSFUL)

    @property
    def is_whole(self) -> bool:
        """Whether all lengths are known."""
        return not any(tally.unknown for tally in self.tasks)
