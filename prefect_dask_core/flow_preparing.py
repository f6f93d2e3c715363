"""Flow preparing: what comes before the function of a flow is called.

Arguments are resolved, validated and the run is named; its scope and the context of its
function are made.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, Final

from prefect_dask_core.calling import open_session, session_of
from prefect_dask_core.calls import SCOPE
from prefect_dask_core.context import current_tags
from prefect_dask_core.dates import date_variables
from prefect_dask_core.endings import told_error
from prefect_dask_core.engine.session import Session
from prefect_dask_core.errors import UpstreamTaskError
from prefect_dask_core.function_runs import FlowPlace, FunctionRun
from prefect_dask_core.futures import has_ended
from prefect_dask_core.ledger import Ledger
from prefect_dask_core.naming import format_run_name, template_variables
from prefect_dask_core.recording import LEDGER
from prefect_dask_core.resolving import Above, holds_future, resolve
from prefect_dask_core.results.keeping import KEEPING, flow_keeping
from prefect_dask_core.results.locks import LOCKED
from prefect_dask_core.results.places import KEPT_UNDER
from prefect_dask_core.runners.drive import Blocking
from prefect_dask_core.scopes import Scope
from prefect_dask_core.states import Failed, State, TriggerFailed

#: Context variables of the task around a flow, which its function does not see.
_HIDDEN: Final = (
    "task_name",
    "task_slug",
    "task_full_name",
    "task_run_name",
    "task_run_id",
    "task_inputs",
    "map_index",
    "_run",
)


def prepare(run: FunctionRun) -> Generator[Any, Any, State | None]:
    """Resolve, validate and name; a state if the function cannot run."""
    defaults = run.flow.body_signature.defaults
    run.parameters = {**defaults, **run.bound}
    run.name = run.options.name
    found = run.bound
    if holds_future([*run.bound.values(), run.wait_for]):
        found, above = yield Blocking(partial(resolve, run.bound, run.wait_for))
        run.parameters = {**defaults, **found}
        refused = _refused(run, above)
        if refused is not None:
            return refused
    try:
        run.parameters = {**defaults, **run.flow.validator(found)}
        run.name = _run_name(run)
    except Exception as error:
        return Failed(told_error(error), data=error)
    return None


def _refused(run: FunctionRun, above: list[Above]) -> State | None:
    for name, state, tolerant in above:
        if tolerant or state.is_successful():
            continue
        message = f"flow {run.options.name!r} did not run: {name} ended as {state!r}"
        error = UpstreamTaskError(message)
        if has_ended(state) and not state.is_paused():
            cause = state.result(raise_on_failure=False)
            error.__cause__ = cause if isinstance(cause, BaseException) else None
        return TriggerFailed(message, data=error)
    return None


def _run_name(run: FunctionRun) -> str:
    option = run.options.flow_run_name
    if option is None:
        return f"{run.options.name}-{run.id.hex[:6]}"
    now = datetime.now(timezone.utc)
    variables = {
        "flow_name": run.options.name,
        "flow_run_id": run.id.hex,
        "parameters": run.parameters,
        "date": now,
    }
    known = template_variables(variables, run.parameters)
    return format_run_name(option, known, "flow_run_name")


def open_scope(
    run: FunctionRun, ledger: Ledger | None, graph_id: str | None
) -> tuple[Scope, dict[str, Any]]:
    """The scope of a run, and the context variables of its function."""
    options, parent = run.options, run.parent
    root = parent.get("root_flow_run_id") or parent.get("flow_run_id") or run.id.hex
    inherited = parent.get("log_prints")
    keeping = flow_keeping(
        persist=options.persist_result,
        storage=options.result_storage,
        serializer=options.result_serializer,
        around=parent.get(KEEPING),
    )
    if run.resumed is not None:
        keeping = replace(keeping, places=run.resumed.places)
    variables = {
        "flow": None,
        "flow_name": options.name,
        "flow_id": options.name,
        "flow_version": options.version,
        "flow_run_id": run.id.hex,
        "flow_run_name": run.name,
        "parameters": run.parameters,
        "scheduled_start_time": datetime.fromtimestamp(run.begin, timezone.utc),
        "parent_flow_run_id": parent.get("flow_run_id"),
        "parent_task_run_id": parent.get("parent_task_run_id"),
        "root_flow_run_id": root,
        "log_prints": inherited if options.log_prints is None else options.log_prints,
        "tags": current_tags(),
        **date_variables(run.begin, {}),
        KEEPING: keeping,
        # Those of a flow around are not its own.
        KEPT_UNDER: None,
        LOCKED: parent.get(LOCKED) or {},
        # What runs in this process and says nothing is recorded there too.
        LEDGER: False if ledger is None else ledger,
    }
    runner = options.task_runner
    assert run.watch is not None
    scope = Scope(
        options.name,
        variables,
        run.id.hex,
        _opener(runner),
        view=run.watch.view,
        graph_id=graph_id,
    )
    body = {
        **variables,
        **dict.fromkeys(_HIDDEN),
        SCOPE: scope,
        "_flow_context": FlowPlace(run.flow, run, runner),
    }
    if runner is not None:
        body["_task_runner"] = runner
    return scope, body


def _opener(runner: Any) -> Callable[[str, Mapping[str, Any], str], Session]:
    return open_session if runner is None else partial(session_of, runner)
