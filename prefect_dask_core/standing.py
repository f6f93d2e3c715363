"""Standing: what does not run again, as an earlier run or the user has its state."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dask.base import tokenize

from prefect_dask_core.engine.plan import Plan
from prefect_dask_core.engine.resume import Earlier, given_states, resume_after
from prefect_dask_core.engine.summary import TaskStates
from prefect_dask_core.errors import GraphError, OptionTypeError
from prefect_dask_core.parameters import Parameter
from prefect_dask_core.planning import Graph
from prefect_dask_core.states import State
from prefect_dask_core.tasks import Task


def states_to_resume(flow: Graph, resume: object) -> TaskStates | None:
    """States of the tasks of the run to resume; None if there is none to.

    Raises
    ------
    GraphError
        If it is not the state of an earlier run of this flow.
    """
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


def what_stands(
    plan: Plan,
    before: TaskStates | None,
    parameters: Mapping[str, Any],
    task_states: Mapping[Task, State] | None,
) -> Earlier:
    """What of an earlier run stands, or of states that were given for single tasks.

    Raises
    ------
    OptionTypeError
        If both were given, or what was given is not a state.
    GraphError
        If a state was given for a task that the flow does not have.
    """
    if before is not None:
        if task_states is not None:
            raise two_that_stand(plan.flow_name)
        states = {n.index: before[n.task] for n in plan.nodes if n.task in before}
        changed = changed_parameters(plan, before.parameters, parameters)
        return resume_after(plan, states, dict.fromkeys(changed))
    given = {} if task_states is None else task_states
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


def two_that_stand(flow: str) -> OptionTypeError:
    """What to raise where two arguments say what does not run."""
    return OptionTypeError(
        f"flow {flow!r} was given resume= and task_states=, which both say what does "
        "not run; give one of them."
    )


def changed_parameters(
    plan: Plan, before: Mapping[str, Any], now: Mapping[str, Any]
) -> frozenset[int]:
    """Nodes of parameters whose values are not those of an earlier run."""
    return frozenset(
        node.index
        for node in plan.nodes
        if isinstance(node.task, Parameter) and not _same(before, now, node.task.name)
    )


def _same(before: Mapping[str, Any], now: Mapping[str, Any], name: str) -> bool:
    if name not in before or name not in now:
        return (name in before) == (name in now)
    return before[name] is now[name] or bool(
        tokenize(before[name]) == tokenize(now[name])
    )
