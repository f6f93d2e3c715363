"""Planning: from a flow, as people wrote it, to the frozen plan of its nodes."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any, Protocol

from prefect_dask_core.context import mistaken_name
from prefect_dask_core.edges import Edge
from prefect_dask_core.engine.caching import prepared
from prefect_dask_core.engine.fanout import mapped_length
from prefect_dask_core.engine.plan import Input, Node, Plan, plan_flow
from prefect_dask_core.engine.sharing import shared_by_children
from prefect_dask_core.errors import (
    FlowParameterError,
    GraphError,
    OptionTypeError,
    OptionValueError,
    ParameterBindError,
)
from prefect_dask_core.lazy import refuse_lazy
from prefect_dask_core.parameters import Parameter
from prefect_dask_core.results.keeping import Keeper, flow_keeping
from prefect_dask_core.results.result import Result
from prefect_dask_core.states import State
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


def _never(item: Input) -> int | Exception | None:
    raise LookupError(f"{item} is not a constant")


def _never_skipped(item: Input) -> str | None:
    """Whether an input was skipped is not known before a run."""
    return None


def require_inputs(plan: Plan, given: Mapping[Task, State]) -> None:
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


def with_contexts(plan: Plan, given: Mapping[Task, Mapping[str, Any]] | None) -> Plan:
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
        refuse_names(variables, f"task_contexts for {task!r}")
        index = number[task]
        nodes[index] = replace(nodes[index], variables=dict(variables))
    return replace(plan, nodes=tuple(nodes))


def refuse_names(variables: Mapping[str, Any], where: str) -> None:
    """Refuse context variables that no body could read, before anything runs."""
    wrong = mistaken_name(variables)
    if wrong is not None:
        raise OptionValueError(f"{where}: {wrong}")


def wanted_nodes(
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
