"""Attempts: what the answer of a body means, and whether it is called again."""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterable, Generator, Mapping
from typing import Any

from prefect_dask_core.engine.effects import (
    Answer,
    Call,
    Effect,
    Overran,
    Raised,
    Returned,
    Wait,
)
from prefect_dask_core.engine.task_run import (
    TaskRun,
    Transition,
    record_of,
    told,
    variables_of,
)
from prefect_dask_core.engine.transitions import enter
from prefect_dask_core.errors import TaskTimeoutError
from prefect_dask_core.hooks import ask_condition
from prefect_dask_core.retries import delay_before_retry, draw_fraction, jittered
from prefect_dask_core.signals import ENDRUN, PrefectStateSignal
from prefect_dask_core.states import (
    AwaitingRetry,
    Completed,
    Crashed,
    Failed,
    Looped,
    Retrying,
    Running,
    State,
    TimedOut,
)
from prefect_dask_core.tasks import Task


def call_body(task: Task, inputs: Mapping[str, Any]) -> Any:
    """Call the body; what it yields is its value as a list (decision C4)."""
    return finish_value(task.call_body(inputs))


def finish_value(value: Any) -> Any:
    """A generator's items as a list; a coroutine is for whoever calls to await."""
    if inspect.isgenerator(value):
        return list(value)
    if inspect.isasyncgen(value):
        return _listed(value)
    return value


async def _listed(values: AsyncIterable[Any]) -> list[Any]:
    return [value async for value in values]


def rest_of_body(run: TaskRun, value: Any) -> Call:
    """The call that ends a body which returned a generator or a coroutine."""
    return Call(finish_value, (value,), variables=variables_of(run))


def ends_the_run(answer: Answer) -> bool:
    """Whether the body asked for an end without a retry."""
    return isinstance(answer, Raised) and isinstance(answer.error, ENDRUN)


def outcome_of(run: TaskRun, answer: Answer) -> State:
    """State that the answer of the body means."""
    at = run.now()
    if isinstance(answer, Returned):
        value = answer.value
        if isinstance(value, State):
            return value
        return Completed(data=value, timestamp=at)
    if isinstance(answer, Overran):
        left = " Its code could not be stopped and is left behind." * answer.left_behind
        message = f"{run.name} ran longer than {answer.timeout:g} s.{left}"
        return TimedOut(message, data=TaskTimeoutError(message), timestamp=at)
    assert isinstance(answer, Raised)
    error = answer.error
    if isinstance(error, PrefectStateSignal):
        state = error.to_state(at)
        return state if state.timestamp else state.replace(timestamp=at)
    if isinstance(error, Exception):
        return Failed(told(error), data=error, timestamp=at)
    return Crashed(told(error), data=error, timestamp=at)


def again(run: TaskRun, state: State) -> Transition:
    """After a body: start the next attempt or pass, or leave the state as it is."""
    if isinstance(state, Looped):
        run.loop = {
            "task_loop_count": run.loop.get("task_loop_count", 1) + 1,
            "task_loop_result": state.data,
        }
        run.attempts = 1
        return (yield from enter(run, state, Running(timestamp=run.now())))
    if isinstance(state, Failed):
        delay = yield from _delay(run, state)
        if delay is None:
            return state, True
        waiting: State = AwaitingRetry(
            f"attempt {run.attempts} failed: {state.message}",
            start_time=run.now() + delay,
            run_count=run.attempts,
            timestamp=run.now(),
        )
        state, stop = yield from enter(run, state, waiting)
        if stop:
            return state, True
    if isinstance(state, AwaitingRetry):
        due, since = state.start_time, run.now()
        if due is not None and due > since:
            yield Wait(due)
        run.waits = (*run.waits, (since, run.now()))
        run.attempts += 1
        return (yield from enter(run, state, Retrying(timestamp=run.now())))
    return state, True


def _delay(run: TaskRun, failed: State) -> Generator[Effect, Answer, float | None]:
    """Seconds until the next attempt, `None` if there is none."""
    options = run.options
    delay = delay_before_retry(options, run.attempts)
    if delay is None:
        return None
    condition = options.retry_condition_fn
    if condition is not None:
        args = (condition, run.task, record_of(run, failed), failed)
        answer = yield Call(ask_condition, args, variables=variables_of(run))
        if not isinstance(answer, Returned) or not answer.value:
            return None
    if options.retry_jitter_factor and delay:
        answer = yield Call(draw_fraction)
        assert isinstance(answer, Returned)
        delay = jittered(delay, options.retry_jitter_factor, answer.value)
    return delay
