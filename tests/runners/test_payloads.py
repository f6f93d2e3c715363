"""Large parts that blocks share travel once, and live as long as a node needs them."""

import time

import pytest
from distributed import Client, Event, LocalCluster, SchedulerPlugin, get_worker, wait

from prefect_dask_core import DaskTaskRunner, Flow, flow, task, unmapped
from prefect_dask_core.runners.payloads import Payloads


@pytest.fixture(scope="module")
def cluster():
    with LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0"
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    with Client(cluster) as client:
        yield client


class Graphs(SchedulerPlugin):
    """Counts graphs, and those that came with a payload."""

    def __init__(self):
        self.seen = self.laden = 0

    def update_graph(self, scheduler, *, keys, **_):
        self.seen += 1
        self.laden += any(map(is_payload, keys))


@pytest.fixture
def graphs(cluster):
    plugin = Graphs()
    cluster.scheduler.add_plugin(plugin, name="graphs")
    yield plugin
    cluster.scheduler.remove_plugin("graphs")


def is_payload(key):
    return isinstance(key, tuple) and str(key[0]).startswith("payload-")


@task
def look_up(index, table):
    time.sleep(0.01)
    return table[index]


@task
def payloads_left(read):
    """Payloads of the worker once they have had the time to go."""
    worker = get_worker()
    for _ in range(500):
        left = [key for key in worker.data if is_payload(key)]
        if not left:
            break
        time.sleep(0.01)
    return len(left)


TABLE = list(range(10_000))


def test_an_argument_of_all_children_travels_once(client, graphs):
    with Flow("table") as flow:
        found = look_up.map(range(200), unmapped(TABLE))
    state = flow.run(task_runner=DaskTaskRunner(cluster=client))
    assert state[found].result() == list(range(200))
    assert graphs.seen > 3
    assert graphs.laden == 1


def test_an_argument_is_let_go_when_its_last_reader_has_ended(client):
    with Flow("let go") as flow:
        found = look_up.map(range(20), unmapped(TABLE))
        left = payloads_left(found)
    state = flow.run(task_runner=DaskTaskRunner(cluster=client))
    assert state[left].result() == 0


def test_a_payload_is_kept_until_all_who_need_it_have_ended(client):
    payloads = Payloads()
    payloads.hold({"large": client.submit(str, 1, key="large")})
    payloads.note("large", [1, 2])
    payloads.let_go([1])
    assert payloads.there() == {"large"}
    payloads.let_go([2])
    assert payloads.there() == frozenset()


def test_a_payload_that_erred_is_brought_anew(client):
    payloads = Payloads()
    failed = client.submit(int, "no number", key="failed")
    payloads.hold({"failed": failed})
    payloads.note("failed", [1])
    wait(failed)
    assert payloads.there() == frozenset()


class Counted:
    """Something large that counts how often it is pickled."""

    pickled = 0

    def __init__(self, size=100_000):
        self.size = size

    def __sizeof__(self):
        return self.size

    def __reduce__(self):
        type(self).pickled += 1
        return Counted, (self.size,)


def test_the_bytes_of_an_argument_are_kept_as_long_as_a_node_needs_them(client):
    large = Counted()
    begun = Event("begun", client=client)
    ended = Event("ended", client=client)

    @task
    def measure(given, waits=False):
        if waits:
            begun.set()
            ended.wait(60)
        return given.size

    @flow(task_runner=DaskTaskRunner(cluster=client))
    def measured():
        first = measure.submit(large, waits=True)
        begun.wait(60)
        second = measure.submit(large)
        assert second.result() == large.size
        while_needed = Counted.pickled
        ended.set()
        assert first.result() == large.size
        third = measure.submit(large)
        assert third.result() == large.size
        return while_needed, Counted.pickled

    Counted.pickled = 0
    # Once for both that need it at a time; once more for one that comes later.
    assert measured() == (1, 2)
