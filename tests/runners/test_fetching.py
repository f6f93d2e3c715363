"""Values that stayed on the cluster: how they come home, and how many at once."""

import pickle
import threading
from sys import getsizeof

import pytest
from distributed import Client, LocalCluster

from prefect_dask_core import DaskTaskRunner, as_completed, flow, task
from prefect_dask_core.engine.block_results import PlainValue
from prefect_dask_core.engine.segments import Segment
from prefect_dask_core.runners import fetching
from prefect_dask_core.runners.fetching import (
    AHEAD,
    WINDOWS,
    ChildValues,
    Reach,
    window_around,
)
from prefect_dask_core.states import Completed, Failed, Skipped
from tests.leftovers import wait_until

ROOM = 10_000


@task
def row(i):
    return {"id": i, "text": "x" * 200}  # too large to come home by itself


def segment_of(*values):
    """Children that completed with some values; an exception failed, `...` skipped."""
    segment = Segment(start=30)
    segment.open(len(values))
    for offset, value in enumerate(values):
        if isinstance(value, Exception):
            segment.put(offset, Failed(data=value), 1.0, 2.0)
        elif value is ...:
            segment.put(offset, Skipped(), 1.0, 2.0)
        else:
            segment.put(offset, Completed(data=value), 1.0, 2.0)
    return segment


def read(window):
    """First child of a window, and its values."""
    blobs = window.blobs
    return window.first, [
        None if blob is None else pickle.loads(blob) for blob in blobs
    ]


def test_those_after_a_child_come_along_and_then_those_before():
    segment = segment_of(*"abcdef")
    assert read(window_around(segment, 2, Reach(ROOM))) == (0, list("abcdef"))
    assert read(window_around(segment, 2, Reach(ROOM, before=False))) == (
        2,
        list("cdef"),
    )
    assert read(window_around(segment, 2, Reach(ROOM, after=False))) == (0, list("abc"))
    assert read(window_around(segment, 2, Reach(0))) == (2, ["c"])


def test_no_more_comes_along_than_there_is_room_for():
    segment = segment_of(*["x" * 1_000] * 40)
    window = window_around(segment, 10, Reach(ROOM))
    assert window.first == 10
    assert ROOM - 1_200 < window.size() <= ROOM
    around = window_around(segment, 36, Reach(ROOM))
    assert around.first < 36
    assert around.first + len(around.blobs) == 40
    assert around.size() <= ROOM


def test_a_large_value_ends_what_comes_along():
    segment = segment_of("a", "b", "x" * 2 * ROOM, "c")
    assert read(window_around(segment, 1, Reach(ROOM))) == (1, ["b"])


class Hidden:
    """An object that is larger than it looks."""

    def __init__(self, size):
        self.held = b"x" * size


def test_a_value_that_is_larger_than_it_looks_ends_it_too():
    segment = segment_of("a", "b", Hidden(2 * ROOM), "c")
    assert read(window_around(segment, 1, Reach(ROOM))) == (1, ["b"])


def test_children_without_a_value_are_passed_over():
    segment = segment_of("a", "b", ValueError("no"), ..., "c")
    window = window_around(segment, 1, Reach(ROOM))
    assert read(window) == (0, ["a", "b", None, None, "c"])
    assert window.blob(2) is None


def test_a_value_that_cannot_be_pickled_ends_what_comes_along():
    lock = threading.Lock()
    segment = segment_of("a", "b", lock, "c")
    assert read(window_around(segment, 1, Reach(ROOM))) == (1, ["b"])
    assert window_around(segment, 2, Reach(ROOM)) is None


@pytest.fixture
def asked(monkeypatch):
    """What a cluster answered that was asked for values of children."""
    answers = []
    ask = ChildValues._asked

    def noted(self, future, node, offset, how_far):
        answers.append(ask(self, future, node, offset, how_far))
        return answers[-1]

    monkeypatch.setattr(ChildValues, "_asked", noted)
    return answers


@pytest.fixture
def runner(process_client):
    return DaskTaskRunner(cluster=process_client)


