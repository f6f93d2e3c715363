"""Bench: the cluster that both sides share, and the sizes of a run."""

from __future__ import annotations

import contextlib
import gc
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from distributed import LocalCluster
from distributed.deploy.subprocess import SubprocessCluster

from benchmarks.processes import count_tasks
from prefect_dask_core import DaskTaskRunner, Flow, Task

#: Seconds that a scheduler is given to forget the work of the side before.
PATIENCE: Final = 60.0
#: How the setting of Dask is spelt that says how long its logs are.
LOG_LENGTH: Final = "DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH"

Size = TypeVar("Size")


@dataclass(frozen=True, slots=True)
class Bench:
    """Where measurements are made.

    Parameters
    ----------
    runner : DaskTaskRunner
        Open, on the cluster.
    quick : bool
        Whether small sizes are enough, as when only the scripts are tried.
    """

    runner: DaskTaskRunner
    quick: bool

    @property
    def client(self) -> Any:
        """The `distributed.Client` that both sides use; its methods have no types."""
        return self.runner.client

    def choose(self, full: Size, quick: Size) -> Size:
        """The size for this run."""
        return quick if self.quick else full

    def settle(self) -> None:
        """Wait until nothing of earlier work is left.

        Neither side pays for garbage and keys of the other.

        Raises
        ------
        RuntimeError
            If the scheduler still holds tasks after a minute.
        """
        deadline = time.monotonic() + PATIENCE
        gc.collect()
        while left := self.client.run_on_scheduler(count_tasks):
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"the scheduler still holds {left} tasks of earlier work; "
                    "somebody keeps their futures."
                )
            time.sleep(0.01)

    def warm_up(self) -> None:
        """Let the workers import what a flow needs."""
        with Flow("warm up") as flow:
            Task(abs, name="warm up").map(list(range(100)))
        flow.run(task_runner=self.runner)
        self.settle()


@contextlib.contextmanager
def open_bench(
    quick: bool, threads_per_worker: int = 1, workers: int = 2
) -> Iterator[Bench]:
    """A bench on worker processes of this machine, as long as it is open."""
    with (
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=workers,
            threads_per_worker=threads_per_worker,
            processes=True,
            dashboard_address=":0",
        ) as cluster,
        DaskTaskRunner(cluster=cluster) as runner,
    ):
        yield Bench(runner, quick)


@contextlib.contextmanager
def open_apart(log_length: int | None = None) -> Iterator[str]:
    """Address of a scheduler in a process of its own, with two workers.

    A `LocalCluster` runs its scheduler in the process of the client, where nobody can
    tell whose memory is whose.

    Parameters
    ----------
    log_length : int, optional
        Messages and transitions that Dask keeps of late, each in a log of its own;
        1,000 unless given.
    """
    with contextlib.ExitStack() as stack:
        if log_length is not None:
            stack.enter_context(_variable(LOG_LENGTH, str(log_length)))
        cluster = stack.enter_context(
            SubprocessCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0")
        )
        yield cluster.scheduler_address


@contextlib.contextmanager
def _variable(name: str, value: str) -> Iterator[None]:
    """An environment variable, for processes that are started meanwhile."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
