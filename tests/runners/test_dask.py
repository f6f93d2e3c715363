"""The Dask runner: how it finds its cluster, and what it leaves behind."""

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus

import numpy
import pytest
from distributed import Client, LocalCluster, get_client, get_worker
from distributed.protocol import deserialize, serialize

from prefect_dask_core import DaskTaskRunner, Flow, Task, context, task, unmapped
from prefect_dask_core.engine.feeds import PlainValue
from prefect_dask_core.errors import MissingResult
from prefect_dask_core.runners.default import default_runner
from prefect_dask_core.runners.threads import ThreadPoolTaskRunner
from prefect_dask_core.triggers import all_finished
from tests.leftovers import tasks_on, topics_on, wait_until

SMALL = {
    "n_workers": 1,
    "threads_per_worker": 1,
    "processes": False,
    "dashboard_address": ":0",
}
LARGE = 1_000_000  # bytes: a value that does not come home by itself


@task
def inc(x):
    return x + 1


@task
def total(xs):
    return sum(xs)


@task
def scheduler_address():
    # Not of `get_client`: in this process it would outlive the cluster of a test.
    return get_worker().scheduler.address


def sums():
    with Flow("sums") as flow:
        total(inc.map(inc.map([1, 2, 3])))
    return flow


# -- where it runs -----------------------------------------------------------------


def test_a_cluster_that_runs_is_used_and_left_running(cluster, client):
    runner = DaskTaskRunner(cluster=cluster)
    for _ in range(2):
        assert sums().run(task_runner=runner)["total"].result() == 12
    assert client.submit(lambda: 1, pure=False).result() == 1


def test_a_client_is_used_and_left_open(client):
    runner = DaskTaskRunner(cluster=client)
    assert sums().run(task_runner=runner)["total"].result() == 12
    assert client.status == "running"


def test_an_address_is_connected_to():
    with LocalCluster(**{**SMALL, "processes": False, "protocol": "tcp"}) as made:
        address = made.scheduler_address
        flow = Flow("where", tasks=[scheduler_address])
        state = flow.run(task_runner=DaskTaskRunner(address=address))
        assert state[scheduler_address].result() == address


def test_without_arguments_the_current_client_is_used(client):
    flow = Flow("where", tasks=[scheduler_address])
    with client.as_current():
        assert default_runner() == DaskTaskRunner(cluster=client)
        for runner in (DaskTaskRunner(), None):
            state = flow.run(task_runner=runner)
            assert state[scheduler_address].result() == client.scheduler.address


def test_without_a_client_threads_run_a_flow():
    code = (
        "from prefect_dask_core.runners.default import default_runner as d; print(d())"
    )
    # In a process of its own: elsewhere in this one there are clients.
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert found.stdout.strip() == repr(ThreadPoolTaskRunner()), found.stderr


@pytest.mark.parametrize(
    "cluster_class",
    [LocalCluster, "distributed.LocalCluster", lambda **more: LocalCluster(**more)],
    ids=["class", "dotted name", "function"],
)
def test_a_class_makes_a_temporary_cluster(cluster_class):
    runner = DaskTaskRunner(cluster_class=cluster_class, cluster_kwargs=SMALL)
    state = sums().run(task_runner=runner)
    assert state["total"].result() == 12
    with pytest.raises(RuntimeError, match="is not open"):
        _ = runner.client


def test_options_alone_make_a_local_cluster():
    runner = DaskTaskRunner(cluster_kwargs=SMALL)
    assert sums().run(task_runner=runner)["total"].result() == 12


def test_large_values_come_home_from_a_temporary_cluster():
    with Flow("large") as flow:
        many = Task(lambda n: b"x" * n, name="many").map([LARGE, LARGE])
        between = Task(lambda xs: b"".join(xs), name="join")(many)
        size = Task(len_of, name="size")(between)
        flow.set_reference_tasks([many, size])
    state = flow.run(task_runner=DaskTaskRunner(cluster_kwargs=SMALL))
    assert state[size].result() == 2 * LARGE
    assert list(map(len, state[many].result())) == [LARGE, LARGE]
    with pytest.raises(MissingResult, match="return_tasks"):
        state[between].result()


