"""Under way: the children of a block that have begun, and those of them that wait."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence

from prefect_dask_core.engine.attempts import rest_of_body
from prefect_dask_core.engine.block import Block, BlockReport
from prefect_dask_core.engine.effects import (
    Answer,
    AsyncCalls,
    Call,
    Returned,
    Shell,
    Wait,
)
from prefect_dask_core.engine.open_steps import OpenStep
from prefect_dask_core.engine.pipeline import run_task
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.engine.task_run import Steps, TaskRun
from prefect_dask_core.states import State

#: Seconds between two reports of a block that runs several plain nodes.
REPORT_EVERY = 0.25


class Child:
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


class Teller:
    """Tells of steps that ended, while a block of several plain nodes goes on."""

    def __init__(
        self,
        block: Block,
        steps: Sequence[OpenStep],
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


class WaitingChildren:
    """Children that wait: for their next attempt, or for the end of a coroutine."""

    def __init__(
        self,
        steps: Sequence[OpenStep],
        shell: Shell,
        on_wait: Callable[[int, float], None] | None,
        dropped: Sequence[Segment],
    ) -> None:
        self._steps = steps
        self._shell = shell
        self._on_wait = on_wait
        self._dropped = dropped
        self._parked: list[tuple[float, int, int, Child]] = []
        self._begun: dict[int, Child] = {}
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

    def go_on(self, child: Child, tell: Teller | None, answer: Answer = None) -> None:
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

    def take_answers(self, done: int, started: float, tell: Teller | None) -> None:
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


def _advance(
    child: Child,
    steps: Sequence[OpenStep],
    shell: Shell,
    tell: Teller | None,
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


def _replay(child: Child, shell: Shell) -> Answer:
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
