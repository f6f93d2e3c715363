"""Clusters that the whole session shares, and the five ways to run a flow."""

from __future__ import annotations

import signal
import time
import uuid
import warnings

import dask
import pytest
from distributed import Client, LocalCluster

import tests.strategies  # noqa: F401  settings of all property tests
from prefect_dask_core import (
    DaskTaskRunner,
    SequentialTaskRunner,
    ThreadPoolTaskRunner,
)
from tests import postgres
from tests.lazy_runner import LazyRunner

#: Checked by mypy, see test_typing.py; never run.
collect_ignore = ["typing"]

# What a shell starts in the background ignores interrupts, and so would all that the
# tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cluster():
    """Two workers in this process."""
    with LocalCluster(
        n_workers=2, threads_per_worker=2, processes=False, dashboard_address=":0"
    ) as made:
        yield made


@pytest.fixture(scope="session")
def client(cluster):
    """Client of the shared cluster; not the default one of this process."""
    with Client(cluster, set_as_default=False) as made:
        yield made


@pytest.fixture(scope="session")
def process_cluster():
    """Two worker processes with nannies, which bring a dead worker back."""
    with dask.config.set({"distributed.scheduler.allowed-failures": 0}):
        made = LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0"
        )
    with made:
        yield made


@pytest.fixture
def process_client(process_cluster):
    """Client of the worker processes, all of them alive."""
    with Client(process_cluster, set_as_default=False) as made:
        try:
            made.wait_for_workers(2, timeout=30)
        except TimeoutError:
            # A worker that is back before the scheduler has forgotten the one before it
            # is refused as "name taken", and `LocalCluster` leaves it at that.
            process_cluster.scale(0)
            while process_cluster.workers:
                time.sleep(0.1)
            process_cluster.scale(2)
            made.wait_for_workers(2, timeout=60)
        yield made


def _run_sequentially(request):
    return lambda flow, given: flow.run(given, task_runner=SequentialTaskRunner())


def _run_in_threads(request):
    return lambda flow, given: flow.run(given, task_runner=ThreadPoolTaskRunner(2))


def _run_on_dask(request):
    runner = DaskTaskRunner(cluster=request.getfixturevalue("client"))
    return lambda flow, given: flow.run(given, task_runner=runner)


def _compute_in_threads(request):
    def run(flow, given):
        (state,) = dask.compute(flow.compile(given), scheduler="threads")
        return state

    return run


def _compute_on_client(request):
    client = request.getfixturevalue("client")

    def run(flow, given):
        collection = flow.compile(given)
        # As `dask.compute` does, but for the last step, which it takes on a worker.
        keys = collection.__dask_keys__()
        outcomes = client.get(collection.__dask_graph__(), keys)
        finish, arguments = collection.__dask_postcompute__()
        return finish(outcomes, *arguments)

    return run


WAYS = {
    "sequential": _run_sequentially,
    "threads": _run_in_threads,
    "dask": _run_on_dask,
    "compiled, threads": _compute_in_threads,
    "compiled, client": _compute_on_client,
}


@pytest.fixture(params=WAYS)
def run(request):
    """Run a flow in one of five ways: ``run(flow, **parameters) -> State``."""
    way = WAYS[request.param](request)
    return lambda flow, **parameters: way(flow, parameters)


@pytest.fixture(params=["sequential", "threads", "dask"])
def runner(request):
    """One of the three task runners."""
    if request.param == "sequential":
        return SequentialTaskRunner()
    if request.param == "threads":
        return ThreadPoolTaskRunner(2)
    return DaskTaskRunner(cluster=request.getfixturevalue("client"))


FLOW_RUNNERS = {
    "sequential": lambda request: SequentialTaskRunner(),
    "lazy": lambda request: LazyRunner(),
    "threads": lambda request: ThreadPoolTaskRunner(2),
    "dask": lambda request: DaskTaskRunner(request.getfixturevalue("client")),
}


@pytest.fixture(params=[name for name in FLOW_RUNNERS if name != "dask"])
def local_flow_runner(request):
    """A task runner whose bodies see the variables of the test."""
    return FLOW_RUNNERS[request.param](request)


@pytest.fixture(params=FLOW_RUNNERS)
def flow_runner(request):
    """A task runner that function flows can run on."""
    return FLOW_RUNNERS[request.param](request)


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL server, where its programs are installed."""
    if not postgres.is_installed():
        pytest.skip("PostgreSQL is not installed")
    with postgres.running_server() as url:
        yield url


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)])
def ledger_url(request, tmp_path):
    """URL of an empty database for a ledger: SQLite's and PostgreSQL's."""
    if request.param == "sqlite":
        return str(tmp_path / "ledger.sqlite")
    server = request.getfixturevalue("postgres_server")
    return postgres.make_database(server, f"ledger_{uuid.uuid4().hex}")


@pytest.fixture(scope="session")
def bucket():
    """URL of a bucket of a server for S3 in this process, and how to reach it."""
    boto3 = pytest.importorskip("boto3")
    pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer(
        ip_address="127.0.0.1", port=0, verbose=False
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the server's libraries
        server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    known = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", **known)
    client.create_bucket(Bucket="results")
    yield (
        "s3://results",
        {"key": "test", "secret": "test", "endpoint_url": endpoint},
    )
    server.stop()
