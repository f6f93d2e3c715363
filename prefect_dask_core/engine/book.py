"""Book: what is known of the nodes and blocks of a run.

The driver and its rules (`plain`, `lanes`, `losses`) share one. It keeps its tables in
step with each other: what ends makes others ready, and frees blocks that were held.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from prefect_dask_core.engine.block import Block
from prefect_dask_core.engine.children import Children
from prefect_dask_core.engine.events import Assignment, Command, Release, Submit
from prefect_dask_core.engine.fanout import LONG, Pace
from prefect_dask_core.engine.grouping import Kinds
from prefect_dask_core.engine.layouts import Layout, lay_out
from prefect_dask_core.engine.plan import GrowingPlan, Plan
from prefect_dask_core.engine.resume import NOTHING_EARLIER, Earlier
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.errors import InternalError
from prefect_dask_core.states import State

WAITING: Final = 0
SUBMITTED: Final = 1
FINAL: Final = 2


@dataclass(slots=True, eq=False)
class Lane:
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
    #: Whether an item was found that no worker can read: each is pickled by itself.
    apart: bool = False

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
class Solo:
    """A child that runs node by node, to find which of them kills its workers."""

    lane: Lane
    left: set[int]


class Book:
    """What is known of the nodes and blocks of a run.

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
    Nodes are known by their index in the plan, blocks by their number.
    """

    def __init__(
        self,
        plan: Plan | GrowingPlan,
        wanted: frozenset[int],
        earlier: Earlier = NOTHING_EARLIER,
    ) -> None:
        count = len(plan.nodes)
        self.plan = plan
        self.wanted = wanted
        self.earlier = earlier
        self.kinds = Kinds()
        #: Worker threads there are now.
        self.threads = 0
        #: What the runner has to do, as far as the event in hand tells.
        self.told: list[Command] = []

        #: `WAITING`, `SUBMITTED` or `FINAL`, of each node.
        self.status = bytearray(count)
        #: How plain nodes ended.
        self.plain: dict[int, Segment] = {}
        #: Fan-outs whose length is known.
        self.children: dict[int, Children] = {}
        #: Readers of a fan-out wait for its end, those of a plain node do not.
        self.fans_out = bytearray(int(node.mapped) for node in plan.nodes)
        #: What a node still waits for: a plain one for plain nodes to be submitted and
        #: fan-outs to be final, a mapped one for everything above it to be final.
        self.missing = [len(found) for found in plan.upstream]
        #: A heap of the nodes that wait for nothing any more.
        self.ready: list[int] = [i for i in range(count) if not self.missing[i]]
        #: How many of the readers of a node are not final.
        self.open_readers = [len(found) for found in plan.dependents]
        #: How many nodes are not final.
        self.left = count
        #: Nodes that became final and that the runner has not taken yet.
        self.ended: list[int] = []
        #: Nodes whose values somebody outside of the plan may still ask for.
        self.pinned: set[int] = set()
        #: Plain nodes that were submitted before anybody mapped over them, and nodes
        #: that were before anybody mapped over them flattened.
        self.uncounted: set[int] = set()

        self._next_block = 0
        #: Blocks as they were submitted, without those that others took the place of.
        self.assigned: dict[int, Assignment] = {}
        #: Blocks whose results the runner keeps.
        self.held: set[int] = set()
        #: By node, the blocks that it ran, runs or will run in.
        self.blocks_of: dict[int, list[int]] = {}
        #: Blocks of lanes, also those that have ended.
        self.lane_of_block: dict[int, Lane] = {}
        #: Children that ended blocks of fan-outs hold, as their readers are told.
        self.spans: dict[int, tuple[int, int]] = {}
        #: Blocks of children that run node by node.
        self.solo: dict[int, Solo] = {}
        #: Blocks with several parts that have not ended.
        self.shared: set[int] = set()
        #: How often a block was run anew.
        self.tries: dict[int, int] = {}
        self._renumbered: dict[int, int] = {}
        #: Of fan-outs that are final and are read.
        self._layouts: dict[int, Layout] = {}

    # -- nodes ------------------------------------------------------------------------

    def told_as(self, index: int) -> str:
        """Name of a node in messages."""
        return self.plan.nodes[index].name

    def make_final(self, index: int) -> None:
        """End a node; what only waited for that is ready, or released."""
        if self.status[index] == FINAL:
            raise InternalError(f"node {index} was final already")
        self.status[index] = FINAL
        self.left -= 1
        self.ended.append(index)
        for reader in self.plan.dependents[index]:
            if self.plan.nodes[reader].mapped or self.fans_out[index]:
                self.count_down(reader)
        for above in {index, *self.plan.upstream[index]}:
            if above != index:
                self.open_readers[above] -= 1
            if not self.open_readers[above]:
                self.release_blocks_of(above)

    def count_down(self, reader: int) -> None:
        """Note that a reader waits for one node less."""
        self.missing[reader] -= 1
        if not self.missing[reader]:
            heapq.heappush(self.ready, reader)

    def mark_submitted(self, index: int) -> None:
        """Mark a plain node; plain nodes that read it may join the graph."""
        self.status[index] = SUBMITTED
        for reader in self.plan.dependents[index]:
            if not self.plan.nodes[reader].mapped:
                self.count_down(reader)

    def make_ready(self, nodes: Iterable[int]) -> None:
        """Let nodes go out that were held back."""
        for index in nodes:
            heapq.heappush(self.ready, index)

    def end_all(self, state: State) -> None:
        """End all that has not ended in one way."""
        for node in self.plan.nodes:
            index = node.index
            if self.status[index] == FINAL:
                continue
            if index in self.children:
                children = self.children[index]
                for start, stop in _gaps(children):
                    children.add(all_ended(start, stop, state))
            else:
                self.plain[index] = all_ended(0, 1, state)
            self.status[index] = FINAL
            self.ended.append(index)
        self.left = 0

    # -- blocks: on their way, held, released ------------------------------------------

    def take_number(self) -> int:
        """Number of a new block."""
        number = self._next_block
        self._next_block += 1
        return number

    def submit(self, assignments: Sequence[Assignment]) -> None:
        """Submit blocks; hold those that something outside this graph will read."""
        read_here = {n for a in assignments for n in a.reads}
        hold = set()
        submitted = []
        # What a block hands back is submitted anew, and reads the same once more.
        # That holds as long as such a block goes on, for graphs that come later, too.
        for assignment in assignments:
            if assignment.block.parts:
                self.shared.add(assignment.block.number)
        may_return = bool(self.shared)
        for assignment in assignments:
            number = assignment.block.number
            if may_return or number not in read_here or self._is_read_later(assignment):
                hold.add(number)
            elif not self.kinds.holds_back:
                block = assignment.block._replace(awaited=False)
                assignment = replace(assignment, block=block)
            self.assigned[number] = assignment
            submitted.append(assignment)
        self.held |= hold
        self.told.append(Submit(tuple(submitted), frozenset(hold)))

    def _is_read_later(self, assignment: Assignment) -> bool:
        for step in assignment.block.steps:
            if step.node in self.wanted or step.node in self.pinned:
                return True
            for reader in self.plan.dependents[step.node]:
                status = self.status[reader]
                # A fan-out cuts blocks, and so reads, until its end.
                if status == WAITING or (self.fans_out[reader] and status != FINAL):
                    return True
        return False

    def release_blocks_of(self, index: int) -> None:
        """Release the blocks of a node that nobody reads any more."""
        done = []
        for number in self.blocks_of.get(index, ()):
            if number in self.held and not self._is_needed(number):
                done.append(number)
        if done:
            self.held.difference_update(done)
            self._layouts.pop(index, None)
            self.told.append(Release(tuple(done)))

    def _is_needed(self, number: int) -> bool:
        block = self.assigned[number].block
        for step in block.steps:
            node = step.node
            if self.open_readers[node] or self.status[node] != FINAL:
                return True
            if node in self.pinned:
                return True
            # What stands in for a crash does not have what did not come home.
            has = node in self.wanted and node in block.keep
            if has and self._segment_of(node, block).values is None:
                return True
        return False

    def _segment_of(self, node: int, block: Block) -> Segment:
        if node not in self.children:
            return self.plain[node]
        found = self.children[node].locate(block.start)
        if found is None:
            raise InternalError(f"a final fan-out knows nothing of {block.start}")
        return found[0]

    def forget(self, number: int) -> None:
        """Forget a block that another one took the place of, or nobody needs."""
        self.shared.discard(number)
        del self.assigned[number]
        self.lane_of_block.pop(number, None)
        self.release(number)

    def release(self, number: int) -> None:
        """Hold the result of a block no longer."""
        if number in self.held:
            self.held.discard(number)
            self.told.append(Release((number,)))

    def renumber(self, fresh: Mapping[int, int]) -> None:
        """Note the numbers under which blocks run anew.

        All at once: a fan-out has a list of its blocks, which may be thousands.
        """
        self._renumbered.update(fresh)
        nodes: set[int] = set()
        for old, new in fresh.items():
            if old in self.solo:
                self.solo[new] = self.solo.pop(old)
            nodes.update(step.node for step in self.assigned[old].block.steps)
        for node in nodes:
            self.blocks_of[node] = [fresh.get(n, n) for n in self.blocks_of[node]]
            self._layouts.pop(node, None)

    def present(self, number: int) -> int:
        """The number under which a block was last run anew."""
        last = number
        while last in self._renumbered:
            last = self._renumbered[last]
        if last != number:
            # Where workers die all the time the way grows by a step each time.
            self._renumbered[number] = last
        return last

    # -- blocks: what is known of them -------------------------------------------------

    def has_ended(self, assignment: Assignment) -> bool:
        """Whether all nodes of a block are final."""
        steps = assignment.block.steps
        return all(self.status[step.node] == FINAL for step in steps)

    def is_under_way(self, number: int) -> bool:
        """Whether the end of a block is not known yet."""
        lane = self.lane_of_block.get(number)
        if self.has_ended(self.assigned[number]):
            return False
        return lane is None or number in lane.in_flight

    def came_home(self, number: int) -> bool:
        """Whether a block has ended and all that it gives to others is known here."""
        if number in self.solo or self.is_under_way(number):
            return False
        assignment = self.assigned[number]
        known = [self.known(node, number) for node in assignment.block.keep]
        return all(found is not None and found.values is not None for found in known)

    def layout(self, node: int) -> Layout:
        """Which blocks of a fan-out hold which of its children that have ended."""
        found = self._layouts.get(node)
        if found is None:
            # Of a child that runs node by node, the next reads what has just ended,
            # while other blocks of the same lane may still wait.
            blocks = [
                (number, self.spans[number])
                for number in self.blocks_of[node]
                if number in self.spans
            ]
            found = lay_out(self.children[node], blocks)
            if self.status[node] == FINAL:
                self._layouts[node] = found
        return found

    def elements(self, node: int, start: int) -> int | None:
        """Elements of the block of a fan-out at a child, if they were counted."""
        found = self.children[node].locate(start)
        return None if found is None else found[0].flat_length

    def note_elements(self, node: int, start: int, count: int) -> None:
        """Note how many elements the children of a block give once flattened."""
        found = self.children[node].locate(start)
        if found is None:
            raise InternalError(f"children of node {node} were counted before they ran")
        found[0].flat_length = count
        self._layouts.pop(node, None)

    def known(self, node: int, number: int) -> Segment | None:
        """What is known of a node's part in a block."""
        if node not in self.children:
            return self.plain.get(node)
        span = self.spans.get(number)
        return None if span is None else self.part(node, *span)

    def part(self, node: int, start: int, stop: int) -> Segment | None:
        """What is known of some children of a fan-out."""
        found = self.children[node].locate(start)
        if found is None:
            return None
        segment, offset = found
        if (segment.start, segment.stop) == (start, stop):
            return segment
        return segment.part(offset, offset + stop - start)


def all_ended(start: int, stop: int, state: State) -> Segment:
    """A segment whose children all end in one way, none having run."""
    segment = Segment(start)
    segment.open(stop - start)
    for offset in range(stop - start):
        segment.put(offset, state, 0.0, state.timestamp or 0.0, attempts=0)
    # Each is one element where it is flattened.
    segment.flat_length = stop - start
    return segment


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
