"""Clients of tasks and flows: where they are connected, and that nobody waits long."""

import asyncio
import contextlib
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import dask
import pytest
from distributed import (
    Client,
    LocalCluster,
    default_client,
    get_client,
    get_worker,
)

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    flow,
    get_async_dask_client,
    get_dask_client,
    task,
)

ONE_THREAD = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}


@pytest.fixture(scope="module")
def narrow_cluster():
    """One worker process with one thread."""
    with LocalCluster(**ONE_THREAD) as made:
        yield made


@pytest.fixture
def narrow(narrow_cluster):
    with Client(narrow_cluster, set_as_default=False) as made:
        yield DaskTaskRunner(cluster=made)


def add(x, y=1):
    return x + y


add_one = task(add, name="add_one")


@task
def where():
    return get_worker().scheduler.address


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 60], ids=["no limit", "limit"])
def test_a_task_waits_for_what_it_computes_on_one_thread(narrow, limit):
    @task(timeout_seconds=limit)
    def outer(x):
        with get_dask_client() as client:
            assert client.scheduler.address == get_worker().scheduler.address
            future = client.submit(add, x, pure=False)
            lazy = dask.delayed(add)(dask.delayed(add)(x))
            return future.result(), lazy.compute(), sum(client.gather([future] * 2))

    @flow(task_runner=narrow)
    def nested():
        one, many = outer.submit(0), outer.map([1, 2, 3])
        return [one.result(), *many.result()]

    expected = [(x + 1, x + 2, 2 * (x + 1)) for x in range(4)]
    assert nested() == expected
    with Flow("graph") as graph:
        found = outer.map(range(4))
    assert graph.run(task_runner=narrow)[found].result() == expected


@pytest.mark.slow
def test_an_asynchronous_task_awaits_what_it_computes(narrow):
    @task
    async def outer(x):
        async with get_async_dask_client() as client:
            assert client.asynchronous
            assert client.scheduler.address == get_worker().scheduler.address
            return await client.submit(add, x, pure=False)

    @flow(task_runner=narrow)
    def nested():
        return outer.map([1, 2, 3])

    assert nested() == [2, 3, 4]


def test_options_make_a_client_of_its_own(client):
    @task
    def look():
        with get_dask_client(timeout=20, name="mine") as mine:
            name = mine.id
            address = mine.scheduler.address
        return name, address, mine.status

    @flow(task_runner=DaskTaskRunner(cluster=client))
    def asks():
        return look.submit()

    name, address, status = asks()
    assert name.startswith("Client-mine")
    assert (address, status) == (client.scheduler.address, "closed")
    assert client.status == "running"


def test_a_flow_has_the_cluster_of_its_runner(client):
    @flow(task_runner=DaskTaskRunner(cluster=client))
    def asks():
        with get_dask_client() as mine:
            assert mine is client
            return dask.delayed(add)(1).compute(), get_client() is mine

    assert asks() == (2, True)


def test_an_asynchronous_flow_has_the_cluster_of_its_runner(client):
    @flow(task_runner=DaskTaskRunner(cluster=client))
    async def asks():
        async with get_async_dask_client() as mine:
            assert mine.scheduler.address == client.scheduler.address
            return await mine.submit(add, 1, pure=False)

    assert asyncio.run(asks()) == 2


def test_a_flow_has_its_temporary_cluster():
    options = {**ONE_THREAD, "processes": False}

    @flow(task_runner=DaskTaskRunner(cluster_kwargs=options))
    def asks():
        with get_dask_client() as mine:
            inside = mine.scheduler.address
            return task(
                lambda: get_worker().scheduler.address
            ).submit().result(), inside

    there, here = asks()
    assert there == here


def test_elsewhere_the_current_client_is_used(client):
    with client.as_current():
        with get_dask_client() as mine:
            assert mine is client
        with get_dask_client(name="other") as other:
            assert other is not client
            assert other.scheduler.address == client.scheduler.address

        async def ask():
            async with get_async_dask_client() as mine:
                return await mine.submit(add, 1, pure=False)

        assert asyncio.run(ask()) == 2


ALONE = """
from prefect_dask_core import get_dask_client
with get_dask_client(n_workers=1, processes=False, dashboard_address=":0") as mine:
    print(mine.submit(abs, -2).result())
print(mine.status)
"""


@pytest.mark.slow
def test_elsewhere_a_new_client_is_made():
    # In a process of its own: elsewhere in this one there are clients.
    found = subprocess.run(
        [sys.executable, "-c", ALONE], capture_output=True, text=True
    )
    assert found.stdout.split() == ["2", "closed"], found.stderr


def test_clients_of_several_threads_leave_the_configuration_alone(client):
    before = dask.config.get("scheduler", None)
    barrier = threading.Barrier(4)

    @flow(task_runner=DaskTaskRunner(cluster=client))
    def asks(x):
        with get_dask_client():
            barrier.wait(30)
            return dask.delayed(add)(x).compute()

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(asks, range(4))) == [1, 2, 3, 4]
    assert dask.config.get("scheduler", None) == before


@pytest.fixture
def own_cluster():
    """A cluster in this process of which no client is known here."""
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
    ) as made:
        yield made


def default_here():
    with contextlib.suppress(ValueError):
        return default_client()


def test_a_worker_in_this_process_leaves_no_default_client(own_cluster):
    """Else all that runs here without a client would go to that cluster."""

    @task
    def in_a_block():
        with get_dask_client() as mine:
            return mine.submit(add, 1).result()

    @flow(task_runner=DaskTaskRunner)
    def in_a_flow():
        return add_one.submit(1)

    @task
    def around():
        return in_a_flow()

    @flow(task_runner=DaskTaskRunner(cluster=own_cluster))
    def asks():
        return in_a_block.submit(), around.submit(), in_a_block.submit()

    before = default_here(), dask.config.get("scheduler", None)
    assert asks() == (2, 2, 2)
    assert (default_here(), dask.config.get("scheduler", None)) == before