def len_of(x):
    return len(x)


def test_an_adaptive_cluster_starts_with_no_worker():
    runner = DaskTaskRunner(
        cluster_class=LocalCluster,
        cluster_kwargs={**SMALL, "n_workers": 0},
        adapt_kwargs={"minimum": 0, "maximum": 2, "interval": "100 ms"},
    )
    assert sums().run(task_runner=runner)["total"].result() == 12


def test_children_wait_where_an_adaptive_cluster_sees_them():
    """It starts as many workers as the tasks on its scheduler are worth."""
    with Flow("many") as flow:
        doubled = Task(lambda x: 2 * x, name="double").map(range(20))
    with (
        LocalCluster(**{**SMALL, "n_workers": 0}) as none,
        Client(none, set_as_default=False) as client,
        ThreadPoolExecutor(1) as thread,
    ):
        running = thread.submit(flow.run, task_runner=DaskTaskRunner(cluster=client))
        are_seen = wait_until(lambda: len(tasks_on(client)) >= 20)
        none.scale(1)
        assert are_seen
        assert running.result()[doubled].result() == list(range(0, 40, 2))


def test_a_context_manager_serves_many_runs():
    with DaskTaskRunner(cluster_kwargs=SMALL) as runner:
        addresses = {
            Flow("where", tasks=[scheduler_address])
            .run(task_runner=runner)[scheduler_address]
            .result()
            for _ in range(3)
        }
        assert addresses == {runner.client.scheduler.address}
        with pytest.raises(RuntimeError, match="open already"):
            runner.__enter__()
    with pytest.raises(RuntimeError, match="is not open"):
        _ = runner.client


def test_a_performance_report_is_written(cluster, tmp_path):
    path = tmp_path / "report.html"
    runner = DaskTaskRunner(cluster=cluster, performance_report_path=str(path))
    sums().run(task_runner=runner)
    assert path.stat().st_size > 1_000


# -- what is refused ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"address": "tcp://a:1", "cluster": object()}, "address= and cluster="),
        (
            {"address": "tcp://a:1", "cluster_class": LocalCluster},
            "address= and cluster_class=",
        ),
        (
            {"address": "tcp://a:1", "cluster_kwargs": SMALL},
            "address= and cluster_kwargs=",
        ),
        (
            {"address": "tcp://a:1", "adapt_kwargs": {"minimum": 1}},
            "address= and adapt_kwargs=",
        ),
        (
            {"cluster": object(), "cluster_class": LocalCluster},
            "cluster= and cluster_class=",
        ),
        (
            {"cluster": object(), "cluster_kwargs": SMALL},
            "cluster= and cluster_kwargs=",
        ),
        ({"client_kwargs": {"asynchronous": True}}, "client_kwargs holds 'asynch"),
        ({"cluster_kwargs": {"asynchronous": True}}, "cluster_kwargs holds 'asynch"),
    ],
)
def test_two_places_to_run_are_refused(arguments, told):
    with pytest.raises(ValueError, match=told):
        DaskTaskRunner(**arguments)


@pytest.mark.parametrize(
    "name", ["no_such_module.Cluster", "distributed.NoSuchCluster"]
)
def test_a_dotted_name_that_cannot_be_imported_is_told(name):
    runner = DaskTaskRunner(cluster_class=name, cluster_kwargs=SMALL)
    with pytest.raises(ValueError, match="cannot be imported"):
        sums().run(task_runner=runner)


@pytest.mark.parametrize("name", ["SLURMCluster", "", ".", ".Cluster", "a."])
def test_the_name_of_a_class_needs_its_module(name):
    with pytest.raises(ValueError, match=r"as 'dask_jobqueue\.SLURMCluster'"):
        DaskTaskRunner(cluster_class=name)


@pytest.mark.parametrize(
    ("cluster", "told"),
    [
        ("tcp://10.0.0.1:8786", r"write address='tcp://10\.0\.0\.1:8786'"),
        ("dask_jobqueue.SLURMCluster", "or cluster_class= for the dotted name"),
        (LocalCluster, "write cluster_class=LocalCluster"),
    ],
)
def test_what_is_no_cluster_is_told_where_it_belongs(cluster, told):
    with pytest.raises(TypeError, match=told):
        DaskTaskRunner(cluster)


