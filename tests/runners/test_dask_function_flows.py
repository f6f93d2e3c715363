"""Function flows on Dask: worker processes, one thread only, and what stays behind."""

import asyncio
import os
import threading
import time

import pytest
from distributed import Client, LocalCluster, get_worker

from prefect_dask_core import DaskTaskRunner, flow, task
from prefect_dask_core.errors import (
    FutureOfAnotherRun,
    MissingResult,
    RemoteTaskError,
)
from prefect_dask_core.runners import _private
from prefect_dask_core.states import (
    Cancelled,
    Completed,
    Crashed,
    Failed,
    State,
    TriggerFailed,
)
from prefect_dask_core.triggers import all_finished
from tests.leftovers import tasks_on, topics_on, wait_until

ONE_THREAD = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": ":0"}
LARGE = 1_000_000  # bytes: a value that does not come home by itself

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]


@task
def inc(x):
    return x + 1


@task
def total(xs):
    return sum(xs)


@task
def large(n=LARGE):
    return b"x" * n


@task
def size(x):
    return len(x)


@task
def die(x=None):
    time.sleep(0.05)
    os._exit(1)


@task
def maybe_die(x):
    if x == 3:
        os._exit(1)
    return x


@task(trigger=all_finished)
def clean(x=None):
    return "clean"


@pytest.fixture
def runner(process_client):
    return DaskTaskRunner(cluster=process_client)


@pytest.fixture(scope="module")
def narrow_cluster():
    """One worker process with one thread."""
    with LocalCluster(**ONE_THREAD) as made:
        yield made


@pytest.fixture
def narrow(narrow_cluster):
    """Runner of that worker."""
    with Client(narrow_cluster, set_as_default=False) as made:
        yield DaskTaskRunner(cluster=made)


def kinds(states):
    return [type(state).__name__ for state in states]


# -- places ------------------------------------------------------------------------


def test_runs_are_on_the_workers(runner, process_client):
    @task
    def where(x):
        time.sleep(0.1)
        return get_worker().address, os.getpid()

    @flow(task_runner=runner)
    def places():
        return where.submit(0).result(), where.map(range(6)).result()

    one, many = places()
    workers = set(process_client.scheduler_info()["workers"])
    assert {address for address, _ in [one, *many]} == workers
    assert os.getpid() not in {pid for _, pid in [one, *many]}


