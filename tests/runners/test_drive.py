"""Steps of a run where it was called: interrupted, closed, limited, awaited."""

import asyncio
import threading
import time

import pytest

from prefect_dask_core import ThreadPoolTaskRunner, context, flow, runtime, task
from prefect_dask_core.errors import FlowTimeoutError, TaskTimeoutError
from prefect_dask_core.states import Cancelled
from tests.leftovers import wait_until
from tests.small_tasks import double


def sessions():
    """Threads of sessions that are open."""
    return {
        thread.ident
        for thread in threading.enumerate()
        if thread.name == "prefect-dask-core-session"
    }


async def cancelled_after(seconds, running):
    future = asyncio.ensure_future(running)
    await asyncio.sleep(seconds)
    future.cancel()
    with pytest.raises(asyncio.CancelledError):
        await future


# -- interrupted -------------------------------------------------------------------


def test_an_asynchronous_flow_that_waits_for_its_next_attempt_can_be_cancelled(
    flow_runner,
):
    ends = []

    @flow(
        task_runner=flow_runner,
        retries=1,
        retry_delay_seconds=60,
        on_cancellation=[lambda f, r, state: ends.append(set(state.states))],
    )
    async def flaky():
        double.submit(1)
        raise ValueError("once more")

    before = sessions()
    asyncio.run(cancelled_after(0.2, flaky()))
    assert ends == [{"double-0"}]
    assert wait_until(lambda: sessions() <= before)


def test_what_a_cancelled_body_has_submitted_is_ended(flow_runner):
    @task
    async def waits():
        double.submit(1)
        await asyncio.sleep(60)

    before = sessions()
    with context(_task_runner=flow_runner):
        asyncio.run(cancelled_after(0.2, waits()))
    assert wait_until(lambda: sessions() <= before)


def test_an_asynchronous_flow_that_waits_for_its_end_can_be_cancelled():
    ends = []
    released = threading.Event()

    @task
    def hold():
        released.wait(30)

    @flow(
        task_runner=ThreadPoolTaskRunner(2),
        on_cancellation=[lambda f, r, state: ends.append(state["hold-0"])],
    )
    async def waits():
        hold.submit()

    before = sessions()
    try:
        asyncio.run(cancelled_after(0.3, waits()))
    finally:
        released.set()
    assert [type(state) for state in ends] == [Cancelled]
    assert wait_until(lambda: sessions() <= before)


def test_a_flow_that_is_interrupted_while_it_waits_for_its_end_is_cancelled(
    monkeypatch,
):
    ends = []
    runner = ThreadPoolTaskRunner(1)
    opened = runner.session

    def session(*args):
        made = opened(*args)
        close = made.close

        def interrupted_once():
            made.close = close
            raise KeyboardInterrupt

        made.close = interrupted_once
        return made

    monkeypatch.setattr(runner, "session", session)

    @flow(
        task_runner=runner,
        on_cancellation=[lambda f, r, state: ends.append(state["double-0"].name)],
    )
    def waits():
        double.submit(1).wait()

    before = sessions()
    with pytest.raises(KeyboardInterrupt):
        waits()
    assert ends == ["Completed"]
    assert wait_until(lambda: sessions() <= before)


# -- generators --------------------------------------------------------------------


def test_what_a_closed_generator_has_submitted_is_ended(flow_runner):
    @task
    def numbers():
        double.submit(1)
        try:
            yield 1
        finally:
            names.append(runtime.task_run.task_name)

    @task
    async def later_numbers():
        double.submit(1)
        try:
            yield 1
        finally:
            names.append(runtime.task_run.task_name)

    async def read_one():
        found = later_numbers()
        async for value in found:
            assert value == 1
            break
        await found.aclose()

    names = []
    before = sessions()
    with context(_task_runner=flow_runner):
        found = numbers()
        assert next(found) == 1
        found.close()
        asyncio.run(read_one())
    assert names == ["numbers", "later_numbers"]
    assert wait_until(lambda: sessions() <= before)


def test_what_a_generator_raises_when_it_is_closed_comes_out_and_ends_the_run():
    ends = []

    def numbers():
        try:
            yield 1
        finally:
            raise KeyError("on the way out")

    @task(retries=3)
    def task_numbers():
        yield from numbers()

    @flow(retries=3, on_failure=[lambda f, r, state: ends.append(state.message)])
    def flow_numbers():
        yield from numbers()

    for made in (task_numbers, flow_numbers):
        found = made()
        next(found)
        with pytest.raises(KeyError, match="on the way out"):
            found.close()
    assert ends == ["KeyError: 'on the way out'"]


@pytest.mark.parametrize(
    ("make", "error"), [(task, TaskTimeoutError), (flow, FlowTimeoutError)]
)
def test_an_asynchronous_generator_ends_at_its_limit(make, error):
    ended = []

    @make(timeout_seconds=0.1)
    async def endless():
        try:
            yield 1
            await asyncio.sleep(30)
            yield 2
        finally:
            ended.append("cleaned up")

    async def read():
        async for value in endless():
            found.append(value)

    found = []
    with pytest.raises(error):
        asyncio.run(read())
    assert found == [1]
    assert ended == ["cleaned up"]


def test_a_generator_ends_at_its_limit_between_two_values(flow_runner):
    @task(timeout_seconds=0.1)
    def endless():
        double.submit(1)
        while True:
            time.sleep(0.01)
            yield 1

    before = sessions()
    with context(_task_runner=flow_runner), pytest.raises(TaskTimeoutError):
        list(endless())
    assert wait_until(lambda: sessions() <= before)


def test_values_and_errors_are_sent_into_generators_of_both_kinds():
    @task
    def echo():
        value = None
        while True:
            try:
                value = yield value
            except KeyError:
                value = "caught"

    @task(timeout_seconds=30)
    async def later_echo():
        value = None
        while True:
            try:
                value = yield value
            except KeyError:
                value = "caught"

    found = echo()
    assert [next(found), found.send(1), found.throw(KeyError())] == [None, 1, "caught"]
    found.close()

    async def exchange():
        found = later_echo()
        told = [
            await anext(found),
            await found.asend(1),
            await found.athrow(KeyError()),
        ]
        await found.aclose()
        return told

    assert asyncio.run(exchange()) == [None, 1, "caught"]


# -- event loops -------------------------------------------------------------------


@pytest.mark.timeout(60)
def test_many_asynchronous_bodies_wait_for_what_they_submitted(flow_runner):
    @task
    async def leaf(x):
        return 2 * x

    @task
    async def middle(x):
        return leaf.submit(x)

    @task
    async def outer(x):
        return middle.submit(x)

    @flow(task_runner=flow_runner)
    def nested():
        return outer.map(range(40))

    assert nested() == [2 * x for x in range(40)]
