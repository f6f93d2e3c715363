"""Blocks: consecutive children, through one or more nodes, run as one unit of work.

A block goes depth-first: child 0 through all its steps, then child 1. A child that
waits for its next attempt is parked, and the others go on. A block that finds itself
far over its aim stops early and hands back the children it has not begun.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol

from prefect_dask_core.edges import Edge
from prefect_dask_core.engine.columns import Segment, tally_of, tally_of_state
from prefect_dask_core.engine.effects import Call, Shell, Wait
from prefect_dask_core.engine.pipeline import Steps, TaskRun, run_task
from prefect_dask_core.engine.plan import items_of
from prefect_dask_core.errors import InternalError
from prefect_dask_core.states import Completed, State
from prefect_dask_core.tasks import Task
from prefect_dask_core.triggers import Tally

#: A block over its aim by this factor hands back what it has not begun.
FAR_OVER = 4.0
#: Seconds between two reports of a block that runs several plain nodes.
REPORT_EVERY = 0.25


class Readable(Protocol):
    """A list, or values that are unpickled when first read."""

    def __getitem__(self, offset: int, /) -> Any:
        """Item at an offset."""


# -- where an input comes from -----------------------------------------------------


class Fixed(NamedTuple):
    """A constant, the same for every child."""

    value: Any


class Items(NamedTuple):
    """A constant mapped over: the items of this block's children."""

    values: Readable
    start: int


class Shared(NamedTuple):
    """A large constant that is an argument of the block of its own."""

    position: int


class Whole(NamedTuple):
    """The value of a node above: of a plain one, or a list of all children's."""

    node: int
    positions: tuple[int, ...]
    fanout: bool


class Each(NamedTuple):
    """Element by element: the items of a plain node, or the children of a fan-out."""

    node: int
    positions: tuple[int, ...]
    fanout: bool


class Local(NamedTuple):
    """The same child of an earlier step of this block."""

    node: int


Source = Fixed | Items | Shared | Whole | Each | Local


class StepInput(NamedTuple):
    """One input of a step.

    Parameters
    ----------
    key : str or None
        Parameter of the body; `None` where only the order matters.
    name : str
        Name of the task above, for messages.
    source : Source
        Where the value comes from.
    edge : Edge or None
        Handed to a user's trigger as the key of the state.
    """

    key: str | None
    name: str
    source: Source
    edge: Edge | None


class Step(NamedTuple):
    """One node, as a block runs it.

    Parameters
    ----------
    node : int
        Index of the node in the plan.
    task : Task
        Its definition.
    slug : str
        Its slug in the flow.
    inputs : tuple of StepInput
        One per edge and constant.
    mapped : bool
        Whether the block runs children of it.
    measured : bool
        Whether other nodes map over its value: its items are then kept beside it.
    refusal : Exception or None
        Why its children cannot exist; its parent is judged instead.
    """

    node: int
    task: Task
    slug: str
    inputs: tuple[StepInput, ...]
    mapped: bool
    measured: bool = False
    refusal: Exception | None = None


class Block(NamedTuple):
    """What one unit of work runs.

    Parameters
    ----------
    number : int
        Its number in the run.
    steps : tuple of Step
        In order; a later one may read an earlier one through `Local`.
    start, stop : int
        Children it runs; 0 and 1 for plain nodes.
    aim : float
        Seconds of work it was cut for; 0: it hands nothing back.
    keep : frozenset of int
        Nodes whose values later blocks read.
    """

    number: int
    steps: tuple[Step, ...]
    start: int
    stop: int
    aim: float
    keep: frozenset[int]


class BlockResult:
    """What a block leaves for the blocks that read it.

    Parameters
    ----------
    segments : dict of int to Segment
        By node.
    items : dict of int to list
        By node, of plain nodes that are mapped over: their value as a list.
    """

    __slots__ = ("items", "segments")

    def __init__(
        self, segments: dict[int, Segment], items: dict[int, list[Any]]
    ) -> None:
        self.segments = segments
        self.items = items

    def __reduce__(self) -> tuple[Any, ...]:
        return BlockResult, (self.segments, self.items)


