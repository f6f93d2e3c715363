"""Script: a mapped flow in Prefect 3, on the `DaskTaskRunner` of prefect-dask.

``python prefect_3.py CHILDREN`` prints how many children per second it ran. The server
that this Prefect needs is one that it starts for itself, with an empty database, and
nothing is told to anybody.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time


def settings(home: str) -> dict[str, str]:
    """Variables of the environment, read when the package is imported."""
    return {
        "PREFECT_HOME": home,
        "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "true",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_LOGGING_TO_API_ENABLED": "false",
    }


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
    from prefect import flow, task
    from prefect_dask import DaskTaskRunner

    def run(count: int) -> float:
        def many() -> int:
            above = task(numbers).submit(count)
            total = task(count_of).submit(task(nothing).map(above))
            found: int = total.result()
            return found

        runner = DaskTaskRunner(address=cluster.scheduler_address)
        flow_of_many = flow(task_runner=runner)(many)
        begin = time.perf_counter()
        found = flow_of_many()
        took = time.perf_counter() - begin
        if found != count:
            raise RuntimeError(f"the flow ran {found} children, and not {count}")
        return count / took

    with LocalCluster(  # type: ignore[no-untyped-call]
        n_workers=2, threads_per_worker=1, dashboard_address=":0"
    ) as cluster:
        run(20)  # what is loaded once, and the server
        return run(children)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ.update(settings(folder))
        print(rate(int(sys.argv[1])))