ORDERS = {
    "one after the other": lambda futures: [f.result() for f in futures],
    "as they end": lambda futures: [f.result() for f in as_completed(futures)],
    "backwards": lambda futures: [f.result() for f in reversed(futures)],
}


@pytest.mark.slow
@pytest.mark.parametrize("order", ORDERS)
def test_children_that_are_read_in_order_come_many_at_once(order, runner, asked):
    @flow(task_runner=runner)
    def reads():
        futures = row.map(range(2_000))
        futures.wait()
        found = [value["id"] for value in ORDERS[order](futures)]
        return found, len({segment.start for segment in futures.states.segments})

    found, blocks = reads()
    assert sorted(found) == list(range(2_000))
    # 16, 32, 64, 128 and then 256 kB, of half a megabyte; a block may be asked for in
    # vain before the scheduler knows of its end.
    assert 0 < len(asked) <= 5 * blocks + 2


@pytest.mark.slow
def test_what_was_read_ahead_stays_within_bounds(runner):
    @flow(task_runner=runner)
    def reads():
        maps = [row.map(range(3_000)) for _ in range(WINDOWS + 3)]
        session = maps[0]._handle.session
        windows = session._engine._child_values._windows
        most = 0
        for index in range(0, 3_000, 150):
            for number, futures in enumerate(maps):
                assert futures[index].result()["id"] == index, number
            most = max(most, len(windows))
            assert all(window.size() <= AHEAD for window in windows.values())
        return most, windows

    most, windows = reads()
    assert 0 < most <= WINDOWS
    assert not windows


@pytest.mark.slow
def test_a_value_is_nobody_elses(runner):
    @flow(task_runner=runner)
    def reads():
        futures = row.map(range(1_000))
        futures[7].result()["id"] = "changed"
        return futures[7].result()["id"], futures[7].result() is futures[7].result()

    assert reads() == (7, False)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1_000, 20_000])
def test_children_are_read_while_their_map_runs(count, runner):
    @flow(task_runner=runner)
    def early():
        futures = row.map(range(count))
        return [
            future.result()["id"]
            for future, _ in zip(as_completed(futures), range(50), strict=False)
        ]

    @flow(task_runner=runner)
    def last_first():
        futures = row.map(range(count))
        return futures[count - 1].result()["id"], futures[count // 2].result()["id"]

    for _ in range(4):
        assert len(set(early())) == 50
        assert last_first() == (count - 1, count // 2)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_value_is_read_where_all_threads_are_busy(tmp_path):
    begun, go = tmp_path / "begun", tmp_path / "go"

    @task
    def busy():
        begun.touch()
        return wait_until(go.exists, 20)

    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0"
        ) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):

        @flow(task_runner=DaskTaskRunner(cluster=client))
        def reads():
            futures = row.map(range(1_000))
            futures.wait()
            later = busy.submit()
            assert wait_until(begun.exists, 20)
            found = futures[5].result()["id"], later.done()
            go.touch()
            return found, later.result()

        assert reads() == ((5, False), True)


@pytest.mark.slow
def test_what_no_worker_answers_is_left_to_dask(runner, monkeypatch):
    """A worker may die, or have handed the block on, just when it is asked."""
    monkeypatch.setattr(ChildValues, "_asked", lambda *_: None)

    @flow(task_runner=runner)
    def reads():
        return row.map(range(500))[3].result()["id"]

    assert reads() == 3


@pytest.mark.slow
def test_a_large_child_comes_alone(runner, asked):
    @task
    def large(i):
        return bytes([i]) * (AHEAD + 1)

    @flow(task_runner=runner)
    def reads():
        futures = large.map(range(4))
        return [futures[i].result()[0] for i in (2, 2, 0, 2, 0)]

    assert reads() == [2, 2, 0, 2, 0]
    # Not as bytes: that would be one copy more on its worker. The scheduler may not
    # know yet who has a block whose report is there.
    found = [answer for answer in asked if answer is not None]
    assert found
    assert {type(answer) for answer in found} == {PlainValue}


def test_the_bytes_of_a_window_are_those_in_memory():
    window = fetching.Window(0, (b"abc", None))
    assert window.size() == getsizeof(b"abc") + getsizeof(None)
