"""Growing: the driver of a run whose nodes come while it runs.

A function flow adds nodes as its code goes on. Their values are kept for whoever holds
their futures, and what is mapped over may have ended long before: it is counted then.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final

from prefect_dask_core.engine.block import Block, BlockReport, Step
from prefect_dask_core.engine.book import FINAL, SUBMITTED, WAITING, Book
from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.driver import Driver
from prefect_dask_core.engine.events import (
    Added,
    Assignment,
    BlockLost,
    Closed,
    Dropped,
    Event,
)
from prefect_dask_core.engine.fanout import LEAST_WORK
from prefect_dask_core.engine.grouping import Group, Together, put_together
from prefect_dask_core.engine.plain import PlainNodes
from prefect_dask_core.engine.plan import GrowingPlan, Node
from prefect_dask_core.engine.segments import is_success
from prefect_dask_core.engine.sources import StepInput, Whole
from prefect_dask_core.tasks import Task


def _same(value: object) -> object:
    """Body of the block that counts: hand on what is given."""
    return value


#: What a block runs that counts the items of a value.
COUNTING: Final = Task(_same, name="items")


class GrowingBook(Book):
    """What is known of a run that is still being described.

    Parameters
    ----------
    flow_name : str
        Name of the flow.
    """

    plan: GrowingPlan

    def __init__(self, flow_name: str) -> None:
        super().__init__(GrowingPlan(flow_name), frozenset())

    def told_as(self, index: int) -> str:
        """Slug of a node: a task runs often here, and its runs have one name."""
        return self.plan.nodes[index].slug

    def add(self, node: Node) -> None:
        """Add a node; somebody holds its future."""
        self.plan.add(node)
        index = node.index
        self.status.append(WAITING)
        self.open_readers.append(0)
        self.fans_out.append(int(node.mapped))
        self.pinned.add(index)
        self.left += 1
        missing = 0
        for above in self.plan.upstream[index]:
            self.open_readers[above] += 1
            whole = node.mapped or self.fans_out[above]
            wanted = FINAL if whole else SUBMITTED
            missing += self.status[above] < wanted
        self.missing.append(missing)
        if not missing:
            heapq.heappush(self.ready, index)

    def drop(self, index: int) -> None:
        """Note that nobody holds the future of a node any more."""
        self.pinned.discard(index)
        if self.status[index] == FINAL and not self.open_readers[index]:
            self.release_blocks_of(index)

    def release_blocks_of(self, index: int) -> None:
        """Release the blocks of a node that nobody reads, and let go of its values."""
        super().release_blocks_of(index)
        if index in self.pinned or self.open_readers[index]:
            return
        if self.status[index] != FINAL:
            return
        # Copies: a state that somebody holds keeps its values.
        if index in self.plain:
            self.plain[index] = self.plain[index].without_values()
        known = self.children.get(index)
        if known is not None:
            bare = [segment.without_values() for segment in known.segments]
            self.children[index] = Children(len(known), bare)


class GrowingPlainNodes(PlainNodes):
    """The plain nodes of a run that is still being described.

    Parameters
    ----------
    book : Book
        What is known of the run.
    """

    def may_go(self, node: Node) -> bool:
        """Whether a plain node that is ready goes out now."""
        return not self._stands_alone(node) or super().may_go(node)

    def together(self, nodes: Sequence[int]) -> Sequence[Together]:
        """Blocks of single nodes; tiny ones that are ready share some.

        Somebody may wait for each of them, so none waits for another that takes time
        or is read for its value alone.
        """
        book = self._book
        groups = []
        for index in nodes:
            if index not in book.plan.measured:
                book.uncounted.add(index)
            alone = self._stands_alone(book.plan.nodes[index])
            groups.append(Group((index,), self.seconds((index,)) if alone else None))
        return put_together(
            groups,
            self.above,
            self.label,
            book.threads,
            LEAST_WORK,
            self.is_there,
        )

    def _stands_alone(self, node: Node) -> bool:
        """Whether nothing that a node reads is still on its way."""
        book = self._book
        above = book.plan.upstream[node.index]
        return all(book.status[index] == FINAL for index in above)


class GrowingDriver(Driver):
    """State machine of a run that is still being described.

    Parameters
    ----------
    flow_name : str
        Name of the flow.

    Notes
    -----
    It finishes once it was told `Closed` and every node is final.
    """

    book: GrowingBook

    def __init__(self, flow_name: str) -> None:
        book = GrowingBook(flow_name)
        super().__init__(book, GrowingPlainNodes(book))
        self._open = True
        # Mapped nodes that wait for a count, by the node that is being counted.
        self._counted_for: dict[int, list[int]] = {}
        self._counting: dict[int, int] = {}

    def _may_grow(self) -> bool:
        return self._open

    def _handle_growth(self, event: Event) -> None:
        match event:
            case Added(nodes):
                for node in nodes:
                    self.book.add(node)
            case Dropped(nodes):
                for index in nodes:
                    self.book.drop(index)
            case Closed():
                self._open = False
            case _:
                super()._handle_growth(event)

    def silent(self) -> list[int]:
        """Blocks of which no end is known, those that count among them."""
        return sorted({*super().silent(), *self._counting})

    # -- values that are mapped over after the event ---------------------------------

    def _can_expand(self, node: Node) -> bool:
        todo = [
            item.node
            for item in node.inputs
            if item.mapped
            and item.node in self.book.uncounted
            and item.node not in self.book.children
            and is_success(self.book.plain[item.node])
        ]
        for index in dict.fromkeys(todo):
            assert index is not None
            self.book.missing[node.index] += 1
            waiting = self._counted_for.get(index)
            if waiting is None:
                self._counted_for[index] = [node.index]
                self._count(index)
            else:
                waiting.append(node.index)
        return not todo

    def _count(self, index: int) -> None:
        """Submit a block that lists the items of a value, and keeps them."""
        (above,) = self.book.blocks_of[index]
        node = self.book.plan.nodes[index]
        number = self.book.take_number()
        source = Whole(index, (0,), False)
        step = Step(
            index,
            COUNTING,
            node.slug,
            (StepInput("value", node.name, source, None),),
            mapped=False,
            measured=True,
            flattened=True,
        )
        block = Block(number, (step,), 0, 1, 0.0, frozenset({index}))
        self._counting[number] = index
        self.book.submit([Assignment(block, (above,), annotations=node.annotations)])

    def _take_plain(self, report: BlockReport) -> None:
        index = self._counting.pop(report.number, None)
        if index is None:
            super()._take_plain(report)
            return
        found = report.segments[index]
        if is_success(found):
            known = self.book.plain[index]
            known.length, known.flat_length = found.length, found.flat_length
        self._counted(index, report.number)

    def _counted(self, index: int, number: int | None) -> None:
        """Go on with those who waited for a count; they read the block that counted."""
        self.book.uncounted.discard(index)
        if number is not None:
            (old,) = self.book.blocks_of[index]
            self.book.blocks_of[index] = [number]
            # Kept in mind: it is run again if this one is lost.
            self.book.release(old)
        for reader in self._counted_for.pop(index):
            self.book.count_down(reader)

    def _block_lost(self, lost: BlockLost) -> None:
        index = self._counting.pop(lost.number, None)
        if index is None:
            super()._block_lost(lost)
            return
        # The value is read as one that cannot be mapped over; its readers say so.
        self.book.forget(lost.number)
        self._counted(index, None)
