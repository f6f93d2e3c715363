"""The sequential runner: node after node, in the calling thread.

It defines what a flow means; every other runner has to agree with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prefect_dask_core.engine.plan import Node
from prefect_dask_core.engine.whole import (
    Outcome,
    kept_outcomes,
    run_node,
    state_of,
)
from prefect_dask_core.runners.base import FlowRun, NamedRunner
from prefect_dask_core.runners.sequential_session import SequentialSession
from prefect_dask_core.runners.shell import ThreadShell
from prefect_dask_core.states import Completed, State


class SequentialTaskRunner(NamedRunner):
    """Runs one task after the other, in this thread.

    Examples
    --------
    >>> from prefect_dask_core import Flow, task
    >>> @task
    ... def double(x):
    ...     return 2 * x
    >>> with Flow("numbers") as flow:
    ...     doubled = double.map([1, 2, 3])
    >>> state = flow.run(task_runner=SequentialTaskRunner())
    >>> state[doubled].result()
    [2, 4, 6]
    """

    def __repr__(self) -> str:
        return "SequentialTaskRunner()"

    def __eq__(self, other: object) -> bool:
        return type(other) is SequentialTaskRunner

    def __hash__(self) -> int:
        return hash(type(self))

    def __enter__(self) -> SequentialTaskRunner:
        return self

    def __exit__(self, *exception: Any) -> None:
        return None

    def session(
        self, name: str, variables: Mapping[str, Any], run_id: str
    ) -> SequentialSession:
        """Begin a function flow.

        Parameters
        ----------
        name : str
            Name of the flow.
        variables : mapping of str to object
            Context variables that every run sees.
        run_id : str
            Id of the flow run.
        """
        # What a task submits itself runs like this too.
        return SequentialSession({**variables, "_task_runner": self}, run_id)

    def run(self, flow_run: FlowRun) -> Sequence[State]:
        """Run a plan to its end; one state per node."""
        plan = flow_run.plan
        shell = ThreadShell()
        above: dict[int, list[Outcome]] = {}
        states: list[State] = []
        for node in plan.nodes:
            if node.constant:
                states.append(Completed(data=node.task.value))  # type: ignore[attr-defined]
                continue
            above[node.index] = _run_node(flow_run, node, above, shell)
            states.append(state_of(above[node.index]))
        return states


def _run_node(
    flow_run: FlowRun, node: Node, above: dict[int, list[Outcome]], shell: ThreadShell
) -> list[Outcome]:
    """Run what of a node does not stand from an earlier run."""
    index = node.index
    kept = flow_run.earlier.kept.get(index)
    outcomes = [] if kept is None else kept_outcomes(node, kept)
    spans: Sequence[tuple[int, int] | None] = [None] if kept is None else kept.todo
    for span in spans:
        outcomes.append(
            run_node(
                node,
                above,
                flow_run.variables,
                shell,
                measured=index in flow_run.plan.measured,
                flattened=index in flow_run.plan.flattened,
                paused=flow_run.earlier.paused.get(index, {}),
                span=span,
            )
        )
    return sorted(outcomes, key=_start)


def _start(outcome: Outcome) -> int:
    return outcome.result.segments[outcome.node].start