class BlockReport(NamedTuple):
    """What became of a block, without the values that stay behind.

    Parameters
    ----------
    number : int
        The block.
    segments : dict of int to Segment
        By node; `values` only where they are small enough to travel.
    done : int
        Children it ran; those after were handed back.
    busy : float
        Seconds of work, waits not counted.
    """

    number: int
    segments: dict[int, Segment]
    done: int
    busy: float


# -- reading inputs ----------------------------------------------------------------


class Feed:
    """One input of a step, ready to be read child by child."""

    def tally(self, index: int) -> Tally | None:
        """How the run above ended; `None` for constants, which triggers ignore."""
        return None

    def value(self, index: int) -> Any:
        """Value for a child."""
        raise LookupError("this input carries no value")

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        """States above, each with its index if it is a child's."""
        return ()

    #: Whether `tally` is the same for all children.
    constant_tally = True


class _ConstantFeed(Feed):
    def __init__(self, value: Any) -> None:
        self._value = value

    def value(self, index: int) -> Any:
        return self._value


class _ItemsFeed(Feed):
    def __init__(self, values: Readable, start: int) -> None:
        self._values = values
        self._start = start

    def value(self, index: int) -> Any:
        return self._values[index - self._start]


class _WholeFeed(Feed):
    """A plain node's state and value, or those of all children of a fan-out."""

    def __init__(self, name: str, segments: Sequence[Segment], fanout: bool) -> None:
        self._name = name
        self._segments = segments
        self._fanout = fanout
        self._values: list[Any] | None = None
        if fanout and not any(len(s) for s in segments):
            # An empty fan-out stands as one success.
            self._tally = tally_of_state(Completed(), name)
        else:
            self._tally = sum_tallies(
                tally_of(segment, name, mapped=fanout) for segment in segments
            )

    def tally(self, index: int) -> Tally:
        return self._tally

    def value(self, index: int) -> Any:
        if not self._fanout:
            return self._segments[0].value(0)
        if self._values is None:
            self._values = []
            for segment in self._segments:
                self._values.extend(map(segment.value, range(len(segment))))
        return list(self._values)

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        if self._fanout and not any(len(s) for s in self._segments):
            yield None, Completed(data=[])
        for segment in self._segments:
            for offset in range(len(segment)):
                number = segment.start + offset if self._fanout else None
                yield number, segment.state(offset)


class _EachItemFeed(Feed):
    """The items of a plain node's value."""

    def __init__(self, name: str, segment: Segment, items: Sequence[Any]) -> None:
        self._state = segment.state(0)
        self._tally = tally_of(segment, name, mapped=False)
        self._items = items

    def tally(self, index: int) -> Tally:
        return self._tally

    def value(self, index: int) -> Any:
        return self._items[index]

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        return [(None, self._state)]


class _EachChildFeed(Feed):
    """The children of a fan-out, index by index."""

    constant_tally = False

    def __init__(self, name: str, segments: Sequence[Segment]) -> None:
        self._name = name
        self._segments = segments

    def _find(self, index: int) -> tuple[Segment, int]:
        for segment in self._segments:
            if segment.start <= index < segment.stop:
                return segment, index - segment.start
        raise LookupError(f"child {index} of {self._name} is not among the inputs")

    def tally(self, index: int) -> Tally:
        segment, offset = self._find(index)
        return tally_of_state(segment.state(offset), f"{self._name}[{index}]")

    def value(self, index: int) -> Any:
        segment, offset = self._find(index)
        return segment.value(offset)

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        segment, offset = self._find(index)
        return [(index, segment.state(offset))]


class _LocalFeed(_EachChildFeed):
    """An earlier step of the same block; its segment fills while the block runs."""

    def __init__(self, name: str, segment: Segment, mapped: bool) -> None:
        super().__init__(name, [segment])
        self._mapped = mapped

    def tally(self, index: int) -> Tally:
        if self._mapped:
            return super().tally(index)
        return tally_of(self._segments[0], self._name, mapped=False)

    def states(self, index: int) -> Iterable[tuple[int | None, State]]:
        if self._mapped:
            return super().states(index)
        return [(None, self._segments[0].state(0))]


def sum_tallies(tallies: Iterable[Tally]) -> Tally:
    """Add up tallies; of none: an empty one."""
    total = Tally(0, 0, 0, 0, 0, ())
    for tally in tallies:
        total = total + tally
    return total


