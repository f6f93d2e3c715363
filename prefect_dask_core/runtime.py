"""Runtime: values of the flow run and the task run that the caller stands in.

Outside of a run each of them is `None`, or empty, or 0.

Examples
--------
>>> from prefect_dask_core import runtime, task
>>> runtime.task_run.name is None, runtime.flow_run.parameters
(True, {})
>>> @task(tags=["db"])
... def load(path):
...     return runtime.task_run.task_name, runtime.task_run.parameters
>>> load("a.csv")
('load', {'path': 'a.csv'})
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

from prefect_dask_core.run_contexts import FlowRunContext, TaskRunContext


class TaskRunValues:
    """Values of the running task."""

    @property
    def id(self) -> str | None:
        """Id of the run."""
        found = TaskRunContext.get()
        return None if found is None else str(found.task_run.id)

    @property
    def name(self) -> str | None:
        """Name of the run."""
        found = TaskRunContext.get()
        return None if found is None else found.task_run.name

    @property
    def task_name(self) -> str | None:
        """Name of the task."""
        found = TaskRunContext.get()
        return None if found is None else str(found.task.name)

    @property
    def tags(self) -> list[str]:
        """Tags of the run, sorted."""
        found = TaskRunContext.get()
        return [] if found is None else sorted(found.task_run.tags)

    @property
    def parameters(self) -> dict[str, Any]:
        """Arguments of the body, defaults included."""
        found = TaskRunContext.get()
        return {} if found is None else dict(found.parameters)

    @property
    def run_count(self) -> int:
        """Attempts made, this one included."""
        found = TaskRunContext.get()
        return 0 if found is None else found.task_run.run_count


class FlowRunValues:
    """Values of the running flow."""

    @property
    def id(self) -> str | None:
        """Id of the run."""
        found = FlowRunContext.get()
        return None if found is None else str(found.flow_run.id)

    @property
    def name(self) -> str | None:
        """Name of the run."""
        found = FlowRunContext.get()
        return None if found is None else found.flow_run.name

    @property
    def flow_name(self) -> str | None:
        """Name of the flow."""
        found = FlowRunContext.get()
        return None if found is None else found.flow_run.flow_name

    @property
    def flow_version(self) -> str | None:
        """Version of the flow."""
        found = FlowRunContext.get()
        return None if found is None else found.flow_run.flow_version

    @property
    def tags(self) -> list[str]:
        """Tags of the run, sorted."""
        found = FlowRunContext.get()
        return [] if found is None else sorted(found.flow_run.tags)

    @property
    def parameters(self) -> dict[str, Any]:
        """Parameters of the run."""
        found = FlowRunContext.get()
        return {} if found is None else dict(found.parameters)

    @property
    def run_count(self) -> int:
        """Attempts made, this one included."""
        found = FlowRunContext.get()
        return 0 if found is None else found.flow_run.run_count

    @property
    def scheduled_start_time(self) -> datetime | None:
        """When the run was to begin."""
        found = FlowRunContext.get()
        return None if found is None else found.start_time

    @property
    def parent_flow_run_id(self) -> str | None:
        """Id of the flow run in which the flow was called."""
        found = FlowRunContext.get()
        return None if found is None else _text(found.flow_run.parent_flow_run_id)

    @property
    def root_flow_run_id(self) -> str | None:
        """Id of the outermost flow run."""
        found = FlowRunContext.get()
        return None if found is None else _text(found.flow_run.root_flow_run_id)


def _text(given: object) -> str | None:
    return None if given is None else str(given)


#: The running task.
task_run: Final = TaskRunValues()
#: The running flow.
flow_run: Final = FlowRunValues()
