"""A run never waits for a lock that is not freed before the wait has ended."""

import asyncio

import pytest

from prefect_dask_core import Flow, flow, task
from prefect_dask_core.errors import SelfLockError
from prefect_dask_core.results import INPUTS, CachePolicy, ResultStore
from prefect_dask_core.results.locks import MemoryLockManager
from prefect_dask_core.results.transaction_blocks import atransaction, transaction

SERIAL = INPUTS.configure(isolation_level="SERIALIZABLE")

#: One key for all runs.
ALONE = CachePolicy.from_cache_key_fn(lambda ctx, given: "total").configure(
    isolation_level="SERIALIZABLE"
)
#: Long enough for any wait that ends.
pytestmark = pytest.mark.timeout(60)


#: Futures of runs that a body has submitted and nobody waits for.
LEFT = []


def leave(future):
    """Keep a future; found by its name, so not copied with a body that travels."""
    LEFT.append(future)


def calls(kept):
    """Bodies that reach a task with the key of the one that they are of."""

    @task(cache_policy=SERIAL, result_storage=kept, name="inner")
    def inner(x):
        return x

    @task(cache_policy=SERIAL, result_storage=kept, name="inner_async")
    async def inner_async(x):
        return x

    @flow
    def subflow(x):
        return inner(x)

    @flow
    def submitting(x):
        return inner.submit(x)

    def graph(x):
        with Flow("graph") as made:
            found = inner(x)
        state = made.run()
        return state[found].result()

    @task
    def between(x):
        return inner.submit(x).result()

    def in_block(x):
        with transaction():
            return inner(x)

    return {
        "called": inner,
        "submitted": lambda x: inner.submit(x).result(),
        "mapped": lambda x: inner.map([x]).result(),
        "submitted and left": lambda x: leave(inner.submit(x)),
        "in a flow": subflow,
        "submitted in a flow": submitting,
        "in a graph flow": graph,
        "below another task": between,
        "submitted below": lambda x: between.submit(x).result(),
        "in a transaction": in_block,
        "coroutine": lambda x: asyncio.run(inner_async(x)),
    }


WAYS = sorted(calls(None))


@pytest.mark.parametrize("way", WAYS)
def test_a_body_that_reaches_its_own_key_is_refused(flow_runner, tmp_path, way):
    reach = calls(tmp_path)[way]

    @task(cache_policy=SERIAL, result_storage=tmp_path)
    def outer(x):
        return reach(x)

    @flow(task_runner=flow_runner)
    def run():
        return outer.submit(3, return_state=True)

    LEFT.clear()
    state = run(return_state=True)
    found = state.states["outer-0"]
    if way == "submitted and left":
        assert found.is_successful()  # the body itself is well
        (left,) = LEFT
        left.wait(30)
        found = left.state
    error = found.data
    assert isinstance(error, SelfLockError), found
    assert "would wait for ever for the lock of the key" in str(error)
    assert "'outer-0' has it, which waits for" in str(error)


def test_a_task_that_calls_itself_with_the_same_arguments_is_refused(tmp_path):
    @task(cache_policy=SERIAL, result_storage=tmp_path)
    def down(x):
        # A slip: it should be x - 1.
        return 0 if x == 0 else down(x)

    with pytest.raises(SelfLockError, match="'down' has it, which waits for 'down-0'"):
        down(3)
    assert down(0) == 0


def test_a_task_that_calls_itself_with_others_is_not(flow_runner, tmp_path):
    @task(cache_policy=SERIAL, result_storage=tmp_path)
    def down(x):
        return 0 if x == 0 else 1 + down(x - 1)

    @flow(task_runner=flow_runner)
    def run():
        return down.submit(3).result()

    assert run() == 3


def test_coroutines_that_reach_their_own_key_are_refused(flow_runner, tmp_path):
    @task(cache_policy=SERIAL, result_storage=tmp_path)
    async def down(x):
        return 0 if x == 0 else await down(x)

    @flow(task_runner=flow_runner)
    def run():
        return down.map([0, 1, 2], return_state=True)

    ended = run(return_state=True).states["down-0"]
    assert ended[0].result() == 0
    for child in (ended[1], ended[2]):
        assert isinstance(child.data, SelfLockError)


def test_locks_of_the_user_s_own_are_looked_through_as_well(tmp_path):
    serial = SERIAL.configure(lock_manager=MemoryLockManager())

    @task(cache_policy=serial, result_storage=tmp_path / "one")
    def inner(x):
        return x

    @task(cache_policy=serial, result_storage=tmp_path / "two")
    def outer(x):
        return inner(x)

    # One lock manager excludes by key, whatever the store.
    with pytest.raises(SelfLockError, match="'outer' has it"):
        outer(1)


def test_another_store_in_a_folder_has_locks_of_its_own(tmp_path):
    @task(cache_policy=SERIAL, result_storage=tmp_path / "one")
    def inner(x):
        return x

    @task(cache_policy=SERIAL, result_storage=tmp_path / "two")
    def outer(x):
        return inner(x)

    assert outer(1) == 1


def test_what_a_transaction_submits_does_not_wait_for_its_end(flow_runner, tmp_path):
    @task(cache_policy=SERIAL, result_storage=tmp_path)
    def load(x):
        return x

    store = ResultStore(tmp_path)

    @task
    def again():
        with transaction("mine", store, isolation_level="SERIALIZABLE"):
            return load(1)

    @flow(task_runner=flow_runner)
    def run():
        with transaction("mine", store, isolation_level="SERIALIZABLE"):
            called = load(1)
            return called, load.submit(1).result(), again.submit().result()

    assert run() == (1, 1, 1)


def test_a_transaction_in_a_body_is_refused_the_key_of_a_run_around(tmp_path):
    store = ResultStore(tmp_path)
    key = {}

    @task(
        cache_policy=ALONE,
        result_storage=store,
    )
    def total(x):
        with transaction("total", store, isolation_level="SERIALIZABLE"):
            key["reached"] = True
        return x

    with pytest.raises(SelfLockError, match="'total' has it"):
        total(1)
    assert not key


def test_an_asynchronous_transaction_is_refused_too(tmp_path):
    store = ResultStore(tmp_path)

    @task(
        cache_policy=ALONE,
        result_storage=store,
    )
    async def total(x):
        async with atransaction("total", store, isolation_level="SERIALIZABLE"):
            return x

    with pytest.raises(SelfLockError, match="'total' has it"):
        asyncio.run(total(1))
