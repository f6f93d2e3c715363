"""Flow runs: the order of the steps of one run of a function flow.

arguments resolved → validated → named → Running, with its hooks → the function under
its limit → what it returned, as a state → retry decision → wait → again → everything
that was submitted is final → final state, with its hooks.
"""

from __future__ import annotations

import time
import uuid
from functools import partial

from prefect_dask_core.calling import inherited_variables, runner_here
from prefect_dask_core.calls import SCOPE, nested_run_id
from prefect_dask_core.context import context
from prefect_dask_core.endings import told_error
from prefect_dask_core.engine.views import RunInfo
from prefect_dask_core.flow_attempts import attempt, keep, state_of_error
from prefect_dask_core.flow_closing import close, tell_of_failure
from prefect_dask_core.flow_preparing import open_scope, prepare
from prefect_dask_core.function_runs import FunctionRun
from prefect_dask_core.ledger import Ledger
from prefect_dask_core.monitor.watched_run import WatchedRun
from prefect_dask_core.monitor.watchers import makers_of
from prefect_dask_core.monitor.watching import Watch
from prefect_dask_core.recording import LEDGER, RunFacts, ledger_of, recorder_of
from prefect_dask_core.returns import RunStates
from prefect_dask_core.runners.drive import Blocking, Steps
from prefect_dask_core.scopes import Scope
from prefect_dask_core.states import Pending, State


def run_function(run: FunctionRun) -> Steps[State]:
    """Run a flow to its final state.

    Returns
    -------
    State
        With the states of its runs as ``state.states``, by name.
    """
    around = context.get(SCOPE)
    if not isinstance(around, Scope):
        return (yield from _run(run))
    # A flow in a flow is one of its runs.
    name = around.begin_flow(run.options.name)
    try:
        return (yield from _run(run))
    finally:
        around.flow_ended(name, run.state)


def _run(run: FunctionRun) -> Steps[State]:
    run.begin = time.time()
    run.parent = inherited_variables()
    graph_id = _identify(run)
    ledger = _ledger_of(run)
    run.enter(Pending())
    refused = yield from prepare(run)
    run.watch = watch = _watch(run, ledger)
    watch.begin()
    if refused is not None:
        state = run.enter(refused.replace(states=RunStates({}, (), watch.view)))
        yield Blocking(partial(watch.ended, state))
        watch.close()
        return state
    run.scope, body = open_scope(run, ledger, graph_id)
    try:
        try:
            state = yield from attempt(run, body)
            state = yield from keep(run, body, state)
            run.scope.outcome = state
            yield Blocking(run.scope.close)  # it may be that of a further attempt
        except GeneratorExit:  # nobody is left who would carry out a step
            run.scope.cancel("the flow was left before its end.")
            raise
        except BaseException as error:  # a person at the keyboard
            run.scope.cancel(told_error(error))
            state = run.enter(state_of_error(error))
            try:
                yield from close(run, body, state)
            finally:
                tell_of_failure(run, state, ledger is not None)
            raise
        state = yield from close(run, body, state)
        tell_of_failure(run, state, ledger is not None)
        return state
    finally:
        watch.close()


def _identify(run: FunctionRun) -> str | None:
    """Give the run its id; gives another one for its keys where it had begun before."""
    if run.resumed is not None:
        run.id = uuid.UUID(run.resumed.run_id)
        return uuid.uuid4().hex
    nested = nested_run_id(run.options.name)
    if nested is None:
        return None
    run.id = uuid.UUID(nested)
    return uuid.uuid4().hex


def _ledger_of(run: FunctionRun) -> Ledger | None:
    asked = run.options.ledger if run.ledger is None else run.ledger
    if asked is None:
        asked = run.parent.get(LEDGER)
    return ledger_of(run.options.name, asked)


def _watch(run: FunctionRun, ledger: Ledger | None) -> Watch:
    """What follows a run."""
    info = RunInfo(
        run_id=run.id.hex,
        flow_name=run.options.name,
        run_name=run.name,
        begin=run.begin,
        parameters=run.parameters,
        parent_run_id=run.parent.get("flow_run_id"),
        parent_task_run_id=_hex(run.parent.get("parent_task_run_id")),
    )
    view = WatchedRun(info)
    makers = makers_of(run.options.progress)
    if ledger is not None:
        options = run.options
        root = run.parent.get("root_flow_run_id")
        runner = runner_here() if options.task_runner is None else options.task_runner
        tags = frozenset(run.parent.get("tags") or ())
        facts = RunFacts("function", run.flow, runner, options.version, root, tags)
        after = None if run.resumed is None else run.resumed.after
        makers.append(recorder_of(ledger, view, facts, after))
    return Watch(view, makers)


def _hex(given: uuid.UUID | None) -> str | None:
    return None if given is None else given.hex
