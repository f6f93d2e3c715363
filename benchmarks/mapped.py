"""Mapped tasks: children that are tiny, long, or unlike each other.

The list that tiny children are mapped over is made by a task, so its length is known
only at run time, and a reduce follows.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Final

from benchmarks.bench import Bench, open_bench
from benchmarks.comparison import Bar, Measurement, Pair, in_turns, seconds
from prefect_dask_core import Flow, State, Task, flatten

#: Children per second, by those of `client.map`.
RATE_BAR: Final = Bar("ratio", 150, at_least=True)
MICROSECONDS_BAR: Final = Bar("ours", 10)
LONG_BAR: Final = Bar("ratio", 1.05)
HEAVY_TAILED_BAR: Final = Bar("ratio", 1.05)
GROWING_BAR: Final = Bar("ratio", 1.10)
#: Of the two workers that children which take their time run on.
THREADS: Final = 4


def measure(bench: Bench) -> Iterator[Measurement]:
    """Tiny children on two threads, then such as take their time on four."""
    yield from measure_tiny(bench)
    yield measure_failing(bench)
    yield measure_flattened(bench)
    with open_bench(bench.quick, threads_per_worker=THREADS // 2) as wider:
        wider.warm_up()
        yield measure_long(wider)
        yield from measure_uneven(wider)


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
    rates = in_turns(
        partial(rate_of_flow, bench, ours),
        partial(rate_of_client_map, bench, theirs),
        bench.choose(4, 1),
    )
    what = f"{ours:,} no-op children and a reduce; peer: client.map of {theirs:,}"
    yield Measurement(what, "children per s", rates, RATE_BAR)
    costs = tuple(Pair(1e6 / o, 1e6 / p) for o, p in rates if p is not None)
    yield Measurement("  the same as a cost", "µs per child", costs, MICROSECONDS_BAR)


def rate_of_flow(bench: Bench, count: int) -> float:
    """Children per second of a flow that makes a list, maps over it, and reduces."""
    with Flow("tiny children") as flow:
        total = Task(count_of)(Task(nothing).map(Task(numbers)(count)))

    def run() -> None:
        state = flow.run(task_runner=bench.runner)
        if state[total].result() != count:
            raise RuntimeError(f"the flow did not run {count} children: {state!r}")

    bench.settle()
    return count / seconds(run)


def rate_of_client_map(bench: Bench, count: int) -> float:
    """Tasks per second of `client.map` and `gather`."""

    def run() -> None:
        futures = bench.client.map(nothing, range(count), pure=False)
        if len(bench.client.gather(futures)) != count:
            raise RuntimeError(f"client.map did not run {count} tasks")

    bench.settle()
    return count / seconds(run)


# -- tiny, with more to them ---------------------------------------------------------


def fail_sometimes(number: int) -> int:
    """Body of which every tenth fails."""
    if number % 10 == 0:
        raise ValueError(f"number {number} is bad")
    return number


def measure_failing(bench: Bench) -> Measurement:
    """Children of which every tenth fails, its traceback included, as a cost."""
    ours, theirs = bench.choose((100_000, 5_000), (2_000, 200))
    pairs = in_turns(
        partial(cost_of_failing_flow, bench, ours),
        partial(cost_of_failing_client_map, bench, theirs),
        bench.choose(4, 1),
    )
    what = f"{ours:,} children, every tenth fails; peer: client.map of {theirs:,}"
    return Measurement(what, "µs per child", pairs)


def cost_of_failing_flow(bench: Bench, count: int) -> float:
    """Microseconds per child of a flow of which every tenth child fails."""
    with Flow("failing children") as flow:
        children = Task(fail_sometimes).map(Task(numbers)(count))
    found, took = state_and_seconds(bench, flow, children)
    if sum(child.is_failed() for child in found) != count // 10:
        raise RuntimeError(f"not every tenth child failed: {found!r}")
    return 1e6 * took / count


def state_and_seconds(bench: Bench, flow: Flow, task: Any) -> tuple[State, float]:
    """State of a task of a flow that was run, and the seconds that took."""
    bench.settle()
    begin = time.perf_counter()
    state = flow.run(task_runner=bench.runner)
    return state[task], time.perf_counter() - begin


def cost_of_failing_client_map(bench: Bench, count: int) -> float:
    """Microseconds per task of the same in `client.map`, with every exception."""
    client = bench.client

    def run() -> None:
        futures = client.map(fail_sometimes, range(count), pure=False)
        client.gather(futures, errors="skip")
        failed = [f.exception() for f in futures if f.status == "error"]
        if len(failed) != count // 10:
            raise RuntimeError("not every tenth task failed")

    bench.settle()
    return 1e6 * seconds(run) / count


def ten_of(number: int) -> list[int]:
    """Body of a child whose value is mapped over in its turn."""
    return [number] * 10


def measure_flattened(bench: Bench) -> Measurement:
    """A fan-out of lists, flattened and mapped over, as a cost per element."""
    ours, theirs = bench.choose((20_000, 500), (500, 20))
    pairs = in_turns(
        partial(cost_of_flattened_flow, bench, ours),
        partial(cost_of_flattened_client_map, bench, theirs),
        bench.choose(4, 1),
    )
    what = f"{ours:,} lists of 10, flattened; peer: two client.map of {theirs:,} lists"
    return Measurement(what, "µs per element", pairs)


def cost_of_flattened_flow(bench: Bench, count: int) -> float:
    """Microseconds per element of a flow that maps over lists, flattened."""
    with Flow("flattened children") as flow:
        children = Task(nothing).map(flatten(Task(ten_of).map(Task(numbers)(count))))
    found, took = state_and_seconds(bench, flow, children)
    if len(found) != 10 * count:
        raise RuntimeError(f"not every element was mapped over: {found!r}")
    return 1e6 * took / (10 * count)


def cost_of_flattened_client_map(bench: Bench, count: int) -> float:
    """Microseconds per element of the same, by way of the client."""
    client = bench.client

    def run() -> None:
        lists = client.gather(client.map(ten_of, range(count), pure=False))
        elements = [element for found in lists for element in found]
        client.gather(client.map(nothing, elements, pure=False))

    bench.settle()
    return 1e6 * seconds(run) / (10 * count)


# -- long ----------------------------------------------------------------------------


def pause(duration: float) -> None:
    """Body that takes its time, in seconds, and does nothing with it."""
    time.sleep(duration)


def measure_long(bench: Bench) -> Measurement:
    """Children so long that every second of waste shows."""
    count, duration = bench.choose(64, 8), bench.choose(0.25, 0.05)
    durations = [duration] * count
    ideal = sum(durations) / THREADS
    pairs = tuple(
        Pair(time_flow(bench, durations), ideal) for _ in range(bench.choose(5, 1))
    )
    what = f"{count} children of {duration:g} s on {THREADS} threads; peer: ideal"
    return Measurement(what, "s", pairs, LONG_BAR)


def time_flow(bench: Bench, durations: Sequence[float]) -> float:
    """Seconds of a flow whose children take some time each."""
    with Flow("pauses") as flow:
        children = Task(pause).map(durations)
    found, took = state_and_seconds(bench, flow, children)
    if not found.is_successful():
        raise RuntimeError(f"not every child succeeded: {found!r}")
    return took


def time_raw(bench: Bench, durations: Sequence[float]) -> float:
    """Seconds of the same in `client.map`."""
    client = bench.client
    bench.settle()
    return seconds(lambda: client.gather(client.map(pause, durations, pure=False)))


# -- unlike each other -----------------------------------------------------------------


def measure_uneven(bench: Bench) -> Iterator[Measurement]:
    """Children whose durations no first look at them foretells."""
    count = bench.choose(2_000, 100)
    kinds = (
        ("log-normal", heavy_tailed(count), HEAVY_TAILED_BAR),
        ("1,000-fold growing", growing(count), GROWING_BAR),
    )
    for kind, durations, bar in kinds:
        pairs = in_turns(
            partial(time_flow, bench, durations),
            partial(time_raw, bench, durations),
            rounds=bench.choose(3, 1),
            warm_up=0,
        )
        what = f"{count:,} children, {kind} durations; peer: client.map"
        yield Measurement(what, "s", pairs, bar)


def heavy_tailed(count: int, mean: float = 0.02, sigma: float = 1.5) -> list[float]:
    """Log-normal durations in seconds; always the same ones.

    Examples
    --------
    >>> found = heavy_tailed(2_000)
    >>> 0.018 < sum(found) / 2_000 < 0.022, max(found) > 20 * 0.02
    (True, True)
    """
    chance = random.Random(1)
    # The mean of a log-normal distribution is exp(mu + sigma ** 2 / 2).
    mu = math.log(mean) - sigma**2 / 2
    return [chance.lognormvariate(mu, sigma) for _ in range(count)]


def growing(count: int, mean: float = 0.01, factor: float = 1000.0) -> list[float]:
    """Durations in seconds that grow along the index, by a factor in all.

    Each is up to a fifth off the curve; always the same ones.

    Examples
    --------
    >>> found = growing(2_000)
    >>> 0.0095 < sum(found) / 2_000 < 0.0105
    True
    >>> 600 < found[-1] / found[0] < 1500
    True
    """
    chance = random.Random(1)
    # The mean of an exponential from 1 to `factor` is (factor - 1) / log(factor).
    first = mean * math.log(factor) / (factor - 1)
    return [
        first * factor ** (i / max(count - 1, 1)) * chance.uniform(0.8, 1.2)
        for i in range(count)
    ]
