"""Retries: children that wait for their next attempt hold no worker thread.

100 children on 2 threads fail once and wait 5 s. Held threads would need 250 s; ideal
is one wait.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.comparison import Bar, Measurement, Pair, seconds
from prefect_dask_core import Flow, Task, context


def fail_once(number: int) -> int:
    """Body that succeeds at its second attempt."""
    if context.task_run_count < 2:
        raise RuntimeError("the first attempt always fails")
    return number


def measure(bench: Bench) -> Iterator[Measurement]:
    """A whole run, from `flow.run` to its state."""
    count = bench.choose(100, 10)
    delay = bench.choose(5.0, 0.5)
    flaky = Task(fail_once, retries=1, retry_delay_seconds=delay)
    with Flow("retries") as flow:
        children = flaky.map(list(range(count)))

    def run() -> None:
        state = flow.run(task_runner=bench.runner)
        if state[children].result() != list(range(count)):
            raise RuntimeError(f"not every child succeeded: {state!r}")

    bench.settle()
    what = f"{count} children on 2 threads, each waits {delay:g} s; peer: one wait"
    yield Measurement(what, "s", (Pair(seconds(run), delay),), Bar("ours", 12))
