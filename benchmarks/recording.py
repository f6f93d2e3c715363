"""Recording: what the ledger costs a map, beside the same map without it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Final

from benchmarks.bench import Bench
from benchmarks.comparison import Bar, Measurement, in_turns, seconds
from benchmarks.mapped import count_of, nothing, numbers
from prefect_dask_core import Flow, Task
from prefect_dask_core.ledger import Ledger

#: Seconds with a ledger, by those without.
LEDGER_BAR: Final = Bar("ratio", 1.05)


def measure(bench: Bench) -> Iterator[Measurement]:
    """A map of no-op children, recorded and not."""
    count = bench.choose(100_000, 2_000)
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder, "ledger.sqlite"))
        run_map(bench, count, ledger)  # loads what both ways need, once
        pairs = in_turns(
            partial(run_map, bench, count, ledger),
            partial(run_map, bench, count, None),
            bench.choose(60, 1),  # what it costs is little more than the noise
        )
        check(ledger, count)
    what = f"map of {count:,} no-op children, with a ledger; peer: without"
    yield Measurement(what, "s", pairs, LEDGER_BAR)


def run_map(bench: Bench, count: int, ledger: Ledger | None) -> float:
    """Seconds of a flow that makes a list, maps over it, and reduces."""
    with Flow("recorded") as flow:
        total = Task(count_of)(Task(nothing).map(Task(numbers)(count)))

    def run() -> None:
        state = flow.run(task_runner=bench.runner, ledger=ledger or False)
        if state[total].result() != count:
            raise RuntimeError(f"the flow did not run {count} children: {state!r}")

    bench.settle()
    return seconds(run)


def check(ledger: Ledger, count: int) -> None:
    """Look whether the ledger has what happened."""
    for record in ledger.runs(limit=None):
        if record.counts != {"Completed": count + 2}:
            raise RuntimeError(f"the ledger has {record.counts} of {count} children")