def test_two_flows_at_once_do_not_see_each_other(runner, process_client):
    @flow(task_runner=runner)
    def summed(n):
        values = inc.map(range(n))
        more = [inc.submit(value) for value in values]
        return total(values) + total(more) + total.submit(values).result()

    found = {}

    def run(n):
        found[n] = summed(n)

    threads = [threading.Thread(target=run, args=(n,)) for n in (5, 30, 60)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    expected = {n: 2 * sum(range(1, n + 1)) + sum(range(2, n + 2)) for n in (5, 30, 60)}
    assert found == expected
    assert wait_until(lambda: not tasks_on(process_client)), tasks_on(process_client)


def test_a_flow_inside_a_task_needs_no_second_thread(narrow):
    @flow
    def inner(x):
        return total.submit(inc.map([x, x])).result()

    @task
    def outer(x):
        return inner(x)

    @flow(task_runner=narrow)
    def nested():
        return outer.submit(1).result(), outer.map([1, 2, 3]).result()

    assert nested() == (4, [4, 6, 8])


def test_a_task_that_submits_needs_no_second_thread(narrow):
    @task
    def outer(x):
        first = inc.submit(x)
        return first.result() + sum(inc.map([x, first]).result())

    @task
    def outermost(x):
        return outer.submit(x).result()

    @flow(task_runner=narrow)
    def nested():
        return outermost.submit(1).result(), outer.map([1, 2]).result()

    assert nested() == (7, [7, 10])


def test_a_task_with_a_limit_that_submits_needs_no_second_thread(narrow):
    @task(timeout_seconds=30)
    def outer(x):
        return inc.submit(inc.submit(x)).result()

    @flow(task_runner=narrow)
    def nested():
        return outer.map([1, 2, 3]).result()

    assert nested() == [3, 4, 5]


def test_an_asynchronous_task_that_submits_needs_no_second_thread(narrow):
    @task
    async def outer(x):
        return await inc.submit(x) + sum(await inc.map([x, x]))

    @flow(task_runner=narrow)
    def nested():
        return outer.map([1, 2, 3]).result()

    assert nested() == [6, 9, 12]


def test_a_flow_runs_below_a_running_event_loop(runner):
    @flow(task_runner=runner)
    def plain():
        return total.submit(inc.map([1, 2])).result()

    async def notebook():
        return plain()

    assert asyncio.run(notebook()) == 5


def test_an_asynchronous_flow_runs(runner):
    @flow(task_runner=runner)
    async def awaited():
        values = inc.map([1, 2])
        first, second = await asyncio.gather(total.submit(values), inc.submit(1))
        return first, second, await values

    async def both():
        return await asyncio.gather(awaited(), awaited())

    assert asyncio.run(both()) == [(5, 2, [2, 3])] * 2


# -- deaths ------------------------------------------------------------------------


def test_a_submitted_task_that_kills_its_worker_crashes_alone(runner):
    @flow(task_runner=runner)
    def deaths():
        apart = inc.submit(1)
        killed = die.submit()
        below = inc.submit(killed)
        cleanup = clean.submit(killed)
        return [apart, killed, below, cleanup]

    state = deaths(return_state=True)
    found = [state.states[n] for n in ("inc-0", "die-0", "inc-1", "clean-0")]
    assert kinds(found) == ["Completed", "Crashed", "TriggerFailed", "Completed"]
    assert "died while running it" in found[1].message
    assert found[3].result() == "clean"
    assert isinstance(state, Failed)


def test_a_child_that_kills_its_worker_crashes_alone(runner):
    @flow(task_runner=runner)
    def deaths():
        many = maybe_die.map(range(8))
        again = inc.map(many)
        cleanup = clean.submit(again)
        many.wait()
        return {
            "many": kinds(many.states),
            "again": kinds(again.states),
            "cleanup": cleanup.result(),
            "last": many[7].result(),
        }

    found = deaths()
    expected = ["Crashed" if n == 3 else "Completed" for n in range(8)]
    assert found["many"] == expected
    refused = ["TriggerFailed" if kind == "Crashed" else kind for kind in expected]
    assert found["again"] in (expected, refused)
    assert (found["cleanup"], found["last"]) == ("clean", 7)


def test_what_is_submitted_after_a_death_runs(runner):
    @flow(task_runner=runner)
    def deaths():
        killed = die.submit()
        killed.wait()
        after = inc.submit(1)
        below = inc.submit(killed)
        below.wait()
        assert isinstance(killed.result(raise_on_failure=False), Exception)
        return after.result(), type(below.state)

    assert deaths() == (2, TriggerFailed)


# -- what cannot travel ------------------------------------------------------------


class Unpicklable(Exception):
    def __init__(self, told):
        super().__init__(told)
        self.lock = threading.Lock()


class NeedsTwo(Exception):
    """Pickles, and cannot be unpickled."""

    def __init__(self, one, two):
        super().__init__(f"{one} and {two}")

    def __reduce__(self):
        return type(self), self.args


@pytest.mark.parametrize("mapped", [False, True], ids=["submit", "map"])
@pytest.mark.parametrize("kind", [Unpicklable, NeedsTwo])
def test_an_exception_that_cannot_be_pickled_is_told(runner, kind, mapped):
    @task
    def fail(x):
        raise kind("left") if kind is Unpicklable else kind("left", "right")

    @flow(task_runner=runner)
    def fails():
        future = fail.map([1])[0] if mapped else fail.submit(1)
        future.wait()
        with pytest.raises(RemoteTaskError, match=f"{kind.__name__}: left"):
            future.result()
        return type(future.state), inc.submit(1).result()

    assert fails() == (Failed, 2)


def test_a_result_that_cannot_be_pickled_fails_its_run(runner):
    @task
    def lock(x):
        return threading.Lock() if x else x

    @flow(task_runner=runner)
    def locks():
        one, many = lock.submit(1), lock.map([0, 1, 0])
        below = inc.submit(one)
        for future in (one, below, *many):
            future.wait()
        with pytest.raises(TypeError, match="value of lock cannot be pickled"):
            one.result()
        with pytest.raises(TypeError, match="value of lock cannot be pickled"):
            many[1].result()
        found = [type(future.state) for future in (one, below, *many)]
        return found, many[2].result()

    expected = [Failed, TriggerFailed, Completed, Failed, Completed]
    assert locks() == (expected, 0)


def test_an_argument_that_cannot_be_pickled_fails_its_run(runner):
    held = threading.Lock()

    @flow(task_runner=runner)
    def locks():
        good = inc.submit(1)
        bad = [inc.submit(held), size.submit([held]), *inc.map([held])]
        below = inc.submit(bad[0])
        for future in (good, *bad, below):
            future.wait(30)
        told = [future.state.message for future in bad]
        assert all("cannot be pickled" in message for message in told), told
        return [type(future.state) for future in (good, *bad, below)]

    assert locks() == [Completed, Failed, Failed, Failed, TriggerFailed]


def test_a_definition_that_cannot_be_pickled_is_refused_at_once(runner):
    held = threading.Lock()

    @task
    def hold(x):
        return held

    @flow(task_runner=runner)
    def locks():
        with pytest.raises(TypeError, match="lock"):
            hold.submit(1)
        return inc.submit(1).result()

    assert locks() == 2


def test_a_future_of_another_run_is_refused(runner):
    kept = []

    @flow(task_runner=runner)
    def first():
        kept.append(inc.submit(1))

    @flow(task_runner=runner)
    def second():
        with pytest.raises(FutureOfAnotherRun, match="another"):
            inc.submit(kept[0])
        return kept[0].result()

    first()
    assert second() == 2


# -- values ------------------------------------------------------------------------


def test_an_unfinished_future_that_is_returned_is_waited_for(runner):
    @task
    def slow(x):
        time.sleep(0.5)
        return x

    @flow(task_runner=runner)
    def returned():
        return slow.submit(1)

    @flow(task_runner=runner)
    def returned_in_a_dict():
        return {"one": slow.submit(1), "many": slow.map([2, 3])}

    assert returned() == 1
    assert returned_in_a_dict() == {"one": 1, "many": [2, 3]}


def test_nothing_that_was_submitted_is_dropped(runner, tmp_path):
    @task
    def touch(name):
        time.sleep(0.2)
        (tmp_path / name).touch()

    @flow(task_runner=runner)
    def forgets():
        touch.submit("a")
        touch.map(["b", "c"])

    forgets()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "b", "c"]


