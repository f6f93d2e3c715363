"""Submits: function flows that submit tasks, beside loops of `client.submit`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from benchmarks.bench import Bench, open_bench
from benchmarks.comparison import Bar, Measurement, Pair, in_turns, seconds
from prefect_dask_core import flow, task

LOOP_BAR: Final = Bar("ratio", 1.0)
ONE_TASK_BAR: Final = Bar("difference", 25)
#: Seconds; one worker thread that ran them one by one would need 200.
ASYNC_BAR: Final = Bar("ours", 3)


def measure(bench: Bench) -> Iterator[Measurement]:
    """A loop, a single task, and asynchronous children on a single thread."""
    bench.warm_up()
    yield measure_loop(bench)
    yield measure_one_task(bench)
    with open_bench(bench.quick, workers=1) as narrow:
        narrow.warm_up()
        yield measure_async(narrow)


# -- a loop of submits -----------------------------------------------------------------


def add_one(number: int) -> int:
    """Body of what is submitted."""
    return number + 1


def measure_loop(bench: Bench) -> Measurement:
    """Submits one by one, until all results are there."""
    count = bench.choose(5_000, 200)
    expected = list(range(1, count + 1))
    step = task(add_one)

    @flow(name="loop", task_runner=bench.runner)
    def loop() -> list[int]:
        futures = [step.submit(number) for number in range(count)]
        return [future.result() for future in futures]

    def run_raw() -> list[int]:
        client = bench.client
        futures = [client.submit(add_one, n, pure=False) for n in range(count)]
        found: list[int] = client.gather(futures)
        return found

    ours = partial(time_checked, bench, loop, expected)
    peer = partial(time_checked, bench, run_raw, expected)
    what = f"{count:,} submits and results; peer: client.submit, gather"
    pairs = in_turns(ours, peer, rounds=bench.choose(4, 1))
    return Measurement(what, "s", pairs, LOOP_BAR)


def time_checked(bench: Bench, work: Any, expected: object) -> float:
    """Seconds of a piece of work, which has to give what is expected."""
    values: list[object] = []
    bench.settle()
    took = seconds(lambda: values.append(work()))
    if values != [expected]:
        raise RuntimeError(f"{getattr(work, 'name', work)} gave other values")
    return took


# -- a single task ---------------------------------------------------------------------


def measure_one_task(bench: Bench) -> Measurement:
    """A flow that submits one task, from its call to its value."""
    step = task(add_one)

    @flow(name="one submit", task_runner=bench.runner)
    def one_submit() -> int:
        return step.submit(0).result()

    def run_raw() -> int:
        found: int = bench.client.submit(add_one, 0, pure=False).result()
        return found

    pairs = in_turns(
        lambda: 1e3 * time_checked(bench, one_submit, 1),
        lambda: 1e3 * time_checked(bench, run_raw, 1),
        rounds=bench.choose(30, 4),
        warm_up=3,
    )
    what = "function flow of one submit; peer: client.submit(...).result()"
    return Measurement(what, "ms", pairs, ONE_TASK_BAR)


# -- asynchronous children -------------------------------------------------------------


async def wait_and_give(number: int, duration: float) -> int:
    """Body that waits, in seconds, and holds no thread meanwhile."""
    await asyncio.sleep(duration)
    return number


def measure_async(bench: Bench) -> Measurement:
    """Coroutines on one worker with one thread, which waits for many at once."""
    count, duration = bench.choose(1_000, 50), 0.2
    waiting = task(wait_and_give)

    @flow(name="coroutines", task_runner=bench.runner)
    def coroutines() -> Any:
        return waiting.map(range(count), duration).result()

    expected = list(range(count))
    pairs = tuple(
        Pair(time_checked(bench, coroutines, expected), duration)
        for _ in range(bench.choose(3, 1))
    )
    what = f"{count:,} async children of {duration:g} s on 1 thread; peer: one wait"
    return Measurement(what, "s", pairs, ASYNC_BAR)
