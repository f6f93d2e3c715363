"""Driver: turns what happened into what to submit next.

A state machine without I/O: `Driver.handle(event)` returns commands. It knows blocks
and nodes, neither Dask nor values: values travel from block to block.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

from prefect_dask_core.engine.block import (
    NOT_PAUSED,
    Block,
    BlockReport,
    Step,
    careful_piece,
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
    Release,
    ReportLost,
    Resized,
    ResultsLost,
    Started,
    StopAsked,
    Submit,
    TriedLong,
)
from prefect_dask_core.engine.fanout import (
    AIM,
    LONG,
    Pace,
    block_size,
    mapped_length,
    most_in_flight,
    nothing_to_map,
)
from prefect_dask_core.engine.feeds import (
    Each,
    Filled,
    Fixed,
    Items,
    Local,
    Source,
    StepInput,
    Whole,
    is_success,
)
from prefect_dask_core.engine.grouping import Group, Kinds, Together, put_together
from prefect_dask_core.engine.plan import GrowingPlan, Input, Node, Plan, fuse, items_of
from prefect_dask_core.engine.resume import NOTHING_EARLIER, Earlier
from prefect_dask_core.engine.templates import PART, has_template, nodes_of
from prefect_dask_core.errors import InternalError
from prefect_dask_core.states import (
    Cancelled,
    Completed,
    Crashed,
    Mapped,
    Pending,
    State,
)

WAITING, SUBMITTED, FINAL = 0, 1, 2
#: Children up to which a fan-out's values come home although nobody asked for them and
#: only the same block reads them. Of more, they live no longer than their child runs.
MOST_BROUGHT = 1_000
#: Times a block that had ended is run anew before what it held counts as lost.
MOST_TRIES = 3


@dataclass(slots=True, eq=False)
class _Lane:
    """Mapped nodes over one index space, on their way."""

    nodes: tuple[int, ...]
    length: int
    todo: deque[tuple[int, int]]
    in_flight: dict[int, tuple[int, int]] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    suspects: deque[tuple[int, int]] = field(default_factory=deque)
    pace: Pace = field(default_factory=Pace)
    children_done: int = 0
    blocks_done: int = 0
    is_long: bool = False

    @property
    def is_trying(self) -> bool:
        """Whether its first children tell how to cut the rest."""
        return bool(self.todo and self.in_flight) and not (
            self.blocks_done or self.is_long
        )

    @property
    def has_long_children(self) -> bool:
        """Whether its children are so long that all of them may go out."""
        seconds = self.pace.seconds
        return self.is_long if seconds is None else seconds >= LONG


@dataclass(slots=True)
class _Solo:
    """A child that runs node by node, to find which of them kills its workers."""

    lane: _Lane
    left: set[int]


class Driver:
    """State machine of one flow run.

    Parameters
    ----------
    plan : Plan
        What to run.
    wanted : frozenset of int
        Nodes whose values are kept for the end of the run.
    earlier : Earlier, optional
        What of an earlier run stands.

    Notes
    -----
    Reading order: `handle` names the events; `_advance` decides what is ready.
    """

    def __init__(
        self,
        plan: Plan | GrowingPlan,
        wanted: frozenset[int],
        earlier: Earlier = NOTHING_EARLIER,
    ) -> None:
        self.plan = plan
        self._earlier = earlier
        self.wanted = wanted
        count = len(plan.nodes)
        self.threads = 0
        self.finished = False
        self._status = bytearray(count)
        self._plain: dict[int, Segment] = {}
        self._children: dict[int, Children] = {}
        self._blocks_of: dict[int, list[int]] = {}
        self._assigned: dict[int, Assignment] = {}
        self._held: set[int] = set()
        self._next_block = 0
        self._lanes: list[_Lane] = []
        self._lane_of_block: dict[int, _Lane] = {}
        # Children that ended blocks of fan-outs hold, as their readers are told.
        self._spans: dict[int, tuple[int, int]] = {}
        self._renumbered: dict[int, int] = {}
        # The block of suspects that runs with no other block of a fan-out beside it.
        self._alone: int | None = None
        # How far careful blocks came.
        self._reached: dict[int, int] = {}
        self._solo: dict[int, _Solo] = {}
        self._tries: dict[int, int] = {}
        self._open_readers = [len(found) for found in plan.dependents]
        self._left = count
        # What a node still waits for: a plain one for plain nodes to be submitted and
        # fan-outs to be final, a mapped one for everything above it to be final.
        self._missing = [len(found) for found in plan.upstream]
        self._ready: list[int] = [i for i in range(count) if not self._missing[i]]
        self._told: list[Command] = []
        #: Nodes that became final, for the runner to take and clear.
        self.ended: list[int] = []
        # Nodes whose values somebody outside of the plan may still ask for.
        self._pinned: set[int] = set()
        # Readers of a fan-out wait for its end, those of a plain node do not.
        self._fans_out = bytearray(int(node.mapped) for node in plan.nodes)
        self._kinds = Kinds()
        # Blocks with several parts that have not ended.
        self._shared: set[int] = set()

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
        self._told = []
        match event:
            case Started(threads):
                self.threads = threads
                self._take_earlier()
            case Resized(threads):
                self.threads = threads
            case BlockDone(report):
                self._shared.discard(report.number)
                self._block_done(report)
                self._take_back(report)
            case BlockAdvanced(report):
                self._take_plain(report)
            case BlockWaiting(number, done, busy):
                self._block_waiting(number, done, busy)
            case BlockReached(number, index):
                # Else it is a late word of one that was lost.
                if number == self._alone or number in self._solo:
                    self._reached[number] = index
            case BlockLost():
                self._block_lost(event)
            case ReportLost(numbers):
                self._reports_lost(numbers)
            case ResultsLost(numbers):
                self._put_back(numbers)
            case TriedLong():
                self._let_go(self._kinds.give_up())
                for lane in self._lanes:
                    lane.is_long = lane.is_long or lane.is_trying
            case StopAsked(reason, crashed):
                self._stop(Crashed(reason) if crashed else Cancelled(reason))
            case _:
                self._handle_growth(event)
        if not self.finished:
            self._advance()
        if self._left == 0 and not self._may_grow() and not self.finished:
            self.finished = True
            self._told.append(Finish())
        return self._told

    def _handle_growth(self, event: Event) -> None:
        """Take in an event that only a growing plan has."""
        raise InternalError(f"{event!r} was told of a plan that does not grow")

    def _may_grow(self) -> bool:
        """Whether more nodes may come."""
        return False

    # -- what a run knows of its nodes ------------------------------------------------

    def state(self, index: int) -> State:
        """State of a node; that of a mapped one carries its children's."""
        node = self.plan.nodes[index]
        if node.constant:
            return Completed(data=node.task.value)  # type: ignore[attr-defined]
        if index in self._children:
            return Mapped(states=self._children[index])
        if index in self._plain:
            return self._plain[index].state(0)
        return Pending()

    def children(self, index: int) -> Children | None:
        """Children of a node as far as they are known; `None` if it has none yet."""
        return self._children.get(index)

    def segments(self, index: int) -> Sequence[Segment]:
        """Segments of a node, in index order."""
        if index in self._children:
            return self._children[index].segments
        return [self._plain[index]] if index in self._plain else []

    def ended_plain(self) -> list[int]:
        """Nodes without children that have ended, in the order of their ends.

        May be asked by another thread, as `fan_outs` may.
        """
        return _keys(self._plain)

    def fan_outs(self) -> list[int]:
        """Nodes whose number of children is known."""
        return _keys(self._children)

    def blocks_of(self, index: int) -> Sequence[int]:
        """Blocks that hold the values of a node."""
        return self._blocks_of.get(index, [])

    def holds(self, number: int, node: int, start: int) -> bool:
        """Whether a block has the values of a node's children from an index on."""
        known = self._assigned.get(number)
        if known is None or node not in known.block.keep:
            return False
        return node not in self._children or self._spans[number][0] == start

    def held(self) -> frozenset[int]:
        """Blocks whose results are still kept."""
        return frozenset(self._held)

    @property
    def is_trying(self) -> bool:
        """Whether something waits until it is known how long its kind takes."""
        return self._kinds.holds_back or any(lane.is_trying for lane in self._lanes)

    def silent(self) -> list[int]:
        """Blocks of plain nodes that were submitted and of which no end is known."""
        found = {
            self._blocks_of[index][-1]
            for index, status in enumerate(self._status)
            if status == SUBMITTED and not self._fans_out[index]
        }
        return sorted(found)

    def lengths_of(self, number: int) -> dict[int, tuple[bool, bool]]:
        """Nodes of a block: whether others map over them, and over them flattened."""
        nodes = (step.node for step in self._assigned[number].block.steps)
        measured, flattened = self.plan.measured, self.plan.flattened
        return {node: (node in measured, node in flattened) for node in nodes}

    # -- what stands of an earlier run ----------------------------------------------

    def _take_earlier(self) -> None:
        """Put stand-ins where something that runs reads what does not."""
        kept = self._earlier.kept
        stand_ins = []
        for index, found in sorted(kept.items()):
            if found.length is None:
                self._plain[index] = found.segments[0]
                self._fans_out[index] = 0
            else:
                self._children[index] = Children(found.length, found.segments)
            self._blocks_of[index] = []
            if any(self._runs_again(n) for n in self.plan.dependents[index]):
                stand_ins += [self._given(index, part) for part in found.segments]
        if stand_ins:
            self._submit(stand_ins)
        for index, found in sorted(kept.items()):
            if found.is_whole:
                if not self._fans_out[index]:
                    self._now_submitted(index)
                self._make_final(index)

    def _runs_again(self, index: int) -> bool:
        found = self._earlier.kept.get(index)
        return found is None or not found.is_whole

    def _given(self, index: int, segment: Segment) -> Assignment:
        node = self.plan.nodes[index]
        step = Step(index, node.task, node.slug, (), mapped=bool(self._fans_out[index]))
        number = self._take_number()
        self._blocks_of[index].append(number)
        if self._fans_out[index]:
            self._spans[number] = segment.start, segment.stop
        block = Block(
            number, (step,), segment.start, segment.stop, 0.0, frozenset({index})
        )
        return Assignment(block, (), {index: segment})

    def _todo(self, index: int, length: int) -> tuple[tuple[int, int], ...]:
        """Ranges of children of a node that have to run."""
        found = self._earlier.kept.get(index)
        if found is not None:
            return found.todo
        return ((0, length),) if length else ()

    # -- blocks that ended ------------------------------------------------------------

    def _block_done(self, report: BlockReport) -> None:
        if report.number in self._solo:
            self._solo_done(report.number, report.segments)
            return
        lane = self._lane_of_block.get(report.number)
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
        self._spans[report.number] = start, start + report.done
        lane.waiting.discard(report.number)
        lane.pace.observe(report.done, report.busy)
        lane.children_done += report.done
        lane.blocks_done += 1
        for node, segment in report.segments.items():
            self._children[node].add(segment)
        if start + report.done < stop:
            lane.todo.appendleft((start + report.done, stop))
        self._after_lane_step(lane)

    def _done_again(self, report: BlockReport) -> None:
        """A block whose worker died after its end was run again by Dask.

        What it was the first time counts. If it handed more children back this time,
        some are missing from its result, and it is run once more, to its end.
        """
        span = self._spans.get(report.number)
        if span is None or report.number not in self._held:
            return
        if span[0] + report.done < span[1]:
            self._redo([report.number])

    def _redo(self, numbers: Sequence[int]) -> None:
        """Run blocks anew, to their end, together with what they read and is gone."""
        todo = self._in_order({*numbers, *self._gone_above(numbers)})
        fresh = {number: self._take_number() for number in todo}
        anew = []
        for old in todo:
            assignment = self._assigned[old]
            block = assignment.block._replace(number=fresh[old], aim=0.0)
            self._tries[fresh[old]] = self._tries.get(old, 0) + 1
            if old in self._spans:
                start, stop = self._spans[fresh[old]] = self._spans[old]
                block = block._replace(start=start, stop=stop)
            if old in self._lane_of_block:
                self._lane_of_block[fresh[old]] = self._lane_of_block[old]
            present = map(self._present, assignment.reads)
            reads = tuple(fresh.get(number, number) for number in present)
            anew.append(
                Assignment(block, reads, assignment.given, assignment.annotations)
            )
        self._renumber(fresh)
        self._submit(anew)
        for old in todo:
            self._forget(old)

    def _in_order(self, numbers: Iterable[int]) -> list[int]:
        """Blocks in an order that respects what they read.

        Numbers alone do not tell: one that was run anew has a higher one than its
        readers.
        """
        waiting = set(numbers)
        ordered: list[int] = []

        def put(number: int) -> None:
            stack = [number]
            while stack:
                last = stack[-1]
                if last not in waiting:
                    stack.pop()
                    continue
                above = map(self._present, self._assigned[last].reads)
                missing = [found for found in above if found in waiting]
                if missing:
                    stack += missing
                else:
                    waiting.discard(last)
                    ordered.append(stack.pop())

        for number in sorted(waiting):
            put(number)
        return ordered

    def _gone_above(self, numbers: Sequence[int]) -> set[int]:
        """Blocks these read, directly or not, whose results are not held."""
        gone: set[int] = set()
        todo = [n for number in numbers for n in self._assigned[number].reads]
        while todo:
            number = self._present(todo.pop())
            if number not in gone and number not in self._held:
                gone.add(number)
                todo.extend(self._assigned[number].reads)
        return gone

    def _present(self, number: int) -> int:
        """The number under which a block was last run anew."""
        last = number
        while last in self._renumbered:
            last = self._renumbered[last]
        if last != number:
            # Where workers die all the time the way grows by a step each time.
            self._renumbered[number] = last
        return last

    def _renumber(self, fresh: Mapping[int, int]) -> None:
        """Note the numbers under which blocks run anew.

        All at once: a fan-out has a list of its blocks, which may be thousands.
        """
        self._renumbered.update(fresh)
        nodes: set[int] = set()
        for old, new in fresh.items():
            if old in self._solo:
                self._solo[new] = self._solo.pop(old)
            nodes.update(step.node for step in self._assigned[old].block.steps)
        for node in nodes:
            self._blocks_of[node] = [fresh.get(n, n) for n in self._blocks_of[node]]

    def _take_plain(self, report: BlockReport) -> None:
        if report.number not in self._assigned:
            return  # superseded: it was submitted again under another number
        for node, segment in report.segments.items():
            # A child that was run node by node may report once more.
            if self._status[node] != FINAL and node not in self._children:
                self._plain[node] = segment
                self._make_final(node)
                self._let_go(self._kinds.learn(self.plan.nodes[node], segment))

    def _take_back(self, report: BlockReport) -> None:
        """Submit the plain nodes anew that a block has handed back, and their readers.

        Nothing that reads one of them has begun: it finds that it is not there.
        """
        number = report.number
        assignment = self._assigned.get(number)
        if assignment is None or not assignment.block.parts:
            return
        block = assignment.block
        gone = [s.node for s in block.steps if s.node not in report.segments]
        rest = [node for node in gone if self._status[node] != FINAL]
        if len(rest) < len(gone) and number in self._held:
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
        self._assigned[number] = replace(assignment, block=block)
        direct = {
            found
            for node in rest
            for reader in self.plan.dependents[node]
            for found in self._blocks_of.get(reader, ())
            if found in self._assigned
            and found != number
            and not self._ended(self._assigned[found])
        }
        affected = sorted({*direct, *self._unfinished_readers(sorted(direct))})
        for found in affected:
            rest += [step.node for step in self._assigned[found].block.steps]
        self._submit_plain(sorted(rest))
        for found in affected:
            self._forget(found)
        self._release_blocks_of(stays[0].node)

    def _let_go(self, nodes: Iterable[int]) -> None:
        """Let nodes go out that were held back."""
        for index in nodes:
            heapq.heappush(self._ready, index)

    def _block_waiting(self, number: int, done: int, busy: float) -> None:
        lane = self._lane_of_block.get(number)
        if lane is not None and number in lane.in_flight:
            lane.waiting.add(number)
            if lane.pace.seconds is None:
                lane.pace.observe(done, busy)

    def _after_lane_step(self, lane: _Lane) -> None:
        if lane.children_done == lane.length:
            self._lanes.remove(lane)
            for node in lane.nodes:
                self._make_final(node)

    def _make_final(self, index: int) -> None:
        if self._status[index] == FINAL:
            raise InternalError(f"node {index} was final already")
        self._status[index] = FINAL
        self._left -= 1
        self.ended.append(index)
        for reader in self.plan.dependents[index]:
            if self.plan.nodes[reader].mapped or self._fans_out[index]:
                self._count_down(reader)
        for above in {index, *self.plan.upstream[index]}:
            if above != index:
                self._open_readers[above] -= 1
            if not self._open_readers[above]:
                self._release_blocks_of(above)

    def _count_down(self, reader: int) -> None:
        self._missing[reader] -= 1
        if not self._missing[reader]:
            heapq.heappush(self._ready, reader)

    def _release_blocks_of(self, index: int) -> None:
        """Release the blocks of a node that nobody reads any more."""
        done = []
        for number in self._blocks_of.get(index, ()):
            if number in self._held and not self._is_needed(number):
                done.append(number)
        if done:
            self._held.difference_update(done)
            self._told.append(Release(tuple(done)))

    def _is_needed(self, number: int) -> bool:
        block = self._assigned[number].block
        for step in block.steps:
            node = step.node
            if self._open_readers[node] or self._status[node] != FINAL:
                return True
            if node in self._pinned:
                return True
            # What stands in for a crash does not have what did not come home.
            has = node in self.wanted and node in block.keep
            if has and self._segment_of(node, block).values is None:
                return True
        return False

    def _segment_of(self, node: int, block: Block) -> Segment:
        if node not in self._children:
            return self._plain[node]
        found = self._children[node].locate(block.start)
        if found is None:
            raise InternalError(f"a final fan-out knows nothing of {block.start}")
        return found[0]

    # -- blocks that were lost ------------------------------------------------------

    def _block_lost(self, lost: BlockLost) -> None:
        lane = self._lane_of_block.get(lost.number)
        if lost.number not in self._assigned:
            self._superseded_lost(lost)
        elif lane is not None and lost.number in lane.in_flight:
            self._lane_block_lost(lane, lost)
        elif lost.stale or self._is_bystander(lost):
            self._redo_lost(lost)
        else:
            assignment = self._assigned[lost.number]
            if self._is_worth_another_try(lost.number):
                self._redo_lost(lost)
            elif (
                lane is None
                and assignment.given is None
                and len(assignment.block.steps) > 1
                and not self._ended(assignment)
            ):
                self._unfuse(lost.number)
            else:
                self._replace_blocks(lost)

    def _is_bystander(self, lost: BlockLost) -> bool:
        """Whether a child that ran by itself was lost before its body was called.

        Its worker had it, and died of something else: `LocalCluster` closes workers
        that are just being started. So often as it is believed, a body is not to blame.
        """
        if lost.number not in self._solo or not lost.divisible:
            return False
        tries = self._tries.get(lost.number, 0)
        return lost.number not in self._reached and tries < MOST_TRIES

    def _superseded_lost(self, lost: BlockLost) -> None:
        """Run anew what is lost with a block that has another number by now.

        A block that had ended reads by the old number what was put back since. When its
        own result is lost, Dask computes both anew, and that may kill workers.
        """
        for number in lost.others:
            if number in self._assigned:
                self._block_lost(replace(lost, number=number, stale=True))

    def _gone_with(self, lost: BlockLost) -> list[int]:
        """A lost block, and those that had ended and whose results are lost with it."""
        gone = [lost.number]
        for number in lost.others:
            known = self._assigned.get(number)
            if known is not None and number != lost.number and self._ended(known):
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
            if number in self._assigned and not self._ended(self._assigned[number])
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
            for number, assignment in self._assigned.items()
            if assignment.reads and not self._came_home(number)
            for above in map(self._present, assignment.reads)
        }
        gone = [
            number
            for number in numbers
            if number in self._held
            and number not in read
            and self._assigned[number].given is None
            and self._came_home(number)
        ]
        put_back = []
        renumbered = {}
        for old in gone:
            block = self._assigned[old].block
            fresh = block._replace(number=self._take_number())
            renumbered[old] = fresh.number
            known = ((node, self._known(node, old)) for node in block.keep)
            given = {node: found for node, found in known if found is not None}
            put_back.append(Assignment(fresh, (), given))
            if old in self._spans:
                self._spans[fresh.number] = self._spans[old]
        self._renumber(renumbered)
        if put_back:
            self._submit(put_back)
        for old in gone:
            self._forget(old)

    def _came_home(self, number: int) -> bool:
        """Whether a block has ended and all that it gives to others is known here."""
        if number in self._solo or self._is_under_way(number):
            return False
        assignment = self._assigned[number]
        known = [self._known(node, number) for node in assignment.block.keep]
        return all(found is not None and found.values is not None for found in known)

    def _known(self, node: int, number: int) -> Segment | None:
        """What is known of a node's part in a block."""
        if node not in self._children:
            return self._plain.get(node)
        span = self._spans.get(number)
        return None if span is None else self._part(node, *span)

    def _is_under_way(self, number: int) -> bool:
        """Whether the end of a block is not known yet."""
        lane = self._lane_of_block.get(number)
        if self._ended(self._assigned[number]):
            return False
        return lane is None or number in lane.in_flight

    def _is_worth_another_try(self, number: int) -> bool:
        """Whether a block that ended and was lost has values only running it gives."""
        if self._tries.get(number, 0) >= MOST_TRIES or number in self._solo:
            return False
        assignment = self._assigned[number]
        if assignment.given is not None:
            return False
        span = self._spans.get(number)
        if span is None and not self._ended(assignment):
            return False
        known = [
            self._plain.get(node) if span is None else self._part(node, *span)
            for node in assignment.block.keep
        ]
        return any(segment is None or segment.values is None for segment in known)

    def _unfuse(self, number: int) -> None:
        """Run the nodes of a lost block one by one, to find which is to blame."""
        members = [step.node for step in self._assigned[number].block.steps]
        readers = self._unfinished_plain_readers([number])
        again = [*members]
        for reader in readers:
            again += [step.node for step in self._assigned[reader].block.steps]
        assignments = []
        for node in again:
            fresh = self._take_number()
            assignments.append(self._assign_plain(fresh, Together((node,))))
            self._blocks_of[node] = [fresh]
        self._submit([*self._unheld_above(assignments), *assignments])
        for old in (number, *readers):
            self._forget(old)

    def _lane_block_lost(self, lane: _Lane, lost: BlockLost) -> None:
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
        self, lane: _Lane, lost: BlockLost, span: tuple[int, int]
    ) -> None:
        stand_in = self._stand_in(lost.number, lost)
        self._withdraw(lane, lost.number)
        self._spans[stand_in.block.number] = span
        for node, segment in (stand_in.given or {}).items():
            self._blocks_of[node].append(stand_in.block.number)
            self._children[node].add(segment)
        lane.children_done += span[1] - span[0]
        self._submit([stand_in])
        self._after_lane_step(lane)

    def _run_solo(self, lane: _Lane, span: tuple[int, int]) -> None:
        """Run a child of a lane node by node, a block each."""
        solo = _Solo(lane, set(lane.nodes))
        assignments = []
        for node in lane.nodes:
            number = self._take_number()
            reads: dict[int, int] = {}
            step = self._step(self.plan.nodes[node], (node,), reads, span)
            block = Block(number, (step,), *span, 0.0, frozenset({node}), careful=True)
            annotations = self.plan.nodes[node].annotations
            assignments.append(Assignment(block, tuple(reads), annotations=annotations))
            self._spans[number] = span
            self._blocks_of[node].append(number)
            self._solo[number] = solo
        self._submit(assignments)

    def _solo_done(self, number: int, segments: Mapping[int, Segment]) -> None:
        solo = self._solo.pop(number)
        self._reached.pop(number, None)
        for node, segment in segments.items():
            if node in solo.left:
                solo.left.discard(node)
                self._children[node].add(segment)
        if not solo.left:
            solo.lane.children_done += 1
            self._after_lane_step(solo.lane)

    def _cut_again(self, lane: _Lane, number: int) -> None:
        """Take back a block that cannot run because of what it reads."""
        is_suspect = self._alone == number
        todo = lane.suspects if is_suspect else lane.todo
        todo.appendleft(lane.in_flight[number])
        self._withdraw(lane, number)

    def _withdraw(self, lane: _Lane, number: int) -> None:
        """Take a block of a lane back, as if it had never been cut."""
        if self._alone == number:
            self._alone = None
        self._reached.pop(number, None)
        del lane.in_flight[number]
        lane.waiting.discard(number)
        for node in lane.nodes:
            self._blocks_of[node].remove(number)
        self._forget(number)

    def _replace_blocks(self, lost: BlockLost) -> None:
        """Put stand-ins in the place of lost blocks, and run their readers anew.

        Blocks that had ended before their result was lost are replaced too: their
        states stand, and values that came home go back.
        """
        gone = self._gone_with(lost)
        gone += self._readers_of(gone)[1]
        stand_ins = [self._stand_in(number, lost) for number in gone]
        renumbered = {
            old: stand_in.block.number
            for old, stand_in in zip(gone, stand_ins, strict=True)
        }
        anew = []
        for old in self._unfinished_readers(gone):
            lane = self._lane_of_block.get(old)
            if lane is not None:
                self._cut_again(lane, old)
                continue
            assignment = self._assigned[old]
            fresh = assignment.block._replace(number=self._take_number())
            renumbered[old] = fresh.number
            reads = tuple(renumbered.get(n, self._present(n)) for n in assignment.reads)
            anew.append(Assignment(fresh, reads, annotations=assignment.annotations))
        self._renumber(renumbered)
        for old, new in renumbered.items():
            if old in self._spans:
                self._spans[new] = self._spans[old]
        # Dask forgot what only the lost ones read: it goes into the graph again.
        lost_ones = [self._assigned[number] for number in gone]
        orphans = [a for a in self._unheld_above(lost_ones) if not self._ended(a)]
        above = {a.block.number for a in orphans}
        above |= {a.block.number for a in self._unheld_above([*anew, *orphans])}
        earlier = [self._assigned[number] for number in self._in_order(above)]
        self._submit([*earlier, *stand_ins, *anew])
        for old in renumbered:
            self._forget(old)
        for stand_in in stand_ins:
            if stand_in.block.number in self._solo:
                self._solo_done(stand_in.block.number, stand_in.given or {})
                continue
            for node, segment in (stand_in.given or {}).items():
                # A child of a fan-out that ended before keeps the state it had.
                if self._status[node] != FINAL and node not in self._children:
                    self._plain[node] = segment
                    self._make_final(node)
        for stand_in in stand_ins:
            for node in stand_in.given or {}:
                self._release_blocks_of(node)

    def _unheld_above(self, anew: Sequence[Assignment]) -> list[Assignment]:
        """Blocks that these read, directly or not, and that are not held; in order."""
        fresh = {assignment.block.number for assignment in anew}
        found: set[int] = set()
        todo = [n for assignment in anew for n in assignment.reads]
        while todo:
            number = todo.pop()
            if number in fresh or number in found or number in self._held:
                continue
            known = self._assigned.get(number)
            if known is not None:
                found.add(number)
                todo.extend(map(self._present, known.reads))
        return [self._assigned[number] for number in self._in_order(found)]

    def _ended(self, assignment: Assignment) -> bool:
        steps = assignment.block.steps
        return all(self._status[step.node] == FINAL for step in steps)

    def _unfinished_readers(self, gone: Sequence[int]) -> list[int]:
        """Unfinished blocks that read a lost one, directly or not, in order."""
        return self._readers_of(gone)[0]

    def _readers_of(self, gone: Sequence[int]) -> tuple[list[int], list[int]]:
        """Blocks that are lost with others because they read them, directly or not.

        Returns
        -------
        list of int
            Those that have not finished, in order.
        list of int
            Those that had, and of which nobody holds the result: it may have been on
            its way once more.
        """
        found = set(gone)
        unfinished, finished = [], []
        for number in sorted(self._assigned):
            assignment = self._assigned[number]
            if number in found or found.isdisjoint(assignment.reads):
                continue
            if not self._is_under_way(number):
                if number not in self._held:
                    finished.append(number)
                    found.add(number)
                continue
            unfinished.append(number)
            found.add(number)
        return unfinished, finished

    def _unfinished_plain_readers(self, numbers: Sequence[int]) -> list[int]:
        """Unfinished blocks in the graph below some that have to be run anew."""
        readers = []
        for found in self._unfinished_readers(numbers):
            lane = self._lane_of_block.get(found)
            if lane is None:
                readers.append(found)
                continue
            self._cut_again(lane, found)
        return readers

    def _stand_in(self, number: int, lost: BlockLost) -> Assignment:
        """A result in the place of a lost block: what is known of it, else crashes."""
        block = self._assigned[number].block
        given = {}
        invented = set()
        for step in block.steps:
            known = self._known(step.node, number)
            if known is None or known.values is None:
                start, stop = self._spans.get(number, (block.start, block.stop))
                crashed = Crashed(lost.reason, timestamp=lost.when)
                known = all_ended(start, stop, crashed)
                invented.add(step.node)
            given[step.node] = known
        # Nobody can fetch from it what it does not have.
        had = frozenset(n for n in block.keep if n not in invented)
        fresh = block._replace(number=self._take_number(), keep=had)
        return Assignment(fresh, (), given)

    def _part(self, node: int, start: int, stop: int) -> Segment | None:
        """What is known of some children of a fan-out."""
        found = self._children[node].locate(start)
        if found is None:
            return None
        segment, offset = found
        if (segment.start, segment.stop) == (start, stop):
            return segment
        return segment.part(offset, offset + stop - start)

    def _forget(self, number: int) -> None:
        self._shared.discard(number)
        del self._assigned[number]
        self._lane_of_block.pop(number, None)
        if number in self._held:
            self._held.discard(number)
            self._told.append(Release((number,)))

    def _stop(self, state: State) -> None:
        for node in self.plan.nodes:
            index = node.index
            if self._status[index] == FINAL:
                continue
            if index in self._children:
                children = self._children[index]
                for start, stop in _gaps(children):
                    children.add(all_ended(start, stop, state))
            else:
                self._plain[index] = all_ended(0, 1, state)
            self._status[index] = FINAL
            self.ended.append(index)
        self._left = 0
        self.finished = True
        self._told = [Finish()]

    # -- what is ready --------------------------------------------------------------

    def _advance(self) -> None:
        """Submit all that has become ready."""
        while self._ready:
            plain: list[int] = []
            heapq.heapify(self._ready)
            while self._ready:
                # Readers made ready by a submission join the same graph.
                index = heapq.heappop(self._ready)
                node = self.plan.nodes[index]
                if self._status[index] != WAITING:
                    continue
                if node.constant:
                    self._make_final(index)
                elif node.mapped:
                    if self._can_expand(node):
                        plain.extend(self._expand(node))
                elif self._may_submit(node):
                    plain.append(index)
                    self._now_submitted(index)
            self._submit_plain(plain)
        self._feed_lanes()

    def _can_expand(self, node: Node) -> bool:
        """Whether the length of a mapped node is known, all above being final."""
        return True

    def _may_submit(self, node: Node) -> bool:
        """Whether a plain node that is ready goes out now."""
        return self._kinds.may_go(node, self.threads)

    def _now_submitted(self, index: int) -> None:
        """Mark a plain node; plain nodes that read it may join the graph."""
        self._status[index] = SUBMITTED
        for reader in self.plan.dependents[index]:
            if not self.plan.nodes[reader].mapped:
                self._count_down(reader)

    def _submit_plain(self, nodes: Sequence[int]) -> None:
        if not nodes:
            return
        assignments = []
        for together in self._together(sorted(nodes)):
            number = self._take_number()
            assignments.append(self._assign_plain(number, together))
            for node in together.nodes:
                self._blocks_of[node] = [number]
        self._submit(assignments)

    def _together(self, nodes: Sequence[int]) -> Sequence[Together]:
        """Blocks that some plain nodes are joined into, in an order of their edges."""
        assert isinstance(self.plan, Plan)
        groups = [Group(n, self._seconds(n)) for n in fuse(self.plan, nodes)]
        return put_together(
            groups,
            self._above,
            self._label,
            self.threads,
            is_there=self._is_there,
        )

    def _is_there(self, index: int) -> bool:
        """Whether the value of a node is there, and small enough to come along."""
        if self._status[index] != FINAL:
            return False
        if index in self._children:
            return len(self._children[index]) <= MOST_BROUGHT and all(
                segment.values is not None for segment in self._children[index].segments
            )
        known = self._plain.get(index)
        return known is None or not is_success(known) or known.values is not None

    def _seconds(self, nodes: Sequence[int]) -> float | None:
        """Seconds that nodes take one after the other, `None` if it is not known."""
        total = 0.0
        for node in nodes:
            seconds = self._kinds.seconds(self.plan.nodes[node])
            if seconds is None:
                return None
            total += seconds
        return total

    def _above(self, index: int) -> Sequence[int]:
        return self.plan.upstream[index]

    def _label(self, index: int) -> str:
        """Annotations of a node as a label."""
        return repr(sorted(self.plan.nodes[index].annotations.items()))

    def _assign_plain(self, number: int, together: Together) -> Assignment:
        members = together.nodes
        reads: dict[int, int] = {}
        inside = frozenset(members)
        steps = tuple(
            self._step(self.plan.nodes[node], inside, reads, None) for node in members
        )
        block = Block(
            number,
            steps,
            0,
            1,
            together.aim,
            self._kept(members),
            parts=together.parts,
        )
        annotations = self.plan.nodes[members[0]].annotations
        return Assignment(block, tuple(reads), annotations=annotations)

    def _kept(self, members: Iterable[int]) -> frozenset[int]:
        """Nodes of a block whose values somebody outside of it reads."""
        inside = set(members)
        return frozenset(
            node
            for node in inside
            if node in self.wanted
            or node in self._pinned
            or not inside.issuperset(self.plan.dependents[node])
        )

    def _submit(self, assignments: Sequence[Assignment]) -> None:
        """Submit blocks; hold those that something outside this graph will read."""
        read_here = {n for a in assignments for n in a.reads}
        hold = set()
        submitted = []
        # What a block hands back is submitted anew, and reads the same once more.
        # That holds as long as such a block goes on, for graphs that come later, too.
        for assignment in assignments:
            if assignment.block.parts:
                self._shared.add(assignment.block.number)
        may_return = bool(self._shared)
        for assignment in assignments:
            number = assignment.block.number
            if may_return or number not in read_here or self._is_read_later(assignment):
                hold.add(number)
            elif not self._kinds.holds_back:
                block = assignment.block._replace(awaited=False)
                assignment = replace(assignment, block=block)
            self._assigned[number] = assignment
            submitted.append(assignment)
        self._held |= hold
        self._told.append(Submit(tuple(submitted), frozenset(hold)))

    def _is_read_later(self, assignment: Assignment) -> bool:
        for step in assignment.block.steps:
            if step.node in self.wanted or step.node in self._pinned:
                return True
            for reader in self.plan.dependents[step.node]:
                status = self._status[reader]
                # A fan-out cuts blocks, and so reads, until its end.
                if status == WAITING or (self._fans_out[reader] and status != FINAL):
                    return True
        return False

    def _take_number(self) -> int:
        number = self._next_block
        self._next_block += 1
        return number

    # -- fan-outs -------------------------------------------------------------------

    def _expand(self, node: Node) -> list[int]:
        """Begin the lane of a mapped node; nodes to run as plain ones instead.

        A node that cannot be mapped is run as a plain one, whose body refuses: so its
        trigger is put to the states above it, as for any other.
        """
        index = node.index
        length = self._length(node, {})
        if isinstance(length, Exception):
            self._fans_out[index] = 0
            self._now_submitted(index)
            return [index]
        nodes = self._lane_from(index, length)
        todo = self._todo(index, length)
        lane = _Lane(nodes, length, deque(todo))
        lane.children_done = length - sum(stop - start for start, stop in todo)
        self._lanes.append(lane)
        for member in nodes:
            self._status[member] = SUBMITTED
            self._children.setdefault(member, Children(length))
            self._blocks_of.setdefault(member, [])
        self._after_lane_step(lane)
        return []

    def _length(self, node: Node, lane: dict[int, int]) -> int | Exception:
        """Number of children of a node, or why it cannot have any.

        Parameters
        ----------
        node : Node
            A mapped node.
        lane : dict of int to int
            Lengths of nodes that are about to run in the same lane.
        """
        return mapped_length(
            node,
            partial(self._length_above, node, lane),
            partial(self._skipped_above, lane),
        )

    def _skipped_above(self, lane: dict[int, int], item: Input) -> str | None:
        above = item.node
        assert above is not None
        if above in lane:
            return None  # element by element, or the node would not be in the lane
        name = self._told_as(above)
        if above not in self._children:
            return name if self._plain[above].state(0).is_skipped() else None
        whole = not item.mapped
        return name if whole and self._children[above].any_skipped() else None

    def _length_above(
        self, node: Node, lane: dict[int, int], item: Input
    ) -> int | Exception | None:
        above = item.node
        assert above is not None
        if above in lane:
            return lane[above]
        if above in self._children:
            children = self._children[above]
            if item.flattened:
                return sum(s.flat_length or 0 for s in children.segments)
            return len(children)
        segment = self._plain[above]
        if not is_success(segment):
            name = self._told_as(above)
            return nothing_to_map(node.name, name, segment.state(0))
        return segment.flat_length if item.flattened else segment.length

    def _lane_from(self, first: int, length: int) -> tuple[int, ...]:
        """Nodes that can run child by child together with a mapped node."""
        lane = {first: length}
        todo = list(self.plan.dependents[first])
        seen = set(todo)
        heapq.heapify(todo)
        while todo:
            index = heapq.heappop(todo)
            if not self._joins(self.plan.nodes[index], lane):
                continue
            lane[index] = length
            for reader in self.plan.dependents[index]:
                if reader not in seen:
                    seen.add(reader)
                    heapq.heappush(todo, reader)
        return tuple(sorted(lane))

    def _joins(self, node: Node, lane: dict[int, int]) -> bool:
        if not node.mapped or self._status[node.index] != WAITING:
            return False
        first, length = next(iter(lane.items()))
        if node.annotations != self.plan.nodes[first].annotations:
            return False
        for item in node.inputs:
            if item.node is None:
                continue
            if item.node in lane:
                if not item.mapped or item.flattened:
                    return False
            elif self._status[item.node] != FINAL:
                return False
        if self._todo(node.index, length) != self._todo(first, length):
            return False
        return self._length(node, lane) == length

    def _feed_lanes(self) -> None:
        """Cut blocks while there is room for more of them."""
        if self._alone is not None or self._solo:
            return
        suspected = [lane for lane in self._lanes if lane.suspects]
        if suspected:
            if all(len(n.in_flight) == len(n.waiting) for n in self._lanes):
                self._run_suspect(suspected[0])
            return
        assignments = []
        for lane in self._lanes:
            ended = lane.blocks_done
            allowed = most_in_flight(self.threads, ended, lane.has_long_children)
            while lane.todo and len(lane.in_flight) - len(lane.waiting) < allowed:
                assignments.append(self._cut_block(lane))
        if assignments:
            self._submit(assignments)

    def _run_suspect(self, lane: _Lane) -> None:
        """Run the next suspect of a lane, no other block of a fan-out beside it."""
        start, stop = lane.suspects.popleft()
        if stop - start == 1:
            self._run_solo(lane, (start, stop))
            return
        assignment = self._block_of_lane(lane, start, stop)
        block = assignment.block._replace(careful=True)
        self._alone = block.number
        self._submit([replace(assignment, block=block)])

    def _cut_block(self, lane: _Lane) -> Assignment:
        start, stop = lane.todo.popleft()
        remaining = stop - start + sum(b - a for a, b in lane.todo)
        size = min(block_size(remaining, self.threads, lane.pace), stop - start)
        if start + size < stop:
            lane.todo.appendleft((start + size, stop))
        return self._block_of_lane(lane, start, start + size)

    def _block_of_lane(self, lane: _Lane, start: int, stop: int) -> Assignment:
        number = self._take_number()
        reads: dict[int, int] = {}
        steps = tuple(
            self._step(self.plan.nodes[node], lane.nodes, reads, (start, stop))
            for node in lane.nodes
        )
        block = Block(
            number,
            steps,
            start,
            stop,
            AIM,
            self._kept(lane.nodes),
            lean=lane.length > MOST_BROUGHT,
        )
        lane.in_flight[number] = (start, stop)
        self._lane_of_block[number] = lane
        for node in lane.nodes:
            self._blocks_of[node].append(number)
        annotations = self.plan.nodes[lane.nodes[0]].annotations
        return Assignment(block, tuple(reads), annotations=annotations)

    # -- steps ----------------------------------------------------------------------

    def _step(
        self,
        node: Node,
        members: Collection[int],
        reads: dict[int, int],
        span: tuple[int, int] | None,
    ) -> Step:
        """One node as a block runs it.

        Parameters
        ----------
        node : Node
            The node.
        members : collection of int
            Nodes of the same block.
        reads : dict of int to int
            Block number to argument position; grows.
        span : tuple of int or None
            Children of the block; `None` for a plain one.
        """
        custom = not hasattr(node.task.trigger, "rule")
        inputs = tuple(
            StepInput(
                item.key,
                "" if item.node is None else self._told_as(item.node),
                self._source(item, members, reads, span),
                item.edge if custom else None,
                item.node in node.tolerated,
            )
            for item in node.inputs
            if item.value is not PART
        )
        refusal: Exception | None = None
        if node.mapped and span is None:
            found = self._length(node, {})
            if not isinstance(found, Exception):
                raise InternalError(f"node {node.name!r} can be mapped, yet is plain")
            refusal = found
        return Step(
            node.index,
            node.task,
            node.slug,
            inputs,
            mapped=span is not None,
            measured=node.index in self.plan.measured and span is None,
            flattened=node.index in self.plan.flattened,
            refusal=refusal,
            paused=self._paused(node.index, span),
            variables=node.variables,
        )

    def _told_as(self, index: int) -> str:
        """Name of a node in messages."""
        return self.plan.nodes[index].name

    def _paused(self, index: int, span: tuple[int, int] | None) -> Mapping[int, str]:
        """Runs of a block that are resumed from a pause."""
        found = self._earlier.paused.get(index)
        if found is None or span is None:
            return found or NOT_PAUSED
        return {n: name for n, name in found.items() if span[0] <= n < span[1]}

    def _source(
        self,
        item: Input,
        members: Collection[int],
        reads: dict[int, int],
        span: tuple[int, int] | None,
    ) -> Source:
        if item.node is None:
            return self._constant(item, reads, span)
        if item.node in members:
            return Local(item.node, item.flattened)
        fanout = item.node in self._children
        each = item.mapped and span is not None
        if each and not fanout and self._plain[item.node].length is None:
            each = False  # it cannot be iterated, so it is the same for every child
        blocks: Sequence[int] = self._blocks_of[item.node]
        if each and fanout and span is not None and not item.flattened:
            blocks = [n for n in blocks if _overlaps(self._spans[n], span)]
        positions = tuple(reads.setdefault(n, len(reads)) for n in blocks)
        spans = tuple(self._spans[n] for n in blocks) if fanout else ()
        if not each:
            return Whole(item.node, positions, fanout, item.flattened, spans)
        lengths: tuple[int | None, ...] = ()
        if fanout and item.flattened:
            lengths = tuple(self._flat_length(item.node, start) for start, _ in spans)
        return Each(item.node, positions, fanout, item.flattened, spans, lengths)

    def _flat_length(self, node: int, start: int) -> int | None:
        """Elements of a block's children, as they were counted for their readers."""
        found = self._children[node].locate(start)
        return None if found is None else found[0].flat_length

    def _constant(
        self, item: Input, reads: dict[int, int], span: tuple[int, int] | None
    ) -> Source:
        constant: Fixed | Items = Fixed(item.value)
        value = item.value
        if item.mapped and span is not None:
            items = items_of(item.value)
            if items is not None:
                value = items[span[0] : span[1]]
                constant = Items(value, span[0])
        if not has_template(value):
            return constant
        places = tuple(
            (self._told_as(node), self._whole(node, reads))
            for node in dict.fromkeys(nodes_of(value))
        )
        return Filled(constant, places)

    def _whole(self, node: int, reads: dict[int, int]) -> Whole:
        """Where all of a node above is."""
        fanout = node in self._children
        blocks = self._blocks_of[node]
        positions = tuple(reads.setdefault(n, len(reads)) for n in blocks)
        spans = tuple(self._spans[n] for n in blocks) if fanout else ()
        return Whole(node, positions, fanout, False, spans)


def _keys(table: Mapping[int, object]) -> list[int]:
    """Keys of a table that another thread may add to meanwhile."""
    while True:
        try:
            return list(table)
        except RuntimeError:  # it grew while it was read
            continue


def _overlaps(some: tuple[int, int], other: tuple[int, int]) -> bool:
    return some[0] < other[1] and other[0] < some[1]


def _gaps(children: Children) -> list[tuple[int, int]]:
    """Index ranges of which nothing is known."""
    gaps = []
    at = 0
    for segment in children.segments:
        if at < segment.start:
            gaps.append((at, segment.start))
        at = segment.stop
    if at < len(children):
        gaps.append((at, len(children)))
    return gaps


def all_ended(start: int, stop: int, state: State) -> Segment:
    """A segment whose children all end in one way, none having run."""
    segment = Segment(start)
    segment.open(stop - start)
    for offset in range(stop - start):
        segment.put(offset, state, 0.0, 0.0, attempts=0)
    # Each is one element where it is flattened.
    segment.flat_length = stop - start
    return segment
