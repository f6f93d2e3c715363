"""Execution: from a flow and its parameters to a run, and to a Dask collection."""

from __future__ import annotations

import logging
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from typing import Any, Final, Protocol

from dask.base import tokenize

from prefect_dask_core.cached_values import known_to, remember
from prefect_dask_core.calls import nested_run_id
from prefect_dask_core.config import home_bytes
from prefect_dask_core.context import context, mistaken_name
from prefect_dask_core.dates import date_variables
from prefect_dask_core.edges import Edge
from prefect_dask_core.endings import is_over, way_on
from prefect_dask_core.engine.caching import prepared, within
from prefect_dask_core.engine.compile import FlowCollection, RunRecord
from prefect_dask_core.engine.fanout import mapped_length
from prefect_dask_core.engine.plan import Input, Node, Plan, plan_flow
from prefect_dask_core.engine.resume import Earlier, given_states, resume_after
from prefect_dask_core.engine.sharing import shared_by_children
from prefect_dask_core.engine.summary import (
    TaskStates,
    failures_of,
    flow_state,
    labels_of,
)
from prefect_dask_core.engine.upstream import with_causes
from prefect_dask_core.engine.views import RunInfo, SegmentLook
from prefect_dask_core.errors import (
    FlowParameterError,
    GraphError,
    OptionTypeError,
    OptionValueError,
    ParameterBindError,
)
from prefect_dask_core.lazy import refuse_lazy
from prefect_dask_core.ledger import Ledger
from prefect_dask_core.made_of import MadeOf, made_of_nodes
from prefect_dask_core.monitor.watched_run import WatchedRun
from prefect_dask_core.monitor.watchers import makers_of
from prefect_dask_core.monitor.watching import Watch
from prefect_dask_core.parameters import Parameter
from prefect_dask_core.recording import (
    LEDGER,
    Asked,
    RunFacts,
    ledger_of,
    recorder_of,
)
from prefect_dask_core.results.keeping import KEEPING, Keeper, flow_keeping
from prefect_dask_core.results.result import Result
from prefect_dask_core.resuming import find_run, resume_plan
from prefect_dask_core.run_ids import current_id
from prefect_dask_core.runners._private import client_here
from prefect_dask_core.runners.base import FlowRun, TaskRunner
from prefect_dask_core.runners.dask import DaskTaskRunner
from prefect_dask_core.runners.shell import run_compiled
from prefect_dask_core.runners.threads import ThreadPoolTaskRunner
from prefect_dask_core.signals import ENDRUN, PAUSE, PrefectStateSignal
from prefect_dask_core.states import Failed, Pending, Running, State, TriggerFailed
from prefect_dask_core.tasks import Task
from prefect_dask_core.unused import level_of_user


class Graph(Protocol):
    """What is needed of a flow to run it."""

    name: str
    version: str | None

    def sorted_tasks(self) -> tuple[Task, ...]:
        """Tasks in topological order."""

    def edges_to(self, task: Task) -> Iterable[Edge]:
        """Edges that end at a task."""

    def parameters(self) -> Iterable[Parameter]:
        """Parameters of the flow."""

    def reference_tasks(self) -> Iterable[Task]:
        """Tasks that decide the state of the flow."""

    @property
    def state_handlers(self) -> Iterable[Callable[..., State | None]]:
        """Called with flow, old and new state."""

    @property
    def terminal_state_handler(self) -> Callable[..., State | None] | None:
        """Called with flow, final state and the reference tasks' states."""

    @property
    def result(self) -> Result | None:
        """Where tasks without a result of their own keep their values."""

    @property
    def constants(self) -> Mapping[Task, Mapping[str, Any]]:
        """Constant arguments by task."""

    @property
    def slugs(self) -> Mapping[Task, str]:
        """Slugs by task."""


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
    before = _states_of(flow, options.resume)
    given = options.parameters
    if before is not None:
        given = {**before.parameters, **given}
    parameters = parameters_of(flow, given)
    plan = _plan_of(flow, options)
    nested = nested_run_id(flow.name)
    run_id = nested or uuid.uuid4().hex
    variables = _variables_of(flow, plan, run_id, parameters, options, None)
    earlier = _earlier(plan, before, parameters, options)
    # What an earlier attempt has left on the scheduler must not be taken for this one.
    graph_id = uuid.uuid4().hex if nested else run_id
    flow_run = FlowRun(
        plan, variables, _wanted(flow, plan, options.return_tasks), earlier, graph_id
    )
    return _watched(flow, options, flow_run, before, ledger)


