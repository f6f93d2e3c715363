"""Bench: the cluster that both sides share, and the sizes of a run."""

from __future__ import annotations

import contextlib
import gc
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

from distributed import LocalCluster

from prefect_dask_core import DaskTaskRunner

#: Seconds that a scheduler is given to forget the work of the side before.
PATIENCE: Final = 60.0

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


@contextlib.contextmanager
def open_bench(quick: bool, threads_per_worker: int = 1) -> Iterator[Bench]:
    """A bench on two worker processes of this machine, as long as it is open."""
    with (
        LocalCluster(  # type: ignore[no-untyped-call]
            n_workers=2,
            threads_per_worker=threads_per_worker,
            processes=True,
            dashboard_address=":0",
        ) as cluster,
        DaskTaskRunner(cluster=cluster) as runner,
    ):
        yield Bench(runner, quick)


def count_tasks(dask_scheduler: Any = None) -> int:
    """Number of tasks a scheduler holds; runs there."""
    return len(dask_scheduler.tasks)