def open_feed(
    step_input: StepInput,
    arguments: Sequence[Any],
    segments: Mapping[int, Segment],
    mapped: bool,
) -> Feed:
    """Get an input ready for reading.

    Parameters
    ----------
    step_input : StepInput
        The input.
    arguments : sequence
        Arguments of the block: block results and large constants.
    segments : mapping of int to Segment
        Of the earlier steps of the block.
    mapped : bool
        Whether the step runs children.
    """
    name, source = step_input.name, step_input.source
    match source:
        case Fixed(value):
            return _ConstantFeed(value)
        case Items(values, start):
            return _ItemsFeed(values, start)
        case Shared(position):
            return _ConstantFeed(arguments[position])
        case Local(node):
            return _LocalFeed(name, segments[node], mapped)
        case Each(node, positions, True):
            return _EachChildFeed(
                name, [arguments[p].segments[node] for p in positions]
            )
        case Each(node, positions, False):
            result: BlockResult = arguments[positions[0]]
            return _EachItemFeed(name, result.segments[node], result.items[node])
        case Whole(node, positions, fanout):
            return _WholeFeed(
                name, [arguments[p].segments[node] for p in positions], fanout
            )
        case _:
            raise InternalError(f"no feed reads {source!r}")


# -- running -----------------------------------------------------------------------


class _OpenStep:
    """A step whose inputs are ready, and the segment it fills."""

    def __init__(
        self,
        step: Step,
        block: Block,
        arguments: Sequence[Any],
        segments: dict[int, Segment],
        variables: Mapping[str, Any],
        now: Callable[[], float],
    ) -> None:
        self.step = step
        self.now = now
        self.feeds = [
            (item, open_feed(item, arguments, segments, step.mapped))
            for item in step.inputs
        ]
        self.segment = segments[step.node] = Segment(block.start)
        self.segment.open(block.stop - block.start)
        fixed = [
            tally
            for _, feed in self.feeds
            if feed.constant_tally and (tally := feed.tally(block.start)) is not None
        ]
        self.base = sum_tallies(fixed)
        self.changing = [feed for _, feed in self.feeds if not feed.constant_tally]
        self.keyed = [(i.key, feed) for i, feed in self.feeds if i.key is not None]
        task = step.task
        self.variables = {
            **variables,
            "task_name": task.name,
            "task_slug": step.slug,
            "task_tags": task.tags,
        }

    def begin(self, index: int) -> TaskRun:
        """The task run of one child, or of a plain node."""
        tally = self.base
        for feed in self.changing:
            more = feed.tally(index)
            if more is not None:
                tally = tally + more
        mapped = self.step.mapped
        name = f"{self.step.task.name}[{index}]" if mapped else self.step.task.name
        return TaskRun(
            task=self.step.task,
            name=name,
            tally=tally,
            upstream=partial(self._upstream, index),
            inputs=partial(self._inputs, index),
            variables={
                **self.variables,
                "map_index": index if mapped else None,
                "task_full_name": name,
            },
            now=self.now,
            refusal=self.step.refusal,
        )

    def _inputs(self, index: int) -> dict[str, Any]:
        return {key: feed.value(index) for key, feed in self.keyed}

    def _upstream(self, index: int) -> dict[Any, State]:
        """States above, by edge, a fan-out's by edge and index."""
        found: dict[Any, State] = {}
        for item, feed in self.feeds:
            key = item.edge if item.edge is not None else item.name
            for number, state in feed.states(index):
                found[key if number is None else (key, number)] = state
        return found

    def put(self, run: TaskRun, index: int, state: State) -> None:
        """Record the end of a run."""
        self.segment.put(
            index - self.segment.start, state, run.begin, run.end, run.attempts
        )


class _Child:
    """One child on its way through the steps of a block."""

    __slots__ = ("index", "position", "run", "steps")

    def __init__(self, index: int) -> None:
        self.index = index
        self.position = 0
        self.run: TaskRun | None = None
        self.steps: Steps | None = None


