"""Driver: turns what happened into what to submit next.

A state machine without I/O: `Driver.handle(event)` returns commands. It knows blocks
and nodes, neither Dask nor values: values travel from block to block. It holds the
order; what is known is in `book`, and the rules are in `plain`, `lanes` and `losses`.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import replace

from prefect_dask_core.engine.block import BlockReport
from prefect_dask_core.engine.book import SUBMITTED, WAITING, Book
from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.earlier import take_earlier
from prefect_dask_core.engine.events import (
    BlockAdvanced,
    BlockDone,
    BlockLost,
    BlockReached,
    BlockWaiting,
    Command,
    Event,
    Finish,
    ReportLost,
    Resized,
    ResultsLost,
    Started,
    StopAsked,
    TriedLong,
)
from prefect_dask_core.engine.lanes import Lanes
from prefect_dask_core.engine.losses import Losses
from prefect_dask_core.engine.plain import PlainNodes
from prefect_dask_core.engine.plan import GrowingPlan, Node, Plan
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.errors import InternalError
from prefect_dask_core.states import (
    Cancelled,
    Completed,
    Crashed,
    Mapped,
    Pending,
    State,
)


class Driver:
    """State machine of one flow run.

    Parameters
    ----------
    book : Book
        What is known of the run: at first, its plan.
    plain : PlainNodes, optional
        The rules for its plain nodes, where they are others than usual.

    Notes
    -----
    Reading order: `handle` names the events; `_advance` decides what is ready.
    """

    def __init__(self, book: Book, plain: PlainNodes | None = None) -> None:
        self.book = book
        self.finished = False
        self._plain = plain or PlainNodes(book)
        self._lanes = Lanes(book)
        self._losses = Losses(book, self._plain, self._lanes)

    # -- events ---------------------------------------------------------------------

    def handle(self, event: Event) -> list[Command]:
        """Take in an event.

        Returns
        -------
        list of Command
            What the runner has to do now, in order. Empty once finished.
        """
        if self.finished:
            return []
        book = self.book
        book.told = []
        match event:
            case Started(threads):
                book.threads = threads
                take_earlier(book)
            case Resized(threads):
                book.threads = threads
            case BlockDone(report):
                self._block_done(report)
            case BlockAdvanced(report):
                self._take_plain(report)
            case BlockWaiting(number, done, busy):
                self._lanes.note_waiting(number, done, busy)
            case BlockReached(number, index):
                self._lanes.note_reached(number, index)
            case BlockLost():
                self._block_lost(event)
            case ReportLost(numbers):
                self._reports_lost(numbers)
            case ResultsLost(numbers):
                self._losses.put_back(numbers)
            case TriedLong():
                book.make_ready(book.kinds.give_up())
                self._lanes.give_up_trying()
            case StopAsked(reason, crashed):
                self._stop(Crashed(reason) if crashed else Cancelled(reason))
            case _:
                self._handle_growth(event)
        if not self.finished:
            self._advance()
        if book.left == 0 and not self._may_grow() and not self.finished:
            self.finished = True
            book.told.append(Finish())
        return book.told

    def _block_done(self, report: BlockReport) -> None:
        book = self.book
        number = report.number
        book.shared.discard(number)
        if number in book.solo:
            self._lanes.take_solo(number, report.segments)
        elif number not in book.lane_of_block:
            self._take_plain(report)
        elif not self._lanes.take(report):
            self._losses.lane_block_done_again(report)
        if not self._plain.take_back(report):
            self._losses.run_again([number])

    def _take_plain(self, report: BlockReport) -> None:
        """Take in how plain nodes ended."""
        self._plain.take(report)

    def _block_lost(self, lost: BlockLost) -> None:
        """Take in the loss of a block, or of what took its place."""
        if lost.number in self.book.assigned:
            self._losses.block_lost(lost)
            return
        # A block that had ended reads by the old number what was put back since. When
        # its own result is lost, Dask computes both anew, and that may kill workers.
        for number in lost.others:
            if number in self.book.assigned:
                self._block_lost(replace(lost, number=number, stale=True))

    def _reports_lost(self, numbers: Sequence[int]) -> None:
        """Take in that nothing is left to tell how some blocks ended."""
        self._losses.reports_lost(numbers)

    def _stop(self, state: State) -> None:
        self.book.end_all(state)
        self.finished = True
        self.book.told = [Finish()]

    def _handle_growth(self, event: Event) -> None:
        """Take in an event that only a growing plan has."""
        raise InternalError(f"{event!r} was told of a plan that does not grow")

    def _may_grow(self) -> bool:
        """Whether more nodes may come."""
        return False

    # -- what is ready --------------------------------------------------------------

    def _advance(self) -> None:
        """Submit all that has become ready."""
        book = self.book
        while book.ready:
            plain: list[int] = []
            heapq.heapify(book.ready)
            while book.ready:
                # Readers made ready by a submission join the same graph.
                index = heapq.heappop(book.ready)
                node = book.plan.nodes[index]
                if book.status[index] != WAITING:
                    continue
                if node.constant:
                    book.make_final(index)
                elif node.mapped:
                    if self._can_expand(node):
                        plain.extend(self._lanes.expand(node))
                elif self._plain.may_go(node):
                    plain.append(index)
                    book.mark_submitted(index)
            self._plain.submit(plain)
        self._lanes.feed()

    def _can_expand(self, node: Node) -> bool:
        """Whether the length of a mapped node is known, all above being final."""
        return True

    # -- what is known, for those who look --------------------------------------------

    @property
    def plan(self) -> Plan | GrowingPlan:
        """What runs."""
        return self.book.plan

    @property
    def threads(self) -> int:
        """Worker threads there are, as the driver was told."""
        return self.book.threads

    @property
    def ended(self) -> Sequence[int]:
        """Nodes that became final since they were last taken."""
        return self.book.ended

    def take_ended(self) -> list[int]:
        """Nodes that became final since this was last asked."""
        ended, self.book.ended = self.book.ended, []
        return ended

    def state(self, index: int) -> State:
        """State of a node; that of a mapped one carries its children's."""
        node = self.book.plan.nodes[index]
        if node.constant:
            return Completed(data=node.task.value)  # type: ignore[attr-defined]
        if index in self.book.children:
            return Mapped(states=self.book.children[index])
        if index in self.book.plain:
            return self.book.plain[index].state(0)
        return Pending()

    def children(self, index: int) -> Children | None:
        """Children of a node as far as they are known; `None` if it has none yet."""
        return self.book.children.get(index)

    def segments(self, index: int) -> Sequence[Segment]:
        """Segments of a node, in index order."""
        if index in self.book.children:
            return self.book.children[index].segments
        return [self.book.plain[index]] if index in self.book.plain else []

    def ended_plain(self) -> list[int]:
        """Nodes without children that have ended, in the order of their ends.

        May be asked by another thread, as `fan_outs` may.
        """
        return _keys(self.book.plain)

    def fan_outs(self) -> list[int]:
        """Nodes whose number of children is known."""
        return _keys(self.book.children)

    def blocks_of(self, index: int) -> Sequence[int]:
        """Blocks that hold the values of a node."""
        return self.book.blocks_of.get(index, [])

    def holds(self, number: int, node: int, start: int) -> bool:
        """Whether a block has the values of a node's children from an index on."""
        known = self.book.assigned.get(number)
        if known is None or node not in known.block.keep:
            return False
        return node not in self.book.children or self.book.spans[number][0] == start

    def held(self) -> frozenset[int]:
        """Blocks whose results are still kept."""
        return frozenset(self.book.held)

    @property
    def is_trying(self) -> bool:
        """Whether something waits until it is known how long its kind takes."""
        return self.book.kinds.holds_back or self._lanes.are_trying

    def silent(self) -> list[int]:
        """Blocks of plain nodes that were submitted and of which no end is known."""
        found = {
            self.book.blocks_of[index][-1]
            for index, status in enumerate(self.book.status)
            if status == SUBMITTED and not self.book.fans_out[index]
        }
        return sorted(found)

    def lengths_of(self, number: int) -> dict[int, tuple[bool, bool]]:
        """Nodes of a block: whether others map over them, and over them flattened."""
        nodes = (step.node for step in self.book.assigned[number].block.steps)
        measured, flattened = self.book.plan.measured, self.book.plan.flattened
        return {node: (node in measured, node in flattened) for node in nodes}


def _keys(table: Mapping[int, object]) -> list[int]:
    """Keys of a table that another thread may add to meanwhile."""
    while True:
        try:
            return list(table)
        except RuntimeError:  # it grew while it was read
            continue
