"""Run contexts: the flow run and the task run that the caller stands in."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from prefect_dask_core.calls import SCOPE, BodyScope
from prefect_dask_core.context import context, current_tags
from prefect_dask_core.errors import MissingContextError
from prefect_dask_core.records import FlowRun, TaskRun, at, task_run_of
from prefect_dask_core.states import Running


@dataclass(frozen=True, slots=True)
class FlowRunContext:
    """The flow run that the caller stands in.

    Parameters
    ----------
    flow : FunctionFlow or None
        The flow; `None` on a worker, and of a graph flow.
    flow_run : FlowRun
        What is known of the run.
    parameters : mapping of str to object
        Its parameters.
    task_runner : task runner or None
        Its runner, if it has one of its own.
    log_prints : bool or None
        Whether prints are logged.
    detached : bool
        Whether the caller is in a task of the run, and not in its function.
    start_time : datetime or None
        When it began.
    """

    flow: Any
    flow_run: FlowRun
    parameters: Mapping[str, Any]
    task_runner: Any
    log_prints: bool | None
    detached: bool
    start_time: datetime | None

    @classmethod
    def get(cls) -> FlowRunContext | None:
        """The flow run around the caller; `None` outside of one."""
        run_id = context.get("flow_run_id")
        if run_id is None:
            return None
        place = context.get("_flow_context")
        if place is not None and place.run.id.hex == run_id:
            record: FlowRun = place.flow_run
            flow, runner = place.flow, place.runner
        else:
            record, flow, runner = _flow_run_here(run_id), None, None
        return cls(
            flow,
            record,
            context.get("parameters", {}),
            runner,
            context.get("log_prints"),
            _in_a_task(),
            record.start_time,
        )


@dataclass(frozen=True, slots=True)
class TaskRunContext:
    """The task run that the caller stands in.

    Parameters
    ----------
    task : Task
        The task.
    task_run : TaskRun
        What is known of the run.
    parameters : mapping of str to object
        Arguments of the body, defaults included.
    log_prints : bool
        Whether prints are logged.
    start_time : datetime or None
        When the run began.
    """

    task: Any
    task_run: TaskRun
    parameters: Mapping[str, Any]
    log_prints: bool
    start_time: datetime | None

    @classmethod
    def get(cls) -> TaskRunContext | None:
        """The task run around the caller; `None` outside of one."""
        run = context.get("_run")
        if run is None:
            return None
        variables = {name: context.get(name) for name in context}
        state = Running(timestamp=run.begin)
        record = task_run_of(run.task, variables, state, run.begin)
        return cls(
            run.task,
            record,
            run.all_inputs(run.given),
            bool(run.options.log_prints),
            at(run.begin),
        )


def get_run_context() -> FlowRunContext | TaskRunContext:
    """The innermost run that the caller stands in.

    Raises
    ------
    MissingContextError
        Outside of any; also a `RuntimeError`.
    """
    found = TaskRunContext.get() or FlowRunContext.get()
    if found is None:
        raise MissingContextError(
            "there is no run here; ask inside a function with @flow or the body of a "
            "running task."
        )
    return found


def get_run_logger() -> logging.LoggerAdapter[logging.Logger]:
    """Logger of the innermost run, whose records say which run they are of.

    Raises
    ------
    MissingContextError
        Outside of any; also a `RuntimeError`.
    """
    found: logging.LoggerAdapter[logging.Logger] | None = context.get("logger")
    if found is None:
        raise MissingContextError(
            "there is no run here, so no logger of it; ask inside a function with "
            "@flow or the body of a running task, or use logging.getLogger(__name__)."
        )
    return found


def _in_a_task() -> bool:
    return context.get("_run") is not None or isinstance(context.get(SCOPE), BodyScope)


def _flow_run_here(run_id: str) -> FlowRun:
    """What a task's context tells of the flow run."""
    return FlowRun(
        id=uuid.UUID(run_id),
        name=context.get("flow_run_name") or context.get("flow_name", ""),
        flow_name=context.get("flow_name", ""),
        flow_version=context.get("flow_version"),
        parameters=context.get("parameters", {}),
        tags=current_tags(),
        state=Running(),
        run_count=context.get("flow_run_count", 1),
        start_time=context.get("scheduled_start_time"),
        parent_flow_run_id=_id(context.get("parent_flow_run_id")),
        parent_task_run_id=context.get("parent_task_run_id"),
        root_flow_run_id=_id(context.get("root_flow_run_id")) or uuid.UUID(run_id),
    )


def _id(given: str | None) -> uuid.UUID | None:
    return None if given is None else uuid.UUID(given)
