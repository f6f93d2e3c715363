"""Losses: what is run anew, and what stands in for it, where workers died.

A worker takes innocent blocks along. What is lost runs again; of what is lost again,
the child and the node that kill their workers are found, and those crash.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from prefect_dask_core.engine.block import BlockReport, careful_piece
from prefect_dask_core.engine.book import FINAL, Book, Lane, all_ended
from prefect_dask_core.engine.events import Assignment, BlockLost
from prefect_dask_core.engine.grouping import Together
from prefect_dask_core.engine.lanes import Lanes
from prefect_dask_core.engine.plain import PlainNodes
from prefect_dask_core.engine.readers import (
    gone_above,
    in_order,
    readers_of,
    unfinished_readers,
    unheld_above,
)
from prefect_dask_core.states import Crashed

#: Times a block that had ended is run anew before what it held counts as lost.
MOST_TRIES: Final = 3


class Losses:
    """What a run does about blocks and results that were lost.

    Parameters
    ----------
    book : Book
        What is known of the run.
    plain : PlainNodes
        Makes the blocks of single nodes.
    lanes : Lanes
        Cuts the children of lost blocks again.
    """

    def __init__(self, book: Book, plain: PlainNodes, lanes: Lanes) -> None:
        self._book = book
        self._plain = plain
        self._lanes = lanes

    # -- what the driver is told ------------------------------------------------------

    def block_lost(self, lost: BlockLost) -> None:
        """Run a lost block anew, or put a crash in its place.

        Parameters
        ----------
        lost : BlockLost
            What is known of the loss; no other block has taken the block's place.
        """
        book = self._book
        lane = book.lane_of_block.get(lost.number)
        if lane is not None and lost.number in lane.in_flight:
            self._lane_block_lost(lane, lost)
        elif lost.stale or self._is_bystander(lost):
            self.run_again(self._gone_with(lost))
        else:
            assignment = book.assigned[lost.number]
            if self._is_worth_another_try(lost.number):
                self.run_again(self._gone_with(lost))
            elif (
                lane is None
                and assignment.given is None
                and len(assignment.block.steps) > 1
                and not book.has_ended(assignment)
            ):
                self._unfuse(lost.number)
            else:
                self._replace_blocks(lost)

    def lane_block_done_again(self, report: BlockReport) -> None:
        """Look at a block whose worker died after its end, and that Dask ran again.

        What it was the first time counts. If it handed more children back this time,
        some are missing from its result, and it is run once more, to its end.
        """
        book = self._book
        span = book.spans.get(report.number)
        if span is None or report.number not in book.held:
            return
        if span[0] + report.done < span[1]:
            self._redo([report.number])

    def reports_lost(self, numbers: Sequence[int]) -> None:
        """Run blocks anew of whose end nothing is left that could tell."""
        book = self._book
        lost = [
            number
            for number in numbers
            if number in book.assigned and not book.has_ended(book.assigned[number])
        ]
        if lost:
            self._redo(lost)

    def put_back(self, numbers: Sequence[int]) -> None:
        """Put what came home in the place of results that were lost.

        Dask computes these anew. Where workers die every few seconds that is more than
        what gets done in between, and the run would not end.
        """
        book = self._book
        # What may still be computed from them, reads them by their old numbers.
        read = {
            above
            for number, assignment in book.assigned.items()
            if assignment.reads and not book.came_home(number)
            for above in map(book.present, assignment.reads)
        }
        gone = [
            number
            for number in numbers
            if number in book.held
            and number not in read
            and book.assigned[number].given is None
            and book.came_home(number)
        ]
        put_back = []
        renumbered = {}
        for old in gone:
            block = book.assigned[old].block
            fresh = block._replace(number=book.take_number())
            renumbered[old] = fresh.number
            known = ((node, book.known(node, old)) for node in block.keep)
            given = {node: found for node, found in known if found is not None}
            put_back.append(Assignment(fresh, (), given))
            if old in book.spans:
                book.spans[fresh.number] = book.spans[old]
        book.renumber(renumbered)
        if put_back:
            book.submit(put_back)
        for old in gone:
            book.forget(old)

    # -- running anew -----------------------------------------------------------------

    def run_again(self, numbers: Sequence[int]) -> None:
        """Run blocks anew, with the unfinished ones that read them."""
        self._redo([*numbers, *self._unfinished_plain_readers(numbers)])

    def _redo(self, numbers: Sequence[int]) -> None:
        """Run blocks anew, to their end, together with what they read and is gone."""
        book = self._book
        todo = in_order(book, {*numbers, *gone_above(book, numbers)})
        fresh = {number: book.take_number() for number in todo}
        anew = []
        for old in todo:
            assignment = book.assigned[old]
            block = assignment.block._replace(number=fresh[old], aim=0.0)
            book.tries[fresh[old]] = book.tries.get(old, 0) + 1
            if old in book.spans:
                start, stop = book.spans[fresh[old]] = book.spans[old]
                block = block._replace(start=start, stop=stop)
            if old in book.lane_of_block:
                book.lane_of_block[fresh[old]] = book.lane_of_block[old]
            present = map(book.present, assignment.reads)
            reads = tuple(fresh.get(number, number) for number in present)
            anew.append(
                Assignment(block, reads, assignment.given, assignment.annotations)
            )
        book.renumber(fresh)
        book.submit(anew)
        for old in todo:
            book.forget(old)

    def _gone_with(self, lost: BlockLost) -> list[int]:
        """A lost block, and those that had ended and whose results are lost with it."""
        book = self._book
        gone = [lost.number]
        for number in lost.others:
            known = book.assigned.get(number)
            if known is not None and number != lost.number and book.has_ended(known):
                gone.append(number)
        return gone

    def _unfinished_plain_readers(self, numbers: Sequence[int]) -> list[int]:
        """Unfinished blocks in the graph below some that have to be run anew."""
        book = self._book
        readers = []
        for found in unfinished_readers(book, numbers):
            lane = book.lane_of_block.get(found)
            if lane is None:
                readers.append(found)
                continue
            self._lanes.cut_again(lane, found)
        return readers

    def _is_bystander(self, lost: BlockLost) -> bool:
        """Whether a child that ran by itself was lost before its body was called.

        Its worker had it, and died of something else: `LocalCluster` closes workers
        that are just being started. So often as it is believed, a body is not to blame.
        """
        book = self._book
        if lost.number not in book.solo or not lost.divisible:
            return False
        tries = book.tries.get(lost.number, 0)
        return lost.number not in self._lanes.reached and tries < MOST_TRIES

    def _is_worth_another_try(self, number: int) -> bool:
        """Whether a block that ended and was lost has values only running it gives."""
        book = self._book
        if book.tries.get(number, 0) >= MOST_TRIES or number in book.solo:
            return False
        assignment = book.assigned[number]
        if assignment.given is not None:
            return False
        span = book.spans.get(number)
        if span is None and not book.has_ended(assignment):
            return False
        known = [
            book.plain.get(node) if span is None else book.part(node, *span)
            for node in assignment.block.keep
        ]
        return any(segment is None or segment.values is None for segment in known)

    # -- finding what is to blame -----------------------------------------------------

    def _unfuse(self, number: int) -> None:
        """Run the nodes of a lost block one by one, to find which is to blame."""
        book = self._book
        members = [step.node for step in book.assigned[number].block.steps]
        readers = self._unfinished_plain_readers([number])
        again = [*members]
        for reader in readers:
            again += [step.node for step in book.assigned[reader].block.steps]
        assignments = []
        for node in again:
            fresh = book.take_number()
            assignments.append(self._plain.assign(fresh, Together((node,))))
            book.blocks_of[node] = [fresh]
        book.submit([*unheld_above(book, assignments), *assignments])
        for old in (number, *readers):
            book.forget(old)

    def _lane_block_lost(self, lane: Lane, lost: BlockLost) -> None:
        """Narrow a loss down to the child and the node that kill their workers.

        A worker that dies takes innocent blocks along, so those that were lost run
        once more, one at a time, and tell how far they come. Of what is lost while
        alone, the part that had begun last is suspected further.
        """
        book = self._book
        start, stop = span = lane.in_flight[lost.number]
        alone = self._lanes.alone == lost.number
        first = self._lanes.reached.get(lost.number, start)
        if lost.stale:
            self._lanes.cut_again(lane, lost.number)
        elif lost.of_items and not book.assigned[lost.number].block.apart:
            # Once more, with each item by itself: then only their own children crash.
            lane.apart = True
            self._lanes.cut_again(lane, lost.number)
        elif lost.divisible and not alone:
            self._lanes.withdraw(lane, lost.number)
            lane.suspects.append(span)
        elif lost.divisible:
            self._lanes.withdraw(lane, lost.number)
            last = min(first + careful_piece(start, stop), stop)
            lane.suspects.appendleft((first, last))
            if last < stop:
                lane.todo.appendleft((last, stop))
            if start < first:
                lane.todo.appendleft((start, first))
        else:
            self._lane_block_crashed(lane, lost, span)

    def _lane_block_crashed(
        self, lane: Lane, lost: BlockLost, span: tuple[int, int]
    ) -> None:
        """Put a crash in the place of a block of a lane."""
        book = self._book
        stand_in = self._stand_in(lost.number, lost)
        self._lanes.withdraw(lane, lost.number)
        if not lane.blocks_done:
            # What no worker can run takes no time; else a map of a million children
            # would be lost child by child, eight a second.
            lane.pace.observe(span[1] - span[0], 0.0)
        book.spans[stand_in.block.number] = span
        for node, segment in (stand_in.given or {}).items():
            book.blocks_of[node].append(stand_in.block.number)
            book.children[node].add(segment)
        lane.children_done += span[1] - span[0]
        book.submit([stand_in])
        self._lanes.end_if_complete(lane)

    # -- stand-ins --------------------------------------------------------------------

    def _replace_blocks(self, lost: BlockLost) -> None:
        """Put stand-ins in the place of lost blocks, and run their readers anew.

        Blocks that had ended before their result was lost are replaced too: their
        states stand, and values that came home go back.
        """
        book = self._book
        gone = self._gone_with(lost)
        gone += readers_of(book, gone)[1]
        stand_ins = [self._stand_in(number, lost) for number in gone]
        renumbered = {
            old: stand_in.block.number
            for old, stand_in in zip(gone, stand_ins, strict=True)
        }
        anew = []
        for old in unfinished_readers(book, gone):
            lane = book.lane_of_block.get(old)
            if lane is not None:
                self._lanes.cut_again(lane, old)
                continue
            assignment = book.assigned[old]
            fresh = assignment.block._replace(number=book.take_number())
            renumbered[old] = fresh.number
            reads = tuple(renumbered.get(n, book.present(n)) for n in assignment.reads)
            anew.append(Assignment(fresh, reads, annotations=assignment.annotations))
        book.renumber(renumbered)
        for old, new in renumbered.items():
            if old in book.spans:
                book.spans[new] = book.spans[old]
        # Dask forgot what only the lost ones read: it goes into the graph again.
        lost_ones = [book.assigned[number] for number in gone]
        orphans = [a for a in unheld_above(book, lost_ones) if not book.has_ended(a)]
        above = {a.block.number for a in orphans}
        above |= {a.block.number for a in unheld_above(book, [*anew, *orphans])}
        earlier = [book.assigned[number] for number in in_order(book, above)]
        book.submit([*earlier, *stand_ins, *anew])
        for old in renumbered:
            book.forget(old)
        for stand_in in stand_ins:
            if stand_in.block.number in book.solo:
                self._lanes.take_solo(stand_in.block.number, stand_in.given or {})
                continue
            for node, segment in (stand_in.given or {}).items():
                # A child of a fan-out that ended before keeps the state it had.
                if book.status[node] != FINAL and node not in book.children:
                    book.plain[node] = segment
                    book.make_final(node)
        for stand_in in stand_ins:
            for node in stand_in.given or {}:
                book.release_blocks_of(node)

    def _stand_in(self, number: int, lost: BlockLost) -> Assignment:
        """A result in the place of a lost block: what is known of it, else crashes."""
        book = self._book
        block = book.assigned[number].block
        given = {}
        invented = set()
        for step in block.steps:
            known = book.known(step.node, number)
            if known is None or known.values is None:
                start, stop = book.spans.get(number, (block.start, block.stop))
                crashed = Crashed(lost.reason, timestamp=lost.when)
                known = all_ended(start, stop, crashed)
                known.worker = lost.worker
                invented.add(step.node)
            given[step.node] = known
        # Nobody can fetch from it what it does not have.
        had = frozenset(n for n in block.keep if n not in invented)
        fresh = block._replace(number=book.take_number(), keep=had)
        return Assignment(fresh, (), given)