def test_an_object_given_as_a_class_is_told_where_it_belongs(cluster):
    with pytest.raises(TypeError, match="a cluster that runs already is given as"):
        DaskTaskRunner(cluster_class=cluster)


def test_an_asynchronous_client_is_refused():
    async def notebook():
        async with (
            LocalCluster(**SMALL, asynchronous=True) as made,
            Client(made, asynchronous=True, set_as_default=False) as own,
        ):
            sums().run(task_runner=DaskTaskRunner(cluster=own))

    with pytest.raises(ValueError, match="asynchronous=False"):
        asyncio.run(notebook())


def test_a_scheduler_that_is_not_there_is_told():
    runner = DaskTaskRunner(
        address="tcp://127.0.0.1:1", client_kwargs={"timeout": "200 ms"}
    )
    with pytest.raises(OSError, match=r"127.0.0.1:1"):
        sums().run(task_runner=runner)


def test_runners_with_the_same_settings_are_equal():
    assert DaskTaskRunner(address="tcp://a:1") == DaskTaskRunner(address="tcp://a:1")
    assert DaskTaskRunner(address="tcp://a:1") != DaskTaskRunner(address="tcp://b:1")
    assert repr(DaskTaskRunner(cluster_kwargs={"n_workers": 1})) == (
        "DaskTaskRunner(cluster_kwargs={'n_workers': 1})"
    )


# -- values ------------------------------------------------------------------------


def large_flow():
    with Flow("large") as flow:
        large = Task(lambda: b"x" * LARGE, name="large")()
        size = Task(len_of, name="size")(large)
        many = Task(lambda n: b"y" * n, name="many").map([LARGE, 2])
        sizes = Task(len_of, name="sizes").map(many)
    return flow, large, size, many, sizes


def test_a_large_value_in_the_middle_is_not_kept(client):
    flow, large, size, many, sizes = large_flow()
    state = flow.run(task_runner=DaskTaskRunner(cluster=client))
    assert state[size].result() == LARGE
    assert state[sizes].result() == [LARGE, 2]
    for task_of in (large, many):
        assert state[task_of].is_successful()
    with pytest.raises(MissingResult, match="return_tasks"):
        state[large].result()
    with pytest.raises(MissingResult, match="return_tasks"):
        state[many].result()


def test_return_tasks_keeps_a_large_value(client):
    flow, large, _, many, _ = large_flow()
    runner = DaskTaskRunner(cluster=client)
    state = flow.run(task_runner=runner, return_tasks=[large, many])
    assert len(state[large].result()) == LARGE
    assert list(map(len, state[many].result())) == [LARGE, 2]


def test_a_large_value_stays_on_a_lasting_cluster_until_it_is_asked_for(client):
    last = Task(lambda: b"x" * LARGE, name="last")
    state = Flow("large", tasks=[last]).run(task_runner=DaskTaskRunner(cluster=client))
    assert len(tasks_on(client)) == 1
    assert len(state[last].result()) == LARGE
    del state
    assert wait_until(lambda: not tasks_on(client)), tasks_on(client)


# -- what is left behind -----------------------------------------------------------


@pytest.fixture
def tidy(client):
    """Check that a test leaves nothing on the scheduler."""
    assert wait_until(lambda: not tasks_on(client)), tasks_on(client)
    before = set(topics_on(client))
    yield
    assert wait_until(lambda: not tasks_on(client)), tasks_on(client)
    assert set(topics_on(client)) <= before


@pytest.mark.usefixtures("tidy")
def test_nothing_stays_on_the_scheduler(client):
    runner = DaskTaskRunner(cluster=client)
    large = list(range(20_000))
    with Flow("all kinds") as flow:
        numbers = Task(lambda n: list(range(n)), name="numbers")(50)
        many = Task(lambda x, xs: x + len(xs), name="many").map(
            numbers, unmapped(large)
        )
        again = inc.map(many)
        total(again)
        last = Task(lambda: 1 / 0, name="fails", retries=1)()
        Task(lambda x: b"x" * LARGE, name="large")(last)
    for _ in range(3):
        assert type(flow.run(task_runner=runner)).__name__ == "Failed"


