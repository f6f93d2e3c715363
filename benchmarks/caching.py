"""Caching: what it costs to find a value in a store, to keep one, and to lock its key.

All children have distinct inputs. The folder of the store is on the disk of this
machine, and its files are in the memory of the system: what is measured is the work of
the package, not of a disk.
"""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

from benchmarks.bench import Bench
from benchmarks.comparison import Measurement, in_turns, seconds
from prefect_dask_core import Flow, ResultStore, Task
from prefect_dask_core.results import INPUTS, NO_CACHE

#: Keys of inputs, and one run at a time computes each.
ONE_AT_A_TIME: Final = INPUTS.configure(isolation_level="SERIALIZABLE")


def nothing(number: int) -> None:
    """Body of a child that does nothing."""


def measure(bench: Bench) -> Iterator[Measurement]:
    """Children that find, keep and lock, beside no-ops without a store."""
    bench.warm_up()
    count = bench.choose(10_000, 500)
    rounds = bench.choose(4, 1)
    plain = partial(cost, bench, Task(nothing), count)
    with tempfile.TemporaryDirectory() as folder:
        ways: dict[str, Any] = {
            "that find their value": {"cache_policy": INPUTS},
            "that keep their value by input": {"cache_policy": INPUTS},
            "that keep their value by run": {
                "cache_policy": NO_CACHE,
                "persist_result": True,
            },
            "that keep and lock": {"cache_policy": ONE_AT_A_TIME},
        }
        for what, options in ways.items():
            fills = what.endswith("find their value")
            run = partial(cost_with_store, bench, folder, count, options, fills)
            pairs = in_turns(run, plain, rounds)
            told = f"{count:,} children {what} in a folder; peer: no-ops without store"
            yield Measurement(told, "µs per child", pairs)


def cost_with_store(
    bench: Bench, folder: str, count: int, options: dict[str, Any], filled: bool
) -> float:
    """Microseconds per child of a task that keeps its values in a fresh store.

    Parameters
    ----------
    bench : Bench
        The bench.
    folder : str
        Where stores are made.
    count : int
        Number of children.
    options : dict of str to object
        Options of the task.
    filled : bool
        Whether all values are there before the measured run.
    """
    store = ResultStore(f"{folder}/{uuid.uuid4().hex}")
    task = Task(nothing, result_storage=store, **options)
    if filled:
        cost(bench, task, count)
    return cost(bench, task, count, "Cached" if filled else "Completed")


def cost(
    bench: Bench, task: Task[..., Any], count: int, name: str = "Completed"
) -> float:
    """Microseconds per child of a mapped task.

    Raises
    ------
    RuntimeError
        If the children did not end in states of that name.
    """
    with Flow("children with a store") as flow:
        children = task.map(list(range(count)))

    def run() -> None:
        state = flow.run(task_runner=bench.runner)
        found = state[children].states.counts()  # type: ignore[union-attr]
        if found != {name: count}:
            raise RuntimeError(f"the children ended as {found}, not all as {name}")

    bench.settle()
    return 1e6 * seconds(run) / count
