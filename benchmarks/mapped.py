"""Mapped tasks: many tiny children beside `client.map`, and long ones beside no cost.

The list that is mapped over is made by a task, so its length is known only at run
time, and a reduce follows.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from benchmarks.bench import Bench, open_bench
from benchmarks.comparison import Bar, Measurement, Pair, in_turns, seconds
from prefect_dask_core import Flow, Task

#: Children per second, by those of `client.map`.
RATE_GOAL: Final = Bar("ratio", 150, at_least=True, binding=False)
MICROSECONDS_GOAL: Final = Bar("ours", 10, binding=False)
LONG_GOAL: Final = Bar("ratio", 1.05, binding=False)


def measure(bench: Bench) -> Iterator[Measurement]:
    """Tiny children on two threads, then long ones on four."""
    yield from measure_tiny(bench)
    with open_bench(bench.quick, threads_per_worker=2) as wider:
        yield measure_long(wider)


# -- tiny ----------------------------------------------------------------------------


def nothing(number: int) -> None:
    """Body of a child that does nothing."""


def numbers(count: int) -> list[int]:
    """Body of the task whose value is mapped over."""
    return list(range(count))


def count_of(children: list[None]) -> int:
    """Body of the reduce."""
    return len(children)


def measure_tiny(bench: Bench) -> Iterator[Measurement]:
    """No-op children, as a rate and as a cost."""
    ours, theirs = bench.choose((100_000, 5_000), (2_000, 200))
    with Flow("tiny children") as flow:
        total = Task(count_of)(Task(nothing).map(Task(numbers)(ours)))

    def run() -> None:
        state = flow.run(task_runner=bench.runner)
        if state[total].result() != ours:
            raise RuntimeError(f"the flow did not run {ours} children: {state!r}")

    def run_raw() -> None:
        futures = bench.client.map(nothing, range(theirs), pure=False)
        if len(bench.client.gather(futures)) != theirs:
            raise RuntimeError(f"client.map did not run {theirs} tasks")

    def our_rate() -> float:
        bench.settle()
        return ours / seconds(run)

    def their_rate() -> float:
        bench.settle()
        return theirs / seconds(run_raw)

    rates = in_turns(our_rate, their_rate, bench.choose(4, 1))
    what = f"{ours:,} no-op children and a reduce; peer: client.map of {theirs:,}"
    yield Measurement(what, "children per s", rates, RATE_GOAL)
    costs = tuple(Pair(1e6 / o, 1e6 / p) for o, p in rates if p is not None)
    yield Measurement("  the same as a cost", "µs per child", costs, MICROSECONDS_GOAL)


# -- long ----------------------------------------------------------------------------


def pause(duration: float) -> None:
    """Body that takes its time, in seconds, and does nothing with it."""
    time.sleep(duration)


def measure_long(bench: Bench) -> Measurement:
    """Children so long that every second of waste shows."""
    count, duration, threads = bench.choose(64, 8), bench.choose(0.25, 0.05), 4
    with Flow("long children") as flow:
        children = Task(pause).map([duration] * count)
    ideal = count * duration / threads

    def run() -> None:
        state = flow.run(task_runner=bench.runner)
        if not state[children].is_successful():
            raise RuntimeError(f"not every child succeeded: {state!r}")

    pairs = []
    for _ in range(bench.choose(3, 1)):
        bench.settle()
        pairs.append(Pair(seconds(run), ideal))
    what = f"{count} children of {duration:g} s on {threads} threads; peer: ideal"
    return Measurement(what, "s", tuple(pairs), LONG_GOAL)