@pytest.mark.usefixtures("tidy")
def test_nothing_stays_after_an_error_of_the_client(client):
    lock = threading.Lock()
    with Flow("bad") as flow:
        many = inc.map(range(10))
        Task(lambda x: lock, name="bad")(many)
    with pytest.raises(TypeError, match="lock"):
        flow.run(task_runner=DaskTaskRunner(cluster=client))


@pytest.mark.usefixtures("tidy")
def test_two_runs_at_once_do_not_see_each_other(client):
    with Flow("both") as flow:
        many = Task(lambda x: (time.sleep(0.001), x)[1], name="slow").map(
            Task(lambda n: list(range(n)), name="numbers")(100)
        )
        summed = total(many)
    states = {}

    def run(name):
        state = flow.run(task_runner=DaskTaskRunner(cluster=client))
        states[name] = state[summed].result()

    threads = [threading.Thread(target=run, args=(name,)) for name in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert states == dict.fromkeys(range(3), sum(range(100)))


@pytest.mark.parametrize("opened", [False, True], ids=["closed", "open"])
def test_one_runner_serves_several_threads_at_once(cluster, opened):
    flow, results = sums(), []
    runner = DaskTaskRunner(cluster=cluster)

    def run():
        results.append(flow.run(task_runner=runner)["total"].result())

    with runner if opened else contextlib.nullcontext():
        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
    assert results == [12] * 4


# -- on the workers ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("limit", [None, 60], ids=["no limit", "limit"])
def test_a_body_finds_its_worker_and_its_client(process_client, limit):
    client_address = process_client.scheduler.address

    @task(timeout_seconds=limit)
    def body(x):
        assert get_client().scheduler.address == client_address
        return get_worker().address, x + 1

    with Flow("worker") as flow:
        found = body.map(range(4))
    state = flow.run(task_runner=DaskTaskRunner(cluster=process_client))
    workers = set(process_client.scheduler_info()["workers"])
    for index, (address, value) in enumerate(state[found].result()):
        assert address in workers
        assert value == index + 1


def test_waiting_for_a_retry_holds_no_thread_of_a_worker():
    @task(retries=1, retry_delay_seconds=1.0)
    def flaky(x):
        if context.task_run_count == 1:
            raise ValueError
        return x

    with Flow("waits") as flow:
        many = flaky.map(range(20))
        quick = inc(1)
    with LocalCluster(**SMALL) as made, Client(made, set_as_default=False) as own:
        begin = time.monotonic()
        state = flow.run(task_runner=DaskTaskRunner(cluster=own))
        assert time.monotonic() - begin < 10
    assert state[many].result() == list(range(20))
    assert state[quick].result() == 2


@pytest.mark.slow
@pytest.mark.xfail(reason="only get_dask_client gives the thread back", run=False)
@pytest.mark.parametrize("limit", [None, 60], ids=["no limit", "limit"])
def test_futures_inside_a_task_do_not_block_a_single_thread(limit):
    @task(timeout_seconds=limit)
    def outer(x):
        return get_client().submit(lambda y: y + 1, x, pure=False).result()

    with Flow("outer") as flow:
        many = outer.map([1, 2, 3])
    options = {**SMALL, "processes": True}
    with LocalCluster(**options) as made, Client(made, set_as_default=False) as own:
        state = flow.run(task_runner=DaskTaskRunner(cluster=own))
        assert state[many].result() == [2, 3, 4]


@pytest.mark.slow
def test_a_flow_inside_a_task_does_not_block_a_single_thread():
    @task
    def outer(x):
        return sums().run()["total"].result() + x

    with Flow("outer") as flow:
        many = outer.map([1, 2, 3])
    options = {**SMALL, "processes": True}
    with LocalCluster(**options) as made, Client(made, set_as_default=False) as own:
        state = flow.run(task_runner=DaskTaskRunner(cluster=own))
        assert state[many].result() == [13, 14, 15]


def made_array():
    return numpy.rec.array([(1, 2.0)], dtype=[("a", int), ("b", float)])


def made_twice():
    row = numpy.arange(3)
    return [row, row, {"again": row}]


def made_table():
    return {HTTPStatus.OK: 1, HTTPStatus.GONE: True, (1,): {2}}


def told_array(x):
    return type(x).__name__, x.a.tolist()


def told_twice(x):
    return type(x).__name__, x[0] is x[1] is x[2]["again"]


def told_table(x):
    return [(type(key).__name__, type(value).__name__) for key, value in x.items()]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("made", "told"),
    [(made_array, told_array), (made_twice, told_twice), (made_table, told_table)],
)
def test_a_value_is_the_same_on_each_worker_process(process_client, made, told):
    assert told(deserialize(*serialize(PlainValue(made()))).value) == told(made())

    def read(x):
        time.sleep(0.5)  # long enough for the other worker to take a share
        return os.getpid(), told(x)

    with Flow("processes") as flow:
        value = Task(made, name="made")()
        readers = [Task(read, name=f"reader{i}")(value) for i in range(4)]
    state = flow.run(task_runner=DaskTaskRunner(cluster=process_client))
    found = [state[reader].result() for reader in readers]
    # On a busy machine one worker may take them all; then the first lines prove it.
    assert [seen for _, seen in found] == [told(made())] * 4


