"""What is killed: the client of a run, its scheduler and its workers.

Each body notes when it began, in a file of its worker; each result goes into a store.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import time
from pathlib import Path

import dask
from distributed import Client, Scheduler, Worker

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    Parameter,
    context,
    flow,
    task,
    unmapped,
)
from prefect_dask_core.runtime import flow_run

#: Of each of two maps.
CHILDREN = 1_000


def note(folder, name, index):
    """Take down that a body has begun, in one write."""
    line = f"{name} {index} {time.time()!r}\n".encode()
    path = Path(folder, "begins", str(os.getpid()))
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        os.write(handle, line)
    finally:
        os.close(handle)


def work(name, folder, index, value):
    note(folder, name, index)
    time.sleep(0.0005)
    return value


@task(persist_result=True)
def square(number, folder):
    return work("square", folder, number, number**2)


@task(persist_result=True)
def halve(number, folder):
    return work("halve", folder, math.isqrt(number), number / 2)


@task(persist_result=True)
def total(numbers, folder):
    return work("total", folder, 0, sum(numbers))


@task
def begin(folder):
    Path(folder, "run").write_text(context.flow_run_id, encoding="utf-8")


def graph_flow():
    with Flow("deaths") as made:
        folder = Parameter("folder")
        first = begin(folder)
        squares = square.map(
            Parameter("numbers"), unmapped(folder), upstream_tasks=[unmapped(first)]
        )
        result = total(halve.map(squares, unmapped(folder)), folder)
    return made, result


@flow(name="deaths")
def function_flow(numbers, folder):
    Path(folder, "run").write_text(flow_run.id, encoding="utf-8")
    squares = square.map(numbers, unmapped(folder))
    return total.submit(halve.map(squares, unmapped(folder)), folder).result()


def run(kind, runner, folder, ledger, resume):
    """Run, or resume; the value."""
    given = {"numbers": list(range(CHILDREN)), "folder": folder}
    if kind == "function":
        made = function_flow.with_options(task_runner=runner)
        if resume is None:
            return made.with_options(ledger=ledger)(**given)
        # Without a ledger nobody knows the first parameters.
        return made.resume(resume, None if ledger else given, ledger=ledger)
    made, result = graph_flow()
    known = {} if resume is not None and ledger else given
    state = made.run(known, task_runner=runner, ledger=ledger, resume=resume)
    return state[result].result()


def be_client(address, folder, kind, ledger, resume):
    """Run, or resume, and write the value down."""
    storage = {"prefect-dask-core.result-storage": os.path.join(folder, "store")}
    with (
        dask.config.set(storage),
        Client(address, set_as_default=False) as client,
    ):
        value = run(kind, DaskTaskRunner(cluster=client), folder, ledger, resume)
    Path(folder, "value").write_text(json.dumps(value), encoding="utf-8")


def be_scheduler(file):
    async def serve():
        async with Scheduler(host="127.0.0.1", dashboard=False) as scheduler:
            Path(file).write_text(scheduler.address, encoding="utf-8")
            await scheduler.finished()

    asyncio.run(serve())


def be_worker(address, spill):
    async def serve():
        async with Worker(
            address, nthreads=1, local_directory=spill, dashboard=False
        ) as worker:
            await worker.finished()

    asyncio.run(serve())
