"""Script: a mapped flow in Prefect 1.4.1, on its `DaskExecutor`.

``python prefect_1.py CHILDREN`` prints how many children per second it ran.
"""

from __future__ import annotations

import os
import sys
import time

# Read when the package is imported.
os.environ["PREFECT__LOGGING__LEVEL"] = "ERROR"
os.environ["PREFECT__CLOUD__SEND_FLOW_RUN_LOGS"] = "false"


def nothing(number: int) -> None:
    """Body of a child that does nothing."""


def numbers(count: int) -> list[int]:
    """Body of the task whose value is mapped over."""
    return list(range(count))


def count_of(children: list[None]) -> int:
    """Body of the reduce."""
    return len(children)


def rate(children: int) -> float:
    """Children per second, on two worker processes."""
    from distributed import LocalCluster
    from prefect import Flow, task
    from prefect.executors import DaskExecutor

    def run(count: int) -> float:
        with Flow("children") as flow:
            total = task(count_of)(task(nothing).map(task(numbers)(count)))
        begin = time.perf_counter()
        state = flow.run(executor=executor)
        took = time.perf_counter() - begin
        if state.result[total].result != count:
            raise RuntimeError(f"the flow did not run {count} children: {state!r}")
        return count / took

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        executor = DaskExecutor(address=cluster.scheduler_address)
        run(20)  # what is loaded once
        return run(children)


if __name__ == "__main__":
    print(rate(int(sys.argv[1])))