def test_workers_that_come_later_are_used():
    with Flow("grows") as flow:
        many = Task(lambda x: (time.sleep(0.05), get_worker().name)[1], name="where")
        places = many.map(range(60))
    with LocalCluster(**SMALL) as made, Client(made, set_as_default=False) as own:
        thread = threading.Timer(0.3, made.scale, [3])
        thread.start()
        state = flow.run(task_runner=DaskTaskRunner(cluster=own))
        thread.join()
        assert len(set(state[places].result())) > 1


def test_a_scheduler_that_goes_away_ends_the_run_as_crashed():
    with Flow("gone") as flow:
        slow = Task(lambda: time.sleep(3), name="slow")()
        cleanup = Task(lambda: 1, name="cleanup", trigger=all_finished)(
            upstream_tasks=[slow]
        )
    made = LocalCluster(**SMALL)
    thread = threading.Timer(0.5, made.close)
    thread.start()
    runner = DaskTaskRunner(
        address=made.scheduler_address, client_kwargs={"timeout": "1 s"}
    )
    state = flow.run(task_runner=runner)
    thread.join()
    assert type(state).__name__ in ("Crashed", "Failed")
    for node in (slow, cleanup):
        assert type(state[node]).__name__ == "Crashed"
        assert "scheduler" in state[node].message


def spans_named(name, dask_scheduler=None):
    return len(dask_scheduler.extensions["spans"].spans_search_by_name[(name,)])


def test_all_runs_of_a_flow_are_one_span_of_dask(client):
    with Flow("a-span-of-a-test") as flow:
        many = inc.map(Task(lambda: [1, 2, 3], name="numbers")())
        total(many)
    before = client.run_on_scheduler(spans_named, "default")
    for _ in range(3):
        state = flow.run(task_runner=DaskTaskRunner(cluster=client))
        assert state.is_successful()
    assert client.run_on_scheduler(spans_named, "a-span-of-a-test") == 1
    assert client.run_on_scheduler(spans_named, "default") == before


class NoPrice(Exception):
    """What a package of the user's raises."""


@pytest.mark.slow
def test_an_exception_of_the_users_keeps_its_traceback(process_client):
    @task
    def price(row):
        raise NoPrice(row)

    with Flow("prices") as flow:
        prices = price.map([1])
    state = flow.run(task_runner=DaskTaskRunner(cluster=process_client))
    error = state[prices][0].result(raise_on_failure=False)
    assert type(error).__name__ == "NoPrice"
    frames = traceback.extract_tb(error.__traceback__)
    assert "price" in [frame.name for frame in frames]
