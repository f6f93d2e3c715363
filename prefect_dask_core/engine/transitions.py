"""Transitions: state handlers and hooks see every change of state."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from prefect_dask_core.engine.effects import Answer, Call, Effect, Raised, Returned
from prefect_dask_core.engine.task_run import (
    TaskRun,
    Transition,
    record_of,
    told,
    variables_of,
)
from prefect_dask_core.hooks import Hook, call_hook
from prefect_dask_core.signals import ENDRUN, PAUSE, PrefectStateSignal
from prefect_dask_core.states import Failed, Paused, Running, State


def enter(run: TaskRun, old: State, new: State) -> Transition:
    """Put a change of state before the state handlers; call hooks of a running one.

    Returns
    -------
    State
        The new state, or what a handler put in its place.
    bool
        Whether the run ends here: a handler paused or ended it, or raised.

    Notes
    -----
    Source of the rules: state handlers of the graph generations. A returned state
    replaces; PAUSE and ENDRUN end the run; another signal replaces the state; any
    other exception fails the run without a retry.
    """
    for handler in run.options.state_handlers:
        answer = yield Call(handler, (run.task, old, new), variables=variables_of(run))
        if isinstance(answer, Returned):
            if answer.value is None:
                continue
            if not isinstance(answer.value, State):
                error = TypeError(
                    f"state handler {_name(handler)} of task {run.name!r} returned "
                    f"{answer.value!r}; a handler returns a State or None."
                )
                return Failed(str(error), data=error), True
            new = answer.value
            continue
        assert isinstance(answer, Raised)
        if isinstance(answer.error, PrefectStateSignal):
            new = answer.error.to_state(run.now())
            if isinstance(answer.error, PAUSE | ENDRUN):
                return new, True
            continue
        message = f"state handler {_name(handler)} raised {told(answer.error)}"
        return Failed(message, data=answer.error), True
    if isinstance(new, Running):
        run.started = True
        if run.options.on_running:
            yield from call_hooks(run, run.options.on_running, new)
    return new, isinstance(new, Paused)


def call_hooks(
    run: TaskRun, hooks: tuple[Hook, ...], state: State
) -> Generator[Effect, Answer, None]:
    """Call the hooks of a state; whatever they raise changes nothing."""
    for hook in hooks:
        args = (hook, run.task, record_of(run, state), state)
        yield Call(call_hook, args, variables=variables_of(run))


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", None) or type(function).__name__
