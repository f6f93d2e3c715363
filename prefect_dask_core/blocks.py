"""Blocks: ``with`` blocks that tie together the tasks added to a flow inside them."""

from __future__ import annotations

from prefect_dask_core.context import ContextBlock, OpenBlock, context
from prefect_dask_core.errors import GraphError
from prefect_dask_core.flow_graph import FlowGraph
from prefect_dask_core.tasks import Task


class TaskBlock:
    """Takes note of the tasks that are added inside, parameters and constants excepted.

    A task is noted by the innermost block. When that ends it passes its tasks on to
    the block around, whose own ends they may be.
    """

    def __init__(self) -> None:
        self._tasks: dict[Task, None] = {}
        self._flow: FlowGraph | None = None
        self._entered: list[ContextBlock] = []

    def add_task(self, task: Task, flow: FlowGraph) -> None:
        """Take note of a task that a flow is about to add.

        Raises
        ------
        GraphError
            If an earlier task of the block belongs to another flow.
        """
        if self._flow is not None and self._flow is not flow:
            raise GraphError(
                f"{self!r} holds tasks of the flows {self._flow.name!r} and "
                f"{flow.name!r}; open one block in each flow."
            )
        self._flow = flow
        self._tasks[task] = None

    def _open(self) -> None:
        self._tasks, self._flow = {}, None
        block = context(task_block=self)
        block.__enter__()
        self._entered.append(block)

    def _close(self) -> list[Task]:
        """Leave the block and hand on its tasks; return those that are in the flow."""
        self._entered.pop().__exit__()
        flow = self._flow
        if flow is None:
            return []
        # One that could not be bound was taken out again.
        tasks = [task for task in self._tasks if task in flow]
        around: OpenBlock | None = context.get("task_block")
        if around is not None:
            for task in tasks:
                around.add_task(task, flow)
        return tasks


def first_of(tasks: list[Task], flow: FlowGraph) -> list[Task]:
    """Those of some tasks of a flow that come after no other of them."""
    inside = set(tasks)
    return [task for task in tasks if not inside & set(flow.upstream_tasks(task))]


def last_of(tasks: list[Task], flow: FlowGraph) -> list[Task]:
    """Those of some tasks of a flow that come before no other of them."""
    inside = set(tasks)
    return [task for task in tasks if not inside & set(flow.downstream_tasks(task))]
