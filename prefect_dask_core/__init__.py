"""Prefect's task model as a Dask engine."""

from prefect_dask_core import (
    cache_validators,
    errors,
    results,
    runtime,
    signals,
    states,
    triggers,
)
from prefect_dask_core._version import __version__
from prefect_dask_core.annotations import allow_failure, quote
from prefect_dask_core.assets import Asset, AssetProperties, add_asset_metadata
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
from prefect_dask_core.function_flows import FunctionFlow, flow
from prefect_dask_core.function_options import FlowOptions
from prefect_dask_core.future_lists import FutureList, PrefectFutureList
from prefect_dask_core.futures import PrefectFuture
from prefect_dask_core.mapping import apply_map
from prefect_dask_core.materializing import MaterializingTask, materialize
from prefect_dask_core.naming import TaskRunNameCallbackWithParameters
from prefect_dask_core.options import TaskOptions
from prefect_dask_core.parameters import DateTimeParameter, Parameter
from prefect_dask_core.records import FlowRun, TaskRun
from prefect_dask_core.resources import resource_manager
from prefect_dask_core.results.policies import task_input_hash
from prefect_dask_core.results.store import ResultStore
from prefect_dask_core.results.transaction_blocks import atransaction, transaction
from prefect_dask_core.results.transactions import get_transaction
from prefect_dask_core.retries import exponential_backoff
from prefect_dask_core.run_contexts import (
    FlowRunContext,
    TaskRunContext,
    get_run_context,
    get_run_logger,
)
from prefect_dask_core.runners.clients import get_async_dask_client, get_dask_client
from prefect_dask_core.runners.dask import DaskTaskRunner
from prefect_dask_core.runners.sequential import SequentialTaskRunner
from prefect_dask_core.runners.threads import (
    ConcurrentTaskRunner,
    ThreadPoolTaskRunner,
)
from prefect_dask_core.states import State, StateType
from prefect_dask_core.tasks import Task, task
from prefect_dask_core.utilities import callback_factory
from prefect_dask_core.waiting import (
    as_completed,
    opaque,
    resolve_futures_to_results,
    resolve_futures_to_states,
    wait,
)

__all__ = [
    "Asset",
    "AssetProperties",
    "ConcurrentTaskRunner",
    "DaskTaskRunner",
    "DateTimeParameter",
    "Edge",
    "FilterTask",
    "Flow",
    "FlowOptions",
    "FlowRun",
    "FlowRunContext",
    "FunctionFlow",
    "FutureList",
    "MaterializingTask",
    "Parameter",
    "PrefectFuture",
    "PrefectFutureList",
    "ResultStore",
    "SequentialTaskRunner",
    "State",
    "StateType",
    "Task",
    "TaskOptions",
    "TaskRun",
    "TaskRunContext",
    "TaskRunNameCallbackWithParameters",
    "ThreadPoolTaskRunner",
    "__version__",
    "add_asset_metadata",
    "allow_failure",
    "apply_map",
    "as_completed",
    "atransaction",
    "cache_validators",
    "callback_factory",
    "case",
    "context",
    "errors",
    "exponential_backoff",
    "flatten",
    "flow",
    "get_async_dask_client",
    "get_dask_client",
    "get_run_context",
    "get_run_logger",
    "get_transaction",
    "group",
    "ifelse",
    "mapped",
    "materialize",
    "merge",
    "opaque",
    "pause_task",
    "quote",
    "resolve_futures_to_results",
    "resolve_futures_to_states",
    "resource_manager",
    "results",
    "runtime",
    "signals",
    "states",
    "switch",
    "tags",
    "task",
    "task_input_hash",
    "transaction",
    "triggers",
    "unmapped",
    "wait",
]

register_defaults()
