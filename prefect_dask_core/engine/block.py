"""Blocks: consecutive children, through one or more nodes, run as one unit of work.

A block goes depth-first: child 0 through all its steps, then child 1. A child that
waits for its next attempt is parked, and the others go on. A block that finds itself
far over its aim stops early and hands back the children it has not begun.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final, NamedTuple

from prefect_dask_core.engine.caching import within
from prefect_dask_core.engine.columns import Segment
from prefect_dask_core.engine.effects import (
    Answer,
    AsyncCalls,
    Call,
    Returned,
    Shell,
    Wait,
)
from prefect_dask_core.engine.feeds import (
    BlockResult,
    StepInput,
    flat_length,
    is_success,
    measure,
    open_feed,
    sum_tallies,
)
from prefect_dask_core.engine.pipeline import Steps, TaskRun, rest_of_body, run_task
from prefect_dask_core.engine.plan import items_of
from prefect_dask_core.engine.quick import NOT_CALLED, QuickStep, is_quick, quick_step
from prefect_dask_core.results.keeping import KEEPING, STAGED_IN
from prefect_dask_core.results.kept import KeptValues, StoredValues
from prefect_dask_core.results.places import own_prefix
from prefect_dask_core.results.store import ResultStore
from prefect_dask_core.run_ids import run_name
from prefect_dask_core.states import Completed, Failed, State
from prefect_dask_core.tasks import Task

#: How often a careful block tells how far it is: a worker that dies leaves one part of
#: so many as suspects, where halving would need five deaths to come as far.
CAREFUL_PIECES: Final = 32

# Of a type that can be pickled, though nobody may add to them.
NOT_PAUSED: Final[Mapping[int, str]] = {}
NO_VARIABLES: Final[Mapping[str, Any]] = {}
#: A block over its aim by this factor hands back what it has not begun.
FAR_OVER = 4.0
#: Seconds between two reports of a block that runs several plain nodes.
REPORT_EVERY = 0.25


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
    flattened : bool
        Whether other nodes map over its flattened value or children.
    refusal : Exception or None
        Why its children cannot exist; its parent is judged instead.
    paused : mapping of int to str
        Runs that are resumed from a pause, by index: the name of the pause. The index
        of a plain node is 0.
    variables : mapping of str to object
        Context variables of its runs, over those of the flow run.
    """

    node: int
    task: Task
    slug: str
    inputs: tuple[StepInput, ...]
    mapped: bool
    measured: bool = False
    flattened: bool = False
    refusal: Exception | None = None
    paused: Mapping[int, str] = NOT_PAUSED
    variables: Mapping[str, Any] = NO_VARIABLES


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
    careful : bool
        Whether it tells how far it has come, because a child of it may kill its worker.
    awaited : bool
        Whether the run goes on when it ends. If not, all that reads it is submitted
        already, and its report may come a little later, together with others.
    lean : bool
        Whether the values of nodes that are not in `keep` are dropped child by child.
    parts : tuple of int
        Positions of the steps of plain nodes at which others begin that do not read
        the ones before. Each part waits for itself alone, and may be handed back.
    """

    number: int
    steps: tuple[Step, ...]
    start: int
    stop: int
    aim: float
    keep: frozenset[int]
    careful: bool = False
    awaited: bool = True
    lean: bool = False
    parts: tuple[int, ...] = ()

    def ways(self) -> Iterator[tuple[int, int, int]]:
        """What it runs in turn: an index, and the steps it goes from and to.

        Examples
        --------
        >>> list(Block(0, ("a", "b"), 5, 7, 0.0, frozenset()).ways())
        [(5, 0, 2), (6, 0, 2)]
        >>> list(Block(0, ("a", "b", "c"), 0, 1, 0.0, frozenset(), parts=(1,)).ways())
        [(0, 0, 1), (0, 1, 3)]
        """
        if not self.parts:
            for index in range(self.start, self.stop):
                yield index, 0, len(self.steps)
            return
        first = 0
        for last in (*self.parts, len(self.steps)):
            yield 0, first, last
            first = last


def careful_piece(start: int, stop: int) -> int:
    """Children of a careful block between two times that it tells how far it is.

    Examples
    --------
    >>> careful_piece(0, 3_200), careful_piece(0, 20)
    (100, 1)
    """
    return -(-(stop - start) // CAREFUL_PIECES)


class BlockReport(NamedTuple):
    """What became of a block, without the values that stay behind.

    Parameters
    ----------
    number : int
        The block.
    segments : dict of int to Segment
        By node; `values` only where they are small enough to travel. Plain nodes that
        were handed back are not there.
    done : int
        Children or parts it ran; those after were handed back.
    busy : float
        Seconds of work, waits not counted.
    """

    number: int
    segments: dict[int, Segment]
    done: int
    busy: float


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
        shell: Shell,
    ) -> None:
        self.step = step
        self.now = shell.now
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
        self.variables: dict[str, Any] = {
            **variables,
            **step.variables,
            "task_name": task.name,
            "task_slug": step.slug,
            "task_tags": task.tags,
        }
        self.options, self.keeper = within(task, self.variables.get(KEEPING))
        as_declared = self.options is task.options and self.keeper is None
        if self.keeper is not None and self.keeper.store is not None:
            self._prepare_keeping(self.keeper.store, block.stop - block.start)
        self.quick: QuickStep | None = None
        plain = not step.paused and step.refusal is None
        if plain and as_declared and is_quick(task):
            calls = shell.quick_calls(task, self.variables, step.mapped)
            self.quick = quick_step(
                task, self.keyed, self.changing, self.base, self.segment, calls
            )

    def _prepare_keeping(self, store: ResultStore, count: int) -> None:
        """Let the segment know where values are that are in the store."""
        assert self.keeper is not None
        segment = self.segment
        start = segment.start if self.step.mapped else None
        staged_in = self.variables.get(STAGED_IN)
        prefix = own_prefix(self.variables)
        segment.kept = KeptValues(store, prefix, start, staged_in)
        if not self.keeper.in_memory:
            segment.values = StoredValues(segment.kept, count)

    def begin(self, index: int) -> TaskRun:
        """The task run of one child, or of a plain node."""
        tally = self.base
        for feed in self.changing:
            more = feed.tally(index)
            if more is not None:
                tally = tally + more
        mapped = self.step.mapped
        number = index if mapped else None
        name = run_name(self.variables, self.step.task.name, number)
        variables = {
            **self.variables,
            "map_index": number,
            "task_full_name": name,
        }
        pause = self.step.paused.get(index)
        if pause is not None:
            variables["resume"] = True
            variables["is_waiting"] = pause == "Waiting"
        return TaskRun(
            task=self.step.task,
            name=name,
            tally=tally,
            upstream=partial(self._upstream, index),
            inputs=partial(self._inputs, index),
            variables=variables,
            now=self.now,
            refusal=self.step.refusal,
            resumed=pause is not None,
            settings=self.options,
            keeper=self.keeper,
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
        offset = index - self.segment.start
        made = run.attempts_made
        self.segment.put(offset, state, run.begin, run.end, made, run.waits)
        if run.kept is not None and isinstance(state, Completed):
            assert self.keeper is not None
            self.segment.keep(offset, run.kept, self.keeper.in_memory)


class _Child:
    """One child on its way through the steps of a block.

    Parameters
    ----------
    index : int
        Its index.
    position, last : int
        The step it stands at, and the one before which it ends.
    answer : Returned or Raised or None
        What the body of that step gave, if it was called already.
    begin : float
        When that was.
    """

    __slots__ = ("answer", "begin", "index", "last", "position", "run", "steps")

    def __init__(
        self,
        index: int,
        position: int,
        last: int,
        answer: Answer = None,
        begin: float = 0.0,
    ) -> None:
        self.index = index
        self.position = position
        self.last = last
        self.answer = answer
        self.begin = begin
        self.run: TaskRun | None = None
        self.steps: Steps | None = None


def run_block(
    block: Block,
    arguments: Sequence[Any],
    variables: Mapping[str, Any],
    shell: Shell,
    on_wait: Callable[[int, float], None] | None = None,
    on_advance: Callable[[BlockReport], None] | None = None,
    on_reach: Callable[[int], None] | None = None,
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
    on_reach : callable, optional
        Told the index of a child before it begins, now and then; only of a careful
        block.

    Returns
    -------
    BlockResult
        For the blocks below, with values.
    BlockReport
        For the driver, without values.
    """
    segments: dict[int, Segment] = {}
    steps = [
        _OpenStep(step, block, arguments, segments, variables, shell)
        for step in block.steps
    ]
    dropped: list[Segment] = []
    if block.lean:
        dropped = [segments[s.node] for s in block.steps if s.node not in block.keep]
    waiting = _Waiting(steps, shell, on_wait, dropped)
    started = shell.now()
    limit = started + FAR_OVER * block.aim if block.aim else float("inf")
    tell = _Teller(block, steps, shell, on_advance) if on_advance else None
    done = 0
    now = started
    piece = 0
    if block.careful and on_reach is not None:
        piece = careful_piece(block.start, block.stop)
    for index, first, last in block.ways():
        if done and now > limit:
            break
        if piece and not (index - block.start) % piece:
            assert on_reach is not None
            on_reach(index)
        child, now = _go_quickly(index, steps, first, last, shell, tell, now)
        if child is not None:
            waiting.go_on(child, tell)
            now = shell.now()
        else:
            for segment in dropped:
                segment.values[index - block.start] = None
        done += 1
        if waiting.is_full():
            waiting.take_answers(done, started, tell)
            now = shell.now()
    while waiting.is_open():
        waiting.take_answers(done, started, tell)
    _hand_back(block, segments, done)
    for segment in dropped:
        segment.values = None
    busy = shell.now() - started - waiting.seconds
    result = _result(block, segments)
    report = BlockReport(block.number, segments, done, busy)
    return result, report


