"""Flows: a graph of tasks, and how it is run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from prefect_dask_core.edges import Edge
from prefect_dask_core.engine.compile import FlowCollection
from prefect_dask_core.execution import compile_flow, run_flow
from prefect_dask_core.flow_graph import FlowGraph
from prefect_dask_core.runners.base import TaskRunner
from prefect_dask_core.states import State
from prefect_dask_core.tasks import Task


class Flow(FlowGraph):
    """Tasks and the edges between them, to be run as a whole.

    Parameters
    ----------
    name : str
        Name of the flow.
    tasks : iterable of Task, optional
        Tasks to begin with.
    edges : iterable of Edge, optional
        Edges to begin with.
    reference_tasks : iterable of Task, optional
        Tasks that decide the final state; those at the end of the flow unless given.
    validate : bool, optional
        Whether to look for cycles at once.
    task_runner : task runner, optional
        Where the flow runs unless `run` is told otherwise.

    Notes
    -----
    How a flow is built and asked is told by `FlowGraph`.

    Examples
    --------
    >>> from prefect_dask_core import Flow, task
    >>> @task
    ... def extract():
    ...     return [1, 2]
    >>> @task
    ... def total(numbers, start=0):
    ...     return sum(numbers, start)
    >>> with Flow("sums") as flow:
    ...     result = total(extract(), start=10)
    >>> flow.run()[result].result()
    13
    """

    def __init__(
        self,
        name: str,
        *,
        tasks: Iterable[Task] | None = None,
        edges: Iterable[Edge] | None = None,
        reference_tasks: Iterable[Task] | None = None,
        validate: bool | None = None,
        task_runner: TaskRunner | None = None,
    ) -> None:
        super().__init__(
            name,
            tasks=tasks,
            edges=edges,
            reference_tasks=reference_tasks,
            validate=validate,
        )
        self.task_runner = task_runner

    def run(
        self,
        parameters: Mapping[str, Any] | None = None,
        *,
        task_runner: TaskRunner | None = None,
        return_tasks: Iterable[Task] | None = None,
        context: Mapping[str, Any] | None = None,
        **more_parameters: Any,
    ) -> State:
        """Run the flow and wait for its end.

        Parameters
        ----------
        parameters : mapping, optional
            Values of the flow's parameters by name; also as keywords.
        task_runner : task runner, optional
            Where the tasks run. The flow's own unless given, else the current
            `distributed.Client` if there is one, else threads of this process.
        return_tasks : iterable of Task, optional
            Tasks whose values are kept besides those of the last and the reference
            tasks, however large they are.
        context : mapping, optional
            Context variables for the tasks.
        **more_parameters
            Values of parameters whose names are none of the above.

        Returns
        -------
        State
            State of the run. ``state[task]`` is a task's state, ``state[task][i]`` a
            child's; ``state.result()`` the values of the reference tasks, by task.

        Raises
        ------
        FlowParameterError
            If an unknown parameter is given, or a required one is not.
        CycleError
            If the edges form a cycle.
        UnpicklableTaskError
            If a task cannot travel to the workers of the runner.
        RuntimeError
            Inside the flow's own ``with`` block.

        Examples
        --------
        >>> from prefect_dask_core import Flow, Parameter, task
        >>> @task
        ... def double(x):
        ...     return 2 * x
        >>> with Flow("twice") as flow:
        ...     doubled = double(Parameter("x"))
        >>> state = flow.run(x=4)
        >>> state, state[doubled].result()
        (Completed('all reference tasks succeeded.'), 8)
        """
        self._require_closed("run")
        given = {**(parameters or {}), **more_parameters}
        runner = self.task_runner if task_runner is None else task_runner
        return run_flow(self, given, runner, return_tasks, context or {})

    def compile(
        self,
        parameters: Mapping[str, Any] | None = None,
        *,
        context: Mapping[str, Any] | None = None,
        **more_parameters: Any,
    ) -> FlowCollection:
        """Compile the flow to a Dask collection.

        Parameters
        ----------
        parameters, context, **more_parameters
            As for `run`.

        Returns
        -------
        FlowCollection
            `dask.compute` gives the state that `run` would; `dask.visualize` draws
            the graph.

        Examples
        --------
        >>> import dask
        >>> from prefect_dask_core import Flow, task
        >>> @task
        ... def double(x):
        ...     return 2 * x
        >>> with Flow("twice") as flow:
        ...     doubled = double.map([1, 2])
        >>> (state,) = dask.compute(flow.compile())
        >>> state[doubled].result()
        [2, 4]
        """
        self._require_closed("compile")
        given = {**(parameters or {}), **more_parameters}
        return compile_flow(self, given, context or {})

    def _require_closed(self, action: str) -> None:
        if self.is_open:
            raise RuntimeError(
                f"flow {self.name!r} cannot {action} inside its own `with` block, "
                "where it is not complete; do it after the block."
            )
