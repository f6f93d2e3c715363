"""Prefect's task model as a Dask engine."""

from prefect_dask_core import (
    cache_validators,
    errors,
    results,
    signals,
    states,
    triggers,
)
from prefect_dask_core._version import __version__
from prefect_dask_core.config import register_defaults
from prefect_dask_core.context import context, group, tags
from prefect_dask_core.control_flow import (
    FilterTask,
    case,
    ifelse,
    merge,
    pause_task,
    switch,
)
from prefect_dask_core.edges import Edge, flatten, mapped, unmapped
from prefect_dask_core.flows import Flow
from prefect_dask_core.mapping import apply_map
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.parameters import DateTimeParameter, Parameter
from prefect_dask_core.resources import resource_manager
from prefect_dask_core.retries import exponential_backoff
from prefect_dask_core.runners.dask import DaskTaskRunner
from prefect_dask_core.runners.sequential import SequentialTaskRunner
from prefect_dask_core.runners.threads import ThreadPoolTaskRunner
from prefect_dask_core.states import State, StateType
from prefect_dask_core.tasks import Task, task
from prefect_dask_core.utilities import callback_factory

__all__ = [
    "DaskTaskRunner",
    "DateTimeParameter",
    "Edge",
    "FilterTask",
    "Flow",
    "Parameter",
    "SequentialTaskRunner",
    "State",
    "StateType",
    "Task",
    "TaskOptions",
    "ThreadPoolTaskRunner",
    "__version__",
    "apply_map",
    "cache_validators",
    "callback_factory",
    "case",
    "context",
    "errors",
    "exponential_backoff",
    "flatten",
    "group",
    "ifelse",
    "mapped",
    "merge",
    "pause_task",
    "resource_manager",
    "results",
    "signals",
    "states",
    "switch",
    "tags",
    "task",
    "triggers",
    "unmapped",
]

register_defaults()
