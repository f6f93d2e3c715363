"""The shell with real threads and real time, of which it needs little."""

import asyncio
import threading
import time

import pytest

from prefect_dask_core import Flow, Task, ThreadPoolTaskRunner, context, task
from prefect_dask_core.engine.effects import Call, Overran, Raised, Returned
from prefect_dask_core.runners.shell import ThreadShell
from prefect_dask_core.testing import FakeShell

SHORT = 0.1  # seconds: a limit that is to be reached
LONG = 60.0  # seconds: a limit that is not


def call(function, *args, **more):
    return ThreadShell().call(Call(function, args, **more))


def test_what_is_returned_is_the_answer():
    assert call(lambda x, y: x + y, 1, kwargs={"y": 2}) == Returned(3)


@pytest.mark.parametrize("limit", [None, LONG])
@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(2), GeneratorExit()])
def test_whatever_is_raised_is_the_answer(limit, error):
    def fail():
        raise error

    answer = call(fail, timeout=limit)
    assert isinstance(answer, Raised)
    assert answer.error is error


def test_a_coroutine_is_awaited():
    async def later(x):
        await asyncio.sleep(0)
        return x + 1

    assert call(later, 1) == Returned(2)
    assert call(later, 1, timeout=LONG) == Returned(2)


def test_a_coroutine_is_awaited_where_a_loop_runs_already():
    async def later():
        await asyncio.sleep(0)
        return threading.current_thread().name

    async def notebook():
        return call(later)

    answer = asyncio.run(notebook())
    assert answer == Returned("prefect-dask-core-body")


def test_without_a_limit_the_body_runs_in_the_calling_thread():
    assert call(threading.get_ident) == Returned(threading.get_ident())


def test_a_python_body_is_interrupted_at_its_limit():
    ended = threading.Event()

    def forever():
        try:
            while True:
                time.sleep(0.001)
        finally:
            ended.set()

    assert call(forever, timeout=SHORT) == Overran(SHORT, left_behind=False)
    assert ended.wait(10)


def test_a_body_that_swallows_exceptions_is_ended_all_the_same():
    def stubborn():
        while True:
            try:
                while True:
                    time.sleep(0.001)
            except Exception:
                pass

    assert call(stubborn, timeout=SHORT) == Overran(SHORT, left_behind=False)


def test_a_coroutine_is_cancelled_at_its_limit_and_cleans_up():
    cleaned = []

    async def forever():
        try:
            await asyncio.sleep(LONG)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    assert call(forever, timeout=SHORT) == Overran(SHORT, left_behind=False)
    assert cleaned == [True]


def test_a_body_stuck_in_c_is_left_behind():
    released = threading.Event()
    # It would wait for ever: nobody has released it yet.
    answer = call(released.wait, timeout=SHORT)
    assert answer == Overran(SHORT, left_behind=True)
    released.set()


def test_a_body_below_its_limit_is_not_disturbed():
    def work():
        time.sleep(0.01)
        return "done"

    assert [call(work, timeout=LONG) for _ in range(20)] == [Returned("done")] * 20


def test_ending_comes_never_too_late():
    """Bodies that end just at their limit give one of two answers, and nothing else."""
    answers = [call(time.sleep, 0.005, timeout=0.005) for _ in range(100)]
    for answer in answers:
        assert answer in (Returned(None), Overran(0.005), Overran(0.005, True))
    # The exception meant for a body must not reach the thread that asked for it.
    assert call(lambda: 1) == Returned(1)


def test_variables_are_visible_to_the_body_only():
    assert call(lambda: context.color, variables={"color": "blue"}) == Returned("blue")
    assert call(
        lambda: context.color, variables={"color": "red"}, timeout=LONG
    ) == Returned("red")
    assert "color" not in context


def test_an_answer_may_be_waited_for():
    shell = ThreadShell()
    begin = shell.now()
    shell.wait(begin + 0.05)
    assert shell.now() >= begin + 0.05
    shell.wait(begin - 100)


def test_a_stuck_body_gives_its_place_back():
    released = threading.Event()

    @task(timeout_seconds=SHORT)
    def stuck(x):
        released.wait()

    with Flow("stuck") as flow:
        timed_out = stuck.map([1, 2])
        quick = Task(lambda: "done", name="quick")()
    state = flow.run(task_runner=ThreadPoolTaskRunner(1))
    released.set()
    assert [type(child).__name__ for child in state[timed_out]] == ["TimedOut"] * 2
    assert "left behind" in state[timed_out][0].message
    assert state[quick].result() == "done"


# -- the shell for tests -----------------------------------------------------------


def test_the_fake_shell_answers_as_the_real_one():
    async def later(x):
        return x + 1

    error = ValueError("no")

    def fail():
        raise error

    for function, args in ((later, (1,)), (fail, ()), (max, (1, 2))):
        assert FakeShell().call(Call(function, args)) == call(function, *args)


def test_the_fake_shell_never_waits():
    shell = FakeShell(start=5.0)
    begin = time.monotonic()
    shell.wait(1_000_000.0)
    assert shell.now() == 1_000_000.0
    assert shell.waits == [999_995.0]
    assert time.monotonic() - begin < 10
    shell.wait(3.0)
    assert shell.now() == 1_000_000.0


def test_the_fake_shell_ends_a_body_that_spends_too_much():
    shell = FakeShell()
    assert shell.call(Call(lambda: shell.spend(1.0), timeout=2.0)) == Returned(None)
    assert shell.call(Call(lambda: shell.spend(3.0), timeout=2.0)) == Overran(2.0)
    assert shell.now() == 3.0
    assert len(shell.calls) == 2