def run_block(
    block: Block,
    arguments: Sequence[Any],
    variables: Mapping[str, Any],
    shell: Shell,
    on_wait: Callable[[int, float], None] | None = None,
    on_advance: Callable[[BlockReport], None] | None = None,
) -> tuple[BlockResult, BlockReport]:
    """Run a block to its end.

    Parameters
    ----------
    block : Block
        What to run.
    arguments : sequence
        Results of the blocks above and large constants, where sources point.
    variables : mapping
        Context variables of the flow run.
    shell : Shell
        Calls user code and waits.
    on_wait : callable, optional
        Told the number of children begun and the seconds of work before the block
        waits with nothing else to do.
    on_advance : callable, optional
        Given a report of the steps that ended while a later one still has to run;
        only of plain nodes, and not more often than every `REPORT_EVERY` seconds.

    Returns
    -------
    BlockResult
        For the blocks below, with values.
    BlockReport
        For the driver, without values.
    """
    segments: dict[int, Segment] = {}
    steps = [
        _OpenStep(step, block, arguments, segments, variables, shell.now)
        for step in block.steps
    ]
    parked: list[tuple[float, int, _Child]] = []
    started = shell.now()
    waited = 0.0
    limit = started + FAR_OVER * block.aim if block.aim else float("inf")
    tell = _Teller(block, steps, shell, on_advance) if on_advance else None
    done = 0
    for index in range(block.start, block.stop):
        if done and shell.now() > limit:
            break
        child = _Child(index)
        due = _advance(child, steps, shell, tell)
        if due is not None:
            heapq.heappush(parked, (due, index, child))
        done += 1
    while parked:
        due, index, child = heapq.heappop(parked)
        before = shell.now()
        if due > before:
            if on_wait is not None:
                on_wait(done, before - started - waited)
            shell.wait(due)
            waited += shell.now() - before
        again = _advance(child, steps, shell, tell)
        if again is not None:
            heapq.heappush(parked, (again, index, child))
    for step in steps:
        step.segment.cut(done)
    busy = shell.now() - started - waited
    result = _result(block, segments)
    report = BlockReport(block.number, segments, done, busy)
    return result, report


class _Teller:
    """Tells of steps that ended, while a block of several plain nodes goes on."""

    def __init__(
        self,
        block: Block,
        steps: Sequence[_OpenStep],
        shell: Shell,
        on_advance: Callable[[BlockReport], None],
    ) -> None:
        self._number = block.number
        self._steps = steps
        self._shell = shell
        self._tell = on_advance
        self._told = shell.now()

    def step_ended(self, position: int) -> None:
        """Tell, unless it was told a moment ago or the end is near."""
        steps = self._steps
        if steps[position].step.mapped or position + 1 == len(steps):
            return
        now = self._shell.now()
        if now - self._told < REPORT_EVERY:
            return
        ended = {s.step.node: s.segment for s in steps[: position + 1]}
        self._told = now
        self._tell(BlockReport(self._number, ended, 0, 0.0))


def _advance(
    child: _Child, steps: Sequence[_OpenStep], shell: Shell, tell: _Teller | None
) -> float | None:
    """Take a child as far as it goes; the time at which a wait ends, or `None`."""
    while child.position < len(steps):
        step = steps[child.position]
        if child.steps is None:
            child.run = step.begin(child.index)
            child.steps = run_task(child.run)
        answer = None
        try:
            while True:
                effect = child.steps.send(answer)
                if isinstance(effect, Call):
                    answer = shell.call(effect)
                    continue
                assert isinstance(effect, Wait)
                return effect.until
        except StopIteration as stop:
            assert child.run is not None
            step.put(child.run, child.index, stop.value)
        if tell is not None:
            tell.step_ended(child.position)
        child.steps = None
        child.position += 1
    return None


def _result(block: Block, segments: dict[int, Segment]) -> BlockResult:
    """What stays for later blocks; measures the nodes that are mapped over."""
    items: dict[int, list[Any]] = {}
    for step in block.steps:
        if step.measured and not step.mapped:
            segment = segments[step.node]
            found = items_of(segment.values[0]) if is_success(segment) else None
            segment.lengths = [None if found is None else len(found)]
            if found is not None:
                items[step.node] = found
    kept = {
        node: segment if node in block.keep else segment.without_values()
        for node, segment in segments.items()
    }
    return BlockResult(kept, items)


def is_success(segment: Segment) -> bool:
    """Whether a plain node succeeded and was not skipped, so has a value."""
    state = segment.state(0)
    return state.is_successful() and not state.is_skipped()
