"""Growing: the driver of a run whose nodes come while it runs.

A function flow adds nodes as its code goes on. Their values are kept for whoever holds
their futures, and what is mapped over may have ended long before: it is counted then.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from typing import Final, NamedTuple

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
from prefect_dask_core.engine.losses import MOST_TRIES
from prefect_dask_core.engine.plain import PlainNodes
from prefect_dask_core.engine.plan import GrowingPlan, Input, Node
from prefect_dask_core.engine.segments import is_success
from prefect_dask_core.engine.sources import StepInput, Whole
from prefect_dask_core.tasks import Task
from prefect_dask_core.triggers import all_finished


def _same(value: object) -> object:
    """Body of the block that counts items: hand on what is given."""
    return value


def _numbers(value: list[object]) -> range:
    """Body of the block that counts elements: as many numbers as there are."""
    return range(len(value))


#: What a block runs that counts the items of a value.
COUNTING: Final = Task(_same, name="items")
#: What a block runs that counts the elements of children, however these ended.
COUNTING_ALL: Final = Task(
    _numbers, name="elements", trigger=all_finished, skip_on_upstream_skip=False
)


class _Count(NamedTuple):
    """What a block counts.

    Parameters
    ----------
    node : int
        The node.
    span : tuple of int or None
        Of a fan-out, the children; `None` for a plain node.
    tries : int
        How often it was lost.
    """

    node: int
    span: tuple[int, int] | None
    tries: int = 0


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
        for item in node.inputs:
            if item.node is None or not (item.mapped and item.flattened):
                continue
            known = item.node in self.plan.flattened
            # Else blocks went out that nobody told to count elements.
            if not known and self.status[item.node] != WAITING:
                self.uncounted.add(item.node)
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
        self._counting: dict[int, _Count] = {}
        # How many blocks still count something of a node.
        self._open_counts: dict[int, int] = {}

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
        todo = dict.fromkeys(
            item.node
            for item in node.inputs
            if item.mapped and item.node is not None and self._has_to_be_counted(item)
        )
        for index in todo:
            assert index is not None
            self.book.missing[node.index] += 1
            waiting = self._counted_for.get(index)
            if waiting is None:
                self._counted_for[index] = [node.index]
                self._count(index)
            else:
                waiting.append(node.index)
        return not todo

    def _has_to_be_counted(self, item: Input) -> bool:
        """Whether a length is not known that a node is about to be mapped over."""
        book = self.book
        if item.node is None or item.node not in book.uncounted:
            return False
        if item.node not in book.children:
            return is_success(book.plain[item.node])
        segments = book.children[item.node].segments
        return item.flattened and any(s.flat_length is None for s in segments)

    def _count(self, index: int) -> None:
        """Submit what counts the items of a value, or the elements of a fan-out."""
        book = self.book
        spans: list[tuple[int, int] | None] = [None]
        if index in book.children:
            # Blocks that were cut after somebody was to read it have told it already.
            spans = [
                span
                for span in book.layout(index).spans
                if book.elements(index, span[0]) is None
            ]
        self._open_counts[index] = len(spans)
        self._submit_counts([_Count(index, span) for span in spans])

    def _submit_counts(self, counts: Sequence[_Count]) -> None:
        """Submit a block for each value, or block of a fan-out, that is counted.

        What counts a value keeps its items for those who read them; what counts the
        elements of a fan-out only tells how many there are.
        """
        book = self.book
        assignments = []
        if not counts:
            return
        for count in counts:
            index, span = count.node, count.span
            node = book.plan.nodes[index]
            number = book.take_number()
            if span is None:
                (above,) = book.blocks_of[index]
                source, body = Whole(index, (0,), False), COUNTING
            else:
                layout = book.layout(index)
                above = layout.blocks[layout.holding(span)[0]]
                source, body = Whole(index, (0,), True, True, (span,)), COUNTING_ALL
            step = Step(
                index,
                body,
                node.slug,
                (StepInput("value", node.name, source, None),),
                mapped=False,
                measured=True,
                flattened=span is None,
            )
            block = Block(number, (step,), 0, 1, 0.0, frozenset({index}))
            self._counting[number] = count
            assignments.append(
                Assignment(block, (above,), annotations=node.annotations)
            )
        book.submit(assignments)

    def _take_plain(self, report: BlockReport) -> None:
        count = self._counting.pop(report.number, None)
        if count is None:
            super()._take_plain(report)
            return
        index, found = count.node, report.segments[count.node]
        if count.span is not None:
            if is_success(found) and found.length is not None:
                self.book.note_elements(index, count.span[0], found.length)
            self.book.forget(report.number)
            self._counted(index)
            return
        if is_success(found):
            known = self.book.plain[index]
            known.length, known.flat_length = found.length, found.flat_length
        (old,) = self.book.blocks_of[index]
        self.book.blocks_of[index] = [report.number]
        # Kept in mind: it is run again if this one is lost.
        self.book.release(old)
        self._counted(index)

    def _counted(self, index: int) -> None:
        """Go on with those who waited for a count, once all of a node is counted."""
        self._open_counts[index] -= 1
        if self._open_counts[index]:
            return
        del self._open_counts[index]
        self.book.uncounted.discard(index)
        for reader in self._counted_for.pop(index):
            self.book.count_down(reader)

    def _reports_lost(self, numbers: Sequence[int]) -> None:
        gone = set(numbers)
        super()._reports_lost([n for n in numbers if n not in self._counting])
        lost = [number for number in self._counting if number in gone]
        self._submit_counts(self._give_up(lost, blamed=None))

    def _block_lost(self, lost: BlockLost) -> None:
        gone = {lost.number, *lost.others}
        mine = [
            number
            for number in self._counting
            if number in gone or not gone.isdisjoint(self.book.assigned[number].reads)
        ]
        # Forgotten first: it is not for others to run them anew.
        again = self._give_up(mine, blamed=lost.number)
        if lost.number not in mine:
            super()._block_lost(lost)
        self._submit_counts(again)

    def _give_up(self, numbers: Sequence[int], blamed: int | None) -> list[_Count]:
        """Forget blocks that count; what they counted, unless it was lost too often."""
        again = []
        for number in numbers:
            count = self._counting.pop(number)
            self.book.forget(number)
            if number == blamed:
                count = count._replace(tries=count.tries + 1)
            if count.tries <= MOST_TRIES:
                again.append(count)
            else:
                # It is read as one that cannot be mapped over; its readers say so.
                self._counted(count.node)
        return again
