"""Lanes: mapped nodes become lanes, and lanes become blocks while they run.

A lane is cut block by block, as large as its pace allows. Children that may have killed
their workers are suspects: they run with nothing of a fan-out beside them.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from prefect_dask_core.engine.block import Block, BlockReport
from prefect_dask_core.engine.book import FINAL, SUBMITTED, WAITING, Book, Lane, Solo
from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.events import Assignment
from prefect_dask_core.engine.fanout import (
    AIM,
    MOST_BROUGHT,
    block_size,
    most_in_flight,
)
from prefect_dask_core.engine.lengths import length_of
from prefect_dask_core.engine.plan import Node
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.steps import kept_of, step_of


class Lanes:
    """The lanes of a run that have not ended.

    Parameters
    ----------
    book : Book
        What is known of the run.
    """

    def __init__(self, book: Book) -> None:
        self._book = book
        self._open: list[Lane] = []
        #: The block of suspects that runs with no other block of a fan-out beside it.
        self.alone: int | None = None
        #: How far careful blocks came.
        self.reached: dict[int, int] = {}

    @property
    def are_trying(self) -> bool:
        """Whether the first children of a lane tell how to cut the rest."""
        return any(lane.is_trying for lane in self._open)

    def give_up_trying(self) -> None:
        """Wait no longer for the first children: they are long."""
        for lane in self._open:
            lane.is_long = lane.is_long or lane.is_trying

    # -- from mapped nodes to lanes ---------------------------------------------------

    def expand(self, node: Node) -> list[int]:
        """Begin the lane of a mapped node; nodes to run as plain ones instead.

        A node that cannot be mapped is run as a plain one, whose body refuses: so its
        trigger is put to the states above it, as for any other.
        """
        book = self._book
        index = node.index
        length = length_of(book, node, {})
        if isinstance(length, Exception):
            book.fans_out[index] = 0
            book.mark_submitted(index)
            return [index]
        nodes = self._nodes_from(index, length)
        todo = book.earlier.todo(index, length)
        lane = Lane(nodes, length, deque(todo))
        lane.children_done = length - sum(stop - start for start, stop in todo)
        self._open.append(lane)
        for member in nodes:
            book.status[member] = SUBMITTED
            book.children.setdefault(member, Children(length))
            book.blocks_of.setdefault(member, [])
        self.end_if_complete(lane)
        return []

    def _nodes_from(self, first: int, length: int) -> tuple[int, ...]:
        """Nodes that can run child by child together with a mapped node."""
        book = self._book
        lane = {first: length}
        todo = list(book.plan.dependents[first])
        seen = set(todo)
        heapq.heapify(todo)
        while todo:
            index = heapq.heappop(todo)
            if not self._joins(book.plan.nodes[index], lane):
                continue
            lane[index] = length
            for reader in book.plan.dependents[index]:
                if reader not in seen:
                    seen.add(reader)
                    heapq.heappush(todo, reader)
        return tuple(sorted(lane))

    def _joins(self, node: Node, lane: dict[int, int]) -> bool:
        """Whether a node can run child by child with those of a lane to be."""
        book = self._book
        if not node.mapped or book.status[node.index] != WAITING:
            return False
        first, length = next(iter(lane.items()))
        if node.annotations != book.plan.nodes[first].annotations:
            return False
        for item in node.inputs:
            if item.node is None:
                continue
            if item.mapped and item.node in book.uncounted:
                return False
            if item.node in lane:
                if not item.mapped or item.flattened:
                    return False
            elif book.status[item.node] != FINAL:
                return False
        if book.earlier.todo(node.index, length) != book.earlier.todo(first, length):
            return False
        return length_of(book, node, lane) == length

    # -- from lanes to blocks ---------------------------------------------------------

    def feed(self) -> None:
        """Cut blocks while there is room for more of them."""
        book = self._book
        if self.alone is not None or book.solo:
            return
        suspected = [lane for lane in self._open if lane.suspects]
        if suspected:
            if all(len(n.in_flight) == len(n.waiting) for n in self._open):
                self._run_suspect(suspected[0])
            return
        assignments = []
        for lane in self._open:
            ended = lane.blocks_done
            allowed = most_in_flight(book.threads, ended, lane.has_long_children)
            while lane.todo and len(lane.in_flight) - len(lane.waiting) < allowed:
                assignments.append(self._cut_block(lane))
        if assignments:
            book.submit(assignments)

    def _cut_block(self, lane: Lane) -> Assignment:
        """Cut a block of what a lane has to do."""
        start, stop = lane.todo.popleft()
        remaining = stop - start + sum(b - a for a, b in lane.todo)
        size = min(block_size(remaining, self._book.threads, lane.pace), stop - start)
        if start + size < stop:
            lane.todo.appendleft((start + size, stop))
        return self._block_of(lane, start, start + size)

    def _block_of(self, lane: Lane, start: int, stop: int) -> Assignment:
        book = self._book
        number = book.take_number()
        reads: dict[int, int] = {}
        steps = tuple(
            step_of(book, book.plan.nodes[node], lane.nodes, reads, (start, stop))
            for node in lane.nodes
        )
        block = Block(
            number,
            steps,
            start,
            stop,
            AIM,
            kept_of(book, lane.nodes),
            lean=lane.length > MOST_BROUGHT,
            apart=lane.apart,
        )
        lane.in_flight[number] = (start, stop)
        book.lane_of_block[number] = lane
        for node in lane.nodes:
            book.blocks_of[node].append(number)
        annotations = book.plan.nodes[lane.nodes[0]].annotations
        return Assignment(block, tuple(reads), annotations=annotations)

    # -- blocks that are on their way -------------------------------------------------

    def note_reached(self, number: int, index: int) -> None:
        """Note how far a careful block came."""
        # Else it is a late word of one that was lost.
        if number == self.alone or number in self._book.solo:
            self.reached[number] = index

    def note_waiting(self, number: int, done: int, busy: float) -> None:
        """Note that a block only waits: it leaves room for another."""
        lane = self._book.lane_of_block.get(number)
        if lane is not None and number in lane.in_flight:
            lane.waiting.add(number)
            if lane.pace.seconds is None:
                lane.pace.observe(done, busy)

    def take(self, report: BlockReport) -> bool:
        """Take in how a block ended; `False` if it had ended before."""
        book = self._book
        lane = book.lane_of_block[report.number]
        span = lane.in_flight.pop(report.number, None)
        if span is None:
            return False
        if report.number == self.alone:
            self.alone = None
        self.reached.pop(report.number, None)
        start, stop = span
        book.spans[report.number] = start, start + report.done
        lane.waiting.discard(report.number)
        lane.pace.observe(report.done, report.busy)
        lane.children_done += report.done
        lane.blocks_done += 1
        for node, segment in report.segments.items():
            book.children[node].add(segment)
        if start + report.done < stop:
            lane.todo.appendleft((start + report.done, stop))
        self.end_if_complete(lane)
        return True

    def end_if_complete(self, lane: Lane) -> None:
        """End a lane, and its nodes, if all its children have ended."""
        if lane.children_done == lane.length:
            self._open.remove(lane)
            for node in lane.nodes:
                self._book.make_final(node)

    def cut_again(self, lane: Lane, number: int) -> None:
        """Take back a block that cannot run because of what it reads."""
        is_suspect = self.alone == number
        todo = lane.suspects if is_suspect else lane.todo
        todo.appendleft(lane.in_flight[number])
        self.withdraw(lane, number)

    def withdraw(self, lane: Lane, number: int) -> None:
        """Take a block of a lane back, as if it had never been cut."""
        book = self._book
        if self.alone == number:
            self.alone = None
        self.reached.pop(number, None)
        del lane.in_flight[number]
        lane.waiting.discard(number)
        for node in lane.nodes:
            book.blocks_of[node].remove(number)
        book.forget(number)

    # -- suspects ---------------------------------------------------------------------

    def _run_suspect(self, lane: Lane) -> None:
        """Run the next suspect of a lane, no other block of a fan-out beside it."""
        start, stop = lane.suspects.popleft()
        if stop - start == 1:
            self._run_solo(lane, (start, stop))
            return
        assignment = self._block_of(lane, start, stop)
        block = assignment.block._replace(careful=True)
        self.alone = block.number
        self._book.submit([replace(assignment, block=block)])

    def _run_solo(self, lane: Lane, span: tuple[int, int]) -> None:
        """Run a child of a lane node by node, a block each."""
        book = self._book
        solo = Solo(lane, set(lane.nodes))
        assignments = []
        for node in lane.nodes:
            number = book.take_number()
            reads: dict[int, int] = {}
            step = step_of(book, book.plan.nodes[node], (node,), reads, span)
            kept = frozenset({node})
            block = Block(
                number, (step,), *span, 0.0, kept, careful=True, apart=lane.apart
            )
            annotations = book.plan.nodes[node].annotations
            assignments.append(Assignment(block, tuple(reads), annotations=annotations))
            book.spans[number] = span
            book.blocks_of[node].append(number)
            book.solo[number] = solo
        book.submit(assignments)

    def take_solo(self, number: int, segments: Mapping[int, Segment]) -> None:
        """Take in how a node of a child that runs node by node ended."""
        book = self._book
        solo = book.solo.pop(number)
        self.reached.pop(number, None)
        for node, segment in segments.items():
            if node in solo.left:
                solo.left.discard(node)
                book.children[node].add(segment)
        if not solo.left:
            solo.lane.children_done += 1
            self.end_if_complete(solo.lane)
