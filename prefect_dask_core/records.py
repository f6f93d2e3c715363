"""Records: what is known of one task run or flow run, as plain values."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import Any

from prefect_dask_core.run_ids import current_id
from prefect_dask_core.states import Pending, State


@dataclass(frozen=True, slots=True)
class TaskRun:
    """What is known of a task run; hooks and retry conditions are given one.

    Parameters
    ----------
    id : uuid.UUID or None
        Its id.
    name : str
        Its name, such as ``"load-3"``, a child's as ``"load-3[7]"``; in a graph flow
        ``"load"`` and ``"load[7]"``.
    task_key : str
        Names the task's code.
    flow_run_id : uuid.UUID or None
        Flow run it is of; `None` outside of one.
    dynamic_key : str
        What tells it from other runs of the task in the flow run.
    tags : frozenset of str
        Tags of the task and of the blocks around the call.
    task_inputs : mapping of str to frozenset of uuid.UUID
        By parameter, the runs whose values it got; also ``wait_for`` and
        ``__parents__``.
    state : State
        Its state.
    run_count : int
        Attempts made, the current one included.
    start_time, end_time : datetime or None
        When its first attempt began, and when it ended.
    map_index : int or None
        Index of a child.
    retries : int
        Attempts allowed after the first.
    retry_delay_seconds : float or tuple of float
        Seconds before each.
    retry_jitter_factor : float or None
        How much a delay may be stretched.
    """

    id: uuid.UUID | None
    name: str
    task_key: str = ""
    flow_run_id: uuid.UUID | None = None
    dynamic_key: str = ""
    tags: frozenset[str] = frozenset()
    task_inputs: Mapping[str, frozenset[uuid.UUID]] = field(default_factory=dict)
    state: State = field(default_factory=Pending)
    run_count: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    map_index: int | None = None
    retries: int = 0
    retry_delay_seconds: float | tuple[float, ...] = 0.0
    retry_jitter_factor: float | None = None

    @property
    def total_run_time(self) -> float:
        """Seconds from its begin to its end; 0 while it has none."""
        if self.start_time is None or self.end_time is None:
            return 0.0
        return (self.end_time - self.start_time).total_seconds()


@dataclass(frozen=True, slots=True)
class FlowRun:
    """What is known of a flow run; hooks of flows are given one.

    Parameters
    ----------
    id : uuid.UUID
        Its id.
    name : str
        Its name.
    flow_name : str
        Name of the flow.
    flow_version : str or None
        Version of the flow.
    parameters : mapping of str to object
        Arguments of the call, defaults included.
    tags : frozenset of str
        Tags of the blocks around the call.
    state : State
        Its state.
    run_count : int
        Attempts made, the current one included.
    start_time, end_time : datetime or None
        When its first attempt began, and when it ended.
    parent_flow_run_id : uuid.UUID or None
        Flow run in which the flow was called.
    parent_task_run_id : uuid.UUID or None
        Task run in which the flow was called.
    root_flow_run_id : uuid.UUID or None
        The outermost flow run; its own id if there is none around it.
    """

    id: uuid.UUID
    name: str
    flow_name: str
    flow_version: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    state: State = field(default_factory=Pending)
    run_count: int = 0
    start_time: datetime | None = None
    end_time: datetime | None = None
    parent_flow_run_id: uuid.UUID | None = None
    parent_task_run_id: uuid.UUID | None = None
    root_flow_run_id: uuid.UUID | None = None


def task_run_of(
    task: Any, variables: Mapping[str, Any], state: State, begin: float | None = None
) -> TaskRun:
    """Record of the task run that some context variables are of.

    Parameters
    ----------
    task : Task
        The definition.
    variables : mapping of str to object
        Context variables of the run.
    state : State
        Its state.
    begin : float, optional
        When it began, in seconds since the epoch.
    """
    options = task.options
    flow_run = variables.get("flow_run_id")
    full_name = variables.get("task_full_name") or options.name
    ended = state.timestamp if state.is_final() else None
    return TaskRun(
        id=current_id(variables),
        name=variables.get("task_run_name") or full_name,
        task_key=task.task_key,
        flow_run_id=None if flow_run is None else uuid.UUID(flow_run),
        dynamic_key=variables.get("task_slug") or full_name,
        tags=variables.get("task_tags") or options.tags,
        task_inputs=variables.get("task_inputs") or {},
        state=state,
        run_count=variables.get("task_run_count", 1),
        start_time=at(begin),
        end_time=at(ended),
        map_index=variables.get("map_index"),
        retries=options.retries,
        retry_delay_seconds=options.retry_delay_seconds,
        retry_jitter_factor=options.retry_jitter_factor,
    )


def at(seconds: float | None) -> datetime | None:
    """A moment in UTC, from seconds since the epoch."""
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
