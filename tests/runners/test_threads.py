"""The thread runner and the sequential one: where and when bodies run."""

import _thread
import gc
import threading
import time
import weakref

import pytest

from prefect_dask_core import (
    DaskTaskRunner,
    Flow,
    SequentialTaskRunner,
    Task,
    ThreadPoolTaskRunner,
    task,
    unmapped,
)
from prefect_dask_core.engine.fanout import MOST_BROUGHT
from prefect_dask_core.errors import MissingResult


class Busy:
    """Counts the bodies that run at once."""

    def __init__(self):
        self.lock = threading.Lock()
        self.now = self.most = 0

    def __call__(self, x=None):
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        with self.lock:
            self.now -= 1
        return x


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_no_more_bodies_run_at_once_than_there_are_threads(threads):
    busy = Busy()
    with Flow("busy") as flow:
        Task(busy, name="busy").map(range(20))
        for _ in range(10):
            Task(busy, name="busy")()
    assert flow.run(task_runner=ThreadPoolTaskRunner(threads)).is_successful()
    assert busy.most == threads


@pytest.mark.parametrize("threads", [1, 3])
def test_a_wait_for_a_retry_lends_its_place(threads):
    busy, first = Busy(), threading.Event()

    def flaky(x):
        if not first.is_set():
            first.set()
            raise ValueError
        return busy(x)

    with Flow("lend") as flow:
        Task(flaky, name="flaky", retries=1, retry_delay_seconds=0.3).map(range(30))
    assert flow.run(task_runner=ThreadPoolTaskRunner(threads)).is_successful()
    assert busy.most == threads


def test_the_sequential_runner_runs_everything_in_the_calling_thread():
    @task
    def thread(x=None):
        return threading.get_ident()

    with Flow("one thread") as flow:
        one, many = thread(), thread.map([1, 2, 3])
    state = flow.run(task_runner=SequentialTaskRunner())
    assert {state[one].result(), *state[many].result()} == {threading.get_ident()}


def test_the_sequential_runner_runs_node_after_node():
    ran = []

    def note(name):
        return Task(lambda x=None: ran.append(name), name=name)

    with Flow("order") as flow:
        first = note("first").map([1, 2])
        note("third")(note("second").map(first))
    flow.run(task_runner=SequentialTaskRunner())
    assert ran == ["first", "first", "second", "second", "third"]


def test_threads_run_a_lane_child_by_child():
    ran = []

    def note(name):
        return Task(lambda x: ran.append((name, x)) or x, name=name)

    with Flow("depth first") as flow:
        note("b").map(note("a").map([1, 2]))
    flow.run(task_runner=ThreadPoolTaskRunner(1))
    assert ran == [("a", 1), ("b", 1), ("a", 2), ("b", 2)]


class Value:
    """A value whose life can be watched."""


@pytest.mark.parametrize("make", [SequentialTaskRunner, ThreadPoolTaskRunner])
def test_a_run_leaves_no_value_behind(make):
    seen = []

    @task
    def value(x):
        made = Value()
        seen.append(weakref.ref(made))
        return made

    @task
    def count(values):
        return len(values)

    with Flow("memory") as flow:
        counted = count(value.map(range(5)))
    state = flow.run(task_runner=make())
    assert state[counted].result() == 5
    del state
    for _ in range(100):
        gc.collect()
        if not any(ref() for ref in seen):
            break
        time.sleep(0.02)  # a thread of the pool may just be ending
    assert not any(ref() for ref in seen)


def test_no_thread_is_left_running():
    before = threading.active_count()
    with Flow("threads") as flow:
        Task(lambda x: x, name="quick").map(range(100))
    for _ in range(5):
        flow.run(task_runner=ThreadPoolTaskRunner(4))
    until = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < until:
        time.sleep(0.02)
    assert threading.active_count() <= before


def test_a_runner_may_be_used_by_several_threads_at_once():
    with Flow("shared") as flow:
        many = Task(lambda x, y: x + y, name="add").map(range(50), unmapped(1))
    runner, results = ThreadPoolTaskRunner(2), []

    def run():
        results.append(flow.run(task_runner=runner)[many].result())

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [list(range(1, 51))] * 4


# -- a person at the keyboard ------------------------------------------------------


def test_an_interrupt_reaches_the_caller(runner):
    started, release = threading.Event(), threading.Event()
    ran = []

    # Nothing of this may travel: the body shares its events with the test.
    def body(x):
        started.set()
        release.wait(0.5)
        ran.append(x)

    STARTED["event"] = started

    with Flow("interrupted") as flow:
        if isinstance(runner, DaskTaskRunner):
            Task(_start_and_wait, name="slow").map(range(1_000))
        else:
            Task(body, name="slow").map(range(1_000))
    interrupted = threading.Thread(
        target=lambda: started.wait(30) and _thread.interrupt_main()
    )
    interrupted.start()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        flow.run(task_runner=runner)
    release.set()
    interrupted.join()
    # It does not go on for the rest of the thousand.
    assert time.monotonic() - begin < 30
    assert len(ran) < 100


STARTED = {}


def _start_and_wait(x):
    STARTED["event"].set()
    time.sleep(0.05)


def test_values_that_only_the_lane_itself_reads_live_no_longer_than_their_child():
    alive, most = set(), []

    class Value:
        def __init__(self, number):
            self.number = number
            alive.add(id(self))

        def __del__(self):
            alive.discard(id(self))

    def last(value):
        most.append(len(alive))
        return value.number

    with Flow("lane") as flow:
        first = Task(Value, name="first").map(range(MOST_BROUGHT + 1))
        middle = Task(lambda x: Value(x.number), name="middle").map(first)
        end = Task(last, name="last").map(middle)
    state = flow.run(task_runner=ThreadPoolTaskRunner(1))
    assert max(most) == 2
    inner, states = state[middle], state[end]
    assert states[MOST_BROUGHT].result() == MOST_BROUGHT
    with pytest.raises(MissingResult, match="return_tasks"):
        inner[0].result()


def test_values_of_a_small_fan_out_come_home_unasked():
    with Flow("lane") as flow:
        first = Task(lambda x: x + 1, name="first").map(range(MOST_BROUGHT))
        Task(lambda x: x + 1, name="last").map(first)
    state = flow.run(task_runner=ThreadPoolTaskRunner(1))
    assert state[first][5].result() == 6


def test_what_a_reader_of_a_shared_block_needs_is_there_when_it_runs_anew():
    """A block hands nodes back, and one that reads them was submitted in between."""
    ran = []

    @task
    def leaf(i):
        time.sleep(0.001 if i < 8 else (0.6 if i == 8 else 0.0))
        return i

    @task
    def child(x):
        time.sleep(0.2)
        return x

    @task
    def after(k, children):
        ran.append(k)
        return k

    with Flow("anew") as flow:
        leaves = [leaf(i) for i in range(40)]
        many = child.map([1, 2])
        last = Task(lambda a, b, c: a + b + c, name="last")(
            leaves[10], after(1, many), after(2, many)
        )
    state = flow.run(task_runner=ThreadPoolTaskRunner(2))
    assert state[last].result() == 13
    assert sorted(ran) == [1, 2]
