"""Pipeline: the order of the steps of one task run.

Upstream states in, final state out. The rules are functions of `triggers`, `retries`
and `signals`; this module only says which comes first:

skip propagation → trigger → inputs → name → stored or cached value → Running, with its
hooks → body under its timeout → transaction: committed, which stores the value, or
rolled back → signal or exception → retry decision → wait → again → loop → cached →
final state, with its hooks; state handlers see every transition.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from prefect_dask_core.engine.attempts import again, call_body, ends_the_run, outcome_of
from prefect_dask_core.engine.caching import to_cache
from prefect_dask_core.engine.effects import Call
from prefect_dask_core.engine.preparing import prepare, refuse
from prefect_dask_core.engine.stored_values import (
    begin_transaction,
    free_now,
    look_up,
    settled,
)
from prefect_dask_core.engine.task_run import Steps, TaskRun, logs_prints, variables_of
from prefect_dask_core.engine.transitions import call_hooks, enter
from prefect_dask_core.engine.unreadable import UnreadableItem
from prefect_dask_core.errors import InputError, MissingResult
from prefect_dask_core.hooks import hooks_at
from prefect_dask_core.results.keeping import give_back
from prefect_dask_core.states import Completed, Crashed, Failed, Pending, Running, State


def run_task(run: TaskRun) -> Steps:
    """Run one task to its final state.

    Yields
    ------
    Call or Wait
        Each `Call` is answered by `Returned`, `Raised` or `Overran`, each `Wait` by
        `None`.

    Returns
    -------
    State
        The final state, or a `Paused` or `Pending` one that ends this pass.
    """
    run.begin = run.begin or run.now()
    state: State = yield from _run(run)
    run.end = run.now()
    if state.timestamp is None:
        state = state.replace(timestamp=run.end)
    hooks = hooks_at(run.options, state, run.started)
    if hooks and not state.is_running():
        yield from call_hooks(run, hooks, state)
    return state


def _run(run: TaskRun) -> Steps:
    pending = Pending(timestamp=run.begin)
    refused = yield from refuse(run)
    if refused is not None:
        state, _ = yield from enter(run, pending, refused)
        return state
    if run.refusal is not None:
        failed = Failed(str(run.refusal), data=run.refusal)
        state, _ = yield from enter(run, pending, failed)
        return state
    try:
        inputs = run.given = run.inputs()
    except (InputError, MissingResult) as error:
        # That a worker cannot read it is nobody's body's fault.
        kind = Crashed if isinstance(error, UnreadableItem) else Failed
        state, _ = yield from enter(run, pending, kind(str(error), data=error))
        return state
    found = yield from prepare(run, inputs)
    if found is not None:
        state, _ = yield from enter(run, pending, found)
        return state
    if run.keeper is None:
        return (yield from _body(run, inputs, pending))
    found = yield from look_up(run, run.keeper, inputs)
    assert run.place is not None or found is not None
    if found is not None:
        state, _ = yield from enter(run, pending, found)
    else:
        try:
            state = yield from _body(run, inputs, pending)
        except BaseException:
            # Whoever drives this has given up, so nothing can be asked of it.
            free_now(run)
            raise
    if run.place is not None and run.place.holder is not None:
        yield Call(give_back, (run.keeper, run.place))
    return state


def _body(run: TaskRun, inputs: Mapping[str, Any], pending: State) -> Steps:
    """From Running to the final state."""
    state, stop = yield from enter(run, pending, Running(timestamp=run.now()))
    while not stop and state.is_running():
        transaction = begin_transaction(run)
        run.called = True
        answer = yield Call(
            call_body,
            (run.task, inputs),
            timeout=run.options.timeout_seconds,
            variables=variables_of(run, transaction),
            log_prints=logs_prints(run),
            isasync=run.task.isasync,
        )
        ended = yield from settled(run, transaction, outcome_of(run, answer))
        state, stop = yield from enter(run, state, ended)
        if stop or ends_the_run(answer):
            break
        state, stop = yield from again(run, state)
    if run.options.is_cached_in_memory and type(state) is Completed:
        cached = to_cache(
            run.options, state, inputs, run.variables.get("parameters", {}), run.now()
        )
        state, _ = yield from enter(run, state, cached)
    return state
