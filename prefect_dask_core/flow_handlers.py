"""Flow handlers: what a flow's own functions make of each change of its state."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from prefect_dask_core.planning import Graph
from prefect_dask_core.signals import ENDRUN, PAUSE, PrefectStateSignal
from prefect_dask_core.states import Failed, State


def entered(flow: Graph, old: State, new: State) -> State:
    """The new state of a flow run, or what its handlers put in its place.

    Notes
    -----
    Source of the rules: state handlers of the graph generations, as for tasks.
    """
    for handler in flow.state_handlers:
        name = getattr(handler, "__name__", type(handler).__name__)
        new, stop = handled_state(
            new, partial(handler, flow, old, new), f"state handler {name}"
        )
        if stop:
            break
    return new


def handled_state(
    state: State, handler: Callable[[], State | None], who: str
) -> tuple[State, bool]:
    """What a handler made of a state, and whether no further one is called.

    Notes
    -----
    Whatever a handler does wrong fails the run instead of ending `Flow.run`: the
    states of the tasks would be lost, and with them what resuming needs.
    """
    try:
        handled = handler()
        if handled is not None and not isinstance(handled, State):
            raise TypeError(f"it returned {handled!r}; it returns a State or None.")
    except PrefectStateSignal as signal:
        found = signal.to_state(time.time())
        return _kept_states(state, found), isinstance(signal, PAUSE | ENDRUN)
    except Exception as error:
        message = f"{who} raised {type(error).__name__}: {error}"
        failed = Failed(message, data=error, timestamp=time.time())
        return _kept_states(state, failed), True
    return _kept_states(state, handled), False


def _kept_states(state: State, handled: State | None) -> State:
    """What a handler returned, with the states of the tasks."""
    if handled is None or handled is state:
        return state
    return (
        handled if handled.states is not None else handled.replace(states=state.states)
    )