def _hand_back(block: Block, segments: dict[int, Segment], done: int) -> None:
    """Forget what was not begun."""
    if not block.parts:
        for segment in segments.values():
            segment.cut(done)
        return
    last = (*block.parts, len(block.steps))[done - 1]
    for step in block.steps[last:]:
        del segments[step.node]


class _Waiting:
    """Children that wait: for their next attempt, or for the end of a coroutine."""

    def __init__(
        self,
        steps: Sequence[_OpenStep],
        shell: Shell,
        on_wait: Callable[[int, float], None] | None,
        dropped: Sequence[Segment],
    ) -> None:
        self._steps = steps
        self._shell = shell
        self._on_wait = on_wait
        self._dropped = dropped
        self._parked: list[tuple[float, int, int, _Child]] = []
        self._begun: dict[int, _Child] = {}
        self._calls: AsyncCalls | None = None
        if any(step.step.task.isasync for step in steps):
            self._calls = shell.async_calls()
        #: Seconds that were spent waiting.
        self.seconds = 0.0

    def is_open(self) -> bool:
        """Whether a child waits."""
        return bool(self._parked or self._begun)

    def is_full(self) -> bool:
        """Whether so many coroutines run that one has to end first."""
        return self._calls is not None and len(self._begun) >= self._calls.most

    def go_on(self, child: _Child, tell: _Teller | None, answer: Answer = None) -> None:
        """Take a child as far as it goes, and keep it where it has to wait."""
        found = _advance(child, self._steps, self._shell, tell, self._calls, answer)
        if isinstance(found, Wait):
            place = child.index, child.position
            heapq.heappush(self._parked, (found.until, *place, child))
        elif found is not None:
            self._begun[found] = child
        else:
            for segment in self._dropped:
                segment.values[child.index - segment.start] = None

    def take_answers(self, done: int, started: float, tell: _Teller | None) -> None:
        """Wait for what comes first, and go on with whom it was for."""
        now = self._shell.now()
        due = self._parked[0][0] if self._parked else None
        if self._on_wait is not None and (due is None or due > now):
            self._on_wait(done, now - started - self.seconds)
        if self._begun:
            assert self._calls is not None
            answers = self._calls.ended(due)
            self.seconds += self._shell.now() - now
            for number, answer in answers:
                self.go_on(self._begun.pop(number), tell, answer)
        elif due is not None and due > now:
            self._shell.wait(due)
            self.seconds += self._shell.now() - now
        now = self._shell.now()
        while self._parked and self._parked[0][0] <= now:
            *_, child = heapq.heappop(self._parked)
            self.go_on(child, tell)


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
        self._fresh: list[int] = []

    def step_ended(self, position: int) -> None:
        """Tell, unless it was told a moment ago or the end is near."""
        steps = self._steps
        if steps[position].step.mapped or position + 1 == len(steps):
            return
        self._fresh.append(position)
        now = self._shell.now()
        if now - self._told < REPORT_EVERY:
            return
        fresh, self._fresh = self._fresh, []
        ended = {steps[n].step.node: steps[n].segment for n in fresh}
        self._told = now
        self._tell(BlockReport(self._number, ended, 0, 0.0))


