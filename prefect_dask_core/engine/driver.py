"""Driver: turns what happened into what to submit next.

A state machine without I/O: `Driver.handle(event)` returns commands. It knows blocks
and nodes, neither Dask nor values: values travel from block to block.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from prefect_dask_core.engine.block import Block, BlockReport, Step, careful_piece
from prefect_dask_core.engine.book import (
    FINAL,
    SUBMITTED,
    WAITING,
    Book,
    Lane,
    Solo,
    all_ended,
)
from prefect_dask_core.engine.columns import Children, Segment
from prefect_dask_core.engine.events import (
    Assignment,
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
from prefect_dask_core.engine.fanout import (
    AIM,
    MOST_BROUGHT,
    block_size,
    most_in_flight,
)
from prefect_dask_core.engine.feeds import is_success
from prefect_dask_core.engine.grouping import Group, Together, put_together
from prefect_dask_core.engine.lengths import length_of
from prefect_dask_core.engine.plan import GrowingPlan, Node, Plan, fuse
from prefect_dask_core.engine.readers import (
    gone_above,
    in_order,
    readers_of,
    unfinished_readers,
    unheld_above,
)
from prefect_dask_core.engine.steps import kept_of, step_of
from prefect_dask_core.errors import InternalError
from prefect_dask_core.states import (
    Cancelled,
    Completed,
    Crashed,
    Mapped,
    Pending,
    State,
)

#: Times a block that had ended is run anew before what it held counts as lost.
MOST_TRIES = 3


class Driver:
    """State machine of one flow run.

    Parameters
    ----------
    book : Book
        What is known of its nodes and blocks: at first, the plan.

    Notes
    -----
    Reading order: `handle` names the events; `_advance` decides what is ready.
    """

    def __init__(self, book: Book) -> None:
        self.book = book
        self.finished = False
        self._lanes: list[Lane] = []
        # The block of suspects that runs with no other block of a fan-out beside it.
        self._alone: int | None = None
        # How far careful blocks came.
        self._reached: dict[int, int] = {}

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
        self.book.told = []
        match event:
            case Started(threads):
                self.book.threads = threads
                self._take_earlier()
            case Resized(threads):
                self.book.threads = threads
            case BlockDone(report):
                self.book.shared.discard(report.number)
                self._block_done(report)
                self._take_back(report)
            case BlockAdvanced(report):
                self._take_plain(report)
            case BlockWaiting(number, done, busy):
                self._block_waiting(number, done, busy)
            case BlockReached(number, index):
                # Else it is a late word of one that was lost.
                if number == self._alone or number in self.book.solo:
                    self._reached[number] = index
            case BlockLost():
                self._block_lost(event)
            case ReportLost(numbers):
                self._reports_lost(numbers)
            case ResultsLost(numbers):
                self._put_back(numbers)
            case TriedLong():
                self.book.make_ready(self.book.kinds.give_up())
                for lane in self._lanes:
                    lane.is_long = lane.is_long or lane.is_trying
            case StopAsked(reason, crashed):
                self._stop(Crashed(reason) if crashed else Cancelled(reason))
            case _:
                self._handle_growth(event)
        if not self.finished:
            self._advance()
        if self.book.left == 0 and not self._may_grow() and not self.finished:
            self.finished = True
            self.book.told.append(Finish())
        return self.book.told

    def _handle_growth(self, event: Event) -> None:
        """Take in an event that only a growing plan has."""
        raise InternalError(f"{event!r} was told of a plan that does not grow")

    def _may_grow(self) -> bool:
        """Whether more nodes may come."""
        return False

    # -- what a run knows of its nodes ------------------------------------------------

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
        return self.book.kinds.holds_back or any(lane.is_trying for lane in self._lanes)

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

    # -- what stands of an earlier run ----------------------------------------------

    def _take_earlier(self) -> None:
        """Put stand-ins where something that runs reads what does not."""
        kept = self.book.earlier.kept
        stand_ins = []
        for index, found in sorted(kept.items()):
            if found.length is None:
                self.book.plain[index] = found.segments[0]
                self.book.fans_out[index] = 0
            else:
                self.book.children[index] = Children(found.length, found.segments)
            self.book.blocks_of[index] = []
            if any(
                self.book.earlier.runs_again(n)
                for n in self.book.plan.dependents[index]
            ):
                stand_ins += [self._given(index, part) for part in found.segments]
        if stand_ins:
            self.book.submit(stand_ins)
        for index, found in sorted(kept.items()):
            if found.is_whole:
                if not self.book.fans_out[index]:
                    self.book.mark_submitted(index)
                self.book.make_final(index)

    def _given(self, index: int, segment: Segment) -> Assignment:
        node = self.book.plan.nodes[index]
        step = Step(
            index, node.task, node.slug, (), mapped=bool(self.book.fans_out[index])
        )
        number = self.book.take_number()
        self.book.blocks_of[index].append(number)
        if self.book.fans_out[index]:
            self.book.spans[number] = segment.start, segment.stop
        block = Block(
            number, (step,), segment.start, segment.stop, 0.0, frozenset({index})
        )
        return Assignment(block, (), {index: segment})

    # -- blocks that ended ------------------------------------------------------------

    def _block_done(self, report: BlockReport) -> None:
        if report.number in self.book.solo:
            self._solo_done(report.number, report.segments)
            return
        lane = self.book.lane_of_block.get(report.number)
        if lane is None:
            self._take_plain(report)
            return
        span = lane.in_flight.pop(report.number, None)
        if span is None:
            self._done_again(report)
            return
        if report.number == self._alone:
            self._alone = None
        self._reached.pop(report.number, None)
        start, stop = span
        self.book.spans[report.number] = start, start + report.done
        lane.waiting.discard(report.number)
        lane.pace.observe(report.done, report.busy)
        lane.children_done += report.done
        lane.blocks_done += 1
        for node, segment in report.segments.items():
            self.book.children[node].add(segment)
        if start + report.done < stop:
            lane.todo.appendleft((start + report.done, stop))
        self._after_lane_step(lane)

    def _done_again(self, report: BlockReport) -> None:
        """A block whose worker died after its end was run again by Dask.

        What it was the first time counts. If it handed more children back this time,
        some are missing from its result, and it is run once more, to its end.
        """
        span = self.book.spans.get(report.number)
        if span is None or report.number not in self.book.held:
            return
        if span[0] + report.done < span[1]:
            self._redo([report.number])

    def _redo(self, numbers: Sequence[int]) -> None:
        """Run blocks anew, to their end, together with what they read and is gone."""
        todo = in_order(self.book, {*numbers, *gone_above(self.book, numbers)})
        fresh = {number: self.book.take_number() for number in todo}
        anew = []
        for old in todo:
            assignment = self.book.assigned[old]
            block = assignment.block._replace(number=fresh[old], aim=0.0)
            self.book.tries[fresh[old]] = self.book.tries.get(old, 0) + 1
            if old in self.book.spans:
                start, stop = self.book.spans[fresh[old]] = self.book.spans[old]
                block = block._replace(start=start, stop=stop)
            if old in self.book.lane_of_block:
                self.book.lane_of_block[fresh[old]] = self.book.lane_of_block[old]
            present = map(self.book.present, assignment.reads)
            reads = tuple(fresh.get(number, number) for number in present)
            anew.append(
                Assignment(block, reads, assignment.given, assignment.annotations)
            )
        self.book.renumber(fresh)
        self.book.submit(anew)
        for old in todo:
            self.book.forget(old)

    def _take_plain(self, report: BlockReport) -> None:
        if report.number not in self.book.assigned:
            return  # superseded: it was submitted again under another number
        for node, segment in report.segments.items():
            # A child that was run node by node may report once more.
            if self.book.status[node] != FINAL and node not in self.book.children:
                self.book.plain[node] = segment
                self.book.make_final(node)
                self.book.make_ready(
                    self.book.kinds.learn(self.book.plan.nodes[node], segment)
                )

    def _take_back(self, report: BlockReport) -> None:
        """Submit the plain nodes anew that a block has handed back, and their readers.

        Nothing that reads one of them has begun: it finds that it is not there.
        """
        number = report.number
        assignment = self.book.assigned.get(number)
        if assignment is None or not assignment.block.parts:
            return
        block = assignment.block
        gone = [s.node for s in block.steps if s.node not in report.segments]
        rest = [node for node in gone if self.book.status[node] != FINAL]
        if len(rest) < len(gone) and number in self.book.held:
            # Dask has run it again, and it gave less than it had told of before.
            self._redo([number, *self._unfinished_plain_readers([number])])
            return
        if not rest:
            return
        stays = tuple(s for s in block.steps if s.node in report.segments)
        block = block._replace(
            steps=stays,
            keep=block.keep.difference(gone),
            parts=tuple(n for n in block.parts if n < len(stays)),
        )
        self.book.assigned[number] = replace(assignment, block=block)
        direct = {
            found
            for node in rest
            for reader in self.book.plan.dependents[node]
            for found in self.book.blocks_of.get(reader, ())
            if found in self.book.assigned
            and found != number
            and not self.book.has_ended(self.book.assigned[found])
        }
        affected = sorted({*direct, *unfinished_readers(self.book, sorted(direct))})
        for found in affected:
            rest += [step.node for step in self.book.assigned[found].block.steps]
        self._submit_plain(sorted(rest))
        for found in affected:
            self.book.forget(found)
        self.book.release_blocks_of(stays[0].node)

    def _block_waiting(self, number: int, done: int, busy: float) -> None:
        lane = self.book.lane_of_block.get(number)
        if lane is not None and number in lane.in_flight:
            lane.waiting.add(number)
            if lane.pace.seconds is None:
                lane.pace.observe(done, busy)

    def _after_lane_step(self, lane: Lane) -> None:
        if lane.children_done == lane.length:
            self._lanes.remove(lane)
            for node in lane.nodes:
                self.book.make_final(node)

    # -- blocks that were lost ------------------------------------------------------

    def _block_lost(self, lost: BlockLost) -> None:
        lane = self.book.lane_of_block.get(lost.number)
        if lost.number not in self.book.assigned:
            self._superseded_lost(lost)
        elif lane is not None and lost.number in lane.in_flight:
            self._lane_block_lost(lane, lost)
        elif lost.stale or self._is_bystander(lost):
            self._redo_lost(lost)
        else:
            assignment = self.book.assigned[lost.number]
            if self._is_worth_another_try(lost.number):
                self._redo_lost(lost)
            elif (
                lane is None
                and assignment.given is None
                and len(assignment.block.steps) > 1
                and not self.book.has_ended(assignment)
            ):
                self._unfuse(lost.number)
            else:
                self._replace_blocks(lost)

    def _is_bystander(self, lost: BlockLost) -> bool:
        """Whether a child that ran by itself was lost before its body was called.

        Its worker had it, and died of something else: `LocalCluster` closes workers
        that are just being started. So often as it is believed, a body is not to blame.
        """
        if lost.number not in self.book.solo or not lost.divisible:
            return False
        tries = self.book.tries.get(lost.number, 0)
        return lost.number not in self._reached and tries < MOST_TRIES

    def _superseded_lost(self, lost: BlockLost) -> None:
        """Run anew what is lost with a block that has another number by now.

        A block that had ended reads by the old number what was put back since. When its
        own result is lost, Dask computes both anew, and that may kill workers.
        """
        for number in lost.others:
            if number in self.book.assigned:
                self._block_lost(replace(lost, number=number, stale=True))

    def _gone_with(self, lost: BlockLost) -> list[int]:
        """A lost block, and those that had ended and whose results are lost with it."""
        gone = [lost.number]
        for number in lost.others:
            known = self.book.assigned.get(number)
            if (
                known is not None
                and number != lost.number
                and self.book.has_ended(known)
            ):
                gone.append(number)
        return gone

    def _redo_lost(self, lost: BlockLost) -> None:
        """Run a block anew, and all that is lost with it."""
        gone = self._gone_with(lost)
        self._redo([*gone, *self._unfinished_plain_readers(gone)])

    def _reports_lost(self, numbers: Sequence[int]) -> None:
        """Run blocks anew of whose end nothing is left that could tell."""
        lost = [
            number
            for number in numbers
            if number in self.book.assigned
            and not self.book.has_ended(self.book.assigned[number])
        ]
        if lost:
            self._redo(lost)

    def _put_back(self, numbers: Sequence[int]) -> None:
        """Put what came home in the place of results that were lost.

        Dask computes these anew. Where workers die every few seconds that is more than
        what gets done in between, and the run would not end.
        """
        # What may still be computed from them, reads them by their old numbers.
        read = {
            above
            for number, assignment in self.book.assigned.items()
            if assignment.reads and not self.book.came_home(number)
            for above in map(self.book.present, assignment.reads)
        }
        gone = [
            number
            for number in numbers
            if number in self.book.held
            and number not in read
            and self.book.assigned[number].given is None
            and self.book.came_home(number)
        ]
        put_back = []
        renumbered = {}
        for old in gone:
            block = self.book.assigned[old].block
            fresh = block._replace(number=self.book.take_number())
            renumbered[old] = fresh.number
            known = ((node, self.book.known(node, old)) for node in block.keep)
            given = {node: found for node, found in known if found is not None}
            put_back.append(Assignment(fresh, (), given))
            if old in self.book.spans:
                self.book.spans[fresh.number] = self.book.spans[old]
        self.book.renumber(renumbered)
        if put_back:
            self.book.submit(put_back)
        for old in gone:
            self.book.forget(old)

    def _is_worth_another_try(self, number: int) -> bool:
        """Whether a block that ended and was lost has values only running it gives."""
        if self.book.tries.get(number, 0) >= MOST_TRIES or number in self.book.solo:
            return False
        assignment = self.book.assigned[number]
        if assignment.given is not None:
            return False
        span = self.book.spans.get(number)
        if span is None and not self.book.has_ended(assignment):
            return False
        known = [
            self.book.plain.get(node) if span is None else self.book.part(node, *span)
            for node in assignment.block.keep
        ]
        return any(segment is None or segment.values is None for segment in known)

    def _unfuse(self, number: int) -> None:
        """Run the nodes of a lost block one by one, to find which is to blame."""
        members = [step.node for step in self.book.assigned[number].block.steps]
        readers = self._unfinished_plain_readers([number])
        again = [*members]
        for reader in readers:
            again += [step.node for step in self.book.assigned[reader].block.steps]
        assignments = []
        for node in again:
            fresh = self.book.take_number()
            assignments.append(self._assign_plain(fresh, Together((node,))))
            self.book.blocks_of[node] = [fresh]
        self.book.submit([*unheld_above(self.book, assignments), *assignments])
        for old in (number, *readers):
            self.book.forget(old)

    def _lane_block_lost(self, lane: Lane, lost: BlockLost) -> None:
        """Narrow a loss down to the child and the node that kill their workers.

        A worker that dies takes innocent blocks along, so those that were lost run
        once more, one at a time, and tell how far they come. Of what is lost while
        alone, the part that had begun last is suspected further.
        """
        start, stop = span = lane.in_flight[lost.number]
        alone = self._alone == lost.number
        first = self._reached.get(lost.number, start)
        if lost.stale:
            self._cut_again(lane, lost.number)
        elif lost.divisible and not alone:
            self._withdraw(lane, lost.number)
            lane.suspects.append(span)
        elif lost.divisible:
            self._withdraw(lane, lost.number)
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
        stand_in = self._stand_in(lost.number, lost)
        self._withdraw(lane, lost.number)
        self.book.spans[stand_in.block.number] = span
        for node, segment in (stand_in.given or {}).items():
            self.book.blocks_of[node].append(stand_in.block.number)
            self.book.children[node].add(segment)
        lane.children_done += span[1] - span[0]
        self.book.submit([stand_in])
        self._after_lane_step(lane)

    def _run_solo(self, lane: Lane, span: tuple[int, int]) -> None:
        """Run a child of a lane node by node, a block each."""
        solo = Solo(lane, set(lane.nodes))
        assignments = []
        for node in lane.nodes:
            number = self.book.take_number()
            reads: dict[int, int] = {}
            step = step_of(self.book, self.book.plan.nodes[node], (node,), reads, span)
            block = Block(number, (step,), *span, 0.0, frozenset({node}), careful=True)
            annotations = self.book.plan.nodes[node].annotations
            assignments.append(Assignment(block, tuple(reads), annotations=annotations))
            self.book.spans[number] = span
            self.book.blocks_of[node].append(number)
            self.book.solo[number] = solo
        self.book.submit(assignments)

    def _solo_done(self, number: int, segments: Mapping[int, Segment]) -> None:
        solo = self.book.solo.pop(number)
        self._reached.pop(number, None)
        for node, segment in segments.items():
            if node in solo.left:
                solo.left.discard(node)
                self.book.children[node].add(segment)
        if not solo.left:
            solo.lane.children_done += 1
            self._after_lane_step(solo.lane)

    def _cut_again(self, lane: Lane, number: int) -> None:
        """Take back a block that cannot run because of what it reads."""
        is_suspect = self._alone == number
        todo = lane.suspects if is_suspect else lane.todo
        todo.appendleft(lane.in_flight[number])
        self._withdraw(lane, number)

    def _withdraw(self, lane: Lane, number: int) -> None:
        """Take a block of a lane back, as if it had never been cut."""
        if self._alone == number:
            self._alone = None
        self._reached.pop(number, None)
        del lane.in_flight[number]
        lane.waiting.discard(number)
        for node in lane.nodes:
            self.book.blocks_of[node].remove(number)
        self.book.forget(number)

    def _replace_blocks(self, lost: BlockLost) -> None:
        """Put stand-ins in the place of lost blocks, and run their readers anew.

        Blocks that had ended before their result was lost are replaced too: their
        states stand, and values that came home go back.
        """
        gone = self._gone_with(lost)
        gone += readers_of(self.book, gone)[1]
        stand_ins = [self._stand_in(number, lost) for number in gone]
        renumbered = {
            old: stand_in.block.number
            for old, stand_in in zip(gone, stand_ins, strict=True)
        }
        anew = []
        for old in unfinished_readers(self.book, gone):
            lane = self.book.lane_of_block.get(old)
            if lane is not None:
                self._cut_again(lane, old)
                continue
            assignment = self.book.assigned[old]
            fresh = assignment.block._replace(number=self.book.take_number())
            renumbered[old] = fresh.number
            reads = tuple(
                renumbered.get(n, self.book.present(n)) for n in assignment.reads
            )
            anew.append(Assignment(fresh, reads, annotations=assignment.annotations))
        self.book.renumber(renumbered)
        for old, new in renumbered.items():
            if old in self.book.spans:
                self.book.spans[new] = self.book.spans[old]
        # Dask forgot what only the lost ones read: it goes into the graph again.
        lost_ones = [self.book.assigned[number] for number in gone]
        orphans = [
            a for a in unheld_above(self.book, lost_ones) if not self.book.has_ended(a)
        ]
        above = {a.block.number for a in orphans}
        above |= {a.block.number for a in unheld_above(self.book, [*anew, *orphans])}
        earlier = [self.book.assigned[number] for number in in_order(self.book, above)]
        self.book.submit([*earlier, *stand_ins, *anew])
        for old in renumbered:
            self.book.forget(old)
        for stand_in in stand_ins:
            if stand_in.block.number in self.book.solo:
                self._solo_done(stand_in.block.number, stand_in.given or {})
                continue
            for node, segment in (stand_in.given or {}).items():
                # A child of a fan-out that ended before keeps the state it had.
                if self.book.status[node] != FINAL and node not in self.book.children:
                    self.book.plain[node] = segment
                    self.book.make_final(node)
        for stand_in in stand_ins:
            for node in stand_in.given or {}:
                self.book.release_blocks_of(node)

    def _unfinished_plain_readers(self, numbers: Sequence[int]) -> list[int]:
        """Unfinished blocks in the graph below some that have to be run anew."""
        readers = []
        for found in unfinished_readers(self.book, numbers):
            lane = self.book.lane_of_block.get(found)
            if lane is None:
                readers.append(found)
                continue
            self._cut_again(lane, found)
        return readers

    def _stand_in(self, number: int, lost: BlockLost) -> Assignment:
        """A result in the place of a lost block: what is known of it, else crashes."""
        block = self.book.assigned[number].block
        given = {}
        invented = set()
        for step in block.steps:
            known = self.book.known(step.node, number)
            if known is None or known.values is None:
                start, stop = self.book.spans.get(number, (block.start, block.stop))
                crashed = Crashed(lost.reason, timestamp=lost.when)
                known = all_ended(start, stop, crashed)
                invented.add(step.node)
            given[step.node] = known
        # Nobody can fetch from it what it does not have.
        had = frozenset(n for n in block.keep if n not in invented)
        fresh = block._replace(number=self.book.take_number(), keep=had)
        return Assignment(fresh, (), given)

    def _stop(self, state: State) -> None:
        self.book.end_all(state)
        self.finished = True
        self.book.told = [Finish()]

    # -- what is ready --------------------------------------------------------------

    def _advance(self) -> None:
        """Submit all that has become ready."""
        while self.book.ready:
            plain: list[int] = []
            heapq.heapify(self.book.ready)
            while self.book.ready:
                # Readers made ready by a submission join the same graph.
                index = heapq.heappop(self.book.ready)
                node = self.book.plan.nodes[index]
                if self.book.status[index] != WAITING:
                    continue
                if node.constant:
                    self.book.make_final(index)
                elif node.mapped:
                    if self._can_expand(node):
                        plain.extend(self._expand(node))
                elif self._may_submit(node):
                    plain.append(index)
                    self.book.mark_submitted(index)
            self._submit_plain(plain)
        self._feed_lanes()

    def _can_expand(self, node: Node) -> bool:
        """Whether the length of a mapped node is known, all above being final."""
        return True

    def _may_submit(self, node: Node) -> bool:
        """Whether a plain node that is ready goes out now."""
        return self.book.kinds.may_go(node, self.book.threads)

    def _submit_plain(self, nodes: Sequence[int]) -> None:
        if not nodes:
            return
        assignments = []
        for together in self._together(sorted(nodes)):
            number = self.book.take_number()
            assignments.append(self._assign_plain(number, together))
            for node in together.nodes:
                self.book.blocks_of[node] = [number]
        self.book.submit(assignments)

    def _together(self, nodes: Sequence[int]) -> Sequence[Together]:
        """Blocks that some plain nodes are joined into, in an order of their edges."""
        assert isinstance(self.book.plan, Plan)
        groups = [Group(n, self._seconds(n)) for n in fuse(self.book.plan, nodes)]
        return put_together(
            groups,
            self._above,
            self._label,
            self.book.threads,
            is_there=self._is_there,
        )

    def _is_there(self, index: int) -> bool:
        """Whether the value of a node is there, and small enough to come along."""
        if self.book.status[index] != FINAL:
            return False
        if index in self.book.children:
            return len(self.book.children[index]) <= MOST_BROUGHT and all(
                segment.values is not None
                for segment in self.book.children[index].segments
            )
        known = self.book.plain.get(index)
        return known is None or not is_success(known) or known.values is not None

    def _seconds(self, nodes: Sequence[int]) -> float | None:
        """Seconds that nodes take one after the other, `None` if it is not known."""
        total = 0.0
        for node in nodes:
            seconds = self.book.kinds.seconds(self.book.plan.nodes[node])
            if seconds is None:
                return None
            total += seconds
        return total

    def _above(self, index: int) -> Sequence[int]:
        return self.book.plan.upstream[index]

    def _label(self, index: int) -> str:
        """Annotations of a node as a label."""
        return repr(sorted(self.book.plan.nodes[index].annotations.items()))

    def _assign_plain(self, number: int, together: Together) -> Assignment:
        members = together.nodes
        reads: dict[int, int] = {}
        inside = frozenset(members)
        steps = tuple(
            step_of(self.book, self.book.plan.nodes[node], inside, reads, None)
            for node in members
        )
        block = Block(
            number,
            steps,
            0,
            1,
            together.aim,
            kept_of(self.book, members),
            parts=together.parts,
        )
        annotations = self.book.plan.nodes[members[0]].annotations
        return Assignment(block, tuple(reads), annotations=annotations)

    # -- fan-outs -------------------------------------------------------------------

    def _expand(self, node: Node) -> list[int]:
        """Begin the lane of a mapped node; nodes to run as plain ones instead.

        A node that cannot be mapped is run as a plain one, whose body refuses: so its
        trigger is put to the states above it, as for any other.
        """
        index = node.index
        length = length_of(self.book, node, {})
        if isinstance(length, Exception):
            self.book.fans_out[index] = 0
            self.book.mark_submitted(index)
            return [index]
        nodes = self._lane_from(index, length)
        todo = self.book.earlier.todo(index, length)
        lane = Lane(nodes, length, deque(todo))
        lane.children_done = length - sum(stop - start for start, stop in todo)
        self._lanes.append(lane)
        for member in nodes:
            self.book.status[member] = SUBMITTED
            self.book.children.setdefault(member, Children(length))
            self.book.blocks_of.setdefault(member, [])
        self._after_lane_step(lane)
        return []

    def _lane_from(self, first: int, length: int) -> tuple[int, ...]:
        """Nodes that can run child by child together with a mapped node."""
        lane = {first: length}
        todo = list(self.book.plan.dependents[first])
        seen = set(todo)
        heapq.heapify(todo)
        while todo:
            index = heapq.heappop(todo)
            if not self._joins(self.book.plan.nodes[index], lane):
                continue
            lane[index] = length
            for reader in self.book.plan.dependents[index]:
                if reader not in seen:
                    seen.add(reader)
                    heapq.heappush(todo, reader)
        return tuple(sorted(lane))

    def _joins(self, node: Node, lane: dict[int, int]) -> bool:
        if not node.mapped or self.book.status[node.index] != WAITING:
            return False
        first, length = next(iter(lane.items()))
        if node.annotations != self.book.plan.nodes[first].annotations:
            return False
        for item in node.inputs:
            if item.node is None:
                continue
            if item.node in lane:
                if not item.mapped or item.flattened:
                    return False
            elif self.book.status[item.node] != FINAL:
                return False
        if self.book.earlier.todo(node.index, length) != self.book.earlier.todo(
            first, length
        ):
            return False
        return length_of(self.book, node, lane) == length

    def _feed_lanes(self) -> None:
        """Cut blocks while there is room for more of them."""
        if self._alone is not None or self.book.solo:
            return
        suspected = [lane for lane in self._lanes if lane.suspects]
        if suspected:
            if all(len(n.in_flight) == len(n.waiting) for n in self._lanes):
                self._run_suspect(suspected[0])
            return
        assignments = []
        for lane in self._lanes:
            ended = lane.blocks_done
            allowed = most_in_flight(self.book.threads, ended, lane.is_long)
            while lane.todo and len(lane.in_flight) - len(lane.waiting) < allowed:
                assignments.append(self._cut_block(lane))
        if assignments:
            self.book.submit(assignments)

    def _run_suspect(self, lane: Lane) -> None:
        """Run the next suspect of a lane, no other block of a fan-out beside it."""
        start, stop = lane.suspects.popleft()
        if stop - start == 1:
            self._run_solo(lane, (start, stop))
            return
        assignment = self._block_of_lane(lane, start, stop)
        block = assignment.block._replace(careful=True)
        self._alone = block.number
        self.book.submit([replace(assignment, block=block)])

    def _cut_block(self, lane: Lane) -> Assignment:
        start, stop = lane.todo.popleft()
        remaining = stop - start + sum(b - a for a, b in lane.todo)
        size = min(block_size(remaining, self.book.threads, lane.pace), stop - start)
        if start + size < stop:
            lane.todo.appendleft((start + size, stop))
        return self._block_of_lane(lane, start, start + size)

    def _block_of_lane(self, lane: Lane, start: int, stop: int) -> Assignment:
        number = self.book.take_number()
        reads: dict[int, int] = {}
        steps = tuple(
            step_of(
                self.book, self.book.plan.nodes[node], lane.nodes, reads, (start, stop)
            )
            for node in lane.nodes
        )
        block = Block(
            number,
            steps,
            start,
            stop,
            AIM,
            kept_of(self.book, lane.nodes),
            lean=lane.length > MOST_BROUGHT,
        )
        lane.in_flight[number] = (start, stop)
        self.book.lane_of_block[number] = lane
        for node in lane.nodes:
            self.book.blocks_of[node].append(number)
        annotations = self.book.plan.nodes[lane.nodes[0]].annotations
        return Assignment(block, tuple(reads), annotations=annotations)


def _keys(table: Mapping[int, object]) -> list[int]:
    """Keys of a table that another thread may add to meanwhile."""
    while True:
        try:
            return list(table)
        except RuntimeError:  # it grew while it was read
            continue
