"""Execution: from a flow and its parameters to a run, and to a Dask collection."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, Final

from prefect_dask_core.cached_values import known_to, remember
from prefect_dask_core.calls import nested_run_id
from prefect_dask_core.config import home_bytes
from prefect_dask_core.context import context
from prefect_dask_core.dates import date_variables
from prefect_dask_core.endings import is_over, way_on
from prefect_dask_core.engine.caching import within
from prefect_dask_core.engine.compile import FlowCollection, RunRecord
from prefect_dask_core.engine.plan import Plan
from prefect_dask_core.engine.summary import (
    TaskStates,
    failed_by_itself,
    flow_state,
    labels_of,
)
from prefect_dask_core.engine.upstream import with_causes
from prefect_dask_core.engine.views import RunInfo, SegmentLook
from prefect_dask_core.flow_handlers import entered, handled_state
from prefect_dask_core.ledger import Ledger
from prefect_dask_core.made_of import MadeOf, made_of_nodes
from prefect_dask_core.monitor.watched_run import WatchedRun
from prefect_dask_core.monitor.watchers import makers_of
from prefect_dask_core.monitor.watching import Watch
from prefect_dask_core.planning import (
    Graph,
    make_plan,
    parameters_of,
    refuse_names,
    require_inputs,
    wanted_nodes,
    with_contexts,
)
from prefect_dask_core.recording import (
    LEDGER,
    Asked,
    RunFacts,
    ledger_of,
    recorder_of,
)
from prefect_dask_core.results.keeping import KEEPING, Keeper, flow_keeping
from prefect_dask_core.results.locks import LOCKED
from prefect_dask_core.resuming import resume_plan
from prefect_dask_core.resumptions import find_run
from prefect_dask_core.run_ids import current_id
from prefect_dask_core.runners.base import FlowRun, TaskRunner
from prefect_dask_core.runners.default import default_runner
from prefect_dask_core.runners.shell import run_compiled
from prefect_dask_core.standing import (
    changed_parameters,
    states_to_resume,
    two_that_stand,
    what_stands,
)
from prefect_dask_core.states import Pending, Running, State
from prefect_dask_core.tasks import Task


@dataclass(frozen=True, slots=True)
class RunOptions:
    """How a flow is to be run; see `Flow.run`."""

    parameters: Mapping[str, Any]
    task_runner: TaskRunner | None = None
    return_tasks: Task | Iterable[Task] | None = None
    context: Mapping[str, Any] | None = None
    resume: State | str | uuid.UUID | None = None
    task_states: Mapping[Task, State] | None = None
    run_name: str | None = None
    task_contexts: Mapping[Task, Mapping[str, Any]] | None = None
    progress: bool | None = None
    ledger: Asked = None


def run_flow(flow: Graph, options: RunOptions) -> State:
    """Run a flow; see `Flow.run`."""
    around = context.get(LEDGER) if options.ledger is None else options.ledger
    ledger = ledger_of(flow.name, around)
    if isinstance(options.resume, str | uuid.UUID):
        return _run_again(flow, options, ledger, options.resume)
    before = states_to_resume(flow, options.resume)
    given = options.parameters
    if before is not None:
        given = {**before.parameters, **given}
    parameters = parameters_of(flow, given)
    plan = _plan_of(flow, options)
    nested = nested_run_id(flow.name)
    run_id = nested or uuid.uuid4().hex
    variables = _variables_of(flow, plan, run_id, parameters, options, None)
    earlier = what_stands(plan, before, parameters, options.task_states)
    # What an earlier attempt has left on the scheduler must not be taken for this one.
    graph_id = uuid.uuid4().hex if nested else run_id
    flow_run = FlowRun(
        plan,
        variables,
        wanted_nodes(flow, plan, options.return_tasks),
        earlier,
        graph_id,
    )
    return _watched(flow, options, flow_run, before, ledger)


def _run_again(
    flow: Graph, options: RunOptions, ledger: Ledger | None, asked: str | uuid.UUID
) -> State:
    """Let a run go on under its own id."""
    if options.task_states is not None:
        raise two_that_stand(flow.name)
    found = find_run(ledger, flow.name, "graph", asked)
    declared = {parameter.name for parameter in flow.parameters()}
    given = found.parameters(options.parameters, declared)
    found.tell_if_unknown(flow.name, given, declared)
    parameters = parameters_of(flow, given)
    plan = _plan_of(flow, options)
    variables = _variables_of(flow, plan, found.run_id, parameters, options, found.name)
    variables[KEEPING] = replace(variables[KEEPING], places=found.places)
    known = found.first is not None
    before = found.before()
    changed = changed_parameters(plan, before, parameters) if known else frozenset()
    keepers = _keepers(plan, variables)
    made_of = made_of_nodes(plan, keepers, parameters)
    now = time.time()
    plan, earlier, anew = resume_plan(found, plan, keepers, made_of, changed, now)
    made_of |= {n: replace(made_of[n], anew=what) for n, what in anew.items()}
    wanted = wanted_nodes(flow, plan, options.return_tasks)
    flow_run = FlowRun(plan, variables, wanted, earlier)
    return _watched(flow, options, flow_run, None, ledger, found.after, made_of)


def _keepers(plan: Plan, variables: Mapping[str, Any]) -> dict[int, Keeper]:
    """How the values of nodes are kept, of those that are."""
    return {
        node.index: keeper
        for node in plan.nodes
        if (keeper := within(node.task, variables[KEEPING]).keeper) is not None
    }


def _plan_of(flow: Graph, options: RunOptions) -> Plan:
    plan = with_contexts(make_plan(flow), options.task_contexts)
    require_inputs(plan, options.task_states or {})
    return plan


def _variables_of(
    flow: Graph,
    plan: Plan,
    run_id: str,
    parameters: Mapping[str, Any],
    options: RunOptions,
    name: str | None,
) -> dict[str, Any]:
    """Context variables of a run."""
    extra = dict(() if options.context is None else options.context)
    name = name if options.run_name is None else options.run_name
    if name is not None:
        extra["flow_run_name"] = name
    variables = _variables(flow, run_id, parameters, extra)
    variables["caches"] = known_to(node.task.options for node in plan.nodes)
    return variables


def _watched(
    flow: Graph,
    options: RunOptions,
    flow_run: FlowRun,
    before: TaskStates | None,
    ledger: Ledger | None,
    after: int | None = None,
    made_of: Mapping[int, MadeOf] | None = None,
) -> State:
    """Run, and let watchers see it, the ledger among them."""
    view = WatchedRun(_info(flow, flow_run.variables))
    flow_run = replace(flow_run, view=view)
    runner = options.task_runner
    if runner is None:
        runner = default_runner()
    makers = makers_of(options.progress)
    if ledger is not None:
        root = context.get("root_flow_run_id")
        tell = partial(_made_of_slugs, flow_run, made_of)
        facts = RunFacts("graph", flow, runner, flow.version, root, frozenset(), tell)
        makers.append(recorder_of(ledger, view, facts, after))
    further = way_on(view.info, 'resume="{}"', ledger is not None, _stores(flow_run))
    try:
        with Watch(view, makers) as watch:
            state = _run_with_handlers(flow, runner, flow_run, before)
            watch.ended(state)
    except Exception:  # a mistake, which says itself what to do
        raise
    except BaseException as error:  # a person at the keyboard
        if further:
            told = type(error).__name__
            _LOGGER.warning("flow %r: stopped by %s%s", flow.name, told, further)
        raise
    # After all that watchers have to say: who looks for what to do looks there.
    if further and is_over(state):
        _LOGGER.warning("flow %r: %r%s", flow.name, state, further)
    return state


def _made_of_slugs(
    flow_run: FlowRun, made_of: Mapping[int, MadeOf] | None
) -> dict[str, str]:
    """What the nodes of a run are made of, as the ledger has it."""
    plan, variables = flow_run.plan, flow_run.variables
    if made_of is None:
        keepers = _keepers(plan, variables)
        made_of = made_of_nodes(plan, keepers, variables["parameters"])
    return {plan.nodes[n].slug: found.encode() for n, found in made_of.items()}


def _stores(flow_run: FlowRun) -> bool:
    """Whether any task of a run keeps its values in a store."""
    keeping = flow_run.variables[KEEPING]
    return any(
        (keeper := within(node.task, keeping).keeper) is not None and keeper.writes
        for node in flow_run.plan.nodes
    )


def _info(flow: Graph, variables: Mapping[str, Any]) -> RunInfo:
    """What is known of a run from its begin, with the run around it."""
    around = {key: context.get(key) for key in context}
    task_run = current_id(around) or around.get("parent_task_run_id")
    return RunInfo(
        run_id=variables["flow_run_id"],
        flow_name=flow.name,
        run_name=variables["flow_run_name"],
        begin=time.time(),
        parameters=variables["parameters"],
        parent_run_id=around.get("flow_run_id"),
        parent_task_run_id=None if task_run is None else task_run.hex,
    )


_LOGGER: Final = logging.getLogger(__name__)


def _log_failures(flow_name: str, plan: Plan, states: Sequence[State]) -> None:
    """One warning for each task that did not succeed: nobody may look at its state."""
    for name, state in zip(labels_of(plan), states, strict=True):
        # What a trigger refused tells of others, which are logged.
        found = failed_by_itself(name, state)
        if found is not None:
            run, failed, others = found
            more = f" (and {others} more of its children)" if others else ""
            _LOGGER.warning("flow %r, task %r: %r%s", flow_name, run, failed, more)


def _run_with_handlers(
    flow: Graph, runner: TaskRunner, flow_run: FlowRun, before: TaskStates | None
) -> State:
    """Run, and put each change of the flow's state before its handlers."""
    plan = flow_run.plan
    parameters = flow_run.variables["parameters"]
    pending = Pending(timestamp=time.time())
    begun = entered(flow, pending, Running(timestamp=time.time()))
    if not begun.is_running():
        # What stood before this run still stands, for the next one to resume.
        if before is not None:
            return begun.replace(states=before)
        idle: list[State] = [Pending() for _ in plan.nodes]
        return begun.replace(states=TaskStates(plan, idle, parameters, flow_run.view))
    states = with_causes(plan, runner.run(flow_run))
    view = flow_run.view
    if view is not None and not view.has_look:
        # A runner of the user's; what it does meanwhile is not seen.
        view.add_look(SegmentLook.of_states(plan.nodes, states))
    remember(zip((node.task.options for node in plan.nodes), states, strict=True))
    _log_failures(flow.name, plan, states)
    ended = flow_state(plan, states, parameters, flow_run.view)
    ended = ended.replace(timestamp=time.time())
    if flow.terminal_state_handler is not None and ended.is_final():
        reference = [states[index] for index in sorted(plan.reference)]
        handler = partial(flow.terminal_state_handler, flow, ended, reference)
        ended, stop = handled_state(ended, handler, "terminal_state_handler")
        if stop:
            return ended
    return entered(flow, begun, ended)


def compile_flow(
    flow: Graph, given: Mapping[str, Any], extra: Mapping[str, Any]
) -> FlowCollection:
    """Compile a flow; see `Flow.compile`."""
    parameters = parameters_of(flow, given)
    run_id = uuid.uuid4().hex
    variables = _variables(flow, run_id, parameters, extra)
    record = RunRecord(run_id, variables, "", home_bytes())
    plan = make_plan(flow)
    require_inputs(plan, {})
    return FlowCollection(plan, record, run_compiled)


def _variables(
    flow: Graph, run_id: str, parameters: Mapping[str, Any], extra: Mapping[str, Any]
) -> dict[str, Any]:
    refuse_names(extra, f"context of flow {flow.name!r}")
    now = time.time()
    return {
        "flow": None,
        "flow_name": flow.name,
        "flow_id": flow.name,
        "flow_run_id": run_id,
        "flow_run_name": run_id,
        "parameters": parameters,
        "scheduled_start_time": datetime.fromtimestamp(now, timezone.utc),
        **extra,
        **date_variables(now, extra),
        KEEPING: flow_keeping(flow.result),
        LOCKED: context.get(LOCKED) or {},
    }
