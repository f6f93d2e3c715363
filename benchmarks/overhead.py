"""Overhead: what a single task and the building of a flow cost."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from benchmarks.bench import Bench
from benchmarks.comparison import Bar, Measurement, in_turns, seconds
from benchmarks.static_graphs import TASKS, Edges, one, scattered
from prefect_dask_core import Flow, Task


def measure(bench: Bench) -> Iterator[Measurement]:
    """Both."""
    yield measure_one_task(bench)
    yield measure_build(bench)


def measure_one_task(bench: Bench) -> Measurement:
    """A flow of one task, from start to state, on a cluster that is there."""
    with Flow("one task") as flow:
        only = TASKS[0]()

    def run() -> None:
        if flow.run(task_runner=bench.runner)[only].result() != 1:
            raise RuntimeError("the flow gave another value")

    def run_raw() -> None:
        if bench.client.submit(one, pure=False).result() != 1:
            raise RuntimeError("the task gave another value")

    def milliseconds(work: partial[float]) -> float:
        bench.settle()
        return 1e3 * work()

    pairs = in_turns(
        partial(milliseconds, partial(seconds, run)),
        partial(milliseconds, partial(seconds, run_raw)),
        rounds=bench.choose(30, 4),
        warm_up=3,
    )
    what = "flow of one task; peer: client.submit(...).result()"
    return Measurement(what, "ms", pairs, Bar("difference", 25))


def measure_build(bench: Bench) -> Measurement:
    """Whether a task costs more in a large flow than in a small one."""
    large, small = bench.choose((20_000, 2_000), (1_000, 200))
    many, few = scattered(large), scattered(small)
    repeats = large // small  # both sides build as many tasks

    def cost(edges: Edges, times: int) -> float:
        bench.settle()
        return 1e6 * seconds(lambda: build(edges, times)) / (len(edges) * times)

    pairs = in_turns(
        partial(cost, many, 1), partial(cost, few, repeats), bench.choose(6, 2)
    )
    what = f"build and validate a flow of {large:,} tasks; peer: of {small:,}"
    return Measurement(what, "µs per task", pairs, Bar("ratio", 1.3))


def build(edges: Edges, times: int) -> None:
    """Build a flow and look for cycles, some times over."""
    for _ in range(times):
        nodes: list[Task] = []
        with Flow("build") as flow:
            for above in edges:
                nodes.append(TASKS[len(above)](*[nodes[i] for i in above]))
        flow.validate()