def _go_quickly(
    index: int,
    steps: Sequence[_OpenStep],
    first: int,
    last: int,
    shell: Shell,
    tell: _Teller | None,
    now: float,
) -> tuple[_Child | None, float]:
    """Take a child through the steps that need no pipeline, from one to another.

    Returns
    -------
    _Child or None
        The child where it needs one; `None` if it has ended.
    float
        The time now.
    """
    for position in range(first, last):
        quick = steps[position].quick
        if quick is None or not quick.may_run(index):
            return _Child(index, position, last), now
        answer = quick.run(index, now)
        if answer is not None:
            told = None if answer is NOT_CALLED else answer
            return _Child(index, position, last, told, now), now
        segment = quick.segment
        offset = index - segment.start
        segment.begins[offset] = now
        now = segment.ends[offset] = shell.now()
        if tell is not None:
            tell.step_ended(position)
    return None, now


def _advance(
    child: _Child,
    steps: Sequence[_OpenStep],
    shell: Shell,
    tell: _Teller | None,
    calls: AsyncCalls | None,
    answer: Answer,
) -> Wait | int | None:
    """Take a child as far as it goes.

    Parameters
    ----------
    child, steps, shell, tell
        The child, the steps of its block, what carries them out and tells of them.
    calls : AsyncCalls, optional
        Begins coroutines.
    answer : Returned, Raised, Overran or None
        What the child has waited for, if it was a coroutine.

    Returns
    -------
    Wait or int or None
        What it waits for: a time, or a call that was begun; `None` if it has ended.
    """
    while child.position < child.last:
        step = steps[child.position]
        if child.steps is None:
            child.run = step.begin(child.index)
            child.steps = run_task(child.run)
            if child.answer is not None:
                answer = _replay(child, shell)
        try:
            while True:
                effect = child.steps.send(answer)
                if isinstance(effect, Wait):
                    return effect
                if effect.isasync and calls is not None:
                    return calls.begin(effect)
                answer = shell.call(effect)
        except StopIteration as stop:
            assert child.run is not None
            step.put(child.run, child.index, stop.value)
            answer = None
        if tell is not None:
            tell.step_ended(child.position)
        child.steps = None
        child.position += 1
    return None


