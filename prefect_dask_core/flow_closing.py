"""Flow closing: what comes after the function of a flow.

Everything that was submitted is waited for, its states are put into that of the run,
the hooks are called, and what nobody has looked at is told.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from functools import partial
from itertools import islice
from typing import Any, Final

from prefect_dask_core.endings import is_over, way_on
from prefect_dask_core.function_runs import FunctionRun, call_hooks
from prefect_dask_core.hooks import Hook
from prefect_dask_core.returns import RunStates
from prefect_dask_core.runners.drive import Blocking, Steps
from prefect_dask_core.scopes import Scope, is_bad
from prefect_dask_core.states import Cancelled, Completed, Crashed, Failed, State

_LOGGER: Final = logging.getLogger("prefect_dask_core.flow_runs")
#: Runs that failed unseen are warned of one by one, up to this number.
UNSEEN_TOLD: Final = 10


def close(run: FunctionRun, body: dict[str, Any], state: State) -> Steps[State]:
    """Wait for what was submitted, put its states into the state, call the hooks."""
    scope = run.scope
    assert scope is not None
    scope.outcome = state
    states = yield Blocking(scope.close)
    run.returned = None
    if not state.is_final() and not state.is_paused():
        # Made by hand, and not by a run; it says so.
        _LOGGER.warning("flow run %r returned the state %r", run.name, state)
    _tell_of_unseen(run, scope.unseen())
    state = run.enter(_with_states(run, state, states, scope))
    options = run.options
    hooks: tuple[Hook, ...] = ()
    if isinstance(state, Completed):
        hooks = options.on_completion
    elif isinstance(state, Failed):
        hooks = options.on_failure
    elif isinstance(state, Cancelled):
        hooks = options.on_cancellation
    elif isinstance(state, Crashed):
        hooks = options.on_crashed
    assert run.watch is not None
    # Before the hooks, which may want to report.
    yield Blocking(partial(run.watch.ended, state))
    yield from call_hooks(run, body, hooks)
    return state


def _tell_of_unseen(run: FunctionRun, unseen: Mapping[str, State]) -> None:
    """Warn of runs that did not succeed, and that nobody has asked about (F1)."""
    for name, bad in islice(unseen.items(), UNSEEN_TOLD):
        told = f"{name} ended as {bad!r}"
        if bad.is_mapped():
            children = list(enumerate(bad.states or ()))
            failed = [pair for pair in children if is_bad(pair[1])]
            index, first = failed[0]
            told = (
                f"{len(failed)} of {len(children)} children did not succeed, "
                f"{name}[{index}] ended as {first!r}"
            )
        _LOGGER.warning(
            "flow run %r: %s, and nobody has asked about it", run.name, told
        )
    if len(unseen) > UNSEEN_TOLD:
        _LOGGER.warning(
            "flow run %r: %d more did not succeed, and nobody has asked about them",
            run.name,
            len(unseen) - UNSEEN_TOLD,
        )


def tell_of_failure(run: FunctionRun, state: State, recorded: bool) -> None:
    """Log how a run failed, as the last line about it: what to do stands there."""
    if not is_over(state):
        return
    assert run.watch is not None
    assert run.scope is not None
    info = run.watch.view.info
    further = way_on(info, '.resume("{}")', recorded, run.scope.stores)
    _LOGGER.warning("flow run %r: %r%s", run.name, state, further)


def _with_states(
    run: FunctionRun, state: State, states: Mapping[str, State], scope: Scope
) -> State:
    assert run.watch is not None
    assets = tuple(scope.lineage.records)
    return state.replace(states=RunStates(states, assets, run.watch.view))
