"""Prefect's task model as a Dask engine."""

from prefect_dask_core import errors, signals, states, triggers
from prefect_dask_core._version import __version__
from prefect_dask_core.config import register_defaults
from prefect_dask_core.context import context, tags
from prefect_dask_core.edges import Edge, flatten, mapped, unmapped
from prefect_dask_core.flows import Flow
from prefect_dask_core.parameters import Parameter
from prefect_dask_core.retries import exponential_backoff
from prefect_dask_core.runners.dask import DaskTaskRunner
from prefect_dask_core.runners.sequential import SequentialTaskRunner
from prefect_dask_core.runners.threads import ThreadPoolTaskRunner
from prefect_dask_core.states import State, StateType
from prefect_dask_core.tasks import Task, task

__all__ = [
    "DaskTaskRunner",
    "Edge",
    "Flow",
    "Parameter",
    "SequentialTaskRunner",
    "State",
    "StateType",
    "Task",
    "ThreadPoolTaskRunner",
    "__version__",
    "context",
    "errors",
    "exponential_backoff",
    "flatten",
    "mapped",
    "signals",
    "states",
    "tags",
    "task",
    "triggers",
    "unmapped",
]

register_defaults()
