"""Clients: a Dask client for what a task or a flow computes with Dask itself."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from prefect_dask_core.context import context
from prefect_dask_core.late_imports import import_late, is_distributed_loaded
from prefect_dask_core.runners._private import (
    client_here,
    current_client,
    outside_the_pool,
)
from prefect_dask_core.runners.dask import DaskTaskRunner
from prefect_dask_core.runners.own_threads import in_own_thread

if TYPE_CHECKING:
    import distributed
    from distributed import Client, Worker
else:
    distributed = import_late("distributed")


@contextlib.contextmanager
def get_dask_client(
    timeout: float | str | None = None, **client_kwargs: Any
) -> Iterator[Client]:
    """A client of the cluster that the caller runs on; the current one in the block.

    In the body of a task that runs on a Dask worker, it is connected to the scheduler
    of that worker, and the task gives its thread back for the length of the block: so
    what it waits for, in Dask collections or futures, can run on a worker with a single
    thread. In the function of a flow it is connected to the cluster of the flow's
    runner; elsewhere it is the current client, or a new one as `distributed.Client`
    makes it.

    Parameters
    ----------
    timeout : float or str, optional
        How long to wait for a connection.
    **client_kwargs
        Arguments of `distributed.Client`. With any of them the client is a new one,
        which is closed at the end of the block.

    Examples
    --------
    >>> import dask
    >>> from prefect_dask_core import flow, get_dask_client, task
    >>> @task
    ... def total(numbers):
    ...     with get_dask_client():
    ...         return dask.delayed(sum)(numbers).compute()
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(outside_the_pool())
        runner = _runner_of_the_flow()
        place: Client | Worker | None
        if runner is not None:
            place, _ = stack.enter_context(runner.borrowed())
            if client_kwargs:
                client_kwargs = {**runner.client_kwargs, **client_kwargs}
        else:
            place = _worker_here() or _current()
        if place is None or client_kwargs:
            arguments = _arguments(place, client_kwargs, timeout)
            client = stack.enter_context(distributed.Client(**arguments))
        elif isinstance(place, distributed.Worker):
            client = client_here(timeout)
        else:
            client = place
        stack.enter_context(current_client(client))
        yield client


@contextlib.asynccontextmanager
async def get_async_dask_client(
    timeout: float | str | None = None, **client_kwargs: Any
) -> AsyncIterator[Client]:
    """An asynchronous client of the cluster that the caller runs on.

    Connected as that of `get_dask_client`; it is a new one, and closed at the end of
    the block.

    Parameters
    ----------
    timeout : float or str, optional
        How long to wait for a connection.
    **client_kwargs
        Arguments of `distributed.Client`.

    Examples
    --------
    >>> from prefect_dask_core import get_async_dask_client, task
    >>> @task
    ... async def total(numbers):
    ...     async with get_async_dask_client() as client:
    ...         return await client.submit(sum, numbers)
    """
    options: dict[str, Any] = {**client_kwargs, "asynchronous": True}
    runner = _runner_of_the_flow()
    place: Any
    stack = contextlib.ExitStack()
    # A cluster may have to be started and stopped, for which the loop does not wait.
    if runner is not None:
        borrow = partial(stack.enter_context, runner.borrowed())
        place, _ = await in_own_thread(borrow)
        options = {**runner.client_kwargs, **options}
    else:
        place = _worker_here() or _current()
    try:
        async with distributed.Client(**_arguments(place, options, timeout)) as made:
            with current_client(made):
                yield made
    finally:
        await in_own_thread(stack.close)


def _runner_of_the_flow() -> DaskTaskRunner | None:
    """Runner of the flow whose function asks; not if a task does."""
    runner = context.get("_task_runner")
    in_a_flow = context.get("_run") is None and "_flow_context" in context
    return runner if in_a_flow and isinstance(runner, DaskTaskRunner) else None


def _worker_here() -> Worker | None:
    if not is_distributed_loaded():
        return None
    try:
        return distributed.get_worker()
    except ValueError:
        return None


def _current() -> Client | None:
    if not is_distributed_loaded():
        return None
    try:
        found: Client = distributed.Client.current()
        return found
    except ValueError:
        return None


def _arguments(
    place: Client | Worker | None, options: Mapping[str, Any], timeout: Any
) -> dict[str, Any]:
    """Arguments of a client beside one, or a worker, that is here."""
    given = {"set_as_default": False, **options}
    if timeout is not None:
        given["timeout"] = timeout
    elsewhere = "address" in options or "scheduler_file" in options
    if place is not None and place.scheduler is not None and not elsewhere:
        given.setdefault("address", place.scheduler.address)
        given.setdefault("security", place.security)
    return given
