"""Execution: from a flow and its parameters to a run, and to a Dask collection."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

from distributed import get_client

from prefect_dask_core.config import home_bytes
from prefect_dask_core.edges import Edge
from prefect_dask_core.engine.compile import FlowCollection, RunRecord
from prefect_dask_core.engine.fanout import mapped_length
from prefect_dask_core.engine.plan import Input, Plan, plan_flow
from prefect_dask_core.engine.summary import flow_state
from prefect_dask_core.errors import FlowParameterError, GraphError
from prefect_dask_core.parameters import NO_DEFAULT, Parameter
from prefect_dask_core.runners.base import FlowRun, TaskRunner
from prefect_dask_core.runners.dask import DaskTaskRunner
from prefect_dask_core.runners.shell import run_compiled
from prefect_dask_core.runners.threads import ThreadPoolTaskRunner
from prefect_dask_core.states import State
from prefect_dask_core.tasks import Task


class Graph(Protocol):
    """What is needed of a flow to run it."""

    name: str

    def sorted_tasks(self) -> tuple[Task, ...]:
        """Tasks in topological order."""

    def edges_to(self, task: Task) -> Iterable[Edge]:
        """Edges that end at a task."""

    def parameters(self) -> Iterable[Parameter]:
        """Parameters of the flow."""

    def reference_tasks(self) -> Iterable[Task]:
        """Tasks that decide the state of the flow."""

    @property
    def constants(self) -> Mapping[Task, Mapping[str, Any]]:
        """Constant arguments by task."""

    @property
    def slugs(self) -> Mapping[Task, str]:
        """Slugs by task."""


def run_flow(
    flow: Graph,
    given: Mapping[str, Any],
    task_runner: TaskRunner | None,
    return_tasks: Iterable[Task] | None,
    extra: Mapping[str, Any],
) -> State:
    """Run a flow; see `Flow.run`."""
    parameters = parameters_of(flow, given)
    plan = make_plan(flow)
    wanted = _wanted(flow, plan, return_tasks)
    run_id = uuid.uuid4().hex
    variables = _variables(flow, run_id, parameters, extra)
    runner = task_runner if task_runner is not None else default_runner()
    states = runner.run(FlowRun(plan, variables, wanted, run_id))
    return flow_state(plan, states)


def compile_flow(
    flow: Graph, given: Mapping[str, Any], extra: Mapping[str, Any]
) -> FlowCollection:
    """Compile a flow; see `Flow.compile`."""
    parameters = parameters_of(flow, given)
    run_id = uuid.uuid4().hex
    variables = _variables(flow, run_id, parameters, extra)
    record = RunRecord(run_id, variables, "", home_bytes())
    return FlowCollection(make_plan(flow), record, run_compiled)


def make_plan(flow: Graph) -> Plan:
    """Plan of a flow.

    Raises
    ------
    CycleError
        If the edges form a cycle.
    MappingLengthMismatch, MappingMissingIterable
        If constants that a task is mapped over cannot be.
    """
    ordered = flow.sorted_tasks()
    plan = plan_flow(
        flow.name,
        ordered,
        {task: flow.edges_to(task) for task in ordered},
        flow.constants,
        flow.slugs,
        flow.reference_tasks(),
    )
    for node in plan.nodes:
        # Lengths that only the run will tell are left to the run.
        if node.mapped and all(i.node is None for i in node.inputs if i.mapped):
            found = mapped_length(node, _never)
            if isinstance(found, Exception):
                raise found
    return plan


def _never(item: Input) -> int | Exception | None:
    raise LookupError(f"{item} is not a constant")


def parameters_of(flow: Graph, given: Mapping[str, Any]) -> dict[str, Any]:
    """Values of the parameters of a run, defaults included.

    Raises
    ------
    FlowParameterError
        If an unknown parameter was given or a required one was not.
    """
    declared = {parameter.name: parameter for parameter in flow.parameters()}
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
        name: parameter.default
        for name, parameter in declared.items()
        if parameter.default is not NO_DEFAULT
    }
    return {**defaults, **given}


def default_runner() -> TaskRunner:
    """Runner where none is named: the current Dask client, else threads."""
    try:
        client = get_client()
    except ValueError:
        return ThreadPoolTaskRunner()
    return DaskTaskRunner(cluster=client)


def _wanted(
    flow: Graph, plan: Plan, return_tasks: Iterable[Task] | None
) -> frozenset[int]:
    """Nodes whose values come home: the last ones, the reference ones, the named."""
    wanted = set(plan.terminal | plan.reference)
    number = {node.task: node.index for node in plan.nodes}
    for task in return_tasks or ():
        if task not in number:
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
    return {
        "flow": None,
        "flow_name": flow.name,
        "flow_run_id": run_id,
        "parameters": parameters,
        "scheduled_start_time": time.time(),
        **extra,
    }
