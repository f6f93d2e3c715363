"""Flow attempts: the function of a flow is called until it succeeds, or not again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Generator
from functools import partial
from typing import Any, Final

from prefect_dask_core.calls import SCOPE
from prefect_dask_core.endings import told_error
from prefect_dask_core.engine.effects import Call, Overran, Raised, Returned, Wait
from prefect_dask_core.errors import FlowTimeoutError
from prefect_dask_core.function_runs import FunctionRun, call_function, call_hooks
from prefect_dask_core.results.keeping import KEEPING, FlowKeeping
from prefect_dask_core.results.kept import StoredValue
from prefect_dask_core.retries import delay_before_retry
from prefect_dask_core.returns import returned_state
from prefect_dask_core.runners.drive import Blocking, Steps
from prefect_dask_core.signals import PrefectStateSignal
from prefect_dask_core.states import (
    NO_DATA,
    AwaitingRetry,
    Cancelled,
    Completed,
    Crashed,
    Failed,
    Retrying,
    Running,
    State,
    TimedOut,
)

_LOGGER: Final = logging.getLogger("prefect_dask_core.flow_runs")


def attempt(run: FunctionRun, body: dict[str, Any]) -> Steps[State]:
    """Call the function until it succeeds or has no further attempt."""
    state: State = Running()
    while True:
        state = run.enter(state)
        body["flow_run_count"] = run.attempts
        yield from call_hooks(run, body, run.options.on_running)
        begin = time.monotonic()
        answer = yield Call(
            call_function,
            (run.flow, run.parameters),
            timeout=run.options.timeout_seconds,
            variables=body,
            log_prints=bool(body["log_prints"]),
        )
        state = run.enter((yield from _outcome(run, answer, begin)))
        if not isinstance(state, Failed):
            return state
        delay = delay_before_retry(run.options, run.attempts)
        if delay is None:
            return state
        yield from _end_attempt(run, body)
        due = time.time() + delay
        run.enter(AwaitingRetry(state.message, start_time=due, run_count=run.attempts))
        _LOGGER.warning(
            "flow run %r, attempt %d: %r; again in %g s",
            run.name,
            run.attempts,
            state,
            delay,
        )
        yield from _wait(due)
        run.attempts += 1
        state = Retrying()


def _wait(due: float) -> Generator[Any, Any, None]:
    if due > time.time():
        yield Wait(due)


def _end_attempt(run: FunctionRun, body: dict[str, Any]) -> Steps[None]:
    """End an attempt that another one follows.

    What it has submitted is waited for, as at the end of the flow (decision F11): the
    next attempt submits the same, and would run beside it on the same files and rows.
    """
    assert run.scope is not None
    yield Blocking(run.scope.settle)
    run.scope = body[SCOPE] = yield Blocking(run.scope.successor)


def _outcome(run: FunctionRun, answer: Any, begin: float) -> Steps[State]:
    """State that the answer of the function means.

    The limit holds for what the function has submitted too, which is a part of the run.
    """
    assert run.scope is not None
    limit = run.options.timeout_seconds
    if limit is not None and isinstance(answer, Returned | Raised):
        remaining = max(0.0, begin + limit - time.monotonic())
        if not (yield Blocking(partial(run.scope.settle, remaining))):
            late = (
                f"flow {run.options.name!r} ran longer than {limit:g} s, waiting for "
                "what it had submitted."
            )
            run.scope.cancel(late)
            if isinstance(answer, Returned):
                return TimedOut(late, data=FlowTimeoutError(late))
    if isinstance(answer, Returned):
        run.returned = answer.value
        try:
            state: State = yield Blocking(partial(returned_state, answer.value))
        except Exception as error:  # of a future that was returned
            return Failed(told_error(error), data=error)
        return state
    if isinstance(answer, Overran):
        left = " Its code could not be stopped and is left behind." * answer.left_behind
        message = f"flow {run.options.name!r} ran longer than {answer.timeout:g} s."
        run.scope.cancel(message)
        return TimedOut(message + left, data=FlowTimeoutError(message))
    assert isinstance(answer, Raised)
    state = state_of_error(answer.error)
    if not isinstance(state, Failed):
        run.scope.cancel(told_error(answer.error))
    return state


def state_of_error(error: BaseException) -> State:
    """State of a run that ended with an exception."""
    if isinstance(error, PrefectStateSignal):
        return error.to_state(time.time())
    if isinstance(error, Exception):
        return Failed(told_error(error), data=error)
    if isinstance(error, KeyboardInterrupt | asyncio.CancelledError):
        return Cancelled(f"stopped by {told_error(error)}", data=error)
    return Crashed(told_error(error), data=error)


def keep(run: FunctionRun, body: dict[str, Any], state: State) -> Steps[State]:
    """The state of a run that completed, its value stored if that is asked for."""
    keeping: FlowKeeping = body[KEEPING]
    store = keeping.store
    kept = isinstance(state, Completed) and state.data is not NO_DATA
    if not keeping.persist or store is None or not kept:
        return state
    under = f"runs/{run.id.hex}"
    known = {"task": run.options.name, "flow_run_id": run.id.hex, "run": under}
    answer = yield Call(store.write, (f"{under}/flow", state.data), known)
    if isinstance(answer, Raised):
        # The tasks have done their work, and the caller has the value.
        _LOGGER.warning(
            "flow run %r: its value was not stored: %s",
            run.name,
            told_error(answer.error),
        )
    elif not run.options.cache_result_in_memory:
        return state.replace(data=StoredValue(store, f"{under}/flow"))
    return state