def _run_again(
    flow: Graph, options: RunOptions, ledger: Ledger | None, asked: str | uuid.UUID
) -> State:
    """Let a run go on under its own id."""
    if options.task_states is not None:
        raise _two_that_stand(flow.name)
    found = find_run(ledger, flow.name, "graph", asked)
    declared = {parameter.name for parameter in flow.parameters()}
    given = found.parameters(options.parameters, declared)
    found.tell_if_unknown(flow.name, given, declared)
    parameters = parameters_of(flow, given)
    plan = _plan_of(flow, options)
    variables = _variables_of(flow, plan, found.run_id, parameters, options, found.name)
    variables[KEEPING] = replace(variables[KEEPING], places=found.places)
    before = found.before()
    changed = frozenset(
        node.index
        for node in plan.nodes
        if isinstance(node.task, Parameter)
        and found.first is not None
        and not _same(before, parameters, node.task.name)
    )
    keepers = _keepers(plan, variables)
    made_of = made_of_nodes(plan, keepers, parameters)
    now = time.time()
    plan, earlier, anew = resume_plan(found, plan, keepers, made_of, changed, now)
    made_of |= {n: replace(made_of[n], anew=what) for n, what in anew.items()}
    wanted = _wanted(flow, plan, options.return_tasks)
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
    plan = _with_contexts(make_plan(flow), options.task_contexts)
    _require_inputs(plan, options.task_states or {})
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
    with Watch(view, makers) as watch:
        state = _run_with_handlers(flow, runner, flow_run, before)
        watch.ended(state)
    # After all that watchers have to say: who looks for what to do looks there.
    further = way_on(view.info, 'resume="{}"', ledger is not None, _stores(flow_run))
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
        bad = [
            (run, failed)
            for run, failed in failures_of(name, state)
            if not isinstance(failed, TriggerFailed)  # what it tells of is logged
        ]
        if bad:
            more = f" (and {len(bad) - 1} more of its children)" if bad[1:] else ""
            _LOGGER.warning("flow %r, task %r: %r%s", flow_name, *bad[0], more)


def _refuse_names(variables: Mapping[str, Any], where: str) -> None:
    """Refuse context variables that no body could read, before anything runs."""
    wrong = mistaken_name(variables)
    if wrong is not None:
        raise OptionValueError(f"{where}: {wrong}")


def _with_contexts(plan: Plan, given: Mapping[Task, Mapping[str, Any]] | None) -> Plan:
    """The plan, with context variables of single tasks."""
    if not given:
        return plan
    number = {node.task: node.index for node in plan.nodes}
    nodes = list(plan.nodes)
    for task, variables in given.items():
        if task not in number:
            raise GraphError(
                f"task_contexts names {task!r}, which is not a task of flow "
                f"{plan.flow_name!r}."
            )
        if not isinstance(variables, Mapping):
            raise OptionTypeError(
                f"task_contexts gives {variables!r} for {task!r}, but expected a "
                "mapping of the names of variables to their values."
            )
        _refuse_names(variables, f"task_contexts for {task!r}")
        index = number[task]
        nodes[index] = replace(nodes[index], variables=dict(variables))
    return replace(plan, nodes=tuple(nodes))


def _run_with_handlers(
    flow: Graph, runner: TaskRunner, flow_run: FlowRun, before: TaskStates | None
) -> State:
    """Run, and put each change of the flow's state before its handlers."""
    plan = flow_run.plan
    parameters = flow_run.variables["parameters"]
    pending = Pending(timestamp=time.time())
    begun = _entered(flow, pending, Running(timestamp=time.time()))
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
        ended, stop = _handled(ended, handler, "terminal_state_handler")
        if stop:
            return ended
    return _entered(flow, begun, ended)


def _entered(flow: Graph, old: State, new: State) -> State:
    """The new state of a flow run, or what its handlers put in its place.

    Notes
    -----
    Source of the rules: state handlers of the graph generations, as for tasks.
    """
    for handler in flow.state_handlers:
        name = getattr(handler, "__name__", type(handler).__name__)
        new, stop = _handled(
            new, partial(handler, flow, old, new), f"state handler {name}"
        )
        if stop:
            break
    return new