def test_large_values_are_read_in_any_way(runner):
    @flow(task_runner=runner)
    def reads():
        one, many = large.submit(), large.map([LARGE, LARGE + 1, LARGE + 2])
        sizes = size.submit(one), size.map(many), size.submit(many[1])
        found = [sizes[0].result(), sizes[1].result(), sizes[2].result()]
        return found, len(one.result()), len(many[2].result()), len(many.result()[0])

    sizes = [LARGE, [LARGE, LARGE + 1, LARGE + 2], LARGE + 1]
    assert reads() == (sizes, LARGE, LARGE + 2, LARGE)


def test_large_values_are_read_long_after_their_end(runner):
    @flow(task_runner=runner)
    def reads():
        one, many = large.submit(), large.map([LARGE, 2 * LARGE])
        one.wait()
        many.wait()
        time.sleep(0.3)
        return (
            size.submit(one).result(),
            size.map(many).result(),
            size.submit([many[1], one]).result(),
            size.map(one).wait(0.0),
            len(many[0].result()),
        )

    assert reads() == (LARGE, [LARGE, 2 * LARGE], 2, None, LARGE)


def test_a_large_value_is_asked_for_after_the_flow_has_ended(runner, process_client):
    kept = []

    @flow(task_runner=runner)
    def keeps():
        kept.extend([large.submit(), large.map([LARGE, 7])])

    state = keeps(return_state=True)
    one, many = kept
    assert len(one.result()) == LARGE
    assert [len(future.result()) for future in many] == [LARGE, 7]
    assert len(state.states["large-0"].result()) == LARGE
    kept.clear()
    del one, many, state
    assert wait_until(lambda: not tasks_on(process_client)), tasks_on(process_client)


def test_values_come_home_from_a_temporary_cluster():
    kept = []

    @flow(task_runner=DaskTaskRunner(cluster_kwargs=ONE_THREAD))
    def keeps():
        kept.extend([large.submit(), large.map([LARGE, 7]), inc.submit(1)])
        return kept[0]

    assert len(keeps()) == LARGE
    one, many, small = kept
    assert len(one.result()) == LARGE
    assert [len(future.result()) for future in many] == [LARGE, 7]
    assert small.result() == 2


# -- what is left behind -----------------------------------------------------------


