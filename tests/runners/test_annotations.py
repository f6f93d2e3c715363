"""Annotations: where runs go, and which go first, on workers that differ."""

import logging
import time

import dask
import pytest
from distributed import Client, Scheduler, SpecCluster, Worker, get_worker

from prefect_dask_core import DaskTaskRunner, Flow, flow, task

HOST = {"host": "127.0.0.1"}
ONE = {**HOST, "nthreads": 1, "dashboard_address": ":0"}
SPEC = {
    "plain": {"cls": Worker, "options": ONE},
    "gpu": {"cls": Worker, "options": {**ONE, "resources": {"GPU": 1}}},
}
GPU = {"resources": {"GPU": 1}}


@pytest.fixture(scope="module")
def client():
    """Client of two workers in this process, one of which has a GPU."""
    scheduler = {"cls": Scheduler, "options": {**HOST, "dashboard_address": ":0"}}
    with (
        SpecCluster(SPEC, scheduler, silence_logs=logging.WARNING) as made,
        Client(made, set_as_default=False) as found,
    ):
        found.wait_for_workers(2)
        yield found


@pytest.fixture
def runner(client):
    return DaskTaskRunner(cluster=client)


def address_of(client, name):
    workers = client.scheduler_info()["workers"]
    return next(a for a, found in workers.items() if found["name"] == name)


@task
def where(x=None):
    time.sleep(0.01)
    return get_worker().name


@task
def read(names):
    return [get_worker().name, *names]


on_gpu = where.with_options(annotations=GPU)


def test_a_submitted_task_runs_where_its_resources_are(runner):
    @flow(task_runner=runner)
    def places():
        one = [on_gpu.submit(n) for n in range(4)]
        many = on_gpu.map(range(20))
        return {*[f.result() for f in one], *many.result()}, where.map(range(20))

    found, anywhere = places()
    assert found == {"gpu"}
    assert set(anywhere) == {"gpu", "plain"}


def test_an_annotation_around_a_call_holds_for_it(runner, client):
    @flow(task_runner=runner)
    def places():
        with dask.annotate(resources={"GPU": 1}):
            gpu = [where.submit(0), where.map(range(6))]
        with dask.annotate(workers=[address_of(client, "plain")]):
            plain = [where.submit(0), where.map(range(6))]
        return [[one.result(), *many.result()] for one, many in (gpu, plain)]

    assert places() == [["gpu"] * 7, ["plain"] * 7]


def test_a_task_can_name_its_workers(runner, client):
    there = where.with_options(annotations={"workers": [address_of(client, "plain")]})

    @flow(task_runner=runner)
    def places():
        return there.map(range(6)).result()

    assert places() == ["plain"] * 6


def test_a_value_that_is_mapped_over_late_is_counted_where_it_may_be(runner):
    numbers = task(lambda: [1, 2, 3], name="numbers", annotations=GPU)

    @flow(task_runner=runner)
    def places():
        made = numbers.submit()
        made.wait()
        return on_gpu.map(made).result()

    assert places() == ["gpu"] * 3


def test_what_is_queued_goes_by_priority(runner, client):
    @task
    def note(x):
        time.sleep(0.02)
        return time.monotonic()

    urgent = note.with_options(annotations={"priority": 10})

    @flow(task_runner=runner)
    def queued():
        with dask.annotate(workers=[address_of(client, "plain")]):
            low = note.map(range(6))
            high = [urgent.submit(n) for n in range(3)]
        return low.result(), [future.result() for future in high]

    low, high = queued()
    assert max(high) < max(low)


def test_a_task_without_its_resources_waits_until_the_limit(runner):
    nowhere = where.with_options(annotations={"resources": {"TPU": 1}})

    @flow(task_runner=runner, timeout_seconds=1)
    def stuck():
        future, other = nowhere.submit(), where.submit()
        assert other.result() in SPEC
        future.wait(0.3)
        assert not future.done()
        future.wait()

    state = stuck(return_state=True)
    assert type(state).__name__ == "TimedOut"
    assert type(state.states["where-0"]).__name__ == "Cancelled"


@pytest.mark.parametrize("size", [10, 1_000_000], ids=["small", "large"])
def test_what_is_shared_is_read_from_anywhere(runner, size):
    given = bytes(size)

    @task
    def place(x, data):
        return get_worker().name, len(data)

    @flow(task_runner=runner)
    def shares():
        both = [place, place.with_options(annotations=GPU)]
        return [one.map(range(4), given) for one in both]

    assert shares()[1] == [("gpu", size)] * 4


def test_tasks_of_a_graph_flow_go_where_they_say(runner):
    with Flow("graph") as graph:
        one = on_gpu(1)
        plain = [where(n) for n in range(4)]
        many = on_gpu.map(range(20))
        below = on_gpu.map(many)
        collected = read.with_options(annotations=GPU)([one, *plain])
    state = graph.run(task_runner=runner)
    assert {state[one].result(), *state[many].result()} == {"gpu"}
    assert set(state[below].result()) == {"gpu"}
    assert state[collected].result()[:2] == ["gpu", "gpu"]


def test_an_annotation_around_a_run_holds_for_all_its_tasks(runner, client):
    with Flow("graph") as graph:
        names = where.map(range(6))
        last = where.with_options(annotations={"priority": 3})(upstream_tasks=[names])
    with dask.annotate(workers=[address_of(client, "plain")]):
        state = graph.run(task_runner=runner)
    assert [*state[names].result(), state[last].result()] == ["plain"] * 7