def _handled(
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


def _states_of(flow: Graph, resume: object) -> TaskStates | None:
    """States of the tasks of the run to resume."""
    if resume is None:
        return None
    states = getattr(resume, "states", None)
    if not isinstance(states, TaskStates):
        raise GraphError(
            f"flow {flow.name!r} cannot resume {resume!r}; give the state that an "
            "earlier flow.run(...) of this flow returned, or the id of a run."
        )
    tasks = flow.sorted_tasks()
    if tasks and not any(task in states for task in tasks):
        theirs = ", ".join(repr(task.name) for task in [*states][:3])
        raise GraphError(
            f"flow {flow.name!r} cannot resume the run of another flow, and that is "
            f"what the state is of: the flows have no task in common (its tasks: "
            f"{theirs or 'none'}). Give the state that an earlier run of this very "
            "Flow object returned, or of a pickled copy of it."
        )
    return states


def _earlier(
    plan: Plan,
    before: TaskStates | None,
    parameters: Mapping[str, Any],
    options: RunOptions,
) -> Earlier:
    """What of an earlier run stands."""
    if before is not None:
        if options.task_states is not None:
            raise _two_that_stand(plan.flow_name)
        states = {n.index: before[n.task] for n in plan.nodes if n.task in before}
        changed = frozenset(
            node.index
            for node in plan.nodes
            if isinstance(node.task, Parameter)
            and not _same(before.parameters, parameters, node.task.name)
        )
        return resume_after(plan, states, dict.fromkeys(changed))
    given = {} if options.task_states is None else options.task_states
    number = {node.task: node.index for node in plan.nodes}
    for task, state in given.items():
        if not isinstance(state, State):
            raise OptionTypeError(
                f"task_states gives {state!r} for {task!r}, but expected a State."
            )
        if task not in number:
            raise GraphError(
                f"task_states names {task!r}, which is not a task of flow "
                f"{plan.flow_name!r}."
            )
    return given_states(plan, {number[task]: state for task, state in given.items()})


def _two_that_stand(flow: str) -> OptionTypeError:
    return OptionTypeError(
        f"flow {flow!r} was given resume= and task_states=, which both say what does "
        "not run; give one of them."
    )


def _same(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    if name not in before or name not in now:
        return (name in before) == (name in now)
    return before[name] is now[name] or bool(
        tokenize(before[name]) == tokenize(now[name])
    )


def compile_flow(
    flow: Graph, given: Mapping[str, Any], extra: Mapping[str, Any]
) -> FlowCollection:
    """Compile a flow; see `Flow.compile`."""
    parameters = parameters_of(flow, given)
    run_id = uuid.uuid4().hex
    variables = _variables(flow, run_id, parameters, extra)
    record = RunRecord(run_id, variables, "", home_bytes())
    plan = make_plan(flow)
    _require_inputs(plan, {})
    return FlowCollection(plan, record, run_compiled)


def _require_inputs(plan: Plan, given: Mapping[Task, State]) -> None:
    """Raise if a body lacks an argument: most likely a call was forgotten.

    Parameters
    ----------
    plan : Plan
        The plan.
    given : mapping of Task to State
        Tasks that do not run.
    """
    for node in plan.nodes:
        bound = {item.key for item in node.inputs if item.key is not None}
        # Most have all that their body takes, and its defaults need no look then.
        if node.constant or bound >= node.task.body_signature.names:
            continue
        missing = sorted(node.task.body_signature.required - bound)
        if not missing or node.task in given:
            continue
        advice = f"bind it, for example {node.name}({missing[0]}=...)"
        if not bound:
            advice = (
                "no call in this flow gives it any. Calling a task inside the flow's "
                "block binds a copy: use what the call returned, not the task itself, "
                "nor what a call in another flow returned"
            )
        raise ParameterBindError(
            f"task {node.slug!r} of flow {plan.flow_name!r} has no value for its "
            f"parameter {missing[0]!r}: {advice}."
        )


def make_plan(flow: Graph) -> Plan:
    """Plan of a flow.

    Raises
    ------
    CycleError
        If the edges form a cycle.
    MappingLengthMismatch, MappingMissingIterable
        If constants that a task is mapped over cannot be.
    OptionValueError
        If a task cannot have the result of the flow.
    """
    ordered = flow.sorted_tasks()
    keeping = flow_keeping(flow.result)
    # Most flows say nothing, and then most tasks need no look.
    said = keeping if keeping.result is not None or keeping.persist else None
    plan = plan_flow(
        flow.name,
        ordered,
        {task: flow.edges_to(task) for task in ordered},
        flow.constants,
        flow.slugs,
        flow.reference_tasks(),
    )
    for node in plan.nodes:
        keeper = prepared(node.task, said).keeper  # raises if it cannot have it
        # Lengths that only the run will tell are left to the run.
        if node.mapped and all(i.node is None for i in node.inputs if i.mapped):
            found = mapped_length(node, _never, _never_skipped)
            if isinstance(found, Exception):
                raise found
        if node.mapped:
            _warn_of_sharing(node, keeper)
    return plan


def _warn_of_sharing(node: Node, keeper: Keeper | None) -> None:
    """Warn if all children of a mapped node would take one another's values."""
    mapped = {item.key for item in node.inputs if item.mapped and item.key is not None}
    for text in shared_by_children(node.task.options, keeper, mapped):
        told = f"task {node.slug!r} is mapped {text}."
        warnings.warn(told, UserWarning, stacklevel=level_of_user())


def _never_skipped(item: Input) -> str | None:
    """Whether an input was skipped is not known before a run."""
    return None


def _never(item: Input) -> int | Exception | None:
    raise LookupError(f"{item} is not a constant")


def parameters_of(flow: Graph, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the parameters of a run, defaults included.

    Raises
    ------
    FlowParameterError
        If an unknown parameter was given or a required one was not.
    OptionTypeError
        If a value is, or holds, what Dask has yet to compute.
    """
    found = sorted(flow.parameters(), key=lambda parameter: parameter.name)
    declared = {parameter.name: parameter for parameter in found}
    known = ", ".join(sorted(declared)) or "none"
    unknown = sorted(set(given) - set(declared))
    if unknown:
        raise FlowParameterError(
            f"flow {flow.name!r} has no parameter {unknown[0]!r}; its parameters are: "
            f"{known}."
        )
    missing = sorted(
        name
        for name, parameter in declared.items()
        if parameter.required and name not in given
    )
    if missing:
        raise FlowParameterError(
            f"flow {flow.name!r} needs the parameter {missing[0]!r}; run it with "
            f"parameters={{{missing[0]!r}: ...}}."
        )
    defaults = {
        name: parameter.value_unless_given
        for name, parameter in declared.items()
        if not parameter.required
    }
    values = {**defaults, **given}
    for name, value in values.items():
        refuse_lazy(value, f"was given as parameter {name!r} of flow {flow.name!r}")
    return values


def default_runner() -> TaskRunner:
    """Runner where none is named: the current Dask client, else threads."""
    try:
        client = client_here()
    except ValueError:
        return ThreadPoolTaskRunner()
    return DaskTaskRunner(cluster=client)


def _wanted(
    flow: Graph, plan: Plan, return_tasks: Task | Iterable[Task] | None
) -> frozenset[int]:
    """Nodes whose values come home: the last ones, the reference ones, the named."""
    wanted = set(plan.terminal | plan.reference)
    number = {node.task: node.index for node in plan.nodes}
    # What is cached is kept by this process for its later runs.
    wanted |= {n.index for n in plan.nodes if n.task.options.is_cached_in_memory}
    # A task is iterable: its outputs are.
    named = (return_tasks,) if isinstance(return_tasks, Task) else return_tasks
    for task in named or ():
        if not isinstance(task, Task) or task not in number:
            raise GraphError(
                f"return_tasks names {task!r}, which is not a task of flow "
                f"{flow.name!r}; a call inside the flow's block returns the task that "
                "was added, which is a copy."
            )
        wanted.add(number[task])
    return frozenset(wanted)


def _variables(
    flow: Graph, run_id: str, parameters: Mapping[str, Any], extra: Mapping[str, Any]
) -> dict[str, Any]:
    _refuse_names(extra, f"context of flow {flow.name!r}")
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
    }