def test_values_are_released_with_the_last_future(runner, process_client):
    @flow(task_runner=runner)
    def drops():
        one, many = large.submit(), large.map([LARGE, LARGE])
        one.wait()
        many.wait()
        during = len(tasks_on(process_client))
        del one, many
        gone = wait_until(lambda: not tasks_on(process_client))
        return during > 0, gone

    assert drops() == (True, True)


def test_nothing_stays_on_the_scheduler(runner, process_client):
    before = set(topics_on(process_client))

    @task(retries=1)
    def fail(x):
        raise ValueError(x)

    @flow(task_runner=runner)
    def everything():
        many = inc.map(range(20))
        value = large.submit()
        fail.submit(1)
        clean.submit(fail.submit(many))
        size.submit([value, *many])
        return total.submit(many)

    for _ in range(20):
        state = everything(return_state=True)
        assert state.result() == 210
    del state
    assert wait_until(lambda: not tasks_on(process_client)), tasks_on(process_client)
    assert set(topics_on(process_client)) <= before


def test_nothing_stays_of_what_tasks_submit(narrow):
    @task
    def outer(x):
        return inc.submit(x).result()

    @flow(task_runner=narrow)
    def nested():
        return outer.map(range(5)).result()

    for _ in range(3):
        assert nested() == [1, 2, 3, 4, 5]
    client = narrow.cluster
    assert wait_until(lambda: not tasks_on(client)), tasks_on(client)
    assert not topics_on(client)


# -- ends --------------------------------------------------------------------------


def test_an_interrupted_flow_leaves_nothing_running(
    runner, process_client, tmp_path, monkeypatch
):
    monkeypatch.setattr(_private, "SWEPT_AFTER", 0.5)  # the scheduler is in here
    before = set(topics_on(process_client))

    @task
    def slow(x):
        time.sleep(0.3)
        (tmp_path / str(x)).touch()

    @flow(task_runner=runner)
    def interrupted():
        slow.map(range(200))
        time.sleep(0.5)
        raise KeyboardInterrupt

    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert time.monotonic() - begin < 10
    assert wait_until(lambda: not tasks_on(process_client)), tasks_on(process_client)
    time.sleep(0.4)
    ran = len(list(tmp_path.iterdir()))
    time.sleep(0.7)
    assert len(list(tmp_path.iterdir())) == ran < 20
    assert wait_until(lambda: set(topics_on(process_client)) <= before)


def test_a_cluster_that_closes_ends_the_flow():
    made = LocalCluster(**{**ONE_THREAD, "processes": False})
    options = {"timeout": "1 s"}
    runner = DaskTaskRunner(address=made.scheduler_address, client_kwargs=options)

    @task
    def slow(x):
        time.sleep(3)

    @flow(task_runner=runner)
    def left():
        future = slow.submit(1)
        many = slow.map([1, 2])
        below = clean.submit(future)
        timer = threading.Timer(0.5, made.close)
        timer.start()
        for one in (future, below):
            one.wait(30)
        many.wait(30)
        timer.join()
        late = inc.submit(1)
        late.wait(5)
        return [type(one.state) for one in (future, below, late)], kinds(many.states)

    state = left(return_state=True)
    assert isinstance(state, State)
    assert state.is_final()
    found, children = state.result()
    assert found[:2] == [Crashed, Crashed]
    assert found[2] in (Crashed, Cancelled)
    assert children == ["Crashed", "Crashed"]


def test_a_flow_is_tried_again(runner):
    tried = []

    @flow(task_runner=runner, retries=2)
    def flaky():
        tried.append(inc.submit(len(tried)).result())
        if len(tried) < 3:
            raise ValueError("again")
        return tried

    assert flaky() == [1, 2, 3]


def test_a_flow_that_ends_at_its_limit_cancels_what_it_submitted(
    runner, process_client
):
    @task
    def slow(x):
        time.sleep(0.2)

    @flow(task_runner=runner, timeout_seconds=1)
    def late():
        slow.map(range(500))
        time.sleep(30)

    begin = time.monotonic()
    state = late(return_state=True)
    assert time.monotonic() - begin < 10
    assert type(state).__name__ == "TimedOut"
    del state
    assert wait_until(lambda: not tasks_on(process_client)), tasks_on(process_client)


def test_a_dropped_value_says_that_it_is_gone(runner):
    @flow(task_runner=runner)
    def drops():
        large.submit()
        return 1

    state = drops(return_state=True)
    with pytest.raises(MissingResult):
        state.states["large-0"].result()
