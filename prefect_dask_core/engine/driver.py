"""Driver: turns what happened into what to submit next.

A state machine without I/O: `Driver.handle(event)` returns commands. It knows blocks
and nodes, neither Dask nor values: values travel from block to block.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial

from prefect_dask_core.engine.block import Block, BlockReport, Step
from prefect_dask_core.engine.columns import Children, Segment
from prefect_dask_core.engine.events import (
    Assignment,
    BlockAdvanced,
    BlockDone,
    BlockLost,
    BlockWaiting,
    Command,
    Event,
    Finish,
    Release,
    Resized,
    Started,
    StopAsked,
    Submit,
)
from prefect_dask_core.engine.fanout import (
    AIM,
    Pace,
    block_size,
    mapped_length,
    most_in_flight,
    nothing_to_map,
)
from prefect_dask_core.engine.feeds import (
    Each,
    Fixed,
    Items,
    Local,
    Source,
    StepInput,
    Whole,
    is_success,
)
from prefect_dask_core.engine.plan import Input, Node, Plan, fuse, items_of
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


@dataclass(slots=True)
class _Lane:
    """Mapped nodes over one index space, on their way."""

    nodes: tuple[int, ...]
    length: int
    todo: deque[tuple[int, int]]
    in_flight: dict[int, tuple[int, int]] = field(default_factory=dict)
    waiting: set[int] = field(default_factory=set)
    pace: Pace = field(default_factory=Pace)
    children_done: int = 0
    blocks_done: int = 0


class Driver:
    """State machine of one flow run.

    Parameters
    ----------
    plan : Plan
        What to run.
    wanted : frozenset of int
        Nodes whose values are kept for the end of the run.

    Notes
    -----
    Reading order: `handle` names the events; `_advance` decides what is ready.
    """

    def __init__(self, plan: Plan, wanted: frozenset[int]) -> None:
        self.plan = plan
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
        self._open_readers = [len(found) for found in plan.dependents]
        self._left = count
        # What a node still waits for: a plain one for plain nodes to be submitted and
        # fan-outs to be final, a mapped one for everything above it to be final.
        self._missing = [len(found) for found in plan.upstream]
        self._ready: list[int] = [i for i in range(count) if not self._missing[i]]
        self._told: list[Command] = []
        # Readers of a fan-out wait for its end, those of a plain node do not.
        self._fans_out = bytearray(int(node.mapped) for node in plan.nodes)

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
            case Started(threads) | Resized(threads):
                self.threads = threads
            case BlockDone(report):
                self._block_done(report)
            case BlockAdvanced(report):
                self._take_plain(report)
            case BlockWaiting(number, done, busy):
                self._block_waiting(number, done, busy)
            case BlockLost():
                self._block_lost(event)
            case StopAsked(reason, crashed):
                self._stop(Crashed(reason) if crashed else Cancelled(reason))
        if not self.finished:
            self._advance()
        if self._left == 0 and not self.finished:
            self.finished = True
            self._told.append(Finish())
        return self._told

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

    def segments(self, index: int) -> Sequence[Segment]:
        """Segments of a node, in index order."""
        if index in self._children:
            return self._children[index].segments
        return [self._plain[index]] if index in self._plain else []

    def blocks_of(self, index: int) -> Sequence[int]:
        """Blocks that hold the values of a node."""
        return self._blocks_of.get(index, [])

    def holds(self, number: int, node: int, start: int) -> bool:
        """Whether a block holds the children of a node from an index on."""
        known = self._assigned.get(number)
        return known is not None and (
            node not in self._children or known.block.start == start
        )

    def held(self) -> frozenset[int]:
        """Blocks whose results are still kept."""
        return frozenset(self._held)

    # -- blocks that ended ------------------------------------------------------------

    def _block_done(self, report: BlockReport) -> None:
        lane = self._lane_of_block.get(report.number)
        if lane is None:
            self._take_plain(report)
            return
        span = lane.in_flight.pop(report.number, None)
        if span is None:
            return  # Dask ran it again after a worker's death; the first one counts.
        start, stop = span
        lane.waiting.discard(report.number)
        lane.pace.observe(report.done, report.busy)
        lane.children_done += report.done
        lane.blocks_done += 1
        for node, segment in report.segments.items():
            self._children[node].add(segment)
        if start + report.done < stop:
            lane.todo.appendleft((start + report.done, stop))
        self._after_lane_step(lane)

    def _take_plain(self, report: BlockReport) -> None:
        if report.number not in self._assigned:
            return  # superseded: it was submitted again under another number
        for node, segment in report.segments.items():
            if self._status[node] != FINAL:
                self._plain[node] = segment
                self._make_final(node)

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
        self._status[index] = FINAL
        self._left -= 1
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
            for number in done:
                # Its items are not needed again; a plain block may have to be run
                # once more, for a reader whose worker dies.
                if self._lane_of_block.pop(number, None) is not None:
                    del self._assigned[number]

    def _is_needed(self, number: int) -> bool:
        block = self._assigned[number].block
        for step in block.steps:
            node = step.node
            if self._open_readers[node] or self._status[node] != FINAL:
                return True
            if node in self.wanted and self._segment_of(node, block).values is None:
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
        if lane is not None and lost.number in lane.in_flight:
            self._lane_block_lost(lane, lost)
        elif lost.number in self._assigned:
            self._replace_blocks(lost)

    def _lane_block_lost(self, lane: _Lane, lost: BlockLost) -> None:
        """Split a block until the child that kills its workers is alone."""
        start, stop = lane.in_flight[lost.number]
        if lost.divisible and stop - start > 1:
            self._withdraw(lane, lost.number)
            middle = (start + stop) // 2
            # Never grown together again: cutting a block splits ranges, it joins none.
            lane.todo.extendleft([(middle, stop), (start, middle)])
            return
        stand_in = self._stand_in(lost.number, lost.reason)
        self._withdraw(lane, lost.number)
        for node, segment in (stand_in.given or {}).items():
            self._blocks_of[node].append(stand_in.block.number)
            self._children[node].add(segment)
        lane.children_done += stop - start
        self._submit([stand_in])
        self._after_lane_step(lane)

    def _withdraw(self, lane: _Lane, number: int) -> None:
        """Take a block of a lane back, as if it had never been cut."""
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
        gone = [lost.number]
        for number in lost.others:
            known = self._assigned.get(number)
            if known is not None and number != lost.number and self._ended(known):
                gone.append(number)
        stand_ins = [self._stand_in(number, lost.reason) for number in gone]
        renumbered = {
            old: stand_in.block.number
            for old, stand_in in zip(gone, stand_ins, strict=True)
        }
        anew = []
        for old in self._unfinished_readers(gone):
            lane = self._lane_of_block.get(old)
            if lane is not None:
                lane.todo.appendleft(lane.in_flight[old])
                self._withdraw(lane, old)
                continue
            assignment = self._assigned[old]
            fresh = assignment.block._replace(number=self._take_number())
            renumbered[old] = fresh.number
            reads = tuple(renumbered.get(n, n) for n in assignment.reads)
            anew.append(Assignment(fresh, reads))
        for old, new in renumbered.items():
            for step in self._assigned[old].block.steps:
                self._blocks_of[step.node] = [
                    new if n == old else n for n in self._blocks_of[step.node]
                ]
        # Dask forgot what only the lost readers read: it goes into the graph again.
        self._submit([*self._unheld_above(anew), *stand_ins, *anew])
        for old in renumbered:
            self._forget(old)
        for stand_in in stand_ins:
            for node, segment in (stand_in.given or {}).items():
                if self._status[node] != FINAL:
                    self._plain[node] = segment
                    self._make_final(node)

    def _ended(self, assignment: Assignment) -> bool:
        steps = assignment.block.steps
        return all(self._status[step.node] == FINAL for step in steps)

    def _unfinished_readers(self, gone: Sequence[int]) -> list[int]:
        """Unfinished blocks that read a lost one, directly or not, in order."""
        found = set(gone)
        for number in sorted(self._assigned):
            assignment = self._assigned[number]
            if found.isdisjoint(assignment.reads) or self._ended(assignment):
                continue
            lane = self._lane_of_block.get(number)
            if lane is None or number in lane.in_flight:
                found.add(number)
        return sorted(found.difference(gone))

    def _unheld_above(self, assignments: Sequence[Assignment]) -> list[Assignment]:
        """Earlier blocks these read, directly or not, that are not held; in order."""
        fresh = {assignment.block.number for assignment in assignments}
        found: set[int] = set()
        todo = [n for assignment in assignments for n in assignment.reads]
        while todo:
            number = todo.pop()
            known = self._assigned.get(number)
            if number in fresh or number in found or number in self._held or not known:
                continue
            found.add(number)
            todo.extend(known.reads)
        return [self._assigned[number] for number in sorted(found)]

    def _stand_in(self, number: int, reason: str) -> Assignment:
        """A result in the place of a lost block: what is known of it, else crashes."""
        block = self._assigned[number].block
        given = {}
        for step in block.steps:
            known: Segment | None = self._plain.get(step.node)
            if step.node in self._children:
                found = self._children[step.node].locate(block.start)
                known = None if found is None else found[0]
            if known is None or known.values is None:
                known = _all_ended(block.start, block.stop, Crashed(reason))
            given[step.node] = known
        fresh = block._replace(number=self._take_number())
        return Assignment(fresh, (), given)

    def _forget(self, number: int) -> None:
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
                    children.add(_all_ended(start, stop, state))
            else:
                self._plain[index] = _all_ended(0, 1, state)
            self._status[index] = FINAL
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
                    plain.extend(self._expand(node))
                else:
                    plain.append(index)
                    self._now_submitted(index)
            self._submit_plain(plain)
        self._feed_lanes()

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
        for members in fuse(self.plan, sorted(nodes)):
            number = self._take_number()
            assignments.append(self._assign_plain(number, members))
            for node in members:
                self._blocks_of[node] = [number]
        self._submit(assignments)

    def _assign_plain(self, number: int, members: tuple[int, ...]) -> Assignment:
        reads: dict[int, int] = {}
        steps = tuple(
            self._step(self.plan.nodes[node], members, reads, None) for node in members
        )
        block = Block(number, steps, 0, 1, 0.0, self._kept(members))
        return Assignment(block, tuple(reads))

    def _kept(self, members: Iterable[int]) -> frozenset[int]:
        """Nodes of a block whose values somebody outside of it reads."""
        inside = set(members)
        return frozenset(
            node
            for node in inside
            if node in self.wanted or not inside.issuperset(self.plan.dependents[node])
        )

    def _submit(self, assignments: Sequence[Assignment]) -> None:
        """Submit blocks; hold those that something outside this graph will read."""
        read_here = {n for a in assignments for n in a.reads}
        hold = set()
        for assignment in assignments:
            number = assignment.block.number
            self._assigned[number] = assignment
        for assignment in assignments:
            number = assignment.block.number
            if number not in read_here or self._is_read_later(assignment):
                hold.add(number)
        self._held |= hold
        self._told.append(Submit(tuple(assignments), frozenset(hold)))

    def _is_read_later(self, assignment: Assignment) -> bool:
        for step in assignment.block.steps:
            if step.node in self.wanted:
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
        lane = _Lane(nodes, length, deque([(0, length)] if length else []))
        self._lanes.append(lane)
        for member in nodes:
            self._status[member] = SUBMITTED
            self._children[member] = Children(length)
            self._blocks_of[member] = []
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
        return mapped_length(node, partial(self._length_above, node, lane))

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
            name = self.plan.nodes[above].name
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
        for item in node.inputs:
            if item.node is None:
                continue
            if item.node in lane:
                if not item.mapped or item.flattened:
                    return False
            elif self._status[item.node] != FINAL:
                return False
        return self._length(node, lane) == next(iter(lane.values()))

    def _feed_lanes(self) -> None:
        """Cut blocks while there is room for more of them."""
        assignments = []
        for lane in self._lanes:
            allowed = most_in_flight(self.threads, lane.blocks_done)
            while lane.todo and len(lane.in_flight) - len(lane.waiting) < allowed:
                assignments.append(self._cut_block(lane))
        if assignments:
            self._submit(assignments)

    def _cut_block(self, lane: _Lane) -> Assignment:
        start, stop = lane.todo.popleft()
        remaining = stop - start + sum(b - a for a, b in lane.todo)
        size = min(block_size(remaining, self.threads, lane.pace), stop - start)
        if start + size < stop:
            lane.todo.appendleft((start + size, stop))
        stop = start + size
        number = self._take_number()
        reads: dict[int, int] = {}
        steps = tuple(
            self._step(self.plan.nodes[node], lane.nodes, reads, (start, stop))
            for node in lane.nodes
        )
        block = Block(number, steps, start, stop, AIM, self._kept(lane.nodes))
        lane.in_flight[number] = (start, stop)
        self._lane_of_block[number] = lane
        for node in lane.nodes:
            self._blocks_of[node].append(number)
        return Assignment(block, tuple(reads))

    # -- steps ----------------------------------------------------------------------

    def _step(
        self,
        node: Node,
        members: Sequence[int],
        reads: dict[int, int],
        span: tuple[int, int] | None,
    ) -> Step:
        """One node as a block runs it.

        Parameters
        ----------
        node : Node
            The node.
        members : sequence of int
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
                "" if item.node is None else self.plan.nodes[item.node].name,
                self._source(item, members, reads, span),
                item.edge if custom else None,
            )
            for item in node.inputs
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
        )

    def _source(
        self,
        item: Input,
        members: Sequence[int],
        reads: dict[int, int],
        span: tuple[int, int] | None,
    ) -> Source:
        if item.node is None:
            if item.mapped and span is not None:
                items = items_of(item.value)
                if items is not None:
                    return Items(items[span[0] : span[1]], span[0])
            return Fixed(item.value)
        if item.node in members:
            return Local(item.node, item.flattened)
        fanout = item.node in self._children
        each = item.mapped and span is not None
        if each and not fanout and self._plain[item.node].length is None:
            each = False  # it cannot be iterated, so it is the same for every child
        blocks: Iterable[int] = self._blocks_of[item.node]
        if each and fanout and span is not None and not item.flattened:
            blocks = [n for n in blocks if _overlaps(self._assigned[n].block, span)]
        positions = tuple(reads.setdefault(n, len(reads)) for n in blocks)
        kind = Each if each else Whole
        return kind(item.node, positions, fanout, item.flattened)


def _overlaps(block: Block, span: tuple[int, int]) -> bool:
    return block.start < span[1] and span[0] < block.stop


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


def _all_ended(start: int, stop: int, state: State) -> Segment:
    """A segment whose children all end in one way, none having run."""
    segment = Segment(start)
    segment.open(stop - start)
    for offset in range(stop - start):
        segment.put(offset, state, 0.0, 0.0, attempts=0)
    segment.values = None
    return segment