def _replay(child: _Child, shell: Shell) -> Answer:
    """Bring a pipeline to where its body has been called; the answer it then gets."""
    assert child.run is not None
    assert child.steps is not None
    child.run.begin = child.begin
    effect = child.steps.send(None)
    # A task is quick only if nothing comes before its body.
    assert isinstance(effect, Call), effect
    answer, child.answer = child.answer, None
    if isinstance(answer, Returned) and not isinstance(answer.value, State):
        return shell.call(rest_of_body(child.run, answer.value))
    return answer


def _items(segment: Segment) -> list[Any] | None:
    """Items of a plain node's value, `None` if there are none to map over."""
    if not is_success(segment):
        return None
    try:
        return items_of(segment.values[0])
    except Exception as error:  # iterating over a value may run any code of the user's
        failed = Failed(f"its value cannot be iterated over: {error!r}", data=error)
        made = segment.attempts_of(0)
        segment.put(0, failed, segment.begins[0], segment.ends[0], made)
        return None


def _result(block: Block, segments: dict[int, Segment]) -> BlockResult:
    """What stays for later blocks; measures the nodes that are mapped over."""
    items: dict[int, list[Any]] = {}
    for step in block.steps:
        segment = segments.get(step.node)
        if segment is None:
            continue  # handed back
        if step.measured and not step.mapped:
            found = _items(segment)
            if found is not None:
                items[step.node] = found
            measure(segment, found, step.flattened)
        elif step.flattened:
            segment.flat_length = sum(
                flat_length(segment, offset) for offset in range(len(segment))
            )
    kept = {
        node: segment if node in block.keep else segment.without_values()
        for node, segment in segments.items()
    }
    return BlockResult(kept, items)
